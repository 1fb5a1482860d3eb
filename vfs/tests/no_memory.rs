//! What a program that SQLite has no more memory for keeps, in a process of its own, as the limit is the process's.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_vfs::{Medium, OpenOptions};
use rusqlite::{Connection, ffi};

fn int(db: &Connection, sql: &str) -> i64 {
    db.query_row(sql, (), |row| row.get(0)).unwrap()
}

/// Runs something while SQLite has so many bytes left.
fn with_memory_left<T>(bytes: i64, run: impl FnOnce() -> T) -> T {
    // SAFETY: plain calls.
    let limit = |bytes| unsafe { ffi::sqlite3_hard_heap_limit64(bytes) };
    // SAFETY: as above.
    limit(unsafe { ffi::sqlite3_memory_used() } + bytes);
    let answer = run();
    limit(0);
    answer
}

#[test]
fn p5_a_pragma_without_memory_changes_nothing() {
    // Failure: a program at FULL, whose wish for NORMAL was refused, loses acknowledged commits with the power.
    let dir = tempfile::tempdir().unwrap();
    let db = OpenOptions::new().medium(Medium::File).region("16MiB").open(dir.path().join("app.db")).unwrap();
    // So many tables that SQLite asks for memory while it reads the schema.
    db.execute_batch("BEGIN; CREATE TABLE t(x)").unwrap();
    for i in 0..20 {
        db.execute_batch(&format!("CREATE TABLE t{i}(a, b, c, d, e, f, g, h)")).unwrap();
    }
    db.execute_batch("COMMIT").unwrap();
    let flushes = || int(&db, "SELECT value FROM nvlite_stat WHERE name='flushes'");
    let (mut refused, mut obeyed) = (0, 0);
    for bytes in (0..32 << 10).step_by(1 << 10) {
        db.execute_batch("PRAGMA synchronous=FULL; PRAGMA writable_schema=RESET").unwrap();
        let told = with_memory_left(bytes, || db.execute_batch("PRAGMA synchronous=NORMAL"));
        let level = int(&db, "PRAGMA synchronous");
        assert_eq!(level, if told.is_err() { 2 } else { 1 }, "{told:?}");
        refused += i32::from(told.is_err());
        obeyed += i32::from(told.is_ok());
        let before = flushes();
        for _ in 0..4 {
            db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        }
        let flushed = flushes() - before;
        assert!(level == 1 || flushed >= 4, "{bytes} bytes left: {told:?}, and {flushed} flushes of 4 commits");
    }
    assert!(refused > 3 && obeyed > 3, "{refused} refused, {obeyed} obeyed");
}
