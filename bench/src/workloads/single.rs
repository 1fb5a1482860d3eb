//! Workloads of one statement per transaction.

use std::sync::Arc;

use rusqlite::{Connection, Statement};

use super::Worker;
use super::rows::{PAD, START};
use crate::error::{Context, Error, Result};
use crate::session::{Session, WriteLock};
use crate::tpcc::random::Random;
use crate::zipf::Zipf;

const UPDATE: &str = "UPDATE t SET v = v + 1 WHERE id = ?1";
const READ: &str = "SELECT v, pad FROM t WHERE id = ?1";

/// Appends rows.
pub struct Insert<'c> {
    conn: &'c Connection,
    session: Session<'c>,
    insert: Statement<'c>,
    limit: u32,
    random: Random,
}

/// Updates one row.
pub struct Update<'c> {
    session: Session<'c>,
    update: Statement<'c>,
    rows: u32,
    random: Random,
}

/// Reads one row.
pub struct Read<'c> {
    session: Session<'c>,
    read: Statement<'c>,
    rows: u32,
    random: Random,
}

/// Reads or updates one row, some rows far more often than others.
pub struct Skewed<'c> {
    session: Session<'c>,
    read: Statement<'c>,
    update: Statement<'c>,
    zipf: Arc<Zipf>,
    random: Random,
}

impl<'c> Insert<'c> {
    /// On `conn`; the table is emptied when it has more than `limit` rows.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>, limit: u32, seed: u64) -> Result<Self> {
        let insert = conn.prepare("INSERT INTO t(v, pad) VALUES(?1, ?2)").during("preparing")?;
        Ok(Self { conn, session: Session::new(conn, queue)?, insert, limit, random: Random::new(seed) })
    }
}

impl Worker for Insert<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let v = START + i64::from(self.random.below(1 << 20));
        self.session.write_one(|| self.insert.execute((v, PAD)))?;
        Ok(0)
    }

    fn tidy(&mut self) -> Result<bool> {
        let last: u32 = self.conn.query_row("SELECT coalesce(max(id), 0) FROM t", (), |row| row.get(0))?;
        if last <= self.limit {
            return Ok(false);
        }
        let conn = self.conn;
        self.session.write_one(|| conn.execute_batch("DELETE FROM t; VACUUM"))?;
        Ok(true)
    }
}

impl<'c> Update<'c> {
    /// On `conn`, whose table has `rows` rows.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>, rows: u32, seed: u64) -> Result<Self> {
        let update = conn.prepare(UPDATE).during("preparing")?;
        Ok(Self { session: Session::new(conn, queue)?, update, rows, random: Random::new(seed) })
    }
}

impl Worker for Update<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let id = 1 + self.random.below(self.rows);
        self.session.write_one(|| changes_one(&mut self.update, id))?;
        Ok(0)
    }
}

impl<'c> Read<'c> {
    /// On `conn`, whose table has `rows` rows.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>, rows: u32, seed: u64) -> Result<Self> {
        let read = conn.prepare(READ).during("preparing")?;
        Ok(Self { session: Session::new(conn, queue)?, read, rows, random: Random::new(seed) })
    }
}

impl Worker for Read<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let id = 1 + self.random.below(self.rows);
        let v = self.session.read_one(|| value(&mut self.read, id))?;
        if v == START { Ok(0) } else { Err(Error::Inconsistent(format!("row {id} holds {v}"))) }
    }
}

impl<'c> Skewed<'c> {
    /// On `conn`, keys by `zipf`.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>, zipf: Arc<Zipf>, seed: u64) -> Result<Self> {
        let read = conn.prepare(READ).during("preparing")?;
        let update = conn.prepare(UPDATE).during("preparing")?;
        Ok(Self { session: Session::new(conn, queue)?, read, update, zipf, random: Random::new(seed) })
    }
}

impl Worker for Skewed<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let id = 1 + self.zipf.pick(self.random.unit());
        if self.random.below(100) < 80 {
            self.session.read_one(|| value(&mut self.read, id))?;
            return Ok(0);
        }
        self.session.write_one(|| changes_one(&mut self.update, id))?;
        Ok(1)
    }
}

fn changes_one(update: &mut Statement, id: u32) -> rusqlite::Result<()> {
    match update.execute((id,))? {
        1 => Ok(()),
        changed => Err(rusqlite::Error::StatementChangedRows(changed)),
    }
}

fn value(read: &mut Statement, id: u32) -> rusqlite::Result<i64> {
    read.query_row((id,), |row| {
        std::hint::black_box(row.get_ref(1)?);
        row.get(0)
    })
}
