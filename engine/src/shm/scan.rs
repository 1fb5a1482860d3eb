//! What writers and retirers ask all slots at once.
//!
//! An answer is binding only behind a `SeqCst` fence of the one who asks, between the store that readers must see and the scan:
//! [`Clock::close_gate`](super::Clock::close_gate) and [`Clock::set_visible`](super::Clock::set_visible) have it. Without, a pin
//! may be missed that was there first.

use super::slot::SlotNo;
use super::slots::Slots;
use crate::base::Jci;

impl Slots {
    /// All pins, in no order, replacing what `buf` held.
    pub fn pins(&self, buf: &mut Vec<u64>) {
        self.pins_but(None, buf);
    }

    /// As [`pins`](Self::pins), without that of `except`.
    pub fn pins_but(&self, except: Option<SlotNo>, buf: &mut Vec<u64>) {
        buf.clear();
        let wanted = self.below_high_water().filter(|(no, _)| Some(*no) != except);
        buf.extend(wanted.filter_map(|(_, slot)| slot.pin()).map(|jci| jci.0));
    }

    /// The oldest snapshot that is read at.
    pub fn oldest_pin(&self) -> Option<Jci> {
        self.oldest_reader().map(|(pin, _)| pin)
    }

    /// The oldest snapshot that is read at, and whose it is.
    pub fn oldest_reader(&self) -> Option<(Jci, SlotNo)> {
        self.below_high_water().filter_map(|(no, slot)| slot.pin().map(|pin| (pin, no))).min()
    }

    /// True if any connection holds pointers into blocks.
    pub fn fetches_out(&self) -> bool {
        self.below_high_water().any(|(_, slot)| slot.fetches() != 0)
    }
}
