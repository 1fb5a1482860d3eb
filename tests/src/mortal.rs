//! Death in the middle of something, as the memory sees it: a thread that stops there for ever, and whose flushes the kernel
//! has waited for.

use crate::hooked;
use crate::sim::World;
use nvlite_engine::Region;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError};

/// A user of memory, who stops for ever at the point that was chosen: in front of an operation, or behind it, when what follows
/// outside of this memory is not done yet.
pub struct Mortal {
    world: Arc<World>,
    left: AtomicU64,
    panics: AtomicBool,
    dead: Mutex<bool>,
    bell: Condvar,
}

impl Mortal {
    /// `region`, which is memory of `world`, and its user; nobody dies yet.
    ///
    /// # Panics
    /// If it is a file.
    pub fn over(region: Region, world: &Arc<World>) -> (Region, Arc<Mortal>) {
        let (left, panics) = (AtomicU64::new(u64::MAX), AtomicBool::new(false));
        let world = Arc::clone(world);
        let user = Arc::new(Mortal { world, left, panics, dead: Mutex::new(false), bell: Condvar::new() });
        let its = user.clone();
        (hooked::memory(region, move || its.step()), user)
    }

    /// Dies at the `n`-th point from now on, counted from 0: each store, flush or fence has one in front of it and one
    /// behind it.
    pub fn dies_after(&self, n: u64) {
        self.left.store(n, Ordering::SeqCst);
    }

    /// Panics there instead, once, and lives on.
    pub fn panics_after(&self, n: u64) {
        self.panics.store(true, Ordering::SeqCst);
        self.dies_after(n);
    }

    /// Waits until it is dead or `done`; true if dead.
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
