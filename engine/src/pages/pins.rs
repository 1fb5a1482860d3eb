//! Who reads which versions, as a commit must know it before it stores in place or lets versions go (P2, P12).

use super::virt::Block;
use crate::base::Jci;
use crate::base::sync::{Ordering, fence};
use crate::shm::{SlotNo, Slots};

/// So many connections may be opened while a commit is made.
const NEWCOMERS: usize = 64;

/// What readers look at, gathered once per commit.
#[derive(Default, Debug)]
pub struct Pins {
    pins: Vec<u64>,
    /// Readers to come pin this or newer; `None` if they will only see the commit that is being made.
    visible: Option<Jci>,
    /// Whether some connection has pointers out, if the gate is closed; which blocks they point into, the blocks say.
    fetches: bool,
}

impl Pins {
    /// Makes room for the pins of all connections, and of those that come meanwhile: behind the gate nothing is allocated, lest
    /// readers wait for what another thread does with the heap.
    pub fn make_room(&mut self, slots: &Slots) {
        self.pins.clear();
        self.pins.reserve(slots.high_water() as usize + NEWCOMERS);
    }

    /// For so many there is room.
    #[cfg(test)]
    pub fn room(&self) -> usize {
        self.pins.capacity()
    }

    /// Gathers the pins of all slots, and `visible` unless it moves with the commit, behind the gate. `except` is the slot
    /// whose pin moves with the commit, too.
    pub fn gather(&mut self, slots: &Slots, except: Option<SlotNo>, visible: Option<Jci>) {
        if visible.is_some() {
            // pairs with the fence of a pinning reader: whoever was not pinned yet here pins `visible` or newer (P2);
            // closing the gate has such a fence of its own
            fence(Ordering::SeqCst);
        }
        slots.pins_but(except, &mut self.pins);
        self.pins.extend(visible.map(|v| v.0));
        self.pins.sort_unstable();
        self.pins.dedup();
        self.visible = visible;
        // after the pins: who has given its pin up since has counted its pointers
        self.fetches = visible.is_none() && slots.fetches_out();
    }

    /// Whether `jci` may be stored in place of the version that `birth` made in `block`: the gate is closed, and nobody
    /// reads it, by a pin or by a pointer. One that is about to hand out a pointer has had its pin since before the gate was
    /// closed.
    #[must_use]
    pub fn let_store(&self, block: &Block, birth: Jci, jci: Jci) -> bool {
        let fetched = self.fetches && block.is_fetched();
        self.visible.is_none() && !fetched && !self.within(birth, jci)
    }

    /// Whether some pin lies in `[from, to)`, or may come to: `visible` is going to pass through all that lies above it.
    #[must_use]
    pub fn within(&self, from: Jci, to: Jci) -> bool {
        let i = self.pins.partition_point(|&p| p < from.0);
        self.visible.is_some_and(|v| to > v) || self.pins.get(i).is_some_and(|&p| p < to.0)
    }

    /// Whether some pin is older than `jci`.
    #[must_use]
    pub fn below(&self, jci: Jci) -> bool {
        self.pins.first().is_some_and(|&p| p < jci.0)
    }
}
