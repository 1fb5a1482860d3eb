//! A commit on `ram` is stores and a fence. One system call slipped into the path of a transaction costs more than the rest of
//! it, and no other test would notice. Here a child runs transactions under `strace -c`, few and many: what the many cost more
//! must be nothing.

#![allow(clippy::panic)]

use nvlite_tests::needs;
use nvlite_tests::sql::System;
use rusqlite::Connection;
use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

const FEW: u64 = 200;
const MANY: u64 = 4200;
/// More calls that have nothing to do with transactions: the test harness waits for its thread, an allocation more or less.
const OTHERS: u64 = 8;

/// What a transaction of the child is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kind {
    /// One statement in autocommit mode.
    Autocommit,
    /// `BEGIN IMMEDIATE`, three statements, `COMMIT`.
    Immediate,
    /// The same, while another connection reads now and then.
    ReaderBeside,
    /// The same, while another connection has a read transaction open, which it renews every hundred transactions.
    OldReader,
}

const KINDS: [Kind; 4] = [Kind::Autocommit, Kind::Immediate, Kind::ReaderBeside, Kind::OldReader];

fn len(db: &Connection, n: i64) -> i64 {
    let mut read = db.prepare("SELECT length(b) FROM t WHERE a = ?1").expect("prepares");
    read.query_row([n % 100], |row| row.get(0)).expect("reads")
}

fn execute(db: &Connection, sql: &str) {
    db.prepare(sql).expect("prepares").execute([]).expect("executes");
}

/// Not a test of its own: what runs under `strace`.
#[test]
fn in_a_child() {
    let Ok(path) = std::env::var("NVLITE_TEST_PATH") else { return };
    let number = |name: &str| std::env::var(name).ok().and_then(|n| n.parse::<i64>().ok()).expect("a number");
    let kind = KINDS[number("NVLITE_TEST_KIND") as usize];
    let open = || System::Ram.open(Path::new(&path), 1000).expect("opens");
    let db = open();
    db.execute_batch("CREATE TABLE IF NOT EXISTS t(a INTEGER PRIMARY KEY, b)").expect("creates");
    for n in 0..100 {
        db.execute("INSERT OR REPLACE INTO t VALUES(?1, randomblob(100))", [n]).expect("inserts");
    }
    let reader = matches!(kind, Kind::ReaderBeside | Kind::OldReader).then(open);
    let mut update = db.prepare("UPDATE t SET b = randomblob(100) WHERE a = ?1").expect("prepares");
    for n in 0..number("NVLITE_TEST_TRANSACTIONS") {
        if kind == Kind::Autocommit {
            update.execute([n % 100]).expect("updates");
        } else {
            execute(&db, "BEGIN IMMEDIATE");
            (0..3).for_each(|i| _ = update.execute([(n + 31 * i) % 100]).expect("updates"));
            execute(&db, "COMMIT");
        }
        assert_eq!(len(&db, n * 7), 100);
        if let Some(reader) = &reader {
            if kind == Kind::OldReader && n % 100 == 0 {
                if !reader.is_autocommit() {
                    execute(reader, "COMMIT");
                }
                execute(reader, "BEGIN");
            }
            if n % 10 == 0 {
                assert_eq!(len(reader, n * 3), 100);
            }
        }
    }
}

/// System calls by name.
fn counted(kind: Kind, transactions: u64) -> BTreeMap<String, u64> {
    let scratch = System::Ram.scratch();
    let table = scratch.path("calls");
    let output = Command::new("strace")
        .args(["-f", "-c", "-o"])
        .arg(&table)
        .arg(std::env::current_exe().expect("this test"))
        .args(["--exact", "in_a_child"])
        .env("NVLITE_TEST_PATH", scratch.path("calls.db"))
        .env("NVLITE_TEST_KIND", (kind as usize).to_string())
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
    if !needs::program("strace") {
        return;
    }
    for kind in KINDS {
        let (few, many) = (counted(kind, FEW), counted(kind, MANY));
        assert!(few.values().sum::<u64>() > 20, "strace counts: {few:?}");
        let extra: BTreeMap<&String, u64> = many
            .iter()
            .map(|(name, calls)| (name, calls.saturating_sub(few.get(name).copied().unwrap_or(0))))
            .filter(|(_, calls)| *calls > 0)
            .collect();
        let total: u64 = extra.values().sum();
        assert!(total <= OTHERS, "{kind:?}: {total} more for {} more transactions: {extra:?}", MANY - FEW);
    }
}
