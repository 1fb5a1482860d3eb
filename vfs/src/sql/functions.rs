//! Scalar functions.

use super::{Value, text_of, visit};
use crate::api::{Api, to_c};
use crate::error::{Failure, Outcome};
use crate::instance::{self, Instance, MAX_INSTANCES};
use crate::sys::*;
use nvlite_engine::Store;
use std::ffi::{CStr, c_int};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A function: its name, how many arguments stand before the optional name of the database, and what it does.
struct Function {
    name: &'static CStr,
    arguments: c_int,
    run: fn(&Database, &[Option<String>]) -> Outcome<Value>,
}

/// The database that a function is about.
struct Database {
    store: Arc<Store>,
    /// The connection is in the middle of a write transaction.
    writing: bool,
}

static FUNCTIONS: &[Function] = &[
    Function { name: c"nvlite_checkpoint", arguments: 0, run: checkpoint },
    Function { name: c"nvlite_snapshot", arguments: 1, run: not_yet },
    Function { name: c"nvlite_snapshot_drop", arguments: 1, run: not_yet },
];

type Callback = unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value);

/// By [`Instance::place`]: a callback gets only a context, which only its own library can read.
const VERSION: [Callback; MAX_INSTANCES] = [version::<0>, version::<1>, version::<2>, version::<3>];
const CALL: [Callback; MAX_INSTANCES] = [call::<0>, call::<1>, call::<2>, call::<3>];

/// SQLITE_DIRECTONLY: not from triggers and views, whose text may come with a foreign file.
const DIRECT_ONLY: c_int = 0x0008_0000;

/// # Safety
/// `db` is a connection of the instance's library.
pub(super) unsafe fn install(instance: &'static Instance, db: *mut sqlite3) -> Result<(), c_int> {
    let api = &instance.api;
    let null = std::ptr::null_mut();
    // SAFETY: names are terminated, the callbacks have SQLite's signatures, and user data is static.
    unsafe {
        let version = Some(VERSION[instance.place]);
        ok((api.create_function_v2)(db, c"nvlite_version".as_ptr(), 0, SQLITE_UTF8, null, version, None, None, None))?;
        for function in FUNCTIONS {
            for arguments in [function.arguments, function.arguments + 1] {
                let data = std::ptr::from_ref(function).cast_mut().cast();
                let (name, flags, call) =
                    (function.name.as_ptr(), SQLITE_UTF8 | DIRECT_ONLY, Some(CALL[instance.place]));
                ok((api.create_function_v2)(db, name, arguments, flags, data, call, None, None, None))?;
            }
        }
    }
    Ok(())
}

fn ok(code: c_int) -> Result<(), c_int> {
    if code == SQLITE_OK { Ok(()) } else { Err(code) }
}

unsafe extern "C" fn version<const PLACE: usize>(
    context: *mut sqlite3_context,
    _count: c_int,
    _values: *mut *mut sqlite3_value,
) {
    let Some(instance) = instance::at(PLACE) else { return };
    let run = || Ok(Value::Text(env!("CARGO_PKG_VERSION").into()));
    // SAFETY: the call in progress.
    unsafe { answer(&instance.api, context, run) }
}

unsafe extern "C" fn call<const PLACE: usize>(
    context: *mut sqlite3_context,
    count: c_int,
    values: *mut *mut sqlite3_value,
) {
    let Some(instance) = instance::at(PLACE) else { return };
    let api = &instance.api;
    // SAFETY: what `install` gave.
    let function = unsafe { &*(api.user_data)(context).cast::<Function>() };
    let run = || {
        let count = usize::try_from(count).unwrap_or(0);
        // SAFETY: SQLite gives `count` values, and is evaluating SQL.
        unsafe {
            let mut arguments: Vec<_> = (0..count).map(|i| text_of(api, *values.add(i))).collect();
            let has_schema = count > usize::try_from(function.arguments).unwrap_or(0);
            let schema = if has_schema { arguments.pop().flatten() } else { None };
            let database = visit(api, (api.context_db_handle)(context), schema.as_deref().unwrap_or("main"), |conn| {
                Ok(Database { writing: conn.is_writing(), store: Arc::clone(conn.store()?) })
            })?;
            (function.run)(&database, &arguments)
        }
    };
    // SAFETY: the call in progress.
    unsafe { answer(api, context, run) }
}

/// Makes what `run` answers the result of a function; a panic, too, is an error and no more.
///
/// # Safety
/// `context` is the one of the call in progress.
unsafe fn answer(api: &Api, context: *mut sqlite3_context, run: impl FnOnce() -> Outcome<Value>) {
    let outcome = catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Failure::Told(SQLITE_ERROR, "nvlite: a defect was caught".into())));
    // SAFETY: as the caller promises.
    unsafe {
        match outcome {
            Ok(value) => value.give(api, context),
            Err(failure) => {
                let text = to_c(&failure.message());
                (api.result_error)(context, text.as_ptr(), -1);
                // The code after the text: it leaves a text alone, but a text sets a code of its own.
                (api.result_error_code)(context, failure.codes().0);
            }
        }
    }
}

/// `nvlite_checkpoint([schema])`: makes all that is committed durable and brings the base file up to date, as far as older
/// readers and a writer at work allow. Answers JSON: the newest commit that is durable, and the low-water mark, the newest
/// up to which the log is not needed any more.
fn checkpoint(database: &Database, _arguments: &[Option<String>]) -> Outcome<Value> {
    if database.writing {
        return Err(Failure::Told(SQLITE_ERROR, "nvlite_checkpoint: not inside a write transaction".into()));
    }
    let (durable, low_water) = database.store.checkpoint()?;
    Ok(Value::Text(format!(r#"{{"durable":{durable},"low_water":{low_water}}}"#)))
}

fn not_yet(_database: &Database, _arguments: &[Option<String>]) -> Outcome<Value> {
    Err(Failure::Told(SQLITE_ERROR, "nvlite: named snapshots are not supported by this version".into()))
}
