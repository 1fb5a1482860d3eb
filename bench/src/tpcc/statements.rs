//! Every statement of the five transactions, prepared once per connection.

use rusqlite::{Connection, Statement};

use super::DISTRICTS;

macro_rules! statements {
    ($($name:ident = $sql:literal;)*) => {
        /// The prepared statements. The first parameters are the warehouse, the district and the key in it.
        pub struct Statements<'c> {
            $(#[doc = $sql] pub $name: Statement<'c>,)*
            /// Stock of an item with the text for one district; index is the district less one.
            pub stock_get: Vec<Statement<'c>>,
        }

        impl<'c> Statements<'c> {
            /// Prepares all of them.
            pub fn prepare(conn: &'c Connection) -> rusqlite::Result<Self> {
                Ok(Self { $($name: conn.prepare($sql)?,)* stock_get: stock_get(conn)? })
            }
        }
    };
}

statements! {
    warehouse_tax = "SELECT w_tax FROM warehouse WHERE w_id = ?1";
    warehouse_pay = "UPDATE warehouse SET w_ytd = w_ytd + ?2 WHERE w_id = ?1";
    warehouse_address = "SELECT w_name, w_street_1, w_street_2, w_city, w_state, w_zip FROM warehouse WHERE w_id = ?1";
    district_next = "SELECT d_tax, d_next_o_id FROM district WHERE d_w_id = ?1 AND d_id = ?2";
    district_advance = "UPDATE district SET d_next_o_id = d_next_o_id + 1 WHERE d_w_id = ?1 AND d_id = ?2";
    district_pay = "UPDATE district SET d_ytd = d_ytd + ?3 WHERE d_w_id = ?1 AND d_id = ?2";
    district_address = "SELECT d_name, d_street_1, d_street_2, d_city, d_state, d_zip FROM district
        WHERE d_w_id = ?1 AND d_id = ?2";
    customer_terms = "SELECT c_discount, c_last, c_credit FROM customer WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_id = ?3";
    customer_by_name = "SELECT c_id FROM customer WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_last = ?3 ORDER BY c_first";
    customer_get = "SELECT c_first, c_middle, c_last, c_street_1, c_street_2, c_city, c_state, c_zip, c_phone, c_since,
        c_credit, c_credit_lim, c_discount, c_balance FROM customer WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_id = ?3";
    customer_data = "SELECT c_data FROM customer WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_id = ?3";
    customer_pay = "UPDATE customer SET c_balance = c_balance - ?4, c_ytd_payment = c_ytd_payment + ?4,
        c_payment_cnt = c_payment_cnt + 1 WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_id = ?3";
    customer_pay_bad = "UPDATE customer SET c_balance = c_balance - ?4, c_ytd_payment = c_ytd_payment + ?4,
        c_payment_cnt = c_payment_cnt + 1, c_data = ?5 WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_id = ?3";
    customer_deliver = "UPDATE customer SET c_balance = c_balance + ?4, c_delivery_cnt = c_delivery_cnt + 1
        WHERE c_w_id = ?1 AND c_d_id = ?2 AND c_id = ?3";
    history_add = "INSERT INTO history VALUES(?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8)";
    order_add = "INSERT INTO orders VALUES(?3, ?2, ?1, ?4, ?5, NULL, ?6, ?7)";
    order_last = "SELECT o_id, o_entry_d, o_carrier_id FROM orders WHERE o_w_id = ?1 AND o_d_id = ?2 AND o_c_id = ?3
        ORDER BY o_id DESC LIMIT 1";
    order_customer = "SELECT o_c_id FROM orders WHERE o_w_id = ?1 AND o_d_id = ?2 AND o_id = ?3";
    order_carry = "UPDATE orders SET o_carrier_id = ?4 WHERE o_w_id = ?1 AND o_d_id = ?2 AND o_id = ?3";
    new_order_add = "INSERT INTO new_order VALUES(?3, ?2, ?1)";
    new_order_oldest = "SELECT no_o_id FROM new_order WHERE no_w_id = ?1 AND no_d_id = ?2 ORDER BY no_o_id LIMIT 1";
    new_order_remove = "DELETE FROM new_order WHERE no_w_id = ?1 AND no_d_id = ?2 AND no_o_id = ?3";
    line_add = "INSERT INTO order_line VALUES(?3, ?2, ?1, ?4, ?5, ?6, NULL, ?7, ?8, ?9)";
    line_list = "SELECT ol_i_id, ol_supply_w_id, ol_quantity, ol_amount, ol_delivery_d FROM order_line
        WHERE ol_w_id = ?1 AND ol_d_id = ?2 AND ol_o_id = ?3";
    line_sum = "SELECT sum(ol_amount) FROM order_line WHERE ol_w_id = ?1 AND ol_d_id = ?2 AND ol_o_id = ?3";
    line_deliver = "UPDATE order_line SET ol_delivery_d = ?4 WHERE ol_w_id = ?1 AND ol_d_id = ?2 AND ol_o_id = ?3";
    item_get = "SELECT i_price, i_name, i_data FROM item WHERE i_id = ?1";
    stock_take = "UPDATE stock SET s_quantity = ?3, s_ytd = s_ytd + ?4, s_order_cnt = s_order_cnt + 1,
        s_remote_cnt = s_remote_cnt + ?5 WHERE s_w_id = ?1 AND s_i_id = ?2";
    stock_low = "SELECT count(DISTINCT s_i_id) FROM order_line CROSS JOIN stock ON s_w_id = ?1 AND s_i_id = ol_i_id
        WHERE ol_w_id = ?1 AND ol_d_id = ?2 AND ol_o_id >= ?3 - 20 AND ol_o_id < ?3 AND s_quantity < ?4";
}

fn stock_get(conn: &Connection) -> rusqlite::Result<Vec<Statement<'_>>> {
    (1..=DISTRICTS)
        .map(|d| {
            let columns = format!("s_quantity, s_data, s_dist_{d:02}");
            conn.prepare(&format!("SELECT {columns} FROM stock WHERE s_w_id = ?1 AND s_i_id = ?2"))
        })
        .collect()
}
