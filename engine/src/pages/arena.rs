//! The data blocks: in the region (`dax`, `ram`) or in the shared mapping (`file`).

use crate::base::BlockNo;
use crate::base::bytes::prefetch;
use crate::medium::{Pmem, Site};
use crate::shm::Segment;
use std::sync::Arc;

/// Where blocks lie.
pub enum Memory {
    /// In the region.
    Inside(Arc<dyn Pmem>),
    /// In the shared mapping; nothing there survives a crash, so nothing is flushed.
    Frames(Arc<Segment>),
}

/// Blocks of one size in one memory.
pub struct Arena {
    memory: Memory,
    /// Offset of the first block, and where that is in this process.
    at: u64,
    start: *const u8,
    size: u32,
}

// SAFETY: `start` points into the memory that `memory` keeps, which belongs to no thread.
#[allow(unsafe_code)]
unsafe impl Send for Arena {}
// SAFETY: as above; what is read and stored through it goes through the memory's own methods.
#[allow(unsafe_code)]
unsafe impl Sync for Arena {}

impl Arena {
    /// Blocks of `size` bytes from byte `at` of `memory` on.
    #[must_use]
    pub fn new(memory: Memory, at: u64, size: u32) -> Arena {
        let start = match &memory {
            Memory::Inside(pmem) => pmem.base().wrapping_add(at as usize),
            Memory::Frames(segment) => segment.ptr(at, 0).cast_const(),
        };
        Arena { memory, at, start, size }
    }

    /// Bytes of a block.
    #[must_use]
    pub fn size(&self) -> u32 {
        self.size
    }

    fn offset(&self, block: BlockNo, within: u32) -> u64 {
        self.at + u64::from(block.0) * u64::from(self.size) + u64::from(within)
    }

    /// Makes the blocks `[first, first + n)` present.
    pub fn allocate(&self, first: u32, n: u32) -> crate::base::Result<()> {
        let (off, len) = (self.offset(BlockNo(first), 0), u64::from(n) * u64::from(self.size));
        match &self.memory {
            Memory::Inside(pmem) => pmem.allocate(off, len),
            Memory::Frames(segment) => segment.commit(off, len),
        }
    }

    /// Sees to it that the first store to blocks just allocated does not wait for the kernel.
    pub fn touch(&self, first: u32, n: u32) {
        let (off, len) = (self.offset(BlockNo(first), 0), u64::from(n) * u64::from(self.size));
        match &self.memory {
            Memory::Inside(pmem) => pmem.touch(off, len),
            Memory::Frames(segment) => segment.touch(off, len),
        }
    }

    /// Advice: blocks just allocated will be read at random. May take milliseconds.
    pub fn prefer_huge(&self, first: u32, n: u32) {
        let (off, len) = (self.offset(BlockNo(first), 0), u64::from(n) * u64::from(self.size));
        match &self.memory {
            Memory::Inside(pmem) => pmem.prefer_huge(off, len),
            Memory::Frames(segment) => segment.prefer_huge(off, len),
        }
    }

    /// Has the first lines of a block, if there is one of that number, brought into the cache.
    pub fn prefetch(&self, block: BlockNo) {
        let start = self.address(block, 0);
        (0..4).for_each(|line| prefetch(start.wrapping_add(64 * line)));
    }

    /// Copies bytes out of a block. The protocol's part (P2, P12): the caller's pin, read in progress or lock keeps the
    /// version that the block holds, and what is kept is not stored to.
    pub fn load(&self, block: BlockNo, within: u32, into: &mut [u8]) {
        debug_assert!(u64::from(within) + into.len() as u64 <= u64::from(self.size));
        match &self.memory {
            Memory::Inside(pmem) => pmem.load(self.offset(block, within), into),
            // SAFETY: nobody stores to the block meanwhile, as said above.
            #[allow(unsafe_code)]
            Memory::Frames(segment) => unsafe { segment.read(self.offset(block, within), into) },
        }
    }

    /// Stores bytes into a block. The protocol's part (P2, P12): nobody reads these bytes now.
    pub fn store(&self, block: BlockNo, within: u32, bytes: &[u8]) {
        debug_assert!(u64::from(within) + bytes.len() as u64 <= u64::from(self.size));
        match &self.memory {
            Memory::Inside(pmem) => pmem.store(self.offset(block, within), bytes),
            Memory::Frames(segment) => segment.copy_in(self.offset(block, within), bytes),
        }
    }

    /// Clears a block.
    pub fn zero(&self, block: BlockNo) {
        match &self.memory {
            Memory::Inside(pmem) => pmem.zero(self.offset(block, 0), u64::from(self.size)),
            Memory::Frames(segment) => segment.zero(self.offset(block, 0), u64::from(self.size)),
        }
    }

    /// Copies a block onto another.
    pub fn copy(&self, from: BlockNo, to: BlockNo) {
        match &self.memory {
            Memory::Inside(pmem) => pmem.store(self.offset(to, 0), self.view(from)),
            Memory::Frames(segment) => {
                segment.copy_within(self.offset(from, 0), self.offset(to, 0), u64::from(self.size));
            }
        }
    }

    /// Starts the write-back of bytes of a block; answers the lines flushed.
    pub fn flush(&self, site: Site, block: BlockNo, within: u32, len: u32) -> u64 {
        match &self.memory {
            Memory::Inside(pmem) => pmem.flush(site, self.offset(block, within), u64::from(len)),
            Memory::Frames(_) => 0,
        }
    }

    /// Writes a whole block past the caches; persistent after the next fence.
    pub fn stream(&self, site: Site, block: BlockNo, bytes: &[u8]) {
        match &self.memory {
            Memory::Inside(pmem) => pmem.stream(site, self.offset(block, 0), bytes),
            Memory::Frames(segment) => segment.copy_in(self.offset(block, 0), bytes),
        }
    }

    /// Address of a byte of a block, for xFetch.
    #[must_use]
    pub fn address(&self, block: BlockNo, within: u32) -> *const u8 {
        self.start.wrapping_add(block.0 as usize * self.size as usize + within as usize)
    }

    /// The block that an address of [`address`](Self::address) lies in.
    #[must_use]
    pub fn block_at(&self, address: *const u8) -> Option<BlockNo> {
        let bytes = address.addr().checked_sub(self.address(BlockNo(0), 0).addr())?;
        u32::try_from(bytes as u64 / u64::from(self.size)).ok().map(BlockNo)
    }

    /// A block's bytes in place. For the holder of the writer lock (or of recovery), and for the version that is current:
    /// only that holder changes it, and it does not while it holds the view.
    #[must_use]
    pub fn view(&self, block: BlockNo) -> &[u8] {
        let address = match &self.memory {
            Memory::Inside(pmem) => {
                assert!(self.offset(block, self.size) <= pmem.len(), "block {} lies outside the region", block.0);
                self.address(block, 0)
            }
            Memory::Frames(segment) => segment.ptr(self.offset(block, 0), u64::from(self.size)).cast_const(),
        };
        // SAFETY: the range lies in a mapping that lives as long as `self` (checked above), bytes are valid for any
        // pattern, and the caller holds the lock under which alone this block's content changes.
        #[allow(unsafe_code)]
        unsafe {
            std::slice::from_raw_parts(address, self.size as usize)
        }
    }
}
