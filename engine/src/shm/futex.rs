//! Sleeping on a word of the mapping. Shared futexes: the sleeper and the waker are in different processes.

use crate::base::sync::AtomicU32;
use std::time::Duration;

/// Sleeps while `word` is `expected`, at most `time`. May return early for no reason: the caller looks again.
#[cfg(not(loom))]
pub fn wait(word: &AtomicU32, expected: u32, time: Option<Duration>) {
    use rustix::thread::futex::{self, Flags, Timespec};
    let time = time.map(|t| Timespec { tv_sec: t.as_secs() as i64, tv_nsec: i64::from(t.subsec_nanos()) });
    // Every outcome (woken, changed before, timed out, a signal) means the same to the caller.
    let _ = futex::wait(word, Flags::empty(), expected, time.as_ref());
}

/// Wakes up to `n` sleepers of `word`.
#[cfg(not(loom))]
pub fn wake(word: &AtomicU32, n: u32) {
    // Fails only for an address that is not a futex's, which a reference to an atomic cannot be.
    let _ = rustix::thread::futex::wake(word, rustix::thread::futex::Flags::empty(), n);
}

#[cfg(loom)]
pub use model::{wait, wake};

/// Under loom no time ever passes, and nobody wakes for no reason: a wake that is lost is a deadlock, which loom reports.
#[cfg(loom)]
mod model {
    use super::{AtomicU32, Duration};
    use loom::sync::{Condvar, Mutex};
    use std::collections::HashMap;

    loom::lazy_static! {
        /// How often each word was woken.
        static ref WAKES: Mutex<HashMap<usize, u32>> = Mutex::new(HashMap::new());
        static ref WOKEN: Condvar = Condvar::new();
    }

    fn address(word: &AtomicU32) -> usize {
        std::ptr::from_ref(word).addr()
    }

    /// Sleeps while `word` is `expected`, until it is woken.
    pub fn wait(word: &AtomicU32, expected: u32, _time: Option<Duration>) {
        let count = |wakes: &HashMap<usize, u32>| wakes.get(&address(word)).copied().unwrap_or(0);
        let mut wakes = WAKES.lock().expect("no panic");
        let before = count(&wakes);
        if word.load(crate::base::sync::Ordering::Relaxed) != expected {
            return;
        }
        while count(&wakes) == before {
            wakes = WOKEN.wait(wakes).expect("no panic");
        }
    }

    /// Wakes all sleepers of `word`: in the models there is never more than one that `n` would let go.
    pub fn wake(word: &AtomicU32, _n: u32) {
        *WAKES.lock().expect("no panic").entry(address(word)).or_insert(0) += 1;
        WOKEN.notify_all();
    }
}
