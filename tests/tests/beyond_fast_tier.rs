//! A database eight times the fast tier, its process killed in the middle of transactions, again and again.
//!
//! Pages leave the fast tier and come back, and large transactions go through shadow blocks of the cold file. Once, the
//! durable entry of a block outlived the record that had replaced the page by a cold block: after the low-water mark had
//! passed the record, recovery believed the entry, and the page had its old content again.
#![allow(missing_docs)]

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const PROGRAM: &str = env!("CARGO_BIN_EXE_dax_guest");

/// Lets the workload run for `time`, kills it, and answers the last transaction that it acknowledged.
fn run_and_kill(dir: &Path, workload: &str, time: Duration) -> u64 {
    let mut child =
        Command::new(PROGRAM).arg(dir).args([workload, "run"]).stdout(Stdio::piped()).spawn().expect("a child");
    let mut out = child.stdout.take().expect("its output");
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        out.read_to_string(&mut text).map(|_| text).expect("text")
    });
    std::thread::sleep(time);
    child.kill().expect("the kill");
    child.wait().expect("its end");
    let text = reader.join().expect("the reader");
    assert!(!text.contains("FAIL"), "{text}");
    let whole = text.rsplit_once('\n').map_or("", |(lines, _)| lines);
    let acked = whole.lines().last().and_then(|line| line.split(' ').nth(2));
    acked.map_or(0, |n| n.parse().expect("a number"))
}

fn rounds(dir: &Path, workload: &str, n: u32, unit: Duration) {
    let mut acked = 0;
    for round in 0..n {
        acked = run_and_kill(dir, workload, unit * (1 + round * 7 % 10)).max(acked);
        let out =
            Command::new(PROGRAM).arg(dir).args([workload, "verify", &acked.to_string()]).output().expect("a child");
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(out.status.success(), "round {round}: {text}");
    }
    assert!(acked > 0, "nothing was acknowledged");
}

#[test]
fn on_ram_nothing_acknowledged_is_lost() {
    let Ok(dir) = tempfile::tempdir_in("/dev/shm") else {
        return nvlite_tests::needs::skipped("tmpfs at /dev/shm");
    };
    rounds(dir.path(), "store-ram", 10, Duration::from_millis(40));
}

#[test]
fn on_file_nothing_acknowledged_is_lost() {
    let dir = tempfile::tempdir().expect("a temporary directory");
    rounds(dir.path(), "store-file", 4, Duration::from_millis(60));
}
