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

/// Under loom no time ever passes: a wake that is lost is a model that does not end, which loom reports.
#[cfg(loom)]
pub fn wait(word: &AtomicU32, expected: u32, _time: Option<Duration>) {
    while word.load(crate::base::sync::Ordering::Relaxed) == expected {
        loom::thread::yield_now();
    }
}

/// Under loom the change of the word is the wake.
#[cfg(loom)]
pub fn wake(_word: &AtomicU32, _n: u32) {}
