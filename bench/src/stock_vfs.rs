//! SQLite's own VFS, counted; and a second one with `fdatasync` where it would call `fsync`.
//!
//! Everything here is the stock VFS itself: a file opened through one of these *is* the stock VFS's, with a method table
//! in which `xWrite`, `xSync` and `xClose` alone are replaced. Counting costs two additions to a cache line that only
//! the file's own connection writes to.
//!
//! SQLite only calls `fdatasync` when it was compiled with `HAVE_FDATASYNC`; the bundled build was not, and calls
//! `fsync`, which also waits for time stamps. An honest opponent does not pay for those. The descriptor that is synced is
//! our own, because the stock VFS does not tell its own; `fdatasync` writes back the file, whoever wrote it.

use std::collections::HashMap;
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicPtr, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, OnceLock, PoisonError};

use rusqlite::ffi;

use crate::error::{Error, Result};

/// The stock VFS as it is, counted.
pub const STOCK: &CStr = c"bench-stock";

/// The same with `fdatasync`.
pub const FDATASYNC: &CStr = c"bench-fdatasync";

static REGISTERED: OnceLock<c_int> = OnceLock::new();

/// SQLite's own VFS; never unregistered.
static BASE: AtomicPtr<ffi::sqlite3_vfs> = AtomicPtr::new(std::ptr::null_mut());

/// One descriptor per file, closed when the last connection has closed the file: closing any descriptor of a file
/// drops the process's POSIX locks on it, so ours must not be closed while SQLite holds some.
static DESCRIPTORS: LazyLock<Mutex<Descriptors>> = LazyLock::new(Mutex::default);

/// A file's descriptor, and how many open files of SQLite use it.
type Descriptors = HashMap<PathBuf, (Arc<File>, usize)>;

/// What has been opened, closed or not: by path, a count for each time.
static COUNTED: LazyLock<Mutex<HashMap<PathBuf, Vec<Arc<Counted>>>>> = LazyLock::new(Mutex::default);

/// What happened to an open file. Changed by the connection that has it, read by anyone.
#[derive(Debug, Default)]
#[repr(align(64))]
struct Counted {
    syncs: AtomicU64,
    bytes: AtomicU64,
}

/// What happened to a file, by all that had it open.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Calls of `xSync`, each of which flushes the device.
    pub syncs: u64,
    /// Bytes given to `xWrite`.
    pub bytes: u64,
}

/// The totals of the file at `path`.
pub fn totals(path: &Path) -> Totals {
    let counted = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let files = counted.get(path).map_or(&[][..], Vec::as_slice);
    let sum = |count: fn(&Counted) -> &AtomicU64| files.iter().map(|file| count(file).load(Ordering::Relaxed)).sum();
    Totals { syncs: sum(|file| &file.syncs), bytes: sum(|file| &file.bytes) }
}

/// Adds to a count that nobody else adds to.
fn add(count: &AtomicU64, n: u64) {
    count.store(count.load(Ordering::Relaxed) + n, Ordering::Relaxed);
}

/// What stands behind the stock VFS's own file structure.
struct Tail {
    methods: ffi::sqlite3_io_methods,
    original: *const ffi::sqlite3_io_methods,
    counted: Arc<Counted>,
    path: PathBuf,
    /// Where `fdatasync` replaces the stock VFS's sync.
    file: Option<Arc<File>>,
    /// The first sync of a new file is the stock VFS's, which also syncs the directory.
    synced: AtomicBool,
}

/// Registers both VFSs; again is harmless.
pub fn register() -> Result<()> {
    let code = *REGISTERED.get_or_init(|| {
        // SAFETY: the stock VFS is a valid structure that lives as long as SQLite. A copy differs from it in the
        // name, in the opening function and in the room behind each file, and is leaked, so that it lives as long. Its
        // other functions are the stock VFS's, which look at their VFS argument for `pAppData` alone: copied with it.
        unsafe {
            let base = ffi::sqlite3_vfs_find(c"unix".as_ptr());
            if base.is_null() {
                return ffi::SQLITE_NOTFOUND;
            }
            BASE.store(base, Ordering::Release);
            let register = |name: &'static CStr, open| {
                let mut vfs = *base;
                vfs.zName = name.as_ptr();
                vfs.pNext = std::ptr::null_mut();
                vfs.szOsFile = tail_offset(&*base) + size_of::<*mut Tail>() as c_int;
                vfs.xOpen = Some(open);
                ffi::sqlite3_vfs_register(Box::into_raw(Box::new(vfs)), 0)
            };
            match register(STOCK, open::<false>) {
                ffi::SQLITE_OK => register(FDATASYNC, open::<true>),
                code => code,
            }
        }
    });
    match code {
        ffi::SQLITE_OK => Ok(()),
        code => Err(Error::Sqlite {
            what: "registering the counted VFS".to_owned(),
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
unsafe extern "C" fn open<const FDATASYNC: bool>(
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
        let descriptor = if FDATASYNC { acquire(&path) } else { None };
        if FDATASYNC && descriptor.is_none() {
            return (*original).xClose.map_or(ffi::SQLITE_CANTOPEN, |close| {
                close(file);
                ffi::SQLITE_CANTOPEN
            });
        }
        let mut methods = *original;
        methods.xWrite = Some(write);
        methods.xSync = Some(sync);
        methods.xClose = Some(close);
        let (counted, synced) = (count(&path), AtomicBool::new(false));
        let part = Box::into_raw(Box::new(Tail { methods, original, counted, path, file: descriptor, synced }));
        *tail(file) = part;
        (*file).pMethods = &raw const (*part).methods;
        code
    }
}

/// SAFETY: called by SQLite with a file of this VFS that has our methods.
unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    from: *const c_void,
    n: c_int,
    at: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: `open` gave this file its methods after storing the pointer; `close` has not run.
    let part = unsafe { &**tail(file) };
    add(&part.counted.bytes, u64::try_from(n).unwrap_or(0));
    // SAFETY: the stock VFS's method with its own file and what SQLite gave.
    unsafe { (*part.original).xWrite.map_or(ffi::SQLITE_IOERR_WRITE, |write| write(file, from, n, at)) }
}

/// SAFETY: called by SQLite with a file of this VFS that has our methods.
unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: `open` gave this file its methods after storing the pointer; `close` has not run.
    let part = unsafe { &**tail(file) };
    add(&part.counted.syncs, 1);
    match &part.file {
        Some(own) if part.synced.swap(true, Ordering::Relaxed) => match own.sync_data() {
            Ok(()) => ffi::SQLITE_OK,
            Err(_) => ffi::SQLITE_IOERR_FSYNC,
        },
        // SAFETY: the stock VFS's method with its own file.
        _ => unsafe { (*part.original).xSync.map_or(ffi::SQLITE_IOERR_FSYNC, |sync| sync(file, flags)) },
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
        if descriptor.is_some() {
            drop(descriptor);
            release(&path);
        }
        code
    }
}

fn count(path: &Path) -> Arc<Counted> {
    let mut counted = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let files = counted.entry(path.to_owned()).or_default();
    files.push(Arc::default());
    Arc::clone(&files[files.len() - 1])
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
    fn a_wal_database_lives_on_each_and_its_commits_are_counted() {
        register().expect("registered");
        for name in [STOCK, FDATASYNC] {
            let dir = tempfile::tempdir().expect("dir");
            let (path, wal) = (dir.path().join("t.db"), dir.path().join("t.db-wal"));
            let uri = format!("file:{}?vfs={}", path.display(), name.to_str().expect("ascii"));
            let first = Connection::open_with_flags(&uri, OpenFlags::default()).expect("open");
            let second = Connection::open_with_flags(&uri, OpenFlags::default()).expect("open again");
            first.execute_batch("PRAGMA journal_mode=WAL; PRAGMA synchronous=FULL; CREATE TABLE t(x)").expect("schema");
            first.execute("INSERT INTO t VALUES(1)", ()).expect("insert");
            let before = totals(&wal);
            first.execute("INSERT INTO t VALUES(2)", ()).expect("insert");
            let after = totals(&wal);
            let frame = 24 + 4096;
            assert_eq!((after.syncs - before.syncs, after.bytes - before.bytes), (1, frame), "{name:?}: one page");
            drop(first);
            second.execute("INSERT INTO t VALUES(3)", ()).expect("insert");
            let sum: i64 = second.query_row("SELECT sum(x) FROM t", (), |row| row.get(0)).expect("sum");
            assert_eq!(sum, 6);
            drop(second);
            assert!(totals(&path).bytes > 0, "{name:?}: the last close brings the database up to date");
            let open = DESCRIPTORS.lock().expect("not poisoned").keys().any(|path| path.starts_with(dir.path()));
            assert!(!open, "a descriptor stayed open");
        }
    }
}
