//! Death in the middle of something, as the memory sees it: a thread that stops there for ever, and whose flushes the kernel
//! has waited for.

use crate::sim::World;
use nvlite_engine::{MediumKind, Pmem, Region, Result, Site};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// Memory whose user stops for ever at the point that was chosen: in front of an operation, or behind it, when what follows
/// outside of this memory is not done yet.
pub struct Mortal {
    inner: Arc<dyn Pmem>,
    world: Arc<World>,
    left: AtomicU64,
    panics: AtomicBool,
    dead: Mutex<bool>,
    bell: Condvar,
}

impl Mortal {
    /// Over `region`, which is memory of `world`; nobody dies yet.
    ///
    /// # Panics
    /// If it is a file.
    #[allow(clippy::panic, reason = "a test that asks for this is wrong")]
    pub fn over(region: Region, world: &Arc<World>) -> Arc<Mortal> {
        let Region::Pmem(inner) = region else { panic!("{:?} is no memory", region.kind()) };
        let (left, panics) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        let world = Arc::clone(world);
        Arc::new(Mortal { inner, world, left, panics, dead: Mutex::new(false), bell: Condvar::new() })
    }

    /// Its user dies at the `n`-th point from now on, counted from 0: each store, flush or fence has one in front of it and one
    /// behind it.
    pub fn dies_after(&self, n: u64) {
        self.left.store(n, Ordering::SeqCst);
    }

    /// Its user panics there instead, once, and lives on.
    pub fn panics_after(&self, n: u64) {
        self.panics.store(true, Ordering::SeqCst);
        self.dies_after(n);
    }

    /// Waits until its user is dead or `done`; true if dead.
    pub fn await_death(&self, done: impl Fn() -> bool) -> bool {
        let mut dead = self.dead.lock().unwrap_or_else(PoisonError::into_inner);
        while !*dead && !done() {
            let slice = std::time::Duration::from_millis(1);
            dead = self.bell.wait_timeout(dead, slice).unwrap_or_else(PoisonError::into_inner).0;
        }
        *dead
    }

    /// Does `work` in a thread that is never joined: the dead stay where they are, and keep what they hold. True if it died.
    pub fn dies_in<T: Send + 'static>(&self, work: impl FnOnce() -> T + Send + 'static) -> bool {
        let done = Arc::new(AtomicBool::new(false));
        let its = done.clone();
        std::thread::spawn(move || {
            let _kept = work();
            its.store(true, Ordering::SeqCst);
            loop {
                std::thread::park();
            }
        });
        self.await_death(|| done.load(Ordering::SeqCst))
    }

    fn operation<T>(&self, operation: impl FnOnce(&dyn Pmem) -> T) -> T {
        self.step();
        let answer = operation(self.inner.as_ref());
        self.step();
        answer
    }

    fn step(&self) {
        let count_down = |left: u64| (left != u64::MAX && left > 0).then(|| left - 1);
        if self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, count_down) == Err(0) {
            if self.panics.swap(false, Ordering::SeqCst) {
                self.dies_after(u64::MAX);
                std::panic::resume_unwind(Box::new("a defect"));
            }
            self.world.ended();
            *self.dead.lock().unwrap_or_else(PoisonError::into_inner) = true;
            self.bell.notify_all();
            loop {
                std::thread::park();
            }
        }
    }
}

impl Pmem for Mortal {
    fn path(&self) -> &Path {
        self.inner.path()
    }
    fn kind(&self) -> MediumKind {
        self.inner.kind()
    }
    fn base(&self) -> *const u8 {
        self.inner.base()
    }
    fn len(&self) -> u64 {
        self.inner.len()
    }
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        self.inner.allocate(off, len)
    }
    fn load(&self, off: u64, into: &mut [u8]) {
        self.inner.load(off, into);
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
