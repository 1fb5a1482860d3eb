//! A commit takes out versions that nobody sees while a leader of the flush moves `visible` up and a reader pins (P2,
//! P12).
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::sync::atomic::{AtomicU32, Ordering};
use loom::thread;
use nvlite_engine::base::{Jci, VirtNo};
use nvlite_engine::models::{Block, Chain, Pins, Virt, chain};
use nvlite_engine::shm::{Clock, Grace, Liveness, PinAt, Pinned, SlotNo, Slots};

const GARBAGE: u64 = 99;
/// Versions there are at most, and the end of a chain.
const VERSIONS: usize = 5;

/// One page: commit n makes version n of it.
struct World {
    slots: Slots,
    clock: Clock,
    newest: AtomicU32,
    virts: [Virt; VERSIONS],
    contents: [UnsafeCell<u64>; VERSIONS],
    seen: std::sync::Arc<Seen>,
}

// SAFETY: what is under test; loom reports content that is read while it is written.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

/// What became of superseded versions, over all the runs of a model.
#[derive(Default)]
struct Seen {
    at_once: std::sync::atomic::AtomicUsize,
    later: std::sync::atomic::AtomicUsize,
    kept: std::sync::atomic::AtomicUsize,
}

impl Chain for World {
    fn virt(&self, v: VirtNo) -> &Virt {
        &self.virts[v.0 as usize]
    }

    fn discard(&self, v: VirtNo, _until: Jci, quiet: bool) {
        let way = if quiet { &self.seen.at_once } else { &self.seen.later };
        way.fetch_add(1, Ordering::Relaxed);
        if quiet || Grace::begin(&self.slots).passed(&self.slots) {
            self.fill(v, GARBAGE, VirtNo::NONE);
        }
    }
}

impl World {
    fn new(seen: &std::sync::Arc<Seen>) -> (Arc<World>, [SlotNo; 2]) {
        let slots = Slots::model(2);
        let live = Liveness::solo();
        let nos = [(); 2].map(|()| slots.claim(live.own(), &live).expect("a slot"));
        let clock = Clock::new();
        clock.init(Jci(1));
        let w = World {
            slots,
            clock,
            newest: AtomicU32::new(1),
            virts: Default::default(),
            contents: std::array::from_fn(|_| UnsafeCell::new(0)),
            seen: seen.clone(),
        };
        w.fill(VirtNo(1), 1, VirtNo::NONE);
        (Arc::new(w), nos)
    }

    /// Makes a version of commit `jci`, or uses its virtblock and its block again.
    fn fill(&self, v: VirtNo, jci: u64, older: VirtNo) {
        // SAFETY: loom checks it.
        self.contents[v.0 as usize].with_mut(|p| unsafe { *p = jci });
        self.virt(v).birth.store(jci, Ordering::Relaxed);
        self.virt(v).older.store(older.0, Ordering::Relaxed);
    }

    /// As `Engine::publish` and `Apply` do it without the gate.
    fn commit(&self, me: SlotNo) {
        let jci = self.clock.published().next();
        let mut pins = Pins::default();
        pins.gather(&self.slots, Some(me), Some(self.clock.visible()));
        let (older, v) = (VirtNo(jci.0 as u32 - 1), VirtNo(jci.0 as u32));
        assert!(!pins.let_store(&Block::default(), self.virt(older).birth(), jci), "in place");
        self.fill(v, jci.0, older);
        self.newest.store(v.0, Ordering::Release);
        self.seen.kept.fetch_add(chain::prune(self, v, &pins), Ordering::Relaxed);
        self.clock.publish(jci);
    }

    /// What a leader does when a batch is durable.
    fn show(&self) {
        self.clock.set_visible(self.clock.published());
    }

    fn pin(&self, me: SlotNo) -> Jci {
        let Pinned::At(jci) = self.clock.pin(self.slots.get(me), PinAt::Visible, None, &|_| true) else {
            unreachable!("no gate")
        };
        jci
    }

    fn read(&self, me: SlotNo, pin: Jci) {
        self.slots.get(me).copying(|| {
            let newest = VirtNo(self.newest.load(Ordering::Acquire));
            let found = chain::seen(self, newest, pin).expect("the first was always there");
            let v = self.virts.iter().position(|virt| std::ptr::eq(virt, found)).expect("one of them");
            // SAFETY: loom checks it.
            assert_eq!(self.contents[v].with(|p| unsafe { *p }), pin.0, "not the version of the snapshot");
        });
        self.slots.get(me).unpin();
    }
}

/// Runs the model, in which versions must be given back and be kept, with `later` also while somebody may be on the way
/// through them: without, it shows nothing.
fn model(preemptions: usize, later: bool, f: impl Fn(&std::sync::Arc<Seen>) + Sync + Send + 'static) {
    let seen = std::sync::Arc::new(Seen::default());
    let own = seen.clone();
    let mut builder = loom::model::Builder::new();
    builder.preemption_bound.get_or_insert(preemptions);
    builder.check(move || f(&own));
    let ways = [&seen.at_once, &seen.later, &seen.kept].map(|n| n.load(Ordering::Relaxed));
    assert_eq!(ways.map(|n| n > 0), [true, later, true], "{ways:?} given back at once, later, kept");
}

#[test]
fn p2_p12_no_version_is_taken_out_that_an_arriving_reader_sees() {
    // Failure: a commit misses the pin of a reader that then goes on with the older version: it looks at the pins
    // before its fence or without one, the reader has no fence between its pin and its second look at `visible`, or
    // looks but once, or before it pins; or the pin is gone before the reads are done (`unpin` or the look at it
    // Relaxed). Or the reader is on its way through a version that is used at once, because all count as quiet, or
    // without a fence before its walk.
    model(3, true, |seen| {
        let (w, [me, other]) = World::new(seen);
        let reader = {
            let w = w.clone();
            thread::spawn(move || w.read(me, w.pin(me)))
        };
        let leader = {
            let w = w.clone();
            thread::spawn(move || w.show())
        };
        (0..3).for_each(|_| w.commit(other));
        leader.join().expect("no panic");
        reader.join().expect("no panic");
    });
}

#[test]
fn p2_p12_no_version_is_taken_out_that_visible_is_going_to_pass() {
    // Failure: a version above `visible` is taken out that nobody pins, and that `visible` then reaches:
    // [`Pins::within`] takes `visible` for a pin like the others, or for none.
    model(5, false, |seen| {
        let (w, [me, other]) = World::new(seen);
        w.commit(other);
        let reader = {
            let w = w.clone();
            thread::spawn(move || {
                w.show();
                w.read(me, w.pin(me));
            })
        };
        (0..2).for_each(|_| w.commit(other));
        reader.join().expect("no panic");
    });
}
