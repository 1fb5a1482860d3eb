//! What the region, the base file and the cold file lie on.
//!
//! Two ways to reach bytes that outlive a process. [`Pmem`] is byte-addressable (`dax`, `ram`): stores go to a
//! mapping, `flush` starts the write-back of lines, `fence` waits for it. [`Disk`] is positioned I/O with a sync
//! (`file`, every base and cold file). The crash simulator implements both.
//!
//! What a crash may keep, exactly: of a [`Pmem`], any subset of the aligned 8-byte granules stored since the last
//! fence that followed a flush of their line by the same thread (the end of a process, as far as others can see it, is
//! such a fence: the kernel's way there is full of locked instructions); of a [`Disk`], any subset of the 512-byte sectors
//! written since the last sync, and of one sector all or nothing.

mod disk;
mod fs;
#[allow(unsafe_code)]
mod granule;
#[allow(unsafe_code)]
mod mapped;
#[allow(unsafe_code)]
mod persist;

pub use crate::base::MediumKind;
pub use disk::FileDisk;
pub use fs::{is_network_fs, is_tmpfs, sync_dir};
pub use mapped::{Mapped, probe};
pub use persist::Flush;

use crate::base::Result;
use std::ops::Range;
use std::path::Path;

/// Names each site once, so that [`Site::ALL`] lacks none.
macro_rules! sites {
    ($($(#[$doc:meta])* $site:ident,)*) => {
        /// The one call of a flush, a fence or a sync. The simulator deletes one at a time to show that each is needed.
        #[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
        pub enum Site {
            $($(#[$doc])* $site,)*
        }

        impl Site {
            /// All sites, for the mutation test.
            pub const ALL: &[Site] = &[$(Site::$site,)*];
        }
    };
}

sites! {
    /// The commit record, on its way before it is applied.
    CommitRecord,
    /// The fence of a commit.
    CommitFence,
    /// The record of a dead writer, who may not have waited for it.
    FinishRecord,
    /// Before such a commit is applied.
    FinishFence,
    /// The record that a dead writer had begun, cleared: parts of the next commit of that number must not complete it.
    DropRecord,
    /// Before that number is used again.
    DropFence,
    /// Lines that in-flight micro-journals touched, when they are retired.
    RetireLines,
    /// Entries that they changed.
    RetireEntry,
    /// Before the superblock attests what was retired.
    RetireFence,
    /// Cleared entries of older versions, when the newest is at home only.
    OlderEntry,
    /// Before another thread may retire what made them old.
    OlderFence,
    /// Cleared entries of blocks that are going to be free.
    ClearEntry,
    /// Before they are.
    ClearFence,
    /// Cleared entries of pages that came home from the cold file.
    HomewardEntry,
    /// Shadow blocks in the region.
    ShadowBlock,
    /// Their checksums.
    ShadowSum,
    /// Before the call that wrote them ends: the record that names them may be another thread's.
    ShadowFence,
    /// Shadow blocks in the cold file, before the record that names them.
    ShadowCold,
    /// The superblock on memory.
    Superblock,
    /// Before what it replaces is overwritten.
    SuperblockFence,
    /// The superblock in a file.
    SuperblockSync,
    /// A batch of the log (`file`).
    Batch,
    /// Homes in the base file, before the log that has them is attested retired.
    Homes,
    /// The mark in the header of a base without a database.
    MarkBlank,
    /// The zeros that make the last page of a stock file whole, before the file is marked.
    LastPage,
    /// The mark in the header of a stock file.
    MarkStock,
    /// Zeros where the entries are going to be of a database that gets another page size.
    ForgetEntries,
    /// The complete stock file, before its region is removed.
    Unmark,
    /// The header of a base that reads unmarked, before a region that stands beside it is given up for that.
    KeepUnmarked,
    /// The log that recovery accepted, which dead processes may have left in the page cache: before any home changes.
    RecoverLog,
    /// Homes that recovery wrote.
    RecoverHomes,
    /// Entries that recovery must not believe, cleared before the low-water mark passes their birth; damaged ones made good.
    RecoverUnbelieved,
    /// Checksums of blocks that recovery redid.
    RecoverSum,
    /// Entries of pages whose place recovery moved to their homes.
    RecoverHomeward,
    /// Blocks that recovery cleared.
    RecoverFresh,
    /// Ranges that recovery redid.
    RecoverRanges,
    /// Entries of shadow blocks that recovery took over.
    RecoverEntry,
    /// Before the superblock of the next incarnation.
    RecoverFence,
    /// The names of a new region and cold file, before the mark that sends who opens the base to them.
    SideNames,
    /// The name of the base, where they are elsewhere: nobody may find the region without it.
    BaseName,
    /// The name of a cold file that was missing, before the log names blocks of it.
    ColdName,
    /// Names of what is set aside, before others take their old ones.
    AsideNames,
    /// The names of side files, gone when a clean close returns.
    GoneNames,
}

/// Byte-addressable memory that outlives the process. Offsets are bytes from its start.
///
/// Ranges are checked by the implementation; a range out of bounds is a bug of the caller and panics.
pub trait Pmem: Send + Sync {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;
    /// `Dax` or `Ram`.
    fn kind(&self) -> MediumKind;
    /// Start of the mapping, for reading. Valid for [`len`](Self::len) bytes as long as `self` lives.
    fn base(&self) -> *const u8;
    /// Bytes that are mapped. Only those made present by [`allocate`](Self::allocate) may be touched.
    fn len(&self) -> u64;
    /// True if nothing is mapped.
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
    /// Makes storage present under `[off, off + len)`, so that no store there can fault.
    fn allocate(&self, off: u64, len: u64) -> Result<()>;
    /// Advice: `[off, off + len)`, just allocated, will be read at random. May take milliseconds.
    fn prefer_huge(&self, _off: u64, _len: u64) {}
    /// Advice: the first store to `[off, off + len)`, just allocated, must not wait for the kernel.
    fn touch(&self, _off: u64, _len: u64) {}
    /// Copies bytes out. Nobody stores to them meanwhile: a reader's pin, a lock or recovery sees to that.
    fn load(&self, off: u64, into: &mut [u8]);
    /// Stores bytes; not yet persistent. Aligned 8-byte granules are stored whole.
    fn store(&self, off: u64, bytes: &[u8]);
    /// Stores zeros; not yet persistent.
    fn zero(&self, off: u64, len: u64);
    /// Stores one aligned word with release ordering; not yet persistent.
    fn store_u64(&self, off: u64, value: u64);
    /// Stores `bytes` past the caches where the machine can; persistent after the next [`fence`](Self::fence) of this thread.
    /// Counts as store and flush.
    fn stream(&self, site: Site, off: u64, bytes: &[u8]);
    /// Starts the write-back of every line in the range; persistent after the next [`fence`](Self::fence) of this thread.
    /// Answers the number of lines flushed (0 where the platform needs none).
    fn flush(&self, site: Site, off: u64, len: u64) -> u64;
    /// Waits for this thread's flushes and streams.
    fn fence(&self, site: Site);
}

/// Positioned I/O on a file that outlives the process.
pub trait Disk: Send + Sync {
    /// Where it lies, for messages.
    fn path(&self) -> &Path;
    /// Length in bytes.
    fn len(&self) -> Result<u64>;
    /// True if it has no bytes.
    fn is_empty(&self) -> Result<bool> {
        Ok(self.len()? == 0)
    }
    /// Reads as much as there is, up to `into.len()`; the rest is zeroed. Answers the bytes read.
    fn read_at(&self, off: u64, into: &mut [u8]) -> Result<usize>;
    /// Writes all of `bytes`; not yet persistent.
    fn write_at(&self, off: u64, bytes: &[u8]) -> Result<()>;
    /// Makes what was written persistent (data and what is needed to read it back).
    fn sync(&self, site: Site) -> Result<()>;
    /// Makes storage present under `[off, off + len)`, extending the file if needed. Where there is no such call only the length
    /// is right, and a write tells that there is no room. (Of a base file nothing is allocated: it grows as homes are written.)
    fn allocate(&self, off: u64, len: u64) -> Result<()> {
        if self.len()? < off + len { self.set_len(off + len) } else { Ok(()) }
    }
    /// Cuts or extends (with zeros) to `len`.
    fn set_len(&self, len: u64) -> Result<()>;
    /// Gives the storage of bytes back that nobody needs any more, if the file system can; then they read as zeros. The length
    /// stays.
    fn give_back(&self, off: u64, len: u64) -> Result<()> {
        _ = (off, len);
        Ok(())
    }
    /// The first bytes of `range` that may have been written; empty if none were. What is before them reads as zeros.
    fn next_written(&self, range: Range<u64>) -> Result<Range<u64>> {
        Ok(range)
    }
}

/// Opens the base file again and again: every thread that touches it needs a handle of its own (P15), and every one
/// must come from SQLite's default VFS.
pub trait BaseOpener: Send + Sync {
    /// Where the base file is.
    fn path(&self) -> &Path;
    /// A handle for the calling thread.
    fn open(&self) -> Result<Box<dyn BaseFile>>;
    /// Lets the default VFS recover a left-over `-wal` or `-journal` and leave the file in rollback mode (header bytes 18/19 = 1).
    fn recover_stock(&self) -> Result<()>;
    /// Device and inode that the path has now, to notice that the file was replaced. `None` if it is gone.
    fn identity(&self) -> Result<Option<(u64, u64)>>;
    /// The file system at `path`, by the magic number of `statfs`: of the base file, and of where its side files are.
    fn file_system(&self, path: &Path) -> Result<u64> {
        fs::magic(path)
    }
}

/// One handle on the base file. Locks are SQLite's own POSIX locks on it, taken through the default VFS.
pub trait BaseFile: Disk {
    /// Takes stock SQLite's EXCLUSIVE lock; [`Error::Busy`](crate::base::Error::Busy) if any stock connection has the file locked.
    fn lock_exclusive(&self) -> Result<()>;
    /// Gives every lock back.
    fn unlock(&self) -> Result<()>;
}
