//! A process that works on the bank until it is killed: `kill_worker SYSTEM PATH OWNER found|write|read|hold SEED
//! [LEVEL]`, where `found` makes the bank before it writes, and the level is one of `PRAGMA synchronous`.
//!
//! It says on its standard output what it was told, in lines that are written whole: `ready`; `try SERIAL` before and
//! `ack SERIAL N` after each commit; `saw N` for each view; `BAD ...` for a view that cannot be. The parent reads the pipe after
//! the process is dead, so that nothing that was acknowledged is forgotten.

use nvlite_tests::sql::System;
use nvlite_tests::sql::bank::{self, ACCOUNTS, OPENING};
use rusqlite::Connection;
use std::io::Write as _;
use std::path::Path;

/// One write system call for the whole line.
fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(format!("{line}\n").as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(0);
    }
}

fn main() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let ([system, path, owner, role, seed] | [system, path, owner, role, seed, _]) = args.as_slice() else {
        say("BAD usage");
        return;
    };
    let level = args.get(5).map_or("FULL", String::as_str);
    let system = System::named(system).expect("a system");
    let (owner, seed): (i64, u64) = (owner.parse().expect("a number"), seed.parse().expect("a number"));
    match work(system, Path::new(path), owner, role, seed, level) {
        Ok(()) => {}
        Err(e) => say(&format!("BAD {role} {owner}: {e} ({:?})", e.sqlite_error())),
    }
}

fn work(system: System, path: &Path, owner: i64, role: &str, seed: u64, level: &str) -> rusqlite::Result<()> {
    let mut db = system.open(path, 60_000)?;
    db.execute_batch(&format!("PRAGMA cache_size=20; PRAGMA synchronous={level}"))?;
    if role == "found" {
        bank::found(&mut db)?;
    }
    bank::view(&mut db)?;
    say("ready");
    match role {
        "found" | "write" => write(&mut db, owner, seed),
        "read" => read(&mut db),
        _ => hold(&db),
    }
}

fn write(db: &mut Connection, owner: i64, seed: u64) -> rusqlite::Result<()> {
    for serial in 0.. {
        say(&format!("try {serial}"));
        let n = bank::transfer(db, owner, serial, seed)?;
        say(&format!("ack {serial} {n}"));
    }
    Ok(())
}

fn read(db: &mut Connection) -> rusqlite::Result<()> {
    let mut last = 0;
    loop {
        let view = bank::view(db)?;
        let sum: i64 = view.balances.iter().sum();
        if sum != ACCOUNTS * OPENING {
            say(&format!("BAD sum {sum} with transaction {}", view.newest));
        }
        if view.newest < last {
            say(&format!("BAD transaction {} after {last}", view.newest));
        }
        last = view.newest;
        say(&format!("saw {last}"));
    }
}

/// Holds one snapshot for as long as it lives.
fn hold(db: &Connection) -> rusqlite::Result<()> {
    db.execute_batch("BEGIN")?;
    let sum = || db.query_row("SELECT sum(balance), count(*) FROM account", [], |row| Ok((row.get(0)?, row.get(1)?)));
    let newest = || db.query_row("SELECT coalesce(max(n), 0) FROM entry", [], |row| row.get::<_, i64>(0));
    let first: ((i64, i64), i64) = (sum()?, newest()?);
    loop {
        let now = (sum()?, newest()?);
        if now != first || now.0 != (ACCOUNTS * OPENING, ACCOUNTS) {
            say(&format!("BAD held {first:?}, now {now:?}"));
        }
        say(&format!("saw {}", first.1));
        std::thread::sleep(std::time::Duration::from_millis(3));
    }
}
