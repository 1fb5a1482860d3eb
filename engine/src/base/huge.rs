//! Huge pages: a large mapping read at random spends much of its time on translating addresses. Mappings start at a multiple
//! of [`HUGE`], as the kernel needs it to use one entry for 2 MiB (on persistent memory it then does so by itself), and on
//! tmpfs, which is mounted without huge pages nearly everywhere, they are asked for once the storage is there. And
//! [`touch`], for what must not wait for the kernel at its first store.

use rustix::mm::{MapFlags, ProtFlags, mmap_anonymous, munmap};
use std::io;
use std::ptr::null_mut;

/// Bytes of a huge page.
pub(crate) const HUGE: usize = 2 << 20;

/// Reserves `len` addresses, a whole number of pages, that start at a multiple of [`HUGE`]; the caller unmaps them.
pub(crate) fn reserve(len: usize, prot: ProtFlags, flags: MapFlags) -> io::Result<*mut u8> {
    let whole = len.checked_add(HUGE).ok_or(io::ErrorKind::OutOfMemory)?;
    // SAFETY: a new anonymous mapping where the kernel likes; it touches no other.
    let start = unsafe { mmap_anonymous(null_mut(), whole, prot, flags) }?.cast::<u8>();
    let before = start.addr().wrapping_neg() % HUGE;
    let reserved = start.wrapping_add(before);
    let unmap = |at: *mut u8, n: usize| {
        if n > 0 {
            // SAFETY: a part of the mapping just made, outside of `[reserved, reserved + len)`. If it fails, addresses
            // stay reserved for nothing.
            let _ = unsafe { munmap(at.cast(), n) };
        }
    };
    unmap(start, before);
    unmap(reserved.wrapping_add(len), HUGE - before);
    Ok(reserved)
}

/// Asks for huge pages under those huge pages of the mapping at `base` of which the last byte lies in `[off, off + len)`,
/// storage that was just allocated. Only advice: without it everything works, slower.
///
/// # Safety
/// `base` is a multiple of [`HUGE`], and `[base, base + off + len)` a mapping of the caller.
pub(crate) unsafe fn ask(base: *mut u8, off: u64, len: u64) {
    let size = HUGE as u64;
    let (first, end) = (off / size * size, (off + len) / size * size);
    if first < end {
        // SAFETY: within the caller's mapping; the advice changes no content. Not in every kernel and not on every file
        // system: an error says so.
        let _ = unsafe { libc::madvise(base.add(first as usize).cast(), (end - first) as usize, libc::MADV_COLLAPSE) };
    }
}

/// Has the kernel make the pages of `[off, off + len)`, storage that was just allocated, writable now and not at the
/// first store to each. Only advice: kernels before 5.14 do not know it.
///
/// # Safety
/// `base` is the start of a page, and `[base, base + off + len)`, up to the end of its last page, a mapping of the
/// caller.
pub(crate) unsafe fn touch(base: *mut u8, off: u64, len: u64) {
    const PAGE: u64 = super::limits::DEVICE_BLOCK;
    let (first, end) = (off / PAGE * PAGE, (off + len).next_multiple_of(PAGE));
    // SAFETY: within the caller's mapping; it changes no content.
    let _ =
        unsafe { libc::madvise(base.add(first as usize).cast(), (end - first) as usize, libc::MADV_POPULATE_WRITE) };
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reservation_starts_at_a_huge_page() {
        for len in [4096, HUGE, 3 * HUGE + 8192] {
            let at = reserve(len, ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE).expect("addresses");
            assert!(at.addr().is_multiple_of(HUGE));
            // SAFETY: the reservation, and within it.
            unsafe {
                at.add(len - 1).write(7);
                ask(at, 0, len as u64);
                assert_eq!((at.read(), at.add(len - 1).read()), (0, 7));
                munmap(at.cast(), len).expect("ours");
            }
        }
    }
}
