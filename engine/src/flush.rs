//! Durability on `file`: the batch (P18). Whoever waits first leads: it writes everything published since the last
//! flush in one sequential write, syncs once, and all whose commits were in it go on. A dead leader is replaced by any
//! waiter, who writes the same bytes at the same places again. Who does not wait for the device (P5) writes the log,
//! too, beside a sync that is under way. One that lives and is stopped in the middle of it is waited for as long as
//! that lasts: replaced, it would write its older bytes over newer ones when it goes on. The steps are those of
//! [`shm::lead`] and [`shm::write_through`]; here is what they are taken with.

use crate::base::sync::{Ordering, spin};
use crate::base::{Jci, Result};
use crate::engine::{COMMITTED, Engine, Region};
use crate::format::journal::SLOT;
use crate::medium::{Disk, Site};
use crate::shared::tally;
use crate::shm::{self, BLOCK_SLOTS, Clock, Lock, Log, Ring, SlotNo, now};
use std::ops::RangeInclusive;
use std::time::Duration;

/// How long a waiter sleeps before it looks whether the leader lives.
const SLICE: Duration = Duration::from_millis(50);
/// How many times the time of a flush a batch waits for more commits at most. Measured with 8 writers on 2 processors: against
/// once, TPC-C gains 3 %, with half the flushes; more gains nothing.
const GATHER: u64 = 3;
/// How long the leader pauses between two looks for them, in instructions: some 500 ns.
const PAUSES: u32 = 20;
/// How often to look for the lock of the log file at once, by turns with the processor's other work: longer than a write takes.
const LOOKS: u32 = 1 << 6;
/// How often to look at once whether the commit in progress is published, and how long to wait before each look after that.
const TURNS: u32 = 1 << 14;
const PAUSE: Duration = Duration::from_micros(100);
/// After a batch that waited for more commits in vain, so many do not.
const IN_VAIN: u64 = 16;
/// The log is really written with zeros in steps of so many slots, each as long as what there is, ahead of its first use.
const ZERO_SLOTS: RangeInclusive<u64> = 64..=1024;
/// So many slots of the ring get their memory first: all that a database needs which is opened for a few commits. Half of the
/// least ring.
pub const FIRST_SLOTS: u64 = 128;

/// Whether a flush is begun for `come` commits although `left` more are to come: half are there, and the others, one in each
/// `pace` nanoseconds, work for longer than the `took` of a flush. By a margin: where it is the flush that takes longer,
/// batches of half make commits exactly so slow that this would hold, and would go on although whole ones are faster.
fn goes_beside(come: u64, left: u64, pace: u64, took: u64) -> bool {
    come >= left && left.saturating_mul(pace).saturating_mul(4) >= took.saturating_mul(5)
}

impl Engine {
    /// Waits until everything up to `jci` is durable; leads the flush if nobody does.
    pub fn flush(&self, slot: SlotNo, jci: Jci) -> Result<()> {
        let Region::Disk(disk) = &self.region else { return Ok(()) };
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let done = || head.clock.durable() >= jci;
        loop {
            let seen = head.batches.seen();
            if done() {
                return Ok(());
            }
            self.shared.check()?;
            let after_death = match head.flush.try_lock(slots, slot, &self.live) {
                Lock::Locked => false,
                Lock::LockedAfterDeath { .. } => true,
                Lock::Busy => {
                    head.batches.wait(seen, jci, SLICE);
                    continue;
                }
            };
            // Whoever has the lock next finds that it failed: that of what could not be written is not known what is there,
            // and a sync tried again may say that all is well (P18).
            let log = Writing { engine: self, slot, disk: disk.as_ref() };
            let lead = || {
                if after_death || head.unsettled.load(Ordering::Acquire) > 0 {
                    shm::doubt(&log)?;
                }
                if done() {
                    return Ok(None);
                }
                // those to come wait for the lock that whoever writes homes has
                if slot != self.maintainer && head.writer.holder() != Some(slot) {
                    self.gather(head.clock.durable());
                }
                shm::lead(&log).map(Some)
            };
            let led = self.shared.check().and_then(|()| lead().map_err(|error| self.shared.fail(&error)));
            head.flush.unlock(slot);
            match led {
                Ok(Some(batch)) => head.batches.through(batch),
                Ok(None) => head.batches.wake_all(),
                Err(failed) => {
                    head.batches.wake_all();
                    return Err(failed);
                }
            }
        }
    }

    /// Waits until everything published by now was written to the log file, so that it survives this process. Not for a sync:
    /// what comes during one begins in the next block, and is written beside it.
    pub fn write_through(&self, slot: SlotNo) -> Result<()> {
        let Region::Disk(disk) = &self.region else { return Ok(()) };
        shm::write_through(&Writing { engine: self, slot, disk: disk.as_ref() })
    }

    /// Takes the lock under which the log file is written, unless it is `needless` to: true if it is taken. Nobody has it for
    /// longer than a write takes, unless stopped.
    fn lock_log(&self, slot: SlotNo, needless: impl Fn() -> bool) -> Result<bool> {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let mut looks = 0;
        loop {
            if needless() {
                return Ok(false);
            }
            self.shared.check()?;
            // what a dead one has written is not counted as written: it is written again
            if let Lock::Locked | Lock::LockedAfterDeath { .. } = head.log.try_lock(slots, slot, &self.live) {
                return match self.shared.check() {
                    Ok(()) => Ok(true),
                    Err(failed) => {
                        head.log.unlock(slot);
                        Err(failed)
                    }
                };
            }
            if looks < LOOKS {
                looks += 1;
                (0..PAUSES).for_each(|_| spin());
                std::thread::yield_now();
            } else {
                std::thread::sleep(PAUSE);
            }
        }
    }

    /// Waits for those whose commits the last batch made durable, as they are likely to commit again at once: a batch that
    /// began without them would make them wait for the whole of the next. For a few times the time of a flush at most, not
    /// at all when there is none but us, and only now and then where it was in vain of late.
    ///
    /// Not for all of them where commits take longer than flushes: once half are there, and the work of the others outlasts a
    /// flush, that goes on beside the work. Were it to wait for more, nobody had anything to do while it flushes.
    fn gather(&self, durable: Jci) {
        let (head, slots) = (self.shared.head(), self.shared.slots());
        let batches = &head.batches;
        let before = batches.before.load(Ordering::Relaxed);
        let (took, pace) = (batches.took.load(Ordering::Relaxed), batches.pace.load(Ordering::Relaxed));
        let to_come = || {
            let (mut come, mut left) = (0, 0);
            for (_, slot) in slots.used() {
                let last = slot.words[COMMITTED].load(Ordering::Relaxed);
                come += u64::from(last > durable.0);
                left += u64::from((before + 1..=durable.0).contains(&last));
            }
            left > 0 && !goes_beside(come, left, pace, took)
        };
        if !to_come() {
            return;
        }
        let skip = batches.skip.load(Ordering::Relaxed);
        if skip > 0 {
            batches.skip.store(skip - 1, Ordering::Relaxed);
            return;
        }
        let (began, published) = (now(), head.clock.published());
        while to_come() && now().saturating_sub(began) < GATHER * took {
            // each yield takes the run queue's lock, which those who are to come need to be woken
            (0..PAUSES).for_each(|_| spin());
            std::thread::yield_now();
        }
        if head.clock.published() == published {
            batches.skip.store(IN_VAIN, Ordering::Relaxed);
        }
    }

    /// Notes that a batch of so many commits was closed.
    fn closed(&self, commits: u64) {
        let batches = &self.shared.head().batches;
        let (at, took, pace) = (now(), batches.took.load(Ordering::Relaxed), batches.pace.load(Ordering::Relaxed));
        let each = (at.saturating_sub(batches.began.load(Ordering::Relaxed)) / commits.max(1)).min(took);
        batches.pace.store(pace - pace / 8 + each / 8, Ordering::Relaxed);
        batches.began.store(at, Ordering::Relaxed);
    }

    /// Writes the blocks that have slots of `[from, end)`; `from` is the first of one. What is behind `end` in the last of them
    /// may be a record that is being copied there: it is zeros in the file. Were its writer to die, what the file had of it
    /// could be taken for a part of the next commit of that number.
    fn write_slots(&self, disk: &dyn Disk, from: u64, end: u64) -> Result<()> {
        let (mut at, to) = (from, end.next_multiple_of(BLOCK_SLOTS));
        let mut buffer = Vec::new();
        while at < to {
            let lap_end = (at / self.layout.ring_slots + 1) * self.layout.ring_slots;
            let n = (to.min(lap_end) - at).min(*ZERO_SLOTS.end());
            buffer.resize(n as usize * SLOT, 0);
            self.shared.segment.copy_out(self.mirror_at(at), &mut buffer);
            buffer[(n.min(end - at) as usize * SLOT)..].fill(0);
            disk.write_at(self.layout.slot_at(at), &buffer)?;
            tally(&self.shared.head().counters.log_bytes_written, buffer.len() as u64);
            at += n;
        }
        Ok(())
    }

    /// Makes memory present in the mapping under the `need` slots that are taken next, so that no store there can fault: under the
    /// first of the ring, then under all of it, lest others take the room meanwhile. By the holder of the writer lock, who
    /// prepares a commit: it can still be refused. Who dies in between leaves memory present that is made so again. The region
    /// has the storage for all of the ring since it was made, which costs no time: what is in the mapping can be written.
    pub fn back_ring(&self, need: u64) -> Result<()> {
        if self.mapped() {
            return Ok(());
        }
        let head = self.shared.head();
        let (present, all) = (head.ring_present.load(Ordering::Relaxed), self.layout.ring_slots);
        let needed = all.min(head.ring.head.load(Ordering::Acquire) + need); // all of it, from the second lap on
        if needed <= present {
            return Ok(());
        }
        let end = if needed <= FIRST_SLOTS { all.min(FIRST_SLOTS) } else { all };
        let len = (end - present) * SLOT as u64;
        self.shared.segment.commit(self.shared.places.ring + present * SLOT as u64, len)?;
        head.ring_present.store(end, Ordering::Relaxed);
        Ok(())
    }

    /// Overwriting costs a third less than extending: the log's blocks are written once before their first use.
    fn write_zeros(&self, disk: &dyn Disk, end: u64) -> Result<()> {
        let head = self.shared.head();
        let done = head.zeroed.load(Ordering::Relaxed);
        let step = done.clamp(*ZERO_SLOTS.start(), *ZERO_SLOTS.end());
        if done >= self.layout.ring_slots || end + step / 4 <= done {
            return Ok(());
        }
        // no block is to be zeroed that has records
        let n = step.max(end.saturating_sub(done).next_multiple_of(BLOCK_SLOTS)).min(self.layout.ring_slots - done);
        disk.write_at(self.layout.slot_at(done), &vec![0; n as usize * SLOT])?;
        tally(&head.counters.log_bytes_written, n * SLOT as u64);
        head.zeroed.store(done + n, Ordering::Relaxed);
        Ok(())
    }
}

/// The log of a database, as one connection writes it.
struct Writing<'a> {
    engine: &'a Engine,
    slot: SlotNo,
    disk: &'a dyn Disk,
}

impl Log for Writing<'_> {
    fn ring(&self) -> &Ring {
        &self.engine.shared.head().ring
    }

    fn clock(&self) -> &Clock {
        &self.engine.shared.head().clock
    }

    fn ends_at(&self, at: u64) -> Option<Jci> {
        let part = self.engine.part_at(at, &mut [0u8; SLOT]);
        part.filter(|h| h.part + 1 == h.parts).map(|h| h.jci)
    }

    /// A few stores away, unless its owner is dead, or stopped.
    fn wait(&self, turn: u32) -> Result<()> {
        if turn < TURNS {
            spin();
            return Ok(());
        }
        std::thread::sleep(PAUSE);
        let shared = &self.engine.shared;
        if self.engine.hold(self.slot)? {
            shared.head().writer.release(shared.slots(), self.slot);
        }
        shared.check()
    }

    fn lock(&self, needless: impl Fn() -> bool) -> Result<bool> {
        self.engine.lock_log(self.slot, needless)
    }

    fn unlock(&self) {
        self.engine.shared.head().log.unlock(self.slot);
    }

    fn write(&self, from: u64, end: u64) -> Result<()> {
        let written = self.engine.write_zeros(self.disk, end);
        let written = written.and_then(|()| self.engine.write_slots(self.disk, from, end));
        written.map_err(|error| self.engine.shared.fail(&error))
    }

    fn begin(&self, jci: Jci) -> u64 {
        let head = self.engine.shared.head();
        self.engine.closed(jci.0.saturating_sub(head.clock.durable().0));
        head.batches.begin(jci)
    }

    fn sync(&self) -> Result<()> {
        let head = self.engine.shared.head();
        let began = now();
        self.disk.sync(Site::Batch)?;
        let took = head.batches.took.load(Ordering::Relaxed);
        let this = now().saturating_sub(began);
        head.batches.took.store(took - took / 8 + this / 8, Ordering::Relaxed);
        tally(&head.counters.syncs, 1);
        tally(&head.counters.batches, 1);
        head.batches.before.store(head.clock.durable().0, Ordering::Relaxed);
        Ok(())
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    /// Whether `n` writers with transactions of `work` nanoseconds go on with batches of half, if they have them (or not).
    fn stays(n: u64, work: u64, took: u64, halves: bool) -> bool {
        let whole = (n * work + took) / n;
        let half = work.max(took / (n / 2));
        goes_beside(n / 2, n / 2, if halves { half } else { whole }, took)
    }

    #[test]
    fn batches_of_half_are_for_transactions_that_outlast_the_flush() {
        // Failure: eight writers of single rows flush twice as often as they have to, for ever; or eight of long transactions
        // all stand still at each flush.
        for halves in [false, true] {
            assert!(stays(8, 130_000, 250_000, halves), "long transactions, {halves}");
            assert!(!stays(8, 8_000, 250_000, halves), "short ones, {halves}");
            assert!(!stays(2, 130_000, 250_000, halves), "two writers, {halves}");
        }
        assert!(!goes_beside(3, 5, 130_000, 250_000), "less than half");
        assert!(goes_beside(4, 4, 250_000, 250_000) && goes_beside(9, 2, u64::MAX, 250_000));
    }
}
