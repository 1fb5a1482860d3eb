//! ATTACH, ours and stock ones mixed. SQLite commits the files one after the other, as in WAL mode.

use crate::support::*;
use nvlite_vfs::Medium;
use rusqlite::Connection;

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
