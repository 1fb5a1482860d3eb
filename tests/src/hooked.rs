//! Files before whose every operation something happens: it waits, fails, or panics. And memory around whose operations it does.

use nvlite_engine::{BaseFile, BaseOpener, Disk, MediumKind, Pmem, Region, Result, Site};
use std::path::Path;
use std::sync::Arc;

/// What is about to be done to a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Op {
    /// A read.
    Read,
    /// A write.
    Write,
    /// A sync.
    Sync(Site),
}

/// What happens before; an error is the operation's.
pub type Hook = Arc<dyn Fn(Op) -> Result<()> + Send + Sync>;

struct Hooked<D>(D, Hook);

/// `disk`, before whose every operation `hook` is called.
pub fn disk(disk: Arc<dyn Disk>, hook: impl Fn(Op) -> Result<()> + Send + Sync + 'static) -> Arc<dyn Disk> {
    Arc::new(Hooked(disk, Arc::new(hook)))
}

/// `base`, before whose handles' every operation `hook` is called.
pub fn base(base: Arc<dyn BaseOpener>, hook: impl Fn(Op) -> Result<()> + Send + Sync + 'static) -> Arc<dyn BaseOpener> {
    Arc::new(HookedBase(base, Arc::new(hook)))
}

/// `region`, in front of and behind whose every store, flush and fence `hook` is called.
///
/// # Panics
/// If it is a file.
#[allow(clippy::panic, reason = "a test that asks for this is wrong")]
pub fn memory(region: Region, hook: impl Fn() + Send + Sync + 'static) -> Region {
    let Region::Pmem(inner) = region else { panic!("{:?} is no memory", region.kind()) };
    Region::Pmem(Arc::new(HookedMemory(inner, hook)))
}

impl<D: std::ops::Deref<Target: Disk> + Send + Sync> Disk for Hooked<D> {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn len(&self) -> Result<u64> {
        self.0.len()
    }
    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize> {
        (self.1)(Op::Read)?;
        self.0.read_at(off, into)
    }
    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()> {
        (self.1)(Op::Write)?;
        self.0.write_at(off, bytes)
    }
    fn sync(&self, site: Site) -> Result<()> {
        (self.1)(Op::Sync(site))?;
        self.0.sync(site)
    }
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.0.allocate(off, len)
    }
    fn set_len(&self, len: u64) -> Result<()> {
        self.0.set_len(len)
    }
}

impl BaseFile for Hooked<Box<dyn BaseFile>> {
    fn lock_exclusive(&self) -> Result<()> {
        self.0.lock_exclusive()
    }
    fn unlock(&self) -> Result<()> {
        self.0.unlock()
    }
}

struct HookedBase(Arc<dyn BaseOpener>, Hook);

impl BaseOpener for HookedBase {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn open(&self) -> Result<Box<dyn BaseFile>> {
        Ok(Box::new(Hooked(self.0.open()?, self.1.clone())))
    }
    fn recover_stock(&self) -> Result<()> {
        self.0.recover_stock()
    }
    fn identity(&self) -> Result<Option<(u64, u64)>> {
        self.0.identity()
    }
}

struct HookedMemory<F>(Arc<dyn Pmem>, F);

impl<F: Fn()> HookedMemory<F> {
    fn operation<T>(&self, operation: impl FnOnce(&dyn Pmem) -> T) -> T {
        (self.1)();
        let answer = operation(self.0.as_ref());
        (self.1)();
        answer
    }
}

impl<F: Fn() + Send + Sync> Pmem for HookedMemory<F> {
    fn path(&self) -> &Path {
        self.0.path()
    }
    fn kind(&self) -> MediumKind {
        self.0.kind()
    }
    fn base(&self) -> *const u8 {
        self.0.base()
    }
    fn len(&self) -> u64 {
        self.0.len()
    }
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.0.allocate(off, len)
    }
    fn prefer_huge(&self, off: u64, len: u64) {
        self.0.prefer_huge(off, len);
    }
    fn touch(&self, off: u64, len: u64) {
        self.0.touch(off, len);
    }
    fn load(&self, off: u64, into: &mut [u8]) {
        self.0.load(off, into);
    }
    fn store(&self, off: u64, bytes: &[u8]) {
        self.operation(|memory| memory.store(off, bytes));
    }
    fn zero(&self, off: u64, len: u64) {
        self.operation(|memory| memory.zero(off, len));
    }
    fn store_u64(&self, off: u64, value: u64) {
        self.operation(|memory| memory.store_u64(off, value));
    }
    fn stream(&self, site: Site, off: u64, bytes: &[u8]) {
        self.operation(|memory| memory.stream(site, off, bytes));
    }
    fn flush(&self, site: Site, off: u64, len: u64) -> u64 {
        self.operation(|memory| memory.flush(site, off, len))
    }
    fn fence(&self, site: Site) {
        self.operation(|memory| memory.fence(site));
    }
}
