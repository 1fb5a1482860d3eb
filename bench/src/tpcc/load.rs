//! The initial population (clause 4.3.3).

use rusqlite::{Connection, Statement, params};

use super::random::{Phase, Random, last_name};
use super::{DISTRICTS, Scale, schema};
use crate::error::{Context, Result};

/// Fills an empty database.
pub fn load(conn: &Connection, scale: Scale, seed: u64) -> Result<()> {
    fill(conn, scale, &mut Random::new(seed)).during("loading TPC-C")
}

fn fill(conn: &Connection, scale: Scale, random: &mut Random) -> rusqlite::Result<()> {
    conn.execute_batch("BEGIN")?;
    conn.execute_batch(schema::TABLES)?;
    items(conn, scale, random)?;
    for w in 1..=scale.warehouses {
        warehouse(conn, w, random)?;
        stock(conn, w, scale, random)?;
        for d in 1..=DISTRICTS {
            district(conn, w, d, scale, random)?;
            customers(conn, w, d, scale, random)?;
            orders(conn, w, d, scale, random)?;
        }
    }
    conn.execute_batch(schema::INDICES)?;
    conn.execute_batch("COMMIT")
}

/// A statement that inserts rows of `columns` columns.
fn insert<'c>(conn: &'c Connection, table: &str, columns: usize) -> rusqlite::Result<Statement<'c>> {
    let marks = vec!["?"; columns].join(",");
    conn.prepare(&format!("INSERT INTO {table} VALUES({marks})"))
}

fn items(conn: &Connection, scale: Scale, random: &mut Random) -> rusqlite::Result<()> {
    let mut item = insert(conn, "item", 5)?;
    for i in 1..=scale.items {
        let (image, name) = (random.within(1, 10_000), random.letters(14, 24));
        item.execute((i, image, name, random.within(100, 10_000), random.data()))?;
    }
    Ok(())
}

fn warehouse(conn: &Connection, w: u32, random: &mut Random) -> rusqlite::Result<()> {
    let [name, street_1, street_2, city, state, zip] = address(random);
    let tax = random.below(2001);
    insert(conn, "warehouse", 9)?.execute(params![w, name, street_1, street_2, city, state, zip, tax, 30_000_000])?;
    Ok(())
}

fn district(conn: &Connection, w: u32, d: u32, scale: Scale, random: &mut Random) -> rusqlite::Result<()> {
    let [name, street_1, street_2, city, state, zip] = address(random);
    let (tax, next) = (random.below(2001), scale.customers + 1);
    let row = params![d, w, name, street_1, street_2, city, state, zip, tax, 3_000_000, next];
    insert(conn, "district", 11)?.execute(row)?;
    Ok(())
}

/// Name, two streets, city, state, zip.
fn address(random: &mut Random) -> [String; 6] {
    let name = random.letters(6, 10);
    let [street_1, street_2, city] = std::array::from_fn(|_| random.letters(10, 20));
    [name, street_1, street_2, city, random.letters(2, 2), random.zip()]
}

fn stock(conn: &Connection, w: u32, scale: Scale, random: &mut Random) -> rusqlite::Result<()> {
    let mut stock = insert(conn, "stock", 17)?;
    for i in 1..=scale.items {
        let quantity = random.within(10, 100);
        let [a, b, c, d, e, f, g, h, j, k]: [String; 10] = std::array::from_fn(|_| random.letters(24, 24));
        stock.execute(params![i, w, quantity, a, b, c, d, e, f, g, h, j, k, 0, 0, 0, random.data()])?;
    }
    Ok(())
}

fn customers(conn: &Connection, w: u32, d: u32, scale: Scale, random: &mut Random) -> rusqlite::Result<()> {
    let (mut customer, mut history) = (insert(conn, "customer", 21)?, insert(conn, "history", 8)?);
    for c in 1..=scale.customers {
        let last = if c <= 1000 { last_name(c - 1) } else { random.last_name(Phase::Load, scale.customers) };
        let first = random.letters(8, 16);
        let [_, street_1, street_2, city, state, zip] = address(random);
        let credit = if random.percent(10) { "BC" } else { "GC" };
        let (phone, discount, data) = (random.digits(16, 16), random.below(5001), random.letters(300, 500));
        customer.execute(params![
            c, d, w, first, "OE", last, street_1, street_2, city, state, zip, phone, 0, credit, 5_000_000, discount,
            -1000, 1000, 1, 0, data
        ])?;
        history.execute(params![c, d, w, d, w, 0, 1000, random.letters(12, 24)])?;
    }
    Ok(())
}

fn orders(conn: &Connection, w: u32, d: u32, scale: Scale, random: &mut Random) -> rusqlite::Result<()> {
    let (mut order, mut line) = (insert(conn, "orders", 8)?, insert(conn, "order_line", 10)?);
    let mut new_order = insert(conn, "new_order", 3)?;
    let mut buyers: Vec<u32> = (1..=scale.customers).collect();
    random.shuffle(&mut buyers);
    for (o, c) in (1..).zip(buyers) {
        let delivered = o < scale.first_new_order();
        let carrier = delivered.then(|| random.within(1, 10));
        let lines = random.within(5, 15);
        order.execute(params![o, d, w, c, 0, carrier, lines, 1])?;
        for number in 1..=lines {
            let amount = if delivered { 0 } else { random.within(1, 999_999) };
            let (item, date) = (random.within(1, scale.items), delivered.then_some(0));
            line.execute(params![o, d, w, number, item, w, date, 5, amount, random.letters(24, 24)])?;
        }
        if !delivered {
            new_order.execute((o, d, w))?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpcc::random::C_LAST_LOAD;

    #[test]
    fn tables_have_the_specified_numbers_of_rows_and_every_last_name_is_found() {
        let conn = Connection::open_in_memory().expect("memory");
        let scale = Scale::new(2, 50);
        load(&conn, scale, 1).expect("load");
        let count = |table: &str| -> u32 {
            conn.query_row(&format!("SELECT count(*) FROM {table}"), (), |row| row.get(0)).expect("count")
        };
        assert_eq!((count("warehouse"), count("district"), count("item"), count("stock")), (2, 20, 2000, 4000));
        assert_eq!((count("customer"), count("history"), count("orders"), count("new_order")), (1200, 1200, 1200, 360));
        let lines = count("order_line");
        assert!((11_000..13_000).contains(&lines), "{lines}");
        let names = "SELECT count(DISTINCT c_last) FROM customer WHERE c_w_id = 1 AND c_d_id = 1";
        let names: u32 = conn.query_row(names, (), |row| row.get(0)).expect("names");
        assert_eq!(names, scale.customers);
    }

    /// Clauses 1.2.1 and 4.3.3.1, as `--scale 1` loads them.
    #[test]
    fn the_full_size_is_the_specifications() {
        let conn = Connection::open_in_memory().expect("memory");
        load(&conn, Scale::new(1, 1), 1).expect("load");
        let number = |sql: &str| -> u32 { conn.query_row(sql, (), |row| row.get(0)).expect(sql) };
        let rows = ["warehouse", "district", "item", "stock", "customer", "history", "orders", "new_order"]
            .map(|table| number(&format!("SELECT count(*) FROM {table}")));
        assert_eq!(rows, [1, 10, 100_000, 100_000, 30_000, 30_000, 30_000, 9000]);
        let keys = [("customer", "c_d_id", "c_id", 1), ("orders", "o_d_id", "o_id", 1)];
        for (table, district, key, first) in keys.into_iter().chain([("new_order", "no_d_id", "no_o_id", 2101)]) {
            let whole = format!(
                "SELECT count(*) FROM (SELECT count(DISTINCT {key}) AS n, min({key}) AS low, max({key}) AS high
                 FROM {table} GROUP BY {district}) WHERE n = 3001 - {first} AND low = {first} AND high = 3000"
            );
            assert_eq!(number(&whole), DISTRICTS, "{table}");
        }
        let buyers = "SELECT min(n) FROM (SELECT count(DISTINCT o_c_id) AS n FROM orders GROUP BY o_d_id)";
        assert_eq!(number(buyers), 3000, "every customer has one order");
        assert_eq!(number("SELECT count(*) FROM district WHERE d_next_o_id = 3001"), DISTRICTS);
        names(&conn);
    }

    /// Clause 4.3.3.1: the first thousand customers of a district bear all names in their order, the others names by
    /// NURand(255), whose choices have all low bits set far more often than not.
    fn names(conn: &Connection) {
        let names = |sql: &str| -> Vec<(String, u32)> {
            let mut select = conn.prepare(sql).expect(sql);
            let rows = select.query_map((), |row| Ok((row.get(0)?, row.get(1)?))).expect(sql);
            rows.collect::<rusqlite::Result<_>>().expect(sql)
        };
        for (name, c) in names("SELECT c_last, c_id FROM customer WHERE c_id <= 1000") {
            assert_eq!(name, last_name(c - 1));
        }
        let others = names("SELECT c_last, count(*) FROM customer WHERE c_id > 1000 GROUP BY 1 ORDER BY 2 DESC");
        let mut often: Vec<&str> = others[..4].iter().map(|(name, _)| name.as_str()).collect();
        let mut expected = [255, 511, 767, 1023].map(|choice| last_name((choice + C_LAST_LOAD) % 1000));
        often.sort_unstable();
        expected.sort_unstable();
        assert_eq!(often, expected);
        assert!(others[3].1 > 300 && others[4].1 < 240, "{:?}", &others[..5]);
    }
}
