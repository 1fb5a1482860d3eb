//! Where things lie in a region. Fixed by the budget and the page size, which is known from the first commit on.
//!
//! | bytes | `file` | `dax`, `ram` |
//! | --- | --- | --- |
//! | 0..8192 | two superblocks | two superblocks |
//! | 8192..12288 | zeros | the applied word, then zeros |
//! | 12288.. | ring of micro-journals | ring of micro-journals |
//! | then | | durable virtblock array, 32 bytes a block, padded to 4096 |
//! | then | | data blocks |

use super::entry::ENTRY;
use super::journal::SLOT;
use super::superblock::SIZE;
use crate::base::limits::{DEVICE_BLOCK, LINE, MAX_PAGE_SIZE, MIN_PAGE_SIZE};

/// Where the applied word lies (`dax`, `ram`): on a line of its own, which every commit stores to and nobody flushes.
pub const APPLIED_AT: u64 = 2 * SIZE as u64;
/// Bytes before the ring.
pub const RING_AT: u64 = APPLIED_AT + DEVICE_BLOCK;
/// Data blocks at most, whatever the budget: more than there are virtblocks for.
const MAX_BLOCKS: u64 = 1 << 30;
const _: () = assert!(APPLIED_AT == 8192 && RING_AT == 12288 && APPLIED_AT.is_multiple_of(LINE));

/// The places of one region.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Layout {
    /// Slots of the ring; a whole number of device blocks.
    pub ring_slots: u64,
    /// Bytes of a page, 0 while unknown.
    pub page_size: u32,
    /// Data blocks at most.
    pub max_blocks: u32,
    /// Whether blocks lie in the region (else in the shared mapping).
    pub blocks_inside: bool,
    /// Bytes of the budget.
    pub budget: u64,
}

impl Layout {
    /// Where the log of the largest region ends.
    pub const LOG_END: u64 = RING_AT + (32 << 20);

    /// The layout for a budget.
    #[must_use]
    pub fn new(budget: u64, page_size: u32, blocks_inside: bool) -> Layout {
        let (least, most) = if blocks_inside { (64 << 10, 4 << 20) } else { (256 << 10, Layout::LOG_END - RING_AT) };
        let ring = (budget / 8).clamp(least, most) / DEVICE_BLOCK * DEVICE_BLOCK;
        let block = u64::from(page_size.max(MIN_PAGE_SIZE)) + if blocks_inside { ENTRY } else { 0 };
        let room = if blocks_inside { budget.saturating_sub(RING_AT + ring + DEVICE_BLOCK) } else { budget };
        let max_blocks = (room / block).clamp(16, MAX_BLOCKS) as u32;
        Layout { ring_slots: ring / SLOT as u64, page_size, max_blocks, blocks_inside, budget }
    }

    /// First byte of the slot at `position`, which counts slots over all laps of the ring.
    #[must_use]
    pub fn slot_at(&self, position: u64) -> u64 {
        RING_AT + position % self.ring_slots * SLOT as u64
    }

    /// First byte of the durable virtblock array.
    #[must_use]
    pub fn entries_at(&self) -> u64 {
        RING_AT + self.ring_slots * SLOT as u64
    }

    /// First byte of the data blocks.
    #[must_use]
    pub fn blocks_at(&self) -> u64 {
        (self.entries_at() + u64::from(self.max_blocks) * ENTRY).next_multiple_of(DEVICE_BLOCK)
    }

    /// Length of a region with all its blocks.
    #[must_use]
    pub fn len(&self) -> u64 {
        if self.blocks_inside {
            self.blocks_at() + u64::from(self.max_blocks) * u64::from(self.page_size.max(MIN_PAGE_SIZE))
        } else {
            self.entries_at()
        }
    }

    /// Length of a region of this budget whose page size is not known yet: that of the longest. Which one that is follows from
    /// what is lost to rounding.
    #[must_use]
    pub fn longest(budget: u64, blocks_inside: bool) -> u64 {
        page_sizes().map(|size| Layout::new(budget, size, blocks_inside).len()).fold(0, u64::max)
    }

    /// Never: a region has at least its superblocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        false
    }
}

fn page_sizes() -> impl Iterator<Item = u32> {
    (MIN_PAGE_SIZE.ilog2()..=MAX_PAGE_SIZE.ilog2()).map(|log| 1 << log)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::limits::{MAX_REGION, MIN_REGION};

    #[test]
    #[cfg_attr(miri, ignore = "safe code only, and takes minutes there")]
    fn a_new_region_is_long_enough_for_every_page_size() {
        // Failure: of a good database the first commit, or the next open, says that its region was cut.
        let whole_mib = (1..=8 << 10).map(|mib| mib << 20);
        let large = (33..=MAX_REGION.ilog2()).flat_map(|log| [1 << log, (1 << log) - (1 << 20), 3 << (log - 1)]);
        let odd = (0..1000).map(|n| MIN_REGION + n * 4093);
        for budget in whole_mib.chain(large).chain(odd).filter(|budget| *budget <= MAX_REGION) {
            for blocks_inside in [false, true] {
                let len = Layout::longest(budget, blocks_inside);
                for size in page_sizes() {
                    let layout = Layout::new(budget, size, blocks_inside);
                    assert!(layout.len() <= len, "{budget} bytes, pages of {size}: {} of {len}", layout.len());
                    let fits = layout.len() <= budget || !blocks_inside || layout.max_blocks == 16;
                    assert!(fits, "{budget} bytes, pages of {size}: {}", layout.len());
                }
            }
        }
    }

    #[test]
    fn larger_pages_are_never_more() {
        // Failure: a budget whose small pages cannot all be numbered has room for less of them than of larger ones.
        for budget in (20..=MAX_REGION.ilog2()).map(|log| 1 << log) {
            let blocks: Vec<_> = page_sizes().map(|size| Layout::new(budget, size, true).max_blocks).collect();
            assert!(blocks.is_sorted_by(|small, large| small >= large), "{budget} bytes: {blocks:?}");
        }
    }
}
