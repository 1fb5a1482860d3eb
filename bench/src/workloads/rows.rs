//! The table of 100-byte rows that all workloads but TPC-C use.

use rusqlite::Connection;

use crate::error::{Context, Error, Result};

/// The integer of a new row: large enough that adding to it does not change its stored length.
pub const START: i64 = 1 << 24;

/// Fills a row up to 100 bytes.
pub const PAD: [u8; 90] = [0x5a; 90];

/// What a row takes in the file, about.
pub const BYTES: u64 = 105;

/// Makes the table with `rows` rows.
pub fn load(conn: &Connection, rows: u32) -> Result<()> {
    conn.execute_batch("CREATE TABLE t(id INTEGER PRIMARY KEY, v INTEGER NOT NULL, pad BLOB NOT NULL)")
        .during("creating the table")?;
    conn.execute_batch("BEGIN").during("loading")?;
    {
        let mut insert = conn.prepare("INSERT INTO t VALUES(?1, ?2, ?3)").during("loading")?;
        for id in 1..=rows {
            insert.execute((id, START, PAD)).during("loading")?;
        }
    }
    conn.execute_batch("COMMIT").during("loading")
}

/// As many rows as were inserted, and the keys without a gap.
pub fn check_count(conn: &Connection, inserted: u64) -> Result<()> {
    let (count, last): (i64, i64) = conn
        .query_row("SELECT count(*), coalesce(max(id), 0) FROM t", (), |row| Ok((row.get(0)?, row.get(1)?)))
        .during("counting the rows")?;
    let inserted = i64::try_from(inserted).unwrap_or(i64::MAX);
    require(count == inserted && last == inserted, || {
        format!("{inserted} rows were inserted, {count} are there, the last is {last}")
    })
}

/// The sum of all integers has grown by exactly one for each update.
pub fn check_sum(conn: &Connection, rows: u32, updates: u64) -> Result<()> {
    let sum: i64 =
        conn.query_row("SELECT coalesce(sum(v), 0) FROM t", (), |row| row.get(0)).during("adding up the rows")?;
    let grown = sum - i64::from(rows) * START;
    require(u64::try_from(grown) == Ok(updates), || format!("{updates} updates were committed, {grown} are there"))
}

/// The weight of a row in a sum that tells rows apart: bits that look random.
pub fn weight(id: u32) -> u64 {
    let mut bits = u64::from(id).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    bits = (bits ^ bits >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    bits ^ bits >> 31
}

/// Every row has changed by what was moved to and from it: a transfer that is lost shows, although sums stay.
pub fn check_moved(conn: &Connection, rows: u32, moved: u64) -> Result<()> {
    let mut select = conn.prepare("SELECT id, v FROM t").during("reading the rows")?;
    let mut found = select.query(()).during("reading the rows")?;
    let (mut count, mut there) = (0, 0u64);
    while let Some(row) = found.next().during("reading the rows")? {
        let (id, v): (u32, i64) = row.get(0).and_then(|id| Ok((id, row.get(1)?))).during("reading the rows")?;
        there = there.wrapping_add(weight(id).wrapping_mul((v - START) as u64));
        count += 1;
    }
    require(count == rows && there == moved, || {
        format!("of {rows} rows {count} are there, and they do not hold what the committed transfers moved")
    })
}

/// SQLite's own check of pages, records and their order.
pub fn check_structure(conn: &Connection) -> Result<()> {
    let verdict: String = conn.query_row("PRAGMA quick_check(1)", (), |row| row.get(0)).during("PRAGMA quick_check")?;
    require(verdict == "ok", || format!("quick_check: {verdict}"))
}

/// An inconsistency unless `fact`.
pub fn require(fact: bool, otherwise: impl FnOnce() -> String) -> Result<()> {
    if fact { Ok(()) } else { Err(Error::Inconsistent(otherwise())) }
}
