//! The durable virtblock array of `dax` and `ram`: per data block, 16 bytes that say which page it holds.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | page, 0 for a free block |
//! | 4 | 4 | check over page and birth, seeded with the region |
//! | 8 | 8 | birth: JCI of the commit that made the block the page's place, from 1 |
//!
//! Both words are stored on their own and may be torn apart by a crash; the check tells. An entry whose birth lies above
//! the low-water mark is not believed: its block may not be durable, and redo builds the page anew from the older place.

use crate::base::checksum::checksum;
use crate::base::{Jci, PageNo};

/// Bytes of an entry.
pub const ENTRY: u64 = 16;

/// What a block holds.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The page.
    pub page: PageNo,
    /// The commit since which the block is its place.
    pub birth: Jci,
}

fn check(seed: u64, page: PageNo, birth: Jci) -> u64 {
    let mut bytes = [0u8; 12];
    bytes[..4].copy_from_slice(&page.0.to_le_bytes());
    bytes[4..].copy_from_slice(&birth.0.to_le_bytes());
    checksum(seed, &bytes) >> 32 << 32
}

impl Entry {
    /// The two words, in the order of their offsets.
    #[must_use]
    pub fn encode(&self, seed: u64) -> [u64; 2] {
        [u64::from(self.page.0) | check(seed, self.page, self.birth), self.birth.0]
    }

    /// The entry that two words hold; `None` if free or torn. No commit has number 0: before the first one is retired no
    /// entry can be believed, whatever stands there.
    #[must_use]
    pub fn decode(seed: u64, words: [u64; 2]) -> Option<Entry> {
        let entry = Entry { page: PageNo(words[0] as u32), birth: Jci(words[1]) };
        (entry.page.0 != 0 && entry.birth != Jci::ZERO && entry.encode(seed) == words).then_some(entry)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_entry_is_free() {
        let old = Entry { page: PageNo(5), birth: Jci(70) }.encode(3);
        let new = Entry { page: PageNo(9), birth: Jci(71) }.encode(3);
        assert_eq!(Entry::decode(3, new), Some(Entry { page: PageNo(9), birth: Jci(71) }));
        assert_eq!(Entry::decode(3, [new[0], old[1]]), None);
        assert_eq!(Entry::decode(3, [old[0], new[1]]), None);
        assert_eq!(Entry::decode(4, new), None);
        assert_eq!(Entry::decode(3, [0, 0]), None);
        assert_eq!(Entry::decode(3, Entry { page: PageNo(5), birth: Jci::ZERO }.encode(3)), None);
    }
}
