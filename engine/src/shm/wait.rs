//! The waiters' side of the writer queue: xSleep after a refusal (P11).
//!
//! A waiter is woken by the grant. It also looks for itself at intervals, for what nobody wakes it for: the holder has died, the
//! one before it in the queue does not come for its grant, a waker died between storing and waking. One of them stays awake for
//! a while.

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

/// For how long one waiter watches before it sleeps. Measured with two processors: single-row updates of two writers in memory
/// are six times as many as without, of four a third more; TPC-C of eight on a disk gains 3 %, 2 % with a third of this.
const WATCH: u64 = MS;
/// How long it pauses between two looks, in instructions: some 500 ns.
const PAUSES: u32 = 20;
/// After a watch in which the lock went to nobody, so many are left out.
const IN_VAIN: u32 = 16;

/// What a waiter found.
enum Look {
    /// The lock is for it.
    Granted,
    /// It is not; look again after so many nanoseconds.
    Sleep(u64),
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
        let mut watched = false;
        let granted = loop {
            // Before the word is looked at: a grant after that look changes it, and the sleep ends at once.
            let woken = slot.wake.load(Ordering::Acquire);
            // Release: who sees it sees the ticket.
            slot.asleep.store(ASLEEP, Ordering::Release);
            self.waiters.swap(1, Ordering::AcqRel);
            fence(Ordering::SeqCst);
            let now = clock::now();
            let overslept = before.replace(woken) == Some(woken);
            let Look::Sleep(slice) = self.look(slots, me, now, overslept, live) else { break true };
            if now >= deadline {
                break false;
            }
            let slice = slice.min(deadline - now);
            if !watched && several_processors() {
                watched = true;
                if self.watch(now, WATCH.min(slice), || slot.wake.load(Ordering::Relaxed) != woken) {
                    continue;
                }
            }
            let watched_for = clock::now().saturating_sub(now);
            slot.sleep(woken, Duration::from_nanos(slice.saturating_sub(watched_for)));
        };
        slot.asleep.store(AWAKE, Ordering::Release);
        let now = clock::now();
        let kept = PLACE_KEPT.max(now.saturating_sub(begin).saturating_mul(2));
        slot.place_until.store(now.saturating_add(kept), Ordering::Relaxed);
        granted || self.leave(slots, me)
    }

    /// Watches for at most so many nanoseconds from `now`, unless another waiter does: true as soon as it is `woken`. A processor
    /// that has nothing else to do then need not be woken for whoever gets the lock, this one or another, which takes longer
    /// than many transactions. What else there is to be done goes first. Only now and then where the lock is held for longer.
    fn watch(&self, now: u64, most: u64, woken: impl Fn() -> bool) -> bool {
        let skip = self.skip_watches.load(Ordering::Relaxed);
        let until = self.watched_until.load(Ordering::Relaxed);
        // of one that died it expires; from further ahead it is that of a process with another clock
        if until > now && until - now <= WATCH {
            return false;
        }
        if skip > 0 {
            self.skip_watches.store(skip - 1, Ordering::Relaxed);
            return false;
        }
        let mine = now.saturating_add(most);
        if self.watched_until.compare_exchange(until, mine, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return false;
        }
        let granted = self.granted_at.load(Ordering::Relaxed);
        let woken = loop {
            (0..PAUSES).for_each(|_| spin());
            // to those who have work, the holder first of all
            std::thread::yield_now();
            if woken() {
                break true;
            }
            if clock::now() >= mine {
                break false;
            }
        };
        if !woken && self.granted_at.load(Ordering::Relaxed) == granted {
            self.skip_watches.store(IN_VAIN, Ordering::Relaxed);
        }
        let _ = self.watched_until.compare_exchange(mine, 0, Ordering::Relaxed, Ordering::Relaxed);
        woken
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
        if matches!(word.state(), State::Free | State::Left) {
            // It may have been left free for us to come back to.
            self.hand_over(slots, word, false);
        }
        self.granted_to(slots, me)
    }
}

fn several_processors() -> bool {
    static PROCESSORS: OnceLock<usize> = OnceLock::new();
    !cfg!(loom) && *PROCESSORS.get_or_init(|| std::thread::available_parallelism().map_or(1, usize::from)) > 1
}

/// How many are before `me` in the queue.
fn rank(slots: &Slots, me: SlotNo) -> usize {
    let mine = slots.get(me).ticket.load(Ordering::Relaxed);
    asleep(slots).filter(|(ticket, ..)| *ticket < mine).count()
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn one_waiter_watches() {
        // Failure: all that wait keep all processors busy.
        let (lock, now) = (WriterLock::new(), clock::now());
        let woken = lock.watch(now, WATCH, || !lock.watch(now, WATCH, || panic!("two of them watch")));
        assert!(woken);
        assert!(lock.watch(now, WATCH, || true), "the first has ended");
    }

    #[test]
    fn the_watch_of_a_dead_waiter_expires() {
        // Failure: nobody watches any more after one died in it, or had another clock.
        let lock = WriterLock::new();
        let now = clock::now();
        lock.watched_until.store(now + WATCH, Ordering::Relaxed);
        assert!(!lock.watch(now, WATCH, || true), "it may live");
        assert!(lock.watch(now + WATCH, WATCH, || true));
        lock.watched_until.store(now + 1000 * WATCH, Ordering::Relaxed);
        assert!(lock.watch(now, WATCH, || true), "nobody watches for that long");
    }

    #[test]
    fn watches_in_vain_become_rare() {
        // Failure: each sleep during a transaction of seconds begins with a millisecond of work for nothing.
        let lock = WriterLock::new();
        let watches = |n: u32| (0..n).filter(|_| lock.watch(clock::now(), WATCH, || true)).count();
        assert!(!lock.watch(clock::now(), 1, || false), "its time is up");
        assert_eq!(watches(IN_VAIN), 0);
        assert_eq!(watches(3), 3);
        let passes_on = || {
            lock.granted_at.fetch_add(1, Ordering::Relaxed);
            false
        };
        assert!(!lock.watch(clock::now(), 1, passes_on));
        assert_eq!(watches(1), 1, "others were granted the lock meanwhile");
    }
}
