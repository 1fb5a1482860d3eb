//! A base file without SQLite: [`BaseOpener`] over plain files, for engine tests and for the guest of `tests/dax`.
//!
//! In the product the base is reached only through SQLite's default VFS, because closing any other descriptor of it
//! drops the process's POSIX locks (P15). Here nobody holds such locks: open file description locks are taken on the
//! bytes that stock SQLite locks, so that even a stock process is kept out.

use nvlite_engine::medium::{FileDisk, Site};
use nvlite_engine::{BaseFile, BaseOpener, Disk, Error, Result};
use std::io::{self, ErrorKind};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Stock SQLite's lock bytes: PENDING, RESERVED and the 510 bytes of SHARED.
const LOCKS: (i64, i64) = (1 << 30, 512);

/// Opens a plain file as base file; creates it when it is missing, as SQLite does.
#[derive(Debug)]
pub struct PlainBase {
    path: PathBuf,
}

impl PlainBase {
    /// For the file at `path`.
    #[must_use]
    pub fn new(path: &Path) -> PlainBase {
        PlainBase { path: path.to_owned() }
    }
}

impl BaseOpener for PlainBase {
    fn path(&self) -> &Path {
        &self.path
    }

    fn open(&self) -> Result<Box<dyn BaseFile>> {
        let missing = |e: &Error| matches!(e, Error::Io { source, .. } if source.kind() == ErrorKind::NotFound);
        let exists = |e: &Error| matches!(e, Error::Io { source, .. } if source.kind() == ErrorKind::AlreadyExists);
        let disk = match FileDisk::open(&self.path) {
            Err(e) if missing(&e) => match FileDisk::create(&self.path) {
                Err(e) if exists(&e) => FileDisk::open(&self.path), // another thread was faster
                made => made,
            },
            opened => opened,
        }?;
        Ok(Box::new(PlainFile(disk)))
    }

    fn recover_stock(&self) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Result<Option<(u64, u64)>> {
        match std::fs::metadata(&self.path) {
            Ok(meta) => Ok(Some((meta.dev(), meta.ino()))),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(Error::io(&self.path, "find", e)),
        }
    }
}

/// One handle; its locks are its own and end with it.
struct PlainFile(FileDisk);

impl PlainFile {
    fn lock(&self, kind: libc::c_int) -> io::Result<()> {
        // SAFETY: all zeros are a valid `flock`.
        let mut range: libc::flock = unsafe { std::mem::zeroed() };
        range.l_type = kind as libc::c_short;
        range.l_whence = libc::SEEK_SET as libc::c_short;
        (range.l_start, range.l_len) = LOCKS;
        // SAFETY: the descriptor is open as long as `self.0`; the kernel only reads `range`, which outlives the call.
        match unsafe { libc::fcntl(self.0.file().as_raw_fd(), libc::F_OFD_SETLK, &raw const range) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl BaseFile for PlainFile {
    fn lock_exclusive(&self) -> Result<()> {
        self.lock(libc::F_WRLCK).map_err(|e| match e.raw_os_error() {
            Some(libc::EAGAIN | libc::EACCES) => Error::Busy("another connection has the base file locked"),
            _ => Error::io(self.0.path(), "lock", e),
        })
    }

    fn unlock(&self) -> Result<()> {
        self.lock(libc::F_UNLCK).map_err(|e| Error::io(self.0.path(), "unlock", e))
    }
}

impl Disk for PlainFile {
    fn path(&self) -> &Path {
        self.0.path()
    }

    fn len(&self) -> Result<u64> {
        self.0.len()
    }

    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        self.0.read_at(off, into)
    }

    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        self.0.write_at(off, bytes)
    }

    fn sync(&self, site: Site) -> Result<()> {
        self.0.sync(site)
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.0.allocate(off, len)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_handle_at_a_time_holds_the_exclusive_lock() -> Result<()> {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let base = PlainBase::new(&dir.path().join("app.db"));
        assert_eq!(base.identity()?, None);
        let (one, two) = (base.open()?, base.open()?);
        assert!(base.identity()?.is_some());
        one.lock_exclusive()?;
        assert!(matches!(two.lock_exclusive(), Err(Error::Busy(_))));
        one.unlock()?;
        two.lock_exclusive()?;
        drop(two);
        one.lock_exclusive()
    }
}
