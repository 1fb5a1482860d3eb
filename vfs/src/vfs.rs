//! The VFS methods: what is ours is opened as ours, everything else is the default VFS's.
#![allow(unsafe_code)]

use crate::api::Entry;
use crate::base::path_of;
use crate::error::{Failure, Outcome, forget, last, tell};
use crate::file::{self, Conn, OurFile};
use crate::instance::{ENTRY_NAME, Instance, NAME};
use crate::registry::{self, Key};
use crate::sys::*;
use crate::{journal, names, sql};
use nvlite_engine::format::mark::{self, HEADER};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::os::unix::fs::MetadataExt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::time::Duration;

/// Our VFS over `base`, but for `pAppData`.
#[must_use]
pub fn table(base: &sqlite3_vfs) -> sqlite3_vfs {
    let ours = size_of::<OurFile>().max(journal::FILE_SIZE);
    sqlite3_vfs {
        iVersion: base.iVersion.min(3),
        // Either ours or the default VFS's own object lies there, never both.
        szOsFile: base.szOsFile.max(c_int::try_from(ours).unwrap_or(c_int::MAX)),
        mxPathname: base.mxPathname,
        pNext: std::ptr::null_mut(),
        zName: NAME.as_ptr(),
        pAppData: std::ptr::null_mut(),
        xOpen: Some(x_open),
        xDelete: Some(x_delete),
        xAccess: Some(x_access),
        xFullPathname: Some(x_full_pathname),
        xDlOpen: Some(x_dl_open),
        xDlError: Some(x_dl_error),
        xDlSym: Some(x_dl_sym),
        xDlClose: Some(x_dl_close),
        xRandomness: Some(x_randomness),
        xSleep: Some(x_sleep),
        xCurrentTime: Some(x_current_time),
        xGetLastError: Some(x_get_last_error),
        xCurrentTimeInt64: Some(x_current_time_int64),
        xSetSystemCall: Some(x_set_system_call),
        xGetSystemCall: Some(x_get_system_call),
        xNextSystemCall: Some(x_next_system_call),
    }
}

/// No panic crosses into C: it becomes `otherwise`.
fn guard<T>(otherwise: T, run: impl FnOnce() -> T) -> T {
    catch_unwind(AssertUnwindSafe(run)).unwrap_or(otherwise)
}

/// At the start of a call that may go on to the default VFS: what an earlier call left is not about this one.
fn begin() {
    nvlite_engine::store::forget_refusal();
    forget();
}

/// Calls a member of the default VFS with itself as first argument; `$none` if it has no such member.
macro_rules! base {
    ($vfs:ident, $none:expr, $method:ident $(, $argument:expr)*) => {{
        // SAFETY: SQLite calls us with our own VFS, and with arguments that are good for the default VFS's method too.
        unsafe {
            let instance = Instance::of($vfs);
            match (*instance.base).$method {
                Some(method) => method(instance.base, $($argument),*),
                None => $none,
            }
        }
    }};
}

unsafe extern "C" fn x_open(
    vfs: *mut sqlite3_vfs,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: SQLite gives memory of szOsFile bytes; null methods mean "not open" to it.
    unsafe { (*file).pMethods = std::ptr::null() };
    guard(SQLITE_IOERR, || {
        begin();
        // SAFETY: called by SQLite with our VFS.
        let instance = unsafe { Instance::of(vfs) };
        // SAFETY: the name that SQLite gave.
        match unsafe { place(instance, name, flags) } {
            // SAFETY: SQLite's own arguments, passed on.
            Place::Ours => unsafe { open_main(vfs, instance, name, file, flags, out) },
            // SAFETY: the memory has szOsFile bytes; SQLite closes a journal before its database.
            Place::Private(owner) => unsafe { journal::open(file, owner, flags, out) },
            Place::Refused => SQLITE_CANTOPEN,
            Place::Default => {
                if flags & SQLITE_OPEN_MAIN_DB != 0 {
                    names::stock_seen();
                }
                base!(vfs, SQLITE_CANTOPEN, xOpen, name, file, flags, out)
            }
        }
    })
}

/// Where a file belongs.
enum Place {
    /// A main database.
    Ours,
    /// The rollback journal of one of ours: private memory, because nobody else ever needs it (P8).
    Private(*mut sqlite3_file),
    /// The WAL of one of ours: there is none.
    Refused,
    /// Temporary files; super-journals, which only a stock database attached to ours needs, and needs on its disk;
    /// everything of databases that are not ours.
    Default,
}

/// # Safety
/// `name` is the pointer that xOpen received.
unsafe fn place(instance: &Instance, name: sqlite3_filename, flags: c_int) -> Place {
    if name.is_null() {
        return Place::Default;
    }
    // SAFETY: SQLite gives a file name of its own form for these types, and its owner is an open file.
    let owner = || unsafe { Some((instance.api.database_file_object)(name)).filter(|owner| file::is_ours(*owner)) };
    // SAFETY: as the caller promises.
    if flags & SQLITE_OPEN_MAIN_DB != 0 && flags & SQLITE_OPEN_DELETEONCLOSE == 0 && unsafe { instance.wants(name) } {
        Place::Ours
    } else if let Some(owner) = (flags & SQLITE_OPEN_MAIN_JOURNAL != 0).then(owner).flatten() {
        Place::Private(owner)
    } else if flags & SQLITE_OPEN_WAL != 0 && owner().is_some() {
        Place::Refused
    } else {
        Place::Default
    }
}

/// Opens a main database: as ours, or as the default VFS's own object (P14).
///
/// # Safety
/// The arguments of xOpen.
unsafe fn open_main(
    vfs: *mut sqlite3_vfs,
    instance: &'static Instance,
    name: sqlite3_filename,
    file: *mut sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    // SAFETY: a main database has a name.
    let Some(path) = (unsafe { path_of(name) }) else { return SQLITE_CANTOPEN };
    // SAFETY: as the caller promises.
    let read = |key: &str| unsafe { instance.api.parameter(name, &crate::api::to_c(key)) };
    // SAFETY: as the caller promises.
    let set = |key: &CStr| unsafe { instance.api.is_set(name, key) };
    let asked = match file::Asked::read(read, set) {
        Ok(asked) => asked,
        Err(failure) => return tell(&instance.api, path, &failure),
    };
    let attached = !asked.immutable && key(path).is_some_and(registry::is_attached);
    let (mut header, mut granted) = (None, flags);
    if !attached {
        // The default VFS decides whether the file exists, may be created, and may be written.
        let code = base!(vfs, SQLITE_CANTOPEN, xOpen, name, file, flags, &raw mut granted);
        if code != SQLITE_OK {
            return code;
        }
        // SAFETY: the default VFS has just opened it.
        let found = unsafe { read_header(file) };
        let stock = match &found {
            Ok(found) => mark::identity(found).is_none() && (granted & SQLITE_OPEN_READONLY != 0 || asked.immutable),
            Err(_) => false,
        };
        if stock {
            names::stock_seen();
            if flags & SQLITE_OPEN_READWRITE != 0 && granted & SQLITE_OPEN_READONLY != 0 {
                // SQLite goes on in silence, and its error at the first write names neither the file nor this.
                let text = format!("nvlite: {}: opened read-only: this process may not write it", path.display());
                instance.api.write_log(SQLITE_WARNING, &text);
            }
            // SAFETY: `out` is null or SQLite's.
            if let Some(out) = unsafe { out.as_mut() } {
                *out = granted;
            }
            return SQLITE_OK;
        }
        // SAFETY: open, and closed once.
        unsafe {
            if let Some(close) = (*(*file).pMethods).xClose {
                close(file);
            }
            (*file).pMethods = std::ptr::null();
        }
        match found {
            Ok(found) => header = Some(found),
            Err(failure) => return tell(&instance.api, path, &failure),
        }
    }
    let read_only = granted & SQLITE_OPEN_READONLY != 0 || asked.immutable;
    let conn = Conn::new(instance, path, asked, read_only, header);
    // SAFETY: the memory is large enough for our file.
    unsafe { file::install(file, conn) };
    // SAFETY: `out` is null or SQLite's.
    if let Some(out) = unsafe { out.as_mut() } {
        // In-memory journal without any PRAGMA: SQLite's own memdb VFS says the same.
        *out = flags | SQLITE_OPEN_MEMORY;
        if read_only {
            *out = (*out & !(SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE)) | SQLITE_OPEN_READONLY;
        }
    }
    SQLITE_OK
}

/// The key of the database at `path`, if it is there.
fn key(path: &Path) -> Option<Key> {
    let data = std::fs::metadata(path).ok()?;
    Some(Key { device: data.dev(), inode: data.ino() })
}

/// # Safety
/// `file` is open.
unsafe fn read_header(file: *mut sqlite3_file) -> Outcome<[u8; HEADER]> {
    let mut header = [0; HEADER];
    // SAFETY: an open file has its methods; the buffer has the length that is said.
    let code = unsafe {
        (*(*file).pMethods)
            .xRead
            .map_or(SQLITE_IOERR, |read| read(file, header.as_mut_ptr().cast(), HEADER as c_int, 0))
    };
    match code {
        SQLITE_OK | SQLITE_IOERR_SHORT_READ => Ok(header),
        _ => Err(Failure::Told(code, "cannot read the database header".into())),
    }
}

/// The bytes of a name.
///
/// # Safety
/// `name` is null or terminated.
unsafe fn bytes<'a>(name: *const c_char) -> &'a [u8] {
    // SAFETY: as the caller promises.
    if name.is_null() { &[] } else { unsafe { CStr::from_ptr(name) }.to_bytes() }
}

unsafe extern "C" fn x_delete(vfs: *mut sqlite3_vfs, name: *const c_char, sync: c_int) -> c_int {
    guard(SQLITE_IOERR, || {
        begin();
        // SAFETY: a terminated name.
        if names::is_journal_of_open(unsafe { bytes(name) }) {
            return SQLITE_OK;
        }
        base!(vfs, SQLITE_OK, xDelete, name, sync)
    })
}

unsafe extern "C" fn x_access(vfs: *mut sqlite3_vfs, name: *const c_char, flags: c_int, out: *mut c_int) -> c_int {
    guard(SQLITE_IOERR, || {
        begin();
        // SAFETY: a terminated name.
        if flags == SQLITE_ACCESS_EXISTS && names::is_our_journal(unsafe { bytes(name) }) {
            // SAFETY: SQLite waits for the answer there.
            unsafe { *out = 0 };
            return SQLITE_OK;
        }
        base!(vfs, SQLITE_OK, xAccess, name, flags, out)
    })
}

unsafe extern "C" fn x_full_pathname(
    vfs: *mut sqlite3_vfs,
    name: *const c_char,
    size: c_int,
    out: *mut c_char,
) -> c_int {
    guard(SQLITE_IOERR, || {
        begin();
        base!(vfs, SQLITE_CANTOPEN, xFullPathname, name, size, out)
    })
}

unsafe extern "C" fn x_sleep(_vfs: *mut sqlite3_vfs, micros: c_int) -> c_int {
    guard(0, || {
        let asked = Duration::from_micros(u64::try_from(micros).unwrap_or(0));
        c_int::try_from(nvlite_engine::store::sleep(asked).as_micros()).unwrap_or(micros)
    })
}

unsafe extern "C" fn x_get_last_error(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    guard(0, || {
        let (errno, text) = last();
        if text.is_empty() {
            return base!(vfs, 0, xGetLastError, size, out);
        }
        let room = usize::try_from(size).unwrap_or(0);
        if room > 0 && !out.is_null() {
            let length = text.len().min(room - 1);
            // SAFETY: `size` bytes are writable at `out`.
            unsafe {
                std::ptr::copy_nonoverlapping(text.as_ptr(), out.cast(), length);
                *out.add(length) = 0;
            }
        }
        errno
    })
}

unsafe extern "C" fn x_dl_open(vfs: *mut sqlite3_vfs, name: *const c_char) -> *mut c_void {
    base!(vfs, std::ptr::null_mut(), xDlOpen, name)
}

unsafe extern "C" fn x_dl_error(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) {
    base!(vfs, (), xDlError, size, out);
}

type Symbol = Option<unsafe extern "C" fn(*mut sqlite3_vfs, *mut c_void, *const c_char)>;

unsafe extern "C" fn x_dl_sym(vfs: *mut sqlite3_vfs, handle: *mut c_void, name: *const c_char) -> Symbol {
    base!(vfs, None, xDlSym, handle, name)
}

unsafe extern "C" fn x_dl_close(vfs: *mut sqlite3_vfs, handle: *mut c_void) {
    base!(vfs, (), xDlClose, handle);
}

unsafe extern "C" fn x_randomness(vfs: *mut sqlite3_vfs, size: c_int, out: *mut c_char) -> c_int {
    base!(vfs, 0, xRandomness, size, out)
}

unsafe extern "C" fn x_current_time(vfs: *mut sqlite3_vfs, out: *mut f64) -> c_int {
    base!(vfs, SQLITE_ERROR, xCurrentTime, out)
}

unsafe extern "C" fn x_current_time_int64(vfs: *mut sqlite3_vfs, out: *mut sqlite3_int64) -> c_int {
    base!(vfs, SQLITE_ERROR, xCurrentTimeInt64, out)
}

unsafe extern "C" fn x_set_system_call(vfs: *mut sqlite3_vfs, name: *const c_char, call: sqlite3_syscall_ptr) -> c_int {
    base!(vfs, SQLITE_NOTFOUND, xSetSystemCall, name, call)
}

unsafe extern "C" fn x_get_system_call(vfs: *mut sqlite3_vfs, name: *const c_char) -> sqlite3_syscall_ptr {
    // SAFETY: a terminated name.
    if unsafe { bytes(name) } == ENTRY_NAME.to_bytes() {
        let entry: Entry = sql::on_new_connection;
        // SAFETY: who asks under this name knows the function's type.
        return Some(unsafe { std::mem::transmute::<Entry, unsafe extern "C" fn()>(entry) });
    }
    base!(vfs, None, xGetSystemCall, name)
}

unsafe extern "C" fn x_next_system_call(vfs: *mut sqlite3_vfs, name: *const c_char) -> *const c_char {
    base!(vfs, std::ptr::null(), xNextSystemCall, name)
}
