//! The few SQLite functions that the VFS calls: taken from the host's `sqlite3_api_routines` when the VFS is loaded as
//! an extension, or from the SQLite that is linked into a Rust program.
//!
//! The two ways meet in one table, [`Api`], and only [`Api::linked`] names a symbol of SQLite: a library from which it
//! cannot be reached contains no copy of SQLite (a test of `nvlite-ext` holds it to that).
#![allow(unsafe_code)]

use crate::sys::*;
use std::ffi::{CStr, OsStr, OsString, c_char, c_int, c_uchar, c_void};
use std::os::unix::ffi::OsStrExt;

/// Oldest SQLite that is supported: 3.37.0. All members used below exist since then.
pub const MIN_VERSION: c_int = 3_037_000;

type Callback = Option<unsafe extern "C" fn(*mut c_void, c_int, *mut *mut c_char, *mut *mut c_char) -> c_int>;
type Function = Option<unsafe extern "C" fn(*mut sqlite3_context, c_int, *mut *mut sqlite3_value)>;
type Final = Option<unsafe extern "C" fn(*mut sqlite3_context)>;
type Destroy = Option<unsafe extern "C" fn(*mut c_void)>;
/// What SQLite calls when it loads an extension, and an automatic one for every new connection.
pub type Entry = unsafe extern "C" fn(*mut sqlite3, *mut *mut c_char, *const sqlite3_api_routines) -> c_int;

/// Each line: the member, its place in `sqlite3_api_routines` (which only ever grows at its end), its symbol, its type.
macro_rules! api {
    ($($name:ident $index:literal $symbol:ident $kind:ty;)*) => {
        /// SQLite's functions.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(#[doc = concat!("`", stringify!($symbol), "`")] pub $name: $kind,)*
        }

        impl Api {
            /// From the table that SQLite hands to an extension. `None` if it is too old.
            ///
            /// # Safety
            /// `routines` points at the `sqlite3_api_routines` of a SQLite that stays loaded.
            #[must_use]
            pub unsafe fn loaded(routines: *const sqlite3_api_routines) -> Option<Api> {
                let members = routines.cast::<*const c_void>();
                if members.is_null() {
                    return None;
                }
                // SAFETY: member 67 exists since extensions do; its type is that of the C header.
                let version: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(*members.add(67)) };
                // SAFETY: no arguments, no state.
                if unsafe { version() } < MIN_VERSION {
                    return None;
                }
                $(
                    // SAFETY: this SQLite is 3.37 or newer, so the member exists.
                    if unsafe { *members.add($index) }.is_null() {
                        return None;
                    }
                )*
                Some(Api {
                    $(
                        // SAFETY: index and type are those of sqlite3ext.h, and the member was seen not to be null.
                        $name: unsafe { std::mem::transmute::<*const c_void, $kind>(*members.add($index)) },
                    )*
                })
            }

            /// From the SQLite that is linked into this program.
            #[must_use]
            pub fn linked() -> Api {
                Api { $($name: libsqlite3_sys::$symbol,)* }
            }

            #[cfg(test)]
            fn addresses(&self) -> Vec<usize> {
                vec![$(self.$name as usize,)*]
            }
        }
    };
}

api! {
    auto_extension 192 sqlite3_auto_extension unsafe extern "C" fn(Option<Entry>) -> c_int;
    busy_timeout 14 sqlite3_busy_timeout unsafe extern "C" fn(*mut sqlite3, c_int) -> c_int;
    close 16 sqlite3_close unsafe extern "C" fn(*mut sqlite3) -> c_int;
    context_db_handle 149 sqlite3_context_db_handle unsafe extern "C" fn(*mut sqlite3_context) -> *mut sqlite3;
    create_function_v2 162 sqlite3_create_function_v2 unsafe extern "C" fn(*mut sqlite3, *const c_char, c_int, c_int, *mut c_void, Function, Function, Final, Destroy) -> c_int;
    create_module_v2 119 sqlite3_create_module_v2 unsafe extern "C" fn(*mut sqlite3, *const c_char, *const sqlite3_module, *mut c_void, Destroy) -> c_int;
    database_file_object 251 sqlite3_database_file_object unsafe extern "C" fn(*const c_char) -> *mut sqlite3_file;
    declare_vtab 50 sqlite3_declare_vtab unsafe extern "C" fn(*mut sqlite3, *const c_char) -> c_int;
    errmsg 53 sqlite3_errmsg unsafe extern "C" fn(*mut sqlite3) -> *const c_char;
    exec 55 sqlite3_exec unsafe extern "C" fn(*mut sqlite3, *const c_char, Callback, *mut c_void, *mut *mut c_char) -> c_int;
    file_control 127 sqlite3_file_control unsafe extern "C" fn(*mut sqlite3, *const c_char, c_int, *mut c_void) -> c_int;
    free 58 sqlite3_free unsafe extern "C" fn(*mut c_void);
    get_autocommit 60 sqlite3_get_autocommit unsafe extern "C" fn(*mut sqlite3) -> c_int;
    log 167 sqlite3_log unsafe extern "C" fn(c_int, *const c_char, ...);
    malloc64 197 sqlite3_malloc64 unsafe extern "C" fn(sqlite3_uint64) -> *mut c_void;
    open_v2 135 sqlite3_open_v2 unsafe extern "C" fn(*const c_char, *mut *mut sqlite3, c_int, *const c_char) -> c_int;
    result_error 80 sqlite3_result_error unsafe extern "C" fn(*mut sqlite3_context, *const c_char, c_int);
    result_error_code 146 sqlite3_result_error_code unsafe extern "C" fn(*mut sqlite3_context, c_int);
    result_int64 83 sqlite3_result_int64 unsafe extern "C" fn(*mut sqlite3_context, sqlite3_int64);
    result_null 84 sqlite3_result_null unsafe extern "C" fn(*mut sqlite3_context);
    result_text 85 sqlite3_result_text unsafe extern "C" fn(*mut sqlite3_context, *const c_char, c_int, sqlite3_destructor_type);
    str_append 232 sqlite3_str_append unsafe extern "C" fn(*mut sqlite3_str, *const c_char, c_int);
    uri_boolean 187 sqlite3_uri_boolean unsafe extern "C" fn(sqlite3_filename, *const c_char, c_int) -> c_int;
    uri_parameter 189 sqlite3_uri_parameter unsafe extern "C" fn(sqlite3_filename, *const c_char) -> *const c_char;
    user_data 101 sqlite3_user_data unsafe extern "C" fn(*mut sqlite3_context) -> *mut c_void;
    value_text 109 sqlite3_value_text unsafe extern "C" fn(*mut sqlite3_value) -> *const c_uchar;
    vfs_find 141 sqlite3_vfs_find unsafe extern "C" fn(*const c_char) -> *mut sqlite3_vfs;
    vfs_register 142 sqlite3_vfs_register unsafe extern "C" fn(*mut sqlite3_vfs, c_int) -> c_int;
}

impl Api {
    /// True if both tables are of the same SQLite: a process may hold several (Python's, and one in a wheel).
    #[must_use]
    pub fn same_library(&self, other: &Api) -> bool {
        std::ptr::fn_addr_eq(self.vfs_find, other.vfs_find)
    }

    /// A copy of `text` that SQLite frees with `sqlite3_free`; null if there is no memory.
    #[must_use]
    pub fn alloc_text(&self, text: &str) -> *mut c_char {
        let bytes = text.as_bytes();
        // SAFETY: a size, no pointers.
        let copy = unsafe { (self.malloc64)(bytes.len() as u64 + 1) }.cast::<u8>();
        if !copy.is_null() {
            // SAFETY: `copy` has room for the text and its terminator.
            unsafe {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), copy, bytes.len());
                *copy.add(bytes.len()) = 0;
            }
        }
        copy.cast()
    }

    /// Writes to SQLite's error log.
    pub fn write_log(&self, code: c_int, text: &str) {
        let text = to_c(text);
        // SAFETY: the format takes one string, which is terminated.
        unsafe { (self.log)(code, c"%s".as_ptr(), text.as_ptr()) }
    }

    /// The value of a URI parameter of the file name that SQLite gave to xOpen.
    ///
    /// # Safety
    /// `name` is the very pointer that xOpen received.
    #[must_use]
    pub unsafe fn parameter(&self, name: sqlite3_filename, key: &CStr) -> Option<OsString> {
        // SAFETY: as the caller promises; the answer is null or a terminated string that lives as long as `name`.
        unsafe {
            let value = (self.uri_parameter)(name, key.as_ptr());
            (!value.is_null()).then(|| OsStr::from_bytes(CStr::from_ptr(value).to_bytes()).to_owned())
        }
    }

    /// Whether a URI parameter of SQLite's own is set, as SQLite reads it: two opinions of one parameter would be worse than
    /// either.
    ///
    /// # Safety
    /// `name` is the very pointer that xOpen received.
    #[must_use]
    pub unsafe fn is_set(&self, name: sqlite3_filename, key: &CStr) -> bool {
        // SAFETY: as the caller promises.
        unsafe { (self.uri_boolean)(name, key.as_ptr(), 0) != 0 }
    }
}

/// `text` for C; what follows a NUL in it is lost.
#[must_use]
pub fn to_c(text: &str) -> std::ffi::CString {
    let end = text.find('\0').unwrap_or(text.len());
    std::ffi::CString::new(&text[..end]).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// The routines of the linked library as a list of addresses, seen by an automatic extension.
    static SEEN: Mutex<Option<bool>> = Mutex::new(None);

    unsafe extern "C" fn look(_: *mut sqlite3, _: *mut *mut c_char, routines: *const sqlite3_api_routines) -> c_int {
        let linked = Api::linked();
        // SAFETY: the linked library's own table.
        let same = unsafe { Api::loaded(routines) }.is_some_and(|loaded| loaded.addresses() == linked.addresses());
        *SEEN.lock().expect("not poisoned") = Some(same);
        SQLITE_OK
    }

    #[test]
    fn every_member_is_at_its_place_in_the_table() {
        // SAFETY: an entry point of the right signature.
        unsafe { (Api::linked().auto_extension)(Some(look)) };
        let db = rusqlite::Connection::open_in_memory().expect("in memory");
        drop(db);
        assert_eq!(*SEEN.lock().expect("not poisoned"), Some(true));
    }
}
