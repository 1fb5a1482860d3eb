//! A reader arrives while a writer stores into pages in place: it must see all of the commit or nothing of it (P2, P10).
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicUsize, Ordering};
use loom::thread;
use nvlite_engine::base::Jci;
use nvlite_engine::shm::{Clock, Liveness, PinAt, Pinned, SlotNo, Slots};

/// A page: two blocks, and in one word which of them has the newest version, and since when if it is a copy.
struct Page {
    blocks: [UnsafeCell<u64>; 2],
    head: AtomicUsize,
}

// SAFETY: what is under test; loom reports a block that is read while it is written.
unsafe impl Sync for Page {}
// SAFETY: as above.
unsafe impl Send for Page {}

impl Page {
    fn new(content: u64) -> Page {
        Page { blocks: [UnsafeCell::new(content), UnsafeCell::new(0)], head: AtomicUsize::new(0) }
    }

    fn read(&self, at: Jci) -> u64 {
        let head = self.head.load(Ordering::Acquire);
        let (newest, since) = (head & 1, head as u64 / 2);
        let block = if since <= at.0 { newest } else { 1 - newest };
        // SAFETY: loom checks it.
        self.blocks[block].with(|p| unsafe { *p })
    }

    fn write_in_place(&self, content: u64) {
        // SAFETY: loom checks it.
        self.blocks[self.head.load(Ordering::Relaxed) & 1].with_mut(|p| unsafe { *p = content });
    }

    fn write_a_copy(&self, content: u64, since: Jci) {
        let other = 1 - (self.head.load(Ordering::Relaxed) & 1);
        // SAFETY: loom checks it.
        self.blocks[other].with_mut(|p| unsafe { *p = content });
        self.head.store(since.0 as usize * 2 + other, Ordering::Release);
    }
}

struct World {
    slots: Slots,
    clock: Clock,
    pages: [Page; 2],
}

fn world() -> (Arc<World>, Vec<SlotNo>) {
    let slots = Slots::model(3);
    let live = Liveness::solo();
    let nos = (0..3).map(|_| slots.claim(live.own(), &live).expect("a slot")).collect();
    let clock = Clock::new();
    clock.init(Jci(1));
    (Arc::new(World { slots, clock, pages: [Page::new(1), Page::new(1)] }), nos)
}

impl World {
    fn commit_in_place(&self, me: SlotNo, jci: Jci) {
        let mut pins = Vec::new();
        self.clock.close_gate(self.slots.holder(me));
        self.slots.pins_but(Some(me), &mut pins);
        for page in &self.pages {
            if pins.is_empty() { page.write_in_place(jci.0) } else { page.write_a_copy(jci.0, jci) }
        }
        self.clock.open_gate_at(jci, self.slots.get(me));
    }

    fn read_both(&self, me: SlotNo, at: PinAt, at_least: Option<Jci>) -> Jci {
        let slot = self.slots.get(me);
        let Pinned::At(jci) = self.clock.pin(slot, at, at_least, &|_| true) else { unreachable!("all live") };
        for page in &self.pages {
            assert_eq!(page.read(jci), jci.0, "a page that is not of the snapshot");
        }
        slot.unpin();
        jci
    }
}

fn model(f: impl Fn() + Sync + Send + 'static) {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(3);
    builder.check(f);
}

#[test]
fn p2_no_reader_sees_half_of_a_commit_in_place() {
    model(|| {
        let (w, nos) = world();
        let reader = {
            let (w, me) = (w.clone(), nos[1]);
            thread::spawn(move || w.read_both(me, PinAt::Visible, None))
        };
        w.commit_in_place(nos[0], Jci(2));
        reader.join().expect("no panic");
        assert_eq!(w.read_both(nos[2], PinAt::Published, None), Jci(2));
    });
}

#[test]
fn p2_no_reader_sees_half_of_one_of_two_commits() {
    model(|| {
        let (w, nos) = world();
        let reader = {
            let (w, me) = (w.clone(), nos[1]);
            thread::spawn(move || {
                let first = w.read_both(me, PinAt::Visible, None);
                assert!(w.read_both(me, PinAt::Published, Some(first)) >= first, "back in time");
            })
        };
        w.commit_in_place(nos[0], Jci(2));
        reader.join().expect("no panic");
    });
}

#[test]
fn p2_two_readers_each_see_one_commit() {
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(2);
    builder.check(|| {
        let (w, nos) = world();
        let readers = [nos[1], nos[2]].map(|me| {
            let w = w.clone();
            thread::spawn(move || w.read_both(me, PinAt::Visible, None))
        });
        w.commit_in_place(nos[0], Jci(2));
        for reader in readers {
            reader.join().expect("no panic");
        }
    });
}
