//! Rules of readers that come to no end: one that is stopped in the middle of a read, and the dead.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{Durability::Full, Error, MediumKind, Options, Store, mapping_len};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::processes::Processes;
use nvlite_tests::rules::{Rig, all_are, byte, commit, stat};
use nvlite_tests::sim::Policy;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, mpsc};
use std::time::{Duration, Instant};

/// A machine on `file` with `pages` pages at home, whose processes have died.
fn at_home(budget: u64, pages: u32) -> Rig {
    let rig = Rig::with_budget(MediumKind::File, budget);
    let store = rig.open().unwrap();
    commit(&mut store.session().unwrap(), pages, 2..=pages, 1, Full).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    rig.crash(Policy::Newest)
}

#[test]
fn p12_a_reader_stopped_in_a_read_stops_writers_only_when_the_log_is_full() {
    // Failure: who retires waits for the end of every read from the base, with the writer lock in its hand: one process that is
    // stopped there stops all others. Or it does not wait, and the reader goes on in a home that was overwritten.
    let rig = at_home(1 << 20, 8);
    let (armed, (tell, told), (go, gone)) = (Arc::new(AtomicBool::new(false)), mpsc::channel(), mpsc::channel::<()>());
    let (its, channels) = (armed.clone(), Mutex::new((tell, gone)));
    let hook = move |op| {
        let stopped = std::thread::current().name() == Some("stopped");
        if stopped && op == Op::Read && its.swap(false, Ordering::SeqCst) {
            let channels = channels.lock().unwrap();
            channels.0.send(()).unwrap();
            channels.1.recv().unwrap();
        }
        Ok(())
    };
    let mut parts = rig.parts(Segment::private(mapping_len(rig.budget(), rig.kind())).unwrap(), Liveness::solo());
    parts.base = hooked::base(parts.base, hook);
    let store = Store::assemble(parts).unwrap();
    let (mut s, mut reader) = (store.session().unwrap(), store.session().unwrap());
    reader.begin_read().unwrap();
    reader.size().unwrap();
    armed.store(true, Ordering::SeqCst);
    let read = move || (byte(&mut reader, 2).unwrap(), all_are(&mut reader, 2..=8, 1).unwrap());
    let reads = std::thread::Builder::new().name("stopped".into()).spawn(read).unwrap();
    told.recv().unwrap();

    let (tell, writer) = mpsc::channel();
    let its = store.clone();
    std::thread::spawn(move || {
        let mut n = 0;
        let full = loop {
            let done = commit(&mut s, 8, 2..=8, 2 + n, Full);
            if done.is_err() {
                break done;
            }
            if n == 0 {
                its.checkpoint().unwrap(); // as far as readers allow
                assert_eq!(stat(&its, "homes_written"), 0, "somebody reads there");
            }
            n += 1;
        };
        tell.send((n, full, s)).unwrap();
    });
    let (n, full, mut s) = writer.recv_timeout(Duration::from_secs(30)).expect("the writer waits for ever");
    assert!(matches!(full, Err(Error::Full { what: "the log", .. })), "{full:?}");
    assert!(n > 3, "{n} commits while the log had room");
    assert!(all_are(&mut s, 2..=8, 1 + n).unwrap(), "what was committed stays");
    s.end_read();
    go.send(()).unwrap();
    assert_eq!(reads.join().unwrap(), (Some(1), true), "the snapshot changed");
    commit(&mut s, 8, 2..=8, 100, Full).expect("nobody is in the way");
    assert!(all_are(&mut s, 2..=8, 100).unwrap());
}

#[test]
fn p13_the_pins_of_the_dead_do_not_stop_a_retirement() {
    // Failure: without the writer lock a retirement leaves alone what an older reader needs; one that was killed needs nothing,
    // but is found out only when a process attaches, a writer dies or room is short.
    let rig = at_home(1 << 20, 500);
    let processes = Processes::new(&rig).unwrap();
    let (store, dying) = (processes.start(1, |r| r).unwrap(), processes.start(2, |r| r).unwrap());
    let (mut reader, mut s, mut writer) =
        (dying.session().unwrap(), store.session().unwrap(), store.session().unwrap());
    reader.begin_read().unwrap();
    commit(&mut s, 500, 2..=400, 2, Full).unwrap(); // large: it replaces homes unseen
    writer.begin_write().unwrap();
    store.checkpoint().unwrap();
    assert!(stat(&store, "jci_low_water") < stat(&store, "jci_published"), "the reader needs homes");
    processes.kill(2);
    std::mem::forget((reader, dying));
    store.checkpoint().unwrap();
    assert_eq!(stat(&store, "jci_low_water"), stat(&store, "jci_published"), "nobody needs them");
    assert_eq!(stat(&store, "readers"), 1, "the writer");
}

#[test]
fn p13_a_lap_of_the_log_finds_out_the_dead() {
    // Failure: the pin of a reader that was killed makes every commit copy what it would store in place, until room is short.
    for kind in [MediumKind::Dax, MediumKind::File] {
        let rig = Rig::new(kind);
        let processes = Processes::new(&rig).unwrap();
        let (store, dying) = (processes.start(1, |r| r).unwrap(), processes.start(2, |r| r).unwrap());
        let (mut reader, mut s) = (dying.session().unwrap(), store.session().unwrap());
        commit(&mut s, 4, 2..=4, 1, Full).unwrap();
        reader.begin_read().unwrap();
        processes.kill(2);
        std::mem::forget((reader, dying));
        let before = stat(&store, "retirements");
        for n in 0.. {
            commit(&mut s, 4, 2..=4, n, Full).unwrap();
            if stat(&store, "retirements") > before {
                break;
            }
        }
        assert_eq!(stat(&store, "readers"), 0, "{kind:?}");
    }
}

const DIRECTORY: &str = "NVLITE_TEST_READS_IN";

fn attach(dir: &Path) -> Arc<Store> {
    let options = Options { medium: Some(MediumKind::File), region: 1 << 20, ..Options::default() };
    Store::attach(Arc::new(PlainBase::new(&dir.join("a.db"))), &options).unwrap()
}

/// Not a test by itself: the process that reads until it is killed.
#[test]
fn reads_until_it_is_killed() {
    let Some(dir) = std::env::var_os(DIRECTORY) else { return };
    let mut s = attach(Path::new(&dir)).session().unwrap();
    s.begin_read().unwrap();
    println!("@");
    loop {
        std::thread::park();
    }
}

#[test]
fn p13_the_dead_are_found_out_though_nobody_writes() {
    // Failure: the slot of a connection that was killed is in use, with its pin, for as long as nobody needs room.
    let dir = tempfile::tempdir().unwrap();
    let store = attach(dir.path());
    commit(&mut store.session().unwrap(), 4, 2..=4, 1, Full).unwrap();
    let mut reader = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", "reads_until_it_is_killed", "--nocapture"])
        .env(DIRECTORY, dir.path())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let lines = BufReader::new(reader.stdout.take().unwrap()).lines();
    assert!(lines.map_while(Result::ok).any(|line| line.contains('@')), "it reads");
    assert_eq!(stat(&store, "readers"), 1);
    reader.kill().unwrap();
    reader.wait().unwrap();
    let began = Instant::now();
    while stat(&store, "readers") > 0 {
        assert!(began.elapsed() < Duration::from_secs(30), "it is taken for a reader still");
        std::thread::sleep(Duration::from_millis(20));
    }
    store.close().unwrap();
}
