//! SQLite's own VFS with `fdatasync` where it would call `fsync`.
//!
//! SQLite only calls `fdatasync` when it was compiled with `HAVE_FDATASYNC`; the bundled build was not, and calls
//! `fsync`, which also waits for time stamps. An honest opponent does not pay for those. Everything here is
//! the stock VFS itself: a file opened through this one *is* the stock VFS's, with a method table in which
//! `xSync` and `xClose` alone are replaced. The descriptor that is synced is our own, because the stock VFS does not
//! tell its own; `fdatasync` writes back the file, whoever wrote it.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicPtr, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use rusqlite::ffi;

use crate::error::{Error, Result};

/// The name to open with.
pub const NAME: &CStr = c"bench-fdatasync";

static REGISTERED: OnceLock<c_int> = OnceLock::new();

/// SQLite's own VFS; never unregistered.
static BASE: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

/// One descriptor per file, closed when the last connection has closed the file: closing any descriptor of a file
/// drops the process's POSIX locks on it, so ours must not be closed while SQLite holds some.
static DESCRIPTORS: LazyLock<Mutex<Descriptors>> = LazyLock::new(Mutex::default);

/// A file's descriptor, and how many open files of SQLite use it.
type Descriptors = HashMap<PathBuf, (Arc<File>, usize)>;

/// What stands behind the stock VFS's own file structure.
struct Tail {
    methods: ffi::sqlite3_io_methods,
    original: *const ffi::sqlite3_io_methods,
    file: Arc<File>,
    path: PathBuf,
    /// The first sync of a new file is the stock VFS's, which also syncs the directory.
    synced: AtomicBool,
}

/// Registers the VFS; again is harmless.
pub fn register() -> Result<()> {
    let code = *REGISTERED.get_or_init(|| {
        // SAFETY: the stock VFS is a valid structure that lives as long as SQLite. The copy differs from it in the
        // name, in the opening function and in the room behind each file, and is leaked, so that it lives as long. Its
        // other functions are the stock VFS's, which look at their VFS argument for `pAppData` alone: copied with it.
        unsafe {
            let base = ffi::sqlite3_vfs_find(c"unix".as_ptr());
            if base.is_null() {
                return ffi::SQLITE_NOTFOUND;
            }
            BASE.store(base, Ordering::Release);
            let mut vfs = *base;
            vfs.zName = NAME.as_ptr();
            vfs.pNext = std::ptr::null_mut();
            vfs.szOsFile = tail_offset(&*base) + size_of::<*mut Tail>() as c_int;
            vfs.xOpen = Some(open);
            ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0)
        }
    });
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(Error::Sqlite {
            what: "registering the fdatasync VFS".to_owned(),
            source: rusqlite::Error::SqliteFailure(ffi::Error::new(code), None),
        }),
    }
}

/// Where the pointer to our part stands: behind the stock VFS's file, aligned.
fn tail_offset(base: &ffi::sqlite3_vfs) -> c_int {
    let align = align_of::<*mut Tail>() as c_int;
    (base.szOsFile + align - 1) / align * align
}

/// SAFETY: `file` must be a file of this VFS.
unsafe fn tail(file: *mut ffi::sqlite3_file) -> *mut *mut Tail {
    // SAFETY: `BASE` was stored before this VFS could open a file, and points to a VFS that stays; SQLite allocated `szOsFile` bytes,
    // which reach to the end of the pointer at this offset.
    unsafe {
        let base = &*BASE.load(Ordering::Acquire);
        file.cast::<u8>().add(tail_offset(base) as usize).cast()
    }
}

/// SAFETY: called by SQLite with the arguments that its documentation promises.
unsafe extern "C" fn open(
    _vfs: *mut ffi::sqlite3_vfs,
    name: *const c_char,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out_flags: *mut c_int,
) -> c_int {
    // SAFETY: `file` has room for the stock VFS's file and our pointer; the stock VFS's `xOpen` gets what SQLite gave
    // us, and its own structure as VFS. A non-null `name` is a path that ends with zero.
    unsafe {
        let base = BASE.load(Ordering::Acquire);
        let Some(base_open) = (*base).xOpen else { return ffi::SQLITE_CANTOPEN };
        let code = base_open(base, name, file, flags, out_flags);
        let ours = flags & (ffi::SQLITE_OPEN_MAIN_DB | ffi::SQLITE_OPEN_WAL) != 0;
        if code != ffi::SQLITE_OK || !ours || name.is_null() || (*file).pMethods.is_null() {
            return code;
        }
        let original = (*file).pMethods;
        let path = PathBuf::from(OsStr::from_bytes(CStr::from_ptr(name).to_bytes()));
        let Some(descriptor) = acquire(&path) else {
            return (*original).xClose.map_or(ffi::SQLITE_CANTOPEN, |close| {
                close(file);
                ffi::SQLITE_CANTOPEN
            });
        };
        let mut methods = *original;
        methods.xSync = Some(sync);
        methods.xClose = Some(close);
        let part =
            Box::into_raw(Box::new(Tail { methods, original, file: descriptor, path, synced: AtomicBool::new(false) }));
        *tail(file) = part;
        (*file).pMethods = &raw const (*part).methods;
        code
    }
}

/// SAFETY: called by SQLite with a file of this VFS that has our methods.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: `open` gave this file its methods after storing the pointer; `close` has not run.
    let part = unsafe { &**tail(file) };
    if !part.synced.swap(true, Ordering::Relaxed) {
        // SAFETY: the stock VFS's method with its own file.
        return unsafe { (*part.original).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(file, flags)) };
    }
    match part.file.sync_data() {
        Ok(()) => ffi::SQLITE_OK,
        Err(_) => ffi::SQLITE_IOERR_FSYNC,
    }
}

/// SAFETY: called by SQLite once, with a file of this VFS that has our methods.
unsafe extern "C" fn close(file: *mut ffi::sqlite3_file) -> c_int {
    // SAFETY: `open` stored a pointer from `Box::into_raw`, taken back here once; the stock VFS closes its own file
    // under its own method table.
    unsafe {
        let part = Box::from_raw(*tail(file));
        (*file).pMethods = part.original;
        let code = (*part.original).xClose.map_or(ffi::SQLITE_OK, |close| close(file));
        let Tail { path, file: descriptor, .. } = *part;
        drop(descriptor);
        release(&path);
        code
    }
}

fn acquire(path: &PathBuf) -> Option<Arc<File>> {
    let mut descriptors = DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((file, users)) = descriptors.get_mut(path) {
        *users += 1;
        return Some(Arc::clone(file));
    }
    let file = Arc::new(File::options().read(true).write(true).open(path).ok()?);
    descriptors.insert(path.clone(), (Arc::clone(&file), 1));
    Some(file)
}

fn release(path: &PathBuf) {
    let mut descriptors = DESCRIPTORS.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some((_, users)) = descriptors.get_mut(path) {
        *users -= 1;
        if *users == 0 {
            descriptors.remove(path);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rusqlite::{Connection, OpenFlags};

    #[test]
    fn a_wal_database_lives_on_it() {
        register().expect("registered");
        let dir = tempfile::tempdir().expect("dir");
        let uri = format!("file:{}?vfs={}", dir.path().join("t.db").display(), NAME.to_str().expect("ascii"));
        let first = Connection::open_with_flags(&uri, OpenFlags::default()).expect("open");
        let second = Connection::open_with_flags(&uri, OpenFlags::default()).expect("open again");
        first.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)").expect("schema");
        first.execute("INSERT INTO t VALUES(1)", ()).expect("insert");
        drop(first);
        second.execute("INSERT INTO t VALUES(2)", ()).expect("insert");
        let sum: i64 = second.query_row("SELECT sum(x) FROM t", (), |row| row.get(0)).expect("sum");
        assert_eq!(sum, 3);
        drop(second);
        let open = DESCRIPTORS.lock().expect("not poisoned").keys().any(|path| path.starts_with(dir.path()));
        assert!(!open, "a descriptor stayed open");
    }
}
