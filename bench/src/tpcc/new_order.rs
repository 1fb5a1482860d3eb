//! New-Order (clause 2.4): a basket of 5 to 15 items, one order in a hundred ends with an unused item and rolls back.

use rusqlite::{OptionalExtension, Row, params};

use super::random::Random;
use super::statements::Statements;
use super::{DISTRICTS, Scale};
use crate::session::End;

/// One line of the basket.
#[derive(Clone, Copy, Debug, Default)]
struct Line {
    item: u32,
    supplier: u32,
    quantity: i64,
}

/// The terminal's input.
#[derive(Debug)]
pub struct NewOrder {
    warehouse: u32,
    district: u32,
    customer: u32,
    lines: Vec<Line>,
}

impl NewOrder {
    /// Draws an order for the home warehouse.
    pub fn draw(random: &mut Random, scale: Scale, warehouse: u32) -> Self {
        let district = random.within(1, DISTRICTS);
        let customer = random.customer(scale.customers);
        let count = random.within(5, 15);
        let fails = random.percent(1);
        let line = |number| Line {
            item: if fails && number == count { scale.items + 1 } else { random.item(scale.items) },
            supplier: supplier(random, scale, warehouse),
            quantity: i64::from(random.within(1, 10)),
        };
        Self { warehouse, district, customer, lines: (1..=count).map(line).collect() }
    }

    /// Runs it; `false` when it was rolled back.
    pub fn run(&self, sql: &mut Statements, now: i64) -> rusqlite::Result<End<bool>> {
        let (w, d) = (self.warehouse, self.district);
        let warehouse_tax: i64 = sql.warehouse_tax.query_row((w,), |row| row.get(0))?;
        let (district_tax, order): (i64, u32) =
            sql.district_next.query_row((w, d), |row| Ok((row.get(0)?, row.get(1)?)))?;
        sql.district_advance.execute((w, d))?;
        let discount: i64 = sql.customer_terms.query_row((w, d, self.customer), |row| {
            std::hint::black_box((row.get_ref(1)?, row.get_ref(2)?));
            row.get(0)
        })?;
        let all_local = self.lines.iter().all(|line| line.supplier == w);
        sql.order_add.execute(params![w, d, order, self.customer, now, self.lines.len() as u32, all_local])?;
        sql.new_order_add.execute((w, d, order))?;
        let mut total = 0;
        for (number, line) in (1..).zip(&self.lines) {
            let item = sql.item_get.query_row((line.item,), |row| {
                std::hint::black_box(row.get_ref(1)?);
                Ok((row.get::<_, i64>(0)?, is_original(row, 2)?))
            });
            let Some((price, original)) = item.optional()? else { return Ok(End::Rollback(false)) };
            let amount = price * line.quantity;
            let brand = self.take(sql, order, number, line, amount)? && original;
            std::hint::black_box(if brand { 'B' } else { 'G' });
            total += amount;
        }
        std::hint::black_box(total * (10_000 - discount) * (10_000 + warehouse_tax + district_tax));
        Ok(End::Commit(true))
    }

    /// Takes one line's quantity from the stock, and enters the line. Tells whether the stock's data is original.
    fn take(&self, sql: &mut Statements, order: u32, number: u32, line: &Line, amount: i64) -> rusqlite::Result<bool> {
        let (w, d) = (self.warehouse, self.district);
        let stock = &mut sql.stock_get[d as usize - 1];
        let (quantity, original, text): (i64, bool, String) =
            stock.query_row((line.supplier, line.item), |row| Ok((row.get(0)?, is_original(row, 1)?, row.get(2)?)))?;
        let left = if quantity >= line.quantity + 10 { quantity } else { quantity + 91 } - line.quantity;
        let remote = line.supplier != w;
        sql.stock_take.execute((line.supplier, line.item, left, line.quantity, remote))?;
        let row = params![w, d, order, number, line.item, line.supplier, line.quantity, amount, text];
        sql.line_add.execute(row)?;
        Ok(original)
    }
}

/// Clause 2.4.2.2: an item is a brand's if the data of both item and stock include this.
fn is_original(row: &Row<'_>, column: usize) -> rusqlite::Result<bool> {
    Ok(row.get_ref(column)?.as_str()?.contains("ORIGINAL"))
}

/// The home warehouse, but another in one line of a hundred.
fn supplier(random: &mut Random, scale: Scale, home: u32) -> u32 {
    if scale.warehouses > 1 && random.percent(1) { other(random, scale, home) } else { home }
}

/// Any warehouse but `home`.
pub fn other(random: &mut Random, scale: Scale, home: u32) -> u32 {
    let pick = random.within(1, scale.warehouses - 1);
    if pick >= home { pick + 1 } else { pick }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_line_in_a_hundred_is_remote_and_one_order_in_a_hundred_fails() {
        let (mut random, scale) = (Random::new(1), Scale::new(4, 1));
        let orders: Vec<NewOrder> = (0..20_000).map(|_| NewOrder::draw(&mut random, scale, 2)).collect();
        let lines: Vec<&Line> = orders.iter().flat_map(|order| &order.lines).collect();
        let remote = lines.iter().filter(|line| line.supplier != 2).count() as f64 / lines.len() as f64;
        let failing = lines.iter().filter(|line| line.item > scale.items).count();
        assert!((0.008..0.012).contains(&remote), "{remote}");
        assert!((140..260).contains(&failing), "{failing}");
        assert!(lines.iter().all(|line| (1..=4).contains(&line.supplier)));
    }

    #[test]
    fn a_single_warehouse_has_no_remote_lines() {
        let (mut random, scale) = (Random::new(1), Scale::new(1, 1));
        let order = NewOrder::draw(&mut random, scale, 1);
        assert!(order.lines.iter().all(|line| line.supplier == 1));
    }
}
