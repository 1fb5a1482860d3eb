//! The whole life of a database, in which a system call fails: each call that changes a file, once, and it and all that come
//! after it; in adoption and recovery, at work, and in the clean close. The process must say so or get over it, and end by
//! itself; and the next one must find what was acknowledged, and leave a stock file and nothing else (P14). `faults` does the
//! same to the media of the simulator; here are the files and directories themselves.

#![cfg(all(target_os = "linux", target_arch = "x86_64"))]
#![allow(clippy::panic)]

use nvlite_tests::life::calls::{Change, Counter, change, describe};
use nvlite_tests::life::trace::{Call, Verdict};
use nvlite_tests::life::{Place, Scene, told};
use nvlite_tests::sql::{System, log};

const WORKER: &str = env!("CARGO_BIN_EXE_life_worker");

/// How the calls fail.
#[derive(Clone, Copy, Debug)]
struct Fault {
    errno: i32,
    /// All that come after it, too.
    lasting: bool,
}

/// Lives at `place`; the `n`-th call fails. Answers what the child said, and which call it was; `None` if it came to the end.
/// `opening`: the life ends when the database is open.
fn fail_at(place: &Place, n: usize, fault: Fault, opening: bool) -> (String, Option<String>) {
    let (mut counter, mut calls, mut at, mut over) = (Counter::default(), 0, None, false);
    let end = place.live(WORKER, |call: &Call| {
        if !counter.counts(call) || call.result.is_some() || over {
            return Verdict::Go;
        }
        if matches!(change(call), Some(Change::Say(_))) {
            over = opening && call.bytes(1, 3).is_ok_and(|said| said == b"ack");
            return if over { Verdict::Kill } else { Verdict::Go };
        }
        calls += 1;
        if calls == n {
            at = Some(describe(call, place));
        }
        if calls == n || (calls > n && fault.lasting) { Verdict::Fail(fault.errno) } else { Verdict::Go }
    });
    // it comes to its end, or tells an error; it does not panic, and nobody has to end it
    let ended = matches!(end.status, Some(0 | 1)) || (end.status.is_none() && over);
    assert!(ended, "{fault:?}, call {n}, {at:?}: {:?} {}", end.status, end.said);
    (end.said, at)
}

fn fail_everywhere(system: System, scene: Scene, opening: bool) {
    let (start, before) = scene.set(system, WORKER);
    let (mut calls, mut told_of) = (0, 0);
    for lasting in [false, true] {
        for n in 1.. {
            let fault = Fault { errno: if n % 2 == 0 { libc::EIO } else { libc::ENOSPC }, lasting };
            let place = start.copy();
            let (said, at) = fail_at(&place, n, fault, opening);
            let Some(at) = at else { break };
            calls += 1;
            told_of += usize::from(said.contains("error"));
            if at.ends_with("unlink home/life.db-shm") {
                continue; // stock SQLite's own, and it does not mind
            }
            let (known, _) = told(&said, before);
            place.check(known).unwrap_or_else(|e| {
                panic!("{system:?}, {scene:?}, {fault:?}, call {n}, {at}: {e} {:?}", log::lines("nvlite"))
            });
        }
    }
    println!("{system:?}, {scene:?}: {calls} calls failed, {told_of} errors told");
    assert!(calls > 20 && told_of > 0, "{scene:?}: {calls} calls failed, {told_of} errors told");
}

fn lives(system: System) {
    log::listen();
    fail_everywhere(system, Scene::Stock, false);
    for scene in [Scene::New, Scene::Wal, Scene::Journal].into_iter().chain(Scene::LEFT) {
        fail_everywhere(system, scene, true);
    }
}

#[test]
fn any_call_may_fail_on_file() {
    lives(System::File);
}

#[test]
fn any_call_may_fail_on_ram() {
    lives(System::Ram);
}
