//! The way in for the loadable extension.
#![allow(unsafe_code)]

use crate::api::Api;
use crate::instance::{self, ErrorText};
use crate::log;
use crate::sys::*;
use std::ffi::c_int;
use std::panic::{AssertUnwindSafe, catch_unwind};

/// What an extension's entry point does: registers the VFS in the library that loads it, and the SQL functions on this
/// connection and all later ones. Answers `SQLITE_OK_LOAD_PERMANENTLY`: a VFS cannot be unloaded.
///
/// # Safety
/// The arguments that SQLite gives to an extension's entry point.
pub unsafe fn load(db: *mut sqlite3, error: ErrorText, routines: *const sqlite3_api_routines) -> c_int {
    let run = || {
        // SAFETY: as the caller promises.
        let Some(api) = (unsafe { Api::loaded(routines) }) else {
            // Without a table there is no allocator for a message.
            return SQLITE_ERROR;
        };
        log::forward();
        match instance::register(api) {
            // SAFETY: as the caller promises. This connection is older than the registration.
            Ok(entry) => match unsafe { entry(db, error, routines) } {
                SQLITE_OK => SQLITE_OK_LOAD_PERMANENTLY,
                code => code,
            },
            Err(code) => {
                // SAFETY: SQLite takes a message there.
                if let Some(error) = unsafe { error.as_mut() } {
                    *error = api.alloc_text("nvlite: cannot register the VFS");
                }
                code
            }
        }
    };
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(SQLITE_ERROR)
}
