//! Transactions in SQL, through the VFS. What a row holds follows from its number, and a second table counts the rows.

use crate::Finding;
use nvlite_tests::sql::integrity;
use rusqlite::{Connection, OpenFlags, Result};
use std::path::{Path, PathBuf};

/// The text of row `?1`: from a part of a page to overflow pages of its own.
const BODY: &str = "printf('%0*d', 100 + ?1 * 371 % 9000, ?1)";

fn base(dir: &Path) -> PathBuf {
    dir.join("sql.db")
}

fn text<T>(result: Result<T>) -> Finding<T> {
    result.map_err(|e| e.to_string())
}

/// Opens the database; whatever is asked for, its region must be on `dax`.
fn open(dir: &Path, medium: &str) -> Finding<Connection> {
    text(nvlite_vfs::register())?;
    let uri = format!("file:{}?vfs=nvlite&region=4MiB&medium={medium}", base(dir).display());
    let db = text(Connection::open_with_flags(uri, OpenFlags::default() | OpenFlags::SQLITE_OPEN_URI))?;
    let found = db.query_row("SELECT value FROM nvlite_stat WHERE name = 'medium'", [], |row| row.get::<_, String>(0));
    match text(found)?.as_str() {
        "dax" => Ok(db),
        other => Err(format!("medium={medium} has chosen {other}")),
    }
}

/// Goes on from the newest row, acknowledging each transaction, until the machine dies. Detection must find `dax`.
pub fn run(dir: &Path) -> Finding<String> {
    let mut db = open(dir, "auto")?;
    let mut endless = || -> Result<()> {
        db.execute_batch(
            "CREATE TABLE IF NOT EXISTS t(n INTEGER PRIMARY KEY, body TEXT UNIQUE);
             CREATE TABLE IF NOT EXISTS counted(rows INTEGER);
             INSERT INTO counted SELECT 0 WHERE NOT EXISTS (SELECT * FROM counted)",
        )?;
        let mut n: i64 = db.query_row("SELECT rows FROM counted", [], |row| row.get(0))?;
        loop {
            n += 1;
            let tx = db.transaction()?;
            tx.execute(&format!("INSERT INTO t VALUES(?1, {BODY})"), [n])?;
            tx.execute("UPDATE counted SET rows = rows + 1", [])?;
            tx.commit()?;
            println!("ACK sql {n}");
        }
    };
    text(endless()).map(|()| String::new())
}

/// Rows counted, rows there, and rows that hold what they should.
fn rows(db: &Connection) -> Result<[i64; 3]> {
    let good = BODY.replace("?1", "n");
    let good = format!("SELECT count(*) FROM t WHERE n BETWEEN 1 AND rows AND body = {good}");
    let sql = format!("SELECT rows, (SELECT count(*) FROM t), ({good}) FROM counted");
    db.query_row(&sql, [], |row| Ok([row.get(0)?, row.get(1)?, row.get(2)?]))
}

/// What the database holds, and what SQLite thinks of it; then it is closed.
fn look(db: Connection) -> Result<([i64; 3], String)> {
    let found = (rows(&db)?, integrity(&db)?);
    db.close().map_err(|(_, error)| error)?;
    Ok(found)
}

/// The reopened database holds all rows of whole transactions, all those acknowledged among them; and after a clean close
/// stock SQLite finds the same in the base file.
pub fn verify(dir: &Path, acked: u64) -> Finding<String> {
    let recovered = text(look(open(dir, "dax")?))?;
    let ([n, ..], _) = recovered;
    if n < acked as i64 || recovered != ([n; 3], "ok".into()) {
        return Err(format!("{acked} rows acknowledged, counted, there and good: {recovered:?}"));
    }
    let stock = text(Connection::open(base(dir)).and_then(look))?;
    if stock != recovered {
        return Err(format!("stock SQLite finds {stock:?} instead of {recovered:?}"));
    }
    Ok(format!("acknowledged={acked} found={n}"))
}
