//! Recovery: pure redo (H8). Which records count is decided here, by this table, for the first JCI above the low-water
//! mark on:
//!
//! | parts of the JCI found | of a later JCI | at or below the newest attested durable, or applied | verdict |
//! | --- | --- | --- | --- |
//! | all | | | redo it |
//! | not all | none | no | the log ends before it |
//! | not all | some | no | `file`: the log ends before it (one batch, torn anywhere); `dax`, `ram`: corruption |
//! | not all | | yes | corruption: it was durable, and is gone (H3) |
//!
//! A page with a durable entry that can be believed is redone in its block, any other over its home. Nothing is freed or
//! re-identified before the end: a superblock with the next incarnation and the new low-water mark.
//!
//! What comes of it is compared with what was committed: every page that a record names with the checksum in the last that
//! does, every other block with the one beside its entry, a cold block with what its commit says of all that it names.

use crate::base::checksum::seed;
use crate::base::limits::{DEVICE_BLOCK, MIN_PAGE_SIZE, PENDING_BYTE};
use crate::base::page_sum::page_sum;
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
use crate::shm::BLOCK_SLOTS;
use std::collections::{BTreeMap, BTreeSet, HashMap};

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
    // before the records: a log that is looked at in motion has its record by then
    let applied = if mapped { region.applied(superblock.region)? } else { Jci::ZERO };
    let (mut low_water, mut durable) = (superblock.low_water, superblock.low_water.max(applied));
    for slot in written_blocks(region, &layout, mapped)?.into_iter().flat_map(|first| first..first + BLOCK_SLOTS) {
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

/// First slots of the ring's device blocks that may have been written; all of a `mapped` region's. The others are zeros, in
/// which there is no record.
///
/// Looked for twice: the kernel looks into storage first and then into memory, and what goes from memory to storage in between
/// is seen in neither. Nobody changes it any more: the second look finds it in storage, unless it goes only then, in which case
/// the first found it in memory.
fn written_blocks(region: &Region, layout: &Layout, mapped: bool) -> Result<BTreeSet<u64>> {
    let disk = match region {
        Region::Disk(disk) if !mapped => disk,
        _ => return Ok((0..layout.ring_slots).step_by(BLOCK_SLOTS as usize).collect()),
    };
    let mut blocks = BTreeSet::new();
    for _ in 0..2 {
        let (mut at, end) = (RING_AT, layout.entries_at());
        while at < end {
            let written = disk.next_written(at..end)?;
            if written.is_empty() {
                break;
            }
            let from = written.start / DEVICE_BLOCK * DEVICE_BLOCK;
            at = written.end.next_multiple_of(DEVICE_BLOCK);
            blocks.extend((from..at).step_by(DEVICE_BLOCK as usize).map(|at| (at - RING_AT) / SLOT as u64));
        }
    }
    Ok(blocks)
}

/// Where in the base a page is at home.
fn home(page: PageNo, page_size: u32) -> u64 {
    u64::from(page.0 - 1) * u64::from(page_size)
}

/// What the home of a page that was redone holds, or is going to hold.
enum Redone {
    /// This.
    Bytes(Vec<u8>),
    /// What a block of the cold file holds: a large transaction need not fit in memory.
    Cold(u32),
    /// What was redone so far: it was written, to make room in memory.
    Written,
}

/// Most bytes of pages that are redone in memory at once.
const HELD: u64 = 64 << 20;

/// Pages being redone over their homes.
///
/// What was redone so far may be written home at any time, and the recovery after a crash in between finds any part of that
/// there (H8): its differences lie over other content than they were made for. It comes right because a range is physical, and
/// because that recovery redoes the same records, all of them and in order, from the first on: a byte that any of them stores
/// ends as the last of those has it, whatever it was in between, and any other byte is as it was.
///
/// Only the length of the base tells that it was cut, until something is written behind the cut. So nothing is, before
/// [`check_whole`](Self::check_whole).
struct Homes<'a> {
    base: &'a dyn BaseFile,
    from: &'a Pages,
    superblock: &'a Superblock,
    pages: BTreeMap<PageNo, Redone>,
    /// Whole pages that the base has.
    there: u32,
    /// Pages that were taken into memory since the last were written.
    held: usize,
    /// Of them, at most. Those behind the end of the base stay in memory besides.
    most: usize,
}

impl<'a> Homes<'a> {
    /// None yet; they take no more memory than a quarter of the fast tier, and [`HELD`].
    fn new(superblock: &'a Superblock, from: &'a Pages, base: &'a dyn BaseFile) -> Result<Homes<'a>> {
        let size = u64::from(superblock.page_size);
        let there = u32::try_from(base.len()? / size).unwrap_or(u32::MAX);
        let most = ((superblock.budget / 4).min(HELD) / size).max(1) as usize;
        Ok(Homes { base, from, superblock, pages: BTreeMap::new(), there, held: 0, most })
    }

    /// Whether the home is the place of `page` by what was redone.
    fn has(&self, page: PageNo) -> bool {
        self.pages.contains_key(&page)
    }

    /// The content of `page`, in memory.
    fn page(&mut self, page: PageNo, fresh: bool) -> Result<&mut Vec<u8>> {
        if !matches!(self.pages.get(&page), Some(Redone::Bytes(_))) {
            if self.held == self.most {
                self.write(self.there)?;
            }
            let content = if fresh { vec![0; self.superblock.page_size as usize] } else { self.read(page)? };
            self.pages.insert(page, Redone::Bytes(content));
            self.held += 1;
        }
        let Some(Redone::Bytes(content)) = self.pages.get_mut(&page) else { unreachable!("just made so") };
        if fresh {
            content.fill(0);
        }
        Ok(content)
    }

    fn read(&self, page: PageNo) -> Result<Vec<u8>> {
        let mut content = vec![0; self.superblock.page_size as usize];
        if let Some(Redone::Cold(c)) = self.pages.get(&page) {
            self.from.load_cold(*c, &mut content)?;
            return Ok(content);
        }
        if self.base.read_at(home(page, self.superblock.page_size), &mut content)? < content.len() {
            return Err(cut_short(self.base, page));
        }
        if page.0 == 1 {
            mark::normalise(0, &mut content);
        }
        Ok(content)
    }

    /// Whether all of the database is somewhere: redone, in one of `places`, or within the base.
    fn check_whole(&mut self, places: Option<&HashMap<PageNo, BlockNo>>) -> Result<()> {
        let mut header = [0u8; mark::HEADER];
        match places.and_then(|places| places.get(&PageNo(1))) {
            Some(&block) => self.from.geo().arena.load(block, 0, &mut header),
            None if self.has(PageNo(1)) => {
                header.copy_from_slice(&self.page(PageNo(1), false)?[..mark::HEADER]);
            }
            None => {
                self.base.read_at(0, &mut header)?;
            }
        }
        let hole = PageNo((PENDING_BYTE / u64::from(self.superblock.page_size)) as u32 + 1);
        let is =
            |page: &PageNo| *page == hole || self.has(*page) || places.is_some_and(|places| places.contains_key(page));
        let end = mark::pages(&header).unwrap_or(0);
        match (self.there.saturating_add(1)..=end).map(PageNo).find(|page| !is(page)) {
            Some(page) => Err(cut_short(self.base, page)),
            None => Ok(()),
        }
    }

    /// Whether the pages hold what their last record says. Those that were written before it was known are read again.
    fn check_sums(&self, sums: &HashMap<PageNo, u64>) -> Result<()> {
        for (&page, redone) in &self.pages {
            let Some(&sum) = sums.get(&page) else { continue };
            let is = match redone {
                Redone::Bytes(content) => page_sum(content),
                Redone::Written | Redone::Cold(_) => page_sum(&self.read(page)?),
            };
            if is != sum {
                let detail = format!("page {page} is not what it was when it was committed (checksum)");
                return Err(Error::corrupt(self.base.path(), "database file", detail));
            }
        }
        Ok(())
    }

    /// Writes those up to page `last`, in the order in which they lie.
    fn write(&mut self, last: u32) -> Result<()> {
        let mut from_cold = vec![0; self.superblock.page_size as usize];
        let (base, from, superblock) = (self.base, self.from, self.superblock);
        for (page, redone) in self.pages.range_mut(..=PageNo(last)) {
            let content = match redone {
                Redone::Bytes(content) => content,
                Redone::Cold(c) => {
                    from.load_cold(*c, &mut from_cold)?;
                    &mut from_cold
                }
                Redone::Written => continue,
            };
            if page.0 == 1 {
                mark::set(content, superblock.region);
            }
            base.write_at(home(*page, superblock.page_size), content)?;
            *redone = Redone::Written;
        }
        self.held = 0;
        Ok(())
    }

    /// Writes what is left, wherever it lies, and makes all of it durable.
    fn finish(&mut self) -> Result<()> {
        self.write(u32::MAX)?;
        if self.pages.is_empty() { Ok(()) } else { self.base.sync(Site::RecoverHomes) }
    }
}

/// Believable durable entries: page → (block, birth). Of two for a page the younger holds.
///
/// # Errors
/// `Corrupt` if two are of the same age: a commit gives a page one place. And if one was damaged: its page's home is older.
/// Before anything is retired there may be anything, of a transaction with another page size that was rolled back.
pub fn believed(pages: &Pages, low_water: Jci) -> Result<HashMap<PageNo, (BlockNo, Jci)>> {
    let mut best: HashMap<PageNo, (BlockNo, Jci)> = HashMap::new();
    let mut twins = Vec::new();
    for b in (0..pages.geo().layout.max_blocks).map(BlockNo) {
        if low_water > Jci::ZERO && pages.entry_is_damaged(b) {
            return Err(pages.corrupt("durable virtblock array", format!("the entry of block {} is damaged", b.0)));
        }
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
/// Answers the superblock, already durable; `describe` adds to it where the mapping is. `verify` as in
/// [`Parts`](crate::assemble::Parts).
///
/// # Errors
/// Of the media; `Corrupt`.
pub fn recover(
    region: &Region,
    superblock: &Superblock,
    pages: &Pages,
    base: &dyn BaseFile,
    verify: bool,
    describe: impl FnOnce(&mut Superblock),
) -> Result<Superblock> {
    let log = read_log(region, superblock)?;
    if superblock.page_size == 0 && log.end != Jci::ZERO {
        // the page size is durable before the first commit is
        let detail = format!("it knows no page size, but there are commits up to {}", log.end);
        return Err(Error::corrupt(region.path(), "superblock", detail));
    }
    match region {
        Region::Disk(disk) => rewrite(region, disk.as_ref(), superblock, &log)?,
        // who is gone may have died before it was durable, and the other copy is going to be written over
        Region::Pmem(_) => region.write_superblocks(&[superblock])?,
    }
    if superblock.page_size != 0 {
        let mut homes = Homes::new(superblock, pages, base)?;
        match region {
            Region::Pmem(pmem) => redo_blocks(pmem.as_ref(), pages, &log, &mut homes, verify)?,
            Region::Disk(_) => {
                let sums = redo(pages, &log, &mut homes, None)?;
                homes.check_whole(None)?;
                if verify {
                    homes.check_sums(&sums)?;
                }
                homes.finish()?;
            }
        }
    }
    let mut next = Superblock {
        sequence: superblock.sequence + 1,
        incarnation: Incarnation(superblock.incarnation.0 + 1),
        low_water: log.end,
        complete: false,
        ..superblock.clone()
    };
    if log.end > log.low_water {
        tracing::info!(region = %region.path().display(), from = log.low_water.0, to = log.end.0, "recovered");
    }
    describe(&mut next);
    region.write_superblocks(&[&next])?;
    Ok(next)
}

/// Makes durable what was accepted, before any home depends on it and before the other superblock is written over (P18). It
/// may be in the page cache only, and there be taken for clean: if those who are gone failed to sync it, only what is written
/// again is. Cold blocks that the log names were durable before it could be written.
fn rewrite(region: &Region, disk: &dyn Disk, superblock: &Superblock, log: &Log) -> Result<()> {
    disk.write_at(superblock.place(), &superblock.encode())?;
    let (seed, accepted) = (seed(superblock.region, superblock.incarnation), log.low_water.next()..=log.end);
    let layout = Layout::new(superblock.budget, 0, false);
    let mut block = [0u8; DEVICE_BLOCK as usize];
    let written = if log.commits.is_empty() { BTreeSet::new() } else { written_blocks(region, &layout, false)? };
    for first in written {
        disk.read_at(layout.slot_at(first), &mut block)?;
        let headers =
            block.chunks_exact(SLOT).zip(first..).filter_map(|(bytes, slot)| Header::decode(seed, slot, bytes));
        if headers.map(|header| header.jci).any(|jci| accepted.contains(&jci)) {
            disk.write_at(layout.slot_at(first), &block)?;
        }
    }
    disk.sync(Site::RecoverLog)
}

fn redo_blocks(pmem: &dyn Pmem, pages: &Pages, log: &Log, homes: &mut Homes<'_>, verify: bool) -> Result<()> {
    let mut places: HashMap<PageNo, BlockNo> =
        believed(pages, log.low_water)?.into_iter().map(|(page, (b, _))| (page, b)).collect();
    // entries that are not believed now must not be later, when the low-water mark has passed their birth
    for b in (0..pages.geo().layout.max_blocks).map(BlockNo) {
        let believed = pages.entry(b).filter(|entry| entry.birth <= log.low_water);
        if believed != pages.entry(b) || !pages.entry_is_whole(b) {
            pages.store_entry(b, believed);
            pages.flush_entry(Site::RecoverUnbelieved, b);
        }
    }
    let sums = redo(pages, log, homes, Some(&mut places))?;
    homes.check_whole(Some(&places))?;
    if verify {
        homes.check_sums(&sums)?;
        check_blocks(pages, &places, &sums)?;
    }
    homes.finish()?;
    for (page, &b) in &places {
        if let Some(&sum) = sums.get(page) {
            pages.store_entry_sum(b, sum);
            pages.flush_entry(Site::RecoverSum, b);
        }
    }
    // a page that a cold block replaced has its place at home: none of its entries may be believed any more. The home is
    // durable by now: who repeats this redoes what is older than that block over the home, which must be there
    pages.forget_entries(Site::RecoverHomeward, &|page, b| homes.has(page) && places.get(&page) != Some(&b));
    pmem.fence(Site::RecoverFence);
    Ok(())
}

/// Whether the blocks that are pages' places hold them as they were committed.
fn check_blocks(pages: &Pages, places: &HashMap<PageNo, BlockNo>, sums: &HashMap<PageNo, u64>) -> Result<()> {
    for (page, &b) in places {
        let sum = sums.get(page).copied().unwrap_or_else(|| pages.entry_sum(b));
        if page_sum(pages.geo().arena.view(b)) != sum {
            let detail = format!("block {}, which has page {page}, is not what was committed there (checksum)", b.0);
            return Err(pages.corrupt("data block", detail));
        }
    }
    Ok(())
}

/// Whether the cold blocks that a commit names hold what it wrote there: another database's, or what a disk has lost, would be
/// taken for its pages. They stay as long as a record names them.
fn check_cold(pages: &Pages, jci: Jci, parts: &[Vec<u8>], page_size: u32) -> Result<()> {
    let walk = |of_cold: &mut dyn FnMut(u32) -> Result<()>| -> Result<Option<u64>> {
        let mut told = None;
        for part in parts {
            let mut groups = groups(part, page_size);
            for (_, change) in groups.by_ref().flatten() {
                if let Change::Block { index, cold: true } = change {
                    of_cold(index)?;
                }
            }
            told = groups.cold_sum().or(told);
        }
        Ok(told)
    };
    let Some(told) = walk(&mut |_| Ok(()))? else { return Ok(()) };
    let (mut sum, mut content) = (0u64, vec![0; page_size as usize]);
    walk(&mut |index| {
        pages.load_cold(index, &mut content)?;
        sum = sum.wrapping_add(Pages::sum_of_cold(index, &content));
        Ok(())
    })?;
    if sum == told {
        return Ok(());
    }
    let detail = format!("blocks that commit {jci} names do not hold what it wrote there (checksum)");
    Err(Error::corrupt(pages.cold.path(), "cold file", detail))
}

/// Redoes the log. Answers the checksums of the pages that it names, but for those whose last group says in which block they
/// stand: cold ones are verified here, others have theirs in their entries.
fn redo(
    pages: &Pages,
    log: &Log,
    homes: &mut Homes<'_>,
    mut places: Option<&mut HashMap<PageNo, BlockNo>>,
) -> Result<HashMap<PageNo, u64>> {
    let mut sums = HashMap::new();
    let arena = &pages.geo().arena;
    let page_size = homes.superblock.page_size;
    for (jci, parts) in &log.commits {
        check_cold(pages, *jci, parts, page_size)?;
        for group in parts.iter().flat_map(|part| groups(part, page_size)) {
            let (page, change) =
                group.map_err(|why| pages.corrupt("micro-journal", format!("commit {jci} does not parse: {why}")))?;
            let block = places.as_ref().and_then(|p| p.get(&page).copied());
            match change {
                Change::Ranges { sum, .. } => sums.insert(page, sum),
                Change::Block { .. } => sums.remove(&page),
            };
            match (change, block) {
                (Change::Ranges { fresh, ranges, .. }, Some(b)) => {
                    if fresh {
                        arena.zero(b);
                        arena.flush(Site::RecoverFresh, b, 0, arena.size());
                    }
                    for (at, bytes) in ranges {
                        arena.store(b, at, bytes);
                        arena.flush(Site::RecoverRanges, b, at, bytes.len() as u32);
                    }
                }
                (Change::Ranges { fresh, ranges, .. }, None) => {
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
                    homes.pages.remove(&page); // the block takes over
                    places.insert(page, b);
                    pages.store_entry(b, Some(Entry { page, birth: *jci }));
                    pages.flush_entry(Site::RecoverEntry, b);
                }
            }
        }
    }
    Ok(sums)
}
