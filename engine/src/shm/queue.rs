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
//! Beside its state the word remembers a holder that died (`dead`) until [`WriterLock::repair_done`], through any number of
//! further deaths: the one compare-and-swap that takes the lock from the dead is also the one that remembers.

use super::clock;
use super::futex;
use super::liveness::Liveness;
use super::segment::Shared;
use super::slot::{ASLEEP, AWAKE, PASSED, SLEEPS_ELSEWHERE, SLEPT, Slot, SlotNo};
use super::slots::Slots;
use super::word::{Holder, State, Word};
use crate::base::sync::{AtomicU32, AtomicU64, Ordering, fence};
use std::time::Duration;

const MS: u64 = 1_000_000;
/// How long a grant is kept for the one it was given to.
pub const GRANT_EXPIRES: Duration = Duration::from_millis(5);
const EXPIRES: u64 = 5 * MS;
/// How long, and how often at most, the lock is left free for connections that do not sleep through us.
const LEFT_FREE: u64 = 2 * MS;
const LEFT_FREE_EVERY: u64 = 20 * MS;
/// A refused connection that was not seen for so long has given up.
const GIVEN_UP: u64 = 1000 * MS;
/// How long the first two of the queue, and the others, sleep before looking for themselves.
const SLICE_FRONT: u64 = EXPIRES;
const SLICE: u64 = 50 * MS;
/// Least time for which a place in the queue is kept between two sleeps.
const PLACE_KEPT: u64 = 10 * MS;

/// The writer lock.
///
/// | offset | word         | who changes it; what a stale read costs |
/// | ------ | ------------ | --- |
/// | 0      | `word`       | by compare-and-swap: its holder, and who takes it when it is free, granted to it, expired or dead |
/// | 8      | `granted_at` | who grants, before granting. Stale: a grant that expires too late or too early |
/// | 16     | `left_at`    | who leaves the lock free on purpose. Stale: a waiter comes too early |
/// | 24     | `waiters`    | 1: waiters set it; 0: who is about to scan for them, by swap. Stale 1: a scan in vain |
/// | 64     | `tickets`    | waiters, by adding 1 |
#[repr(C, align(128))]
#[derive(Debug)]
pub struct WriterLock {
    word: AtomicU64,
    granted_at: AtomicU64,
    left_at: AtomicU64,
    waiters: AtomicU32,
    _pad0: [AtomicU32; 9],
    tickets: AtomicU64,
    _pad1: [AtomicU64; 7],
}

#[cfg(not(loom))]
const _: () = {
    assert!(size_of::<WriterLock>() == 128);
    assert!(std::mem::offset_of!(WriterLock, word) == 0);
    assert!(std::mem::offset_of!(WriterLock, waiters) == 24);
    assert!(std::mem::offset_of!(WriterLock, tickets) == 64);
};

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for WriterLock {}

/// What came of an attempt at the writer lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Hold {
    /// Held.
    Held,
    /// Held, after a holder that died with it: repair what it left and call [`WriterLock::repair_done`] before anything else,
    /// and list no intent of one's own until then. If we die first, the next one is told the same.
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
            _pad0: std::array::from_fn(|_| AtomicU32::new(0)),
            tickets: AtomicU64::new(0),
            _pad1: std::array::from_fn(|_| AtomicU64::new(0)),
        }
    }

    fn load(&self) -> Word {
        Word(self.word.load(Ordering::Acquire))
    }

    fn swap(&self, from: Word, to: Word) -> bool {
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

    /// Takes the lock only if nobody wants it: for maintenance.
    pub fn try_hold_idle(&self, slots: &Slots, me: SlotNo) -> Hold {
        let word = self.load();
        if word.state() != State::Free || self.waiting(slots) != 0 {
            return Hold::Busy;
        }
        let dead = word.dead();
        if self.swap(word, Word::new(State::Held(slots.holder(me)), dead)) {
            held(slots.get(me), dead)
        } else {
            Hold::Busy
        }
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
    fn hand_over(&self, slots: &Slots, mut word: Word, may_leave_free: bool) {
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
            self.waiters.store(1, Ordering::Release);
            let now = clock::now();
            if may_leave_free && self.should_leave_free(slots, head, now) {
                self.left_at.store(now, Ordering::Relaxed);
                if word == free || self.swap(word, free) {
                    // It comes for the lock when the time is over.
                    wake(head);
                }
                return;
            }
            // Passed: it gets no second grant before it has run, so that one that is stopped or dead delays the queue once only.
            if head.asleep.compare_exchange(ASLEEP, PASSED, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            self.granted_at.store(now, Ordering::Relaxed);
            if self.swap(word, Word::new(State::Granted(slots.holder(no)), dead)) {
                wake(head);
            }
            return;
        }
    }

    /// True if a connection that was refused, and does not sleep through us, has been at it for longer than the queue's head.
    fn should_leave_free(&self, slots: &Slots, head: &Slot, now: u64) -> bool {
        if now.saturating_sub(self.left_at.load(Ordering::Relaxed)) < LEFT_FREE_EVERY {
            return false;
        }
        let since = head.place_since.load(Ordering::Relaxed);
        slots.used().any(|(_, slot)| {
            let last = slot.refused_last.load(Ordering::Relaxed);
            slot.sleeps.load(Ordering::Relaxed) == SLEEPS_ELSEWHERE
                && last != 0
                && now.saturating_sub(last) < GIVEN_UP
                && slot.refused_since.load(Ordering::Relaxed) < since
        })
    }

    /// True if a grant is not kept any longer.
    fn is_lapsed(&self, slots: &Slots, to: Holder, live: &Liveness) -> bool {
        let age = clock::now().saturating_sub(self.granted_at.load(Ordering::Relaxed));
        age >= EXPIRES || !slots.is_alive(to, live)
    }

    /// Who has the lock, dead or alive.
    pub fn holder(&self) -> Option<SlotNo> {
        match self.load().state() {
            State::Held(holder) => Some(holder.slot),
            _ => None,
        }
    }

    /// True if the lock is kept for `me`, which has yet to take it.
    pub fn granted_to(&self, slots: &Slots, me: SlotNo) -> bool {
        self.load().state() == State::Granted(slots.holder(me))
    }

    /// True if `me` holds the lock.
    pub fn held_by(&self, slots: &Slots, me: SlotNo) -> bool {
        self.load().state() == State::Held(slots.holder(me))
    }

    /// Connections that are inside [`wait`](Self::wait).
    pub fn waiting(&self, slots: &Slots) -> u32 {
        slots.used().filter(|(_, slot)| slot.asleep.load(Ordering::Relaxed) != AWAKE).count() as u32
    }

    /// Notes that `me` was refused the lock, or a snapshot new enough to use it.
    pub fn note_refusal(&self, slots: &Slots, me: SlotNo) {
        let slot = slots.get(me);
        let now = clock::now();
        let last = slot.refused_last.load(Ordering::Relaxed);
        let sleeps = slot.sleeps.load(Ordering::Relaxed);
        if last == 0 || now.saturating_sub(last) >= GIVEN_UP {
            slot.refused_since.store(now, Ordering::Relaxed);
            slot.sleeps.store(sleeps & !SLEPT, Ordering::Relaxed);
        } else {
            let kind = if sleeps & SLEPT != 0 { 0 } else { SLEEPS_ELSEWHERE };
            slot.sleeps.store(kind, Ordering::Relaxed);
        }
        slot.refused_last.store(now, Ordering::Relaxed);
    }

    /// xSleep of a connection that was refused: waits for the lock at its place in the queue, for at most `time`. True as soon as
    /// the lock is granted to it, which [`try_hold`](Self::try_hold) then takes; a dead holder's lock is granted likewise.
    pub fn wait(&self, slots: &Slots, me: SlotNo, time: Duration, live: &Liveness) -> bool {
        let slot = slots.get(me);
        let begin = clock::now();
        let deadline = begin.saturating_add(u64::try_from(time.as_nanos()).unwrap_or(u64::MAX));
        self.take_place(slot, begin);
        let mut before = None;
        let granted = loop {
            // Before the word is looked at: a grant after that look changes it, and the sleep ends at once.
            let woken = slot.wake.load(Ordering::Acquire);
            // Release: who sees it sees the ticket.
            slot.asleep.store(ASLEEP, Ordering::Release);
            self.waiters.store(1, Ordering::Release);
            fence(Ordering::SeqCst);
            let now = clock::now();
            let overslept = before.replace(woken) == Some(woken);
            let slice = match self.look(slots, me, now, overslept, live) {
                Look::Granted => break true,
                Look::Sleep(slice) => slice,
            };
            if now >= deadline {
                break false;
            }
            futex::wait(&slot.wake, woken, Some(Duration::from_nanos(slice.min(deadline - now))));
        };
        slot.asleep.store(AWAKE, Ordering::Release);
        let now = clock::now();
        let kept = PLACE_KEPT.max(now.saturating_sub(begin).saturating_mul(2));
        slot.place_until.store(now.saturating_add(kept), Ordering::Relaxed);
        granted || self.leave(slots, me)
    }

    fn take_place(&self, slot: &Slot, now: u64) {
        slot.sleeps.store(SLEPT, Ordering::Relaxed);
        let kept = slot.ticket.load(Ordering::Relaxed) != 0 && now < slot.place_until.load(Ordering::Relaxed);
        if !kept {
            slot.ticket.store(self.tickets.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            slot.place_since.store(now, Ordering::Relaxed);
        }
    }

    /// One look of a waiter at the lock; `overslept` if it slept a whole slice since the last one, and nobody woke it.
    fn look(&self, slots: &Slots, me: SlotNo, now: u64, overslept: bool, live: &Liveness) -> Look {
        let mine = slots.holder(me);
        loop {
            let word = self.load();
            let rank = rank(slots, me);
            // Who overslept does not ask whose turn it is: those before it may be stopped or dead.
            let my_turn = rank == 0 || overslept;
            let mut dead = word.dead();
            match word.state() {
                State::Granted(to) | State::Held(to) if to == mine => return Look::Granted,
                State::Free => {
                    let since = now.saturating_sub(self.left_at.load(Ordering::Relaxed));
                    if since < LEFT_FREE && self.left_at.load(Ordering::Relaxed) != 0 {
                        return Look::Sleep(LEFT_FREE - since);
                    }
                    if !my_turn {
                        return Look::Sleep(SLICE_FRONT);
                    }
                }
                State::Granted(to) => {
                    if !my_turn || !self.is_lapsed(slots, to, live) {
                        return Look::Sleep(SLICE_FRONT);
                    }
                }
                State::Held(by) => {
                    // The refusal before this wait has asked already.
                    if !overslept || slots.is_alive(by, live) {
                        return Look::Sleep(if rank < 2 { SLICE_FRONT } else { SLICE });
                    }
                    dead = dead.or(Some(by.slot));
                }
            }
            self.granted_at.store(now, Ordering::Relaxed);
            if self.swap(word, Word::new(State::Granted(mine), dead)) {
                return Look::Granted;
            }
        }
    }

    /// The end of a wait whose time was up: true if the grant came at the last moment.
    fn leave(&self, slots: &Slots, me: SlotNo) -> bool {
        let word = self.load();
        if word.state() == State::Free {
            // It may have been left free for us to come back to.
            self.hand_over(slots, word, false);
        }
        self.granted_to(slots, me)
    }
}

/// What a waiter found.
enum Look {
    /// The lock is for it.
    Granted,
    /// It is not; look again after so many nanoseconds.
    Sleep(u64),
}

fn wake(slot: &Slot) {
    slot.wake.fetch_add(1, Ordering::Release);
    futex::wake(&slot.wake, 1);
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

fn asleep(slots: &Slots) -> impl Iterator<Item = (u64, SlotNo, &Slot)> {
    let waiters = slots.used().filter(|(_, slot)| slot.asleep.load(Ordering::Acquire) == ASLEEP);
    waiters.map(|(no, slot)| (slot.ticket.load(Ordering::Relaxed), no, slot))
}

fn oldest_waiter(slots: &Slots) -> Option<(SlotNo, &Slot)> {
    asleep(slots).min_by_key(|(ticket, ..)| *ticket).map(|(_, no, slot)| (no, slot))
}

/// How many are before `me` in the queue.
fn rank(slots: &Slots, me: SlotNo) -> usize {
    let mine = slots.get(me).ticket.load(Ordering::Relaxed);
    asleep(slots).filter(|(ticket, ..)| *ticket < mine).count()
}
