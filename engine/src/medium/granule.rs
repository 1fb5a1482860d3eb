//! Stores to shared memory in aligned 8-byte granules, each stored whole by a relaxed atomic access:
//! what a crash may tear is what [`Pmem`](super::Pmem) says, and a race with another process is no undefined behaviour.
//! (`memcpy` promises neither.)
//!
//! These are the standard library's atomics, not loom's: they lie over raw memory that loom cannot know.

use crate::base::bytes;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

const GRANULE: usize = 8;
/// Granules from which on one string instruction, which takes a while to start, is faster than a loop.
const MANY: usize = 24;

/// Splits `len` bytes at `at` into those before the first granule, whole granules, and those after the last.
fn split(at: *const u8, len: usize) -> (usize, usize, usize) {
    let head = at.align_offset(GRANULE).min(len);
    let granules = (len - head) / GRANULE;
    (head, granules, len - head - granules * GRANULE)
}

/// Stores `len` bytes from `from` at `to`.
///
/// # Safety
/// `to` is writable and `from` readable for `len` bytes, and they do not overlap.
pub(super) unsafe fn store(to: *mut u8, from: *const u8, len: usize) {
    let (head, granules, tail) = split(to, len);
    // SAFETY: all offsets are below `len` (caller); `to + head` is aligned to a granule; the source is read unaligned.
    unsafe {
        store_bytes(to, from, head);
        let (to, from) = (to.add(head), from.add(head));
        if granules >= MANY {
            bytes::copy_words(from, to, granules);
        } else {
            for i in 0..granules {
                let word = from.add(i * GRANULE).cast::<u64>().read_unaligned();
                AtomicU64::from_ptr(to.add(i * GRANULE).cast()).store(word, Relaxed);
            }
        }
        store_bytes(to.add(granules * GRANULE), from.add(granules * GRANULE), tail);
    }
}

/// # Safety
/// As for [`store`].
unsafe fn store_bytes(to: *mut u8, from: *const u8, len: usize) {
    for i in 0..len {
        // SAFETY: below `len` (caller).
        unsafe { AtomicU8::from_ptr(to.add(i)).store(from.add(i).read(), Relaxed) };
    }
}

/// Stores `len` zeros at `to`.
///
/// # Safety
/// `to` is writable for `len` bytes.
pub(super) unsafe fn zero(to: *mut u8, len: usize) {
    let (head, granules, tail) = split(to, len);
    let zeros = [0u8; GRANULE];
    // SAFETY: as in `store`; head and tail are shorter than a granule, and so than `zeros`.
    unsafe {
        store_bytes(to, zeros.as_ptr(), head);
        let to = to.add(head);
        for i in 0..granules {
            AtomicU64::from_ptr(to.add(i * GRANULE).cast()).store(0, Relaxed);
        }
        store_bytes(to.add(granules * GRANULE), zeros.as_ptr(), tail);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_stored_and_cleared_wherever_they_begin_and_end() {
        let from: Vec<u8> = (1..=250).collect();
        let mut words = [0_u64; 40];
        let to = words.as_mut_ptr().cast::<u8>();
        for at in 0..9 {
            for len in (0..34).chain([8 * MANY - 1, 8 * MANY + 17]) {
                // SAFETY: within `from` and `words`; nobody else touches them.
                let got = unsafe {
                    std::ptr::write_bytes(to, 0xEE, 320);
                    store(to.add(at), from.as_ptr(), len);
                    std::slice::from_raw_parts(to, 320).to_vec()
                };
                let rest = |got: &[u8]| got[..at].iter().chain(&got[at + len..]).all(|&byte| byte == 0xEE);
                assert!(rest(&got) && got[at..at + len] == from[..len], "{len} bytes at {at}");
                // SAFETY: as above.
                let got = unsafe {
                    zero(to.add(at), len);
                    std::slice::from_raw_parts(to, 320).to_vec()
                };
                assert!(rest(&got) && got[at..at + len].iter().all(|&byte| byte == 0), "{len} zeros at {at}");
            }
        }
    }
}
