//! The one encoding of "who holds this": the words of [`WriterLock`](super::WriterLock) and
//! [`OwnedLock`](super::OwnedLock), and the owner of the gate.

use super::slot::SlotNo;
use crate::base::limits::MAX_SLOTS;
use std::fmt;

/// A connection as locks name it: its slot, and the generation that tells it from the slot's earlier and later owners.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Holder {
    /// The slot.
    pub slot: SlotNo,
    /// The slot's generation while this connection owns it.
    pub generation: u32,
}

/// What a lock word says about its lock.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum State {
    /// Nobody's.
    Free,
    /// Nobody's, and for a moment only for connections that do not sleep through us.
    Left,
    /// Reserved for a waiter that has not taken it yet.
    Granted(Holder),
    /// Taken.
    Held(Holder),
}

/// A lock word: all of a lock's truth in one compare-and-swap, the memory of a death included.
///
/// | bits   | meaning |
/// | ------ | ------- |
/// | 0..2   | 0 free, 1 granted, 2 held, 3 left |
/// | 2..16  | slot of the holder |
/// | 16..30 | slot + 1 of a dead holder whose remains are not settled yet; 0 none |
/// | 32..64 | generation of the holder's slot |
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Word(pub u64);

const SLOT_BITS: u32 = 14;
const SLOT_MASK: u64 = (1 << SLOT_BITS) - 1;
const _: () = assert!((MAX_SLOTS as u64) < SLOT_MASK);

impl Word {
    pub fn new(state: State, dead: Option<SlotNo>) -> Word {
        let nobody = Holder { slot: SlotNo(0), generation: 0 };
        let (tag, holder) = match state {
            State::Free => (0, nobody),
            State::Left => (3, nobody),
            State::Granted(h) => (1, h),
            State::Held(h) => (2, h),
        };
        let dead = dead.map_or(0, |d| u64::from(d.0) + 1);
        Word(tag | u64::from(holder.slot.0) << 2 | dead << 16 | u64::from(holder.generation) << 32)
    }

    pub fn state(self) -> State {
        let slot = SlotNo((self.0 >> 2 & SLOT_MASK) as u32);
        let holder = Holder { slot, generation: (self.0 >> 32) as u32 };
        match self.0 & 3 {
            0 => State::Free,
            1 => State::Granted(holder),
            2 => State::Held(holder),
            _ => State::Left,
        }
    }

    /// The dead holder that the next one must clean up after.
    pub fn dead(self) -> Option<SlotNo> {
        ((self.0 >> 16 & SLOT_MASK) as u32).checked_sub(1).map(SlotNo)
    }

    /// True if the lock's next holder may still need what `slot` left behind. (Who was only granted it left nothing.)
    pub fn names(self, slot: SlotNo) -> bool {
        matches!(self.state(), State::Held(holder) if holder.slot == slot) || self.dead() == Some(slot)
    }
}

impl fmt::Debug for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} after {:?}", self.state(), self.dead())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_word_keeps_all_it_was_given() {
        let last = Holder { slot: SlotNo(MAX_SLOTS - 1), generation: u32::MAX };
        for state in [State::Free, State::Left, State::Granted(last), State::Held(last)] {
            for dead in [None, Some(SlotNo(0)), Some(SlotNo(MAX_SLOTS - 1))] {
                let word = Word::new(state, dead);
                assert_eq!((word.state(), word.dead()), (state, dead));
            }
        }
        assert_eq!(Word(0).state(), State::Free, "a zeroed mapping is an unlocked one");
    }
}
