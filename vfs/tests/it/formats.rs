//! Page sizes, VACUUM, backup, and the parts of SQLite that use a database hard.

use crate::support::*;
use nvlite_vfs::Medium;
use rusqlite::Connection;
use rusqlite::backup::{Backup, StepResult};
use std::os::unix::fs::FileExt;
use std::time::Duration;

#[test]
fn every_page_size() {
    on_both(|site| {
        for size in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536] {
            let name = format!("p{size}.db");
            let db = site.open_file(&name);
            db.execute_batch(&format!("PRAGMA page_size={size}")).unwrap();
            fill(&db, "t", 300, 700);
            db.execute("UPDATE t SET body=randomblob(1200) WHERE id%5=0", ()).unwrap();
            db.execute("DELETE FROM t WHERE id%7=0", ()).unwrap();
            assert_eq!(int(&db, "PRAGMA page_size"), size);
            check(&db);
            let other = site.open_file(&name);
            assert_eq!(int(&other, "SELECT count(*) FROM t"), 258);
            drop(other);
            close(db);
            let stock_view = stock(&site.file(&name));
            assert_eq!(int(&stock_view, "PRAGMA page_size"), size);
            check(&stock_view);
            assert_eq!(std::fs::metadata(site.file(&name)).unwrap().len() % size.unsigned_abs(), 0);
        }
    });
}

#[test]
fn a_budget_that_holds_more_bytes_of_one_page_size_than_of_a_smaller_one() {
    on_both(|site| {
        for size in [1024, 65536] {
            let name = format!("p{size}.db");
            let open = || site.options().region("14MiB").keep_region(true).open(site.file(&name)).unwrap();
            let db = open();
            db.execute_batch(&format!("PRAGMA page_size={size}")).unwrap();
            fill(&db, "t", 300, 700);
            close(db);
            let again = open();
            assert_eq!((int(&again, "PRAGMA page_size"), int(&again, "SELECT count(*) FROM t")), (size, 300));
            check(&again);
        }
    });
}

#[test]
fn a_database_that_is_created_with_utf_16_names_is_utf_8() {
    // A limit that is documented: the schema has been looked at when sqlite3_open16 would choose.
    unsafe extern "C" {
        fn sqlite3_open16(name: *const std::ffi::c_void, db: *mut *mut rusqlite::ffi::sqlite3) -> std::ffi::c_int;
    }
    let site = Site::new(Medium::File);
    drop(site.open());
    let name: Vec<u16> = site.uri("wide.db").encode_utf16().chain([0]).collect();
    let mut db = std::ptr::null_mut();
    // SAFETY: a terminated name; the connection becomes rusqlite's, which closes it.
    let open = unsafe {
        assert_eq!(sqlite3_open16(name.as_ptr().cast(), &mut db), rusqlite::ffi::SQLITE_OK);
        Connection::from_handle_owned(db).unwrap()
    };
    open.execute_batch("CREATE TABLE t(x)").unwrap();
    assert_eq!(text(&open, "PRAGMA encoding"), "UTF-8");
    close(open);
    let chosen = site.open_file("chosen.db");
    chosen.execute_batch("PRAGMA encoding='UTF-16le'; CREATE TABLE t(x); INSERT INTO t VALUES ('ä')").unwrap();
    assert_eq!(text(&chosen, "PRAGMA encoding"), "UTF-16le");
    check(&chosen);
}

#[test]
fn vacuum_shrinks_the_file() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 800, 1000);
        let pages = int(&db, "PRAGMA page_count");
        db.execute_batch("DELETE FROM t WHERE id>50; VACUUM").unwrap();
        assert!(int(&db, "PRAGMA page_count") < pages / 4);
        check(&db);
        let other = site.open();
        assert_eq!(int(&other, "SELECT count(*) FROM t"), 50);
        drop(other);
        let left = int(&db, "PRAGMA page_count") * 4096;
        close(db);
        assert_eq!(i64::try_from(std::fs::metadata(site.path()).unwrap().len()).unwrap(), left);
        check(&site.stock());
    });
}

#[test]
fn vacuum_keeps_the_page_size() {
    // A limit that is documented: with a journal in memory SQLite does not change the page size of a database.
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 50, 1000);
        db.execute_batch("PRAGMA page_size=8192; VACUUM").unwrap();
        assert_eq!(int(&db, "PRAGMA page_size"), 4096);
        check(&db);
    });
}

#[test]
fn vacuum_switches_auto_vacuum() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 300, 1000);
        let other = site.open();
        for mode in [1, 2, 0] {
            db.execute_batch(&format!("PRAGMA auto_vacuum={mode}; VACUUM")).unwrap();
            assert_eq!((int(&db, "PRAGMA auto_vacuum"), int(&other, "SELECT count(*) FROM t")), (mode, 300));
            check(&db);
            check(&other);
            assert_eq!(int(&site.open(), "PRAGMA auto_vacuum"), mode, "the header says so to a new connection");
        }
        db.execute_batch("PRAGMA auto_vacuum=FULL; VACUUM; DELETE FROM t WHERE id>10").unwrap();
        assert!(int(&db, "PRAGMA page_count") < 20, "and it is done");
        close(db);
        close(other);
        let view = site.stock();
        assert_eq!((int(&view, "PRAGMA auto_vacuum"), int(&view, "SELECT count(*) FROM t")), (1, 10));
        check(&view);
    });
}

#[test]
fn a_database_can_be_reset() {
    use rusqlite::config::DbConfig::SQLITE_DBCONFIG_RESET_DATABASE;
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 300, 1000);
        // A reset starts the schema's version again at 1, and it is by the version that other connections notice.
        fill(&db, "s", 1, 1);
        let other = site.open();
        assert_eq!(int(&other, "SELECT count(*) FROM t"), 300);
        db.set_db_config(SQLITE_DBCONFIG_RESET_DATABASE, true).unwrap();
        db.execute_batch("VACUUM").unwrap();
        db.set_db_config(SQLITE_DBCONFIG_RESET_DATABASE, false).unwrap();
        for view in [&db, &other] {
            assert_eq!(int(view, "SELECT count(*) FROM sqlite_schema"), 0);
            check(view);
        }
        fill(&other, "u", 10, 100);
        assert_eq!(int(&db, "SELECT count(*) FROM u"), 10);
        close(db);
        close(other);
        assert_eq!(int(&site.stock(), "SELECT count(*) FROM u"), 10);
        check(&site.stock());
    });
}

#[test]
fn vacuum_beside_a_reader() {
    on_both(|site| {
        let db = site.open();
        fill(&db, "t", 300, 1000);
        let reader = site.open();
        reader.execute_batch("BEGIN").unwrap();
        let sum = text(&reader, "SELECT hex(substr(group_concat(body,''),1,2000)) FROM t");
        db.execute_batch("DELETE FROM t WHERE id%2; VACUUM; INSERT INTO t(body) SELECT randomblob(900) FROM t")
            .unwrap();
        assert_eq!(text(&reader, "SELECT hex(substr(group_concat(body,''),1,2000)) FROM t"), sum);
        check(&reader);
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(int(&reader, "SELECT count(*) FROM t"), 300);
        check(&reader);
    });
}

#[test]
fn auto_vacuum_full_and_incremental() {
    on_both(|site| {
        for (name, mode) in [("full.db", "FULL"), ("incremental.db", "INCREMENTAL")] {
            let db = site.open_file(name);
            db.execute_batch(&format!("PRAGMA auto_vacuum={mode}")).unwrap();
            fill(&db, "t", 400, 1000);
            let pages = int(&db, "PRAGMA page_count");
            db.execute_batch("DELETE FROM t WHERE id>20").unwrap();
            if mode == "INCREMENTAL" {
                assert_eq!(int(&db, "PRAGMA page_count"), pages);
                // One step of the statement frees one page.
                let mut pragma = db.prepare("PRAGMA incremental_vacuum").unwrap();
                let mut rows = pragma.query(()).unwrap();
                while rows.next().unwrap().is_some() {}
            }
            assert!(int(&db, "PRAGMA page_count") < pages / 4);
            check(&db);
            fill(&db, "t", 100, 1000);
            check(&site.open_file(name));
            close(db);
            check(&stock(&site.file(name)));
        }
    });
}

fn copy(from: &Connection, to: &mut Connection, pages: i32) {
    let backup = Backup::new(from, to).unwrap();
    match pages {
        -1 => assert_eq!(backup.step(-1).unwrap(), StepResult::Done),
        _ => backup.run_to_completion(pages, Duration::ZERO, None).unwrap(),
    }
}

#[test]
fn backup_into_and_out_of() {
    on_both(|site| {
        let stock_path = site.file("stock.db");
        let mut plain = stock(&stock_path);
        fill(&plain, "t", 300, 700);
        let mut ours = site.open();
        copy(&plain, &mut ours, 5);
        assert_eq!(int(&ours, "SELECT count(*) FROM t"), 300);
        check(&ours);
        ours.execute_batch("DELETE FROM t WHERE id>100").unwrap();
        copy(&ours, &mut plain, -1);
        assert_eq!(int(&plain, "SELECT count(*) FROM t"), 100);
        check(&plain);
        let mut memory = Connection::open_in_memory().unwrap();
        copy(&ours, &mut memory, 3);
        check(&memory);
    });
}

#[test]
fn a_backup_from_another_page_size_needs_a_fresh_database() {
    // A limit that is documented: with a journal in memory SQLite does not change the page size of a database.
    for size in [512, 65536] {
        on_both(|site| {
            let source = stock(&site.file("stock.db"));
            source.execute_batch(&format!("PRAGMA page_size={size}")).unwrap();
            fill(&source, "t", 300, 700);
            let mut used = site.open();
            fill(&used, "u", 20, 300);
            let refused = Backup::new(&source, &mut used).unwrap().step(-1).unwrap_err();
            assert_eq!(code(&refused) & 0xFF, rusqlite::ffi::SQLITE_READONLY);
            assert_eq!((int(&used, "SELECT count(*) FROM u"), int(&used, "PRAGMA page_size")), (20, 4096));
            check(&used);
            used.execute_batch("INSERT INTO u(body) VALUES (1)").unwrap();
            let mut fresh = site.open_file("fresh.db");
            copy(&source, &mut fresh, -1);
            assert_eq!((int(&fresh, "SELECT count(*) FROM t"), int(&fresh, "PRAGMA page_size")), (300, size));
            check(&fresh);
            fresh.execute_batch("INSERT INTO t(body) VALUES (1)").unwrap();
            check(&site.open_file("fresh.db"));
            close(fresh);
            check(&stock(&site.file("fresh.db")));
        });
    }
}

#[test]
fn a_backup_of_one_step_is_one_snapshot() {
    on_both(|site| {
        let ours = site.open();
        fill(&ours, "t", 300, 700);
        let writer = site.open();
        let mut memory = Connection::open_in_memory().unwrap();
        {
            let backup = Backup::new(&ours, &mut memory).unwrap();
            backup.step(10).unwrap();
            writer.execute_batch("DELETE FROM t").unwrap();
            backup.step(-1).unwrap();
        }
        check(&memory);
        assert_eq!(int(&memory, "SELECT count(*) FROM t"), 0, "another connection's commit restarts a backup");
    });
}

#[test]
fn without_rowid_fts5_and_rtree() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch(
            "CREATE TABLE w(a TEXT PRIMARY KEY, b) WITHOUT ROWID;
             CREATE VIRTUAL TABLE f USING fts5(body);
             CREATE VIRTUAL TABLE r USING rtree(id, x0, x1, y0, y1);",
        )
        .unwrap();
        for i in 0..300 {
            db.execute("INSERT INTO w VALUES (?1, ?2)", (format!("key {i}"), i)).unwrap();
            db.execute("INSERT INTO f VALUES (?1)", [format!("the number {i} and word{}", i % 10)]).unwrap();
            db.execute("INSERT INTO r VALUES (?1, ?1, ?1+1, ?1, ?1+1)", [i]).unwrap();
        }
        db.execute_batch("INSERT INTO f(f) VALUES ('optimize')").unwrap();
        let other = site.open();
        assert_eq!(int(&other, "SELECT count(*) FROM f WHERE f MATCH 'word3'"), 30);
        assert_eq!(int(&other, "SELECT count(*) FROM r WHERE x0>=100 AND x1<=200"), 100);
        assert_eq!(int(&other, "SELECT b FROM w WHERE a='key 77'"), 77);
        db.execute_batch("INSERT INTO f(f) VALUES ('integrity-check')").unwrap();
        check(&other);
    });
}

#[test]
fn large_sorts_spill_into_temporary_files() {
    on_both(|site| {
        let db = site.open();
        db.execute_batch("PRAGMA cache_size=10; PRAGMA temp_store=FILE").unwrap();
        fill(&db, "t", 4000, 400);
        let sorted = int(&db, "SELECT count(*) FROM (SELECT DISTINCT body FROM t ORDER BY body)");
        assert_eq!(sorted, 4000);
        db.execute_batch("CREATE INDEX i ON t(body); CREATE TEMP TABLE x AS SELECT * FROM t; DELETE FROM x WHERE id%2")
            .unwrap();
        assert_eq!(int(&db, "SELECT count(*) FROM x"), 2000);
        check(&db);
    });
}

/// The page that nobody writes stands here.
const PENDING: u64 = 1 << 30;

#[test]
fn the_page_at_1_gib_is_a_hole() {
    // A stock file of nearly 1 GiB, all but its first pages one hole in the file system, and nobody's in SQLite's eyes.
    for (medium, size) in [(Medium::File, 65536), (Medium::File, 4096), (Medium::Ram, 4096)] {
        eprintln!("medium {medium:?}, page size {size}");
        let site = Site::new(medium);
        let plain = site.stock();
        plain.execute_batch(&format!("PRAGMA page_size={size}")).unwrap();
        fill(&plain, "t", 10, 1000);
        let used = int(&plain, "PRAGMA page_count").unsigned_abs();
        close(plain);
        let large = PENDING / size - 3;
        make_large(&site.path(), size, large);
        let lock_page = i64::try_from(PENDING / size + 1).unwrap();
        let db = site.open();
        fill(&db, "u", 20, 60_000);
        assert!(int(&db, "PRAGMA page_count") > lock_page + 3, "the file has grown over the hole");
        assert_eq!(int(&db, "SELECT count(*) FROM u"), 20);
        let other = site.open();
        assert_eq!(int(&other, "SELECT sum(length(body)) FROM u"), 1_200_000);
        close(other);
        close(db);
        let stock_view = site.stock();
        assert_eq!(int(&stock_view, "SELECT sum(length(body)) FROM u"), 1_200_000);
        close(stock_view);
        // What was nobody's becomes free, so that every page has its place and SQLite's check has nothing to say.
        make_free(&site.path(), size, used + 1, large);
        let db = site.open();
        check(&db);
        db.execute_batch("DELETE FROM t WHERE id>5; DELETE FROM u WHERE id>5; VACUUM").unwrap();
        assert!(int(&db, "PRAGMA page_count") < 100, "cut off below the hole");
        assert_eq!(int(&db, "SELECT sum(length(body)) FROM u"), 300_000);
        check(&db);
        check(&site.open());
        close(db);
        assert!(std::fs::metadata(site.path()).unwrap().len() < 100 * size);
        check(&site.stock());
    }
}

/// Extends a database to `pages` without anything in them: the header says so, the file is sparse.
fn make_large(path: &std::path::Path, size: u64, pages: u64) {
    let file = std::fs::OpenOptions::new().write(true).open(path).unwrap();
    file.set_len(size * pages).unwrap();
    file.write_all_at(&u32::try_from(pages).unwrap().to_be_bytes(), 28).unwrap();
}

/// A transaction spills, and so has to take a page size for the spilled pages, and is rolled back.
fn spill_and_roll_back(db: &Connection, size: i64) {
    db.execute_batch(&format!("PRAGMA page_size={size}; PRAGMA cache_size=5; BEGIN; CREATE TABLE gone(x)")).unwrap();
    for _ in 0..30 {
        db.execute("INSERT INTO gone VALUES (randomblob(100000))", ()).unwrap();
    }
    db.execute_batch("ROLLBACK").unwrap();
}

/// The database is made with another page size by another connection, and nothing of it is missing.
fn make_with(db: &Connection, size: i64) {
    db.execute_batch(&format!("PRAGMA page_size={size}")).unwrap();
    fill(db, "t", 3000, 300);
    assert_eq!(int(db, "PRAGMA page_size"), size);
    assert_eq!(int(db, "SELECT count(*) FROM t"), 3000);
    check(db);
}

const SIZES: [(i64, i64); 4] = [(4096, 8192), (8192, 4096), (512, 65536), (65536, 512)];

#[test]
fn a_transaction_that_was_rolled_back_does_not_fix_the_page_size() {
    on_both(|site| {
        for (first, second) in SIZES {
            let name = format!("{first}-{second}.db");
            let (one, other) = (site.open_file(&name), site.open_file(&name));
            spill_and_roll_back(&one, first);
            make_with(&other, second);
            assert_eq!(int(&one, "SELECT count(*) FROM t"), 3000);
            check(&one);
            fill(&one, "t", 500, 300);
            close(one);
            check(&site.open_file(&name));
            close(other);
            let view = stock(&site.file(&name));
            check(&view);
            assert_eq!((int(&view, "PRAGMA page_size"), int(&view, "SELECT count(*) FROM t")), (second, 3500));
        }
    });
}

#[test]
fn a_page_size_that_was_never_committed_is_not_kept_with_the_region() {
    on_both(|site| {
        for (first, second) in SIZES {
            let (name, keeping) = (format!("{first}-{second}.db"), site.options().keep_region(true));
            let one = keeping.open(site.file(&name)).unwrap();
            spill_and_roll_back(&one, first);
            close(one);
            let one = keeping.open(site.file(&name)).unwrap();
            make_with(&one, second);
            close(one);
            let one = site.open_file(&name);
            assert_eq!(int(&one, "SELECT count(*) FROM t"), 3000);
            check(&one);
            close(one);
            check(&stock(&site.file(&name)));
        }
    });
}

/// Puts pages `first` to `last`, which nobody uses, on the empty list of free pages: only its trunks are written.
fn make_free(path: &std::path::Path, size: u64, first: u64, last: u64) {
    let word = |number: u64| u32::try_from(number).unwrap().to_be_bytes();
    let file = std::fs::OpenOptions::new().read(true).write(true).open(path).unwrap();
    let mut list = [0xFF; 8];
    file.read_exact_at(&mut list, 32).unwrap();
    assert_eq!(list, [0; 8]);
    // SQLite leaves the last six places of a trunk unused.
    let leaves = size / 4 - 8;
    let mut trunk = first;
    while trunk <= last {
        let end = (trunk + leaves).min(last);
        let next = if end < last { end + 1 } else { 0 };
        let words: Vec<u8> = [next, end - trunk].into_iter().chain(trunk + 1..=end).flat_map(word).collect();
        file.write_all_at(&words, (trunk - 1) * size).unwrap();
        trunk = end + 1;
    }
    file.write_all_at(&[word(first), word(last - first + 1)].concat(), 32).unwrap();
}
