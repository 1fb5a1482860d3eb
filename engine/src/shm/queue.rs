//! The writer lock and its queue (P11): first come first served, inside SQLite's own busy handler.
//!
//! ```text
//!              release, nobody waits
//!   FREE  <---------------------------  HELD(slot, gen)
//!    |  \--- try_hold: anyone ----------->  ^      |
//!    | wait: head of the queue              |      | release: to the oldest that is inside wait
//!    v                                      |      v
//!   GRANTED(slot, gen)  --- try_hold: that one; anyone after 5 ms, or if it is dead
//! ```
//!
//! Instead of granting it, a release now and then leaves the lock for a moment to connections that do not sleep through us (LEFT):
//! only those take it then, who else would come first by being faster; afterwards the head of the queue.
//!
//! Beside its state the word remembers a holder that died (`dead`) until [`WriterLock::repair_done`], through any number of
//! further deaths: the one compare-and-swap that takes the lock from the dead is also the one that remembers.

use super::clock;
use super::futex;
use super::liveness::Liveness;
use super::segment::Shared;
use super::shape::{Shape, shape};
use super::slot::{ASLEEP, AWAKE, PASSED, SLEEPS_ELSEWHERE, Slot, SlotNo};
use super::slots::Slots;
use super::word::{Holder, State, Word};
use crate::base::sync::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

pub(super) const MS: u64 = 1_000_000;
/// How long a grant is kept for the one it was given to.
pub const GRANT_EXPIRES: Duration = Duration::from_millis(5);
/// How long, and how often at most, the lock is left free for connections that do not sleep through us.
const LEFT_FREE: u64 = 2 * MS;
const LEFT_FREE_EVERY: u64 = 20 * MS;
/// A refused connection that was not seen for so long has given up.
pub(super) const GIVEN_UP: u64 = 1000 * MS;

/// The writer lock.
///
/// | offset | word         | who changes it; what a stale read costs |
/// | ------ | ------------ | --- |
/// | 0      | `word`       | by compare-and-swap: its holder, and who takes it when it is free, granted to it, expired or dead |
/// | 8      | `granted_at` | who grants, before granting. Stale: a grant that expires too late or too early |
/// | 16     | `left_at`    | who leaves the lock free on purpose. Stale: a waiter comes too early |
/// | 24     | `waiters`    | 1: waiters set it; 0: who is about to scan for them. By swap only: a plain 1 over a 1 would hide the first one's waiter. Stale 1: a scan in vain |
/// | 28     | `skip_watches` | waiters. A lost race: one watches more or less |
/// | 64     | `tickets`    | waiters, by adding 1 |
/// | 72     | `watched_until` | the waiter that watches, by compare-and-swap: until when. Stale: none watches, for that long |
#[repr(C, align(128))]
#[derive(Debug)]
pub struct WriterLock {
    word: AtomicU64,
    pub(super) granted_at: AtomicU64,
    pub(super) left_at: AtomicU64,
    pub(super) waiters: AtomicU32,
    pub(super) skip_watches: AtomicU32,
    _pad0: [AtomicU32; 8],
    pub(super) tickets: AtomicU64,
    pub(super) watched_until: AtomicU64,
    _pad1: [AtomicU64; 6],
}

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for WriterLock {
    const SHAPE: &'static Shape = shape!(WriterLock, 128:
        0 word, 8 granted_at, 16 left_at, 24 waiters, 28 skip_watches, 32 _pad0, 64 tickets, 72 watched_until, 80 _pad1
    );
}

/// What came of an attempt at the writer lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Hold {
    /// Held.
    Held,
    /// Held, after a holder that died with it: repair what it left and call [`WriterLock::repair_done`] before anything else. If
    /// we die first, the next one is told the same.
    HeldAfterDeath {
        /// The dead holder. Its slot is not used again before the repair is done.
        dead: SlotNo,
    },
    /// Somebody has it, or is about to.
    Busy,
}

impl Default for WriterLock {
    fn default() -> Self {
        WriterLock::new()
    }
}

impl WriterLock {
    /// Free, as zeroed memory is.
    #[must_use]
    pub fn new() -> WriterLock {
        WriterLock {
            word: AtomicU64::new(0),
            granted_at: AtomicU64::new(0),
            left_at: AtomicU64::new(0),
            waiters: AtomicU32::new(0),
            skip_watches: AtomicU32::new(0),
            _pad0: std::array::from_fn(|_| AtomicU32::new(0)),
            tickets: AtomicU64::new(0),
            watched_until: AtomicU64::new(0),
            _pad1: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    pub(super) fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    pub(super) fn swap(&self, from: Word, to: Word) -> bool {
        // AcqRel for all: a transition that only hands the lock on passes on what was released to it.
        self.word.compare_exchange(from.0, to.0, Ordering::AcqRel, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock for `me` if it is free, granted to `me`, granted to one that does not come for it, or a dead one's.
    pub fn try_hold(&self, slots: &Slots, me: SlotNo, live: &Liveness) -> Hold {
        let mine = slots.holder(me);
        loop {
            let word = self.load();
            let dead = match word.state() {
                State::Free => word.dead(),
                State::Left if slots.get(me).kind() == SLEEPS_ELSEWHERE || self.left_for(clock::now()) == 0 => {
                    word.dead()
                }
                State::Granted(other) if other == mine || self.is_lapsed(slots, other, live) => word.dead(),
                State::Held(other) if other != mine && !slots.is_alive(other, live) => {
                    Some(word.dead().unwrap_or(other.slot))
                }
                State::Held(other) if other == mine => {
                    debug_assert!(false, "held already");
                    return Hold::Held;
                }
                _ => return Hold::Busy,
            };
            if self.swap(word, Word::new(State::Held(mine), dead)) {
                return held(slots.get(me), dead);
            }
        }
    }

    /// Takes the lock only if nobody wants it and nothing is to be repaired: for maintenance, which leaves both to others.
    pub fn try_hold_idle(&self, slots: &Slots, me: SlotNo) -> Hold {
        let word = self.load();
        let idle = word == Word::new(State::Free, None) && self.waiting(slots) == 0;
        if idle && self.swap(word, Word::new(State::Held(slots.holder(me)), None)) {
            return held(slots.get(me), None);
        }
        Hold::Busy
    }

    /// What the dead holder left is settled.
    pub fn repair_done(&self, slots: &Slots, me: SlotNo) {
        let word = self.load();
        let mine = State::Held(slots.holder(me));
        debug_assert_eq!(word.state(), mine, "a repair by another than the holder");
        let done = self.swap(word, Word::new(mine, None));
        debug_assert!(done, "the word of a live holder changed");
    }

    /// Gives the lock to the oldest connection that is inside [`wait`](Self::wait) now, else frees it. If a repair was not done,
    /// the next holder is told of it.
    pub fn release(&self, slots: &Slots, me: SlotNo) {
        let word = self.load();
        debug_assert_eq!(word.state(), State::Held(slots.holder(me)), "released by another than the holder");
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.hand_over(slots, word, true);
            return;
        }
        let free = Word::new(State::Free, word.dead());
        let freed = self.swap(word, free);
        debug_assert!(freed, "the word of a live holder changed");
        // Pairs with the fence in wait: either we see the waiter, or it sees that the lock is free.
        fence(Ordering::SeqCst);
        if self.waiters.load(Ordering::Relaxed) != 0 {
            self.hand_over(slots, free, true);
        }
    }

    /// Moves the lock on from `word` (held by us, or free) to the head of the queue, or frees it.
    pub(super) fn hand_over(&self, slots: &Slots, mut word: Word, may_leave_free: bool) {
        let dead = word.dead();
        let free = Word::new(State::Free, dead);
        loop {
            // A swap, so that a waiter whose 1 it takes away is seen by the scan.
            self.waiters.swap(0, Ordering::AcqRel);
            let Some((no, head)) = oldest_waiter(slots) else {
                if word != free && !self.swap(word, free) {
                    return;
                }
                word = free;
                fence(Ordering::SeqCst);
                if self.waiters.load(Ordering::Relaxed) == 0 {
                    return;
                }
                continue;
            };
            // There may be more behind it, which this scan has passed over.
            self.waiters.swap(1, Ordering::AcqRel);
            // While it was 0, another may have taken a free lock and released it to nobody: then the swap of the word below works;
            // else that other one sees the 1.
            fence(Ordering::SeqCst);
            let now = clock::now();
            if may_leave_free && self.should_leave_free(slots, head, now) {
                self.left_at.store(now, Ordering::Relaxed);
                self.swap(word, Word::new(State::Left, dead));
                // It comes for the lock when the time is over.
                wake(head);
                return;
            }
            // Passed: it gets no second grant before it has run, so that one that is stopped or dead delays the queue once only.
            if head.asleep.compare_exchange(ASLEEP, PASSED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            self.granted_at.store(now, Ordering::Relaxed);
            self.swap(word, Word::new(State::Granted(slots.holder(no)), dead));
            // Also if another was faster and took the free lock: passed over for nothing, it has to queue up again.
            wake(head);
            return;
        }
    }

    /// True if a connection that was refused, and does not sleep through us, has been at it for longer than the queue's head.
    fn should_leave_free(&self, slots: &Slots, head: &Slot, now: u64) -> bool {
        if now.wrapping_sub(self.left_at.load(Ordering::Relaxed)) < LEFT_FREE_EVERY {
            return false;
        }
        let since = head.place_since.load(Ordering::Relaxed);
        slots.used().any(|(_, slot)| {
            let last = slot.refused_last.load(Ordering::Relaxed);
            slot.kind() == SLEEPS_ELSEWHERE
                && last != 0
                && now.wrapping_sub(last) < GIVEN_UP
                && slot.refused_since.load(Ordering::Relaxed) < since
        })
    }

    /// For how many nanoseconds more a lock that was left is left.
    pub(super) fn left_for(&self, now: u64) -> u64 {
        LEFT_FREE.saturating_sub(now.wrapping_sub(self.left_at.load(Ordering::Relaxed)))
    }

    /// True if a grant is not kept any longer.
    pub(super) fn is_lapsed(&self, slots: &Slots, to: Holder, live: &Liveness) -> bool {
        let age = clock::now().wrapping_sub(self.granted_at.load(Ordering::Relaxed)) as i64;
        // A grant from the future is that of a process with another clock; a little one is two granters at once.
        age >= GRANT_EXPIRES.as_nanos() as i64 || age < -(GIVEN_UP as i64) || !slots.is_alive(to, live)
    }

    /// Who has the lock, dead or alive.
    pub fn holder(&self) -> Option<SlotNo> {
        match self.load().state() {
            State::Held(holder) => Some(holder.slot),
            _ => None,
        }
    }

    /// True if nobody has it, nor is it kept for anybody.
    pub fn is_free(&self) -> bool {
        self.load().state() == State::Free
    }

    /// True if the lock is kept for `me`, which has yet to take it.
    pub fn granted_to(&self, slots: &Slots, me: SlotNo) -> bool {
        self.load().state() == State::Granted(slots.holder(me))
    }

    /// Connections that are inside [`wait`](Self::wait).
    pub fn waiting(&self, slots: &Slots) -> u32 {
        slots.used().filter(|(_, slot)| slot.asleep.load(Ordering::Relaxed) != AWAKE).count() as u32
    }
}

fn wake(slot: &Slot) {
    slot.wake.fetch_add(1, Ordering::Release);
    // Pairs with the fence in Slot::sleep: either we see that it sleeps, or it sees the word changed.
    fence(Ordering::SeqCst);
    if slot.deep.load(Ordering::Relaxed) != 0 {
        futex::wake(&slot.wake, 1);
    }
}

/// The end of the way for a connection that was refused before: it starts afresh.
fn held(slot: &Slot, dead: Option<SlotNo>) -> Hold {
    slot.ticket.store(0, Ordering::Relaxed);
    slot.refused_last.store(0, Ordering::Relaxed);
    let Some(dead) = dead else { return Hold::Held };
    // A dead holder released nothing: that its stores are seen is by the kernel's word that it is dead.
    fence(Ordering::SeqCst);
    Hold::HeldAfterDeath { dead }
}

pub(super) fn asleep(slots: &Slots) -> impl Iterator<Item = (u64, SlotNo, &Slot)> {
    let waiters = slots.used().filter(|(_, slot)| slot.asleep.load(Ordering::Acquire) == ASLEEP);
    waiters.map(|(no, slot)| (slot.ticket.load(Ordering::Relaxed), no, slot))
}

fn oldest_waiter(slots: &Slots) -> Option<(SlotNo, &Slot)> {
    asleep(slots).min_by_key(|(ticket, ..)| *ticket).map(|(_, no, slot)| (no, slot))
}
