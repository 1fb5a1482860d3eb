//! SQL functions and table-valued functions, on every connection of a library in which the VFS is registered.
#![allow(unsafe_code)]

mod functions;
mod table;
mod tables;

use crate::api::{Api, to_c};
use crate::error::{Failure, Outcome};
use crate::file::{Conn, MOST_MMAP, conn_of};
use crate::instance::{self, ErrorText, Instance};
use crate::sys::*;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What SQLite calls for every new connection. It answers SQLITE_OK or fails the open: never SQLITE_OK_LOAD_PERMANENTLY,
/// which here would make every later open fail.
///
/// # Safety
/// As SQLite calls it.
pub unsafe extern "C" fn on_new_connection(
    db: *mut sqlite3,
    error: ErrorText,
    routines: *const sqlite3_api_routines,
) -> c_int {
    let run = || {
        // SAFETY: the table of the library that calls; null where it was built without extensions.
        let api = unsafe { Api::loaded(routines) };
        match instance::find(api.as_ref()) {
            // SAFETY: the new connection.
            Some(instance) => unsafe { install(instance, db, error) },
            None => SQLITE_OK,
        }
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(SQLITE_ERROR)
}

/// Registers everything on one connection.
///
/// # Safety
/// `db` is a connection of the instance's library; `error` is null or takes a message.
unsafe fn install(instance: &'static Instance, db: *mut sqlite3, error: ErrorText) -> c_int {
    // SAFETY: as the caller promises.
    let installed = unsafe { functions::install(instance, db).and_then(|()| tables::install(instance, db)) };
    match installed {
        Ok(()) => {
            // SAFETY: as the caller promises.
            unsafe { settle(&instance.api, db) };
            SQLITE_OK
        }
        Err(code) => {
            // SAFETY: as the caller promises.
            if let Some(error) = unsafe { error.as_mut() } {
                *error = instance.api.alloc_text("nvlite: cannot register its SQL functions");
            }
            code
        }
    }
}

/// What a new connection is told if its main database is ours, and what costs a program nothing that it could miss.
///
/// It reads pages where they lie instead of copying each (`PRAGMA mmap_size`), if the program has no wish of its own: for a
/// stock file that has its dangers, for ours it has none; a program that does not want it says `PRAGMA mmap_size=0`.
///
/// It keeps its rollback journal through us, where a journal only refers to the pages of the snapshot, and keeps it open
/// (`journal_mode=PERSIST`). Otherwise SQLite holds a copy of every page that it changes. Either serves.
///
/// # Safety
/// `db` is a connection of this library that is not in use.
unsafe fn settle(api: &Api, db: *mut sqlite3) {
    let run = |sql: &str| {
        // SAFETY: as the caller promises. What SQLite refuses (one without mmap, a database that cannot be opened) stays as
        // it is; the program's own first statement says why.
        unsafe { (api.exec)(db, to_c(sql).as_ptr(), None, std::ptr::null_mut(), std::ptr::null_mut()) };
    };
    // SAFETY: as the caller promises; no method of the file runs while the answer is used.
    let ours = || unsafe { database(api, db, "main") }.ok();
    let Some(conn) = ours() else { return };
    let (places, journals) = (conn.has_no_mmap_limit(), conn.may_journal());
    if places {
        run(&format!("PRAGMA main.mmap_size={MOST_MMAP}"));
    }
    if journals {
        ours().into_iter().for_each(|conn| conn.let_journal_mode_pass(true));
        run("PRAGMA main.journal_mode=PERSIST");
        ours().into_iter().for_each(|conn| conn.let_journal_mode_pass(false));
        // SQLite fails an open after which an error is set; that of a statement of ours would do
        run("");
    }
}

/// A value for SQL.
pub(crate) enum Value {
    /// INTEGER.
    Int(i64),
    /// TEXT.
    Text(String),
}

impl Value {
    /// Makes it the result of a function or a column.
    ///
    /// # Safety
    /// `context` is the one of the call in progress.
    unsafe fn give(&self, api: &Api, context: *mut sqlite3_context) {
        // SAFETY: as the caller promises; SQLite copies the text.
        unsafe {
            match self {
                Value::Int(number) => (api.result_int64)(context, *number),
                Value::Text(text) => {
                    let length = c_int::try_from(text.len()).unwrap_or(c_int::MAX);
                    (api.result_text)(context, text.as_ptr().cast(), length, SQLITE_TRANSIENT());
                }
            }
        }
    }
}

/// The text of an argument; `None` for NULL.
///
/// # Safety
/// `value` is an argument of the call in progress.
unsafe fn text_of(api: &Api, value: *mut sqlite3_value) -> Option<String> {
    // SAFETY: as the caller promises; SQLite's answer is null or terminated.
    unsafe {
        let text = (api.value_text)(value);
        (!text.is_null()).then(|| std::ffi::CStr::from_ptr(text.cast()).to_string_lossy().into_owned())
    }
}

/// Our file of one database of a connection.
///
/// # Safety
/// `db` is a connection that is evaluating SQL, so that no method of the file is running.
unsafe fn database<'a>(api: &Api, db: *mut sqlite3, schema: &str) -> Outcome<&'a mut Conn> {
    let mut file: *mut sqlite3_file = std::ptr::null_mut();
    let name = to_c(schema);
    // SAFETY: the operation answers a file of this connection, or leaves null.
    unsafe {
        let code = (api.file_control)(db, name.as_ptr(), SQLITE_FCNTL_FILE_POINTER, (&raw mut file).cast());
        if code != SQLITE_OK {
            return Err(Failure::Told(SQLITE_ERROR, format!("nvlite: no database '{schema}'")));
        }
        conn_of(file)
            .ok_or_else(|| Failure::Told(SQLITE_ERROR, format!("nvlite: '{schema}' is not open through nvlite")))
    }
}
