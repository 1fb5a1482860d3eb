//! Positioned I/O on an ordinary file: the region on `file`, the cold file, archives.

use super::{Disk, Site, fs};
use crate::base::{Error, Result, room};
use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;
use std::fs::File;
use std::io::{self, ErrorKind};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

/// A [`Disk`] over a file descriptor of its own.
#[derive(Debug)]
pub struct FileDisk {
    path: PathBuf,
    file: File,
}

impl FileDisk {
    /// Creates the file, which must not exist, private to its owner.
    pub fn create(path: &Path) -> Result<FileDisk> {
        Ok(FileDisk { path: path.to_owned(), file: fs::create_new(path)? })
    }

    /// Opens an existing file for reading and writing.
    pub fn open(path: &Path) -> Result<FileDisk> {
        Ok(FileDisk { path: path.to_owned(), file: fs::open_existing(path)? })
    }

    /// Opens an existing file for reading: every write is an error.
    pub fn open_read_only(path: &Path) -> Result<FileDisk> {
        let file = File::open(path).map_err(|e| Error::io(path, "open", e))?;
        Ok(FileDisk { path: path.to_owned(), file })
    }

    /// The file, for its locks and its identity.
    #[must_use]
    pub fn file(&self) -> &File {
        &self.file
    }

    /// Gives the file the mode (for root, the owner too) of `model`.
    pub fn same_access(&self, model: &Path) -> Result<()> {
        fs::same_access(&self.file, &self.path, model)
    }

    fn error(&self, op: &'static str) -> impl Fn(io::Error) -> Error + '_ {
        move |source| Error::io(&self.path, op, source)
    }
}

impl Disk for FileDisk {
    fn path(&self) -> &Path {
        &self.path
    }

    fn len(&self) -> Result<u64> {
        Ok(self.file.metadata().map_err(self.error("read the size"))?.len())
    }

    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        let mut done = 0;
        while done < into.len() {
            match self.file.read_at(&mut into[done..], off + done as u64) {
                Ok(0) => break,
                Ok(n) => done += n,
                Err(e) if e.kind() == ErrorKind::Interrupted => {}
                Err(e) => return Err(self.error("read")(e)),
            }
        }
        into[done..].fill(0);
        Ok(done)
    }

    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        room::within_file_limit(&self.path, "write", off.saturating_add(bytes.len() as u64))?;
        self.file.write_all_at(bytes, off).map_err(self.error("write"))
    }

    fn sync(&self, _site: Site) -> Result<()> {
        self.file.sync_data().map_err(self.error("sync"))
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        if len == 0 || room::allocate(&self.file, &self.path, off, len)? {
            return Ok(());
        }
        // No fallocate here: the length is right, and a full disk is then told by the write.
        match self.len()? {
            now if now >= off + len => Ok(()),
            _ => self.set_len(off + len),
        }
    }

    fn set_len(&self, len: u64) -> Result<()> {
        if len > self.len()? {
            room::within_file_limit(&self.path, "extend", len)?;
        }
        self.file.set_len(len).map_err(self.error("set the length"))
    }

    fn give_back(&self, off: u64, len: u64) -> Result<()> {
        use rustix::fs::{FallocateFlags, fallocate};
        match fallocate(&self.file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, off, len) {
            Err(Errno::OPNOTSUPP | Errno::NOSYS) => Ok(()),
            done => done.map_err(|e| self.error("give back storage of")(e.into())),
        }
    }

    fn next_written(&self, range: Range<u64>) -> Result<Range<u64>> {
        if !fs::tells_holes(&self.file) {
            return Ok(range);
        }
        let from = match seek(&self.file, SeekFrom::Data(range.start)) {
            Ok(from) => from.min(range.end),
            Err(Errno::NXIO) => range.end, // nothing up to the end of the file
            Err(_) => return Ok(range),
        };
        let to = seek(&self.file, SeekFrom::Hole(from)).unwrap_or(range.end);
        Ok(from..to.min(range.end))
    }
}
