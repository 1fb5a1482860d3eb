//! A block is used again under a reader that is still at it (P12): by a pin missed (an old version), by a read in progress missed (a
//! block that moved), or by a pointer missed (xFetch).
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use nvlite_engine::base::Jci;
use nvlite_engine::models::Block;
use nvlite_engine::shm::{AttachmentNo, Clock, Grace, Liveness, PinAt, Pinned, SlotNo, Slots};

struct World {
    slots: Slots,
    clock: Clock,
    /// Which block the page is in.
    place: AtomicUsize,
    /// What stands beside the blocks: the pointers that are out.
    beside: [Block; 2],
    blocks: [UnsafeCell<u64>; 2],
    writer: Mutex<()>,
}

// SAFETY: what is under test; loom reports a block that is read while it is written.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

const GARBAGE: u64 = 99;

fn world() -> (Arc<World>, SlotNo) {
    let slots = Slots::model(2);
    let live = Liveness::solo();
    let reader = slots.claim(live.own(), &live).expect("a slot");
    let clock = Clock::new();
    clock.init(Jci(1));
    let blocks = [UnsafeCell::new(1), UnsafeCell::new(2)];
    let (place, beside, writer) = (AtomicUsize::new(0), Default::default(), Mutex::new(()));
    (Arc::new(World { slots, clock, place, beside, blocks, writer }), reader)
}

impl World {
    fn read(&self, block: usize) -> u64 {
        // SAFETY: loom checks it.
        self.blocks[block].with(|p| unsafe { *p })
    }

    fn reuse(&self, block: usize) {
        // SAFETY: loom checks it.
        self.blocks[block].with_mut(|p| unsafe { *p = GARBAGE });
    }

    /// What the holder of the writer lock does to move the page out of block 0.
    fn move_and_reuse(&self) {
        self.place.store(1, Ordering::Release);
        let mut grace = Grace::begin(&self.slots);
        while !grace.passed(&self.slots) {
            thread::yield_now();
        }
        // both: a count that a dead process left does not stand longer than the pointers of the living
        while self.beside[0].is_fetched() && self.slots.fetches_out() {
            thread::yield_now();
        }
        self.reuse(0);
    }
}

#[test]
fn p12_a_moved_block_is_not_reused_under_a_read() {
    loom::model(|| {
        let (w, me) = world();
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                for _ in 0..2 {
                    w.slots.get(me).begin_copy();
                    assert_ne!(w.read(w.place.load(Ordering::Acquire)), GARBAGE);
                    w.slots.get(me).end_copy();
                }
            })
        };
        w.place.store(1, Ordering::Release);
        let mut grace = Grace::begin(&w.slots);
        while !grace.passed(&w.slots) {
            thread::yield_now();
        }
        w.reuse(0);
        reader.join().expect("no panic");
    });
}

#[test]
fn p12_a_moved_block_is_not_reused_under_a_pointer() {
    loom::model(|| {
        let (w, me) = world();
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                let slot = w.slots.get(me);
                slot.begin_copy();
                let block = w.place.load(Ordering::Acquire);
                w.beside[block].lend(slot);
                slot.end_copy();
                assert_ne!(w.read(block), GARBAGE);
                w.beside[block].give_back(slot);
            })
        };
        w.move_and_reuse();
        reader.join().expect("no panic");
    });
}

#[test]
fn p12_a_moved_block_is_not_reused_under_a_pointer_of_the_last_lock_holder() {
    // Failure: what was only remembered under the lock is counted after it was given back: the next holder moves the block,
    // waits for no read, finds no pointer.
    loom::model(|| {
        let (w, me) = world();
        let holder = {
            let w = w.clone();
            thread::spawn(move || {
                let slot = w.slots.get(me);
                let lock = w.writer.lock().expect("no panic");
                let block = w.place.load(Ordering::Acquire);
                slot.copying(|| w.beside[block].lend(slot));
                drop(lock);
                assert_ne!(w.read(block), GARBAGE);
                w.beside[block].give_back(slot);
            })
        };
        let lock = w.writer.lock().expect("no panic");
        w.move_and_reuse();
        drop(lock);
        holder.join().expect("no panic");
    });
}

#[test]
fn p12_an_old_version_is_not_reused_under_a_pin() {
    loom::model(|| {
        let (w, me) = world();
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                let slot = w.slots.get(me);
                let Pinned::At(jci) = w.clock.pin(slot, PinAt::Visible, None, &|_| true) else {
                    unreachable!("no gate")
                };
                // Block 0 is the version of commit 1, block 1 that of commit 2.
                assert_eq!(w.read(jci.0 as usize - 1), jci.0);
                slot.unpin();
            })
        };
        w.clock.publish(Jci(2));
        w.clock.set_visible(Jci(2));
        let mut pins = Vec::new();
        w.slots.pins(&mut pins);
        if !pins.contains(&1) {
            w.reuse(0);
        }
        reader.join().expect("no panic");
    });
}

#[test]
fn p12_a_slot_claimed_meanwhile_is_not_overlooked() {
    loom::model(|| {
        let (w, _) = world();
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                let live = Liveness::solo_as(AttachmentNo(2), std::sync::Arc::new(|_| true));
                let me = w.slots.claim(live.own(), &live).expect("a slot");
                w.slots.get(me).begin_copy();
                assert_ne!(w.read(w.place.load(Ordering::Acquire)), GARBAGE);
                w.slots.get(me).end_copy();
            })
        };
        w.place.store(1, Ordering::Release);
        let mut grace = Grace::begin(&w.slots);
        while !grace.passed(&w.slots) {
            thread::yield_now();
        }
        w.reuse(0);
        reader.join().expect("no panic");
    });
}
