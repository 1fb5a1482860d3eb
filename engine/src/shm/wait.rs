//! The waiters' side of the writer queue: xSleep after a refusal (P11).
//!
//! A waiter is woken by the grant. It also looks for itself at intervals, for what nobody wakes it for: the holder has died, the
//! one before it in the queue does not come for its grant, a waker died between storing and waking.

use super::clock;
use super::liveness::Liveness;
use super::queue::{GIVEN_UP, GRANT_EXPIRES, MS, WriterLock, asleep};
use super::slot::{ASLEEP, AWAKE, SLEEPS_ELSEWHERE, SLEPT, Slot, SlotNo};
use super::slots::Slots;
use super::word::{State, Word};
use crate::base::sync::{Ordering, fence, spin};
use std::sync::OnceLock;
use std::time::Duration;

/// How long the first two of the queue, and the others, sleep before looking for themselves.
const SLICE_FRONT: u64 = GRANT_EXPIRES.as_nanos() as u64;
const SLICE: u64 = 50 * MS;
/// Least time for which a place in the queue is kept between two sleeps.
const PLACE_KEPT: u64 = 10 * MS;

/// For how long the next one spins before it sleeps: a short transaction is over by then, and a wake-up takes as long.
const SPIN: u64 = 30_000;

/// What a waiter found.
enum Look {
    /// The lock is for it.
    Granted,
    /// It is not; look again after so many nanoseconds.
    Sleep(u64),
    /// The same, but it is next.
    Next(u64),
}

impl WriterLock {
    /// Notes that `me` was refused the lock, or a snapshot new enough to use it.
    pub fn note_refusal(&self, slots: &Slots, me: SlotNo) {
        let slot = slots.get(me);
        let now = clock::now();
        let last = slot.refused_last.load(Ordering::Relaxed);
        let sleeps = slot.sleeps.load(Ordering::Relaxed);
        if last == 0 || now.wrapping_sub(last) >= GIVEN_UP {
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
            self.waiters.swap(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            let now = clock::now();
            let overslept = before.replace(woken) == Some(woken);
            let (slice, next) = match self.look(slots, me, now, overslept, live) {
                Look::Granted => break true,
                Look::Sleep(slice) => (slice, false),
                Look::Next(slice) => (slice, true),
            };
            if now >= deadline {
                break false;
            }
            let slice = slice.min(deadline - now);
            if next && spin_for(SPIN.min(slice), || slot.wake.load(Ordering::Relaxed) != woken) {
                continue;
            }
            slot.sleep(woken, Duration::from_nanos(slice));
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
                State::Left if self.left_for(now) != 0 => return Look::Sleep(self.left_for(now).max(1)),
                State::Free | State::Left => {
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
                        let slice = if rank < 2 { SLICE_FRONT } else { SLICE };
                        return if rank == 0 { Look::Next(slice) } else { Look::Sleep(slice) };
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
        if matches!(word.state(), State::Free | State::Left) {
            // It may have been left free for us to come back to.
            self.hand_over(slots, word, false);
        }
        self.granted_to(slots, me)
    }
}

/// Spins until `done`, for at most so many nanoseconds; true if it is done. Not where there is but one processor.
fn spin_for(nanos: u64, done: impl Fn() -> bool) -> bool {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    let processors = *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from));
    if cfg!(loom) || processors == 1 {
        return false;
    }
    let begin = clock::now();
    while !done() {
        if clock::now().wrapping_sub(begin) > nanos {
            return false;
        }
        (0..16).for_each(|_| spin());
    }
    true
}

/// How many are before `me` in the queue.
fn rank(slots: &Slots, me: SlotNo) -> usize {
    let mine = slots.get(me).ticket.load(Ordering::Relaxed);
    asleep(slots).filter(|(ticket, ..)| *ticket < mine).count()
}
