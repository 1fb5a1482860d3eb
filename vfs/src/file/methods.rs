//! The methods of our files, as C calls them. Each catches panics: a panic fails this handle, not the program.
#![allow(unsafe_code)]

use super::Conn;
use crate::error::{Failure, Outcome};
use crate::lock::Level;
use crate::sys::*;
use std::ffi::{c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

/// Our file, in the memory that SQLite gives to xOpen.
#[repr(C)]
pub struct OurFile {
    base: sqlite3_file,
    conn: *mut Conn,
}

/// Version 3 for xFetch; no shared memory, so that SQLite never tries a WAL.
static METHODS: sqlite3_io_methods = sqlite3_io_methods {
    iVersion: 3,
    xClose: Some(x_close),
    xRead: Some(x_read),
    xWrite: Some(x_write),
    xTruncate: Some(x_truncate),
    xSync: Some(x_sync),
    xFileSize: Some(x_file_size),
    xLock: Some(x_lock),
    xUnlock: Some(x_unlock),
    xCheckReservedLock: Some(x_check_reserved_lock),
    xFileControl: Some(x_file_control),
    xSectorSize: Some(x_sector_size),
    xDeviceCharacteristics: Some(x_device_characteristics),
    xShmMap: None,
    xShmLock: None,
    xShmBarrier: None,
    xShmUnmap: None,
    xFetch: Some(x_fetch),
    xUnfetch: Some(x_unfetch),
};

/// Makes `file` ours.
///
/// # Safety
/// `file` is unopened memory of at least `size_of::<OurFile>()` bytes.
pub unsafe fn install(file: *mut sqlite3_file, conn: Conn) {
    let ours = OurFile { base: sqlite3_file { pMethods: &raw const METHODS }, conn: Box::into_raw(Box::new(conn)) };
    // SAFETY: as the caller promises; SQLite aligns it for pointers.
    unsafe { file.cast::<OurFile>().write(ours) };
}

/// True if `file` is an open file of ours.
///
/// # Safety
/// `file` is null or a `sqlite3_file`.
#[must_use]
pub unsafe fn is_ours(file: *mut sqlite3_file) -> bool {
    // SAFETY: as the caller promises.
    !file.is_null() && std::ptr::eq(unsafe { (*file).pMethods }, &METHODS)
}

/// The connection behind a file, if it is ours: from calls that SQLite makes about that file, or about its journal.
///
/// # Safety
/// `file` is null or a `sqlite3_file`, and no method of it runs as long as the answer is used.
#[must_use]
pub unsafe fn conn_of<'a>(file: *mut sqlite3_file) -> Option<&'a mut Conn> {
    // SAFETY: the methods are ours, so the memory is an `OurFile`.
    unsafe { is_ours(file).then(|| &mut *(*file.cast::<OurFile>()).conn) }
}

/// Runs a method. SQLite uses a file from one thread at a time, so the connection is ours alone meanwhile.
fn call(file: *mut sqlite3_file, run: impl FnOnce(&mut Conn) -> Outcome) -> c_int {
    // SAFETY: SQLite calls our methods with our files only.
    let conn = unsafe { &mut *(*file.cast::<OurFile>()).conn };
    if conn.poisoned {
        return SQLITE_IOERR;
    }
    match catch_unwind(AssertUnwindSafe(|| run(conn))) {
        Ok(Ok(())) => SQLITE_OK,
        Ok(Err(Failure::Code(code))) => code,
        Ok(Err(failure)) => conn.report(&failure),
        Err(_) => {
            conn.poisoned = true;
            conn.link.iter().for_each(|link| link.session.abandon());
            conn.report(&Failure::Told(
                SQLITE_IOERR,
                "a defect of nvlite was caught; this connection is of no use any more".into(),
            ))
        }
    }
}

/// SQLite's offsets and sizes are signed but never negative.
fn unsigned(value: sqlite3_int64) -> Outcome<u64> {
    u64::try_from(value).map_err(|_| Failure::Code(SQLITE_MISUSE))
}

unsafe extern "C" fn x_close(file: *mut sqlite3_file) -> c_int {
    // SAFETY: SQLite closes a file once; the box was made by `install`.
    let conn = unsafe {
        (*file).pMethods = std::ptr::null();
        Box::from_raw((*file.cast::<OurFile>()).conn)
    };
    match catch_unwind(AssertUnwindSafe(|| drop(conn))) {
        Ok(()) => SQLITE_OK,
        Err(_) => SQLITE_IOERR,
    }
}

unsafe extern "C" fn x_read(file: *mut sqlite3_file, into: *mut c_void, amount: c_int, offset: sqlite3_int64) -> c_int {
    call(file, |conn| {
        // SAFETY: SQLite gives `amount` bytes to write to.
        let into = unsafe { std::slice::from_raw_parts_mut(into.cast::<u8>(), usize::try_from(amount).unwrap_or(0)) };
        conn.read(unsigned(offset)?, into)
    })
}

unsafe extern "C" fn x_write(
    file: *mut sqlite3_file,
    from: *const c_void,
    amount: c_int,
    offset: sqlite3_int64,
) -> c_int {
    call(file, |conn| {
        // SAFETY: SQLite gives `amount` bytes to read.
        let bytes = unsafe { std::slice::from_raw_parts(from.cast::<u8>(), usize::try_from(amount).unwrap_or(0)) };
        conn.write(unsigned(offset)?, bytes)
    })
}

unsafe extern "C" fn x_truncate(file: *mut sqlite3_file, size: sqlite3_int64) -> c_int {
    call(file, |conn| conn.truncate(unsigned(size)?))
}

unsafe extern "C" fn x_sync(file: *mut sqlite3_file, _flags: c_int) -> c_int {
    // What is to be durable is decided at the commit; here it is only noted that SQLite wants it to be (P5).
    call(file, |conn| {
        conn.sync.synced();
        Ok(())
    })
}

unsafe extern "C" fn x_file_size(file: *mut sqlite3_file, size: *mut sqlite3_int64) -> c_int {
    call(file, |conn| {
        let bytes = conn.size()?;
        // SAFETY: SQLite waits for the answer there.
        unsafe { *size = bytes.cast_signed() };
        Ok(())
    })
}

fn level(number: c_int) -> Outcome<Level> {
    Level::from_c(number).ok_or(Failure::Code(SQLITE_MISUSE))
}

unsafe extern "C" fn x_lock(file: *mut sqlite3_file, to: c_int) -> c_int {
    call(file, |conn| conn.lock(level(to)?))
}

unsafe extern "C" fn x_unlock(file: *mut sqlite3_file, to: c_int) -> c_int {
    call(file, |conn| conn.unlock(level(to)?))
}

unsafe extern "C" fn x_check_reserved_lock(file: *mut sqlite3_file, out: *mut c_int) -> c_int {
    call(file, |conn| {
        let held = conn.is_writing() || conn.session()?.reserved_elsewhere();
        // SAFETY: SQLite waits for the answer there.
        unsafe { *out = c_int::from(held) };
        Ok(())
    })
}

unsafe extern "C" fn x_file_control(file: *mut sqlite3_file, op: c_int, argument: *mut c_void) -> c_int {
    // SAFETY: SQLite passes what it documents for `op`.
    call(file, |conn| unsafe { conn.control(op, argument) })
}

unsafe extern "C" fn x_sector_size(_file: *mut sqlite3_file) -> c_int {
    4096
}

/// Each bit with what it promises, and why it holds here.
unsafe extern "C" fn x_device_characteristics(file: *mut sqlite3_file) -> c_int {
    // "The data is appended first and then the size of the file is extended, never the other way around": a commit is
    // visible and durable whole or not at all, its size included.
    SQLITE_IOCAP_SAFE_APPEND
        // "Information is written to disk in the same order as calls to xWrite()": of one transaction all or nothing, and
        // transactions in the order of their commits.
        | SQLITE_IOCAP_SEQUENTIAL
        // "Adjacent bytes, even bytes within the same sector, are guaranteed to be unchanged" after a power loss: a commit
        // is redone from its journal, whatever became of the sectors it went to.
        | SQLITE_IOCAP_POWERSAFE_OVERWRITE
        // Reads of part of a page see the same bytes as reads of the page: xRead serves any range of the snapshot.
        | SQLITE_IOCAP_SUBPAGE_READ
        // "A file cannot be deleted when open": its journal is private memory that nobody else could delete, so SQLite need
        // not close it with every transaction.
        | SQLITE_IOCAP_UNDELETABLE_WHEN_OPEN
        // "The file cannot be changed": a connection with immutable=1 keeps one snapshot from open to close.
        // SAFETY: SQLite calls our methods with our files only.
        | unsafe { conn_of(file) }.map_or(0, |conn| if conn.asked.immutable { SQLITE_IOCAP_IMMUTABLE } else { 0 })
}

unsafe extern "C" fn x_fetch(
    file: *mut sqlite3_file,
    offset: sqlite3_int64,
    amount: c_int,
    out: *mut *mut c_void,
) -> c_int {
    // SAFETY: SQLite waits for the answer there; null is one.
    unsafe { *out = std::ptr::null_mut() };
    call(file, |conn| {
        let length = usize::try_from(amount).unwrap_or(0);
        if let Some(pointer) = conn.fetch(unsigned(offset)?, length) {
            // SAFETY: as above. SQLite only reads through it.
            unsafe { *out = pointer.cast_mut().cast() };
        }
        Ok(())
    })
}

unsafe extern "C" fn x_unfetch(file: *mut sqlite3_file, offset: sqlite3_int64, pointer: *mut c_void) -> c_int {
    call(file, |conn| {
        conn.unfetch(unsigned(offset)?, pointer.cast_const().cast());
        Ok(())
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::file::Asked;
    use crate::instance;
    use std::path::Path;

    #[test]
    fn a_panic_is_an_error_and_the_handle_is_of_no_use_any_more() {
        let api = crate::api::Api::linked();
        instance::register(api).expect("registered");
        let instance = instance::find(Some(&api)).expect("ours");
        let asked = Asked { config: Config::default(), immutable: false };
        let mut memory = [0usize; size_of::<OurFile>() / size_of::<usize>()];
        let file = memory.as_mut_ptr().cast::<sqlite3_file>();
        // SAFETY: memory of the right size, used as SQLite would: open, some calls, close.
        unsafe {
            install(file, Conn::new(instance, Path::new("/nowhere/x.db"), asked, false, None));
            assert!(is_ours(file));
            assert_eq!(x_sync(file, 2), SQLITE_OK);
            assert_eq!(call(file, |_| panic!("on purpose")), SQLITE_IOERR);
            let mut size = 0;
            assert_eq!(x_file_size(file, &mut size), SQLITE_IOERR);
            assert_eq!(x_lock(file, SQLITE_LOCK_SHARED), SQLITE_IOERR);
            assert_eq!(x_close(file), SQLITE_OK);
        }
    }
}
