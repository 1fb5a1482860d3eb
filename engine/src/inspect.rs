//! A region looked at from outside, without attaching and without writing: what the next open would find and do.

use crate::attach::{SideFiles, missing};
use crate::base::checksum::seed;
use crate::base::{BlockNo, Error, Incarnation, Jci, MediumKind, PageNo, RegionId, Result};
use crate::engine::Region;
use crate::format::entry::{ENTRY, Entry};
use crate::format::get_u64;
use crate::format::journal::groups;
use crate::format::layout::Layout;
use crate::format::superblock::Superblock;
use crate::medium::FileDisk;
use crate::recovery::read_log;
use crate::shm::anyone_attached;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a region says of itself.
#[derive(Debug)]
pub struct Inspection {
    /// Identity; a base whose mark has another one is not this region's.
    pub region: RegionId,
    /// What it lies on.
    pub medium: MediumKind,
    /// Page size, once it is known.
    pub page_size: Option<u32>,
    /// Fast-tier budget, bytes.
    pub budget: u64,
    /// The history.
    pub incarnation: Incarnation,
    /// True if everything was written home, and only the end of the close is missing.
    pub complete: bool,
    /// Everything up to this is durable at its place, as the superblock says; the log may know of more.
    pub low_water: Jci,
    /// What the log holds, or why it cannot be believed.
    pub log: Result<LogInspection>,
}

/// What a log holds above the low-water mark.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct LogInspection {
    /// Everything up to this is durable at its place, as superblock and log say.
    pub low_water: Jci,
    /// The newest commit.
    pub newest: Jci,
    /// Commits that the next open redoes.
    pub commits: u64,
    /// Micro-journals of which they consist.
    pub journals: u64,
    /// Journal entries in them: pages changed, counted once for each commit at least.
    pub entries: u64,
    /// Pages whose place is a block of the fast tier that survives (`dax`, `ram`).
    pub durable_pages: u64,
}

/// Where the region of a database is, if it has one.
#[must_use]
pub fn region_path(base: &Path, region_dir: Option<&Path>) -> PathBuf {
    SideFiles::of(base, region_dir).region
}

/// What an open answers of a database whose mark names region `id`, if that is not where it is looked for.
#[must_use]
pub fn missing_region(base: &Path, region_dir: Option<&Path>, id: RegionId) -> Error {
    missing(&SideFiles::of(base, region_dir), id)
}

/// Whether a process is attached to the region file `path`.
///
/// # Errors
/// It cannot be read, or its locks cannot be asked for.
pub fn is_attached(path: &Path) -> Result<bool> {
    anyone_attached(FileDisk::open_read_only(path)?.file()).map_err(|error| Error::io(path, "ask for locks on", error))
}

/// Looks at the region file `path`; `None` if it is empty. Nobody is attached to it, or the log is in motion.
///
/// # Errors
/// It cannot be read, or neither of its superblocks can be believed.
pub fn inspect(path: &Path) -> Result<Option<Inspection>> {
    inspect_region(&Region::Disk(Arc::new(FileDisk::open_read_only(path)?)))
}

/// As [`inspect`], for a region that is open. What lies in memory that is mapped is looked at as a file, too.
///
/// # Errors
/// As [`inspect`].
pub fn inspect_region(region: &Region) -> Result<Option<Inspection>> {
    if region.extent()? == 0 {
        return Ok(None);
    }
    let superblock = region.superblock()?;
    Ok(Some(Inspection {
        region: superblock.region,
        medium: superblock.medium,
        page_size: Some(superblock.page_size).filter(|&size| size != 0),
        budget: superblock.budget,
        incarnation: superblock.incarnation,
        complete: superblock.complete,
        low_water: superblock.low_water,
        log: log_of(region, &superblock),
    }))
}

fn log_of(region: &Region, superblock: &Superblock) -> Result<LogInspection> {
    let log = read_log(region, superblock)?;
    let bodies = || log.commits.iter().flat_map(|(_, parts)| parts);
    Ok(LogInspection {
        low_water: log.low_water,
        newest: log.end,
        commits: log.commits.len() as u64,
        journals: bodies().count() as u64,
        entries: bodies().map(|body| groups(body, superblock.page_size).flatten().count() as u64).sum(),
        durable_pages: durable_pages(region, superblock, log.low_water)?,
    })
}

fn durable_pages(region: &Region, superblock: &Superblock, low_water: Jci) -> Result<u64> {
    if superblock.medium == MediumKind::File || superblock.page_size == 0 {
        return Ok(0);
    }
    let layout = Layout::new(superblock.budget, superblock.page_size, true);
    let len = region.extent()?;
    if len < layout.len() {
        // as an open refuses it; and the array that a garbled budget asks for would be read for hours
        return Err(Error::corrupt(region.path(), "region", format!("{len} bytes of {}: it was cut", layout.len())));
    }
    let entry_seed = seed(superblock.region, Incarnation(0));
    let mut pages: HashSet<PageNo> = HashSet::new();
    let mut bytes = [0u8; ENTRY as usize];
    for block in (0..layout.max_blocks).map(BlockNo) {
        region.load(layout.entries_at() + u64::from(block.0) * ENTRY, &mut bytes)?;
        let entry = Entry::decode(entry_seed, [0, 8, 16].map(|at| get_u64(&bytes, at)));
        pages.extend(entry.filter(|entry| entry.birth <= low_water).map(|entry| entry.page));
    }
    Ok(pages.len() as u64)
}
