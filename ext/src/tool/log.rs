//! Why something failed: SQLite answers a code and a general text, and nvlite tells SQLite's error log the reason.
#![allow(unsafe_code)]

use libsqlite3_sys::{SQLITE_CONFIG_LOG, sqlite3_config};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::sync::{Mutex, PoisonError};

/// The last line of ours.
static LAST: Mutex<String> = Mutex::new(String::new());

const OURS: &str = "nvlite: ";

unsafe extern "C" fn keep(_: *mut c_void, _code: c_int, text: *const c_char) {
    // SAFETY: SQLite's message is terminated.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    let mut last = LAST.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(reason) = text.strip_prefix(OURS) {
        *last = reason.to_owned();
    } else if let Some(more) = text.strip_prefix(nvlite_vfs::LOG_GOES_ON) {
        *last += more;
    }
}

/// Listens to the error log from now on; before anything else is asked of SQLite.
pub fn listen() {
    type Log = unsafe extern "C" fn(*mut c_void, c_int, *const c_char);
    // SAFETY: SQLite is not initialised yet; the function has the signature of the option and lives for ever.
    unsafe { sqlite3_config(SQLITE_CONFIG_LOG, keep as Log, std::ptr::null_mut::<c_void>()) };
}

/// An error with its reason, if we know more than SQLite.
pub fn explained(error: &dyn std::error::Error) -> String {
    match LAST.lock().unwrap_or_else(PoisonError::into_inner).as_str() {
        "" => error.to_string(),
        reason => format!("{error} ({reason})"),
    }
}
