//! What `--syscalls` tells: the child under strace, its arguments, and which calls the systems make.

use serde_json::Value;

#[path = "../../tests/src/needs.rs"]
#[allow(dead_code, missing_docs, reason = "not all tests need everything")]
mod needs;

/// The systems' counts per transaction from a run with `--syscalls`.
fn counts(args: &[&str]) -> Value {
    let dir = tempfile::tempdir().expect("dir");
    let json = dir.path().join("out.json");
    let file = json.to_string_lossy();
    let small = ["compare", "--syscalls", "--medium", "ram", "--rounds", "2", "--slice-ms", "30", "--json", &file];
    let mut program = std::process::Command::new(env!("CARGO_BIN_EXE_nvlite-bench"));
    let output = program.args(small).args(args).output().expect("the program starts");
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    let report: Value = serde_json::from_slice(&std::fs::read(&json).expect("written")).expect("valid JSON");
    report["systems"].clone()
}

fn count(systems: &Value, system: &str, name: &str) -> f64 {
    systems[system]["counts"][name].as_f64().expect(name)
}

#[test]
fn nvlite_on_ram_makes_no_system_call_and_wal_many() {
    if !needs::program("strace") {
        return;
    }
    let systems = counts(&["--scale", "100", "--peers", "wal_full"]);
    let calls = count(&systems, "nvlite", "system_calls");
    assert!(calls < 0.1, "{calls} system calls of nvlite's per transaction");
    assert_eq!(count(&systems, "nvlite", "flush_calls"), 0.0);
    assert!(count(&systems, "wal_full", "system_calls") > 10.0, "{systems}");
    // 92 of 100 transactions write, 1 of 100 new orders is rolled back.
    let flushes = count(&systems, "wal_full", "flush_calls");
    assert!((0.85..1.1).contains(&flushes), "{flushes} flushes of WAL's per transaction");
}

/// The fair opponent is what it is called: the same as WAL but for this call.
#[test]
fn the_fair_wal_calls_fdatasync_once_per_commit_and_wal_full_fsync() {
    if !needs::program("strace") {
        return;
    }
    let systems = counts(&["--workload", "update", "--rows", "1000", "--peers", "wal_full,wal_fair", "--peers-only"]);
    for (system, does, does_not) in
        [("wal_full", "fsync_calls", "fdatasync_calls"), ("wal_fair", "fdatasync_calls", "fsync_calls")]
    {
        let calls = [does, does_not, "flush_calls"].map(|name| count(&systems, system, name));
        assert!((0.99..1.05).contains(&calls[0]), "{system}, {does}: {calls:?}");
        assert!(calls[1] < 0.01 && (0.99..1.05).contains(&calls[2]), "{system}, {does_not}: {calls:?}");
    }
}
