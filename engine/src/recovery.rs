//! Recovery: pure redo (H8). Which records count is decided here, by this table, for the first JCI above the low-water
//! mark on:
//!
//! | parts of the JCI found | of a later JCI | at or below the newest attested durable | verdict |
//! | --- | --- | --- | --- |
//! | all | | | redo it |
//! | not all | none | no | the log ends before it |
//! | not all | some | no | `file`: the log ends before it (one batch, torn anywhere); `dax`, `ram`: corruption |
//! | not all | | yes | corruption: it was durable, and is gone (H3) |
//!
//! A page with a durable entry that can be believed is redone in its block, any other over its home. Nothing is freed or
//! re-identified before the end: a superblock with the next incarnation and the new low-water mark.

use crate::base::checksum::seed;
use crate::base::limits::{DEVICE_BLOCK, MIN_PAGE_SIZE, PENDING_BYTE};
use crate::base::{BlockNo, Error, Incarnation, Jci, MediumKind, PageNo, Result};
use crate::engine::{Region, cut_short};
use crate::format::entry::Entry;
use crate::format::journal::{Change, HEADER, Header, SLOT, blocks_named, groups};
use crate::format::layout::{Layout, RING_AT};
use crate::format::mark;
use crate::format::superblock::Superblock;
use crate::medium::{BaseFile, Disk, Pmem, Site};
use crate::pages::Pages;
use crate::shared::MAX_COLD;
use std::collections::btree_map::Entry as Slot;
use std::collections::{BTreeMap, HashMap};

/// The log as found: bodies of the commits to redo, in order, and the low-water mark.
pub struct Log {
    /// Everything up to this is durable at its place.
    pub low_water: Jci,
    /// The newest commit to redo; the low-water mark if there is none.
    pub end: Jci,
    /// Bodies by commit, parts in order.
    pub commits: Vec<(Jci, Vec<Vec<u8>>)>,
}

/// Reads the log and decides what of it counts.
///
/// # Errors
/// `Corrupt` as the table says.
pub fn read_log(region: &Region, superblock: &Superblock) -> Result<Log> {
    let mapped = superblock.medium != MediumKind::File; // who only looks reads a mapped region as a file
    let layout = Layout::new(superblock.budget, 0, mapped);
    let seed = seed(superblock.region, superblock.incarnation);
    let mut bytes = [0u8; SLOT];
    let mut found: BTreeMap<Jci, HashMap<u16, BTreeMap<u16, Vec<u8>>>> = BTreeMap::new();
    let (mut low_water, mut durable) = (superblock.low_water, superblock.low_water);
    for slot in 0..layout.ring_slots {
        region.load(RING_AT + slot * SLOT as u64, &mut bytes)?;
        let Some(header) = Header::decode(seed, slot, &bytes) else { continue };
        low_water = low_water.max(header.low_water);
        durable = durable.max(header.durable);
        let body = bytes[HEADER..HEADER + usize::from(header.len)].to_vec();
        found.entry(header.jci).or_default().entry(header.parts).or_default().insert(header.part, body);
    }
    let mut found = found.split_off(&low_water.next());
    let mut log = Log { low_water, end: low_water, commits: Vec::new() };
    loop {
        let next = log.end.next();
        let whole = found.remove(&next).and_then(|by_parts| {
            by_parts.into_iter().find(|(parts, have)| have.len() == usize::from(*parts)).map(|(_, have)| have)
        });
        let Some(parts) = whole else { break };
        log.commits.push((next, parts.into_values().collect()));
        log.end = next;
    }
    let later = found.keys().next_back().copied().filter(|&j| j > log.end.next());
    if log.end < durable || (mapped && later.is_some()) {
        let detail = format!(
            "commit {} is missing although {} was durable (low-water mark {low_water}, newest record {})",
            log.end.next(),
            durable,
            later.unwrap_or(log.end)
        );
        return Err(Error::corrupt(region.path(), "micro-journals", detail));
    }
    // a block that the log names is not used again before it is retired: there are no more than blocks
    let blocks = MAX_COLD + superblock.budget / u64::from(MIN_PAGE_SIZE);
    let bodies = log.commits.iter().flat_map(|(_, parts)| parts);
    let named: u64 = bodies.map(|body| blocks_named(body, superblock.page_size)).sum();
    if named > blocks {
        let detail = format!("they name {named} shadow blocks, more than there can be: they are not nvlite's");
        return Err(Error::corrupt(region.path(), "micro-journals", detail));
    }
    Ok(log)
}

/// What a page's home is going to hold.
enum Redone {
    /// This.
    Bytes(Vec<u8>),
    /// What a block of the cold file holds: a large transaction need not fit in memory.
    Cold(u32),
}

/// Pages being redone over their homes.
struct Homes<'a> {
    base: &'a dyn BaseFile,
    from: &'a Pages,
    page_size: u32,
    pages: BTreeMap<PageNo, Redone>,
}

impl Homes<'_> {
    fn page(&mut self, page: PageNo, fresh: bool) -> Result<&mut Vec<u8>> {
        let size = self.page_size as usize;
        let (redone, unread) = match self.pages.entry(page) {
            Slot::Occupied(at) => (at.into_mut(), false),
            Slot::Vacant(at) => (at.insert(Redone::Bytes(vec![0; size])), !fresh),
        };
        if let Redone::Cold(c) = *redone {
            let mut content = vec![0; size];
            self.from.read_cold(c, 0, &mut content)?;
            *redone = Redone::Bytes(content);
        }
        let Redone::Bytes(content) = redone else { unreachable!("just made so") };
        if unread {
            if self.base.read_at(u64::from(page.0 - 1) * size as u64, content)? < size {
                return Err(cut_short(self.base, page));
            }
            if page.0 == 1 {
                mark::normalise(0, content);
            }
        } else if fresh {
            content.fill(0);
        }
        Ok(content)
    }

    /// Whether all of the database is somewhere: redone, in one of `places`, or within the base as it is now. To be asked
    /// before anything is written there: behind that, what was cut off would read as zeros.
    fn check_whole(&mut self, places: Option<&HashMap<PageNo, BlockNo>>) -> Result<()> {
        let mut header = [0u8; mark::HEADER];
        match places.and_then(|places| places.get(&PageNo(1))) {
            Some(&block) => self.from.geo().arena.load(block, 0, &mut header),
            None if self.pages.contains_key(&PageNo(1)) => {
                header.copy_from_slice(&self.page(PageNo(1), false)?[..mark::HEADER]);
            }
            None => {
                self.base.read_at(0, &mut header)?;
            }
        }
        let size = u64::from(self.page_size);
        let there = u32::try_from(self.base.len()? / size).unwrap_or(u32::MAX);
        let hole = PageNo((PENDING_BYTE / size) as u32 + 1);
        let is = |page: &PageNo| {
            *page == hole || self.pages.contains_key(page) || places.is_some_and(|places| places.contains_key(page))
        };
        let end = mark::pages(&header).unwrap_or(0);
        match (there.saturating_add(1)..=end).map(PageNo).find(|page| !is(page)) {
            Some(page) => Err(cut_short(self.base, page)),
            None => Ok(()),
        }
    }

    fn write(self, superblock: &Superblock) -> Result<()> {
        let mut from_cold = vec![0; self.page_size as usize];
        for (page, mut redone) in self.pages {
            let content = match &mut redone {
                Redone::Bytes(content) => content,
                Redone::Cold(c) => {
                    self.from.read_cold(*c, 0, &mut from_cold)?;
                    &mut from_cold
                }
            };
            if page.0 == 1 {
                mark::set(content, superblock.region);
            }
            self.base.write_at(u64::from(page.0 - 1) * u64::from(self.page_size), content)?;
        }
        self.base.sync(Site::RecoverHomes)
    }
}

/// Believable durable entries: page → (block, birth). Of two for a page the younger holds.
///
/// # Errors
/// `Corrupt` if two are of the same age: a commit gives a page one place.
pub fn believed(pages: &Pages, low_water: Jci) -> Result<HashMap<PageNo, (BlockNo, Jci)>> {
    let mut best: HashMap<PageNo, (BlockNo, Jci)> = HashMap::new();
    let mut twins = Vec::new();
    for b in (0..pages.geo().layout.max_blocks).map(BlockNo) {
        let Some(entry) = pages.entry(b).filter(|e| e.birth <= low_water) else { continue };
        let held = best.entry(entry.page).or_insert((b, entry.birth));
        if entry.birth == held.1 && b != held.0 {
            twins.push((held.0, b, entry));
        }
        if entry.birth > held.1 {
            *held = (b, entry.birth);
        }
    }
    match twins.into_iter().find(|(.., entry)| best[&entry.page].1 == entry.birth) {
        Some((a, b, Entry { page, birth })) => {
            let detail = format!("blocks {} and {} both hold page {page} since commit {birth}", a.0, b.0);
            Err(pages.corrupt("durable virtblock array", detail))
        }
        None => Ok(best),
    }
}

/// Redoes the log and begins the next incarnation. `pages` has the geometry of the superblock if a page size is known.
/// Answers the superblock, already durable.
///
/// # Errors
/// Of the media; `Corrupt`.
pub fn recover(region: &Region, superblock: &Superblock, pages: &Pages, base: &dyn BaseFile) -> Result<Superblock> {
    let log = read_log(region, superblock)?;
    if superblock.page_size == 0 && log.end != Jci::ZERO {
        // the page size is durable before the first commit is
        let detail = format!("it knows no page size, but there are commits up to {}", log.end);
        return Err(Error::corrupt(region.path(), "superblock", detail));
    }
    if let Region::Disk(disk) = region {
        rewrite(disk.as_ref(), superblock, &log)?;
    }
    if superblock.page_size != 0 {
        let mut homes = Homes { base, from: pages, page_size: superblock.page_size, pages: BTreeMap::new() };
        match region {
            Region::Pmem(pmem) => redo_blocks(pmem.as_ref(), pages, &log, &mut homes)?,
            Region::Disk(_) => {
                redo(pages, &log, &mut homes, None)?;
                homes.check_whole(None)?;
            }
        }
        if !homes.pages.is_empty() {
            homes.write(superblock)?;
        }
        if let Region::Pmem(pmem) = region {
            pmem.fence(Site::RecoverFence);
        }
    }
    let next = Superblock {
        sequence: superblock.sequence + 1,
        incarnation: Incarnation(superblock.incarnation.0 + 1),
        low_water: log.end,
        complete: false,
        ..superblock.clone()
    };
    if log.end > log.low_water {
        tracing::info!(region = %region.path().display(), from = log.low_water.0, to = log.end.0, "recovered");
    }
    region.write_superblock(&next)?;
    Ok(next)
}

/// Makes durable what was accepted, before any home depends on it and before the other superblock is written over (P18). It
/// may be in the page cache only, and there be taken for clean: if those who are gone failed to sync it, only what is written
/// again is. Cold blocks that the log names were durable before it could be written.
fn rewrite(disk: &dyn Disk, superblock: &Superblock, log: &Log) -> Result<()> {
    disk.write_at(superblock.place(), &superblock.encode())?;
    let (seed, accepted) = (seed(superblock.region, superblock.incarnation), log.low_water.next()..=log.end);
    let layout = Layout::new(superblock.budget, 0, false);
    let mut block = [0u8; DEVICE_BLOCK as usize];
    for first in (0..layout.ring_slots).step_by(DEVICE_BLOCK as usize / SLOT).filter(|_| !log.commits.is_empty()) {
        disk.read_at(layout.slot_at(first), &mut block)?;
        let headers =
            block.chunks_exact(SLOT).zip(first..).filter_map(|(bytes, slot)| Header::decode(seed, slot, bytes));
        if headers.map(|header| header.jci).any(|jci| accepted.contains(&jci)) {
            disk.write_at(layout.slot_at(first), &block)?;
        }
    }
    disk.sync(Site::RecoverLog)
}

fn redo_blocks(pmem: &dyn Pmem, pages: &Pages, log: &Log, homes: &mut Homes<'_>) -> Result<()> {
    let mut places: HashMap<PageNo, BlockNo> =
        believed(pages, log.low_water)?.into_iter().map(|(page, (b, _))| (page, b)).collect();
    // entries that are not believed now must not be later, when the low-water mark has passed their birth
    for b in (0..pages.geo().layout.max_blocks).map(BlockNo) {
        let at = pages.geo().layout.entries_at() + u64::from(b.0) * crate::format::entry::ENTRY;
        let mut words = [0u8; 16];
        pmem.load(at, &mut words);
        if words != [0; 16] && pages.entry(b).is_none_or(|e| e.birth > log.low_water) {
            pages.store_entry(b, None);
            pages.flush_entry(Site::RecoverUnbelieved, b);
        }
    }
    redo(pages, log, homes, Some(&mut places))?;
    homes.check_whole(Some(&places))?;
    // a page that a cold block replaced has its place at home: none of its entries may be believed any more
    let at_home = |page| homes.pages.contains_key(&page);
    pages.forget_entries(Site::RecoverHomeward, &|page, b| at_home(page) && places.get(&page) != Some(&b));
    Ok(())
}

fn redo(
    pages: &Pages,
    log: &Log,
    homes: &mut Homes<'_>,
    mut places: Option<&mut HashMap<PageNo, BlockNo>>,
) -> Result<()> {
    let arena = &pages.geo().arena;
    let page_size = homes.page_size;
    for (jci, parts) in &log.commits {
        for group in parts.iter().flat_map(|part| groups(part, page_size)) {
            let (page, change) =
                group.map_err(|why| pages.corrupt("micro-journal", format!("commit {jci} does not parse: {why}")))?;
            let block = places.as_ref().and_then(|p| p.get(&page).copied());
            match (change, block) {
                (Change::Ranges { fresh, ranges }, Some(b)) => {
                    if fresh {
                        arena.zero(b);
                        arena.flush(Site::RecoverFresh, b, 0, arena.size());
                    }
                    for (at, bytes) in ranges {
                        arena.store(b, at, bytes);
                        arena.flush(Site::RecoverRanges, b, at, bytes.len() as u32);
                    }
                }
                (Change::Ranges { fresh, ranges }, None) => {
                    let content = homes.page(page, fresh)?;
                    ranges.for_each(|(at, bytes)| crate::format::put(content, at as usize, bytes));
                }
                (Change::Block { index, cold: true }, _) => {
                    if let Some(places) = places.as_mut() {
                        places.remove(&page); // the block holds older content: the home takes over
                    }
                    homes.pages.insert(page, Redone::Cold(index));
                }
                (Change::Block { index, cold: false }, _) => {
                    let b = BlockNo(index);
                    let Some(places) = places.as_mut().filter(|_| index < pages.geo().layout.max_blocks) else {
                        return Err(pages.corrupt("micro-journal", format!("commit {jci} names block {index}")));
                    };
                    homes.pages.remove(&page);
                    places.insert(page, b);
                    pages.store_entry(b, Some(Entry { page, birth: *jci }));
                    pages.flush_entry(Site::RecoverEntry, b);
                }
            }
        }
    }
    Ok(())
}
