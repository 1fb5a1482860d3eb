//! Payment (clause 2.5): by name in 60 of 100 cases, a customer of another warehouse in 15.

use rusqlite::params;

use super::new_order::other;
use super::queries::Who;
use super::random::Random;
use super::statements::Statements;
use super::{DISTRICTS, Scale};

/// Longest data of a customer with bad credit.
const DATA: usize = 500;

/// The terminal's input.
#[derive(Debug)]
pub struct Payment {
    warehouse: u32,
    district: u32,
    customer_warehouse: u32,
    customer_district: u32,
    who: Who,
    amount: i64,
}

impl Payment {
    /// Draws a payment at the home warehouse.
    pub fn draw(random: &mut Random, scale: Scale, warehouse: u32) -> Self {
        let district = random.within(1, DISTRICTS);
        let remote = scale.warehouses > 1 && random.percent(15);
        let (customer_warehouse, customer_district) =
            if remote { (other(random, scale, warehouse), random.within(1, DISTRICTS)) } else { (warehouse, district) };
        let who = Who::draw(random, scale);
        let amount = i64::from(random.within(100, 500_000));
        Self { warehouse, district, customer_warehouse, customer_district, who, amount }
    }

    /// Runs it.
    pub fn run(&self, sql: &mut Statements, now: i64) -> rusqlite::Result<()> {
        let (w, d) = (self.warehouse, self.district);
        let (cw, cd) = (self.customer_warehouse, self.customer_district);
        sql.warehouse_pay.execute((w, self.amount))?;
        let warehouse: String = sql.warehouse_address.query_row((w,), |row| row.get(0))?;
        sql.district_pay.execute((w, d, self.amount))?;
        let district: String = sql.district_address.query_row((w, d), |row| row.get(0))?;
        let c = self.who.find(sql, cw, cd)?;
        let bad = sql.customer_get.query_row((cw, cd, c), |row| {
            std::hint::black_box((row.get_ref(0)?, row.get_ref(2)?, row.get_ref(13)?));
            Ok(row.get_ref(10)?.as_str()? == "BC")
        })?;
        if bad {
            let old: String = sql.customer_data.query_row((cw, cd, c), |row| row.get(0))?;
            let mut data = format!("{c} {cd} {cw} {d} {w} {} | {old}", self.amount);
            data.truncate(DATA);
            sql.customer_pay_bad.execute(params![cw, cd, c, self.amount, data])?;
        } else {
            sql.customer_pay.execute((cw, cd, c, self.amount))?;
        }
        let note = format!("{warehouse}    {district}");
        sql.history_add.execute(params![c, cd, cw, d, w, now, self.amount, note])?;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fifteen_in_a_hundred_customers_are_remote_and_sixty_are_named() {
        let (mut random, scale) = (Random::new(1), Scale::new(3, 1));
        let payments: Vec<Payment> = (0..10_000).map(|_| Payment::draw(&mut random, scale, 1)).collect();
        let remote = payments.iter().filter(|payment| payment.customer_warehouse != 1).count();
        let named = payments.iter().filter(|payment| matches!(payment.who, Who::Named(_))).count();
        assert!((1400..1600).contains(&remote), "{remote}");
        assert!((5800..6200).contains(&named), "{named}");
    }
}
