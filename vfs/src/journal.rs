//! Rollback journals of our databases, in private memory (P8). SQLite opens one only if an application forces another
//! journal mode upon it; the engine's commits do not depend on it.
#![allow(unsafe_code)]

use crate::sys::*;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

#[repr(C)]
struct Journal {
    base: sqlite3_file,
    bytes: *mut Vec<u8>,
}

/// Bytes of memory that such a file needs.
pub const FILE_SIZE: usize = size_of::<Journal>();

static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 1,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_nothing),
    xFileSize: Some(x_file_size),
    xLock: Some(x_nothing),
    xUnlock: Some(x_nothing),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: None,
    xUnfetch: None,
};

/// xOpen of a journal.
///
/// # Safety
/// `file` is unopened memory of at least [`FILE_SIZE`] bytes; `out` is null or writable.
pub unsafe fn open(file: *mut sqlite3_file, flags: c_int, out: *mut c_int) -> c_int {
    let journal = Journal { base: sqlite3_file { pMethods: &raw const METHODS }, bytes: Box::into_raw(Box::default()) };
    // SAFETY: as the caller promises.
    unsafe {
        file.cast::<Journal>().write(journal);
        if let Some(out) = out.as_mut() {
            *out = flags;
        }
    }
    SQLITE_OK
}

/// Runs a method; out of memory and everything else that panics is an I/O error.
fn call(file: *mut sqlite3_file, run: impl FnOnce(&mut Vec<u8>) -> c_int) -> c_int {
    // SAFETY: SQLite calls these methods with these files only, from one thread at a time.
    let bytes = unsafe { &mut *(*file.cast::<Journal>()).bytes };
    catch_unwind(AssertUnwindSafe(|| run(bytes))).unwrap_or(SQLITE_IOERR)
}

/// Offset and length as a range.
fn range(offset: sqlite3_int64, amount: c_int) -> Option<(usize, usize)> {
    let start = usize::try_from(offset).ok()?;
    Some((start, start.checked_add(usize::try_from(amount).ok()?)?))
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: closed once; the box was made by `open`.
    unsafe {
        (*file).pMethods = std::ptr::null();
        drop(Box::from_raw((*file.cast::<Journal>()).bytes));
    }
    SQLITE_OK
}

unsafe extern "C" fn x_read(file: *mut sqlite3_file, into: *mut c_void, amount: c_int, offset: sqlite3_int64) -> c_int {
    call(file, |bytes| {
        let Some((start, end)) = range(offset, amount) else { return SQLITE_IOERR };
        // SAFETY: SQLite gives `amount` bytes to write to.
        let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), end - start) };
        let there = bytes.len().clamp(start, end) - start;
        into[..there].copy_from_slice(&bytes[start.min(bytes.len())..][..there]);
        into[there..].fill(0);
        if start + there < end { SQLITE_IOERR_SHORT_READ } else { SQLITE_OK }
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    call(file, |bytes| {
        let Some((start, end)) = range(offset, amount) else { return SQLITE_IOERR };
        if end > bytes.len() {
            if bytes.try_reserve(end - bytes.len()).is_err() {
                return SQLITE_NOMEM;
            }
            bytes.resize(end, 0);
        }
        // SAFETY: SQLite gives `amount` bytes to read.
        bytes[start..end].copy_from_slice(unsafe { std::slice::from_raw_parts(from.cast::<u8>(), end - start) });
        SQLITE_OK
    })
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    call(file, |bytes| {
        bytes.truncate(usize::try_from(size).unwrap_or(0));
        SQLITE_OK
    })
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    call(file, |bytes| {
        // SAFETY: SQLite waits for the answer there.
        unsafe { *size = (bytes.len() as u64).cast_signed() };
        SQLITE_OK
    })
}

unsafe extern "C" fn x_nothing(_file: *mut sqlite3_file, _: c_int) -> c_int {
    SQLITE_OK
}

unsafe extern "C" fn x_check_reserved_lock(_file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    // SAFETY: SQLite waits for the answer there.
    unsafe { *out = 0 };
    SQLITE_OK
}

unsafe extern "C" fn x_file_control(_file: *mut sqlite3_file, _op: c_int, _argument: *mut c_void) -> c_int {
    SQLITE_NOTFOUND
}

unsafe extern "C" fn x_sector_size(_file: *mut sqlite3_file) -> c_int {
    4096
}

unsafe extern "C" fn x_device_characteristics(_file: *mut sqlite3_file) -> c_int {
    // Memory of this process: no other order, no torn append.
    SQLITE_IOCAP_SAFE_APPEND | SQLITE_IOCAP_SEQUENTIAL | SQLITE_IOCAP_POWERSAFE_OVERWRITE
}
