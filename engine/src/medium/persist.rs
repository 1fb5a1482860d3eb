//! The persist primitive: how a store reaches the persistence domain. Chosen once, when a region is mapped.
//!
//! Flush is not drain: [`Persist::flush`] starts the write-back of lines, [`Persist::fence`] waits for it. A `clwb` is
//! ordered after older stores to its own line, so *store, flush, fence* needs no fence in between. Streamed
//! (non-temporal) stores are weakly ordered: a release store does not publish them, only a fence does.

use crate::base::limits::LINE;
use std::ffi::OsStr;
use std::path::Path;

/// How lines are written back.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Flush {
    /// `clwb`: writes back, keeps the line in the cache.
    Clwb,
    /// `clflushopt`: writes back and evicts, unordered among lines.
    ClflushOpt,
    /// `clflush`: writes back and evicts, one after the other.
    Clflush,
    /// None: the caches belong to the persistence domain (or the machine has no such instruction and promises nothing).
    Unneeded,
}

impl Flush {
    /// The best instruction of this machine; `None` if it has none that this program knows, so that `dax` must be
    /// refused.
    #[must_use]
    pub fn detect() -> Option<Flush> {
        arch::detect()
    }

    /// Its name, for the status.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Flush::Clwb => "clwb",
            Flush::ClflushOpt => "clflushopt",
            Flush::Clflush => "clflush",
            Flush::Unneeded => "none",
        }
    }
}

/// True if the platform says that the caches of the device that holds device number `dev` are flushed on power loss.
/// Where it cannot be determined (a stacked device, no such attribute) the answer is no: a flush too many is only slow.
#[must_use]
pub fn domain_has_caches(dev: u64) -> bool {
    let link = format!("/sys/dev/block/{}:{}", rustix::fs::major(dev), rustix::fs::minor(dev));
    std::fs::canonicalize(link).is_ok_and(|device| domain_of(&device).as_deref() == Some("cpu_cache"))
}

/// The attribute of the nearest ancestor that has it: .../ndbus0/region0/{namespace0.0,pfn0.0}/block/pmem0[/pmem0p1].
fn domain_of(device: &Path) -> Option<String> {
    device
        .ancestors()
        .take_while(|dir| dir.file_name() != Some(OsStr::new("sys")))
        .find_map(|dir| std::fs::read_to_string(dir.join("persistence_domain")).ok())
        .map(|text| text.trim().to_owned())
}

/// A chosen primitive.
#[derive(Clone, Copy, Debug)]
pub(super) struct Persist {
    flush: Flush,
}

impl Persist {
    pub(super) fn new(flush: Flush) -> Persist {
        Persist { flush }
    }

    pub(super) fn primitive(self) -> Flush {
        self.flush
    }

    /// Starts the write-back of every line of `[at, at + len)`; answers how many.
    ///
    /// # Safety
    /// The range is mapped.
    pub(super) unsafe fn flush(self, at: *const u8, len: usize) -> u64 {
        if len == 0 || self.flush == Flush::Unneeded {
            return 0;
        }
        let line = LINE as usize;
        let skew = at as usize % line;
        let lines = (skew + len).div_ceil(line);
        // SAFETY: a line that holds a byte of the range lies in a page of the range, which is mapped (caller).
        unsafe { arch::flush(self.flush, at.wrapping_sub(skew), lines) };
        lines as u64
    }

    /// Waits for this thread's flushes and streams, and orders its stores before all that follow.
    pub(super) fn fence(self) {
        arch::fence();
    }

    /// Copies past the caches: whole lines with non-temporal stores, what is left at both ends with a store and a
    /// flush.
    ///
    /// # Safety
    /// `[to, to + bytes.len())` is mapped for writing and does not overlap `bytes`.
    pub(super) unsafe fn stream(self, to: *mut u8, bytes: &[u8]) {
        let line = LINE as usize;
        let head = to.align_offset(line).min(bytes.len());
        let body = (bytes.len() - head) / line * line;
        let tail = bytes.len() - head - body;
        let from = bytes.as_ptr();
        // SAFETY: head, body and tail partition the range that the caller vouches for; `to + head` is a line's start
        // unless the body is empty.
        unsafe {
            self.store_and_flush(to, from, head);
            arch::stream_lines(to.add(head), from.add(head), body / line);
            self.store_and_flush(to.add(head + body), from.add(head + body), tail);
        }
    }

    /// # Safety
    /// As for [`super::granule::store`].
    unsafe fn store_and_flush(self, to: *mut u8, from: *const u8, len: usize) {
        // SAFETY: the caller's promise.
        unsafe {
            super::granule::store(to, from, len);
            self.flush(to, len);
        }
    }
}

#[cfg(target_arch = "x86_64")]
mod arch {
    use super::{Flush, LINE};
    use std::arch::asm;
    use std::arch::x86_64::{__cpuid, __cpuid_count, __m128i, _mm_loadu_si128, _mm_stream_si128};

    pub(super) const CLFLUSHOPT: u32 = 1 << 23;
    pub(super) const CLWB: u32 = 1 << 24;

    pub(super) fn detect() -> Option<Flush> {
        Some(best(features()))
    }

    /// EBX of CPUID's leaf 7, in which the two are bits.
    #[allow(unused_unsafe)] // safe to call from Rust 1.93 on
    pub(super) fn features() -> u32 {
        // SAFETY: every x86_64 has CPUID, and leaf 7 is only asked for where leaf 0 says that it exists.
        unsafe { if __cpuid(0).eax >= 7 { __cpuid_count(7, 0).ebx } else { 0 } }
    }

    /// The best instruction of a machine with these features.
    pub(super) fn best(features: u32) -> Flush {
        match features {
            f if f & CLWB != 0 => Flush::Clwb,
            f if f & CLFLUSHOPT != 0 => Flush::ClflushOpt,
            _ => Flush::Clflush, // part of SSE2, which x86_64 includes
        }
    }

    /// # Safety
    /// Each of the `lines` lines from `at` lies in mapped memory, and the machine has the instruction.
    pub(super) unsafe fn flush(how: Flush, at: *const u8, lines: usize) {
        let each = (0..lines).map(|i| at.wrapping_add(i * LINE as usize));
        // SAFETY: a write-back changes no memory that a program sees; the address is mapped (caller). The asm blocks
        // are not `nomem`, so the compiler moves no store across them.
        unsafe {
            match how {
                Flush::Clwb => each.for_each(|p| asm!("clwb [{}]", in(reg) p, options(nostack, preserves_flags))),
                Flush::ClflushOpt => {
                    each.for_each(|p| asm!("clflushopt [{}]", in(reg) p, options(nostack, preserves_flags)));
                }
                Flush::Clflush => each.for_each(|p| asm!("clflush [{}]", in(reg) p, options(nostack, preserves_flags))),
                Flush::Unneeded => {}
            }
        }
    }

    pub(super) fn fence() {
        // SAFETY: touches no memory and no stack.
        unsafe { asm!("sfence", options(nostack, preserves_flags)) };
    }

    /// # Safety
    /// `to` is the start of a line; both ranges of `lines` lines are mapped and do not overlap.
    pub(super) unsafe fn stream_lines(to: *mut u8, from: *const u8, lines: usize) {
        debug_assert!(lines == 0 || (to as usize).is_multiple_of(LINE as usize));
        for at in (0..lines * LINE as usize).step_by(16) {
            // SAFETY: in range and 16-byte aligned at the target (caller). The caller of `Pmem::stream` fences before
            // it publishes, which is what non-temporal stores ask for.
            unsafe {
                _mm_stream_si128(to.add(at).cast::<__m128i>(), _mm_loadu_si128(from.add(at).cast::<__m128i>()));
            }
        }
    }
}

/// Elsewhere there is no proven primitive: `dax` is refused, and `ram` (which promises nothing beyond the process)
/// needs none.
#[cfg(not(target_arch = "x86_64"))]
mod arch {
    use super::{Flush, LINE};

    pub(super) fn detect() -> Option<Flush> {
        None
    }

    /// # Safety
    /// None is needed; the signature is that of the other machines.
    pub(super) unsafe fn flush(_how: Flush, _at: *const u8, _lines: usize) {}

    pub(super) fn fence() {
        std::sync::atomic::fence(std::sync::atomic::Ordering::SeqCst);
    }

    /// # Safety
    /// As for [`super::super::granule::store`].
    pub(super) unsafe fn stream_lines(to: *mut u8, from: *const u8, lines: usize) {
        // SAFETY: the caller's promise.
        unsafe { super::super::granule::store(to, from, lines * LINE as usize) };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every instruction that this machine has.
    #[cfg(target_arch = "x86_64")]
    fn all() -> Vec<Flush> {
        let has = arch::features();
        let mut all: Vec<_> = [0, arch::CLWB, arch::CLWB | arch::CLFLUSHOPT].map(|but| arch::best(has & !but)).into();
        all.dedup();
        all
    }

    #[cfg(not(target_arch = "x86_64"))]
    fn all() -> Vec<Flush> {
        Vec::new()
    }

    #[test]
    #[cfg(target_arch = "x86_64")]
    fn the_least_harmful_instruction_is_chosen() {
        use arch::{CLFLUSHOPT, CLWB, best};
        for others in [0, !(CLWB | CLFLUSHOPT)] {
            assert_eq!(best(others | CLWB | CLFLUSHOPT), Flush::Clwb);
            assert_eq!(best(others | CLWB), Flush::Clwb);
            assert_eq!(best(others | CLFLUSHOPT), Flush::ClflushOpt);
            assert_eq!(best(others), Flush::Clflush);
        }
        assert_eq!(Flush::detect(), all().first().copied());
    }

    #[test]
    fn flush_counts_the_lines_it_touches() {
        let memory = [0u64; 64];
        let start = memory.as_ptr().cast::<u8>();
        let line = start.wrapping_add(start.align_offset(64));
        let flushed = |flush, skew: usize, len| {
            // SAFETY: at most 3 lines from the first line's start in 8.
            unsafe { Persist::new(flush).flush(line.wrapping_add(skew), len) }
        };
        for how in all() {
            assert_eq!(flushed(how, 0, 0), 0);
            assert_eq!(flushed(how, 0, 64), 1);
            assert_eq!(flushed(how, 63, 2), 2);
            assert_eq!(flushed(how, 1, 128), 3);
        }
        assert_eq!(flushed(Flush::Unneeded, 0, 192), 0);
    }

    #[test]
    fn stream_copies_any_length_and_alignment() {
        let source: Vec<u8> = (0..400).map(|i| i as u8 | 1).collect();
        let skews = |how| (0..70).map(move |skew| (Persist::new(how), skew));
        for (persist, skew) in all().into_iter().chain([Flush::Unneeded]).flat_map(skews) {
            for len in [0, 1, 7, 8, 15, 63, 64, 65, 127, 128, 200, 300] {
                let mut target = vec![0u8; 400];
                // SAFETY: skew + len <= 370 bytes of 400.
                unsafe { persist.stream(target.as_mut_ptr().add(skew), &source[3..3 + len]) };
                persist.fence();
                assert_eq!(target[skew..skew + len], source[3..3 + len]);
                assert!(target[..skew].iter().chain(&target[skew + len..]).all(|&b| b == 0));
            }
        }
    }

    #[test]
    fn persistence_domain_is_found_from_the_device_upwards() -> std::io::Result<()> {
        let root = tempfile::tempdir()?;
        let region = root.path().join("ndbus0/region0");
        let device = region.join("pfn0.0/block/pmem0");
        std::fs::create_dir_all(&device)?;
        assert_eq!(domain_of(&device), None);
        std::fs::write(region.join("persistence_domain"), "cpu_cache\n")?;
        assert_eq!(domain_of(&device).as_deref(), Some("cpu_cache"));
        Ok(())
    }
}
