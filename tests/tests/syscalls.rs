//! A commit on `ram` is stores and a fence. One system call slipped into the path of a transaction costs more than the rest of
//! it, and no other test would notice. Here a child runs transactions under `strace -c`, few and many: what the many cost more
//! must be nothing. Prints that it is skipped where there is no `strace`, except in CI.

#![allow(clippy::panic)]

use nvlite_tests::sql::System;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const FEW: u64 = 200;
const MANY: u64 = 4200;

/// Not a test of its own: what runs under `strace`.
#[test]
fn in_a_child() {
    let Ok(path) = std::env::var("NVLITE_TEST_PATH") else { return };
    let transactions: i64 =
        std::env::var("NVLITE_TEST_TRANSACTIONS").ok().and_then(|n| n.parse().ok()).expect("a number");
    let db = System::Ram.open(Path::new(&path), 1000).expect("opens");
    db.execute_batch("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)").expect("creates");
    for n in 0..100 {
        db.execute("INSERT OR REPLACE INTO t VALUES(?1, randomblob(100))", [n]).expect("inserts");
    }
    let mut update = db.prepare("UPDATE t SET b = randomblob(100) WHERE a = ?1").expect("prepares");
    let mut read = db.prepare("SELECT length(b) FROM t WHERE a = ?1").expect("prepares");
    for n in 0..transactions {
        update.execute([n % 100]).expect("updates");
        let len: i64 = read.query_row([(n * 7) % 100], |row| row.get(0)).expect("reads");
        assert_eq!(len, 100);
    }
}

/// System calls by name.
fn counted(transactions: u64) -> BTreeMap<String, u64> {
    let scratch = System::Ram.scratch();
    let table = scratch.path("calls");
    let output = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&table)
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "in_a_child"])
        .env("NVLITE_TEST_PATH", scratch.path("calls.db"))
        .env("NVLITE_TEST_TRANSACTIONS", transactions.to_string())
        .output()
        .expect("strace runs");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    let text = std::fs::read_to_string(&table).expect("a table");
    // Columns: share, seconds, microseconds a call, calls, errors (may be empty), name.
    let row = |line: &str| {
        let fields: Vec<&str> = line.split_whitespace().collect();
        let (calls, name) = (fields.get(3)?.parse().ok()?, fields.last()?);
        (*name != "total").then(|| ((*name).to_owned(), calls))
    };
    text.lines().filter_map(row).collect()
}

#[test]
fn a_transaction_on_ram_makes_no_system_call() {
    if Command::new("strace").arg("-V").output().is_err() {
        assert!(std::env::var_os("CI").is_none(), "CI has strace");
        println!("skipped: no strace");
        return;
    }
    let (few, many) = (counted(FEW), counted(MANY));
    assert!(few.values().sum::<u64>() > 20, "strace counts: {few:?}");
    let extra: BTreeMap<&String, u64> = many
        .iter()
        .map(|(name, calls)| (name, calls.saturating_sub(few.get(name).copied().unwrap_or(0))))
        .filter(|(_, calls)| *calls > 0)
        .collect();
    // Memory of the process and work of retirement come and go, but not with every transaction.
    let total: u64 = extra.values().sum();
    assert!(total * 20 < MANY - FEW, "{total} more system calls for {} more transactions: {extra:?}", MANY - FEW);
}
