//! The versions of a page, newest first: which one a reader sees, and which ones a commit takes out (P12).

use super::pins::Pins;
use super::virt::Virt;
use crate::base::sync::Ordering;
use crate::base::{Jci, VirtNo};

/// Where virtblocks lie, and where those go that were taken out: the mapping, or a model.
pub trait Chain {
    /// A virtblock.
    fn virt(&self, v: VirtNo) -> &Virt;
    /// Gives back a virtblock that was just unlinked; `until` is what superseded it, `quiet` says that no reader can be
    /// on its way through it (no pin is older than what superseded it).
    fn discard(&self, v: VirtNo, until: Jci, quiet: bool);
}

/// The version that a reader pinned at `pin` sees, from the newest one, `at`, on. `None` is the home.
#[inline]
pub fn seen(chain: &impl Chain, mut at: VirtNo, pin: Jci) -> Option<&Virt> {
    while at != VirtNo::NONE {
        let virt = chain.virt(at);
        if virt.birth() <= pin {
            return Some(virt);
        }
        at = virt.older();
    }
    None
}

/// Takes every version out of a chain that no pin sees: between `newer` and the end. `visible` is among the pins where
/// it must be. Answers how many are left behind `newer`.
pub fn prune(chain: &impl Chain, newer: VirtNo, pins: &Pins) -> usize {
    let (mut left, mut newer) = (0, newer);
    loop {
        let upper = chain.virt(newer).birth();
        let at = chain.virt(newer).older();
        if at == VirtNo::NONE {
            return left;
        }
        let virt = chain.virt(at);
        if pins.within(virt.birth(), upper) {
            left += 1;
            newer = at;
            continue;
        }
        chain.virt(newer).older.store(virt.older().0, Ordering::Release);
        chain.discard(at, upper, !pins.below(upper));
    }
}
