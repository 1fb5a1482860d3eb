//! Micro-journals: fixed slots of 1 KiB, each one part of one commit.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | checksum of bytes 8..32 and the body's checksum, seeded with region, incarnation and slot (H4) |
//! | 8 | 8 | JCI |
//! | 16 | 4 | JCI - L; everything up to L is durable at its place (H2) |
//! | 20 | 4 | JCI - newest JCI known durable when this was written (H3) |
//! | 24 | 2 | part, from 0 |
//! | 26 | 2 | parts |
//! | 28 | 2 | bytes of body |
//! | 30 | 2 | flags, 0 |
//! | 32 | .. | body: groups |
//!
//! A group is one page's changes: `varint(page << 2 | kind)`, then for [`Kind::Ranges`] and [`Kind::Fresh`] 8 bytes, the
//! checksum of the page after the commit (see [`page_sum`](crate::base::page_sum)), and ranges of
//! `varint(gap << 1 | last) varint(length) bytes`, the gap counted from the end of the range before; for [`Kind::Block`]
//! `varint(index << 1 | cold)`, for [`Kind::Run`] that and `varint(count)`: so many pages in a row, from `page` on, stand in
//! so many blocks in a row. A group never spans slots; a page may have several groups, applied in order. Last comes, if any
//! block is cold, `varint(2)` (a block of page 0) and 8 bytes: the sum of the checksums of all cold blocks that the commit names.
//! Only the used bytes of a slot are written; the rest of it is whatever was there.

use super::{COUNT_MAX, FormatError, get_u16, get_u32, get_u64, put};
use crate::base::checksum::checksum;
use crate::base::limits::LINE;
use crate::base::{Jci, PageNo};

/// Bytes of a slot.
pub const SLOT: usize = 1024;
/// Bytes of its header.
pub const HEADER: usize = 32;
/// Most bytes of body.
pub const BODY: usize = SLOT - HEADER;
/// Most pages of one run. What a garbled count can make a reader do is bounded by it.
pub const MAX_RUN: u32 = 1 << 16;
/// Most parts of one commit.
pub const MAX_PARTS: usize = u16::MAX as usize;
const _: () = assert!(HEADER + BODY == SLOT && SLOT.is_multiple_of(64) && HEADER.is_multiple_of(8));

/// What a group says about its page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// Byte ranges over the content before.
    Ranges,
    /// Byte ranges over a page of zeros (P3).
    Fresh,
    /// The whole page stands in a shadow block.
    Block,
    /// Pages in a row stand whole in shadow blocks in a row.
    Run,
}

/// The header of one slot.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Header {
    /// The commit.
    pub jci: Jci,
    /// Everything up to this is durable at its place.
    pub low_water: Jci,
    /// The newest commit known durable when this was written.
    pub durable: Jci,
    /// Which part of the commit, from 0.
    pub part: u16,
    /// Of how many.
    pub parts: u16,
    /// Bytes of body.
    pub len: u16,
}

/// Seed of the checksum of `slot`, from the seed of the incarnation.
#[must_use]
pub fn slot_seed(seed: u64, slot: u64) -> u64 {
    seed ^ slot.wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

impl Header {
    /// Writes the header of `slot` over the first 32 bytes of `bytes`; `body_sum` is the body's checksum under `seed`.
    pub fn encode(&self, seed: u64, slot: u64, body_sum: u64, bytes: &mut [u8]) {
        // less far back would be said to be durable what is not
        let back = |j: Jci| u32::try_from(self.jci.0 - j.0).expect("the ring holds fewer commits than that");
        put(bytes, 8, &self.jci.0.to_le_bytes());
        put(bytes, 16, &back(self.low_water).to_le_bytes());
        put(bytes, 20, &back(self.durable).to_le_bytes());
        put(bytes, 24, &self.part.to_le_bytes());
        put(bytes, 26, &self.parts.to_le_bytes());
        put(bytes, 28, &self.len.to_le_bytes());
        put(bytes, 30, &[0, 0]);
        let sum = Self::sum(seed, slot, body_sum, bytes);
        put(bytes, 0, &sum.to_le_bytes());
    }

    fn sum(seed: u64, slot: u64, body_sum: u64, bytes: &[u8]) -> u64 {
        let mut covered = [0u8; HEADER];
        covered[..24].copy_from_slice(&bytes[8..HEADER]);
        put(&mut covered, 24, &body_sum.to_le_bytes());
        checksum(slot_seed(seed, slot), &covered)
    }

    /// Reads and verifies `slot`. `None` if it holds no valid part of this incarnation.
    #[must_use]
    pub fn decode(seed: u64, slot: u64, bytes: &[u8]) -> Option<Header> {
        let len = get_u16(bytes, 28);
        let (part, parts) = (get_u16(bytes, 24), get_u16(bytes, 26));
        if usize::from(len) > BODY || part >= parts || get_u16(bytes, 30) != 0 {
            return None;
        }
        let body_sum = checksum(seed, &bytes[HEADER..HEADER + usize::from(len)]);
        if get_u64(bytes, 0) != Self::sum(seed, slot, body_sum, bytes) {
            return None;
        }
        let jci = get_u64(bytes, 8);
        if jci > COUNT_MAX {
            return None;
        }
        let back = |at| Jci(jci.saturating_sub(u64::from(get_u32(bytes, at))));
        Some(Header { jci: Jci(jci), low_water: back(16), durable: back(20), part, parts, len })
    }
}

fn put_varint(out: &mut Vec<u8>, mut v: u64) {
    while v >= 0x80 {
        out.push(v as u8 | 0x80);
        v >>= 7;
    }
    out.push(v as u8);
}

fn get_varint(bytes: &mut &[u8]) -> Result<u64, FormatError> {
    let mut v = 0u64;
    for shift in (0..64).step_by(7) {
        let (&b, rest) = bytes.split_first().ok_or(FormatError::Truncated)?;
        *bytes = rest;
        v |= u64::from(b & 0x7f) << shift;
        if b & 0x80 == 0 {
            return Ok(v);
        }
    }
    Err(FormatError::OutOfRange("a varint"))
}

/// Builds the bodies of one commit's parts, with room for their headers, in one buffer of whole slots.
#[derive(Default)]
pub struct Packer {
    image: Vec<u8>,
    lens: Vec<u16>,
    /// First byte of the newest range of the open group, to mark it as the last.
    newest: usize,
    /// Where that range ended, in the page.
    end: u32,
    /// Pages in shadow blocks that are not in the image yet: what follows may lengthen the run.
    run: Option<Run>,
    /// The sum of the checksums of the cold ones.
    cold_sum: Option<u64>,
}

/// What begins the group that has that sum.
const COLD_SUM: u64 = 2;

/// Pages in a row in shadow blocks in a row.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Run {
    page: PageNo,
    index: u32,
    cold: bool,
    count: u32,
}

impl Run {
    /// Whether this page in this block would be its next.
    fn goes_on(&self, page: PageNo, index: u32, cold: bool) -> bool {
        let next = (self.page.0.checked_add(self.count), self.index.checked_add(self.count));
        cold == self.cold && next == (Some(page.0), Some(index)) && self.count < MAX_RUN
    }
}

/// The least room in which it is worth to start a range: two heads, a checksum and some bytes.
const LEAST: usize = 32;
const _: () = assert!(LEAST < BODY / 8);

impl Packer {
    /// Empties it, keeping its memory.
    pub fn clear(&mut self) {
        self.image.clear();
        self.lens.clear();
        self.run = None;
        self.cold_sum = None;
    }

    /// Parts so far.
    #[must_use]
    pub fn parts(&self) -> usize {
        self.lens.len()
    }

    /// Bytes that will be written: headers and bodies. Right after [`finish`](Self::finish).
    #[must_use]
    pub fn used(&self) -> u64 {
        self.lens.iter().map(|&l| HEADER as u64 + u64::from(l)).sum()
    }

    /// The used bytes of part `i`, header included. Right after [`finish`](Self::finish).
    pub fn part_mut(&mut self, i: usize) -> &mut [u8] {
        &mut self.image[i * SLOT..i * SLOT + HEADER + usize::from(self.lens[i])]
    }

    /// The same in whole lines, which the medium takes at once where it would have to merge a part of one.
    #[must_use]
    pub fn part_in_lines(&self, i: usize) -> &[u8] {
        let len = HEADER + usize::from(self.lens[i]);
        &self.image[i * SLOT..i * SLOT + len.next_multiple_of(LINE as usize)]
    }

    /// Ends the record: what is held back is written, the length of the last part settled.
    pub fn finish(&mut self) {
        self.end_run();
        if let Some(sum) = self.cold_sum.take() {
            if self.room() < LEAST {
                self.next_slot();
            }
            put_varint(&mut self.image, COLD_SUM);
            self.image.extend_from_slice(&sum.to_le_bytes());
        }
        self.settle();
    }

    /// Settles the length of the last part.
    fn settle(&mut self) {
        let parts = self.lens.len();
        if let Some(last) = self.lens.last_mut() {
            *last = (self.image.len() - (parts - 1) * SLOT - HEADER) as u16;
            self.image.resize(self.image.len().next_multiple_of(LINE as usize), 0);
        }
    }

    fn room(&self) -> usize {
        self.lens.len() * SLOT - self.image.len()
    }

    fn next_slot(&mut self) {
        self.settle();
        self.image.resize(self.lens.len() * SLOT + HEADER, 0);
        self.lens.push(0);
    }

    fn open_group(&mut self, page: PageNo, kind: Kind) {
        if self.room() < LEAST {
            self.next_slot();
        }
        let code = match kind {
            Kind::Ranges => 0,
            Kind::Fresh => 1,
            Kind::Block => 2,
            Kind::Run => 3,
        };
        put_varint(&mut self.image, u64::from(page.0) << 2 | code);
        self.newest = usize::MAX;
        self.end = 0;
    }

    fn close_group(&mut self) {
        self.image[self.newest] |= 1;
    }

    /// Adds a page whose content stands in a shadow block. Pages in a row in blocks in a row become one group.
    pub fn block(&mut self, page: PageNo, index: u32, cold: bool) {
        match &mut self.run {
            Some(run) if run.goes_on(page, index, cold) => run.count += 1,
            _ => {
                self.end_run();
                self.run = Some(Run { page, index, cold, count: 1 });
            }
        }
    }

    /// Adds the checksum of a cold block that was added.
    pub fn sum_up(&mut self, checksum: u64) {
        self.cold_sum = Some(self.cold_sum.unwrap_or(0).wrapping_add(checksum));
    }

    fn end_run(&mut self) {
        let Some(Run { page, index, cold, count }) = self.run.take() else { return };
        self.open_group(page, if count == 1 { Kind::Block } else { Kind::Run });
        put_varint(&mut self.image, u64::from(index) << 1 | u64::from(cold));
        if count > 1 {
            put_varint(&mut self.image, u64::from(count));
        }
    }

    /// Adds a page's ranges: (offset, bytes), ascending, not overlapping; `sum` is the page's checksum with them. Without
    /// any, `fresh` says a page of zeros and a plain group says nothing and is left out.
    pub fn ranges<'a>(&mut self, page: PageNo, fresh: bool, sum: u64, ranges: impl Iterator<Item = (u32, &'a [u8])>) {
        self.end_run();
        let mut open = false;
        for (mut at, mut bytes) in ranges {
            while !bytes.is_empty() {
                if !open || self.room() < LEAST {
                    if open {
                        self.close_group();
                    }
                    self.open_group(page, if fresh && !open { Kind::Fresh } else { Kind::Ranges });
                    self.image.extend_from_slice(&sum.to_le_bytes());
                    open = true;
                }
                self.newest = self.image.len();
                put_varint(&mut self.image, u64::from(at - self.end) << 1);
                let n = bytes.len().min(self.room().saturating_sub(3));
                put_varint(&mut self.image, n as u64);
                self.image.extend_from_slice(&bytes[..n]);
                at += n as u32;
                self.end = at;
                bytes = &bytes[n..];
            }
        }
        if open {
            self.close_group();
        } else if fresh {
            self.open_group(page, Kind::Fresh);
            self.image.extend_from_slice(&sum.to_le_bytes());
            self.newest = self.image.len();
            put_varint(&mut self.image, 0);
            put_varint(&mut self.image, 0);
            self.close_group();
        }
    }
}

/// What a group does to its page.
#[derive(Clone, Copy, Debug)]
pub enum Change<'a> {
    /// Byte ranges; over zeros if `fresh`.
    Ranges {
        /// Whether the page is cleared first.
        fresh: bool,
        /// Checksum of the page after the commit.
        sum: u64,
        /// The ranges, still encoded; verified.
        ranges: Ranges<'a>,
    },
    /// The whole page stands in a shadow block.
    Block {
        /// Its index, in the fast tier or in the cold file.
        index: u32,
        /// Whether it is in the cold file.
        cold: bool,
    },
}

/// The groups of one verified body, a run as the pages that it stands for. A body that breaks the format ends with an
/// error.
#[must_use]
pub fn groups(body: &[u8], page_size: u32) -> Groups<'_> {
    Groups { rest: body, page_size, run: None, cold_sum: None }
}
/// How many pages in shadow blocks a body names, without a walk along its runs: one that was forged may name any number.
#[must_use]
pub fn blocks_named(body: &[u8], page_size: u32) -> u64 {
    let (mut walk, mut n) = (groups(body, page_size), 0);
    while !walk.rest.is_empty() {
        match walk.group() {
            Ok(Some((_, Change::Block { .. }))) => n += 1 + walk.run.take().map_or(0, |run| u64::from(run.count)),
            Ok(_) => {}
            Err(_) => break,
        }
    }
    n
}

/// Iterator over the groups of a body.
pub struct Groups<'a> {
    rest: &'a [u8],
    page_size: u32,
    /// What is left of the run that was read last.
    run: Option<Run>,
    cold_sum: Option<u64>,
}

impl<'a> Groups<'a> {
    /// What was read of the sum of the checksums of the commit's cold blocks.
    #[must_use]
    pub fn cold_sum(&self) -> Option<u64> {
        self.cold_sum
    }

    /// Reads where a block or a run of them lies, which begins with `page`. Answers the first.
    fn blocks(&mut self, page: u32, run: bool) -> Result<Change<'a>, FormatError> {
        let place = get_varint(&mut self.rest)?;
        let index = u32::try_from(place >> 1).map_err(|_| FormatError::OutOfRange("a block number"))?;
        let count = if run { get_varint(&mut self.rest)? } else { 1 };
        let in_range = |first: u32| u64::from(first) + count <= 1 << 32;
        if !(1..=u64::from(MAX_RUN)).contains(&count) || !in_range(page) || !in_range(index) {
            return Err(FormatError::OutOfRange("a run of blocks"));
        }
        let cold = place & 1 == 1;
        self.run = (count > 1).then(|| Run { page: PageNo(page + 1), index: index + 1, cold, count: count as u32 - 1 });
        Ok(Change::Block { index, cold })
    }

    /// The next page of the run that was read last.
    fn of_run(&mut self) -> Option<(PageNo, Change<'a>)> {
        let Run { page, index, cold, count } = self.run.take()?;
        // one more of both is in range as long as there is one more
        self.run = (count > 1).then(|| Run { page: PageNo(page.0 + 1), index: index + 1, cold, count: count - 1 });
        Some((page, Change::Block { index, cold }))
    }

    /// The next group; `None` if that is about no page.
    fn group(&mut self) -> Result<Option<(PageNo, Change<'a>)>, FormatError> {
        let code = get_varint(&mut self.rest)?;
        if code == COLD_SUM {
            let (sum, rest) = self.rest.split_at_checked(8).ok_or(FormatError::Truncated)?;
            (self.cold_sum, self.rest) = (Some(get_u64(sum, 0)), rest);
            return Ok(None);
        }
        let page = u32::try_from(code >> 2).ok().filter(|&p| p > 0).ok_or(FormatError::OutOfRange("a page number"))?;
        let change = match code & 3 {
            kind @ (2 | 3) => self.blocks(page, kind == 3)?,
            kind => {
                let (sum, rest) = self.rest.split_at_checked(8).ok_or(FormatError::Truncated)?;
                let sum = get_u64(sum, 0);
                self.rest = rest;
                let ranges = Ranges { rest: self.rest, end: 0, last: false };
                let mut walk = ranges;
                while let Some((at, bytes)) = walk.step()? {
                    if u64::from(at) + bytes.len() as u64 > u64::from(self.page_size) {
                        return Err(FormatError::OutOfRange("a range"));
                    }
                }
                self.rest = walk.rest;
                Change::Ranges { fresh: kind == 1, sum, ranges }
            }
        };
        Ok(Some((PageNo(page), change)))
    }
}

impl<'a> Iterator for Groups<'a> {
    type Item = Result<(PageNo, Change<'a>), FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some(page) = self.of_run() {
            return Some(Ok(page));
        }
        while !self.rest.is_empty() {
            match self.group() {
                Ok(None) => {}
                Ok(Some(group)) => return Some(Ok(group)),
                Err(why) => {
                    self.rest = &[];
                    return Some(Err(why));
                }
            }
        }
        None
    }
}

/// The ranges of one group: (offset, bytes).
#[derive(Clone, Copy, Debug)]
pub struct Ranges<'a> {
    rest: &'a [u8],
    end: u32,
    last: bool,
}

impl<'a> Ranges<'a> {
    fn step(&mut self) -> Result<Option<(u32, &'a [u8])>, FormatError> {
        if self.last {
            return Ok(None);
        }
        let head = get_varint(&mut self.rest)?;
        let len = usize::try_from(get_varint(&mut self.rest)?).map_err(|_| FormatError::OutOfRange("a length"))?;
        if len > self.rest.len() {
            return Err(FormatError::Truncated);
        }
        let (bytes, rest) = self.rest.split_at(len);
        let at = u64::from(self.end) + (head >> 1);
        let end = at + len as u64;
        if head >> 1 > u64::from(u32::MAX) || end > u64::from(u32::MAX) {
            return Err(FormatError::OutOfRange("a range"));
        }
        self.last = head & 1 == 1;
        self.rest = rest;
        self.end = end as u32;
        Ok(Some((at as u32, bytes)))
    }
}

impl<'a> Iterator for Ranges<'a> {
    type Item = (u32, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        self.step().ok().flatten()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn parts(packer: &mut Packer) -> Vec<Vec<u8>> {
        packer.finish();
        (0..packer.parts()).map(|i| packer.part_mut(i).to_vec()).collect()
    }

    proptest! {
        #[test]
        #[cfg_attr(miri, ignore = "safe code only, and takes minutes there")]
        fn what_is_packed_is_read_back(
            pages in prop::collection::vec((1u32.., any::<bool>(), prop::collection::vec(any::<u8>(), 4096), 0usize..40), 1..12)
        ) {
            let mut packer = Packer::default();
            let mut want: Vec<(u32, Vec<u8>)> = Vec::new();
            for (page, fresh, content, cuts) in &pages {
                let page = page & 0x3fff_ffff | 1;
                let step = 4096 / (cuts + 1);
                let ranges: Vec<(u32, &[u8])> =
                    (0..*cuts).map(|i| ((i * step) as u32, &content[i * step..i * step + step / 2])).filter(|r| !r.1.is_empty()).collect();
                let mut image = if *fresh { vec![0; 4096] } else { vec![0xEE; 4096] };
                for (at, bytes) in &ranges {
                    image[*at as usize..*at as usize + bytes.len()].copy_from_slice(bytes);
                }
                packer.ranges(PageNo(page), *fresh, 7, ranges.into_iter());
                if *fresh || *cuts > 0 {
                    want.push((page, image));
                }
            }
            let mut got: Vec<(u32, Vec<u8>)> = Vec::new();
            for part in parts(&mut packer) {
                prop_assert!(part.len() <= SLOT);
                for group in groups(&part[HEADER..], 4096) {
                    let (page, change) = group.unwrap();
                    let Change::Ranges { fresh, sum: 7, ranges } = change else { panic!("no blocks here, no other sum") };
                    let index = want.iter().skip(got.len().saturating_sub(1)).position(|w| w.0 == page.0);
                    if got.last().is_none_or(|g| g.0 != page.0) || fresh || index.is_none() {
                        got.push((page.0, if fresh { vec![0; 4096] } else { vec![0xEE; 4096] }));
                    }
                    let image = &mut got.last_mut().unwrap().1;
                    for (at, bytes) in ranges {
                        image[at as usize..at as usize + bytes.len()].copy_from_slice(bytes);
                    }
                }
            }
            let distinct = { let mut n: Vec<_> = want.iter().map(|w| w.0).collect(); n.dedup(); n.len() == want.len() };
            prop_assume!(distinct);
            prop_assert_eq!(got, want);
        }

        #[test]
        fn garbage_is_an_error_or_nothing_never_a_panic(bytes in prop::collection::vec(any::<u8>(), 0..SLOT)) {
            for group in groups(&bytes, 4096).flatten() {
                if let Change::Ranges { ranges, .. } = group.1 {
                    for (at, b) in ranges { prop_assert!(at as usize + b.len() <= 4096); }
                }
            }
            let mut slot = [0u8; SLOT];
            slot[..bytes.len()].copy_from_slice(&bytes);
            prop_assert_eq!(Header::decode(7, 3, &slot), None);
        }

        #[test]
        #[cfg_attr(miri, ignore = "safe code only, and takes minutes there")]
        fn blocks_are_read_back_however_they_form_runs(
            steps in prop::collection::vec((0u32..3, 0u32..3, any::<bool>(), 1u32..200, 0u32..40), 1..60),
            far: bool,
        ) {
            let mut packer = Packer::default();
            let mut want = Vec::new();
            // at the end of both ranges as well, where the numbers after the last do not exist
            let all: u32 = steps.iter().map(|s| s.0 + s.3 + 1).sum();
            let (mut page, mut index) = if far { (u32::MAX - all, u32::MAX - 2 * all) } else { (1, 0) };
            for (skip, gap, cold, count, ranges) in steps {
                page += skip;
                index += gap;
                for _ in 0..count {
                    packer.block(PageNo(page), index, cold);
                    want.push((page, Some((index, cold))));
                    (page, index) = (page + 1, index + 1);
                }
                if ranges == 0 {
                    packer.ranges(PageNo(page), true, 7, std::iter::empty());
                    want.push((page, None));
                    page += 1;
                }
            }
            let mut got = Vec::new();
            for part in parts(&mut packer) {
                prop_assert!(part.len() <= SLOT);
                for group in groups(&part[HEADER..], 4096) {
                    let (page, change) = group.unwrap();
                    let Change::Block { index, cold } = change else { got.push((page.0, None)); continue };
                    got.push((page.0, Some((index, cold))));
                }
            }
            prop_assert_eq!(got, want);
        }
    }

    #[test]
    fn a_run_costs_as_much_as_a_page_and_ends_where_its_numbers_do() {
        let mut packer = Packer::default();
        let pages = if cfg!(miri) { MAX_RUN + 100 } else { 1_000_000 };
        (1..=pages).for_each(|page| packer.block(PageNo(page), page + 7, true));
        let parts = parts(&mut packer);
        let used: usize = parts.iter().map(|part| part.len() - HEADER).sum();
        assert!(used <= 13 * pages.div_ceil(MAX_RUN) as usize, "{used} bytes");
        // page and block 2^32 - 2, and three of them, or none, or more than a run may have
        for (count, last) in
            [(2, Some(u32::MAX)), (3, None), (0, None), (u64::from(MAX_RUN) + 1, None), (u64::MAX, None)]
        {
            let mut body = Vec::new();
            put_varint(&mut body, u64::from(u32::MAX - 1) << 2 | 3);
            put_varint(&mut body, u64::from(u32::MAX - 1) << 1);
            put_varint(&mut body, count);
            let read: Result<Vec<_>, _> = groups(&body, 4096).collect();
            assert_eq!(read.ok().and_then(|all| all.last().map(|group| group.0.0)), last, "{count}");
        }
    }

    #[test]
    fn h4_a_slot_validates_only_in_its_place_and_incarnation() {
        let mut slot = [0u8; SLOT];
        let header = Header { jci: Jci(9), low_water: Jci(4), durable: Jci(8), part: 0, parts: 1, len: 5 };
        slot[HEADER..HEADER + 5].copy_from_slice(b"hello");
        header.encode(11, 3, checksum(11, b"hello"), &mut slot);
        assert_eq!(Header::decode(11, 3, &slot), Some(header));
        assert_eq!(Header::decode(11, 4, &slot), None);
        assert_eq!(Header::decode(12, 3, &slot), None);
        slot[HEADER] ^= 1;
        assert_eq!(Header::decode(11, 3, &slot), None);
        slot[HEADER] ^= 1;
        for (jci, valid) in [(COUNT_MAX, true), (COUNT_MAX + 1, false), (u64::MAX, false)] {
            let header = Header { jci: Jci(jci), low_water: Jci(jci), durable: Jci(jci), ..header };
            header.encode(11, 3, checksum(11, b"hello"), &mut slot);
            assert_eq!(Header::decode(11, 3, &slot), valid.then_some(header), "{jci}");
        }
    }
}
