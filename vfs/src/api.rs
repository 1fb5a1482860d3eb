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

type Malloc = Option<unsafe extern "C" fn(c_int) -> *mut c_void>;

/// Why a SQLite cannot be served by this extension.
#[derive(Debug)]
pub enum Unfit {
    /// It gives no table, and so no allocator for a message either: it was built without extensions.
    NoTable,
    /// It is older than [`MIN_VERSION`].
    TooOld {
        /// Its version.
        version: c_int,
        /// Its allocator.
        malloc: Malloc,
    },
    /// It was built without something that is needed.
    Lacks {
        /// What is missing.
        symbol: &'static str,
        /// Its allocator.
        malloc: Malloc,
    },
}

impl Unfit {
    /// The reason as text that this SQLite frees with `sqlite3_free`; null if it has no memory or gave no allocator.
    #[must_use]
    pub fn alloc_text(&self) -> *mut c_char {
        let (text, malloc) = match *self {
            Unfit::NoTable => return std::ptr::null_mut(),
            Unfit::TooOld { version, malloc } => {
                let (major, minor, patch) = (version / 1_000_000, version / 1000 % 1000, version % 1000);
                (format!("nvlite needs SQLite 3.37 or newer, this is {major}.{minor}.{patch}"), malloc)
            }
            Unfit::Lacks { symbol, malloc } => {
                (format!("nvlite needs {symbol}, which this SQLite was built without"), malloc)
            }
        };
        let size = c_int::try_from(text.len() + 1).unwrap_or(0);
        // SAFETY: a size, no pointers; null for 0.
        let room = malloc.map_or(std::ptr::null_mut(), |malloc| unsafe { malloc(size) });
        // SAFETY: null, or of the size of the text and its terminator.
        unsafe { put_text(room.cast(), &text) }
    }
}

/// Writes `text` and its terminator to `room`; answers it.
///
/// # Safety
/// `room` is null, or has one byte more than the text.
unsafe fn put_text(room: *mut u8, text: &str) -> *mut c_char {
    if !room.is_null() {
        // SAFETY: as the caller promises.
        unsafe {
            std::ptr::copy_nonoverlapping(text.as_ptr(), room, text.len());
            *room.add(text.len()) = 0;
        }
    }
    room.cast()
}

/// Each line: the member, its place in `sqlite3_api_routines` (which only ever grows at its end), its symbol, its type.
macro_rules! api {
    ($($name:ident $index:literal $symbol:ident $kind:ty;)*) => {
        /// SQLite's functions.
        #[derive(Clone, Copy)]
        pub struct Api {
            $(#[doc = concat!("`", stringify!($symbol), "`")] pub $name: $kind,)*
        }

        impl Api {
            /// From the table that SQLite hands to an extension.
            ///
            /// # Errors
            /// Why this SQLite cannot be served.
            ///
            /// # Safety
            /// `routines` is null, or points at the `sqlite3_api_routines` of a SQLite that stays loaded.
            pub unsafe fn loaded(routines: *const sqlite3_api_routines) -> Result<Api, Unfit> {
                let members = routines.cast::<*const c_void>();
                if members.is_null() {
                    return Err(Unfit::NoTable);
                }
                // SAFETY: members 67 and 68 exist since extensions do; their types are those of the C header.
                let version: unsafe extern "C" fn() -> c_int = unsafe { std::mem::transmute(*members.add(67)) };
                // SAFETY: as above.
                let malloc: Malloc = unsafe { std::mem::transmute(*members.add(68)) };
                // SAFETY: no arguments, no state.
                let version = unsafe { version() };
                if version < MIN_VERSION {
                    return Err(Unfit::TooOld { version, malloc });
                }
                $(
                    // SAFETY: this SQLite is 3.37 or newer, so the member exists.
                    if unsafe { *members.add($index) }.is_null() {
                        return Err(Unfit::Lacks { symbol: stringify!($symbol), malloc });
                    }
                )*
                Ok(Api {
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
        // SAFETY: a size, no pointers.
        let room = unsafe { (self.malloc64)(text.len() as u64 + 1) };
        // SAFETY: null, or of the size of the text and its terminator.
        unsafe { put_text(room.cast(), text) }
    }

    /// Writes to SQLite's error log: a text that it would cut, in several lines.
    pub fn write_log(&self, code: c_int, text: &str) {
        for piece in crate::log::pieces(text) {
            let piece = to_c(&piece);
            // SAFETY: the format takes one string, which is terminated.
            unsafe { (self.log)(code, c"%s".as_ptr(), piece.as_ptr()) }
        }
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

    /// Whether a URI parameter of SQLite's own is set, as SQLite reads it: two opinions of one parameter would be worse
    /// than either.
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
        let same = unsafe { Api::loaded(routines) }.is_ok_and(|loaded| loaded.addresses() == linked.addresses());
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
