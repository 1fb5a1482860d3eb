//! A region as memory: the file mapped whole, on persistent memory (`dax`) or on tmpfs (`ram`). Both execute the same
//! instructions, so that what is measured on `ram` says something about `dax`.

use super::persist::{Flush, Persist, domain_has_caches};
use super::{MediumKind, Pmem, Site, fs, granule};
use crate::base::limits::DEVICE_BLOCK;
use crate::base::{Error, Result, huge, room};
use rustix::fs::{Mode, OFlags};
use rustix::mm::{MapFlags, ProtFlags, mmap, munmap};
use std::ffi::c_void;
use std::fs::File;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::ptr::{NonNull, null_mut};
use std::sync::atomic::{AtomicU64, Ordering};

/// Readable bytes behind the end, so that whole words may be loaded at its last bytes: one page of zeros.
const SPARE: usize = DEVICE_BLOCK as usize;

/// A [`Pmem`] over a mapping of a file.
#[derive(Debug)]
pub struct Mapped {
    path: PathBuf,
    kind: MediumKind,
    file: File,
    base: NonNull<u8>,
    len: usize,
    persist: Persist,
}

// SAFETY: `base` points to a mapping that belongs to the value until it is dropped; all stores and loads through it
// are atomic granules (see `granule`) or ordered by the caller's protocol, as the trait says.
unsafe impl Send for Mapped {}
// SAFETY: as above; no method needs exclusive access.
unsafe impl Sync for Mapped {}

impl Mapped {
    /// Creates the file (it must not exist), private to its owner, `len` bytes long and without storage, and maps it.
    pub fn create(path: &Path, len: u64, kind: MediumKind) -> Result<Mapped> {
        room::within_file_limit(path, "create", len)?;
        let file = fs::create_new(path)?;
        let map = || {
            file.set_len(len).map_err(|e| Error::io(path, "set the length", e))?;
            map_file(&file, path, kind)
        };
        match map() {
            Ok((base, len, persist)) => Ok(Mapped { path: path.to_owned(), kind, file, base, len, persist }),
            Err(error) => {
                let _ = std::fs::remove_file(path); // the first error is the one to tell
                Err(error)
            }
        }
    }

    /// Maps the whole of an existing file.
    pub fn open(path: &Path, kind: MediumKind) -> Result<Mapped> {
        let file = fs::open_existing(path)?;
        let (base, len, persist) = map_file(&file, path, kind)?;
        Ok(Mapped { path: path.to_owned(), kind, file, base, len, persist })
    }

    /// How lines are flushed, for the status.
    #[must_use]
    pub fn primitive(&self) -> Flush {
        self.persist.primitive()
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

    /// The address of `[off, off + len)`.
    fn at(&self, off: u64, len: u64) -> *mut u8 {
        let size = self.len as u64;
        assert!(off <= size && len <= size - off, "bytes {off}+{len} of a mapping of {size}");
        // SAFETY: within the mapping, which is smaller than `isize::MAX`.
        unsafe { self.base.as_ptr().add(off as usize) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the range that `map_file` reserved, still ours; nobody holds a pointer beyond the life of `self`
        // (contract of `Pmem::base`).
        let _ = unsafe { munmap(self.base.as_ptr().cast(), self.len + SPARE) };
    }
}

/// Maps `file` whole, with [`SPARE`] bytes behind it; answers address, length and primitive.
fn map_file(file: &File, path: &Path, kind: MediumKind) -> Result<(NonNull<u8>, usize, Persist)> {
    let meta = file.metadata().map_err(|e| Error::io(path, "read the size", e))?;
    let len = usize::try_from(meta.len()).ok().filter(|&len| len > 0 && len < isize::MAX as usize - SPARE);
    let len = len.filter(|len| len.is_multiple_of(DEVICE_BLOCK as usize)).ok_or_else(|| {
        let detail = format!("{} bytes are not a whole number of {DEVICE_BLOCK}-byte blocks", meta.len());
        Error::corrupt(path, "region file", detail)
    })?;
    let persist = Persist::new(match kind {
        MediumKind::Ram => Flush::detect().unwrap_or(Flush::Unneeded),
        MediumKind::Dax if domain_has_caches(meta.dev()) => Flush::Unneeded,
        MediumKind::Dax => Flush::detect().ok_or_else(|| {
            Error::cant_open(path, "medium=dax: no flush instruction is known for this machine; use medium=file")
        })?,
        MediumKind::File => return Err(Error::cant_open(path, "medium=file is not a mapping")),
    });
    let reserved = huge::reserve(len + SPARE, ProtFlags::READ, MapFlags::PRIVATE)
        .map_err(|e| Error::io(path, "reserve addresses", e))?
        .cast::<c_void>();
    // SAFETY: replaces the first `len` bytes of the reservation just made, which nobody else knows.
    if let Err(error) = unsafe { map_at(reserved, len, file, kind, MapFlags::FIXED) } {
        // SAFETY: the reservation just made.
        let _ = unsafe { munmap(reserved, len + SPARE) };
        return Err(match error {
            rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::INVAL if kind == MediumKind::Dax => Error::cant_open(
                path,
                "medium=dax: the file system refuses MAP_SYNC (not persistent memory, or not mounted with -o dax)",
            ),
            error => Error::io(path, "map", error.into()),
        });
    }
    let base = NonNull::new(reserved.cast()).ok_or_else(|| Error::cant_open(path, "mapped at address 0"))?;
    Ok((base, len, persist))
}

/// # Safety
/// With `MAP_FIXED` in `extra`, `[at, at + len)` belongs to the caller.
unsafe fn map_at(
    at: *mut c_void,
    len: usize,
    file: &File,
    kind: MediumKind,
    extra: MapFlags,
) -> rustix::io::Result<*mut c_void> {
    let sharing = match kind {
        // MAP_SYNC: a page becomes writable only after the metadata that finds it again is durable.
        MediumKind::Dax => MapFlags::SHARED_VALIDATE | MapFlags::SYNC,
        _ => MapFlags::SHARED,
    };
    // SAFETY: the caller's promise; without MAP_FIXED the kernel replaces nothing.
    unsafe { mmap(at, len, ProtFlags::READ | ProtFlags::WRITE, sharing | extra, file, 0) }
}

/// True if a file in `dir` can be mapped with `MAP_SYNC`. The trial file never has a name, so that nothing is left
/// behind even by a crash; the file systems that know `MAP_SYNC` all know `O_TMPFILE`.
#[must_use]
pub fn probe(dir: &Path) -> bool {
    if Flush::detect().is_none() {
        return false;
    }
    let how = OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC;
    let Ok(file) = rustix::fs::open(dir, how, Mode::RUSR | Mode::WUSR) else { return false };
    let len = DEVICE_BLOCK as usize;
    // SAFETY: at an address of the kernel's choice; the mapping, which lies past the end of an empty file, is not touched.
    match unsafe { map_at(null_mut(), len, &File::from(file), MediumKind::Dax, MapFlags::empty()) } {
        Ok(at) => {
            // SAFETY: the mapping just made.
            let _ = unsafe { munmap(at, len) };
            true
        }
        Err(_) => false,
    }
}

impl Pmem for Mapped {
    fn path(&self) -> &Path {
        &self.path
    }

    fn kind(&self) -> MediumKind {
        self.kind
    }

    fn base(&self) -> *const u8 {
        self.base.as_ptr()
    }

    fn len(&self) -> u64 {
        self.len as u64
    }

    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.at(off, len); // a range outside would make the file longer than its mapping
        if len > 0 && !room::allocate(&self.file, &self.path, off, len)? {
            return Err(Error::cant_open(&self.path, "the file system cannot allocate storage in advance (fallocate)"));
        }
        Ok(())
    }

    fn prefer_huge(&self, off: u64, len: u64) {
        self.at(off, len);
        if self.kind == MediumKind::Ram {
            // SAFETY: `at` checked the range of the mapping, which `map_file` placed at a huge page.
            unsafe { huge::ask(self.base.as_ptr(), off, len) };
        }
    }

    fn touch(&self, off: u64, len: u64) {
        self.at(off, len);
        // SAFETY: `at` checked the range of the mapping, which is a whole number of pages.
        unsafe { huge::touch(self.base.as_ptr(), off, len) };
    }

    fn load(&self, off: u64, into: &mut [u8]) {
        let from = self.at(off, into.len() as u64);
        // SAFETY: `at` checked the range; `into` is exclusive memory of the caller; nobody stores to the bytes meanwhile
        // (the caller's protocol, see the trait).
        unsafe { std::ptr::copy_nonoverlapping(from.cast_const(), into.as_mut_ptr(), into.len()) };
    }

    fn store(&self, off: u64, bytes: &[u8]) {
        // SAFETY: `at` checked the range; `bytes` is a shared reference, so it is no part of this mutable mapping.
        unsafe { granule::store(self.at(off, bytes.len() as u64), bytes.as_ptr(), bytes.len()) };
    }

    fn zero(&self, off: u64, len: u64) {
        // SAFETY: `at` checked the range.
        unsafe { granule::zero(self.at(off, len), len as usize) };
    }

    fn store_u64(&self, off: u64, value: u64) {
        assert!(off.is_multiple_of(8), "word at {off} is not aligned");
        // SAFETY: `at` checked the range; the mapping starts at a page, so that the word is aligned.
        unsafe { AtomicU64::from_ptr(self.at(off, 8).cast()) }.store(value, Ordering::Release);
    }

    fn stream(&self, _site: Site, off: u64, bytes: &[u8]) {
        // SAFETY: as in `store`.
        unsafe { self.persist.stream(self.at(off, bytes.len() as u64), bytes) };
    }

    fn flush(&self, _site: Site, off: u64, len: u64) -> u64 {
        // SAFETY: `at` checked the range.
        unsafe { self.persist.flush(self.at(off, len), len as usize) }
    }

    fn fence(&self, _site: Site) {
        self.persist.fence();
    }
}
