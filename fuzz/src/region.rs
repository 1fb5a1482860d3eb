//! Whole regions, damaged or forged: what recovery and inspection make of them is an error or a right state.

use super::left::{History, Left, commit, content};
use super::seal;
use nvlite_engine::MediumKind;
use nvlite_engine::base::checksum::seed;
use nvlite_engine::base::{Incarnation, Jci, PageNo};
use nvlite_engine::format::entry::{ENTRY, Entry};
use nvlite_engine::format::journal::{HEADER, Header, Packer, SLOT};
use nvlite_engine::format::layout::{APPLIED_AT, Layout, RING_AT};
use nvlite_engine::format::superblock::SIZE;
use nvlite_engine::store::inspect_region;
use std::sync::LazyLock;

static HISTORIES: LazyLock<[History; 2]> = LazyLock::new(|| {
    [MediumKind::File, MediumKind::Ram].map(|kind| History::new(kind).expect("an undamaged database works"))
});

/// The histories that are damaged here: on `file`, and on `ram`.
pub fn histories() -> &'static [History; 2] {
    &HISTORIES
}

/// How far a database got.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Reached {
    /// It does not open, or cannot be read.
    Refused,
    /// It opens and reads.
    Read,
    /// It takes a commit, too, and keeps it.
    Committed,
    /// It ends as a stock file.
    Closed,
}

/// Numbers out of the fuzzer's bytes; zeros when there are no more.
struct Feed<'a>(&'a [u8]);

impl Feed<'_> {
    fn more(&self) -> bool {
        !self.0.is_empty()
    }

    fn byte(&mut self) -> u8 {
        let (&first, rest) = self.0.split_first().unwrap_or((&0, &[]));
        self.0 = rest;
        first
    }

    fn bytes(&mut self, n: usize) -> Vec<u8> {
        (0..n).map(|_| self.byte()).collect()
    }

    fn below(&mut self, n: u64) -> u64 {
        let bytes = [0; 4].map(|_| self.byte());
        u64::from(u32::from_le_bytes(bytes)) % n.max(1)
    }

    /// A number where limits are likely.
    fn number(&mut self) -> u64 {
        let (how, n) = (self.byte(), u64::from(self.byte()));
        match how % 6 {
            0 => n,
            1 => u64::MAX - n,
            2 => 1 << (n % 64),
            3 => (1 << (n % 64)) - 1,
            4 => u64::from(u32::MAX) + n - 128,
            _ => n << 32 | self.below(u64::from(u32::MAX)),
        }
    }
}

/// Damages one place of the region: what opens all the same is as it was after some commit, and not before what the log
/// attests to be durable.
pub fn damaged(data: &[u8]) -> Reached {
    let mut feed = Feed(data);
    let history = &histories()[usize::from(feed.byte() % 2)];
    let mut left = history.left.clone();
    let len = left.region.len();
    if feed.byte() == 0 {
        left.region.truncate(feed.below(len as u64) as usize);
    } else {
        // most of a ring was never written to
        let at = if feed.byte().is_multiple_of(4) { feed.below(len as u64) } else { feed.below(64 << 10) } as usize;
        let n = usize::from(feed.byte()).min(len - at);
        let with = feed.bytes(n);
        left.region[at..at + n].iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
    }
    let promised = foretold(&left);
    let Ok(content) = left.content() else { return Reached::Refused };
    assert!(history.states.contains(&content), "this never was committed");
    assert_eq!(Some(redone_to(&left)), promised, "inspection told something else");
    Reached::Read
}

/// The newest commit that inspection promises; `None` if it finds damage.
fn foretold(left: &Left) -> Option<Jci> {
    inspect_region(&left.region_from_outside()).ok().flatten().and_then(|found| found.log.ok()).map(|log| log.newest)
}

/// The commit up to which recovery redid the log, as the superblock says that ends it.
fn redone_to(left: &Left) -> Jci {
    left.superblock().expect("recovery has written one").low_water
}

/// Changes a region, seals most of the changes with right checksums, and opens it; mostly with no regard to the checksums of
/// pages, of which hardly one is right any more. What is forged well is believed, but it is then a database like any other: it
/// opens again with the same content, takes a commit and keeps it, and closes.
pub fn forged(data: &[u8]) -> Reached {
    let mut feed = Feed(data);
    let how = feed.byte();
    let mut left = histories()[usize::from(how % 2)].left.clone();
    left.verify = how.is_multiple_of(8);
    let mut slots = Vec::new();
    let incarnation = left.superblock().map_or(Incarnation(0), |s| s.incarnation);
    for _ in 0..8 {
        if feed.more() {
            forge(&mut left, incarnation, &mut feed, &mut slots);
        }
    }
    if let Some(superblock) = left.superblock() {
        let seed = seed(superblock.region, superblock.incarnation);
        for slot in slots {
            if let Some(bytes) = slot_of(&mut left, slot) {
                seal::slot(seed, slot, bytes);
            }
        }
    }
    let promised = foretold(&left);
    let Ok(first) = left.content() else { return Reached::Refused };
    if left.is_at_its_end() {
        return Reached::Read;
    }
    assert_eq!(Some(redone_to(&left)), promised, "inspection told something else");
    if !first.is_sqlite() {
        return Reached::Read; // a commit that SQLite never makes: nobody takes the base for a database any more
    }
    let again = left.content().expect("what was recovered once is recovered again");
    assert!(first == again, "the second recovery finds something else");
    live_on(&mut left)
}

/// Takes a commit, reads it back after a death, closes.
fn live_on(left: &mut Left) -> Reached {
    let committed = left.run(|store| {
        let mut s = store.session()?;
        let at = u64::from(s.page_size().unwrap_or(1024));
        commit(&mut s, 9, &[(at, vec![7; 300]), (5 * at + 20, b"once more".to_vec())])?;
        content(&mut s)
    });
    let Ok(committed) = committed else { return Reached::Read };
    let kept = left.content().expect("a database that took a commit opens again");
    assert!(kept == committed, "the commit was not kept");
    if !matches!(left.run(|store| store.finish()), Ok(true)) {
        return Reached::Committed;
    }
    assert!(committed.is_in(&left.base), "the stock file holds something else");
    Reached::Closed
}

fn slot_of(left: &mut Left, slot: u64) -> Option<&mut [u8]> {
    let at = (RING_AT + slot * SLOT as u64) as usize;
    left.region.get_mut(at..at + SLOT)
}

/// One change, of what was left by `incarnation`; notes the slots that are to be sealed.
fn forge(left: &mut Left, incarnation: Incarnation, feed: &mut Feed<'_>, slots: &mut Vec<u64>) {
    let used = 40; // slots of the ring that a history uses, about
    match feed.byte() % 13 {
        0 | 1 => superblock(left, incarnation, feed),
        2 | 3 => {
            let slot = feed.below(used);
            let (field, value) = (feed.below(6) as usize, feed.number().to_le_bytes());
            let (at, len) = [(8, 8), (16, 4), (20, 4), (24, 2), (26, 2), (28, 2)][field];
            if let Some(bytes) = slot_of(left, slot) {
                bytes[at..at + len].copy_from_slice(&value[..len]);
                slots.push(slot);
            }
        }
        4 | 5 => {
            let slot = feed.below(used);
            let (at, n) = (HEADER + usize::from(feed.byte()), 1 + usize::from(feed.byte() % 12));
            let with = feed.bytes(n);
            if let Some(bytes) = slot_of(left, slot) {
                bytes[at..at + n].iter_mut().zip(with).for_each(|(byte, with)| *byte ^= with);
                slots.push(slot);
            }
        }
        6 => commit_of_its_own(left, feed, slots),
        7 => {
            let (from, to) = (feed.below(used), feed.below(used));
            let copy = slot_of(left, from).map(|bytes| bytes.to_vec());
            if let (Some(copy), Some(bytes)) = (copy, slot_of(left, to)) {
                bytes.copy_from_slice(&copy);
                slots.push(to);
            }
        }
        8 => entry(left, feed),
        9 => applied(left, feed),
        10 => {
            let at = feed.below(left.region.len() as u64) as usize;
            let with = feed.byte();
            left.region.get_mut(at).into_iter().for_each(|byte| *byte ^= with);
        }
        11 => {
            let at = feed.below(100) as usize;
            let with = feed.byte();
            left.base.get_mut(at).into_iter().for_each(|byte| *byte = with);
        }
        _ => {
            let file = match feed.byte() % 3 {
                0 => &mut left.region,
                1 => &mut left.cold,
                _ => &mut left.base,
            };
            file.truncate(feed.below(file.len() as u64) as usize);
        }
    }
}

/// Adds a commit that nobody made after the newest, with a body that parses or one of any bytes.
fn commit_of_its_own(left: &mut Left, feed: &mut Feed<'_>, slots: &mut Vec<u64>) {
    let Some(newest) = foretold(left) else { return };
    let mut packer = Packer::default();
    for _ in 0..=feed.byte() % 4 {
        let page =
            if feed.byte().is_multiple_of(8) { feed.number() as u32 & u32::MAX >> 2 } else { feed.byte().into() };
        let page = PageNo(page.max(1));
        match feed.byte() % 4 {
            0 => packer.ranges(page, false, feed.number(), std::iter::once((feed.byte().into(), &feed.bytes(20)[..]))),
            1 => packer.ranges(page, true, feed.number(), std::iter::empty()),
            // in the fast tier, in the cold file; blocks that are there, and that are not
            place => {
                let index = if feed.byte() < 128 { feed.byte().into() } else { feed.number() as u32 };
                let run = 1 + u32::from(feed.byte() % 3) * u32::from(feed.byte());
                let pairs = (page.0..=u32::MAX >> 2).zip(index..=u32::MAX).take(run as usize);
                pairs.for_each(|(page, index)| packer.block(PageNo(page), index, place == 3));
            }
        }
    }
    packer.finish();
    let mut body = packer.part_mut(0)[HEADER..].to_vec();
    if feed.byte().is_multiple_of(4) {
        body = feed.bytes(feed.0.len().min(64));
    }
    let slot = 48; // the histories end before it
    let Some(bytes) = slot_of(left, slot) else { return };
    let len = body.len() as u16;
    let jci = newest.next();
    let low_water = Jci(jci.0.saturating_sub(u32::MAX.into())); // as far back as a header can tell
    let header = Header { jci, low_water, durable: newest, part: 0, parts: 1, len };
    header.encode(0, slot, 0, bytes);
    bytes[HEADER..HEADER + body.len()].copy_from_slice(&body);
    slots.push(slot);
}

/// Changes a field of one copy of the superblock or of both, which `incarnation` left.
fn superblock(left: &mut Left, incarnation: Incarnation, feed: &mut Feed<'_>) {
    const FIELDS: [(usize, usize); 14] = [
        (12, 4),
        (16, 8),
        (32, 8),
        (40, 8),
        (48, 8),
        (56, 8),
        (64, 1),
        (65, 1),
        (66, 2),
        (68, 4),
        (72, 8),
        (104, 8),
        (112, 8),
        (128, 8),
    ];
    let (at, len) = FIELDS[feed.below(FIELDS.len() as u64) as usize];
    let (copies, mut value) = (feed.byte(), feed.number());
    if at == 40 {
        // what was written under an incarnation holds again when it comes again: they only grow
        value = value.max(incarnation.0);
    }
    let value = value.to_le_bytes();
    for (n, copy) in left.region.chunks_exact_mut(SIZE).take(2).enumerate() {
        if copies % 3 != n as u8 {
            copy[at..at + len].copy_from_slice(&value[..len]);
            seal::superblock(copy);
        }
    }
}

/// Says of a block that it holds some page since some commit.
fn entry(left: &mut Left, feed: &mut Feed<'_>) {
    let Some(superblock) = left.superblock() else { return };
    let layout = Layout::new(superblock.budget, superblock.page_size, superblock.medium != MediumKind::File);
    let at = (layout.entries_at() + feed.below(96) * ENTRY) as usize;
    let page = if feed.byte().is_multiple_of(4) { feed.number() as u32 } else { 1 + feed.below(64) as u32 };
    let birth = if feed.byte().is_multiple_of(4) { feed.number() } else { feed.below(24) };
    let words = Entry { page: PageNo(page), birth: Jci(birth) }.encode(seed(superblock.region, Incarnation(0)));
    if let Some(bytes) = left.region.get_mut(at..at + ENTRY as usize) {
        bytes.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
    }
}

/// Says up to which commit something was stored in place, of `ram`: near the newest, or any number.
fn applied(left: &mut Left, feed: &mut Feed<'_>) {
    let Some(superblock) = left.superblock().filter(|superblock| superblock.medium != MediumKind::File) else { return };
    let near = foretold(left).map_or(0, |newest| newest.0).saturating_add(2).saturating_sub(feed.below(5));
    let jci = if feed.byte().is_multiple_of(4) { feed.number() } else { near };
    let word = seal::applied(seed(superblock.region, Incarnation(0)), jci);
    if let Some(bytes) = left.region.get_mut(APPLIED_AT as usize..APPLIED_AT as usize + 8) {
        bytes.copy_from_slice(&word.to_le_bytes());
    }
}
