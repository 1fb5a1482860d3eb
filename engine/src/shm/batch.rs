//! Where commits wait to be durable (`file`), each for the batch that it is in.
//!
//! While batch n is being flushed, commits that came too late for it wait for batch n + 1, which needs a leader as soon as n
//! is through. So there is a word to sleep on for each of them: the leader of n, having released the flush lock, wakes one
//! of those behind it first, that the medium may not be idle, and then all of its own.

use super::futex;
use super::segment::Shared;
use super::shape::{Shape, shape};
use crate::base::Jci;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// Somebody sleeps on the word.
const SLEEPERS: u32 = 1;
/// Counts the wakings in the bits above.
const TURN: u32 = 2;
/// Nobody waits for a batch that is so far from the newest.
const WORDS: usize = 4;

/// | offset | word     | who changes it; what a stale read costs |
/// | ------ | -------- | --- |
/// | 0      | `number` | leader of the flush: the newest batch begun. Stale: the words that go with it have changed |
/// | 8      | `uptos`  | leader of the flush, before it changes `number`: the newest commit in a batch |
/// | 40     | `words`  | who wakes, by adding; sleepers set a bit by compare-and-swap |
/// | 56     | `before` | leader of the flush. Stale: a batch that waits for the wrong ones |
/// | 64     | `took`   | leader of the flush |
/// | 72     | `skip`   | leader of the flush |
/// | 80     | `began`  | leader of the flush |
/// | 88     | `pace`   | leader of the flush |
///
/// Of `uptos` and `words` there are [`WORDS`], used in turn.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Batches {
    number: AtomicU64,
    uptos: [AtomicU64; WORDS],
    words: [AtomicU32; WORDS],
    /// What was durable before the last batch was.
    pub before: AtomicU64,
    /// Nanoseconds that a flush takes, on average.
    pub took: AtomicU64,
    /// Batches that are not to wait for more commits.
    pub skip: AtomicU64,
    /// When the newest batch was closed.
    pub began: AtomicU64,
    /// Nanoseconds from commit to commit, on average; no more than a flush takes.
    pub pace: AtomicU64,
    _spare: [AtomicU64; 4],
}

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for Batches {
    const SHAPE: &'static Shape = shape!(Batches, 128:
        0 number, 8 uptos, 40 words, 56 before, 64 took, 72 skip, 80 began, 88 pace, 96 _spare
    );
}

/// What a waiter saw before it looked whether it has to wait: what changes afterwards ends its sleep.
#[derive(Clone, Copy, Debug)]
pub struct Seen {
    number: u64,
    /// The words of batch `number` and of the next.
    words: [u32; 2],
}

impl Default for Batches {
    fn default() -> Self {
        Batches::new()
    }
}

impl Batches {
    /// Before the first batch, as zeroed memory says.
    #[must_use]
    pub fn new() -> Batches {
        let n = || AtomicU64::new(0);
        Batches {
            number: n(),
            uptos: std::array::from_fn(|_| n()),
            words: std::array::from_fn(|_| AtomicU32::new(0)),
            before: n(),
            took: n(),
            skip: n(),
            began: n(),
            pace: n(),
            _spare: std::array::from_fn(|_| n()),
        }
    }

    fn word(&self, batch: u64) -> &AtomicU32 {
        &self.words[batch as usize % WORDS]
    }

    fn upto(&self, batch: u64) -> &AtomicU64 {
        &self.uptos[batch as usize % WORDS]
    }

    /// To be taken before looking whether the own commit is durable and whether the flush lock is free.
    pub fn seen(&self) -> Seen {
        let number = self.number.load(Ordering::Acquire);
        let words = [number, number + 1].map(|batch| self.word(batch).load(Ordering::Acquire));
        Seen { number, words }
    }

    /// A batch with everything up to `upto` begins. For the leader of the flush. Answers its number.
    pub fn begin(&self, upto: Jci) -> u64 {
        let number = self.number.load(Ordering::Relaxed) + 1;
        self.upto(number).store(upto.0, Ordering::Relaxed);
        // Release: who sees the number sees what is in the batch.
        self.number.store(number, Ordering::Release);
        number
    }

    /// Sleeps until the batch that `jci` is in is through, until that needs a leader, or for `time`. May return early.
    pub fn wait(&self, seen: Seen, jci: Jci, time: Duration) {
        let in_batch = jci.0 <= self.upto(seen.number).load(Ordering::Acquire);
        if self.number.load(Ordering::Acquire) != seen.number {
            return; // those words may have been those of batches that are through when they were read
        }
        let (batch, at) = if in_batch { (seen.number, seen.words[0]) } else { (seen.number + 1, seen.words[1]) };
        let (word, marked) = (self.word(batch), at | SLEEPERS);
        if at == marked || word.compare_exchange(at, marked, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
            futex::wait(word, marked, Some(time));
        }
    }

    /// Batch `number` is through, and the flush lock is free: wakes one that waits for the next to lead it, and all that
    /// waited for this one.
    pub fn through(&self, number: u64) {
        // The bit stays for those that sleep on.
        if self.word(number + 1).fetch_add(TURN, Ordering::AcqRel) & SLEEPERS != 0 {
            futex::wake(self.word(number + 1), 1);
        }
        self.wake(number);
    }

    /// Wakes all that wait, to look for themselves: something was written but not flushed, or the region has failed.
    pub fn wake_all(&self) {
        let number = self.number.load(Ordering::Acquire);
        self.wake(number);
        self.wake(number + 1);
    }

    fn wake(&self, batch: u64) {
        let next = |at: u32| Some((at & !SLEEPERS).wrapping_add(TURN));
        let before = self.word(batch).fetch_update(Ordering::AcqRel, Ordering::Relaxed, next);
        if before.unwrap_or_else(|at| at) & SLEEPERS != 0 {
            futex::wake(self.word(batch), i32::MAX as u32);
        }
    }
}
