//! A process that is killed in the middle of a commit leaves locks, half-built journals and half-stored pages in the shared
//! mapping. Here writers and readers of one bank, each a process, are killed at random moments; those that live on must get
//! on with it, and what is found afterwards must contain every acknowledged transaction, none in part, and nothing else.
//! `NVLITE_KILL_ROUNDS` asks for a number of rounds, done whatever time they take, `NVLITE_KILL_SEED` for others.

#![allow(clippy::panic)]

use nvlite_tests::sim::mix;
use nvlite_tests::sql::bank::{self, PARTS};
use nvlite_tests::sql::{Scratch, System, integrity, stock_integrity};
use std::io::{BufRead as _, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

/// Nobody may be silent for so long: then something hangs. Generous, for slow and busy machines.
const PATIENCE: Duration = Duration::from_secs(120);
/// Rounds that are done however slow the machine is.
const LEAST: u64 = 20;
/// Rounds with one database.
const ROUNDS_OF_A_GROUND: u64 = 25;
/// Of `PRAGMA synchronous`. The death of processes takes nothing that was acknowledged at any of them (P5).
const LEVELS: [&str; 3] = ["OFF", "NORMAL", "FULL"];

fn asked(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|value| value.parse().unwrap_or_else(|e| panic!("{name}={value}: {e}")))
}

/// A worker process, and what it has said.
struct Worker {
    child: Child,
    owner: i64,
    role: &'static str,
    said: Receiver<String>,
    listener: Option<JoinHandle<()>>,
    acknowledged: Vec<i64>,
    tried: i64,
    views: u64,
}

impl Worker {
    fn start(system: System, path: &Path, owner: i64, role: &'static str, seed: u64, level: &str) -> Worker {
        let (path, owner_name) = (path.to_str().expect("a plain path"), owner.to_string());
        let mut child = Command::new(env!("CARGO_BIN_EXE_kill_worker"))
            .args([system.name(), path, &owner_name, role, &seed.to_string(), level])
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
            .expect("a worker starts");
        let out = BufReader::new(child.stdout.take().expect("a pipe"));
        let (tell, said) = channel();
        let listener = std::thread::spawn(move || {
            for line in out.lines().map_while(Result::ok) {
                if tell.send(line).is_err() {
                    break;
                }
            }
        });
        let listener = Some(listener);
        Worker { child, owner, role, said, listener, acknowledged: Vec::new(), tried: -1, views: 0 }
    }

    fn hear(&mut self, line: &str) {
        let mut words = line.split(' ');
        let what = words.next();
        let serial = words.next().and_then(|word| word.parse().ok()).unwrap_or(0);
        match what {
            Some("ack") => self.acknowledged.push(serial),
            Some("try") => self.tried = serial,
            Some("saw") => self.views += 1,
            Some("ready") => {}
            _ => panic!("{} {} said: {line}", self.role, self.owner),
        }
    }

    /// Waits until it has said something more.
    fn next(&mut self) {
        match self.said.recv_timeout(PATIENCE) {
            Ok(line) => self.hear(&line),
            Err(RecvTimeoutError::Timeout) => panic!("{} {} hangs", self.role, self.owner),
            Err(RecvTimeoutError::Disconnected) => {
                panic!("{} {} ended: {:?}", self.role, self.owner, self.child.try_wait());
            }
        }
    }

    /// Waits until it has done two things more: after a death nearby, one may be the end of something begun before.
    fn gets_on(&mut self) {
        while let Ok(line) = self.said.try_recv() {
            self.hear(&line);
        }
        let before = self.acknowledged.len() as u64 + self.views;
        while self.acknowledged.len() as u64 + self.views < before + 2 {
            self.next();
        }
    }

    fn kill(&mut self) {
        self.child.kill().expect("SIGKILL");
        self.child.wait().expect("dead");
        self.listener.take().map(JoinHandle::join);
        while let Ok(line) = self.said.try_recv() {
            self.hear(&line);
        }
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A worker that is dead, and what it was told and tried until then.
struct Dead {
    owner: i64,
    acknowledged: Vec<i64>,
    tried: i64,
}

/// A database that is worked on over many rounds.
struct Ground {
    system: System,
    path: PathBuf,
    scratch: Scratch,
    /// All that ever worked here: what one of them was told must outlast every later recovery, too.
    dead: Vec<Dead>,
    next_owner: i64,
    seed: u64,
    drawn: u64,
    /// Those at which this round's workers commit.
    levels: &'static [&'static str],
}

impl Ground {
    fn new(system: System, seed: u64) -> Ground {
        let scratch = system.scratch();
        let path = scratch.path("bank.db");
        bank::found(&mut system.open(&path, 1000).expect("opens")).expect("founds the bank");
        Ground { system, path, scratch, dead: Vec::new(), next_owner: 0, seed, drawn: 0, levels: &LEVELS }
    }

    fn below(&mut self, n: u64) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn) % n
    }

    fn worker(&mut self, role: &'static str) -> Worker {
        self.next_owner += 1;
        let level = self.levels[self.below(self.levels.len() as u64) as usize];
        Worker::start(self.system, &self.path, self.next_owner, role, self.seed, level)
    }

    /// Its workers are dead, and what they were told counts from now on.
    fn bury(&mut self, workers: Vec<Worker>) {
        for mut worker in workers {
            let acknowledged = std::mem::take(&mut worker.acknowledged);
            self.dead.push(Dead { owner: worker.owner, acknowledged, tried: worker.tried });
        }
    }

    /// Transactions that were acknowledged.
    fn acknowledged(&self) -> usize {
        self.dead.iter().map(|worker| worker.acknowledged.len()).sum()
    }

    /// Acknowledged transactions are there, those of rounds that were not checked too, and each is whole.
    fn check(&self, round: u64) {
        let context = format!("{:?}, seed {}, round {round}", self.system, self.seed);
        let mut db = self.system.open(&self.path, 60_000).unwrap_or_else(|e| panic!("{context}: reopen: {e}"));
        bank::audit(&mut db, &[]).unwrap_or_else(|e| panic!("{context}: {e}"));
        for worker in &self.dead {
            let serials = bank::serials(&db, worker.owner).unwrap_or_else(|e| panic!("{context}: {e}"));
            for serial in &worker.acknowledged {
                assert_eq!(serials.get(serial), Some(&PARTS), "{context}: owner {} serial {serial}", worker.owner);
            }
            let most = serials.keys().max().copied().unwrap_or(-1);
            assert!(most <= worker.tried, "{context}: serial {most} was never tried");
        }
        assert_eq!(integrity(&db).as_deref(), Ok("ok"), "{context}");
    }

    /// The end of its rounds: once more all that was acknowledged, and a clean close leaves a stock file.
    fn leave(&self, round: u64) {
        self.check(round);
        let names = self.scratch.names();
        assert_eq!(stock_integrity(&self.path).as_deref(), Ok("ok"), "{:?}, round {round}: {names:?}", self.system);
    }

    /// Starts a crowd, kills some of it, waits for the others to get on, and at the end kills all at once.
    fn round(&mut self, round: u64) -> usize {
        let level = self.below(LEVELS.len() as u64 + 1) as usize; // all at one, or each at its own
        self.levels = LEVELS.get(level..=level).unwrap_or(&LEVELS);
        let mut crowd: Vec<Worker> = ["write", "write", "write", "read", "hold"].map(|role| self.worker(role)).into();
        if round.is_multiple_of(4) {
            crowd.iter_mut().for_each(Worker::next);
        }
        let mut dead = Vec::new();
        for _ in 0..self.below(4) {
            std::thread::sleep(Duration::from_micros(self.below(30_000)));
            let i = self.below(crowd.len() as u64) as usize;
            let mut worker = crowd.swap_remove(i);
            worker.kill();
            let role = worker.role;
            dead.push(worker);
            crowd.iter_mut().for_each(Worker::gets_on);
            crowd.push(self.worker(role));
        }
        std::thread::sleep(Duration::from_micros(self.below(30_000)));
        let deaths = dead.len() + crowd.len();
        crowd.iter_mut().for_each(|worker| worker.child.kill().expect("SIGKILL"));
        crowd.iter_mut().for_each(Worker::kill);
        dead.extend(crowd);
        self.bury(dead);
        // Sometimes the next crowd is the one that recovers.
        if self.below(3) > 0 {
            self.check(round);
        }
        deaths
    }
}

fn rounds(system: System) {
    let (seed, exactly) = (asked("NVLITE_KILL_SEED").unwrap_or(1), asked("NVLITE_KILL_ROUNDS"));
    let (rounds, budget) = (exactly.unwrap_or(100), Duration::from_secs(asked("NVLITE_KILL_SECONDS").unwrap_or(30)));
    let begun = Instant::now();
    let mut ground = Ground::new(system, seed);
    let (mut done, mut deaths, mut acknowledged) = (0, 0, 0);
    // The default is what a machine does in the given time; an asked number is done whatever it takes.
    while done < rounds && (exactly.is_some() || done < LEAST || begun.elapsed() < budget) {
        deaths += ground.round(done);
        done += 1;
        if done.is_multiple_of(ROUNDS_OF_A_GROUND) {
            ground.leave(done);
            acknowledged += ground.acknowledged();
            ground = Ground::new(system, mix(seed, done));
        }
    }
    ground.leave(done);
    acknowledged += ground.acknowledged();
    assert!(done >= rounds.min(LEAST) && exactly.is_none_or(|exactly| done == exactly), "{system:?}: {done} rounds");
    assert!(acknowledged > 0, "{system:?}: nothing was acknowledged in {done} rounds");
    println!("{system:?}: {done} rounds, {deaths} deaths, {acknowledged} acknowledged, {:?}", begun.elapsed());
}

#[test]
fn killed_processes_lose_nothing_on_file() {
    rounds(System::File);
}

#[test]
fn killed_processes_lose_nothing_on_ram() {
    rounds(System::Ram);
}
