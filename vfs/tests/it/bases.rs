//! What may stand where a base file is expected, or beside it: what is there must be as stock SQLite takes it, or be left
//! alone.

use crate::support::*;
use rusqlite::ffi;

/// The rows of a table that [`fill`] made, as one text.
fn content(db: &rusqlite::Connection) -> String {
    text(db, "SELECT hex(group_concat(substr(body,1,2),'')) FROM t")
}

/// A database made through us, beside what a killed program left there, must be the one that stock SQLite sees afterwards.
fn is_not_changed_by_leftovers(site: &Site) {
    let db = site.open();
    fill(&db, "t", 50, 300);
    let sum = content(&db);
    close(db);
    let view = site.stock();
    assert_eq!((int(&view, "SELECT count(*) FROM t"), content(&view)), (50, sum));
    check(&view);
    assert_eq!(
        site.side_files(),
        Vec::<String>::new(),
        "what an empty file cannot own is deleted, as stock SQLite does"
    );
}

#[test]
fn a_wal_beside_an_empty_base_is_never_replayed() {
    on_both(|site| {
        let other = Site::new(site.medium);
        let killed = other.stock();
        assert_eq!(text(&killed, "PRAGMA journal_mode=WAL"), "wal");
        killed.execute_batch("PRAGMA wal_autocheckpoint=0").unwrap();
        fill(&killed, "t", 300, 500);
        std::fs::copy(other.file("app.db-wal"), site.file("app.db-wal")).unwrap();
        is_not_changed_by_leftovers(site);
    });
}

#[test]
fn a_journal_beside_an_empty_base_is_never_rolled_back() {
    on_both(|site| {
        let other = Site::new(site.medium);
        let killed = other.stock();
        fill(&killed, "t", 300, 500);
        killed.execute_batch("PRAGMA cache_size=5; BEGIN; UPDATE t SET body=randomblob(500)").unwrap();
        let journal = std::fs::read(other.file("app.db-journal")).unwrap();
        assert!(journal.len() > 4096, "the transaction has spilled");
        std::fs::write(site.file("app.db-journal"), journal).unwrap();
        is_not_changed_by_leftovers(site);
    });
}

#[test]
fn what_begins_with_zeros_is_not_overwritten() {
    on_both(|site| {
        let mut bytes = vec![0; 4096];
        bytes[200..].fill(0xA5);
        for len in [201, 1000, 4096] {
            std::fs::write(site.path(), &bytes[..len]).unwrap();
            let db = site.open();
            assert_eq!(fails(db.execute_batch("CREATE TABLE u(x)")) & 0xFF, ffi::SQLITE_NOTADB, "{len} bytes");
            drop(db);
            assert!(std::fs::read(site.path()).unwrap() == bytes[..len], "{len} bytes");
            assert!(site.side_files().is_empty());
        }
    });
}

/// Zeros and nothing else are what a crash in the middle of our first mark leaves: there is nothing in them to lose.
#[test]
fn a_page_of_zeros_is_an_empty_database() {
    on_both(|site| {
        std::fs::write(site.path(), [0; 4096]).unwrap();
        let db = site.open();
        fill(&db, "t", 20, 100);
        close(db);
        check(&site.stock());
    });
}

#[test]
fn a_last_page_that_is_short_ends_in_zeros() {
    on_both(|site| {
        let plain = site.stock();
        fill(&plain, "t", 100, 700);
        // the last page becomes a free one, of which only the first words mean anything
        plain.execute_batch("CREATE TABLE u(x); INSERT INTO u VALUES (zeroblob(20000)); DROP TABLE u").unwrap();
        let (sum, len) = (content(&plain), std::fs::metadata(site.path()).unwrap().len());
        drop(plain);
        let file = std::fs::File::options().write(true).open(site.path()).unwrap();
        file.set_len(len - 3000).unwrap();
        check(&site.stock());
        let db = site.open();
        assert_eq!(content(&db), sum);
        check(&db);
        db.execute_batch("INSERT INTO t(body) SELECT randomblob(700) FROM t").unwrap();
        check(&db);
        close(db);
        check(&site.stock());
    });
}

#[test]
fn the_page_size_of_an_empty_base_that_is_marked_can_be_chosen() {
    on_both(|site| {
        let first = site.open();
        assert_eq!(int(&first, "SELECT count(*) FROM sqlite_schema"), 0);
        close(first);
        let keeper = site.options().keep_region(true).open(site.path()).unwrap();
        assert_eq!(int(&keeper, "SELECT count(*) FROM sqlite_schema"), 0);
        close(keeper);
        assert!(!site.side_files().is_empty(), "marked");
        let db = site.open();
        db.execute_batch("PRAGMA page_size=8192").unwrap();
        fill(&db, "t", 100, 300);
        assert_eq!(int(&db, "PRAGMA page_size"), 8192);
        close(db);
        let view = site.stock();
        check(&view);
        assert_eq!((int(&view, "PRAGMA page_size"), int(&view, "SELECT count(*) FROM t")), (8192, 100));
    });
}

#[test]
fn p14_a_file_that_took_the_place_of_an_empty_base_is_left_alone() {
    on_both(|site| {
        let db = site.open();
        assert_eq!(int(&db, "SELECT count(*) FROM sqlite_schema"), 0);
        let other = stock(&site.file("other.db"));
        fill(&other, "t", 50, 300);
        let sum = content(&other);
        drop(other);
        std::fs::rename(site.file("other.db"), site.path()).unwrap();
        drop(db);
        let view = site.stock();
        assert_eq!(content(&view), sum);
        check(&view);
        drop(view);
        assert_eq!(content(&site.open()), sum);
    });
}

#[test]
fn a_reader_of_a_stock_file_meets_its_journal_while_another_connection_is_idle() {
    on_both(|site| {
        let writer = site.stock();
        fill(&writer, "t", 300, 500);
        writer.execute_batch("PRAGMA cache_size=5; BEGIN; UPDATE t SET body=randomblob(500)").unwrap();
        // As a killed process leaves them.
        std::fs::copy(site.path(), site.file("dead.db")).unwrap();
        let journal = std::fs::read(site.file("app.db-journal")).unwrap();
        assert!(journal.len() > 4096, "the transaction has spilled");
        std::fs::write(site.file("dead.db-journal"), journal).unwrap();
        let sum = {
            writer.execute_batch("ROLLBACK").unwrap();
            content(&writer)
        };
        let idle = site.open_file("dead.db");
        let reader = site.options().read_only(true).open(site.file("dead.db")).unwrap();
        let said =
            reader.query_row("SELECT hex(group_concat(substr(body,1,2),'')) FROM t", (), |row| row.get::<_, String>(0));
        match said {
            Ok(read) => assert_eq!(read, sum, "what was not rolled back was read"),
            Err(error) => {
                let refusals = [ffi::SQLITE_READONLY_ROLLBACK, ffi::SQLITE_NOTADB];
                assert!(refusals.contains(&code(&error)), "{error}");
            }
        }
        drop(reader);
        assert_eq!(content(&idle), sum);
        check(&idle);
        let reader = site.options().read_only(true).open(site.file("dead.db")).unwrap();
        assert_eq!(content(&reader), sum);
    });
}

#[test]
fn a_refusal_is_told_once_and_of_no_statement_that_the_program_never_wrote() {
    let site = Site::new(nvlite_vfs::Medium::File);
    let db = site.options().keep_region(true).open(site.path()).unwrap();
    fill(&db, "t", 3, 10);
    close(db);
    std::fs::remove_file(site.file("app.db-nvlite")).unwrap();
    logged();
    let db = site.open();
    assert_eq!(fails(db.execute_batch("SELECT * FROM t")) & 0xFF, ffi::SQLITE_CANTOPEN);
    let told = logged();
    assert!(!told.iter().any(|line| line.contains("PRAGMA")), "{told:#?}");
    let reasons: Vec<_> = told.iter().filter(|line| line.contains("app.db-nvlite")).collect();
    assert_eq!(reasons.len(), 1, "{told:#?}");
}
