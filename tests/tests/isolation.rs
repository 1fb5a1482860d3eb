//! A reader that sees half of a transaction computes a wrong sum and nobody notices. Here many connections, in threads and
//! interleaved by lot in one thread, read and write a bank; every view that anybody had must be the state after exactly one
//! transaction, the writers' order must have no gap, and time must not go backwards on any connection.

#![allow(clippy::panic)]

use nvlite_tests::sim::mix;
use nvlite_tests::sql::bank::{self, View};
use nvlite_tests::sql::{System, integrity, stock_integrity};
use rusqlite::{Connection, ErrorCode};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

const WAIT_MS: u64 = 60_000;
/// Of each of four writers.
const TRANSFERS: i64 = 500;

fn open(system: System, path: &Path) -> Connection {
    let db = system.open(path, WAIT_MS).expect("opens");
    db.execute_batch("PRAGMA cache_size=20").expect("a small cache");
    db
}

fn writer(system: System, path: &Path, owner: i64, transfers: i64) -> Vec<View> {
    let mut db = open(system, path);
    let mut views = Vec::new();
    let mut last = 0;
    for serial in 0..transfers {
        let n = bank::transfer(&mut db, owner, serial, owner as u64).expect("a transfer waits its turn");
        assert!(n > last, "transaction {n} after {last} on one connection");
        last = n;
        if serial % 5 == 0 {
            let view = bank::view(&mut db).expect("reads");
            assert!(view.newest >= n, "own commit {n} is not seen: {}", view.newest);
            views.push(view);
        }
    }
    views
}

fn reader(system: System, path: &Path, done: &AtomicBool, mmap: u64) -> Vec<View> {
    let mut db = open(system, path);
    let set = format!("PRAGMA mmap_size={mmap}");
    assert!(db.query_row(&set, [], |_| Ok(())).is_ok() || mmap > 0);
    let mut views: Vec<View> = Vec::new();
    while !done.load(Ordering::Relaxed) || views.is_empty() {
        let view = bank::view(&mut db).expect("a reader never waits");
        assert!(views.last().is_none_or(|last| last.newest <= view.newest), "time goes backwards");
        views.push(view);
    }
    views
}

/// Readers and writers at full speed.
fn threads(system: System) {
    let scratch = system.scratch();
    let path = scratch.path("bank.db");
    bank::found(&mut open(system, &path)).expect("founds the bank");
    let keeper = open(system, &path);
    let done = AtomicBool::new(false);
    let views: Vec<View> = std::thread::scope(|scope| {
        let (path, done) = (&path, &done);
        let readers: Vec<_> =
            (0..3).map(|i| scope.spawn(move || reader(system, path, done, [0, 1 << 20, 1 << 28][i]))).collect();
        let writers: Vec<_> = (0..4).map(|owner| scope.spawn(move || writer(system, path, owner, TRANSFERS))).collect();
        let mut views: Vec<View> = Vec::new();
        let mut failed = false;
        for writer in writers {
            match writer.join() {
                Ok(seen) => views.extend(seen),
                Err(_) => failed = true,
            }
        }
        done.store(true, Ordering::Relaxed);
        assert!(!failed, "a writer failed");
        readers.into_iter().for_each(|reader| views.extend(reader.join().expect("a reader failed")));
        views
    });
    let mut keeper = keeper;
    assert_eq!(bank::audit(&mut keeper, &views), Ok(4 * TRANSFERS));
    assert_eq!(integrity(&keeper).as_deref(), Ok("ok"));
    drop(keeper);
    assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"));
}

#[test]
fn views_of_threads_are_single_states_on_file() {
    threads(System::File);
}

#[test]
fn views_of_threads_are_single_states_on_ram() {
    threads(System::Ram);
}

/// One connection of the interleaved test, and what it must see.
struct Actor {
    db: Connection,
    /// In a transaction: the value it sees.
    sees: Option<i64>,
    writing: bool,
}

fn value(db: &Connection) -> i64 {
    db.query_row("SELECT x FROM t", [], |row| row.get(0)).expect("reads at any time")
}

fn refusal(result: rusqlite::Result<()>) -> Option<(ErrorCode, i32)> {
    match result {
        Ok(()) => None,
        Err(rusqlite::Error::SqliteFailure(e, _)) => Some((e.code, e.extended_code)),
        Err(e) => panic!("{e}"),
    }
}

const BUSY_SNAPSHOT: i32 = 517;

/// Statements of many connections in an order drawn by lot, in one thread, so that the model says exactly who sees what
/// and who is refused with which code.
fn interleaved(system: System, seed: u64) {
    let scratch = system.scratch();
    let path = scratch.path("turns.db");
    let connect = || Actor { db: system.open(&path, 0).expect("opens"), sees: None, writing: false };
    let mut actors: Vec<Actor> = (0..8).map(|_| connect()).collect();
    actors[0].db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES(0)").expect("creates");
    let mut committed = 0;
    for turn in 0..600_u64 {
        let lot = mix(seed, turn);
        let me = (lot % actors.len() as u64) as usize;
        let locked = actors.iter().any(|actor| actor.writing);
        let actor = &mut actors[me];
        let context = format!("{system:?}, seed {seed}, turn {turn}, connection {me}");
        match ((lot >> 8) % 6, actor.sees) {
            (0 | 1, None) => {
                actor.db.execute_batch("BEGIN").expect("begins");
                actor.sees = Some(value(&actor.db));
                assert_eq!(actor.sees, Some(committed), "{context}: a new snapshot is the newest");
            }
            (2, None) => {
                let refused = refusal(actor.db.execute_batch("BEGIN IMMEDIATE"));
                assert_eq!(refused, locked.then_some((ErrorCode::DatabaseBusy, 5)), "{context}: BEGIN IMMEDIATE");
                (actor.writing, actor.sees) = (!locked, (!locked).then_some(committed));
            }
            (_, None) => assert_eq!(value(&actor.db), committed, "{context}: outside a transaction"),
            (0, Some(seen)) => {
                let refused = refusal(actor.db.execute_batch("UPDATE t SET x = x + 1"));
                let (busy, stale) = ((ErrorCode::DatabaseBusy, 5), (ErrorCode::DatabaseBusy, BUSY_SNAPSHOT));
                // Where both hold, stock SQLite notices the lock first; either is true.
                let expected = match (actor.writing, locked, seen == committed) {
                    (true, ..) | (_, false, true) => None,
                    (_, true, false) => Some(if refused == Some(stale) { stale } else { busy }),
                    (_, true, true) => Some(busy),
                    (_, false, false) => Some(stale),
                };
                assert_eq!(refused, expected, "{context}: a write on snapshot {seen} of {committed}, locked {locked}");
                if expected.is_none() {
                    (actor.writing, actor.sees) = (true, Some(seen + 1));
                }
            }
            (1, Some(seen)) => {
                actor.db.execute_batch("COMMIT").expect("commits");
                if actor.writing {
                    committed = seen;
                }
                (actor.writing, actor.sees) = (false, None);
            }
            (2, Some(_)) if lot >> 20 & 1 == 0 => {
                actor.db.execute_batch("ROLLBACK").expect("rolls back");
                (actor.writing, actor.sees) = (false, None);
            }
            (_, Some(seen)) => assert_eq!(value(&actor.db), seen, "{context}: within a transaction"),
        }
        if lot >> 30 & 127 == 0 {
            let was_writing = actors[me].writing;
            actors[me] = connect();
            assert!(!was_writing || value(&actors[me].db) == committed, "{context}: a closed transaction is gone");
        }
    }
}

#[test]
fn interleaved_statements_see_what_the_model_says() {
    for seed in 0..12 {
        for system in System::NVLITE {
            interleaved(system, seed);
        }
    }
}
