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
        let api = match unsafe { Api::loaded(routines) } {
            Ok(api) => api,
            Err(unfit) => {
                // SAFETY: SQLite takes a message there.
                if let Some(error) = unsafe { error.as_mut() } {
                    *error = unfit.alloc_text();
                }
                return SQLITE_ERROR;
            }
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

#[cfg(test)]
mod tests {
    use super::*;
    use libsqlite3_sys::{sqlite3_libversion_number, sqlite3_malloc};
    use std::ffi::{CStr, c_char, c_void};
    use std::ptr::{null, null_mut};

    /// The table by its members' places, those of 3.37 and some more.
    type Table = [*const c_void; 300];

    unsafe extern "C" fn version_3_36_1() -> c_int {
        3_036_001
    }

    /// What a host hears that loads us with this table.
    fn told(routines: *const Table) -> Option<String> {
        let mut error: *mut c_char = null_mut();
        // SAFETY: the table is null or is a host's as far as it is read before it is refused.
        assert_eq!(unsafe { load(null_mut(), &raw mut error, routines.cast()) }, SQLITE_ERROR);
        if error.is_null() {
            return None;
        }
        // SAFETY: terminated text from the linked library's allocator.
        unsafe {
            let text = CStr::from_ptr(error).to_string_lossy().into_owned();
            libsqlite3_sys::sqlite3_free(error.cast());
            Some(text)
        }
    }

    #[test]
    fn a_host_that_cannot_be_served_hears_why() {
        let mut routines: Table = [null(); 300];
        (routines[67], routines[68]) = (version_3_36_1 as *const c_void, sqlite3_malloc as *const c_void);
        assert_eq!(told(&raw const routines).as_deref(), Some("nvlite needs SQLite 3.37 or newer, this is 3.36.1"));
        routines[67] = sqlite3_libversion_number as *const c_void;
        let lacks = told(&raw const routines).unwrap_or_default();
        assert_eq!(lacks, "nvlite needs sqlite3_auto_extension, which this SQLite was built without");
        assert_eq!(told(null()), None, "there is no allocator");
        // SAFETY: as above; nobody asked for a message.
        assert_eq!(unsafe { load(null_mut(), null_mut(), routines.as_ptr().cast()) }, SQLITE_ERROR);
    }
}
