//! nvlite as a loadable extension of SQLite: `.load libnvlite`, then open `file:app.db?vfs=nvlite`.
#![deny(unsafe_code)]

use std::ffi::{c_char, c_int};

/// SQLite's types, as an entry point names them.
use libsqlite3_sys::{sqlite3, sqlite3_api_routines};

/// What SQLite calls when it loads the extension.
///
/// # Safety
/// Called by SQLite only.
#[unsafe(no_mangle)]
#[allow(unsafe_code)]
pub unsafe extern "C" fn sqlite3_nvlite_init(
    db: *mut sqlite3,
    error: *mut *mut c_char,
    routines: *const sqlite3_api_routines,
) -> c_int {
    // SAFETY: as SQLite calls it.
    unsafe { nvlite_vfs::load(db, error, routines) }
}
