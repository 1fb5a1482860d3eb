//! What a transaction costs in memory, in a process of its own.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_vfs::{Medium, OpenOptions};
use rusqlite::Connection;

const MIB: u64 = 1 << 20;

/// Private memory of this process that is present.
fn private_bytes() -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("RssAnon:")).unwrap();
    line.trim().strip_suffix(" kB").unwrap().parse::<u64>().unwrap() * 1024
}

fn digest(db: &Connection) -> (i64, i64) {
    db.query_row("SELECT count(*), sum(id * n) FROM t", (), |row| Ok((row.get(0)?, row.get(1)?))).unwrap()
}

/// A transaction that changes every page of a database many times the size of its cache and its fast tier: neither its
/// write set nor its journal holds pages in private memory.
#[test]
fn a_large_transaction_holds_no_pages_in_private_memory() {
    let dir = tempfile::tempdir().unwrap();
    let options = OpenOptions::new().medium(Medium::File).region("4MiB");
    let db = options.open(dir.path().join("app.db")).unwrap();
    db.execute_batch(
        "PRAGMA cache_size=-1024;
         CREATE TABLE t(id INTEGER PRIMARY KEY, n INTEGER, filler TEXT);
         WITH RECURSIVE k(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM k WHERE i<48000)
         INSERT INTO t SELECT i, i%7, printf('%.*c', 1000, 'x') FROM k;",
    )
    .unwrap();
    let (before, start) = (digest(&db), private_bytes());
    db.execute_batch("BEGIN; UPDATE t SET n=n+1").unwrap();
    let grown = private_bytes().saturating_sub(start);
    let pages: u32 = db.query_row("PRAGMA page_count", (), |row| row.get(0)).unwrap();
    let pages = u64::from(pages);
    println!("{} MiB of pages changed, {} KiB of private memory", pages * 4096 / MIB, grown / 1024);
    assert!(pages * 4096 > 44 * MIB && grown < 4 * MIB, "{pages} pages, {grown} bytes");
    assert_ne!(digest(&db), before);
    db.execute_batch("ROLLBACK").unwrap();
    assert_eq!(digest(&db), before);
    db.execute_batch("UPDATE t SET n=n+1").unwrap();
    assert_ne!(digest(&db), before);
    let verdict: String = db.query_row("PRAGMA integrity_check", (), |row| row.get(0)).unwrap();
    assert_eq!(verdict, "ok");
}
