//! The numbers the engine counts with, one type each, so that they cannot be mixed up.

use std::fmt;

/// Commit identifier: the globally ascending number of a committed transaction in a region.
/// 0 is "before the first commit"; it orders commits, names snapshots, is the replication position.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Jci(pub u64);

impl Jci {
    /// Before the first commit.
    pub const ZERO: Jci = Jci(0);

    /// The identifier that follows.
    #[must_use]
    pub fn next(self) -> Jci {
        Jci(self.0 + 1)
    }
}

/// Number of a database page, from 1 as SQLite counts.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct PageNo(pub u32);

impl PageNo {
    /// The page that byte `offset` of a database lies in, of pages of `size` bytes, a power of two, and where in it. `None` if
    /// it lies beyond what a page number can say.
    #[must_use]
    pub fn at(offset: u64, size: u32) -> Option<(PageNo, u32)> {
        // shifts: a division would take longer than all the rest of a look-up
        let page = u32::try_from((offset >> size.trailing_zeros()) + 1).ok()?;
        Some((PageNo(page), (offset & u64::from(size - 1)) as u32))
    }
}

/// Index of a data block of the fast tier, from 0.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct BlockNo(pub u32);

/// Index of a virtblock (one version of one page, wherever it lies), from 1; 0 is none.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct VirtNo(pub u32);

impl VirtNo {
    /// The end of a chain.
    pub const NONE: VirtNo = VirtNo(0);
}

/// A history of a region: raised by recovery, restore, re-seed and promotion. Seeds the checksums.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Default, Debug)]
pub struct Incarnation(pub u64);

impl Incarnation {
    /// Of a region that was made and never opened: whoever opens it begins the next.
    pub const FIRST: Incarnation = Incarnation(1);
}

/// Identity of a region, random, written in its superblock and in the mark of its base file.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Default)]
pub struct RegionId(pub [u8; 16]);

/// What the region lies on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum MediumKind {
    /// Persistent memory mapped with `MAP_SYNC`: survives power loss.
    Dax,
    /// Anything else: a log with one flush per batch: survives power loss.
    File,
    /// Ordinary memory (tmpfs), executed as `dax`: survives the process, not the machine.
    Ram,
}

impl fmt::Display for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|b| write!(f, "{b:02x}"))
    }
}

impl fmt::Debug for RegionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl fmt::Display for Jci {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

impl fmt::Display for PageNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}
