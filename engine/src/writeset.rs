//! What one transaction wrote, in private memory: per page the byte ranges that differ from the committed content, or
//! (for transactions too large for that) a shadow block that holds the page whole.

use crate::base::{PageNo, VirtNo};
use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use wide::u8x16;

/// Hash of page numbers: one multiplication.
#[derive(Default)]
pub struct PageHasher(u64);

impl Hasher for PageHasher {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        bytes.iter().for_each(|&b| self.write_u32(u32::from(b)));
    }

    fn write_u32(&mut self, n: u32) {
        self.0 = (self.0 ^ u64::from(n)).wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(26);
    }
}

/// A map by page number.
pub type PageMap<V> = HashMap<PageNo, V, BuildHasherDefault<PageHasher>>;

/// Differing bytes closer than this are one range: a range's head costs two or three bytes.
const JOIN: usize = 8;

/// Bytes compared at once.
const STRIDE: usize = 256;
static ZEROS: [u8; STRIDE] = [0; STRIDE];

/// What a transaction did to one page.
#[derive(Clone, Copy, Debug)]
pub enum Written {
    /// Ranges `first .. first + n`, over the committed content, or over zeros if `fresh`.
    Ranges {
        /// Whether over zeros (P3).
        fresh: bool,
        /// Index of the first range.
        first: u32,
        /// How many.
        n: u32,
    },
    /// The whole content stands in this virtblock, which nothing refers to yet.
    Shadow(VirtNo),
}

#[derive(Clone, Copy)]
struct Range {
    at: u32,
    len: u32,
    bytes: usize,
}

/// The write set of one transaction.
#[derive(Default)]
pub struct WriteSet {
    pages: PageMap<Written>,
    ranges: Vec<Range>,
    bytes: Vec<u8>,
    /// Highest end of a write, or where xTruncate cut, in pages.
    pub end: Option<u32>,
    /// Whether xTruncate was called: then `end` is the end of the database, whatever it was before.
    pub truncated: bool,
    /// Pages that xTruncate has left: what was committed above is gone, and reads as zeros if the transaction grows again.
    pub kept: Option<u32>,
    /// Pages in shadow blocks.
    shadows: usize,
}

/// Which of 64 bytes differ, the first in the lowest bit.
fn unequal(a: &[u8], b: &[u8]) -> u64 {
    let mut mask = 0;
    for (i, (a, b)) in a.as_chunks::<16>().0.iter().zip(b.as_chunks::<16>().0).enumerate() {
        mask |= u64::from(!u8x16::new(*a).simd_eq(u8x16::new(*b)).to_bitmask() as u16) << (16 * i);
    }
    mask
}

/// Sets the bits between two set ones that are less than [`JOIN`] apart: stretched to the left by that, and cut by as much.
fn close_gaps(mask: u64) -> u64 {
    const { assert!(JOIN == 8) };
    let two = mask | mask << 1;
    let four = two | two << 2;
    let stretched = !(four | four << 4);
    let two = stretched | stretched >> 1;
    let four = two | two >> 2;
    // what was stretched beyond the last bit ends with the mask's own last one
    !(four | four >> 4) & u64::MAX.checked_shr(mask.leading_zeros()).unwrap_or(0)
}

/// Calls `out` with each range in which `new` differs from `old` (or from zeros), ascending.
fn differences(old: Option<&[u8]>, new: &[u8], mut out: impl FnMut(usize, usize)) {
    let mut open: Option<(usize, usize)> = None;
    for (i, new) in new.chunks(STRIDE).enumerate() {
        let at = i * STRIDE;
        let old = old.map_or(&ZEROS[..new.len()], |old| &old[at..at + new.len()]);
        // equal stretches are skipped in large steps: nearly all of a page is equal
        if new == old {
            continue;
        }
        for (j, (new, old)) in new.chunks(64).zip(old.chunks(64)).enumerate() {
            let (at, mut mask) = (at + 64 * j, close_gaps(unequal(new, old)));
            while mask != 0 {
                let first = mask.trailing_zeros();
                let n = (mask >> first).trailing_ones();
                mask = if first + n == 64 { 0 } else { mask >> (first + n) << (first + n) };
                let (first, end) = (at + first as usize, at + (first + n) as usize);
                open = match open {
                    Some((start, last)) if first - last < JOIN => Some((start, end)),
                    closed => {
                        closed.into_iter().for_each(|(start, end)| out(start, end));
                        Some((first, end))
                    }
                };
            }
        }
    }
    open.into_iter().for_each(|(start, end)| out(start, end));
}

impl WriteSet {
    /// Empties it, keeping its memory within bounds.
    pub fn clear(&mut self) {
        // walking and clearing a map costs its capacity, not its length
        if self.pages.capacity() > 1024 {
            self.pages = PageMap::default();
        }
        self.pages.clear();
        self.ranges.clear();
        self.bytes.clear();
        self.ranges.shrink_to(1 << 16);
        self.bytes.shrink_to(4 << 20);
        self.shadows = 0;
        self.end = None;
        self.truncated = false;
        self.kept = None;
    }

    /// Whether the transaction has cut off what was committed of a page.
    #[must_use]
    pub fn has_cut(&self, page: PageNo) -> bool {
        self.kept.is_some_and(|kept| page.0 > kept)
    }

    /// True if nothing was written or cut.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.pages.is_empty() && self.end.is_none()
    }

    /// Pages written.
    #[must_use]
    pub fn len(&self) -> usize {
        self.pages.len()
    }

    /// Pages of which ranges are kept.
    #[must_use]
    pub fn in_ranges(&self) -> usize {
        self.pages.len() - self.shadows
    }

    /// Bytes kept in ranges, given up ones included.
    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes.len()
    }

    /// What was done to a page.
    #[must_use]
    pub fn get(&self, page: PageNo) -> Option<Written> {
        self.pages.get(&page).copied()
    }

    /// Whether the transaction needs the committed content of a page where it is: it holds differences against it.
    #[must_use]
    pub fn builds_on(&self, page: PageNo) -> bool {
        matches!(self.get(page), Some(Written::Ranges { fresh: false, .. }))
    }

    /// Sets a page to `new`; `old` is its committed content, `None` makes it fresh. Answers what stood there before.
    pub fn put(&mut self, page: PageNo, old: Option<&[u8]>, new: &[u8]) -> Option<Written> {
        let (first, bytes, ranges) = (self.ranges.len(), &mut self.bytes, &mut self.ranges);
        differences(old, new, |start, end| {
            ranges.push(Range { at: start as u32, len: (end - start) as u32, bytes: bytes.len() });
            bytes.extend_from_slice(&new[start..end]);
        });
        let n = (self.ranges.len() - first) as u32;
        let written = Written::Ranges { fresh: old.is_none(), first: first as u32, n };
        let before = self.pages.insert(page, written);
        self.left(before)
    }

    /// Counts a page that has left its shadow block.
    fn left(&mut self, before: Option<Written>) -> Option<Written> {
        self.shadows -= usize::from(matches!(before, Some(Written::Shadow(_))));
        before
    }

    /// Notes that a page stands in a shadow block. Answers what stood there before.
    pub fn put_shadow(&mut self, page: PageNo, virt: VirtNo) -> Option<Written> {
        self.shadows += 1;
        let before = self.pages.insert(page, Written::Shadow(virt));
        self.left(before)
    }

    /// Forgets a page.
    pub fn remove(&mut self, page: PageNo) -> Option<Written> {
        let before = self.pages.remove(&page);
        self.left(before)
    }

    /// The ranges of a page: (offset, bytes).
    pub fn ranges(&self, first: u32, n: u32) -> impl Iterator<Item = (u32, &[u8])> {
        self.ranges[first as usize..(first + n) as usize]
            .iter()
            .map(|r| (r.at, &self.bytes[r.bytes..r.bytes + r.len as usize]))
    }

    /// Lays the ranges over `content`, which begins at byte `within` of its page.
    pub fn overlay(&self, first: u32, n: u32, within: u32, content: &mut [u8]) {
        let (from, to) = (u64::from(within), u64::from(within) + content.len() as u64);
        for (at, bytes) in self.ranges(first, n) {
            let (start, end) = (u64::from(at).max(from), (u64::from(at) + bytes.len() as u64).min(to));
            if start < end {
                content[(start - from) as usize..(end - from) as usize]
                    .copy_from_slice(&bytes[(start - u64::from(at)) as usize..(end - u64::from(at)) as usize]);
            }
        }
    }

    /// The pages that stand in shadow blocks.
    pub fn shadows(&self) -> impl Iterator<Item = (PageNo, VirtNo)> + '_ {
        let pages = (self.shadows > 0).then(|| self.pages.iter());
        pages.into_iter().flatten().filter_map(|(&page, &written)| match written {
            Written::Shadow(v) => Some((page, v)),
            Written::Ranges { .. } => None,
        })
    }

    /// All pages, in no order.
    pub fn iter(&self) -> impl Iterator<Item = (PageNo, Written)> + '_ {
        self.pages.iter().map(|(&p, &w)| (p, w))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn gaps_are_closed_between_set_bits_only(mask: u64, thin: u64, thinner: u64) {
            for mask in [mask, mask & thin, mask & thin & thinner, 0, 1, 1 << 63, u64::MAX] {
                let set: Vec<u32> = (0..64).filter(|i| mask >> i & 1 == 1).collect();
                let gaps = set.windows(2).filter(|w| w[1] - w[0] <= JOIN as u32).flat_map(|w| w[0]..w[1]);
                let expected = set.iter().copied().chain(gaps).fold(0, |m, i| m | 1 << i);
                prop_assert_eq!(close_gaps(mask), expected, "{:b}", mask);
            }
        }

        #[test]
        fn old_and_differences_make_new(old in prop::collection::vec(0u8..3, 512), edits in prop::collection::vec((0usize..512, any::<u8>()), 0..60), fresh: bool) {
            let mut new = old.clone();
            for (at, value) in edits { new[at] = value; }
            let mut set = WriteSet::default();
            let base = (!fresh).then_some(&old[..]);
            set.put(PageNo(3), base, &new);
            let Some(Written::Ranges { fresh: f, first, n }) = set.get(PageNo(3)) else { panic!("just put") };
            prop_assert_eq!(f, fresh);
            let mut content = if fresh { vec![0; 512] } else { old };
            set.overlay(first, n, 0, &mut content);
            prop_assert_eq!(&content, &new);
            let mut part = if fresh { vec![0; 100] } else { content[200..300].to_vec() };
            set.overlay(first, n, 200, &mut part);
            prop_assert_eq!(&part[..], &new[200..300]);
        }
    }
}
