//! A commit is stored in place beside a pointer that xFetch handed out: what the pointer leads to must not change while it is
//! out (P2, P12). The pin may be gone by then, though SQLite gives its pointers back first, or have moved with a commit of
//! its own.
//!
//! Run with `RUSTFLAGS="--cfg loom" cargo test -p nvlite-engine --release --test 'loom_*'`.
#![cfg(loom)]

use loom::cell::UnsafeCell;
use loom::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use loom::sync::{Arc, Mutex};
use loom::thread;
use nvlite_engine::base::Jci;
use nvlite_engine::models::{Block, Pins};
use nvlite_engine::shm::{Clock, Liveness, PinAt, Pinned, Slot, SlotNo, Slots};

/// A version, and its block. None is used twice: `loom_grace.rs` has that.
#[derive(Default)]
struct Version {
    birth: AtomicU64,
    block: Block,
    content: UnsafeCell<u64>,
}

struct World {
    slots: Slots,
    clock: Clock,
    /// The versions of the page, oldest first.
    versions: [Version; 3],
    newest: AtomicUsize,
    writer: Mutex<()>,
}

// SAFETY: what is under test; loom reports content that is read while it is written.
unsafe impl Sync for World {}
// SAFETY: as above.
unsafe impl Send for World {}

fn world() -> (Arc<World>, [SlotNo; 2]) {
    let slots = Slots::model(2);
    let live = Liveness::solo();
    let nos = [(); 2].map(|()| slots.claim(live.own(), &live).expect("a slot"));
    let clock = Clock::new();
    clock.init(Jci(1));
    let versions: [Version; 3] = Default::default();
    versions[0].birth.store(1, Ordering::Relaxed);
    // SAFETY: nobody else has it yet.
    versions[0].content.with_mut(|p| unsafe { *p = 1 });
    (Arc::new(World { slots, clock, versions, newest: AtomicUsize::new(0), writer: Mutex::new(()) }), nos)
}

/// A pointer that is out, and the snapshot that it shows.
struct Pointer<'a> {
    version: &'a Version,
    shows: Jci,
}

impl Pointer<'_> {
    fn check(&self) {
        // SAFETY: loom checks it.
        let content = self.version.content.with(|p| unsafe { *p });
        assert_eq!(content, self.shows.0, "it changed under a pointer");
    }

    fn give_back(self, slot: &Slot) {
        self.version.block.give_back(slot);
    }
}

impl World {
    fn pin(&self, me: SlotNo, at: PinAt) -> Jci {
        let Pinned::At(jci) = self.clock.pin(self.slots.get(me), at, None, &|_| true) else { unreachable!("all live") };
        jci
    }

    /// The look-up: counts nothing.
    fn find(&self, shows: Jci) -> Pointer<'_> {
        let newest = self.newest.load(Ordering::Acquire);
        let mut chain = self.versions[..=newest].iter().rev();
        let version = chain.find(|v| v.birth.load(Ordering::Relaxed) <= shows.0).expect("the first was always there");
        Pointer { version, shows }
    }

    fn fetch(&self, me: SlotNo, pin: Jci) -> Pointer<'_> {
        let slot = self.slots.get(me);
        slot.copying(|| {
            let pointer = self.find(pin);
            pointer.version.block.lend(slot);
            pointer
        })
    }

    fn tell_lent(&self, me: SlotNo, pointer: &Pointer<'_>) {
        let slot = self.slots.get(me);
        slot.copying(|| pointer.version.block.lend(slot));
    }

    /// Uses the pointer under the pin and beyond it.
    fn use_up(&self, me: SlotNo, pointer: Pointer<'_>) {
        let slot = self.slots.get(me);
        pointer.check();
        slot.unpin();
        pointer.check();
        pointer.give_back(slot);
    }

    /// A commit by the holder of the writer lock.
    fn commit(&self, me: SlotNo, seen: &Seen) {
        let jci = self.clock.published().next();
        let mut pins = Pins::default();
        self.clock.close_gate(self.slots.holder(me));
        pins.gather(&self.slots, Some(me), None);
        let newest = self.newest.load(Ordering::Relaxed);
        let old = &self.versions[newest];
        let in_place = pins.let_store(&old.block, Jci(old.birth.load(Ordering::Relaxed)), jci);
        let place = if in_place { newest } else { newest + 1 };
        // SAFETY: loom checks it.
        self.versions[place].content.with_mut(|p| unsafe { *p = jci.0 });
        if !in_place {
            self.versions[place].birth.store(jci.0, Ordering::Relaxed);
            self.newest.store(place, Ordering::Release);
        }
        self.clock.open_gate_at(jci, self.slots.get(me));
        let tally = if in_place { &seen.in_place } else { &seen.copied };
        tally.fetch_add(1, Ordering::Relaxed);
    }
}

/// Which ways the commits of a model went, over all its runs.
#[derive(Default)]
struct Seen {
    in_place: std::sync::atomic::AtomicUsize,
    copied: std::sync::atomic::AtomicUsize,
}

/// Runs the model, in which both ways must occur: without, it shows nothing.
fn model(f: impl Fn(std::sync::Arc<Seen>) + Sync + Send + 'static) {
    let seen = std::sync::Arc::new(Seen::default());
    let own = seen.clone();
    loom::model(move || f(own.clone()));
    let [in_place, copied] = [&seen.in_place, &seen.copied].map(|n| n.load(Ordering::Relaxed));
    assert!(in_place > 0 && copied > 0, "{in_place} in place, {copied} copied");
}

#[test]
fn p2_p12_no_commit_in_place_stores_under_a_pointer() {
    // Failure: the writer finds the pin gone and overlooks the pointer that was handed out under it, or finds the pointer
    // back before the last read through it is done.
    model(|seen| {
        let (w, [me, other]) = world();
        let pin = w.pin(me, PinAt::Visible);
        let reader = {
            let w = w.clone();
            thread::spawn(move || w.use_up(me, w.fetch(me, pin)))
        };
        w.commit(other, &seen);
        w.commit(other, &seen);
        reader.join().expect("no panic");
    });
}

#[test]
fn p2_p12_a_reader_that_fetches_while_the_gate_closes_is_not_overlooked() {
    // Failure: the writer stores into the block of a reader that pins and fetches while it closes the gate and looks around.
    model(|seen| {
        let (w, [me, other]) = world();
        let reader = {
            let w = w.clone();
            thread::spawn(move || w.use_up(me, w.fetch(me, w.pin(me, PinAt::Visible))))
        };
        w.commit(other, &seen);
        reader.join().expect("no panic");
    });
}

#[test]
fn p2_p12_a_pointer_of_the_lock_holder_is_counted_before_the_next_commit() {
    // Failure: the lock's holder only remembers its pointer; the next holder stores where it leads to. As long as the pin
    // stands it would do to count it after the lock was given back, were there commits only: `loom_grace.rs` has the moves.
    model(|seen| {
        let (w, [me, other]) = world();
        let holder = {
            let w = w.clone();
            thread::spawn(move || {
                let lock = w.writer.lock().expect("no panic");
                let pointer = w.find(w.pin(me, PinAt::Published));
                w.tell_lent(me, &pointer);
                drop(lock);
                w.use_up(me, pointer);
            })
        };
        let lock = w.writer.lock().expect("no panic");
        w.commit(other, &seen);
        drop(lock);
        holder.join().expect("no panic");
    });
}

#[test]
fn p2_p12_a_pointer_of_the_lock_holder_is_counted_before_its_own_commit() {
    // Failure: the lock's holder, whose own pin moves with its commit, stores where its own pointer leads to; or the next
    // holder does, for that pin lies above the pointer now.
    model(|seen| {
        let (w, [me, other]) = world();
        let holder = {
            let (w, seen) = (w.clone(), seen.clone());
            thread::spawn(move || {
                let lock = w.writer.lock().expect("no panic");
                let pointer = w.find(w.pin(me, PinAt::Published));
                w.tell_lent(me, &pointer);
                w.commit(me, &seen);
                drop(lock);
                w.use_up(me, pointer);
            })
        };
        let lock = w.writer.lock().expect("no panic");
        w.commit(other, &seen);
        drop(lock);
        holder.join().expect("no panic");
    });
}
