//! A lock that names its holder, for whom waiting is the caller's matter: leadership of the flush, retirement.

use super::liveness::Liveness;
use super::segment::Shared;
use super::shape::{Shape, shape};
use super::slot::SlotNo;
use super::slots::Slots;
use super::word::{State, Word};
use crate::base::sync::{AtomicU64, Ordering, fence};

/// One word. Changed by compare-and-swap, by who takes the lock and by its holder. A stale read makes the swap fail.
#[repr(C, align(64))]
#[derive(Debug)]
pub struct OwnedLock {
    word: AtomicU64,
    _pad: [AtomicU64; 7],
}

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for OwnedLock {
    const SHAPE: &'static Shape = shape!(OwnedLock, 64: 0 word, 8 _pad);
}

/// What came of [`OwnedLock::try_lock`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Lock {
    /// Locked.
    Locked,
    /// Locked, after a holder that died with it. Settle what that one left; until [`OwnedLock::unlock`] the lock remembers it,
    /// and so its slot is not used again.
    LockedAfterDeath {
        /// The dead holder.
        dead: SlotNo,
    },
    /// Somebody alive has it.
    Busy,
}

impl Default for OwnedLock {
    fn default() -> Self {
        OwnedLock::new()
    }
}

impl OwnedLock {
    /// Unlocked, as zeroed memory is.
    #[must_use]
    pub fn new() -> OwnedLock {
        OwnedLock { word: AtomicU64::new(0), _pad: std::array::from_fn(|_| AtomicU64::new(0)) }
    }

    /// Takes the lock for `me` unless a live connection has it.
    pub fn try_lock(&self, slots: &Slots, me: SlotNo, live: &Liveness) -> Lock {
        let mine = State::Held(slots.holder(me));
        loop {
            let word = Word(self.word.load(Ordering::Relaxed));
            let dead = match word.state() {
                State::Held(other) if slots.is_alive(other, live) => return Lock::Busy,
                State::Held(other) => Some(word.dead().unwrap_or(other.slot)),
                _ => word.dead(),
            };
            let next = Word::new(mine, dead);
            if self.word.compare_exchange(word.0, next.0, Ordering::Acquire, Ordering::Relaxed).is_err() {
                continue;
            }
            let Some(dead) = dead else { return Lock::Locked };
            // A dead holder released nothing: that its stores are seen is by the kernel's word that it is dead.
            fence(Ordering::SeqCst);
            return Lock::LockedAfterDeath { dead };
        }
    }

    /// Who has it, dead or alive.
    pub fn holder(&self) -> Option<SlotNo> {
        match Word(self.word.load(Ordering::Relaxed)).state() {
            State::Held(holder) => Some(holder.slot),
            _ => None,
        }
    }

    /// Gives the lock back. What it protects is whole, a dead holder's remains included.
    pub fn unlock(&self, me: SlotNo) {
        debug_assert_eq!(self.holder(), Some(me), "unlocked by another");
        self.word.store(0, Ordering::Release);
    }
}
