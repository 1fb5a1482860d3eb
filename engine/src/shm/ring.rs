//! How far the ring of records has come: taken, published, written, flushed, free; and on `file` who writes it (P18).
//!
//! ```text
//! commit (holds the writer lock)           leader (holds the flush lock)
//!   pending := its number                    end = head, head := boundary at or behind it (one swap)
//!   head += its slots (one swap)             published >= end, or pending == 0 ?  else wait
//!   copies its record there                  the batch is what is published, if nothing ends behind `end`
//!   published := its end                     lock; writes up to the boundary; unlock
//!   the clock's published := its number      syncs
//!   pending := 0                             visible, durable := the batch
//! ```
//!
//! The swaps are in one order. If the commit's is first, the leader finds its number pending, and waits until the
//! record is whole. If the leader's is first, the commit's slots lie behind the boundary: no block of the batch is
//! written again.

use super::gate::Clock;
use super::segment::Shared;
use super::shape::{Shape, shape};
use crate::base::sync::{AtomicU64, Ordering};
use crate::base::{Jci, Result};
use crate::format::journal::SLOT;

const R: Ordering = Ordering::Relaxed;
/// Slots of a device block: batches start at its boundaries.
pub const BLOCK_SLOTS: u64 = 4096 / SLOT as u64;

/// Positions in the ring, counted in slots, never back to 0; and the commit being made, so that a taker over can finish
/// it.
///
/// | offset | word            | who changes it; what a stale read costs |
/// | ------ | --------------- | --- |
/// | 0      | `head`          | holder of the writer lock; on `file` also the flush leader, hence by compare-and-swap. Stale: the swap fails |
/// | 8      | `tail`          | holder of the retirement lock (`file`), of the writer lock (`dax`, `ram`), only up. Stale: a ring that looks fuller than it is |
/// | 16     | `published`     | holder of the writer lock, only up. Stale: a leader waits a turn longer, less is retired |
/// | 24     | `flushed`       | the flush leader, who alone reads it |
/// | 32     | `written`       | holder of the log lock, only up but for [`doubt`]. Stale: a waiter looks again, under that lock |
/// | 40     | `pending`       | holder of the writer lock. Stale: a leader waits a turn longer; a stale 0 is excluded, as it is set before the slots are taken that make the leader look |
/// | 48, 56 | `pending_*`     | holder of the writer lock, who alone reads them |
#[repr(C, align(64))]
#[derive(Debug)]
pub struct Ring {
    /// Slots below are taken.
    pub head: AtomicU64,
    /// Slots below are free.
    pub tail: AtomicU64,
    /// End of the newest published commit.
    pub published: AtomicU64,
    /// Everything below is in the file, synced (`file`).
    pub flushed: AtomicU64,
    /// Everything below is in the file, perhaps not synced (`file`).
    pub written: AtomicU64,
    /// The commit being made: 0, or its JCI.
    pub pending: AtomicU64,
    /// Where its slots begin, `u64::MAX` before they are taken.
    pub pending_at: AtomicU64,
    /// How many they are.
    pub pending_parts: AtomicU64,
}

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for Ring {
    const SHAPE: &'static Shape = shape!(Ring, 64:
        0 head, 8 tail, 16 published, 24 flushed, 32 written, 40 pending, 48 pending_at, 56 pending_parts
    );
}

impl Default for Ring {
    fn default() -> Self {
        Ring::new()
    }
}

impl Ring {
    /// Nothing taken, as zeroed memory says.
    #[must_use]
    pub fn new() -> Ring {
        let n = || AtomicU64::new(0);
        Ring {
            head: n(),
            tail: n(),
            published: n(),
            flushed: n(),
            written: n(),
            pending: n(),
            pending_at: n(),
            pending_parts: n(),
        }
    }

    /// Announces commit `jci`, and takes its slots. `alone` says that no leader moves the head meanwhile (`dax`,
    /// `ram`). For the holder of the writer lock. Answers the first of them.
    pub fn begin(&self, jci: Jci, parts: u64, alone: bool) -> u64 {
        // announced before its slots are taken: a flush leader that finds them taken waits for the commit
        self.pending_at.store(u64::MAX, R);
        self.pending_parts.store(parts, R);
        self.pending.store(jci.0, Ordering::Release);
        let at = if alone { self.take_alone(parts) } else { self.take(parts) };
        self.pending_at.store(at, R);
        at
    }

    fn take_alone(&self, n: u64) -> u64 {
        let at = self.head.load(Ordering::Acquire);
        self.head.store(at + n, Ordering::Release);
        at
    }

    fn take(&self, n: u64) -> u64 {
        let mut at = self.head.load(Ordering::Acquire);
        // the flush leader may move it up to a block boundary meanwhile
        while let Err(now) = self.head.compare_exchange_weak(at, at + n, Ordering::AcqRel, Ordering::Acquire) {
            at = now;
        }
        at
    }

    /// The record up to `end` is whole; `show` says so on the clock. The commit is no longer pending afterwards. In
    /// this order: a flush leader that sees the commit on the clock sees where it ends.
    pub fn publish(&self, end: u64, show: impl FnOnce()) {
        self.published.store(end, Ordering::Release);
        show();
        self.pending.store(0, Ordering::Release);
    }

    /// Ends the batch at a block boundary, so that no block with acknowledged records is written again. Answers its
    /// end.
    fn cut(&self) -> u64 {
        let mut at = self.head.load(Ordering::Acquire);
        loop {
            let end = at.next_multiple_of(BLOCK_SLOTS);
            match self.head.compare_exchange_weak(at, end, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => return at,
                Err(now) => at = now,
            }
        }
    }

    /// Whether the commit that took slots below `end`, a cut, is published.
    fn is_whole(&self, end: u64) -> bool {
        self.published.load(Ordering::Acquire) >= end || self.pending.load(Ordering::Acquire) == 0
    }

    /// The newest commit of a batch that ends at `end`: everything before it is published.
    fn newest(&self, end: u64, log: &impl Log) -> Jci {
        let published = log.clock().published();
        // what is published by now may end beyond the cut, if its slots were taken after it: then it is not in this
        // batch
        if self.published.load(Ordering::Acquire) <= end {
            return published;
        }
        let floor = self.flushed.load(Ordering::Acquire);
        // a hole holds an older lap's
        (floor..end).filter_map(|at| log.ends_at(at)).fold(log.clock().durable(), Jci::max)
    }
}

/// What those who write the ring to its file need beside it: the product's files and locks, or a model's.
pub trait Log {
    /// The ring.
    fn ring(&self) -> &Ring;
    /// The clock.
    fn clock(&self) -> &Clock;
    /// The commit whose last slot is the one at `at`, below a cut; `None` if there is none.
    fn ends_at(&self, at: u64) -> Option<Jci>;
    /// Waits for the commit in progress, for the `turn`th time.
    ///
    /// # Errors
    /// `Failed`, and what keeps a dead writer's commit from being finished.
    fn wait(&self, turn: u32) -> Result<()>;
    /// Takes the lock under which the file is written, unless it is `needless` to: true if it is taken.
    ///
    /// # Errors
    /// `Failed`.
    fn lock(&self, needless: impl Fn() -> bool) -> Result<bool>;
    /// Gives it back.
    fn unlock(&self);
    /// Writes the slots from `from`, the first of a block, to `end`, and zeros behind them to the end of that block.
    ///
    /// # Errors
    /// `Failed`: the region has, before another writes.
    fn write(&self, from: u64, end: u64) -> Result<()>;
    /// A batch begins, of everything up to `jci`. Answers its number.
    fn begin(&self, jci: Jci) -> u64;
    /// Makes durable what was written.
    ///
    /// # Errors
    /// Of the file.
    fn sync(&self) -> Result<()>;
}

/// Writes the blocks of the log that have slots of `[from, end)`, whereupon everything below `then` is written. Under
/// the lock of the log.
fn write(log: &impl Log, from: u64, end: u64, then: u64) -> Result<()> {
    log.write(from / BLOCK_SLOTS * BLOCK_SLOTS, end)?;
    log.ring().written.fetch_max(then, Ordering::AcqRel);
    Ok(())
}

/// Writes everything published by now, so that it survives this process. Not for a sync: what comes during one begins
/// in the next block, and is written beside it.
///
/// # Errors
/// Those of `log`.
pub fn write_through(log: &impl Log) -> Result<()> {
    let ring = log.ring();
    let end = ring.published.load(Ordering::Acquire);
    if !log.lock(|| ring.written.load(Ordering::Acquire) >= end)? {
        return Ok(());
    }
    // what others have published meanwhile, too
    let end = ring.published.load(Ordering::Acquire);
    let written = write(log, ring.written.load(Ordering::Acquire), end, end);
    log.unlock();
    written
}

/// Takes nothing for written that was not synced: it may be what one that is dead now failed to sync, which the page cache takes
/// for clean (P18). Under the flush lock, before anything else that is done under it.
///
/// # Errors
/// Those of `log`.
pub fn doubt(log: &impl Log) -> Result<()> {
    log.lock(|| false)?;
    let ring = log.ring();
    ring.written.store(ring.flushed.load(Ordering::Acquire), Ordering::Release);
    log.unlock();
    Ok(())
}

/// Writes and syncs everything published. Under the flush lock. Answers the number of the batch.
///
/// # Errors
/// Those of `log`.
pub fn lead(log: &impl Log) -> Result<u64> {
    let ring = log.ring();
    let end = ring.cut();
    let mut turn = 0;
    while !ring.is_whole(end) {
        log.wait(turn)?;
        turn = turn.saturating_add(1);
    }
    let jci = ring.newest(end, log);
    let batch = log.begin(jci);
    let boundary = end.next_multiple_of(BLOCK_SLOTS);
    log.lock(|| false)?;
    let from = ring.written.load(Ordering::Acquire).max(ring.flushed.load(Ordering::Acquire));
    // others go on behind the boundary while this is synced: a block that has records of the batch is left alone
    let written = write(log, from, end, boundary);
    log.unlock();
    written?;
    log.sync()?;
    ring.flushed.store(boundary, Ordering::Release);
    // visible first: who waits for `durable` pins what is visible next, and finds what it waited for; and a writer that
    // goes on when its commit is durable drops the pin that kept it readable until it is visible (P10)
    log.clock().set_visible(jci);
    log.clock().set_durable(jci);
    Ok(batch)
}
