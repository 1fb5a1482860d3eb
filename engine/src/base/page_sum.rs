//! The checksum of a page's content: the sum of the checksums of its lines, each seeded with its number. So a commit that
//! changes a few lines of a page finds the new one without a look at the others.

use super::checksum::checksum;
use super::limits::LINE;

const BYTES: usize = LINE as usize;
static ZEROS: [u8; BYTES] = [0; BYTES];

fn of_line(number: usize, line: &[u8]) -> u64 {
    checksum(number as u64, line)
}

/// That of a page.
#[must_use]
pub fn page_sum(content: &[u8]) -> u64 {
    content.chunks(BYTES).enumerate().fold(0, |sum, (i, line)| sum.wrapping_add(of_line(i, line)))
}

/// That of a page of so many zeros.
#[must_use]
pub fn sum_of_zeros(size: u32) -> u64 {
    (0..size as usize / BYTES).fold(0, |sum, i| sum.wrapping_add(of_line(i, &ZEROS)))
}

/// The line that ranges are being laid over.
struct Line {
    number: usize,
    bytes: [u8; BYTES],
}

/// What becomes of `sum`, that of `old`, when `ranges` are laid over that: (offset, bytes), ascending, not overlapping. `old`
/// is `None` for zeros.
#[must_use]
pub fn sum_after<'a>(sum: u64, old: Option<&[u8]>, ranges: impl Iterator<Item = (u32, &'a [u8])>) -> u64 {
    let (mut sum, mut line): (u64, Option<Line>) = (sum, None);
    for (at, mut bytes) in ranges {
        let mut at = at as usize;
        while !bytes.is_empty() {
            let (number, within) = (at / BYTES, at % BYTES);
            if line.as_ref().is_none_or(|line| line.number != number) {
                let before = old.map_or(&ZEROS[..], |old| &old[number * BYTES..(number + 1) * BYTES]);
                sum = sum.wrapping_add(line.map_or(0, |line| of_line(line.number, &line.bytes)));
                sum = sum.wrapping_sub(of_line(number, before));
                line = Some(Line { number, bytes: *before.first_chunk().expect("a whole line") });
            }
            let n = bytes.len().min(BYTES - within);
            if let Some(line) = &mut line {
                line.bytes[within..within + n].copy_from_slice(&bytes[..n]);
            }
            (at, bytes) = (at + n, &bytes[n..]);
        }
    }
    sum.wrapping_add(line.map_or(0, |line| of_line(line.number, &line.bytes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "safe code only, and takes minutes there")]
        fn what_follows_from_the_ranges_is_the_sum_of_the_whole(
            old in prop::option::of(prop::collection::vec(any::<u8>(), 1024)),
            cuts in prop::collection::btree_set(0usize..=1024, 0..20),
            new in prop::collection::vec(any::<u8>(), 1024)
        ) {
            let cuts: Vec<usize> = cuts.into_iter().collect();
            let ranges: Vec<(u32, &[u8])> = cuts.chunks_exact(2).map(|c| (c[0] as u32, &new[c[0]..c[1]])).collect();
            let mut content = old.clone().unwrap_or_else(|| vec![0; 1024]);
            let before = old.as_ref().map_or_else(|| sum_of_zeros(1024), |old| page_sum(old));
            prop_assert_eq!(before, page_sum(&content));
            for (at, bytes) in &ranges {
                content[*at as usize..][..bytes.len()].copy_from_slice(bytes);
            }
            prop_assert_eq!(sum_after(before, old.as_deref(), ranges.into_iter()), page_sum(&content));
        }
    }

    #[test]
    fn every_bit_counts_and_every_place() {
        let mut content = vec![0; 512];
        let sum = page_sum(&content);
        for bit in 0..512 * 8 {
            content[bit / 8] ^= 1 << (bit % 8);
            assert_ne!(page_sum(&content), sum, "bit {bit}");
            content[bit / 8] ^= 1 << (bit % 8);
        }
        content[0] = 1;
        let first = page_sum(&content);
        content.swap(0, 64);
        assert_ne!(page_sum(&content), first, "lines that changed places");
    }
}
