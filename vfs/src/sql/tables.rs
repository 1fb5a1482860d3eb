//! Table-valued functions: what they are called, and their rows.

use super::Value;
use super::table::{self, Table};
use crate::error::Outcome;
use crate::file::Conn;
use crate::instance::Instance;
use crate::sys::sqlite3;
use nvlite_engine::store::StatValue;
use std::ffi::c_int;

/// The last column of each is the hidden argument: the schema, `main` if not given.
static TABLES: &[Table] = &[
    Table { name: c"nvlite_stat", schema: c"CREATE TABLE x(name TEXT, value, schema HIDDEN)", columns: 2, rows: stat },
    Table {
        name: c"nvlite_snapshots",
        schema: c"CREATE TABLE x(name TEXT, jci INTEGER, schema HIDDEN)",
        columns: 2,
        rows: snapshots,
    },
];

/// # Safety
/// `db` is a connection of the instance's library.
pub(super) unsafe fn install(instance: &'static Instance, db: *mut sqlite3) -> Result<(), c_int> {
    // SAFETY: as the caller promises.
    TABLES.iter().try_for_each(|table| unsafe { table::install(instance, db, table) })
}

fn stat(conn: &mut Conn) -> Outcome<Vec<Vec<Value>>> {
    let row = |stat: nvlite_engine::Stat| {
        let value = match stat.value {
            StatValue::Int(number) => Value::Int(number.try_into().unwrap_or(i64::MAX)),
            StatValue::Text(text) => Value::Text(text),
        };
        vec![Value::Text(stat.name.into()), value]
    };
    Ok(conn.store()?.stats().into_iter().map(row).collect())
}

/// This version makes no named snapshots, so there are none.
fn snapshots(_conn: &mut Conn) -> Outcome<Vec<Vec<Value>>> {
    Ok(Vec::new())
}
