//! Commit, rollback, spill and statement rollback: P1, P6, P7, P9.

use crate::support::*;
use rusqlite::{Connection, ffi};

/// A cache so small that every larger transaction spills.
fn tiny_cache(db: &Connection) {
    db.execute_batch("PRAGMA cache_size=5; PRAGMA cache_spill=1").unwrap();
}

#[test]
fn p1_a_rollback_after_a_spill_leaves_no_trace() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 200, 1000);
        let before = text(&db, "SELECT group_concat(hex(substr(body,1,4))) FROM t");
        tiny_cache(&db);
        db.execute_batch("BEGIN; UPDATE t SET body=randomblob(1000); INSERT INTO t(body) SELECT body FROM t; ROLLBACK")
            .unwrap();
        assert_eq!(text(&db, "SELECT group_concat(hex(substr(body,1,4))) FROM t"), before);
        check(&db);
        let other = site.open();
        assert_eq!(text(&other, "SELECT group_concat(hex(substr(body,1,4))) FROM t"), before);
        check(&other);
    });
}

#[test]
fn p1_a_close_inside_a_spilled_transaction_leaves_no_trace() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 200, 1000);
        let other = site.open();
        let sum = int(&other, "SELECT sum(length(body)) FROM t");
        tiny_cache(&db);
        db.execute_batch("BEGIN; UPDATE t SET body=randomblob(1500)").unwrap();
        close(db);
        assert_eq!(int(&other, "SELECT sum(length(body)) FROM t"), sum);
        check(&other);
        other.execute_batch("INSERT INTO t(body) VALUES (x'00')").unwrap();
    });
}

#[test]
fn p1_an_empty_transaction_commits_nothing() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        let before = int(&db, "PRAGMA data_version");
        let other = site.open();
        let seen = int(&other, "PRAGMA data_version");
        db.execute_batch("BEGIN IMMEDIATE; COMMIT; BEGIN EXCLUSIVE; COMMIT; BEGIN; COMMIT").unwrap();
        assert_eq!(int(&db, "PRAGMA data_version"), before);
        assert_eq!(int(&other, "PRAGMA data_version"), seen);
    });
}

#[test]
fn p1_a_commit_that_another_file_refuses_can_be_retried() {
    // ours is main and prepared first; the stock file is locked by a reader, so COMMIT answers BUSY and stays open.
    on_both(|site| {
        let stock_path = site.file("stock.db");
        let stock_db = stock(&stock_path);
        stock_db.execute_batch("CREATE TABLE s(x)").unwrap();
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x)").unwrap();
        db.execute_batch(&format!("ATTACH 'file:{}?vfs=unix' AS s", stock_path.display())).unwrap();
        stock_db.execute_batch("BEGIN; SELECT * FROM s").unwrap();
        db.execute_batch("BEGIN; INSERT INTO t VALUES (1); INSERT INTO s.s VALUES (1)").unwrap();
        assert_eq!(fails(db.execute_batch("COMMIT")) & 0xFF, ffi::SQLITE_BUSY);
        let other = site.open();
        assert_eq!(int(&other, "SELECT count(*) FROM t"), 0, "prepared is not committed");
        db.execute_batch("INSERT INTO t VALUES (2)").unwrap();
        stock_db.execute_batch("COMMIT").unwrap();
        db.execute_batch("COMMIT").unwrap();
        assert_eq!(int(&other, "SELECT sum(x) FROM t"), 3);
        assert_eq!(int(&stock_db, "SELECT count(*) FROM s"), 1);
        check(&other);
    });
}

#[test]
fn savepoints_and_failed_statements_after_a_spill() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 100, 800);
        db.execute_batch("CREATE UNIQUE INDEX u ON t(body)").unwrap();
        tiny_cache(&db);
        db.execute_batch(
            "BEGIN; UPDATE t SET body=randomblob(900) WHERE id<50; SAVEPOINT a; DELETE FROM t WHERE id>20",
        )
        .unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 20);
        db.execute_batch("ROLLBACK TO a").unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 100);
        // A statement that fails in its middle takes itself back.
        assert!(db.execute("UPDATE t SET body = CASE WHEN id<90 THEN randomblob(700) ELSE x'11' END", ()).is_err());
        assert_eq!(int(&db, "SELECT count(*) FROM t WHERE length(body)=900"), 49);
        db.execute_batch("RELEASE a; COMMIT").unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t WHERE length(body)=900"), 49);
        check(&db);
        check(&site.open());
    });
}

#[test]
fn a_transaction_much_larger_than_the_cache() {
    on_both(|site| {
        let db = site.open();
        tiny_cache(&db);
        fill(&db, "t", 3000, 1500);
        assert_eq!(int(&db, "SELECT sum(length(body)) FROM t"), 4_500_000);
        check(&site.open());
        drop(db);
        assert_eq!(int(&site.stock(), "SELECT count(*) FROM t"), 3000);
    });
}

/// Without being told: `locking_mode=EXCLUSIVE`, unqualified on a stock main database, reaches an attached file only as
/// missing calls.
fn exclusive_by_the_back_door(site: &Site) -> Connection {
    nvlite_vfs::register().unwrap();
    let main = stock(&site.file("main.db"));
    main.execute_batch(&format!("ATTACH '{}' AS n", site.uri("app.db"))).unwrap();
    main.execute_batch("CREATE TABLE IF NOT EXISTS n.t(x)").unwrap();
    main.execute_batch("PRAGMA locking_mode=EXCLUSIVE").unwrap();
    main
}

#[test]
fn p6_exclusive_locking_by_the_back_door_commits() {
    on_both(|site| {
        let db = exclusive_by_the_back_door(site);
        for i in 1..=5 {
            db.execute("INSERT INTO n.t VALUES (?1)", [i]).unwrap();
        }
        let other = site.open();
        assert_eq!(int(&other, "SELECT sum(x) FROM t"), 15);
        // The change counter of a transaction without page 1 is raised by the engine, so this cache is not stale.
        db.execute("INSERT INTO n.t VALUES (6)", ()).unwrap();
        assert_eq!(int(&other, "SELECT sum(x) FROM t"), 21);
        check(&other);
    });
}

#[test]
fn p6_a_write_after_another_writer_is_refused() {
    on_both(|site| {
        let db = exclusive_by_the_back_door(site);
        db.execute("INSERT INTO n.t VALUES (1)", ()).unwrap();
        db.execute("INSERT INTO n.t VALUES (2)", ()).unwrap();
        let other = site.open();
        other.execute("INSERT INTO t VALUES (10)", ()).unwrap();
        let refused = code(&db.execute("INSERT INTO n.t VALUES (3)", ()).expect_err("its snapshot is old"));
        assert_eq!(refused & 0xFF, ffi::SQLITE_IOERR);
        assert_eq!(int(&other, "SELECT sum(x) FROM t"), 13);
        check(&other);
        drop(db);
        other.execute("INSERT INTO t VALUES (20)", ()).unwrap();
        check(&other);
    });
}

#[test]
fn p6_p8_journal_modes_by_the_back_door() {
    for mode in ["delete", "truncate", "persist", "off", "memory", "wal"] {
        on_both(|site| {
            nvlite_vfs::register().unwrap();
            let db = stock(&site.file("main.db"));
            db.execute_batch(&format!("ATTACH '{}' AS n", site.uri("app.db"))).unwrap();
            db.execute_batch("CREATE TABLE n.t(x); CREATE TABLE m(x)").unwrap();
            let _answer = text(&db, &format!("PRAGMA journal_mode={mode}"));
            for i in 0..4 {
                db.execute_batch(&format!("BEGIN; INSERT INTO n.t VALUES ({i}); INSERT INTO m VALUES ({i}); COMMIT"))
                    .unwrap_or_else(|error| panic!("{mode}: {error}"));
            }
            if mode != "off" {
                db.execute_batch("BEGIN; INSERT INTO n.t VALUES (100); ROLLBACK").unwrap();
            }
            let other = site.open();
            assert_eq!(int(&other, "SELECT sum(x) FROM t"), 6, "{mode}");
            check(&other);
            let names = site.side_files();
            assert!(
                !names.iter().any(|name| name.starts_with("app.db-journal") || name.starts_with("app.db-wal")),
                "{names:?}"
            );
            drop(other);
            drop(db);
            let stock_view = site.stock();
            assert_eq!(int(&stock_view, "SELECT sum(x) FROM t"), 6);
            check(&stock_view);
        });
    }
}

#[test]
fn p7_a_backup_from_a_wal_database_leaves_a_readable_file() {
    on_both(|site| {
        let source = stock(&site.file("wal.db"));
        assert_eq!(text(&source, "PRAGMA journal_mode=WAL"), "wal");
        fill(&source, "t", 50, 300);
        let mut target = site.open();
        rusqlite::backup::Backup::new(&source, &mut target)
            .unwrap()
            .run_to_completion(7, std::time::Duration::ZERO, None)
            .unwrap();
        assert_eq!(int(&target, "SELECT count(*) FROM t"), 50);
        close(target);
        let again = site.open();
        assert_eq!(int(&again, "SELECT count(*) FROM t"), 50);
        again.execute_batch("INSERT INTO t(body) VALUES (1)").unwrap();
        close(again);
        check(&site.stock());
    });
}

#[test]
fn p7_reserved_bytes_of_page_one_that_are_written_are_not_kept() {
    // Failure: a mark of somebody's own making, or a stock file that bears ours.
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 20, 100);
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        assert_eq!(control(&db, ffi::SQLITE_FCNTL_FILE_POINTER, &mut file), ffi::SQLITE_OK);
        // SAFETY: an open file of this connection, which is idle.
        let methods = unsafe { &*(*file).pMethods };
        // SAFETY: as above; as many bytes as are said, from the start.
        let read = |bytes: &mut [u8]| unsafe {
            let amount = i32::try_from(bytes.len()).unwrap();
            assert_eq!(methods.xRead.unwrap()(file, bytes.as_mut_ptr().cast(), amount, 0), ffi::SQLITE_OK);
        };
        let (mut page, mut seen) = (vec![0; 4096], vec![0; 4096]);
        // SAFETY: SQLite's own order of calls.
        unsafe {
            assert_eq!(methods.xLock.unwrap()(file, ffi::SQLITE_LOCK_SHARED), ffi::SQLITE_OK);
            read(&mut page);
            let normal = page.clone();
            page[18..20].fill(2);
            page[72..92].fill(0xAB);
            assert_eq!(methods.xLock.unwrap()(file, ffi::SQLITE_LOCK_RESERVED), ffi::SQLITE_OK);
            assert_eq!(methods.xWrite.unwrap()(file, page.as_ptr().cast(), 4096, 0), ffi::SQLITE_OK);
            read(&mut seen);
            assert!(seen == normal, "by its writer");
            for op in [ffi::SQLITE_FCNTL_SYNC, ffi::SQLITE_FCNTL_COMMIT_PHASETWO] {
                assert_eq!(methods.xFileControl.unwrap()(file, op, std::ptr::null_mut()), ffi::SQLITE_OK);
            }
            read(&mut seen);
            // a commit that left the change counter as it was has raised it
            for at in [24..28, 92..96] {
                assert!(seen[at.clone()] > normal[at.clone()]);
                seen[at.clone()].copy_from_slice(&normal[at]);
            }
            assert!(seen == normal, "once committed");
            assert_eq!(methods.xUnlock.unwrap()(file, ffi::SQLITE_LOCK_NONE), ffi::SQLITE_OK);
        }
        check(&site.open());
        db.execute_batch("UPDATE t SET body=1 WHERE id=1").unwrap();
        close(db);
        let header = std::fs::read(site.path()).unwrap();
        assert_eq!((&header[18..20], &header[72..92]), (&[1, 1][..], &[0; 20][..]));
        check(&site.stock());
    });
}

#[test]
fn p9_a_commit_under_an_open_select_moves_the_own_pin() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1),(2),(3)").unwrap();
        let mut select = db.prepare("SELECT x FROM t").unwrap();
        let mut rows = select.query(()).unwrap();
        rows.next().unwrap().unwrap();
        // Each commits while the SELECT holds SHARED: the next takes RESERVED without a new SHARED.
        for i in 10..15 {
            db.execute("INSERT INTO t VALUES (?1)", [i]).unwrap();
        }
        let other = site.open();
        assert_eq!(int(&other, "SELECT count(*) FROM t"), 8);
        drop(rows);
        drop(select);
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 8);
        check(&db);
    });
}

#[test]
fn a_transaction_much_larger_than_the_region() {
    on_both(|site| {
        let db = site.options().region("1MiB").open(site.path()).unwrap();
        db.execute_batch(
            "CREATE TABLE t(x); WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i+1 FROM n WHERE i<4000)
             INSERT INTO t SELECT randomblob(2000) FROM n",
        )
        .unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 4000);
        check(&db);
        db.execute_batch("INSERT INTO t VALUES (1)").unwrap();
        close(db);
        assert_eq!(int(&site.stock(), "SELECT sum(length(x)) FROM t"), 8_000_001);
    });
}

#[test]
fn p1_xwrite_takes_any_length_at_any_place() {
    // SQLite writes parts of pages, and over their ends, when it changes the page size.
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 50, 3000);
        let mut file: *mut ffi::sqlite3_file = std::ptr::null_mut();
        assert_eq!(control(&db, ffi::SQLITE_FCNTL_FILE_POINTER, &mut file), ffi::SQLITE_OK);
        // SAFETY: an open file of this connection, which nobody else uses meanwhile.
        let (methods, ok) = (unsafe { &*(*file).pMethods }, ffi::SQLITE_OK);
        let read = |from: usize, into: &mut [u8]| {
            // SAFETY: as above; the buffer has the length that is said.
            unsafe { methods.xRead.unwrap()(file, into.as_mut_ptr().cast(), into.len() as i32, from as i64) }
        };
        let lock = |level| {
            // SAFETY: as above.
            unsafe { methods.xLock.unwrap()(file, level) }
        };
        assert_eq!(lock(ffi::SQLITE_LOCK_SHARED), ok);
        let mut size = 0;
        // SAFETY: as above.
        assert_eq!(unsafe { methods.xFileSize.unwrap()(file, &mut size) }, ok);
        let mut model = vec![0; size as usize];
        assert_eq!(read(0, &mut model), ok);
        assert_eq!((lock(ffi::SQLITE_LOCK_RESERVED), lock(ffi::SQLITE_LOCK_EXCLUSIVE)), (ok, ok));
        for (at, len) in [
            (4096 * 3 - 1, 2),
            (4096 * 4 + 17, 1),
            (4096 * 5 + 100, 4096),
            (4096 * 7 - 3, 3 * 4096 + 7),
            (4096 * 12 + 4095, 1),
        ] {
            let new: Vec<u8> = (0..len).map(|i| (at + 7 * i) as u8).collect();
            // SAFETY: as above; as many bytes as are said.
            assert_eq!(unsafe { methods.xWrite.unwrap()(file, new.as_ptr().cast(), len as i32, at as i64) }, ok);
            model[at..at + len].copy_from_slice(&new);
            let mut got = vec![0; len + 4];
            assert_eq!(read(at - 2, &mut got), ok);
            assert!(got == model[at - 2..at + len + 2], "{len} bytes at {at}");
        }
        for op in [ffi::SQLITE_FCNTL_SYNC, ffi::SQLITE_FCNTL_COMMIT_PHASETWO] {
            // SAFETY: as above; neither takes an argument here. xSync stands between them.
            let code = unsafe {
                let code = methods.xFileControl.unwrap()(file, op, std::ptr::null_mut());
                methods.xSync.unwrap()(file, ffi::SQLITE_SYNC_NORMAL);
                code
            };
            assert_eq!(code, ok);
        }
        // SAFETY: as above.
        assert_eq!(unsafe { methods.xUnlock.unwrap()(file, ffi::SQLITE_LOCK_NONE) }, ok);
        close(db);
        let stored = std::fs::read(site.path()).unwrap();
        assert!(stored.len() == model.len() && stored[100..] == model[100..], "but for the counters of the header");
    });
}
