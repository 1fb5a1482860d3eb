//! The durable virtblock array of `dax` and `ram`: per data block, 32 bytes that say which page it holds.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 4 | page, 0 for a free block |
//! | 4 | 4 | check over page and birth, seeded with the region |
//! | 8 | 8 | birth: JCI of the commit that made the block the page's place, from 1 |
//! | 16 | 8 | the word at 8, combined by exclusive or with the word at 0, halves exchanged |
//! | 24 | 8 | checksum of what the block holds (see [`page_sum`](crate::base::page_sum)), as of the last retirement at least |
//!
//! Every word is stored on its own and may be torn from the others by a crash. Of the first three two tell the third, and the
//! check tells which two: one that was damaged later is made good. An entry that takes the place of another, or of none, or is
//! cleared, has two words of the old state or two of the new one, wherever it is torn: it is read as that, and nobody relies on
//! either before the new one is durable. So words that tell nothing, more than one of them, were damaged.
//!
//! An entry whose birth lies above the low-water mark is not believed: its block may not be durable, and redo builds the page
//! anew from the older place. Nor is the checksum of a page that a record above that mark names: the record has its own.

use crate::base::checksum::checksum;
use crate::base::limits::LINE;
use crate::base::{Jci, PageNo};

/// Bytes of an entry.
pub const ENTRY: u64 = 32;
/// Where in it the checksum stands.
pub const SUM_AT: u64 = 24;
const _: () = assert!(LINE.is_multiple_of(ENTRY) && SUM_AT + 8 == ENTRY);

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
    /// The first three words, in the order of their offsets.
    #[must_use]
    pub fn encode(&self, seed: u64) -> [u64; 3] {
        let first = u64::from(self.page.0) | check(seed, self.page, self.birth);
        [first, self.birth.0, self.birth.0 ^ first.rotate_left(32)]
    }

    /// The entry that two of three words agree on; `None` if free or torn. No commit has number 0: before the first one is
    /// retired no entry can be believed, whatever stands there.
    #[must_use]
    pub fn decode(seed: u64, [first, birth, both]: [u64; 3]) -> Option<Entry> {
        let of = |first: u64, birth: u64| {
            let entry = Entry { page: PageNo(first as u32), birth: Jci(birth) };
            (entry.page.0 != 0 && birth != 0 && entry.encode(seed)[0] == first).then_some(entry)
        };
        of(first, birth)
            .or_else(|| of(first, both ^ first.rotate_left(32)))
            .or_else(|| of((both ^ birth).rotate_left(32), birth))
    }

    /// Whether words that were stored by this version, each as part of an entry or zero, are not that any more.
    #[must_use]
    pub fn is_damaged(seed: u64, words: [u64; 3]) -> bool {
        Entry::decode(seed, words).is_none() && words.iter().filter(|word| **word != 0).count() > 1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_torn_entry_is_the_old_one_or_the_new_one() {
        let free = [0; 3];
        let (old, new) = (Entry { page: PageNo(5), birth: Jci(70) }, Entry { page: PageNo(9), birth: Jci(71) });
        for (old, new) in [(Some(old), Some(new)), (None, Some(new)), (Some(old), None)] {
            let words = [old, new].map(|entry| entry.map_or(free, |entry| entry.encode(3)));
            for mask in 0..8 {
                let torn = std::array::from_fn(|i| words[mask >> i & 1][i]);
                let found = Entry::decode(3, torn);
                assert!(found == old || found == new, "{mask}: {found:?}");
                assert!(!Entry::is_damaged(3, torn), "{mask}");
            }
            assert_eq!(words.map(|words| Entry::decode(3, words)), [old, new]);
        }
        assert_eq!(Entry::decode(4, new.encode(3)), None, "of another region");
        assert_eq!(Entry::decode(3, Entry { page: PageNo(5), birth: Jci::ZERO }.encode(3)), None);
    }

    #[test]
    fn a_damaged_word_is_made_good() {
        // Failure: a bit flips, the block counts as free, and its page's home, which is older, for the page.
        let entry = Entry { page: PageNo(5), birth: Jci(70) };
        for bit in 0..192 {
            let mut words = entry.encode(3);
            words[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(Entry::decode(3, words), Some(entry), "bit {bit}");
            words[(bit / 64 + 1) % 3] ^= 4;
            assert!(Entry::is_damaged(3, words), "bit {bit} and one of another word");
            let mut free = [0; 3];
            free[bit / 64] ^= 1 << (bit % 64);
            assert_eq!(Entry::decode(3, free), None, "bit {bit}");
        }
    }
}
