//! What may stand where a base file is expected, or beside it: what is there must be as stock SQLite takes it, or be left
//! alone.

use crate::support::*;

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
    assert_eq!(site.side_files(), Vec::<String>::new(), "what an empty file cannot own is deleted, as stock SQLite does");
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
