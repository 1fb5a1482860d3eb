//! The applied word of `dax` and `ram`: up to which commit stores in place may have begun. It tells a newest record that was
//! damaged from one that a crash tore: of that nothing was stored in place yet.
//!
//! | bits | field |
//! | --- | --- |
//! | 0..48 | JCI, cut off |
//! | 48..64 | check: its three 16-bit parts and 16 bits of the region's seed, combined by exclusive or |
//!
//! A hash of so few bits would miss one flipped bit in 65536; of this each bit of the JCI has one bit of its own.
//!
//! 0 says that there was no commit. The word is stored after the fence that made the commit's record durable, and never
//! flushed: it never claims more than the log holds, and outlives the processes. A power cut may take it and leave stores
//! in place: a record that is damaged *and* the newest before a power cut may be taken for a torn one. It only goes up, over
//! incarnations, too: retirement and recovery leave it alone, as they end at or above it.

use super::FormatError;
use crate::base::Jci;

const JCI_BITS: u32 = 48;

/// The word for `jci`.
#[must_use]
pub fn encode(seed: u64, jci: Jci) -> u64 {
    // a JCI of more bits claims less than it could, which costs only what the word is there to notice
    let jci = jci.0 & ((1 << JCI_BITS) - 1);
    jci | (seed ^ jci ^ jci >> 16 ^ jci >> 32) << JCI_BITS
}

/// The JCI in `word`.
///
/// # Errors
/// `Checksum`: it was damaged, as a word is never torn.
pub fn decode(seed: u64, word: u64) -> Result<Jci, FormatError> {
    let jci = Jci(word & ((1 << JCI_BITS) - 1));
    if word == 0 || word == encode(seed, jci) { Ok(jci) } else { Err(FormatError::Checksum) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg_attr(miri, ignore = "safe code only, and takes minutes there")]
    fn a_flipped_bit_is_noticed() {
        for jci in [1, 2, 77, 1 << 20, (1 << 48) - 1].map(Jci) {
            let word = encode(9, jci);
            assert_eq!(decode(9, word), Ok(jci));
            for seed in (0..=u64::from(u16::MAX)).filter(|seed| encode(*seed, jci).count_ones() > 1) {
                let word = encode(seed, jci);
                let noticed = |bit| decode(seed, word ^ (1u64 << bit)) == Err(FormatError::Checksum);
                assert!((0..64u32).all(noticed), "{seed}, {jci}");
            }
            assert_eq!(decode(8, word), Err(FormatError::Checksum), "of another region");
        }
        assert_eq!(decode(9, 0), Ok(Jci::ZERO));
        assert_eq!(encode(9, Jci(5 << 48 | 77)), encode(9, Jci(77)));
    }
}
