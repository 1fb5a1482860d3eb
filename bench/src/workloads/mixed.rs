//! One writer at full speed beside readers that scan ranges. The writer moves one unit between two rows of a block of
//! a hundred; a reader adds up a block, and the sum never changes for whoever sees a whole transaction or none of it.

use rusqlite::{Connection, Statement};

use super::Worker;
use super::rows::{START, weight};
use crate::error::{Context, Error, Result};
use crate::session::{End, Session, WriteLock};
use crate::tpcc::random::Random;

const BLOCK: u32 = 100;

/// Moves units.
pub struct Writer<'c> {
    session: Session<'c>,
    add: Statement<'c>,
    blocks: u32,
    random: Random,
    moved: u64,
}

/// Adds up blocks.
pub struct Reader<'c> {
    session: Session<'c>,
    sum: Statement<'c>,
    blocks: u32,
    random: Random,
}

impl<'c> Writer<'c> {
    /// On `conn`, whose table has `rows` rows.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>, rows: u32, seed: u64) -> Result<Self> {
        let add = conn.prepare("UPDATE t SET v = v + ?2 WHERE id = ?1").during("preparing")?;
        Ok(Self { session: Session::new(conn, queue)?, add, blocks: rows / BLOCK, random: Random::new(seed), moved: 0 })
    }
}

impl Worker for Writer<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let block = self.random.below(self.blocks) * BLOCK + 1;
        let from = self.random.below(BLOCK);
        let to = (from + 1 + self.random.below(BLOCK - 1)) % BLOCK;
        self.session.write(|| {
            self.add.execute((block + from, -1))?;
            self.add.execute((block + to, 1)).map(End::Commit)
        })?;
        self.moved = self.moved.wrapping_add(weight(block + to)).wrapping_sub(weight(block + from));
        Ok(0)
    }

    fn moved(&self) -> u64 {
        self.moved
    }
}

impl<'c> Reader<'c> {
    /// On `conn`, whose table has `rows` rows.
    pub fn new(conn: &'c Connection, rows: u32, seed: u64) -> Result<Self> {
        let sum = conn.prepare("SELECT sum(v) FROM t WHERE id BETWEEN ?1 AND ?2").during("preparing")?;
        Ok(Self { session: Session::new(conn, None)?, sum, blocks: rows / BLOCK, random: Random::new(seed) })
    }
}

impl Worker for Reader<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let first = self.random.below(self.blocks) * BLOCK + 1;
        let last = first + BLOCK - 1;
        let sum: i64 = self.session.read(|| self.sum.query_row((first, last), |row| row.get(0)))?;
        if sum == START * i64::from(BLOCK) {
            Ok(1)
        } else {
            Err(Error::Inconsistent(format!("rows {first} to {last} add up to {sum}: half a transaction was seen")))
        }
    }
}
