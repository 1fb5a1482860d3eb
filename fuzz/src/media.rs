//! Media in plain memory, no larger than [`LIMIT`]: what a damaged region asks for beyond that is refused, as a disk would.

use nvlite_engine::{BaseFile, BaseOpener, Disk, Error, MediumKind, Pmem, Result, Site};
use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU8, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Bytes that a file may have.
pub const LIMIT: u64 = 8 << 20;

/// A file.
#[derive(Clone)]
pub struct File {
    name: &'static str,
    bytes: Arc<Mutex<Vec<u8>>>,
}

impl File {
    /// A file that holds `bytes`.
    pub fn new(name: &'static str, bytes: &[u8]) -> File {
        File { name, bytes: Arc::new(Mutex::new(bytes.to_vec())) }
    }

    /// What it holds.
    pub fn bytes(&self) -> MutexGuard<'_, Vec<u8>> {
        self.bytes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn reach(&self, off: u64, len: u64) -> Result<MutexGuard<'_, Vec<u8>>> {
        let end = off.checked_add(len).filter(|&end| end <= LIMIT);
        let end = end.ok_or_else(|| Error::io(Disk::path(self), "write", io::ErrorKind::FileTooLarge.into()))?;
        let mut bytes = self.bytes();
        if end as usize > bytes.len() {
            bytes.resize(end as usize, 0);
        }
        Ok(bytes)
    }
}

impl Disk for File {
    fn path(&self) -> &Path {
        Path::new(self.name)
    }

    fn len(&self) -> Result<u64> {
        Ok(self.bytes().len() as u64)
    }

    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        let bytes = self.bytes();
        let from = bytes.len().min(usize::try_from(off).unwrap_or(usize::MAX));
        let there = &bytes[from..];
        let n = there.len().min(into.len());
        into[..n].copy_from_slice(&there[..n]);
        into[n..].fill(0);
        Ok(n)
    }

    fn write_at(&self, off: u64, new: &[u8]) -> Result<()> {
        let mut bytes = self.reach(off, new.len() as u64)?;
        bytes[off as usize..off as usize + new.len()].copy_from_slice(new);
        Ok(())
    }

    fn sync(&self, _site: Site) -> Result<()> {
        Ok(())
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.reach(off, len).map(drop)
    }

    fn set_len(&self, len: u64) -> Result<()> {
        self.reach(0, len)?.truncate(len as usize);
        Ok(())
    }
}

impl BaseFile for File {
    fn lock_exclusive(&self) -> Result<()> {
        Ok(())
    }

    fn unlock(&self) -> Result<()> {
        Ok(())
    }
}

impl BaseOpener for File {
    fn path(&self) -> &Path {
        Disk::path(self)
    }

    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(self.clone()))
    }

    fn recover_stock(&self) -> Result<()> {
        Ok(())
    }

    fn identity(&self) -> Result<Option<(u64, u64)>> {
        Ok(None)
    }
}

/// Byte-addressable memory that is always persistent.
pub struct Memory {
    kind: MediumKind,
    bytes: Box<[AtomicU8]>,
}

impl Memory {
    /// Memory that holds `bytes`.
    pub fn new(kind: MediumKind, bytes: &[u8]) -> Memory {
        Memory { kind, bytes: bytes.iter().map(|&byte| AtomicU8::new(byte)).collect() }
    }

    /// What it holds.
    pub fn bytes(&self) -> Vec<u8> {
        self.bytes.iter().map(|byte| byte.load(Ordering::Relaxed)).collect()
    }

    fn range(&self, off: u64, len: usize) -> &[AtomicU8] {
        &self.bytes[off as usize..off as usize + len]
    }
}

impl Pmem for Memory {
    fn path(&self) -> &Path {
        Path::new("region")
    }

    fn kind(&self) -> MediumKind {
        self.kind
    }

    fn base(&self) -> *const u8 {
        self.bytes.as_ptr().cast()
    }

    fn len(&self) -> u64 {
        self.bytes.len() as u64
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        assert!(off + len <= self.len(), "allocated beyond the end");
        Ok(())
    }

    fn load(&self, off: u64, into: &mut [u8]) {
        let from = self.range(off, into.len());
        from.iter().zip(into).for_each(|(from, to)| *to = from.load(Ordering::Relaxed));
    }

    fn store(&self, off: u64, bytes: &[u8]) {
        let to = self.range(off, bytes.len());
        to.iter().zip(bytes).for_each(|(to, &byte)| to.store(byte, Ordering::Relaxed));
    }

    fn zero(&self, off: u64, len: u64) {
        self.range(off, len as usize).iter().for_each(|byte| byte.store(0, Ordering::Relaxed));
    }

    fn store_u64(&self, off: u64, value: u64) {
        self.store(off, &value.to_ne_bytes());
    }

    fn stream(&self, _site: Site, off: u64, bytes: &[u8]) {
        self.store(off, bytes);
    }

    fn flush(&self, _site: Site, off: u64, len: u64) -> u64 {
        (off + len).div_ceil(64) - off / 64
    }

    fn fence(&self, _site: Site) {}
}
