//! Stock and ours in one process: P15.

use crate::needs;
use crate::support::*;
use rusqlite::ffi;

const PYTHON: &str = "/usr/bin/python3";

#[test]
fn p15_our_close_does_not_drop_the_locks_of_a_stock_connection() {
    if !needs::program(PYTHON) {
        return;
    }
    on_both(|site| {
        // The stock connection holds SHARED; a handle of ours on the same file, opened and closed, must not let go of it.
        let holder = site.stock();
        holder.execute_batch("CREATE TABLE t(x); BEGIN; SELECT * FROM t").unwrap();
        let db = site.open();
        db.busy_timeout(std::time::Duration::ZERO).unwrap();
        assert_eq!(fails(db.execute_batch("SELECT * FROM t")) & 0xFF, ffi::SQLITE_BUSY);
        drop(db);
        // From another process, which sees POSIX locks and nothing else.
        let script = format!(
            "import sqlite3,sys\nd=sqlite3.connect({:?},timeout=0,isolation_level=None)\ntry:\n d.execute('BEGIN EXCLUSIVE')\n print('got it')\nexcept sqlite3.OperationalError as e:\n print(e)",
            site.path()
        );
        let output = std::process::Command::new(PYTHON).arg("-c").arg(script).output().unwrap();
        assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "database is locked");
        holder.execute_batch("COMMIT").unwrap();
    });
}

#[test]
fn a_stock_connection_that_was_refused_reads_on_after_the_close() {
    on_both(|site| {
        let plain = site.stock();
        fill(&plain, "t", 10, 100);
        let ours = site.open();
        assert_eq!(int(&ours, "SELECT count(*) FROM t"), 10);
        for _ in 0..2 {
            assert_eq!(fails(plain.execute_batch("SELECT count(*) FROM t")) & 0xFF, ffi::SQLITE_NOTADB);
        }
        close(ours);
        assert_eq!(int(&plain, "SELECT count(*) FROM t"), 10);
        check(&plain);
        // A limit that is documented: once SQLite has seen a version that it does not write, that connection never writes again.
        assert_eq!(fails(plain.execute_batch("DELETE FROM t")) & 0xFF, ffi::SQLITE_READONLY);
        let again = site.stock();
        again.execute_batch("DELETE FROM t WHERE id=1").unwrap();
        assert_eq!(int(&plain, "SELECT count(*) FROM t"), 9);
    });
}

#[test]
fn stock_after_ours_after_stock() {
    on_both(|site| {
        for round in 0..4 {
            let plain = site.stock();
            plain.execute_batch("CREATE TABLE IF NOT EXISTS t(x)").unwrap();
            plain.execute("INSERT INTO t VALUES (?1)", [round]).unwrap();
            let ours = site.open();
            ours.execute("INSERT INTO t VALUES (?1)", [round * 10]).unwrap();
            close(ours);
            assert_eq!(int(&plain, "SELECT sum(x) FROM t"), (0..=round).map(|r| r * 11).sum::<i64>());
            check(&plain);
        }
    });
}
