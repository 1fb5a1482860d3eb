//! Table-valued functions: what they are called, and their rows.

use super::Value;
use super::table::{self, Table};
use crate::error::Outcome;
use crate::file::Conn;
use crate::instance::Instance;
use crate::sys::sqlite3;
use nvlite_engine::store::{Damage, DamagedPlace, Remedy, StatValue};
use std::ffi::c_int;

/// The last column of each is the hidden argument: the schema, `main` if not given.
static TABLES: &[Table] = &[
    Table { name: c"nvlite_stat", schema: c"CREATE TABLE x(name TEXT, value, schema HIDDEN)", columns: 2, rows: stat },
    Table {
        name: c"nvlite_damage",
        schema: c"CREATE TABLE x(page INTEGER, place TEXT, block INTEGER, remedy TEXT, schema HIDDEN)",
        columns: 4,
        rows: verify,
    },
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

/// What does not hold what was put there: a look at every page in memory and in the cold file.
fn verify(conn: &mut Conn) -> Outcome<Vec<Vec<Value>>> {
    let row = |damage: Damage| {
        let (place, block) = match damage.place {
            DamagedPlace::Fast(block) => ("fast tier", block),
            DamagedPlace::Cold(block) => ("cold file", block),
        };
        let remedy = match damage.remedy {
            Remedy::Home => "its home in the base file is good",
            Remedy::OldVersion => "only readers of an older snapshot need it",
            Remedy::None => "there is no other copy here",
        };
        vec![
            Value::Int(damage.page.0.into()),
            Value::Text(place.into()),
            Value::Int(block.into()),
            Value::Text(remedy.into()),
        ]
    };
    Ok(conn.store()?.session()?.verify()?.into_iter().map(row).collect())
}

/// This version makes no named snapshots, so there are none.
fn snapshots(_conn: &mut Conn) -> Outcome<Vec<Vec<Value>>> {
    Ok(Vec::new())
}
