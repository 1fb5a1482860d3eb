//! Copies to and from memory that other processes may store to at the same time.
//!
//! A plain `memcpy` that races with a store is undefined behaviour, and the compiler may use that. These copies are, to the
//! compiler, relaxed atomic accesses: a byte that is raced for comes out old or new, and nothing else happens. Whether the
//! result may be believed is the caller's protocol (pins, P12) or a checksum.

/// Has the line at `at` brought into the cache. Only advice: any address will do.
#[inline]
pub(crate) fn prefetch<T>(at: *const T) {
    // SAFETY: the instruction reads nothing that a program can see, and never faults.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        std::arch::x86_64::_mm_prefetch::<{ std::arch::x86_64::_MM_HINT_T0 }>(at.cast());
    }
    #[cfg(not(target_arch = "x86_64"))]
    let _ = at;
}

/// Copies `len` bytes.
///
/// # Safety
/// `src` is readable and `dst` writable for `len` bytes, and they do not overlap.
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
    // SAFETY: the caller's promise. One instruction, opaque to the compiler; the processor moves each byte as a relaxed
    // atomic would. The direction flag is clear by the calling convention.
    unsafe {
        std::arch::asm!("rep movsb", inout("rcx") len => _, inout("rsi") src => _, inout("rdi") dst => _,
            options(nostack, preserves_flags));
    }
}

/// Copies `words` aligned 8-byte granules, each stored whole.
///
/// # Safety
/// As [`copy`], for `words * 8` bytes; `dst` is aligned to 8.
#[cfg(target_arch = "x86_64")]
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
#[cfg(target_arch = "x86_64")]
#[inline]
pub(crate) unsafe fn zero(dst: *mut u8, len: usize) {
    // SAFETY: as in `copy`.
    unsafe {
        std::arch::asm!("rep stosb", inout("rcx") len => _, inout("rdi") dst => _, in("al") 0u8,
            options(nostack, preserves_flags));
    }
}

#[cfg(not(target_arch = "x86_64"))]
mod portable {
    use std::sync::atomic::{AtomicU8, Ordering::Relaxed};

    /// As on x86-64.
    ///
    /// # Safety
    /// As on x86-64.
    pub(crate) unsafe fn copy(src: *const u8, dst: *mut u8, len: usize) {
        for i in 0..len {
            // SAFETY: the caller's promise; a byte has no alignment, and all accesses to it here are atomic.
            unsafe {
                let byte = AtomicU8::from_ptr(src.add(i).cast_mut()).load(Relaxed);
                AtomicU8::from_ptr(dst.add(i)).store(byte, Relaxed);
            }
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
#[cfg(not(target_arch = "x86_64"))]
pub(crate) use portable::{copy, copy_words, zero};
