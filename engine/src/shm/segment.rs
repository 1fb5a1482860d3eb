//! The mapping: one file, mapped whole and sparse, reached by offset. No pointers in it, no `&[u8]` to it.

use super::shape::Shape;
use crate::base::limits::MAX_MAPPING;
use crate::base::sync::{AtomicU32, AtomicU64};
use crate::base::{Error, Result, bytes, huge, room};
use rustix::mm::{MapFlags, ProtFlags};
use std::fs::{File, OpenOptions};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// What may be found in the mapping by [`Segment::at`].
///
/// # Safety
/// The type is `repr(C)` (or `transparent`), consists of nothing but atomics (so that others may change it under a `&T`),
/// and every bit pattern of it is valid, zeros included.
pub unsafe trait Shared {
    /// What lies where in it, for those who are to share a mapping.
    const SHAPE: &'static Shape;
}

// SAFETY: an atomic integer; every bit pattern is a number.
unsafe impl Shared for AtomicU32 {
    const SHAPE: &'static Shape = &Shape { name: "u32", size: size_of::<Self>(), fields: &[] };
}
// SAFETY: as above.
unsafe impl Shared for AtomicU64 {
    const SHAPE: &'static Shape = &Shape { name: "u64", size: size_of::<Self>(), fields: &[] };
}
// SAFETY: an array has its elements' layout and nothing else.
unsafe impl<T: Shared, const N: usize> Shared for [T; N] {
    const SHAPE: &'static Shape = &Shape { name: "array", size: size_of::<Self>(), fields: &[("", 0, T::SHAPE)] };
}

/// A mapping shared by all processes that have the database open. Zeros at first. The file's blocks are allocated by
/// [`commit`](Self::commit), and only what was committed may be touched. A page of zeros behind the end may be read, so that
/// a copy may read whole words.
pub struct Segment {
    base: *mut u8,
    len: u64,
    /// The file and where it was; `None` for a private one.
    file: Option<(File, PathBuf)>,
}

// SAFETY: the mapping belongs to no thread. References into it are to atomics only, bytes are copied by `bytes`, and the
// raw pointers that `ptr` hands out are used under the caller's own proof.
unsafe impl Send for Segment {}
// SAFETY: as above.
unsafe impl Sync for Segment {}

impl Segment {
    /// Makes the file (it must not exist) and maps `len` bytes of it, rounded up to whole pages, all zeros, none committed.
    ///
    /// # Errors
    /// `Full` if `len` is above the file-size limit of this process, told before the kernel would raise `SIGXFSZ`.
    pub fn create(path: &Path, len: u64) -> Result<Segment> {
        let len = round(path, len)?;
        room::within_file_limit(path, "the shared mapping", len)?;
        let file = OpenOptions::new().read(true).write(true).create_new(true).mode(0o600).open(path);
        let file = file.map_err(|e| Error::io(path, "create", e))?;
        let mapped =
            file.set_len(len).map_err(|e| Error::io(path, "extend", e)).and_then(|()| Self::map(file, path, len));
        if mapped.is_err() {
            // Ours and unusable; the first error is the one to tell.
            let _ = std::fs::remove_file(path);
        }
        mapped
    }

    /// Maps a file that [`create`](Self::create) made with the same `len`.
    ///
    /// # Errors
    /// `CantOpen` if it is not a file of that length.
    pub fn open(path: &Path, len: u64) -> Result<Segment> {
        let len = round(path, len)?;
        // O_NONBLOCK: a FIFO in its place must not hang us.
        let file = OpenOptions::new().read(true).write(true).custom_flags(libc::O_NONBLOCK).open(path);
        let file = file.map_err(|e| Error::io(path, "open", e))?;
        let meta = file.metadata().map_err(|e| Error::io(path, "examine", e))?;
        if !meta.is_file() || meta.len() != len {
            let has = meta.len();
            return Err(Error::cant_open(path, format!("not a shared mapping of {len} bytes: it has {has}")));
        }
        Self::map(file, path, len)
    }

    /// A mapping without a file, shared with nobody: for tests and the simulator.
    pub fn private(len: u64) -> Result<Segment> {
        let path = Path::new("(private mapping)");
        let len = round(path, len)?;
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        Ok(Segment { base: reserve(path, len, prot, MapFlags::SHARED)?, len, file: None })
    }

    fn map(file: File, path: &Path, len: u64) -> Result<Segment> {
        // Not writable: the kernel would set memory aside for all of it, or refuse, where it does not overcommit. From here on
        // the reservation is given back by Drop.
        let mut segment = Segment { base: reserve(path, len, ProtFlags::READ, MapFlags::PRIVATE)?, len, file: None };
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::FIXED | MapFlags::NORESERVE;
        // SAFETY: replaces exactly the first `len` bytes of the reservation made above, which nobody else knows of.
        unsafe { rustix::mm::mmap(segment.base.cast(), len as usize, prot, flags, &file, 0) }
            .map_err(|e| Error::io(path, "map", e.into()))?;
        segment.file = Some((file, path.to_owned()));
        Ok(segment)
    }

    /// Allocates storage under `[off, off + len)`, so that no store there can fault. Bytes already there stay.
    ///
    /// # Errors
    /// `Full` if there is no room.
    pub fn commit(&self, off: u64, len: u64) -> Result<()> {
        self.check(off, len, 1);
        let Some((file, path)) = &self.file else { return Ok(()) };
        if room::allocate(file, path, off, len)? {
            return Ok(());
        }
        Err(Error::cant_open(path, "the file system cannot allocate storage in advance (fallocate)"))
    }

    /// Bytes that the file system of the file has room for, as far as it tells.
    pub fn room(&self) -> u64 {
        let told = self.file.as_ref().and_then(|(file, _)| rustix::fs::fstatvfs(file).ok());
        told.map_or(u64::MAX, |s| s.f_bavail.saturating_mul(s.f_frsize))
    }

    /// Asks for huge pages under bytes that were just committed, for what is looked up at random. It takes milliseconds.
    pub fn prefer_huge(&self, off: u64, len: u64) {
        self.check(off, len, 1);
        if self.file.is_some() {
            // SAFETY: the range lies in the mapping, which `reserve` placed at a huge page.
            unsafe { huge::ask(self.base, off, len) };
        }
    }

    /// Sees to it that the first store to bytes that were just committed does not wait for the kernel.
    pub fn touch(&self, off: u64, len: u64) {
        self.check(off, len, 1);
        if self.file.is_some() {
            // SAFETY: the range lies in the mapping, behind whose last byte there is a page of zeros.
            unsafe { huge::touch(self.base, off, len) };
        }
    }

    /// The structure at `off`. An offset that is out of range or misaligned is a bug here, and panics.
    pub fn at<T: Shared>(&self, off: u64) -> &T {
        self.check(off, size_of::<T>() as u64, align_of::<T>());
        self.structure(off)
    }

    /// `n` structures from `off` on. An offset that is out of range or misaligned is a bug here, and panics.
    pub fn slice<T: Shared>(&self, off: u64, n: usize) -> &[T] {
        self.check(off, (size_of::<T>() as u64).saturating_mul(n as u64), align_of::<T>());
        self.structures(off, n)
    }

    fn structure<T: Shared>(&self, off: u64) -> &T {
        &self.structures(off, 1)[0]
    }

    #[cfg(not(loom))]
    fn structures<T: Shared>(&self, off: u64, n: usize) -> &[T] {
        // SAFETY: the callers checked range and alignment; the mapping lives as long as `self`; `T: Shared` says that any
        // bytes are a T and that it is all atomics, so that other processes' changes under the reference are no data race.
        unsafe { std::slice::from_raw_parts(self.base.add(off as usize).cast(), n) }
    }

    /// A loom atomic is not a word of memory: models build the same structs with `new()` instead.
    #[cfg(loom)]
    fn structures<T: Shared>(&self, _off: u64, _n: usize) -> &[T] {
        unreachable!("no mapping under loom")
    }

    /// Where `off` is in this process, good for `len` bytes as long as `self` lives.
    pub fn ptr(&self, off: u64, len: u64) -> *mut u8 {
        self.check(off, len, 1);
        self.base.wrapping_add(off as usize)
    }

    /// Copies bytes out. Bytes that are stored to meanwhile come out old or new, each on its own.
    pub fn copy_out(&self, off: u64, into: &mut [u8]) {
        let src = self.ptr(off, into.len() as u64);
        // SAFETY: `ptr` checked the source; `into` is ours, and not in the mapping, of which no `&mut [u8]` exists.
        unsafe { bytes::copy(src, into.as_mut_ptr(), into.len()) }
    }

    /// Copies bytes out as fast as can be.
    ///
    /// # Safety
    /// Nobody stores to them meanwhile, in any process: the caller's pin or lock sees to that. Where nothing does,
    /// [`copy_out`](Self::copy_out) is for it.
    pub unsafe fn read(&self, off: u64, into: &mut [u8]) {
        let src = self.ptr(off, into.len() as u64);
        // SAFETY: as in `copy_out`, and the source does not change (caller).
        unsafe { std::ptr::copy_nonoverlapping(src.cast_const(), into.as_mut_ptr(), into.len()) }
    }

    /// Stores bytes.
    pub fn copy_in(&self, off: u64, from: &[u8]) {
        let dst = self.ptr(off, from.len() as u64);
        // SAFETY: `ptr` checked the destination; `from` is not in the mapping, of which no `&[u8]` exists.
        unsafe { bytes::store(from.as_ptr(), dst, from.len()) }
    }

    /// Copies `len` bytes from `src` to `dst`, ranges that must not overlap.
    pub fn copy_within(&self, src: u64, dst: u64, len: u64) {
        assert!(src.abs_diff(dst) >= len, "copy_within of overlapping ranges {src} and {dst}, {len} bytes");
        let (from, to) = (self.ptr(src, len), self.ptr(dst, len));
        // SAFETY: `ptr` checked both ranges, and they do not overlap.
        unsafe { bytes::copy(from, to, len as usize) }
    }

    /// Stores zeros.
    pub fn zero(&self, off: u64, len: u64) {
        let dst = self.ptr(off, len);
        // SAFETY: `ptr` checked the range.
        unsafe { bytes::zero(dst, len as usize) }
    }

    /// Bytes that are mapped.
    pub fn len(&self) -> u64 {
        self.len
    }

    /// True if nothing is mapped, which never is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The file; `None` for a private mapping.
    pub fn path(&self) -> Option<&Path> {
        self.file.as_ref().map(|(_, path)| path.as_path())
    }

    fn is_legal(&self, off: u64, len: u64, align: usize) -> bool {
        off.is_multiple_of(align as u64) && off.checked_add(len).is_some_and(|end| end <= self.len)
    }

    fn check(&self, off: u64, len: u64, align: usize) {
        assert!(
            self.is_legal(off, len, align),
            "offset {off}, {len} bytes, align {align}, of a mapping of {}",
            self.len
        );
    }
}

impl Drop for Segment {
    fn drop(&mut self) {
        // SAFETY: the whole of what `reserve` mapped, once; references into it borrow `self`, so none is left.
        let unmapped = unsafe { rustix::mm::munmap(self.base.cast(), (self.len + page()) as usize) };
        debug_assert!(unmapped.is_ok());
    }
}

/// Memory for `len` bytes and a page of zeros behind them.
fn reserve(path: &Path, len: u64, prot: ProtFlags, sharing: MapFlags) -> Result<*mut u8> {
    huge::reserve((len + page()) as usize, prot, sharing | MapFlags::NORESERVE)
        .map_err(|e| Error::io(path, "reserve address space", e))
}

fn page() -> u64 {
    rustix::param::page_size() as u64
}

/// `len` in whole pages, if it is a length that can be mapped.
fn round(path: &Path, len: u64) -> Result<u64> {
    if len == 0 || len > MAX_MAPPING {
        return Err(Error::cant_open(path, format!("{len} is no length for a shared mapping")));
    }
    Ok(len.next_multiple_of(page()))
}
