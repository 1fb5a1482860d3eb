//! Which files are ours and which are the default VFS's; what stands in the directory before, while and after.

use crate::support::*;
use nvlite_vfs::{Medium, OpenOptions};
use rusqlite::{Connection, OpenFlags, ffi};
use std::ffi::c_char;
use std::ptr;

fn vfs_name(db: &Connection) -> String {
    let mut name: *mut c_char = ptr::null_mut();
    assert_eq!(control(db, ffi::SQLITE_FCNTL_VFSNAME, &mut name), ffi::SQLITE_OK);
    take_text(name)
}

fn open_uri(uri: &str, flags: OpenFlags) -> rusqlite::Result<Connection> {
    nvlite_vfs::register()?;
    Connection::open_with_flags(uri, flags | OpenFlags::SQLITE_OPEN_URI)
}

const READ_WRITE: OpenFlags = OpenFlags::SQLITE_OPEN_READ_WRITE.union(OpenFlags::SQLITE_OPEN_CREATE);

/// Opening is lazy in SQLite: the first statement tells.
fn refused(uri: &str) -> i32 {
    match open_uri(uri, READ_WRITE) {
        Err(error) => code(&error),
        Ok(db) => fails(db.execute_batch("CREATE TABLE t(x)")),
    }
}

#[test]
fn p14_a_clean_close_leaves_a_complete_stock_file_and_nothing_else() {
    on_both(|site| {
        let (a, b) = (site.open(), site.open());
        fill(&a, "t", 500, 800);
        b.execute("UPDATE t SET body=randomblob(600) WHERE id%3=0", ()).unwrap();
        close(a);
        close(b);
        assert_eq!(site.side_files(), Vec::<String>::new());
        let header = std::fs::read(site.path()).unwrap();
        assert_eq!(&header[..16], b"SQLite format 3\0");
        assert_eq!((header[18], header[19]), (1, 1));
        assert!(header[72..92].iter().all(|byte| *byte == 0));
        let stock_view = site.stock();
        assert_eq!(int(&stock_view, "SELECT count(*) FROM t"), 500);
        check(&stock_view);
        stock_view.execute_batch("INSERT INTO t(body) VALUES (1)").unwrap();
        drop(stock_view);
        assert_eq!(int(&site.open(), "SELECT count(*) FROM t"), 501);
    });
}

#[test]
fn p14_stock_sqlite_refuses_the_base_while_it_is_ours() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 20, 100);
        let stock_view = site.stock();
        assert_eq!(fails(stock_view.execute_batch("SELECT count(*) FROM t")) & 0xFF, ffi::SQLITE_NOTADB);
        assert_eq!(fails(stock_view.execute_batch("CREATE TABLE u(x)")) & 0xFF, ffi::SQLITE_NOTADB);
        close(db);
        assert_eq!(int(&stock_view, "SELECT count(*) FROM t"), 20);
    });
}

#[test]
fn p14_a_stock_transaction_in_progress_makes_us_wait() {
    on_both(|site| {
        let stock_view = site.stock();
        stock_view.execute_batch("CREATE TABLE t(x); BEGIN IMMEDIATE; INSERT INTO t VALUES (1)").unwrap();
        let db = site.open();
        db.busy_timeout(std::time::Duration::ZERO).unwrap();
        assert_eq!(fails(db.execute_batch("SELECT * FROM t")) & 0xFF, ffi::SQLITE_BUSY);
        stock_view.execute_batch("COMMIT").unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 1);
    });
}

#[test]
fn a_new_database_is_created_and_an_unused_one_stays_empty() {
    on_both(|site| {
        let db = site.open();
        assert_eq!(int(&db, "SELECT count(*) FROM sqlite_schema"), 0);
        close(db);
        assert_eq!(std::fs::metadata(site.path()).unwrap().len(), 0);
        assert!(site.side_files().is_empty());
        let missing = OpenOptions::new().create(false).open(site.file("missing.db"));
        assert_eq!(code(&missing.unwrap_err()), ffi::SQLITE_CANTOPEN);
    });
}

#[test]
fn a_left_over_wal_is_adopted() {
    on_both(|site| {
        let writer = site.stock();
        assert_eq!(text(&writer, "PRAGMA journal_mode=WAL"), "wal");
        writer.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
        fill(&writer, "t", 100, 500);
        // As a killed process leaves them: the files copied while it has them open.
        let dead = site.file("dead.db");
        std::fs::copy(site.path(), &dead).unwrap();
        std::fs::copy(site.file("app.db-wal"), site.file("dead.db-wal")).unwrap();
        let db = site.open_file("dead.db");
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 100);
        check(&db);
        assert!(!site.file("dead.db-wal").exists());
        close(db);
        check(&stock(&dead));
    });
}

#[test]
fn a_hot_journal_is_rolled_back_before_adoption() {
    on_both(|site| {
        let writer = site.stock();
        fill(&writer, "t", 300, 500);
        let sum = text(&writer, "SELECT hex(group_concat(substr(body,1,2),'')) FROM t");
        writer.execute_batch("PRAGMA cache_size=5; BEGIN; UPDATE t SET body=randomblob(500)").unwrap();
        std::fs::copy(site.path(), site.file("dead.db")).unwrap();
        let journal = std::fs::read(site.file("app.db-journal")).unwrap();
        assert!(journal.len() > 4096, "the transaction has spilled");
        std::fs::write(site.file("dead.db-journal"), journal).unwrap();
        let db = site.open_file("dead.db");
        assert_eq!(text(&db, "SELECT hex(group_concat(substr(body,1,2),'')) FROM t"), sum);
        check(&db);
        assert!(!site.file("dead.db-journal").exists());
    });
}

#[test]
fn p14_a_read_only_open_of_a_stock_file_is_the_default_vfss() {
    on_both(|site| {
        let plain = site.stock();
        fill(&plain, "t", 10, 100);
        drop(plain);
        let db = site.options().read_only(true).open(site.path()).unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 10);
        assert_eq!(vfs_name(&db), "unix");
        assert!(site.side_files().is_empty());
    });
}

#[test]
fn a_stock_wal_database_can_be_read_through_us_read_only() {
    let site = Site::new(Medium::File);
    let plain = site.stock();
    assert_eq!(text(&plain, "PRAGMA journal_mode=WAL"), "wal");
    fill(&plain, "t", 10, 100);
    let db = site.options().read_only(true).open(site.path()).unwrap();
    assert_eq!(int(&db, "SELECT count(*) FROM t"), 10);
}

#[test]
fn a_read_only_open_of_a_marked_file_reads_the_snapshot() {
    on_both(|site| {
        let writer = site.open();
        fill(&writer, "t", 10, 100);
        let reader = site.options().read_only(true).open(site.path()).unwrap();
        assert_eq!(int(&reader, "SELECT count(*) FROM t"), 10);
        assert_eq!(vfs_name(&reader), "nvlite/unix");
        assert_eq!(fails(reader.execute_batch("DELETE FROM t")) & 0xFF, ffi::SQLITE_READONLY);
        fill(&writer, "t", 5, 100);
        assert_eq!(int(&reader, "SELECT count(*) FROM t"), 15);
    });
}

/// What SQLite's core takes for "yes" in a URI parameter of its own: any number but 0, and three words.
const SET: [&str; 4] = ["1", "2", "on", "TRUE"];

#[test]
fn p14_immutable() {
    on_both(|site| {
        for value in SET {
            let writer = site.open();
            writer.execute_batch("DROP TABLE IF EXISTS t").unwrap();
            fill(&writer, "t", 10, 100);
            let uri = format!("{}&immutable={value}", site.uri("app.db"));
            let frozen = open_uri(&uri, READ_WRITE).unwrap();
            assert_eq!(int(&frozen, "SELECT count(*) FROM t"), 10);
            fill(&writer, "t", 500, 500);
            // not from SQLite's cache, which such a connection never drops by itself
            frozen.execute_batch("PRAGMA shrink_memory").unwrap();
            assert_eq!(int(&frozen, "SELECT count(*) FROM t"), 10, "{value}: one snapshot from open to close");
            assert!(frozen.execute_batch("DELETE FROM t").is_err());
            drop(frozen);
            close(writer);
            let frozen = open_uri(&uri, READ_WRITE).unwrap();
            assert_eq!(vfs_name(&frozen), "unix", "{value}");
            assert_eq!(int(&frozen, "SELECT count(*) FROM t"), 510);
        }
    });
}

#[test]
fn p14_nolock_is_refused() {
    let site = Site::new(Medium::File);
    for value in SET {
        assert_eq!(refused(&format!("{}&nolock={value}", site.uri("app.db"))), ffi::SQLITE_CANTOPEN, "{value}");
    }
    for value in ["0", "off"] {
        let db = open_uri(&format!("{}&nolock={value}", site.uri("app.db")), READ_WRITE).unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM sqlite_schema"), 0, "{value}");
    }
}

#[test]
fn bad_parameters_are_refused() {
    let site = Site::new(Medium::File);
    for bad in ["medium=tape", "region=lots", "region=1", "keep_region=maybe", "journal_mode_reply=yes"] {
        let uri = format!("file:{}?vfs=nvlite&{bad}", site.path().display());
        assert_eq!(refused(&uri), ffi::SQLITE_CANTOPEN, "{bad}");
    }
    assert!(!site.path().exists(), "a refused open creates nothing");
}

#[test]
fn a_contradiction_is_refused() {
    let site = Site::new(Medium::File);
    let db = site.open();
    db.execute_batch("CREATE TABLE t(x)").unwrap();
    let base = format!("file:{}?vfs=nvlite", site.path().display());
    assert_eq!(refused(&format!("{base}&medium=ram")), ffi::SQLITE_CANTOPEN);
    assert_eq!(refused(&format!("{base}&region_dir=/")), ffi::SQLITE_CANTOPEN);
    assert_eq!(int(&open_uri(&base, READ_WRITE).unwrap(), "SELECT count(*) FROM t"), 0);
}

#[test]
fn a_file_that_is_no_database_is_refused_and_left_alone() {
    on_both(|site| {
        let text = b"This is a text file, and rather a long one, ".repeat(300);
        std::fs::write(site.path(), &text).unwrap();
        let db = site.open();
        let code = fails(db.execute_batch("SELECT * FROM sqlite_schema"));
        assert!(matches!(code & 0xFF, ffi::SQLITE_NOTADB | ffi::SQLITE_CORRUPT), "code {code}");
        drop(db);
        assert_eq!(std::fs::read(site.path()).unwrap(), text);
        assert!(site.side_files().is_empty());
    });
}

#[test]
fn keep_region_stays_and_comes_back() {
    on_both(|site| {
        let db = site.options().keep_region(true).open(site.path()).unwrap();
        fill(&db, "t", 30, 300);
        close(db);
        assert!(!site.side_files().is_empty());
        assert_eq!(fails(site.stock().execute_batch("SELECT * FROM t")) & 0xFF, ffi::SQLITE_NOTADB);
        let db = site.open();
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 30);
        close(db);
        assert!(site.side_files().is_empty());
        check(&site.stock());
    });
}

#[test]
fn keep_region_of_any_connection_counts() {
    on_both(|site| {
        let one = site.open();
        fill(&one, "t", 30, 300);
        let other = site.options().keep_region(true).open(site.path()).unwrap();
        assert_eq!(int(&other, "SELECT count(*) FROM t"), 30);
        close(other);
        close(one);
        assert!(!site.side_files().is_empty());
    });
}

#[test]
fn open_and_close_again_and_again() {
    on_both(|site| {
        for i in 0..15 {
            let db = site.open();
            db.execute_batch("CREATE TABLE IF NOT EXISTS t(x)").unwrap();
            db.execute("INSERT INTO t VALUES (?1)", [i]).unwrap();
            close(db);
            assert!(site.side_files().is_empty());
        }
        assert_eq!(int(&site.stock(), "SELECT sum(x) FROM t"), 105);
    });
}

#[test]
fn threads_that_open_and_close_at_once() {
    on_both(|site| {
        site.open().execute_batch("CREATE TABLE t(x)").unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                scope.spawn(move || {
                    for i in 0..10 {
                        let db = site.open();
                        db.busy_timeout(std::time::Duration::from_secs(30)).unwrap();
                        db.execute("INSERT INTO t VALUES (?1)", [thread * 10 + i]).unwrap();
                    }
                });
            }
        });
        assert!(site.side_files().is_empty());
        let stock_view = site.stock();
        assert_eq!(int(&stock_view, "SELECT count(DISTINCT x) FROM t"), 40);
        check(&stock_view);
    });
}

#[test]
fn a_name_with_odd_characters() {
    on_both(|site| {
        let name = "a b?c%d#é&.db";
        let db = site.open_file(name);
        fill(&db, "t", 3, 10);
        close(db);
        assert_eq!(int(&stock(&site.file(name)), "SELECT count(*) FROM t"), 3);
    });
}

#[test]
fn a_symbolic_link_is_the_same_database() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 3, 10);
        std::os::unix::fs::symlink(site.path(), site.file("link.db")).unwrap();
        let other = site.open_file("link.db");
        assert_eq!(int(&other, "SELECT count(*) FROM t"), 3);
        fill(&other, "t", 3, 10);
        assert_eq!(int(&db, "SELECT count(*) FROM t"), 6);
    });
}

#[test]
fn p14_a_base_that_was_replaced_is_not_served_from_the_old_region() {
    on_both(|site| {
        let old = site.open();
        old.execute_batch("CREATE TABLE old(x)").unwrap();
        std::fs::remove_file(site.path()).unwrap();
        let plain = site.stock();
        plain.execute_batch("CREATE TABLE new(x); INSERT INTO new VALUES (1)").unwrap();
        drop(plain);
        let newer = site.open();
        newer.busy_timeout(std::time::Duration::ZERO).unwrap();
        match newer.query_row("SELECT count(*) FROM sqlite_schema WHERE name='new'", (), |row| row.get::<_, i64>(0)) {
            Ok(count) => assert_eq!(count, 1, "another database's content"),
            Err(error) => assert_ne!(code(&error), ffi::SQLITE_NOTADB),
        }
        // What is written to the old one goes nowhere near the new one.
        let _ = old.execute_batch("INSERT INTO old VALUES (1)");
        drop(newer);
        drop(old);
        let view = site.stock();
        assert_eq!(int(&view, "SELECT count(*) FROM new"), 1);
        check(&view);
    });
}

#[test]
fn errors_can_be_asked_for() {
    let site = Site::new(Medium::File);
    // SAFETY: a registered VFS, and as many bytes as are said.
    let last = || unsafe {
        let vfs = ffi::sqlite3_vfs_find(c"nvlite".as_ptr());
        let mut buffer = [0u8; 300];
        ((*vfs).xGetLastError.unwrap())(vfs, 300, buffer.as_mut_ptr().cast());
        std::ffi::CStr::from_bytes_until_nul(&buffer).unwrap().to_string_lossy().into_owned()
    };
    let uri = format!("file:{}?vfs=nvlite&medium=tape", site.path().display());
    assert_eq!(refused(&uri), ffi::SQLITE_CANTOPEN);
    let text = last();
    assert!(text.contains("medium") && text.contains("tape") && text.contains("app.db"), "{text}");
    // What the default VFS fails at next is not explained by that.
    let missing = format!("file:{}?vfs=nvlite", site.file("missing/x.db").display());
    assert_eq!(code(&open_uri(&missing, READ_WRITE).unwrap_err()) & 0xFF, ffi::SQLITE_CANTOPEN);
    assert_eq!(last(), "");
}

#[test]
fn shared_cache() {
    on_both(|site| {
        let uri = format!("{}&cache=shared", site.uri("app.db"));
        let (a, b) = (open_uri(&uri, READ_WRITE).unwrap(), open_uri(&uri, READ_WRITE).unwrap());
        a.execute_batch("CREATE TABLE t(x); INSERT INTO t VALUES (1)").unwrap();
        b.execute_batch("PRAGMA synchronous=NORMAL; INSERT INTO t VALUES (2)").unwrap();
        drop(a);
        b.execute_batch("INSERT INTO t VALUES (3)").unwrap();
        assert_eq!(int(&site.open(), "SELECT sum(x) FROM t"), 6);
    });
}

#[test]
fn a_shared_cache_used_by_several_threads_and_by_functions() {
    on_both(|site| {
        let uri = format!("{}&cache=shared", site.uri("app.db"));
        open_uri(&uri, READ_WRITE).unwrap().execute_batch("CREATE TABLE t(x)").unwrap();
        std::thread::scope(|scope| {
            let work = |sql: &'static str| {
                let uri = &uri;
                scope.spawn(move || {
                    for _ in 0..20 {
                        let db = open_uri(uri, READ_WRITE).unwrap();
                        for _ in 0..10 {
                            match db.query_row(sql, (), |row| row.get::<_, rusqlite::types::Value>(0)) {
                                Ok(_) => {}
                                // A shared cache locks tables; its busy handler does not wait for those.
                                Err(error) => assert!(
                                    matches!(
                                        code(&error) & 0xFF,
                                        ffi::SQLITE_LOCKED | ffi::SQLITE_BUSY | ffi::SQLITE_ERROR
                                    ),
                                    "{sql}: {error}"
                                ),
                            }
                        }
                    }
                });
            };
            work("INSERT INTO t VALUES (randomblob(5000)) RETURNING 1");
            work("SELECT count(*) FROM t");
            work("SELECT count(*) FROM nvlite_stat");
            work("SELECT nvlite_checkpoint()");
        });
        check(&site.open());
    });
}
