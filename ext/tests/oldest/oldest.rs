//! The extension in a host program with the oldest SQLite that is supported. `NVLITE_LIBRARY` names the extension.
#![allow(clippy::unwrap_used)]

use rusqlite::backup::{Backup, StepResult};
use rusqlite::{Connection, Result};

/// What a query of one row and one column answers.
fn one<T: rusqlite::types::FromSql>(db: &Connection, sql: &str) -> Result<T> {
    db.query_row(sql, [], |row| row.get(0))
}

fn sound(db: &Connection) {
    assert_eq!(one::<String>(db, "PRAGMA integrity_check").unwrap(), "ok");
}

/// Adds 200 rows of half a page.
const FILL: &str = "WITH RECURSIVE n(i) AS (VALUES(1) UNION ALL SELECT i + 1 FROM n WHERE i < 200)
                    INSERT INTO t(body) SELECT randomblob(2000) FROM n";
const COUNT: &str = "SELECT count(*) FROM t";

#[test]
fn the_oldest_sqlite_works() {
    assert_eq!(rusqlite::version(), "3.37.0", "the oldest that is promised");
    let loader = Connection::open_in_memory().unwrap();
    let library = std::env::var("NVLITE_LIBRARY").expect("the extension");
    // SAFETY: for the extension that this is a test of.
    unsafe { loader.load_extension_enable().and_then(|()| loader.load_extension(library, None)).unwrap() };
    for medium in ["file", "ram"] {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("app.db");
        let open =
            || Connection::open(format!("file:{}?vfs=nvlite&region=1MiB&medium={medium}", path.display())).unwrap();

        let (mut db, reader) = (open(), open());
        db.execute_batch("PRAGMA cache_size=5; CREATE TABLE t(id INTEGER PRIMARY KEY, body BLOB UNIQUE)").unwrap();
        db.execute_batch(FILL).unwrap();
        assert_eq!(one::<String>(&db, "SELECT value FROM nvlite_stat WHERE name = 'medium'").unwrap(), medium);
        assert_eq!(one::<String>(&db, "PRAGMA journal_mode").unwrap(), "memory");

        // a snapshot beside a transaction that spills, rolled back in parts and as a whole
        reader.execute_batch("BEGIN").unwrap();
        assert_eq!(one::<i64>(&reader, COUNT).unwrap(), 200);
        let mut tx = db.transaction().unwrap();
        tx.execute_batch(FILL).unwrap();
        let inner = tx.savepoint().unwrap();
        inner.execute_batch("DELETE FROM t").unwrap();
        inner.finish().unwrap();
        assert_eq!(one::<i64>(&tx, COUNT).unwrap(), 400);
        tx.commit().unwrap();
        assert_eq!(one::<i64>(&reader, COUNT).unwrap(), 200, "{medium}: the snapshot");
        reader.execute_batch("COMMIT").unwrap();
        assert_eq!(one::<i64>(&reader, COUNT).unwrap(), 400);
        db.execute_batch(&format!("BEGIN; {FILL}; ROLLBACK; DELETE FROM t WHERE id > 300; VACUUM")).unwrap();
        one::<String>(&db, "SELECT nvlite_checkpoint()").unwrap();
        sound(&db);
        sound(&reader);

        // stock SQLite is refused while the side files are there, and gets a copy
        assert!(one::<i64>(&Connection::open(&path).unwrap(), COUNT).is_err(), "{medium}: refused");
        let mut copy = Connection::open(dir.path().join("copy.db")).unwrap();
        let steps = Backup::new(&reader, &mut copy).unwrap().step(-1).unwrap();
        assert_eq!(steps, StepResult::Done);
        assert_eq!(one::<i64>(&copy, COUNT).unwrap(), 300);
        sound(&copy);
        drop((db, reader, copy));

        let again = open();
        assert_eq!(one::<i64>(&again, COUNT).unwrap(), 300);
        again.execute_batch(FILL).unwrap();
        sound(&again);
        again.close().unwrap();
        let stock = Connection::open(&path).unwrap();
        assert_eq!(one::<i64>(&stock, COUNT).unwrap(), 500, "{medium}: after the last clean close");
        sound(&stock);
    }
}
