//! The gate (P2) and the clock of commits (P10): how a reader gets a snapshot while a writer stores into it in place.
//!
//! ```text
//! reader                                   writer (holds the writer lock)
//!   v = visible                              gate := odd
//!   slot.pin = v                             fence
//!   fence                                    scan the slots' pins
//!   gate odd, or visible != v ?              copy on write what a pin sees, store the rest in place
//!     clear the pin, again                   published = visible = own pin = n
//!   read at v                                gate := even
//! ```
//!
//! The fences are in one total order. If the reader's is first, the scan sees the pin, and what it sees is not stored to.
//! If the writer's is first, the reader sees the gate odd, or, by the time it is even again, another `visible`.

use super::futex;
use super::segment::Shared;
use super::shape::{Shape, shape};
use super::slot::Slot;
use super::word::{Holder, State, Word};
use crate::base::Jci;
use crate::base::sync::{AtomicU32, AtomicU64, Ordering, fence, spin};
use std::time::Duration;

/// The gate is closed while this bit is set, from which it is called odd.
const CLOSED: u32 = 1;
/// Somebody sleeps at the gate.
const SLEEPERS: u32 = 2;
/// Counts closings in the bits above.
const TURN: u32 = 4;
/// Turns of the loop before going to sleep; the gate is closed for some microseconds.
const SPINS: u32 = if cfg!(loom) { 0 } else { 1000 };
/// How long to sleep at the gate before looking whether its owner lives.
const SLICE: Duration = Duration::from_millis(10);

/// The positions of the history, and the gate.
///
/// | offset | word         | who changes it; what a stale read costs |
/// | ------ | ------------ | --- |
/// | 0      | `gate`       | holder of the writer lock; sleepers set their bit by compare-and-swap. Stale even is excluded by the fences |
/// | 8      | `gate_owner` | holder of the writer lock, before it closes the gate. Stale: another look a slice later |
/// | 16     | `visible`    | holder of the writer lock or leader of the flush, only up. Stale: the pin is tried again |
/// | 128    | `published`  | holder of the writer lock, only up. Stale: `SQLITE_BUSY_SNAPSHOT` later than possible |
/// | 256    | `durable`    | leader of the flush, only up. Stale: a wait until the next look |
///
/// A pin reads the first line only; the others are written by commits and flushes that move no reader.
#[repr(C, align(128))]
#[derive(Debug)]
pub struct Clock {
    gate: AtomicU32,
    _pad0: AtomicU32,
    gate_owner: AtomicU64,
    visible: AtomicU64,
    _pad1: [AtomicU64; 13],
    published: AtomicU64,
    _pad2: [AtomicU64; 15],
    durable: AtomicU64,
    _pad3: [AtomicU64; 15],
}

// SAFETY: repr(C), atomics only.
#[allow(unsafe_code)]
unsafe impl Shared for Clock {
    const SHAPE: &'static Shape = shape!(Clock, 384:
        0 gate, 4 _pad0, 8 gate_owner, 16 visible, 24 _pad1, 128 published, 136 _pad2, 256 durable, 264 _pad3
    );
}

/// Which snapshot to pin (P10).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum PinAt {
    /// The newest that a reader may see.
    Visible,
    /// The newest there is: for the connection that is granted the writer lock.
    Published,
}

/// What came of [`Clock::pin`].
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
#[must_use]
pub enum Pinned {
    /// The slot pins this snapshot.
    At(Jci),
    /// The gate is closed, and who closed it is dead: take the writer lock, apply what it left, publish, open the gate, pin again.
    OwnerDead(Holder),
}

impl Default for Clock {
    fn default() -> Self {
        Clock::new()
    }
}

impl Clock {
    /// Before the first commit, with the gate open, as zeroed memory says.
    #[must_use]
    pub fn new() -> Clock {
        let n = || AtomicU64::new(0);
        Clock {
            gate: AtomicU32::new(0),
            _pad0: AtomicU32::new(0),
            gate_owner: n(),
            visible: n(),
            _pad1: std::array::from_fn(|_| n()),
            published: n(),
            _pad2: std::array::from_fn(|_| n()),
            durable: n(),
            _pad3: std::array::from_fn(|_| n()),
        }
    }

    /// Sets all positions, in a mapping that nobody else has yet.
    pub fn init(&self, jci: Jci) {
        for word in [&self.visible, &self.published, &self.durable] {
            word.store(jci.0, Ordering::Release);
        }
    }

    /// The newest commit that a reader may see. It counts as a pin at all times.
    pub fn visible(&self) -> Jci {
        Jci(self.visible.load(Ordering::Acquire))
    }

    /// The newest commit.
    pub fn published(&self) -> Jci {
        Jci(self.published.load(Ordering::Acquire))
    }

    /// The newest commit that survives what the medium promises.
    pub fn durable(&self) -> Jci {
        Jci(self.durable.load(Ordering::Acquire))
    }

    /// Pins a snapshot, in `slot`: the newest at `at`, or `at_least` if that is newer (one that the connection had, and
    /// so is published). Waits only for a commit in progress in place. `alive` says whether the owner of a closed gate
    /// is.
    ///
    /// A version above `visible` is protected by this only if it is not freed before `visible` has passed what superseded it.
    pub fn pin(&self, slot: &Slot, at: PinAt, at_least: Option<Jci>, alive: &dyn Fn(Holder) -> bool) -> Pinned {
        let word = match at {
            PinAt::Visible => &self.visible,
            PinAt::Published => &self.published,
        };
        loop {
            let newest = Jci(word.load(Ordering::Acquire));
            let jci = at_least.map_or(newest, |own| own.max(newest));
            slot.set_pin(jci);
            // Pairs with the fences of close_gate and set_visible: see the head of this file.
            fence(Ordering::SeqCst);
            // The gate first: read the other way round, a commit between the two loads would pass unseen.
            let open = self.gate.load(Ordering::Acquire) & CLOSED == 0;
            if open && word.load(Ordering::Acquire) == newest.0 {
                return Pinned::At(jci);
            }
            slot.unpin();
            if !open && let Some(owner) = self.wait_at_gate(alive) {
                return Pinned::OwnerDead(owner);
            }
        }
    }

    /// Waits until the gate is open; or answers its owner, if that is dead.
    fn wait_at_gate(&self, alive: &dyn Fn(Holder) -> bool) -> Option<Holder> {
        for _ in 0..SPINS {
            if self.gate.load(Ordering::Relaxed) & CLOSED == 0 {
                return None;
            }
            spin();
        }
        loop {
            let gate = self.gate.load(Ordering::Relaxed);
            if gate & CLOSED == 0 {
                return None;
            }
            let marked = gate | SLEEPERS;
            if gate == marked || self.gate.compare_exchange(gate, marked, Ordering::Relaxed, Ordering::Relaxed).is_ok()
            {
                futex::wait(&self.gate, marked, Some(SLICE));
            }
            if let Some(owner) = self.gate_owner().filter(|&owner| !alive(owner)) {
                return Some(owner);
            }
        }
    }

    /// Who closed the gate, if it is closed.
    pub fn gate_owner(&self) -> Option<Holder> {
        if self.gate.load(Ordering::Acquire) & CLOSED == 0 {
            return None;
        }
        match Word(self.gate_owner.load(Ordering::Acquire)).state() {
            State::Held(holder) => Some(holder),
            _ => None,
        }
    }

    /// Stops arriving readers. For the holder of the writer lock, `owner`, only; no allocation, lock or page fault until
    /// [`open_gate`](Self::open_gate). What [`Slots`](super::Slots) says about pins and fetches afterwards is binding.
    /// Who repairs what a dead owner left closes the gate again in its own name, so that readers wait for it.
    pub fn close_gate(&self, owner: Holder) {
        self.gate_owner.store(Word::new(State::Held(owner), None).0, Ordering::Relaxed);
        let gate = self.gate.load(Ordering::Relaxed);
        if gate & CLOSED == 0 {
            // A plain store: nobody but the holder changes an open gate. Release: who finds it closed finds who closed it.
            self.gate.store(gate | CLOSED, Ordering::Release);
        }
        fence(Ordering::SeqCst);
    }

    /// Lets readers in again. A no-op if the gate is open, so that the repair of a dead writer may always call it.
    pub fn open_gate(&self) {
        let gate = self.gate.load(Ordering::Relaxed);
        if gate & CLOSED == 0 {
            return;
        }
        let next = (gate & !(CLOSED | SLEEPERS)).wrapping_add(TURN);
        // A swap: the sleepers' bit may be set meanwhile. Release: who finds it open finds what was stored inside.
        if self.gate.swap(next, Ordering::Release) & SLEEPERS != 0 {
            futex::wake(&self.gate, i32::MAX as u32);
        }
    }

    /// The last step of a commit in place: published, visible and the writer's own pin move together, then the gate opens (P9).
    pub fn open_gate_at(&self, jci: Jci, own: &Slot) {
        self.publish(jci);
        own.set_pin(jci);
        self.show_and_open(jci);
    }

    /// As [`open_gate_at`](Self::open_gate_at), by who repairs: the commit was a dead writer's, and no pin moves with it. Our
    /// own least of all: a retirer that scans the pins meanwhile would take it for newer than what we read.
    pub fn open_gate_of_the_dead(&self) {
        self.show_and_open(self.published());
    }

    fn show_and_open(&self, jci: Jci) {
        self.visible.fetch_max(jci.0, Ordering::Release);
        self.open_gate();
    }

    /// A commit can be found by its JCI. For the holder of the writer lock, who alone changes `published`, always to more.
    pub fn publish(&self, jci: Jci) {
        self.published.store(jci.0, Ordering::Release);
    }

    /// Readers that come see this commit. A scan of the pins afterwards is binding: what neither a pin nor `visible` sees, and
    /// was superseded at or below `visible`, nobody will.
    pub fn set_visible(&self, jci: Jci) {
        self.visible.fetch_max(jci.0, Ordering::Release);
        fence(Ordering::SeqCst);
    }

    /// The commit just made survives, by its own fence. For the holder of the writer lock on `dax` and `ram`, who alone
    /// changes `durable` there; nobody waits for it.
    pub fn set_durable_at_once(&self, jci: Jci) {
        self.durable.store(jci.0, Ordering::Release);
    }

    /// Commits up to this one survive. For the leader of the flush.
    pub fn set_durable(&self, jci: Jci) {
        self.durable.fetch_max(jci.0, Ordering::Release);
    }
}
