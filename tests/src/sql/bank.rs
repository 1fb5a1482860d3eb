//! A bank: every transaction moves money and says so in a journal of rows, so that a lost, a partial or a mixed one shows.
//!
//! `account(id, balance)`; `entry(n, owner, serial, part, source, target, amount)`, where `n` counts the transactions of the
//! whole database, (owner, serial) is the writer's own count, and each transaction writes `part` 0 to `PARTS - 1`.

use crate::sim::mix;
use rusqlite::{Connection, TransactionBehavior, params};
use std::collections::HashMap;

/// Accounts.
pub const ACCOUNTS: i64 = 50;
/// What each has at first.
pub const OPENING: i64 = 1000;
/// Entries of one transaction.
pub const PARTS: i64 = 3;

/// Creates the tables, unless they are there.
///
/// # Errors
/// SQLite's.
pub fn found(db: &mut Connection) -> rusqlite::Result<()> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    tx.execute_batch(
        "CREATE TABLE IF NOT EXISTS account(id INTEGER PRIMARY KEY, balance INTEGER NOT NULL, note TEXT);
         CREATE TABLE IF NOT EXISTS entry(n INTEGER, owner INTEGER, serial INTEGER, part INTEGER, source INTEGER,
            target INTEGER, amount INTEGER, PRIMARY KEY(n, part)) WITHOUT ROWID;
         CREATE INDEX IF NOT EXISTS entry_owner ON entry(owner, serial)",
    )?;
    for id in 0..ACCOUNTS {
        tx.execute("INSERT OR IGNORE INTO account VALUES(?1, ?2, NULL)", params![id, OPENING])?;
    }
    tx.commit()
}

/// One transaction of `owner`; `serial` must be new. Answers its number in the database.
///
/// # Errors
/// SQLite's; then the transaction is rolled back.
pub fn transfer(db: &mut Connection, owner: i64, serial: i64, seed: u64) -> rusqlite::Result<i64> {
    let tx = db.transaction_with_behavior(TransactionBehavior::Immediate)?;
    let n = tx.prepare("SELECT coalesce(max(n), 0) + 1 FROM entry")?.query_row([], |row| row.get::<_, i64>(0))?;
    for part in 0..PARTS {
        let lot = mix(seed, (serial * PARTS + part) as u64);
        let (source, target) = ((lot % 50) as i64, (lot / 64 % 50) as i64);
        let amount = (lot >> 20) as i64 % 100;
        let note = "n".repeat((lot >> 40) as usize % 200);
        tx.prepare("UPDATE account SET balance = balance - ?2, note = ?3 WHERE id = ?1")?
            .execute(params![source, amount, note])?;
        tx.prepare("UPDATE account SET balance = balance + ?2 WHERE id = ?1")?.execute(params![target, amount])?;
        tx.prepare("INSERT INTO entry VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7)")?
            .execute(params![n, owner, serial, part, source, target, amount])?;
    }
    tx.commit()?;
    Ok(n)
}

/// What a reader saw in one transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct View {
    /// Transactions, by the journal.
    pub newest: i64,
    /// All balances.
    pub balances: Vec<i64>,
}

/// Reads everything in several statements of one transaction.
///
/// # Errors
/// SQLite's.
pub fn view(db: &mut Connection) -> rusqlite::Result<View> {
    let tx = db.transaction()?;
    let newest = tx.query_row("SELECT coalesce(max(n), 0) FROM entry", [], |row| row.get(0))?;
    let mut balances = Vec::new();
    for id in 0..ACCOUNTS {
        let mut statement = tx.prepare("SELECT balance FROM account WHERE id = ?1")?;
        balances.push(statement.query_row([id], |row| row.get(0))?);
    }
    Ok(View { newest, balances })
}

/// Holds views against the journal, which must itself be without gaps.
///
/// # Errors
/// What is wrong, as text.
pub fn audit(db: &mut Connection, views: &[View]) -> Result<i64, String> {
    let text = |e: rusqlite::Error| e.to_string();
    let mut states: Vec<Vec<i64>> = vec![vec![OPENING; ACCOUNTS as usize]];
    let tx = db.transaction().map_err(text)?;
    {
        let mut statement =
            tx.prepare("SELECT n, part, source, target, amount FROM entry ORDER BY n, part").map_err(text)?;
        let mut rows = statement.query([]).map_err(text)?;
        let mut place = 0;
        while let Some(row) = rows.next().map_err(text)? {
            let at = |i| row.get::<_, i64>(i).map_err(text);
            let (n, part) = (at(0)?, at(1)?);
            if (n, part) != (place / PARTS + 1, place % PARTS) {
                return Err(format!("entry {n}.{part} where {}.{} should be", place / PARTS + 1, place % PARTS));
            }
            let mut state = states.last().cloned().unwrap_or_default();
            state[at(2)? as usize] -= at(4)?;
            state[at(3)? as usize] += at(4)?;
            if part > 0 {
                states.pop();
            }
            states.push(state);
            place += 1;
        }
        if place % PARTS != 0 {
            return Err(format!("transaction {} has {} of {PARTS} entries", place / PARTS + 1, place % PARTS));
        }
    }
    drop(tx);
    let now = view(db).map_err(text)?;
    for seen in views.iter().chain([&now]) {
        let expected =
            states.get(seen.newest as usize).ok_or_else(|| format!("transaction {} is lost", seen.newest))?;
        if *expected != seen.balances {
            return Err(format!("the balances seen with transaction {} are not those after it", seen.newest));
        }
    }
    Ok(now.newest)
}

/// How many entries each transaction of `owner` has, by serial.
///
/// # Errors
/// SQLite's.
pub fn serials(db: &Connection, owner: i64) -> rusqlite::Result<HashMap<i64, i64>> {
    let mut statement = db.prepare("SELECT serial, count(*) FROM entry WHERE owner = ?1 GROUP BY serial")?;
    let rows = statement.query_map([owner], |row| Ok((row.get(0)?, row.get(1)?)))?;
    rows.collect()
}
