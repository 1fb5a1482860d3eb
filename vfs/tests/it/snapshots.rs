//! What readers and writers see of each other.

use crate::support::*;
use rusqlite::ffi;
use std::sync::Barrier;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

#[test]
fn a_reader_keeps_its_snapshot_and_blocks_nobody() {
    on_both(|site| {
        let writer = site.open();
        writer.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        let reader = site.open();
        reader.execute_batch("BEGIN").unwrap();
        assert_eq!(int(&reader, "SELECT sum(x) FROM t"), 1);
        for i in 0..20 {
            writer.execute("INSERT INTO t VALUES (?1)", [i]).unwrap();
        }
        assert_eq!(int(&reader, "SELECT sum(x) FROM t"), 1);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(int(&reader, "SELECT sum(x) FROM t"), 191);
    });
}

#[test]
fn an_old_snapshot_cannot_write() {
    on_both(|site| {
        let (a, b) = (site.open(), site.open());
        a.execute_batch("CREATE TABLE t(x)").unwrap();
        b.execute_batch("BEGIN").unwrap();
        assert_eq!(int(&b, "SELECT count(*) FROM t"), 0);
        a.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        assert_eq!(fails(b.execute_batch("INSERT INTO t VALUES (2)")), ffi::SQLITE_BUSY_SNAPSHOT);
        b.execute_batch("ROLLBACK; INSERT INTO t VALUES (2)").unwrap();
        assert_eq!(int(&a, "SELECT sum(x) FROM t"), 3);
    });
}

#[test]
fn without_a_busy_handler_a_second_writer_is_refused_at_once() {
    on_both(|site| {
        let (a, b) = (site.open(), site.open());
        b.busy_timeout(Duration::ZERO).unwrap();
        a.execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE").unwrap();
        assert_eq!(fails(b.execute_batch("BEGIN IMMEDIATE")), ffi::SQLITE_BUSY);
        a.execute_batch("COMMIT").unwrap();
        b.execute_batch("BEGIN IMMEDIATE; COMMIT").unwrap();
    });
}

#[test]
fn p11_writers_of_many_threads_take_turns() {
    on_both(|site| {
        let (threads, each) = (4, 100);
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x); CREATE TABLE n(v); INSERT INTO n VALUES (0)").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..threads {
                scope.spawn(move || {
                    let db = site.open();
                    db.busy_timeout(Duration::from_secs(30)).unwrap();
                    for i in 0..each {
                        db.execute("INSERT INTO t VALUES (?1)", [thread * each + i]).unwrap();
                        db.execute_batch("BEGIN IMMEDIATE; UPDATE n SET v=v+1; COMMIT").unwrap();
                    }
                });
            }
        });
        assert_eq!(int(&db, "SELECT count(DISTINCT x) FROM t"), i64::from(threads * each));
        assert_eq!(int(&db, "SELECT v FROM n"), i64::from(threads * each));
        check(&db);
    });
}

#[test]
fn readers_never_see_half_a_transaction() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v INT)").unwrap();
        db.execute_batch(
            "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<500) INSERT INTO t SELECT i,0 FROM n",
        )
        .unwrap();
        let done = AtomicBool::new(false);
        let started = Barrier::new(3);
        std::thread::scope(|scope| {
            let readers: Vec<_> = (0..2)
                .map(|mapped| {
                    let (done, started) = (&done, &started);
                    scope.spawn(move || {
                        let db = site.open();
                        db.execute_batch(&format!("PRAGMA mmap_size={}", mapped * (64 << 20))).unwrap();
                        let mut reads = 0;
                        started.wait();
                        while reads == 0 || !done.load(Ordering::Relaxed) {
                            assert_eq!(int(&db, "SELECT count(DISTINCT v) FROM t"), 1);
                            reads += 1;
                        }
                        reads
                    })
                })
                .collect();
            started.wait();
            for i in 1..=150 {
                db.execute("UPDATE t SET v=?1", [i]).unwrap();
            }
            done.store(true, Ordering::Relaxed);
            for reader in readers {
                assert!(reader.join().unwrap() > 0);
            }
        });
        check(&db);
    });
}
