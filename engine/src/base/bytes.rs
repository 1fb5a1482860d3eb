//! Copies to and from memory that other processes may store to at the same time.
//!
//! A plain `memcpy` that races with a store is undefined behaviour, and the compiler may use that. These copies are, to the
//! compiler, relaxed atomic accesses: a byte that is raced for comes out old or new, and nothing else happens. Whether the
//! result may be believed is the caller's protocol (pins, P12) or a checksum.

/// Has the line at `at` brought into the cache. Only advice: any address will do.
#[inline]
pub(crate) fn prefetch<T>(at: *const T) {
    // SAFETY: the instruction reads nothing that a program can see, and never faults.
    #[cfg(all(target_arch = "x86_64", not(miri)))]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(all(target_arch = "x86_64", not(miri))))]
    let _ = at;
}

/// Copies `len` bytes out of shared memory, to anywhere.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, and they do not overlap. `src` may be stored through, too, as others
/// do: so atomic accesses want it.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) unsafe fn copy(src: *mut u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller's promise. One instruction, opaque to the compiler; the processor moves each byte as a relaxed
    // atomic would. The direction flag is clear by the calling convention.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") src => _, inout("rdi") dst => _,
            options(nostack, preserves_flags));
    }
}

/// Copies `len` bytes of one's own to shared memory.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, and they do not overlap. Nobody stores to `src` meanwhile.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) unsafe fn store(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller's promise; the source is only read.
    unsafe { copy(src.cast_mut(), dst, len) }
}

/// Copies `words` aligned 8-byte granules, each stored whole.
///
/// # Safety
/// As [`copy`], for `words * 8` bytes; `dst` is aligned to 8.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) unsafe fn copy_words(src: *const u8, dst: *mut u8, words: usize) {
    // SAFETY: as in `copy`; the processor moves at least eight bytes at a time.
    unsafe {
        std::arch::asm!("rep movsq", inout("rcx") words => _, inout("rsi") src => _, inout("rdi") dst => _,
            options(nostack, preserves_flags));
    }
}

/// Stores `len` zeros.
///
/// # Safety
/// `dst` is writable for `len` bytes.
#[cfg(all(target_arch = "x86_64", not(miri)))]
#[inline]
pub(crate) unsafe fn zero(dst: *mut u8, len: usize) {
    // SAFETY: as in `copy`.
    unsafe {
        std::arch::asm!("rep stosb", inout("rcx") len => _, inout("rdi") dst => _, in("al") 0u8,
            options(nostack, preserves_flags));
    }
}

/// For other processors, and for an interpreter, which knows no instructions.
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
mod portable {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// As on x86-64.
    ///
    /// # Safety
    /// As on x86-64.
    pub(crate) unsafe fn copy(src: *mut u8, dst: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: the caller's promise; a byte has no alignment, and all accesses to it here are atomic.
            unsafe {
                let byte = AtomicU8::from_ptr(src.add(i)).load(Relaxed);
                AtomicU8::from_ptr(dst.add(i)).store(byte, Relaxed);
            }
        }
    }

    /// As on x86-64.
    ///
    /// # Safety
    /// As on x86-64.
    pub(crate) unsafe fn store(src: *const u8, dst: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: the caller's promise. Atomic is the access to what is shared only: the source may be behind a `&`.
            unsafe { AtomicU8::from_ptr(dst.add(i)).store(src.add(i).read(), Relaxed) }
        }
    }

    /// As on x86-64.
    ///
    /// # Safety
    /// As on x86-64.
    pub(crate) unsafe fn copy_words(src: *const u8, dst: *mut u8, words: usize) {
        use std::sync::atomic::AtomicU64;
        for at in (0..words * 8).step_by(8) {
            // SAFETY: the caller's promise; the source is read unaligned.
            unsafe {
                let word = src.add(at).cast::<u64>().read_unaligned();
                AtomicU64::from_ptr(dst.add(at).cast()).store(word, Relaxed);
            }
        }
    }

    /// As on x86-64.
    ///
    /// # Safety
    /// As on x86-64.
    pub(crate) unsafe fn zero(dst: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: as in `copy`.
            unsafe { AtomicU8::from_ptr(dst.add(i)).store(0, Relaxed) }
        }
    }
}
#[cfg(not(all(target_arch = "x86_64", not(miri))))]
pub(crate) use portable::{copy, copy_words, store, zero};

#[cfg(test)]
mod tests {
    use super::*;

    /// Memory that begins at a multiple of 8.
    #[repr(align(8))]
    struct Aligned([u8; 64]);

    #[test]
    fn copies_and_zeros_change_what_they_are_told_to() {
        let mut from = [0; 64];
        from.iter_mut().zip(1..).for_each(|(byte, n)| *byte = n);
        for (src, dst) in [(0, 0), (1, 8), (3, 16), (7, 24)] {
            for words in 0..4 {
                let (mut to, mut want) = (Aligned([0xEE; 64]), [0xEE; 64]);
                want[dst..dst + 8 * words].copy_from_slice(&from[src..src + 8 * words]);
                // SAFETY: both ranges lie in their arrays, and `dst` is a multiple of 8.
                unsafe { copy_words(from.as_ptr().add(src), to.0.as_mut_ptr().add(dst), words) };
                assert_eq!(to.0, want);
            }
            for len in 0..20 {
                let (mut to, mut want) = (Aligned([0xEE; 64]), [0xEE; 64]);
                want[dst + 1..dst + 1 + len].copy_from_slice(&from[src..src + len]);
                // SAFETY: both ranges lie in their arrays.
                unsafe { store(from.as_ptr().add(src), to.0.as_mut_ptr().add(dst + 1), len) };
                assert_eq!(to.0, want);
                to.0.fill(0xEE);
                // SAFETY: as above.
                unsafe { copy(from.as_mut_ptr().add(src), to.0.as_mut_ptr().add(dst + 1), len) };
                assert_eq!(to.0, want);
                want[dst + 1..dst + 1 + len].fill(0);
                // SAFETY: as above.
                unsafe { zero(to.0.as_mut_ptr().add(dst + 1), len) };
                assert_eq!(to.0, want);
            }
        }
        prefetch(&raw const from);
        prefetch(std::ptr::null::<u8>());
    }
}
