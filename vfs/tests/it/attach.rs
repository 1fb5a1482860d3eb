//! ATTACH, ours and stock ones mixed. SQLite commits the files one after the other, as in WAL mode.

use crate::support::*;
use nvlite_vfs::Medium;
use rusqlite::{Connection, ffi};
use std::sync::mpsc::channel;
use std::sync::{Arc, Barrier};
use std::time::Duration;

fn attach(db: &Connection, uri: &str, name: &str) {
    db.execute_batch(&format!("ATTACH '{}' AS {name}", uri.replace('\'', "''"))).unwrap();
}

#[test]
fn ours_beside_ours() {
    on_both(|site| {
        let db = site.open();
        attach(&db, &site.uri("two.db"), "two");
        db.execute_batch("CREATE TABLE t(x); CREATE TABLE two.t(x)").unwrap();
        db.execute_batch("BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO two.t VALUES (2); COMMIT").unwrap();
        db.execute_batch("BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO two.t VALUES (2); ROLLBACK").unwrap();
        assert_eq!(int(&db, "SELECT (SELECT sum(x) FROM main.t)*10+(SELECT sum(x) FROM two.t)"), 12);
        db.execute_batch("DETACH two").unwrap();
        assert_eq!(int(&stock(&site.file("two.db")), "SELECT sum(x) FROM t"), 2);
    });
}

#[test]
fn a_stock_main_with_ours_attached() {
    on_both(|site| {
        nvlite_vfs::register().unwrap();
        let db = stock(&site.file("main.db"));
        attach(&db, &site.uri("app.db"), "n");
        db.execute_batch("CREATE TABLE t(x); CREATE TABLE n.t(x)").unwrap();
        for _ in 0..5 {
            db.execute_batch("BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO n.t VALUES (2); COMMIT").unwrap();
        }
        assert_eq!(int(&db, "SELECT (SELECT sum(x) FROM main.t)*100+(SELECT sum(x) FROM n.t)"), 510);
        db.execute_batch("PRAGMA main.integrity_check; PRAGMA n.integrity_check").unwrap();
    });
}

#[test]
fn stock_files_attached_to_ours_keep_their_super_journal_on_disk() {
    // Their crash safety needs it: a hot journal whose super-journal is missing is not rolled back.
    let site = Site::new(Medium::File);
    let db = site.open();
    attach(&db, &format!("file:{}?vfs=unix", site.file("a.db").display()), "a");
    attach(&db, &format!("file:{}?vfs=unix", site.file("b.db").display()), "b");
    db.execute_batch("CREATE TABLE t(x); CREATE TABLE a.t(x); CREATE TABLE b.t(x)").unwrap();
    db.execute_batch(
        "BEGIN; INSERT INTO main.t VALUES (1); INSERT INTO a.t VALUES (1); INSERT INTO b.t VALUES (1); COMMIT",
    )
    .unwrap();
    let other = site.open();
    assert_eq!(int(&other, "SELECT count(*) FROM t"), 1);
    assert_eq!(int(&stock(&site.file("b.db")), "SELECT count(*) FROM t"), 1);
    assert!(!site.side_files().iter().any(|name| name.contains("-mj")));
}

#[test]
fn vacuum_into_makes_a_stock_copy() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 200, 300);
        let copy = site.file("copy.db");
        db.execute("VACUUM INTO ?1", [format!("file:{}?vfs=unix", copy.display())]).unwrap();
        let copy = stock(&copy);
        assert_eq!(int(&copy, "SELECT count(*) FROM t"), 200);
        check(&copy);
    });
}

#[test]
fn without_a_vfs_in_its_name_an_attached_file_is_ours_like_the_main_one() {
    on_both(|site| {
        let db = site.open();
        attach(&db, &site.file("two.db").display().to_string(), "two");
        db.execute_batch("CREATE TABLE two.t(x); INSERT INTO two.t VALUES (2)").unwrap();
        assert_eq!(text(&db, "SELECT value FROM nvlite_stat('two') WHERE name='medium'"), "file");
        assert_eq!(std::fs::read(site.file("two.db")).unwrap()[18], 3, "it bears the mark");
        db.execute_batch("DETACH two").unwrap();
        assert_eq!(int(&stock(&site.file("two.db")), "SELECT sum(x) FROM t"), 2);
    });
}

#[test]
fn vacuum_into_without_a_vfs_goes_through_us_and_leaves_a_stock_copy() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 200, 300);
        // A default VFS never sees a parameter of ours; that this one is refused shows whose the copy is.
        let bad = format!("file:{}?medium=tape", site.file("refused.db").display());
        assert_eq!(code(&db.execute("VACUUM INTO ?1", [bad]).unwrap_err()), rusqlite::ffi::SQLITE_CANTOPEN);
        let copy = site.file("copy.db");
        db.execute("VACUUM INTO ?1", [copy.display().to_string()]).unwrap();
        let beside: Vec<_> = site.side_files().into_iter().filter(|name| name.starts_with("copy.db-")).collect();
        assert_eq!(beside, Vec::<String>::new(), "its last close was a clean one");
        let copy = stock(&copy);
        assert_eq!(int(&copy, "SELECT count(*) FROM t"), 200);
        check(&copy);
    });
}

/// A stock main database, exclusively locked, that asks for WAL: unqualified, both reach the attached file as missing
/// calls.
#[test]
fn exclusive_wal_by_the_back_door_harms_nobody() {
    on_both(|site| {
        nvlite_vfs::register().unwrap();
        let db = stock(&site.file("main.db"));
        attach(&db, &site.uri("app.db"), "n");
        db.execute_batch("CREATE TABLE n.t(x); INSERT INTO n.t VALUES (1)").unwrap();
        let other = site.open();
        assert_eq!(int(&other, "SELECT sum(x) FROM t"), 1);
        db.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
        // What it is told, and whether it can go on, is SQLite's affair.
        let told = db.query_row("PRAGMA journal_mode=WAL", (), |row| row.get::<_, String>(0));
        let written = db.execute_batch("INSERT INTO n.t VALUES (2)");
        eprintln!("{told:?} {written:?}");
        let sum = if written.is_ok() { 3 } else { 1 };
        assert_eq!(int(&other, "SELECT sum(x) FROM t"), sum);
        check(&other);
        drop(db);
        other.execute_batch("INSERT INTO t VALUES (10)").unwrap();
        assert_eq!(int(&site.open(), "SELECT sum(x) FROM t"), sum + 10);
        assert!(!site.file("app.db-wal").exists());
        close(other);
        assert_eq!(&std::fs::read(site.path()).unwrap()[18..20], [1, 1]);
        let again = site.open();
        assert_eq!(int(&again, "SELECT sum(x) FROM t"), sum + 10);
        close(again);
        check(&site.stock());
    });
}

#[test]
fn p11_sqlites_own_time_out_breaks_a_cycle_over_two_files() {
    // Failure: each of two connections has one of two files and waits in the queue of the other for a lock that is
    // given back never: for longer than its busy handler asked.
    on_both(|site| {
        for name in ["one.db", "two.db"] {
            site.open_file(name).execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        }
        let both = Arc::new(Barrier::new(2));
        let start = |mine: &str, other: &str, byte: i64, patience: Duration| {
            let (options, mine, other) = (site.options(), site.file(mine), site.uri(other));
            let ((tell, told), both) = (channel(), both.clone());
            std::thread::spawn(move || {
                let db = options.open(mine).unwrap();
                attach(&db, &other, "other");
                db.busy_timeout(patience).unwrap();
                db.execute_batch(&format!("BEGIN; INSERT INTO main.t VALUES ({byte})")).unwrap();
                both.wait();
                let crossed = db.execute_batch(&format!("INSERT INTO other.t VALUES ({byte})"));
                db.execute_batch(if crossed.is_ok() { "COMMIT" } else { "ROLLBACK" }).unwrap();
                close(db);
                tell.send(crossed.map_err(|error| code(&error))).unwrap();
            });
            told
        };
        let impatient = start("one.db", "two.db", 10, Duration::from_millis(300));
        let patient = start("two.db", "one.db", 100, Duration::from_secs(600));
        let end = Duration::from_secs(120);
        assert_eq!(impatient.recv_timeout(end), Ok(Err(ffi::SQLITE_BUSY)));
        assert_eq!(patient.recv_timeout(end), Ok(Ok(())), "the other gave up");
        for name in ["one.db", "two.db"] {
            assert_eq!(int(&site.open_file(name), "SELECT sum(x) FROM t"), 101, "{name}");
        }
    });
}
