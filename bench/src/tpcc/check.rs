//! Consistency conditions 1 to 4 (clause 3.3.2), and that what was committed is there.

use rusqlite::Connection;

use super::{DISTRICTS, Scale};
use crate::error::{Context, Error, Result};

/// Each query lists the rows that violate a condition of the specification.
const CONDITIONS: [(&str, &str); 4] = [
    (
        "1: W_YTD is the sum of its districts' D_YTD",
        "SELECT w_id, w_ytd, (SELECT sum(d_ytd) FROM district WHERE d_w_id = w_id) AS ytd FROM warehouse
         WHERE w_ytd IS NOT ytd",
    ),
    (
        "2: D_NEXT_O_ID - 1 is the newest order and the newest new order",
        "SELECT d_w_id, d_id, d_next_o_id FROM district
         WHERE d_next_o_id - 1 IS NOT (SELECT max(o_id) FROM orders WHERE o_w_id = d_w_id AND o_d_id = d_id)
            OR d_next_o_id - 1 IS NOT coalesce(
                (SELECT max(no_o_id) FROM new_order WHERE no_w_id = d_w_id AND no_d_id = d_id), d_next_o_id - 1)",
    ),
    (
        "3: new orders of a district have no gap",
        "SELECT no_w_id, no_d_id, count(*) FROM new_order GROUP BY no_w_id, no_d_id
         HAVING max(no_o_id) - min(no_o_id) + 1 <> count(*)",
    ),
    (
        "4: a district has as many order lines as its orders say",
        "SELECT d_w_id, d_id, (SELECT sum(o_ol_cnt) FROM orders WHERE o_w_id = d_w_id AND o_d_id = d_id) AS said
         FROM district
         WHERE said IS NOT (SELECT count(*) FROM order_line WHERE ol_w_id = d_w_id AND ol_d_id = d_id)",
    ),
];

/// Checks the conditions, and with `committed` (by label) also that no committed order or payment was lost.
pub fn check(conn: &Connection, scale: Scale, committed: Option<&[u64]>) -> Result<()> {
    for (condition, violations) in CONDITIONS {
        let mut statement = conn.prepare(violations).during("checking consistency")?;
        let mut rows = statement.query(()).during("checking consistency")?;
        if let Some(row) = rows.next().during("checking consistency")? {
            let values: rusqlite::Result<Vec<i64>> = (0..3).map(|column| row.get(column)).collect();
            let values = values.during("checking consistency")?;
            return Err(Error::Inconsistent(format!("TPC-C condition {condition}; violated by {values:?}")));
        }
    }
    let Some(committed) = committed else { return Ok(()) };
    let at_start = i64::from(scale.warehouses * DISTRICTS * scale.customers);
    for (what, table, expected) in [("orders", "orders", committed[0]), ("payments", "history", committed[1])] {
        let count = format!("SELECT count(*) FROM {table}");
        let rows: i64 = conn.query_row(&count, (), |row| row.get(0)).during("counting what was committed")?;
        let found = rows - at_start;
        if u64::try_from(found) != Ok(expected) {
            return Err(Error::Inconsistent(format!("{expected} {what} were committed, {found} are there")));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tpcc::load;

    #[test]
    fn a_fresh_database_passes_and_every_kind_of_damage_is_named() {
        let conn = Connection::open_in_memory().expect("memory");
        let scale = Scale::new(1, 100);
        load(&conn, scale, 1).expect("load");
        check(&conn, scale, Some(&[0, 0])).expect("fresh");
        let damages = [
            ("UPDATE warehouse SET w_ytd = w_ytd + 1", "condition 1"),
            ("UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_id = 3", "condition 2"),
            ("DELETE FROM orders WHERE o_d_id = 2 AND o_id = 30", "condition 2"),
            ("DELETE FROM new_order WHERE no_d_id = 4 AND no_o_id = 25", "condition 3"),
            ("DELETE FROM order_line WHERE ol_d_id = 5 AND ol_o_id = 7 AND ol_number = 1", "condition 4"),
            ("DELETE FROM history WHERE rowid = 9", "0 payments were committed, -1"),
        ];
        for (damage, finding) in damages {
            conn.execute_batch("SAVEPOINT damage").expect("savepoint");
            conn.execute(damage, ()).expect(damage);
            let message = check(&conn, scale, Some(&[0, 0])).expect_err(damage).to_string();
            assert!(message.contains(finding), "{damage}: {message}");
            conn.execute_batch("ROLLBACK TO damage; RELEASE damage").expect("undo");
        }
    }
}
