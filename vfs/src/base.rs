//! The base file, touched only through the default VFS (P15): stock connections of the same process keep their locks.
#![allow(unsafe_code)]

use crate::instance::Instance;
use crate::sys::*;
use nvlite_engine::format::mark::HEADER;
use nvlite_engine::medium::Site;
use nvlite_engine::{BaseFile, BaseOpener, Disk, Error, Result};
use std::ffi::{CStr, OsStr, c_char, c_int, c_void};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

/// A file name as SQLite gives it to xOpen: behind the name there are (no) URI parameters and the names of journal and
/// WAL, before it four zero bytes.
pub struct FileName {
    bytes: Box<[u8]>,
}

const BEFORE: usize = 4;

impl FileName {
    /// For `path`, which has no NUL in it.
    #[must_use]
    pub fn new(path: &Path) -> FileName {
        let name = path.as_os_str().as_bytes();
        let mut bytes = vec![0; BEFORE];
        for (text, end) in
            [(name, &b"\0\0"[..]), (&[name, b"-journal"].concat(), b"\0"), (&[name, b"-wal"].concat(), b"\0\0")]
        {
            bytes.extend_from_slice(text);
            bytes.extend_from_slice(end);
        }
        bytes.extend_from_slice(&[0; 4]);
        FileName { bytes: bytes.into() }
    }

    /// For xOpen.
    #[must_use]
    pub fn as_ptr(&self) -> sqlite3_filename {
        self.bytes[BEFORE..].as_ptr().cast()
    }
}

/// Opens a base file through the default VFS, as often as asked.
pub struct VfsBase {
    instance: &'static Instance,
    path: PathBuf,
    name: Arc<FileName>,
}

impl VfsBase {
    /// For the database at `path`.
    #[must_use]
    pub fn new(instance: &'static Instance, path: &Path) -> VfsBase {
        VfsBase { instance, path: path.to_owned(), name: Arc::new(FileName::new(path)) }
    }

    /// A handle of the default VFS, for writing if the file permits it.
    ///
    /// # Errors
    /// [`Error::CantOpen`] with the system's reason.
    pub fn open_file(&self) -> Result<VfsBaseFile> {
        let raw = RawFile::open(self.instance, &self.name, SQLITE_OPEN_READWRITE | SQLITE_OPEN_MAIN_DB)
            .map_err(|code| Error::cant_open(&self.path, format!("the default VFS cannot open it (code {code})")))?;
        Ok(VfsBaseFile { raw: Mutex::new(raw), path: self.path.clone() })
    }

    /// The first bytes of the file, as far as there are any; the rest is zero.
    ///
    /// # Errors
    /// As [`open_file`](Self::open_file), and of reading.
    pub fn header(&self) -> Result<([u8; HEADER], usize)> {
        let mut header = [0; HEADER];
        let found = self.open_file()?.read_at(0, &mut header)?;
        Ok((header, found))
    }
}

impl BaseOpener for VfsBase {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(self.open_file()?))
    }

    fn recover_stock(&self) -> Result<()> {
        let mut db = std::ptr::null_mut();
        let flags = SQLITE_OPEN_READWRITE | SQLITE_OPEN_NOMUTEX;
        let api = &self.instance.api;
        // SAFETY: name and VFS name are terminated; `db` is closed below whatever the answer.
        unsafe {
            let mut code = (api.open_v2)(self.name.as_ptr(), &mut db, flags, (*self.instance.base).zName);
            if code == SQLITE_OK {
                (api.busy_timeout)(db, 0);
                // The query makes SQLite roll a hot journal back; leaving WAL mode checkpoints and deletes the WAL.
                let sql = c"PRAGMA journal_mode=DELETE; SELECT count(*) FROM sqlite_schema";
                code = (api.exec)(db, sql.as_ptr(), None, std::ptr::null_mut(), std::ptr::null_mut());
            }
            let result = self.recovered(code, db);
            (api.close)(db);
            result
        }
    }

    fn identity(&self) -> Result<Option<(u64, u64)>> {
        match std::fs::metadata(&self.path) {
            Ok(data) => Ok(Some((data.dev(), data.ino()))),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(Error::io(&self.path, "stat", error)),
        }
    }
}

impl VfsBase {
    /// # Safety
    /// `db` is null or a connection.
    unsafe fn recovered(&self, code: c_int, db: *mut sqlite3) -> Result<()> {
        match code & 0xFF {
            SQLITE_OK => Ok(()),
            SQLITE_BUSY | libsqlite3_sys::SQLITE_LOCKED => Err(Error::Busy("a stock connection has the database open")),
            SQLITE_FULL => {
                Err(Error::Full { path: self.path.clone(), what: "recovering the journal", cause: "disk full".into() })
            }
            _ => {
                // SAFETY: sqlite3_errmsg takes null too, and answers a terminated string.
                let text = unsafe { CStr::from_ptr((self.instance.api.errmsg)(db)) }.to_string_lossy().into_owned();
                match code & 0xFF {
                    SQLITE_NOTADB => Err(Error::Foreign { path: self.path.clone(), reason: text }),
                    SQLITE_CORRUPT => Err(Error::corrupt(&self.path, "database file", text)),
                    _ => Err(Error::cant_open(&self.path, format!("SQLite cannot recover it: {text}"))),
                }
            }
        }
    }
}

/// A `sqlite3_file` of the default VFS in memory of its size.
struct RawFile {
    memory: Box<[u64]>,
    /// The default VFS opened it for reading only, because the file does not permit more.
    read_only: bool,
    _name: Arc<FileName>,
}

// SAFETY: it is used by one thread at a time (its owner holds it in a mutex), which is all that SQLite asks.
unsafe impl Send for RawFile {}

impl RawFile {
    fn open(instance: &Instance, name: &Arc<FileName>, flags: c_int) -> Result<RawFile, c_int> {
        let base = instance.base;
        // SAFETY: the default VFS outlives everything; its xOpen gets zeroed memory of the size it asked for and a name
        // that lives as long as the file. It sets pMethods to null or to the methods with which to close it.
        unsafe {
            let words = usize::try_from((*base).szOsFile).unwrap_or(0).div_ceil(8).max(1);
            let mut file = RawFile { memory: vec![0; words].into(), read_only: false, _name: Arc::clone(name) };
            let open = (*base).xOpen.ok_or(SQLITE_CANTOPEN)?;
            let mut out = 0;
            match open(base, name.as_ptr(), file.pointer(), flags, &mut out) {
                SQLITE_OK => {
                    file.read_only = out & SQLITE_OPEN_READONLY != 0;
                    Ok(file)
                }
                code => Err(code),
            }
        }
    }

    fn pointer(&mut self) -> *mut sqlite3_file {
        self.memory.as_mut_ptr().cast()
    }

    /// Calls a method; `Err` is its code.
    fn call(&mut self, method: impl FnOnce(&sqlite3_io_methods, *mut sqlite3_file) -> c_int) -> Result<(), c_int> {
        let file = self.pointer();
        // SAFETY: after a successful xOpen the file has its methods until xClose.
        match unsafe { (*file).pMethods.as_ref() }.map_or(SQLITE_MISUSE, |methods| method(methods, file)) {
            SQLITE_OK => Ok(()),
            code => Err(code),
        }
    }

    fn control(&mut self, op: c_int, argument: *mut c_void) -> Result<(), c_int> {
        // SAFETY: every caller passes what this operation is documented to take.
        self.call(|m, f| m.xFileControl.map_or(SQLITE_NOTFOUND, |x| unsafe { x(f, op, argument) }))
    }

    fn errno(&mut self) -> i32 {
        let mut errno: c_int = 0;
        match self.control(SQLITE_FCNTL_LAST_ERRNO, (&raw mut errno).cast()) {
            Ok(()) if errno != 0 => errno,
            _ => libc::EIO,
        }
    }
}

impl Drop for RawFile {
    fn drop(&mut self) {
        // SAFETY: closed once; an unopened file has no methods.
        let _ = self.call(|m, f| m.xClose.map_or(SQLITE_OK, |x| unsafe { x(f) }));
    }
}

/// One handle on the base file.
pub struct VfsBaseFile {
    raw: Mutex<RawFile>,
    path: PathBuf,
}

impl VfsBaseFile {
    fn with<T>(&self, op: &'static str, run: impl FnOnce(&mut RawFile) -> Result<T, c_int>) -> Result<T> {
        let mut raw = self.raw.lock().unwrap_or_else(PoisonError::into_inner);
        run(&mut raw).map_err(|code| match code & 0xFF {
            SQLITE_BUSY => Error::Busy("a stock connection has the database locked"),
            SQLITE_FULL => Error::Full { path: self.path.clone(), what: op, cause: "disk full".into() },
            SQLITE_READONLY => Error::ReadOnly { path: self.path.clone(), reason: format!("cannot {op}") },
            _ => Error::io(&self.path, op, io::Error::from_raw_os_error(raw.errno())),
        })
    }

    /// True if the file permits reading only.
    #[must_use]
    pub fn is_read_only(&self) -> bool {
        self.raw.lock().unwrap_or_else(PoisonError::into_inner).read_only
    }

    /// A temporary file's name, as the default VFS makes them; owned by SQLite's allocator.
    #[must_use]
    pub fn temp_name(&self) -> Option<*mut c_char> {
        let mut name: *mut c_char = std::ptr::null_mut();
        self.with("name a temporary file", |raw| raw.control(SQLITE_FCNTL_TEMPFILENAME, (&raw mut name).cast()))
            .ok()?;
        (!name.is_null()).then_some(name)
    }
}

fn length(raw: &mut RawFile) -> Result<u64, c_int> {
    let mut size: sqlite3_int64 = 0;
    // SAFETY: a pointer to the answer.
    raw.call(|m, f| m.xFileSize.map_or(SQLITE_IOERR, |x| unsafe { x(f, &mut size) }))?;
    Ok(size.max(0).unsigned_abs())
}

fn write(raw: &mut RawFile, off: u64, bytes: &[u8]) -> Result<(), c_int> {
    if raw.read_only {
        return Err(SQLITE_READONLY);
    }
    let (Ok(amount), Ok(off)) = (c_int::try_from(bytes.len()), i64::try_from(off)) else { return Err(SQLITE_FULL) };
    // SAFETY: `amount` bytes are readable at `bytes`.
    raw.call(|m, f| m.xWrite.map_or(SQLITE_IOERR, |x| unsafe { x(f, bytes.as_ptr().cast(), amount, off) }))
}

/// The largest piece for one xRead or xWrite: SQLite never asks for more than a page, and the unix VFS looks at the lower
/// 17 bits of a length only.
const PIECE: usize = 1 << 16;

impl Disk for VfsBaseFile {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        self.with("tell its size", length)
    }

    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        self.with("read", |raw| {
            let mut done = 0;
            for piece in into.chunks_mut(PIECE) {
                let at = i64::try_from(off + done as u64).map_err(|_| SQLITE_IOERR)?;
                let amount = c_int::try_from(piece.len()).map_err(|_| SQLITE_IOERR)?;
                let buffer = piece.as_mut_ptr().cast();
                let read = raw.call(|m, f| match m.xRead {
                    // SAFETY: `amount` bytes are writable at `buffer`.
                    Some(x) => unsafe { x(f, buffer, amount, at) },
                    None => SQLITE_IOERR,
                });
                match read {
                    Ok(()) => done += piece.len(),
                    // The default VFS has zeroed the rest but does not say how much there was.
                    Err(SQLITE_IOERR_SHORT_READ) => {
                        let there = length(raw)?.saturating_sub(off + done as u64);
                        done += usize::try_from(there).unwrap_or(usize::MAX).min(piece.len());
                        break;
                    }
                    Err(code) => return Err(code),
                }
            }
            into[done..].fill(0);
            Ok(done)
        })
    }

    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        self.with("write", |raw| {
            let mut at = off;
            for piece in bytes.chunks(PIECE) {
                write(raw, at, piece)?;
                at += piece.len() as u64;
            }
            Ok(())
        })
    }

    fn sync(&self, _site: Site) -> Result<()> {
        // SAFETY: flags only. The unix VFS calls fdatasync where there is one.
        self.with("sync", |raw| raw.call(|m, f| m.xSync.map_or(SQLITE_IOERR, |x| unsafe { x(f, SQLITE_SYNC_NORMAL) })))
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.with("truncate", |raw| {
            raw.call(|m, f| match m.xTruncate {
                // SAFETY: a size.
                Some(x) => unsafe { x(f, len.cast_signed()) },
                None => SQLITE_IOERR,
            })
        })
    }
}

impl BaseFile for VfsBaseFile {
    fn lock_exclusive(&self) -> Result<()> {
        let taken = self.with("lock", |raw| {
            for level in [SQLITE_LOCK_SHARED, SQLITE_LOCK_RESERVED, SQLITE_LOCK_EXCLUSIVE] {
                // SAFETY: SQLite's own order of lock levels.
                raw.call(|m, f| m.xLock.map_or(SQLITE_IOERR, |x| unsafe { x(f, level) }))?;
            }
            Ok(())
        });
        if taken.is_err() {
            // A refused EXCLUSIVE leaves PENDING behind.
            let _ = self.unlock();
        }
        taken
    }

    fn unlock(&self) -> Result<()> {
        self.with("unlock", |raw| {
            raw.call(|m, f| match m.xUnlock {
                // SAFETY: any level may be lowered to none.
                Some(x) => unsafe { x(f, SQLITE_LOCK_NONE) },
                None => SQLITE_IOERR,
            })
        })
    }
}

/// The path in a file name that SQLite gave.
///
/// # Safety
/// `name` is null or terminated.
#[must_use]
pub unsafe fn path_of<'a>(name: *const c_char) -> Option<&'a Path> {
    // SAFETY: as the caller promises.
    (!name.is_null()).then(|| Path::new(OsStr::from_bytes(unsafe { CStr::from_ptr(name) }.to_bytes())))
}
