//! Commits take slots of the ring and fill them while a leader of the flush cuts a batch off, writes and syncs it, and
//! a commit below FULL writes beside it (P18): the product's own [`Ring`], [`lead`] and [`write_through`].
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use nvlite_engine::Result;
use nvlite_engine::base::Jci;
use nvlite_engine::shm::{BLOCK_SLOTS, Clock, Log, Ring, lead, write_through};
use std::cell::Cell;

const BLOCKS: usize = 5;
const SLOTS: usize = BLOCKS * BLOCK_SLOTS as usize;

/// A slot: the commit whose it is, and whether it is the last of that; 0 before.
type Part = (u64, bool);
type Block = [Part; BLOCK_SLOTS as usize];

struct World {
    ring: Ring,
    clock: Clock,
    writer: Mutex<()>,
    flush: Mutex<()>,
    /// The log lock.
    log: AtomicU64,
    mirror: [UnsafeCell<Part>; SLOTS],
    file: [UnsafeCell<Block>; BLOCKS],
    known: std::sync::Mutex<Known>,
    /// Of a sync, what loom knows of it.
    device: AtomicU64,
}

/// What the model knows in the order in which things happen.
#[derive(Default)]
struct Known {
    /// Where the slots of the commits lie, from the first on, and how many they are.
    commits: Vec<(u64, u64)>,
    file: [Block; BLOCKS],
    /// What a sync has made durable.
    synced: [Block; BLOCKS],
    /// Blocks below this are being synced, or were.
    begun: usize,
}

// SAFETY: what is under test; loom reports a slot or block that is read while it is written.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// Which ways batches went, over all the runs of a model.
#[derive(Default)]
struct Seen {
    whole: std::sync::atomic::AtomicUsize,
    cut_off: std::sync::atomic::AtomicUsize,
}

/// The log as one connection writes it.
struct Writing<'a> {
    w: &'a World,
    end: Cell<u64>,
    seen: &'a Seen,
}

impl Log for Writing<'_> {
    fn ring(&self) -> &Ring {
        &self.w.ring
    }

    fn clock(&self) -> &Clock {
        &self.w.clock
    }

    fn ends_at(&self, at: u64) -> Option<Jci> {
        // SAFETY: loom checks it.
        let (jci, last) = self.w.mirror[at as usize].with(|p| unsafe { *p });
        last.then_some(Jci(jci))
    }

    fn wait(&self, _turn: u32) -> Result<()> {
        thread::yield_now();
        Ok(())
    }

    fn lock(&self, needless: impl Fn() -> bool) -> Result<bool> {
        loop {
            if needless() {
                return Ok(false);
            }
            if self.w.log.compare_exchange(0, 1, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                return Ok(true);
            }
            thread::yield_now();
        }
    }

    fn unlock(&self) {
        self.w.log.store(0, Ordering::Release);
    }

    fn write(&self, from: u64, end: u64) -> Result<()> {
        let mut known = self.w.known.lock().expect("no panic");
        for block in (from / BLOCK_SLOTS) as usize..end.div_ceil(BLOCK_SLOTS) as usize {
            assert!(block >= known.begun, "block {block} is written again");
            let slots = (block as u64 * BLOCK_SLOTS..).take(BLOCK_SLOTS as usize);
            let mut content = Block::default();
            for (part, at) in content.iter_mut().zip(slots.filter(|&at| at < end)) {
                // SAFETY: loom checks it.
                *part = self.w.mirror[at as usize].with(|p| unsafe { *p });
            }
            // SAFETY: loom checks it.
            self.w.file[block].with_mut(|p| unsafe { *p = content });
            known.file[block] = content;
        }
        self.end.set(end);
        Ok(())
    }

    fn begin(&self, jci: Jci) -> u64 {
        let known = self.w.known.lock().expect("no panic");
        let way = if jci.0 < known.commits.len() as u64 { &self.seen.cut_off } else { &self.seen.whole };
        way.fetch_add(1, Ordering::Relaxed);
        0
    }

    fn sync(&self) -> Result<()> {
        self.w.device.fetch_add(1, Ordering::Relaxed);
        let mut known = self.w.known.lock().expect("no panic");
        let blocks = self.end.get().div_ceil(BLOCK_SLOTS) as usize;
        known.begun = known.begun.max(blocks);
        for block in 0..blocks {
            // SAFETY: loom checks it.
            known.synced[block] = self.w.file[block].with(|p| unsafe { *p });
        }
        Ok(())
    }
}

/// Whether `file` has all slots of commit `jci`.
fn has(file: &[Block; BLOCKS], commits: &[(u64, u64)], jci: u64) -> bool {
    let (at, parts) = commits[jci as usize - 1];
    (at..at + parts).all(|i| file.as_flattened()[i as usize] == (jci, i + 1 == at + parts))
}

impl World {
    fn new() -> Arc<World> {
        Arc::new(World {
            ring: Ring::new(),
            clock: Clock::new(),
            writer: Mutex::new(()),
            flush: Mutex::new(()),
            log: AtomicU64::new(0),
            mirror: std::array::from_fn(|_| UnsafeCell::new(Part::default())),
            file: std::array::from_fn(|_| UnsafeCell::new(Block::default())),
            known: std::sync::Mutex::default(),
            device: AtomicU64::new(0),
        })
    }

    /// As `Engine::publish` does it.
    fn commit(&self, parts: u64) -> u64 {
        let lock = self.writer.lock().expect("no panic");
        let jci = self.clock.published().next();
        let at = self.ring.begin(jci, parts, false);
        self.known.lock().expect("no panic").commits.push((at, parts));
        for i in at..at + parts {
            // SAFETY: loom checks it.
            self.mirror[i as usize].with_mut(|p| unsafe { *p = (jci.0, i + 1 == at + parts) });
        }
        self.ring.publish(at + parts, || self.clock.publish(jci));
        drop(lock);
        jci.0
    }

    fn lead(&self, seen: &Seen) {
        lead(&Writing { w: self, end: Cell::new(0), seen }).expect("nothing to fail");
        let known = self.known.lock().expect("no panic");
        for jci in 1..=self.clock.durable().0 {
            assert!(has(&known.synced, &known.commits, jci), "commit {jci} is not durable");
        }
    }

    /// As `Engine::flush` does it.
    fn flush(&self, jci: u64, seen: &Seen) {
        while self.clock.durable().0 < jci {
            let lock = self.flush.lock().expect("no panic");
            if self.clock.durable().0 < jci {
                self.lead(seen);
            }
            drop(lock);
        }
    }

    fn commit_full(&self, parts: u64, seen: &Seen) {
        let jci = self.commit(parts);
        self.flush(jci, seen);
        self.device.load(Ordering::Relaxed); // loom: that may be before a sync
        let known = self.known.lock().expect("no panic");
        assert!(has(&known.synced, &known.commits, jci), "commit {jci} was called durable too early");
    }

    fn commit_below_full(&self, parts: u64, seen: &Seen) {
        let jci = self.commit(parts);
        write_through(&Writing { w: self, end: Cell::new(0), seen }).expect("nothing to fail");
        let known = self.known.lock().expect("no panic");
        assert!(has(&known.file, &known.commits, jci), "commit {jci} is not written");
    }
}

type Role = fn(&World, &Seen);

/// Runs them side by side. Both batches that have all commits begun so far, and such that leave one out, must occur.
fn model(roles: &'static [Role], preemptions: usize) {
    let seen = std::sync::Arc::new(Seen::default());
    let own = seen.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(move || {
        let w = World::new();
        let spawn = |role: &'static Role| {
            let (w, seen) = (w.clone(), own.clone());
            thread::spawn(move || role(&w, &seen))
        };
        let others: Vec<_> = roles[1..].iter().map(spawn).collect();
        roles[0](&w, &own);
        others.into_iter().for_each(|other| other.join().expect("no panic"));
    });
    let [whole, cut_off] = [&seen.whole, &seen.cut_off].map(|n| n.load(Ordering::Relaxed));
    assert!(whole > 0 && cut_off > 0, "{whole} whole, {cut_off} cut off");
}

#[test]
fn p18_a_batch_has_every_slot_of_every_commit_in_it() {
    // Failure: a leader syncs a record that is half there: it does not wait, or finds nothing pending, because the
    // commit is announced after its slots are taken, or one of the swaps, `published` or `pending` are Relaxed. Or it
    // says of a commit behind the cut that it is durable: it never looks where that ends, or before it looks at the
    // clock, or the commit is on the clock before its end is said, or the clock is Relaxed.
    model(
        &[
            |w, seen| w.commit_full(3, seen),
            |w, _| {
                w.commit(2);
                w.commit(3);
            },
        ],
        6,
    );
}

#[test]
fn p18_two_leaders_by_turns_miss_no_commit() {
    // Failure: as above; or the head stays where it is, and the second commit lies in a block that counts as written;
    // or what is durable is said before it is synced, and another goes on.
    model(&[|w, seen| w.commit_full(3, seen), |w, seen| w.commit_full(2, seen)], 6);
}

#[test]
fn p18_no_block_is_written_again_while_it_is_synced() {
    // Failure: a commit below FULL writes the block that a batch ended in, which a power cut may tear then: the leader
    // does not lock, says that it has written as far as the end instead of the boundary, or says so after it has
    // unlocked; or who writes beside it looks what is written before it has the lock. Or it writes up to the head,
    // which is not filled yet.
    model(&[|w, seen| w.commit_full(3, seen), |w, seen| w.commit_below_full(2, seen)], 6);
}

#[test]
fn p18_a_commit_below_full_writes_beside_a_leader_and_a_writer() {
    // Failure: as above; or one of them writes what the third has not filled yet.
    model(
        &[
            |w, seen| w.commit_full(3, seen),
            |w, seen| w.commit_below_full(2, seen),
            |w, _| {
                w.commit(2);
            },
        ],
        3,
    );
}
