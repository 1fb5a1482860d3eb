//! Pragmas that the VFS answers or listens to.

use crate::support::*;

#[test]
fn journal_mode_is_memory_whatever_is_asked() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        assert_eq!(text(&db, "PRAGMA journal_mode"), "memory");
        for mode in ["wal", "delete", "truncate", "persist", "off", "memory"] {
            assert_eq!(text(&db, &format!("PRAGMA journal_mode={mode}")), "memory");
            assert_eq!(text(&db, &format!("PRAGMA main.journal_mode={mode}")), "memory");
        }
        db.execute_batch("BEGIN; INSERT INTO t VALUES (1); ROLLBACK").unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 0, "OFF would have lost the rollback");
    });
}

#[test]
fn journal_mode_reply_says_what_the_program_wants_to_hear() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = site.options().journal_mode_reply("wal").open(site.path()).unwrap();
    assert_eq!(text(&db, "PRAGMA journal_mode=WAL"), "wal");
    assert_eq!(text(&db, "PRAGMA journal_mode"), "wal");
    db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
    close(db);
    assert!(site.side_files().is_empty());
    check(&site.stock());
}

#[test]
fn locking_mode_is_normal() {
    on_both(|site| {
        let db = site.open();
        assert_eq!(text(&db, "PRAGMA locking_mode"), "normal");
        assert_eq!(text(&db, "PRAGMA locking_mode=EXCLUSIVE"), "normal");
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        let second = site.open();
        second.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 1);
    });
}

#[test]
fn exclusive_wal_harms_nobody() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        let other = site.open();
        for pragma in ["PRAGMA locking_mode=EXCLUSIVE", "PRAGMA main.locking_mode=EXCLUSIVE"] {
            assert_eq!(text(&db, pragma), "normal");
            assert_eq!(text(&db, "PRAGMA journal_mode=WAL"), "memory");
            db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
            other.execute_batch("INSERT INTO t VALUES (3)").unwrap();
        }
        assert_eq!((int(&db, "SELECT sum(x) FROM t"), int(&other, "SELECT sum(x) FROM t")), (11, 11));
        assert!(!site.file("app.db-wal").exists());
        close(db);
        close(other);
        let again = site.open();
        assert_eq!(int(&again, "SELECT sum(x) FROM t"), 11);
        close(again);
        check(&site.stock());
    });
}

#[test]
fn wal_checkpoint_answers_sqlites_row() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 50, 500);
        let row = db.query_row("PRAGMA wal_checkpoint(TRUNCATE)", (), |row| {
            Ok((row.get::<_, i64>(0)?, row.get::<_, i64>(1)?, row.get::<_, i64>(2)?))
        });
        assert_eq!(row.unwrap(), (0, -1, -1));
        assert_eq!(int(&db, "PRAGMA wal_autocheckpoint"), 1000);
        check(&db);
    });
}

#[test]
fn synchronous_is_sqlites_own() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = site.open();
    assert_eq!(int(&db, "PRAGMA synchronous"), 2);
    for (word, level) in [("OFF", 0), ("NORMAL", 1), ("EXTRA", 3), ("FULL", 2)] {
        db.execute_batch(&format!("PRAGMA synchronous={word}")).unwrap();
        assert_eq!(int(&db, "PRAGMA synchronous"), level);
        db.execute_batch("CREATE TABLE IF NOT EXISTS t(x); INSERT INTO t VALUES (1)").unwrap();
    }
    assert_eq!(int(&db, "SELECT count(*) FROM t"), 4);
}

fn stat(db: &rusqlite::Connection, name: &str) -> i64 {
    int(db, &format!("SELECT value FROM nvlite_stat WHERE name='{name}'"))
}

/// Flushes of 40 commits at a level, on `file`.
fn flushes(db: &rusqlite::Connection) -> i64 {
    let before = stat(db, "flushes");
    for _ in 0..40 {
        db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
    }
    stat(db, "flushes") - before
}

/// Has the connection read all schemas again before the next pragma that needs them.
fn forget_schemas(db: &rusqlite::Connection) {
    db.execute_batch("PRAGMA writable_schema=RESET").unwrap();
}

#[test]
fn p5_full_flushes_every_commit_and_normal_does_not() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = site.open();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    assert!(flushes(&db) >= 40, "FULL is the default");
    db.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
    assert!(flushes(&db) < 20);
    db.execute_batch("PRAGMA synchronous=OFF").unwrap();
    assert!(flushes(&db) < 20);
    db.execute_batch("PRAGMA synchronous=EXTRA").unwrap();
    assert!(flushes(&db) >= 40);
}

#[test]
fn p5_a_pragma_inside_a_transaction_changes_nothing() {
    // SQLite refuses it there, but the VFS sees it all the same.
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = site.open();
    db.execute_batch("CREATE TABLE t(x); BEGIN").unwrap();
    assert!(db.execute_batch("PRAGMA synchronous=NORMAL").is_err());
    db.execute_batch("COMMIT").unwrap();
    assert_eq!(int(&db, "PRAGMA synchronous"), 2);
    assert!(flushes(&db) >= 40);
}

#[test]
fn p5_a_pragma_that_cannot_read_the_schema_changes_nothing() {
    // Failure: a program at FULL, whose wish for NORMAL was refused, loses acknowledged commits with the power.
    let site = Site::new(nvlite_vfs::Medium::File);
    let stock = site.stock();
    stock.execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE").unwrap();
    // Opens without an answer of the engine's: it is attached when it is first used.
    let db = site.open();
    db.busy_timeout(std::time::Duration::ZERO).unwrap();
    let refused = db.execute_batch("PRAGMA synchronous=NORMAL");
    assert_eq!(fails(refused), rusqlite::ffi::SQLITE_BUSY);
    stock.execute_batch("COMMIT").unwrap();
    close(stock);
    assert_eq!(int(&db, "PRAGMA synchronous"), 2);
    assert!(flushes(&db) >= 40, "FULL");
    // What it could not be given when it was opened, by which NORMAL shows, it never has.
    db.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
    assert!(flushes(&db) >= 40, "NORMAL does not show");
    let db = site.open();
    db.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
    assert!(flushes(&db) < 20, "NORMAL");
}

#[test]
fn p5_a_pragma_that_cannot_read_another_schema_changes_nothing() {
    // Failure: as above, by a database that the program does not even write to.
    let site = Site::new(nvlite_vfs::Medium::File);
    let other = stock(&site.file("other.db"));
    other.execute_batch("CREATE TABLE o(x)").unwrap();
    let db = site.open();
    db.busy_timeout(std::time::Duration::ZERO).unwrap();
    let attach = format!("CREATE TABLE t(x); ATTACH 'file:{}?vfs=unix' AS other", site.file("other.db").display());
    db.execute_batch(&attach).unwrap();
    forget_schemas(&db);
    other.execute_batch("BEGIN EXCLUSIVE").unwrap();
    assert_eq!(fails(db.execute_batch("PRAGMA synchronous=NORMAL")), rusqlite::ffi::SQLITE_BUSY);
    other.execute_batch("COMMIT").unwrap();
    assert_eq!(int(&db, "PRAGMA synchronous"), 2);
    assert!(flushes(&db) >= 40);
}

#[test]
fn p5_a_pragma_that_is_interrupted_changes_nothing() {
    // Failure: as above, by a program that gives up.
    let site = Site::new(nvlite_vfs::Medium::File);
    let mut db = site.open();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    forget_schemas(&db);
    db.progress_handler(1, Some(|| true)).unwrap();
    assert_eq!(fails(db.execute_batch("PRAGMA synchronous=NORMAL")), rusqlite::ffi::SQLITE_INTERRUPT);
    db.progress_handler(1, None::<fn() -> bool>).unwrap();
    assert_eq!(int(&db, "PRAGMA synchronous"), 2);
    assert!(flushes(&db) >= 40);
}

#[test]
fn p5_a_shared_cache_has_the_level_that_sqlite_gave_it_last() {
    // Failure: one of two connections that share a cache asked for NORMAL, and the other, at FULL, loses its commits.
    let site = Site::new(nvlite_vfs::Medium::File);
    let uri = format!("{}&cache=shared", site.uri("app.db"));
    let open = || rusqlite::Connection::open(&uri).unwrap();
    let (low, full) = (open(), open());
    low.execute_batch("CREATE TABLE t(x); PRAGMA synchronous=NORMAL").unwrap();
    assert!(flushes(&low) < 20);
    full.execute_batch("PRAGMA foreign_keys=ON").unwrap();
    assert_eq!(int(&full, "PRAGMA synchronous"), 2);
    assert!(flushes(&full) >= 40);
}

#[test]
fn p5_a_database_that_is_attached_is_flushed_at_normal_too() {
    // SQLite keeps its journal in the default mode, in which nothing tells NORMAL from FULL; OFF shows.
    let site = Site::new(nvlite_vfs::Medium::File);
    nvlite_vfs::register().unwrap();
    let db = stock(&site.file("main.db"));
    db.execute_batch(&format!("ATTACH '{}' AS n", site.uri("app.db"))).unwrap();
    db.execute_batch("CREATE TABLE n.t(x)").unwrap();
    let flushes_at = |level: &str| {
        db.execute_batch(&format!("PRAGMA n.synchronous={level}")).unwrap();
        let stat = || int(&db, "SELECT value FROM nvlite_stat('n') WHERE name='flushes'");
        let before = stat();
        for _ in 0..40 {
            db.execute_batch("INSERT INTO n.t VALUES (1)").unwrap();
        }
        stat() - before
    };
    assert!(flushes_at("NORMAL") >= 40);
    assert!(flushes_at("OFF") < 20);
}
