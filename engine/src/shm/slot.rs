//! A reader slot: what one connection tells all the others.

use super::futex;
use super::liveness::AttachmentNo;
use super::segment::Shared;
use super::shape::{Shape, shape};
use crate::base::Jci;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering, fence};
use std::fmt;
use std::time::Duration;

/// Number of a slot, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct SlotNo(pub u32);

impl fmt::Display for SlotNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// One connection. All words are changed by the owner alone, except as the table says. Whoever reclaims a dead owner's slot
/// first becomes its owner (one compare-and-swap of `owner`), so there is never more than one.
///
/// | offset | word            | who else changes it; what a stale read costs |
/// | ------ | --------------- | --- |
/// | 0      | `pin`           | nobody. Stale non-zero: a version is kept too long. Stale zero is excluded by the fences of P2 |
/// | 8      | `seq`           | nobody. Stale odd: a block is reused later. Stale even is excluded by the fences of P12 |
/// | 16     | `owner`         | who claims a free or a dead owner's slot, by compare-and-swap |
/// | 24     | `fetches`       | nobody. Raised only while `seq` is odd, so it is never missed; stale high: a copy on write too many |
/// | 32     | `words`         | the engine's own; cleared with the slot |
/// | 64     | `ticket`        | nobody. Stale: a grant out of order |
/// | 72, 80 | `place_*`       | nobody; times |
/// | 88, 96 | `refused_*`     | nobody; times. Stale: the lock is left free for a moment in vain |
/// | 104    | `wake`          | who grants the lock, by adding 1 |
/// | 108    | `asleep`        | who grants the lock, [`ASLEEP`] to [`PASSED`]. Stale: a grant that expires, or a wait for the next slice |
/// | 112    | `sleeps`        | nobody; what is known of the connection's busy handler |
/// | 116    | `deep`          | nobody; 1 while it may sleep in the kernel on `wake`. Stale 1: a system call in vain. Stale 0 is excluded by fences |
#[repr(C, align(128))]
pub struct Slot {
    pin: AtomicU64,
    seq: AtomicU64,
    pub(super) owner: AtomicU64,
    fetches: AtomicU32,
    _spare0: AtomicU32,
    /// Four words for the engine's use, on the line that the owner writes anyway. Zero in a slot just claimed.
    pub words: [AtomicU64; 4],
    pub(super) ticket: AtomicU64,
    pub(super) place_since: AtomicU64,
    pub(super) place_until: AtomicU64,
    pub(super) refused_since: AtomicU64,
    pub(super) refused_last: AtomicU64,
    pub(super) wake: AtomicU32,
    pub(super) asleep: AtomicU32,
    pub(super) sleeps: AtomicU32,
    pub(super) deep: AtomicU32,
    _spare1: [AtomicU32; 2],
}

// SAFETY: repr(C), atomics only.
unsafe impl Shared for Slot {
    const SHAPE: &'static Shape = shape!(Slot, 128:
        0 pin, 8 seq, 16 owner, 24 fetches, 28 _spare0, 32 words, 64 ticket, 72 place_since, 80 place_until, 88
        refused_since, 96 refused_last, 104 wake, 108 asleep, 112 sleeps, 116 deep, 120 _spare1
    );
}

/// `asleep`: the connection is not inside `wait`.
pub(super) const AWAKE: u32 = 0;
/// `asleep`: it is, and may be granted the lock.
pub(super) const ASLEEP: u32 = 1;
/// `asleep`: it was passed a grant; not eligible again before it has run (it may be stopped, or dead).
pub(super) const PASSED: u32 = 2;

/// `sleeps`: the connection has slept through the VFS since its last refusal.
pub(super) const SLEPT: u32 = 1;
/// `sleeps`: it was refused twice and had not slept through the VFS in between.
pub(super) const SLEEPS_ELSEWHERE: u32 = 2;

/// Word `owner`: generation in the upper half, attachment in the lower (0: free).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) struct Owner {
    pub generation: u32,
    pub attachment: u32,
}

impl Owner {
    pub fn unpack(word: u64) -> Owner {
        Owner { generation: (word >> 32) as u32, attachment: word as u32 }
    }

    pub fn pack(self) -> u64 {
        u64::from(self.generation) << 32 | u64::from(self.attachment)
    }
}

impl Default for Slot {
    fn default() -> Self {
        Slot::new()
    }
}

impl Slot {
    /// A free slot, as zeroed memory is one.
    #[must_use]
    pub fn new() -> Slot {
        let n = || AtomicU64::new(0);
        let h = || AtomicU32::new(0);
        Slot {
            pin: n(),
            seq: n(),
            owner: n(),
            fetches: h(),
            _spare0: h(),
            words: [n(), n(), n(), n()],
            ticket: n(),
            place_since: n(),
            place_until: n(),
            refused_since: n(),
            refused_last: n(),
            wake: h(),
            asleep: h(),
            sleeps: h(),
            deep: h(),
            _spare1: [h(), h()],
        }
    }

    /// The attachment that owns the slot, or `None` if it is free.
    pub fn attachment(&self) -> Option<AttachmentNo> {
        let owner = self.owner_now();
        (owner.attachment != 0).then_some(AttachmentNo(owner.attachment))
    }

    /// Counts the owners that the slot has had.
    pub fn generation(&self) -> u32 {
        self.owner_now().generation
    }

    pub(super) fn owner_now(&self) -> Owner {
        Owner::unpack(self.owner.load(Ordering::Acquire))
    }

    /// The snapshot that the connection reads at.
    pub fn pin(&self) -> Option<Jci> {
        // Acquire: who sees the pin gone also sees the reads done that it protected.
        self.pin.load(Ordering::Acquire).checked_sub(1).map(Jci)
    }

    /// Moves the pin without the protocol of [`Clock::pin`](super::Clock::pin). For the holder of the writer lock, which moves
    /// its own pin to its own commit before the gate opens (P9).
    pub fn set_pin(&self, jci: Jci) {
        self.pin.store(jci.0 + 1, Ordering::Release);
    }

    /// Gives the snapshot up.
    pub fn unpin(&self) {
        self.pin.store(0, Ordering::Release);
    }

    /// Says that a read is in progress; before the look-up of the block that is to be read (P12).
    pub fn begin_copy(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        debug_assert!(seq & 1 == 0, "begin_copy twice");
        // Release: who finds this read instead of the one before knows that that one has ended.
        self.seq.store(seq + 1, Ordering::Release);
        // Pairs with the fence of Grace::begin: either it sees this read, or the look-up sees what was removed.
        fence(Ordering::SeqCst);
    }

    /// Ends what [`begin_copy`](Self::begin_copy) began; after the last byte was copied.
    pub fn end_copy(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        debug_assert!(seq & 1 == 1, "end_copy without begin_copy");
        self.seq.store(seq + 1, Ordering::Release);
    }

    /// Does `read`, a look-up and what is done with its result, between the two.
    pub fn copying<T>(&self, read: impl FnOnce() -> T) -> T {
        self.begin_copy();
        let result = read();
        self.end_copy();
        result
    }

    /// The read sequence: odd while a read is in progress, never the same again afterwards.
    pub fn sequence(&self) -> u64 {
        self.seq.load(Ordering::Acquire)
    }

    /// Counts a pointer that xFetch hands out; between [`begin_copy`](Self::begin_copy) and [`end_copy`](Self::end_copy).
    pub fn add_fetch(&self) {
        debug_assert!(self.seq.load(Ordering::Relaxed) & 1 == 1, "a fetch counted outside a read can be missed");
        self.fetches.store(self.fetches.load(Ordering::Relaxed) + 1, Ordering::Release);
    }

    /// Counts a pointer given back.
    pub fn drop_fetch(&self) {
        let n = self.fetches.load(Ordering::Relaxed);
        debug_assert!(n > 0, "drop_fetch without add_fetch");
        self.fetches.store(n.saturating_sub(1), Ordering::Release);
    }

    /// Pointers handed out and not given back.
    pub fn fetches(&self) -> u32 {
        self.fetches.load(Ordering::Acquire)
    }

    /// True if the connection was refused the writer lock within the last second and has not slept through the VFS since (P10).
    /// The clock is only read if it matters.
    pub fn sleeps_elsewhere(&self, now: impl FnOnce() -> u64) -> bool {
        let last = self.refused_last.load(Ordering::Relaxed);
        let slept = self.sleeps.load(Ordering::Relaxed) & SLEPT != 0;
        last != 0 && !slept && now().wrapping_sub(last) < 1_000_000_000
    }

    /// Sleeps while `wake` is `woken`, at most `time`.
    pub(super) fn sleep(&self, woken: u32, time: Duration) {
        self.deep.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        futex::wait(&self.wake, woken, Some(time));
        self.deep.store(0, Ordering::Relaxed);
    }

    /// Whether the connection's busy handler is known to sleep elsewhere.
    pub(super) fn kind(&self) -> u32 {
        self.sleeps.load(Ordering::Relaxed) & SLEEPS_ELSEWHERE
    }

    /// Forgets everything but owner and read sequence. For the owner, when it takes or gives up the slot.
    pub(super) fn clear(&self) {
        let seq = self.seq.load(Ordering::Relaxed);
        self.asleep.store(AWAKE, Ordering::Relaxed);
        self.sleeps.store(0, Ordering::Relaxed);
        for word in &self.words {
            word.store(0, Ordering::Relaxed);
        }
        for word in [&self.ticket, &self.place_since, &self.place_until, &self.refused_since, &self.refused_last] {
            word.store(0, Ordering::Relaxed);
        }
        self.fetches.store(0, Ordering::Release);
        self.seq.store(seq + (seq & 1), Ordering::Release);
        self.unpin();
    }
}

impl fmt::Debug for Slot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let owner = self.owner_now();
        let asleep = self.asleep.load(Ordering::Relaxed);
        write!(f, "Slot({owner:?}, pin {:?}, seq {}, ", self.pin(), self.sequence())?;
        write!(f, "fetches {}, asleep {asleep})", self.fetches())
    }
}
