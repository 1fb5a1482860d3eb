//! A terminal: deals transactions from its deck and runs them on its connection.

use std::time::{SystemTime, UNIX_EPOCH};

use rusqlite::Connection;

use super::new_order::NewOrder;
use super::payment::Payment;
use super::queries::{self, Who};
use super::random::{Deck, Profile, Random};
use super::statements::Statements;
use super::{DISTRICTS, Scale};
use crate::error::{Context, Result};
use crate::session::{End, Session, WriteLock};
use crate::workloads::Worker;

/// What is told apart in the figures; the index is what a transaction returns.
pub const LABELS: &[&str] =
    &["new_order", "payment", "order_status", "delivery", "stock_level", "new_order_rolled_back"];

/// One emulated terminal.
pub struct Terminal<'c> {
    session: Session<'c>,
    sql: Statements<'c>,
    scale: Scale,
    /// Its home warehouse.
    warehouse: u32,
    /// The district whose stock level it asks for.
    district: u32,
    random: Random,
    deck: Deck,
}

impl<'c> Terminal<'c> {
    /// Terminal number `id`; terminals are spread over warehouses first, then over districts.
    pub fn new(conn: &'c Connection, queue: Option<WriteLock>, scale: Scale, id: usize, seed: u64) -> Result<Self> {
        let id = u32::try_from(id).unwrap_or(u32::MAX);
        let mut random = Random::new(seed);
        let deck = Deck::new(&mut random);
        Ok(Self {
            session: Session::new(conn, queue)?,
            sql: Statements::prepare(conn).during("preparing TPC-C's statements")?,
            scale,
            warehouse: id % scale.warehouses + 1,
            district: id / scale.warehouses % DISTRICTS + 1,
            random,
            deck,
        })
    }
}

impl Worker for Terminal<'_> {
    fn run_one(&mut self) -> Result<usize> {
        let Self { session, sql, scale, random, warehouse: w, .. } = self;
        let w = *w;
        match self.deck.deal(random) {
            Profile::NewOrder => {
                let order = NewOrder::draw(random, *scale, w);
                let entered = session.write(|| order.run(sql, now()))?;
                Ok(if entered { 0 } else { 5 })
            }
            Profile::Payment => {
                let payment = Payment::draw(random, *scale, w);
                session.write(|| payment.run(sql, now()).map(End::Commit))?;
                Ok(1)
            }
            Profile::OrderStatus => {
                let (d, who) = (random.within(1, DISTRICTS), Who::draw(random, *scale));
                session.read(|| queries::order_status(sql, w, d, &who))?;
                Ok(2)
            }
            Profile::Delivery => {
                let carrier = random.within(1, 10);
                session.write(|| queries::delivery(sql, w, carrier, now()).map(End::Commit))?;
                Ok(3)
            }
            Profile::StockLevel => {
                let threshold = random.within(10, 20);
                session.read(|| queries::stock_level(sql, w, self.district, threshold))?;
                Ok(4)
            }
        }
    }
}

/// Seconds since 1970.
fn now() -> i64 {
    let elapsed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(elapsed.as_secs()).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpcc;

    #[test]
    fn five_hundred_transactions_leave_a_consistent_database() {
        let conn = Connection::open_in_memory().expect("memory");
        let scale = Scale::new(2, 100);
        tpcc::load(&conn, scale, 1).expect("load");
        let mut committed = [0; 6];
        for id in 0..2 {
            let mut terminal = Terminal::new(&conn, None, scale, id, id as u64).expect("terminal");
            for _ in 0..250 {
                committed[terminal.run_one().expect("transaction")] += 1;
            }
        }
        assert!(committed[0] > 200 && committed[1] > 200, "{committed:?}");
        tpcc::check(&conn, scale, Some(&committed)).expect("consistent");
    }
}
