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
    db.execute_batch("PRAGMA synchronous=NORMAL").unwrap();
    assert!(flushes(&db) < 20, "NORMAL");
}
