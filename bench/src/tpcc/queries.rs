//! Order-Status, Delivery and Stock-Level (clauses 2.6, 2.7 and 2.8), and how a customer is found.

use rusqlite::OptionalExtension;

use super::random::{Phase, Random};
use super::statements::Statements;
use super::{DISTRICTS, Scale};

/// A customer as the terminal's user knows him.
#[derive(Debug)]
pub enum Who {
    /// By number.
    Number(u32),
    /// By last name.
    Named(String),
}

impl Who {
    /// By name in 60 of 100 cases.
    pub fn draw(random: &mut Random, scale: Scale) -> Self {
        if random.percent(60) {
            Who::Named(random.last_name(Phase::Run, scale.customers))
        } else {
            Who::Number(random.customer(scale.customers))
        }
    }

    /// The number; of those with one name, the middle one by first name, rounded up.
    pub fn find(&self, sql: &mut Statements, w: u32, d: u32) -> rusqlite::Result<u32> {
        let name = match self {
            Who::Number(number) => return Ok(*number),
            Who::Named(name) => name,
        };
        let found: Vec<u32> =
            sql.customer_by_name.query_map((w, d, name), |row| row.get(0))?.collect::<rusqlite::Result<_>>()?;
        let middle = found.len().div_ceil(2).checked_sub(1).ok_or(rusqlite::Error::QueryReturnedNoRows)?;
        Ok(found[middle])
    }
}

/// A customer's last order and its lines.
pub fn order_status(sql: &mut Statements, w: u32, d: u32, who: &Who) -> rusqlite::Result<()> {
    let c = who.find(sql, w, d)?;
    sql.customer_get.query_row((w, d, c), |row| {
        std::hint::black_box((row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?, row.get_ref(13)?));
        Ok(())
    })?;
    let order: u32 = sql.order_last.query_row((w, d, c), |row| {
        std::hint::black_box((row.get_ref(1)?, row.get_ref(2)?));
        row.get(0)
    })?;
    let mut rows = sql.line_list.query((w, d, order))?;
    while let Some(row) = rows.next()? {
        std::hint::black_box((row.get_ref(0)?, row.get_ref(1)?, row.get_ref(2)?, row.get_ref(3)?, row.get_ref(4)?));
    }
    Ok(())
}

/// Delivers the oldest new order of every district that has one.
pub fn delivery(sql: &mut Statements, w: u32, carrier: u32, now: i64) -> rusqlite::Result<()> {
    for d in 1..=DISTRICTS {
        let oldest: Option<u32> = sql.new_order_oldest.query_row((w, d), |row| row.get(0)).optional()?;
        let Some(order) = oldest else { continue };
        sql.new_order_remove.execute((w, d, order))?;
        let customer: u32 = sql.order_customer.query_row((w, d, order), |row| row.get(0))?;
        sql.order_carry.execute((w, d, order, carrier))?;
        sql.line_deliver.execute((w, d, order, now))?;
        let amount: i64 = sql.line_sum.query_row((w, d, order), |row| row.get(0))?;
        sql.customer_deliver.execute((w, d, customer, amount))?;
    }
    Ok(())
}

/// How many items of a district's last 20 orders have less in stock than `threshold`.
pub fn stock_level(sql: &mut Statements, w: u32, d: u32, threshold: u32) -> rusqlite::Result<()> {
    let next: u32 = sql.district_next.query_row((w, d), |row| row.get(1))?;
    let low: u32 = sql.stock_low.query_row((w, d, next, threshold), |row| row.get(0))?;
    std::hint::black_box(low);
    Ok(())
}
