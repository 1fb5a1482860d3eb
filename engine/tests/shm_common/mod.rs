//! A mapping with everything in it, and processes that share it: the test binary runs itself again, as the test `role`.
#![allow(dead_code)]

use nvlite_engine::shm::{AttachmentNo, Clock, Liveness, OwnedLock, Segment, SlotNo, Slots, SlotsHeader, WriterLock};
use std::fs::OpenOptions;
use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

pub const LEN: u64 = 4 << 20;
const CLOCK: u64 = 128;
const QUEUE: u64 = 512;
const FLUSH: u64 = 640;
const SLOTS: u64 = 4096;

/// Far beyond anything that a healthy machine needs.
pub const SOON: Duration = Duration::from_secs(30);

/// One attachment's view of the mapping.
pub struct World {
    pub segment: Arc<Segment>,
    pub slots: Slots,
    pub live: Liveness,
}

impl World {
    fn over(segment: Segment, live: Liveness) -> World {
        let segment = Arc::new(segment);
        segment.commit(0, SLOTS).expect("memory for the header");
        assert!(size_of::<SlotsHeader>() as u64 <= CLOCK && CLOCK + size_of::<Clock>() as u64 <= QUEUE);
        let slots = Slots::new(segment.clone(), 0, SLOTS, &[QUEUE, FLUSH]);
        World { segment, slots, live }
    }

    /// A private mapping, with us alone.
    pub fn solo() -> World {
        World::over(Segment::private(LEN).expect("a private mapping"), Liveness::solo())
    }

    /// The mapping of `dir`, as an attachment of its own; made if it is not there yet.
    pub fn join(dir: &Path) -> World {
        let (map, region) = (dir.join("map"), dir.join("region"));
        let segment = if map.exists() { Segment::open(&map, LEN) } else { Segment::create(&map, LEN) };
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).open(region);
        let live = Liveness::join(file.expect("the region file")).expect("an attachment");
        World::over(segment.expect("the mapping"), live)
    }

    pub fn claim(&self) -> SlotNo {
        self.slots.claim(self.live.own(), &self.live).expect("a slot")
    }

    pub fn clock(&self) -> &Clock {
        self.segment.at(CLOCK)
    }

    pub fn queue(&self) -> &WriterLock {
        self.segment.at(QUEUE)
    }

    pub fn flush(&self) -> &OwnedLock {
        self.segment.at(FLUSH)
    }

    pub fn alive(&self, no: u32) -> bool {
        self.live.is_alive(AttachmentNo(no))
    }
}

/// Waits for `f`, which must come true soon.
pub fn eventually(what: &str, mut f: impl FnMut() -> bool) {
    let end = Instant::now() + SOON;
    while !f() {
        assert!(Instant::now() < end, "never: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}

/// Another process, playing a role of this test binary.
pub struct Actor {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

impl Actor {
    /// Starts this binary's test `role` as `name` in `dir`.
    pub fn play(name: &str, dir: &Path) -> Actor {
        let exe = std::env::current_exe().expect("our own path");
        let mut command = Command::new(exe);
        command.args(["role", "--exact", "--nocapture", "--test-threads=1"]);
        command.env("NVLITE_SHM_ROLE", name).env("NVLITE_SHM_DIR", dir);
        let mut child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("a child");
        let (input, output) = (child.stdin.take().expect("stdin"), child.stdout.take().expect("stdout"));
        Actor { child, input, output: BufReader::new(output) }
    }

    /// The next line that the actor says.
    pub fn hear(&mut self) -> String {
        loop {
            let mut line = String::new();
            assert_ne!(self.output.read_line(&mut line).expect("a line"), 0, "the actor left the stage");
            // The test harness talks on the same line.
            if let Some((_, said)) = line.split_once('@') {
                return said.trim().to_owned();
            }
        }
    }

    /// The next line as a number.
    pub fn hear_number(&mut self) -> u32 {
        self.hear().parse().expect("a number")
    }

    /// Says a line to the actor.
    pub fn tell(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("the actor listens");
    }

    /// Kills it, as a crash does.
    pub fn kill(&mut self) {
        self.strike();
        self.child.wait().expect("its end");
    }

    /// Kills it, for a caller who has to [`bury`](Self::bury) it.
    pub fn strike(&mut self) {
        self.child.kill().expect("a kill");
    }

    /// Waits for the end of one who was struck, if nobody else has.
    pub fn bury(&mut self) {
        let _ = self.child.wait();
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Actor {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// In an actor: its role and its directory.
pub fn role() -> Option<(String, PathBuf)> {
    let name = std::env::var("NVLITE_SHM_ROLE").ok()?;
    Some((name, std::env::var_os("NVLITE_SHM_DIR")?.into()))
}

/// In an actor: says a line to the test.
pub fn say(line: impl std::fmt::Display) {
    println!("@{line}");
    std::io::stdout().flush().expect("the test listens");
}

/// In an actor: waits for a line from the test; ends the process if the test is gone.
pub fn listen() -> String {
    let mut line = String::new();
    match std::io::stdin().read_line(&mut line) {
        Ok(n) if n > 0 => line.trim().to_owned(),
        _ => std::process::exit(0),
    }
}

/// In an actor: waits to be killed.
pub fn wait_for_the_end() -> ! {
    loop {
        listen();
    }
}
