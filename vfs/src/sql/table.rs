//! An eponymous virtual table whose rows are made when it is read, with one optional argument: the schema.

use super::{Value, text_of, visit};
use crate::error::{Failure, Outcome};
use crate::file::Conn;
use crate::instance::Instance;
use crate::sys::*;
use std::ffi::{CStr, c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// A table-valued function.
pub(super) struct Table {
    /// Its name.
    pub name: &'static CStr,
    /// Its declaration; the column after the visible ones is the hidden argument.
    pub schema: &'static CStr,
    /// Visible columns.
    pub columns: c_int,
    /// Its rows.
    pub rows: fn(&mut Conn) -> Outcome<Vec<Vec<Value>>>,
}

/// What SQLite keeps for a table on a connection.
struct Bound {
    instance: &'static Instance,
    table: &'static Table,
}

#[repr(C)]
struct Vtab {
    base: sqlite3_vtab,
    db: *mut sqlite3,
    instance: &'static Instance,
    table: &'static Table,
}

#[repr(C)]
struct Cursor {
    base: sqlite3_vtab_cursor,
    rows: Vec<Vec<Value>>,
    at: usize,
}

/// xCreate is null: eponymous only, the table cannot be created under another name.
static MODULE: sqlite3_module = sqlite3_module {
    iVersion: 0,
    xCreate: None,
    xConnect: Some(x_connect),
    xBestIndex: Some(x_best_index),
    xDisconnect: Some(x_disconnect),
    xDestroy: None,
    xOpen: Some(x_open),
    xClose: Some(x_close),
    xFilter: Some(x_filter),
    xNext: Some(x_next),
    xEof: Some(x_eof),
    xColumn: Some(x_column),
    xRowid: Some(x_rowid),
    xUpdate: None,
    xBegin: None,
    xSync: None,
    xCommit: None,
    xRollback: None,
    xFindFunction: None,
    xRename: None,
    xSavepoint: None,
    xRelease: None,
    xRollbackTo: None,
    xShadowName: None,
    xIntegrity: None,
};

/// # Safety
/// `db` is a connection of the instance's library.
pub(super) unsafe fn install(
    instance: &'static Instance,
    db: *mut sqlite3,
    table: &'static Table,
) -> Result<(), c_int> {
    let bound = Box::into_raw(Box::new(Bound { instance, table })).cast();
    // SAFETY: the module is static; user data lives until its destructor, which SQLite calls on failure too.
    match unsafe { (instance.api.create_module_v2)(db, table.name.as_ptr(), &raw const MODULE, bound, Some(unbind)) } {
        SQLITE_OK => Ok(()),
        code => Err(code),
    }
}

unsafe extern "C" fn unbind(bound: *mut c_void) {
    // SAFETY: made by `install`, destroyed once.
    drop(unsafe { Box::from_raw(bound.cast::<Bound>()) });
}

unsafe extern "C" fn x_connect(
    db: *mut sqlite3,
    aux: *mut c_void,
    _argc: c_int,
    _argv: *const *const c_char,
    out: *mut *mut sqlite3_vtab,
    _error: *mut *mut c_char,
) -> c_int {
    // SAFETY: `aux` is what `install` gave; `out` takes the new table.
    unsafe {
        let bound = &*aux.cast::<Bound>();
        let code = (bound.instance.api.declare_vtab)(db, bound.table.schema.as_ptr());
        if code == SQLITE_OK {
            let vtab = Vtab { base: sqlite3_vtab::default(), db, instance: bound.instance, table: bound.table };
            *out = Box::into_raw(Box::new(vtab)).cast();
        }
        code
    }
}

unsafe extern "C" fn x_disconnect(vtab: *mut sqlite3_vtab) -> c_int {
    // SAFETY: made by `x_connect`, disconnected once.
    drop(unsafe { Box::from_raw(vtab.cast::<Vtab>()) });
    SQLITE_OK
}

/// An equality with the hidden column is the argument; `idxNum` says whether there is one.
unsafe extern "C" fn x_best_index(vtab: *mut sqlite3_vtab, info: *mut sqlite3_index_info) -> c_int {
    // SAFETY: SQLite gives `nConstraint` constraints and as many places for the answer.
    unsafe {
        let (info, hidden) = (&mut *info, (*vtab.cast::<Vtab>()).table.columns);
        info.estimatedCost = 100.0;
        for i in 0..usize::try_from(info.nConstraint).unwrap_or(0) {
            let constraint = &*info.aConstraint.add(i);
            if constraint.iColumn != hidden || c_int::from(constraint.op) != libsqlite3_sys::SQLITE_INDEX_CONSTRAINT_EQ
            {
                continue;
            }
            if constraint.usable == 0 {
                return libsqlite3_sys::SQLITE_CONSTRAINT;
            }
            let usage = &mut *info.aConstraintUsage.add(i);
            (usage.argvIndex, usage.omit, info.idxNum) = (1, 1, 1);
            break;
        }
    }
    SQLITE_OK
}

unsafe extern "C" fn x_open(_vtab: *mut sqlite3_vtab, out: *mut *mut sqlite3_vtab_cursor) -> c_int {
    let cursor = Cursor { base: sqlite3_vtab_cursor::default(), rows: Vec::new(), at: 0 };
    // SAFETY: `out` takes the new cursor.
    unsafe { *out = Box::into_raw(Box::new(cursor)).cast() };
    SQLITE_OK
}

unsafe extern "C" fn x_close(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: made by `x_open`, closed once.
    drop(unsafe { Box::from_raw(cursor.cast::<Cursor>()) });
    SQLITE_OK
}

unsafe extern "C" fn x_filter(
    cursor: *mut sqlite3_vtab_cursor,
    has_schema: c_int,
    _text: *const c_char,
    _count: c_int,
    values: *mut *mut sqlite3_value,
) -> c_int {
    // SAFETY: a cursor of ours, whose first member SQLite has pointed at our table.
    let (cursor, vtab) = unsafe { (&mut *cursor.cast::<Cursor>(), &mut *(*cursor).pVtab.cast::<Vtab>()) };
    let api = &vtab.instance.api;
    let run = || {
        // SAFETY: with `idxNum` 1 there is one value; a query is being evaluated.
        unsafe {
            let schema = if has_schema != 0 { text_of(api, *values) } else { None };
            visit(api, vtab.db, schema.as_deref().unwrap_or("main"), vtab.table.rows)
        }
    };
    let outcome = catch_unwind(AssertUnwindSafe(run))
        .unwrap_or_else(|_| Err(Failure::Told(SQLITE_ERROR, "nvlite: a defect was caught".into())));
    match outcome {
        Ok(rows) => {
            (cursor.rows, cursor.at) = (rows, 0);
            SQLITE_OK
        }
        Err(failure) => {
            // SAFETY: SQLite frees the message, and sets it to null before the next call.
            unsafe { (api.free)(vtab.base.zErrMsg.cast()) };
            vtab.base.zErrMsg = api.alloc_text(&failure.message());
            failure.codes().0
        }
    }
}

unsafe extern "C" fn x_next(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: a cursor of ours.
    unsafe { (*cursor.cast::<Cursor>()).at += 1 };
    SQLITE_OK
}

unsafe extern "C" fn x_eof(cursor: *mut sqlite3_vtab_cursor) -> c_int {
    // SAFETY: a cursor of ours.
    let cursor = unsafe { &*cursor.cast::<Cursor>() };
    c_int::from(cursor.at >= cursor.rows.len())
}

unsafe extern "C" fn x_column(cursor: *mut sqlite3_vtab_cursor, context: *mut sqlite3_context, column: c_int) -> c_int {
    // SAFETY: a cursor of ours and the column's context.
    unsafe {
        let api = &(*(*cursor).pVtab.cast::<Vtab>()).instance.api;
        let cursor = &*cursor.cast::<Cursor>();
        let value = usize::try_from(column).ok().and_then(|column| cursor.rows.get(cursor.at)?.get(column));
        match value {
            Some(value) => value.give(api, context),
            None => (api.result_null)(context),
        }
    }
    SQLITE_OK
}

unsafe extern "C" fn x_rowid(cursor: *mut sqlite3_vtab_cursor, out: *mut sqlite3_int64) -> c_int {
    // SAFETY: a cursor of ours.
    unsafe { *out = (*cursor.cast::<Cursor>()).at as sqlite3_int64 };
    SQLITE_OK
}
