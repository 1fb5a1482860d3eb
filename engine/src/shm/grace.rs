//! P12: a block that was removed from every structure is reused when no read that began before can still be at it.

use super::liveness::Liveness;
use super::slot::SlotNo;
use super::slots::Slots;
use super::word::Holder;
use crate::base::sync::{Ordering, fence};

/// A slot that may be using what was removed before the grace began.
struct Suspect {
    slot: SlotNo,
    generation: u32,
    seq: u64,
}

/// The time in which readers that were there when it began go away. Begun after what is to be reused was removed.
pub struct Grace {
    /// Reads that were in progress.
    reading: Vec<Suspect>,
}

impl Grace {
    /// Notes who is reading now.
    #[must_use]
    pub fn begin(slots: &Slots) -> Grace {
        // Pairs with the fence of Slot::begin_copy: a read that this scan does not see begins after it and finds nothing.
        fence(Ordering::SeqCst);
        let mut grace = Grace { reading: Vec::new() };
        for (no, slot) in slots.used() {
            let seq = slot.sequence();
            if seq & 1 == 1 {
                grace.reading.push(Suspect { slot: no, generation: slot.generation(), seq });
            }
        }
        grace
    }

    /// True once every read that was in progress has ended, or its slot has changed hands. Pointers handed out are another matter:
    /// blocks count theirs, before the read ends that got one. A reader that was killed in the middle ends its read only by
    /// [`forget_dead`](Self::forget_dead) or [`Slots::reap_dead`].
    pub fn passed(&mut self, slots: &Slots) -> bool {
        self.reading.retain(|s| {
            let slot = slots.get(s.slot);
            slot.sequence() == s.seq && slot.generation() == s.generation
        });
        self.reading.is_empty()
    }

    /// Stops waiting for connections that have died: they read nothing any more. A system call for each of another attachment's
    /// that is waited for, so for when the grace takes long.
    pub fn forget_dead(&mut self, slots: &Slots, live: &Liveness) {
        self.reading.retain(|s| slots.is_alive(Holder { slot: s.slot, generation: s.generation }, live));
    }
}
