//! Less of everything: limits of the process, and shared memory of its own.

#![allow(clippy::panic, reason = "for tests only, which it tells what is wrong")]

use std::ffi::CString;
use std::path::Path;

/// Which limit of a process.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Limit {
    /// Bytes of a file.
    FileSize,
    /// Bytes of address space.
    Addresses,
    /// Open files.
    Files,
}

/// Limits this process for the rest of its life.
pub fn limit(what: Limit, most: u64) {
    let resource = match what {
        Limit::FileSize => libc::RLIMIT_FSIZE,
        Limit::Addresses => libc::RLIMIT_AS,
        Limit::Files => libc::RLIMIT_NOFILE,
    };
    let limit = libc::rlimit { rlim_cur: most, rlim_max: most };
    // SAFETY: the structure outlives the call.
    assert_eq!(unsafe { libc::setrlimit(resource, &raw const limit) }, 0, "{what:?}");
}

/// Puts a tmpfs of its own over `/dev/shm`, for this thread and those that it starts. False without the right to.
#[must_use]
pub fn own_shm(options: &str) -> bool {
    let Ok(options) = CString::new(options) else { return false };
    // SAFETY: plain numbers.
    if unsafe { libc::unshare(libc::CLONE_NEWNS) } != 0 {
        return false;
    }
    let mount = |target: &str, kind: &str, flags, data: *const libc::c_char| {
        let (Ok(target), Ok(kind)) = (CString::new(target), CString::new(kind)) else { return false };
        // SAFETY: all strings end with a zero and outlive the call.
        unsafe { libc::mount(c"none".as_ptr(), target.as_ptr(), kind.as_ptr(), flags, data.cast()) == 0 }
    };
    mount("/", "", libc::MS_REC | libc::MS_PRIVATE, std::ptr::null()) && mount("/dev/shm", "tmpfs", 0, options.as_ptr())
}

/// Takes all room of the file system but about `left` bytes.
///
/// # Panics
/// If it cannot make the file.
pub fn fill(path: &Path, left: u64) {
    let mut filler = std::fs::File::create(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let chunk = vec![1_u8; 4096];
    while std::io::Write::write_all(&mut filler, &chunk).is_ok() {}
    let len = filler.metadata().map_or(0, |data| data.len());
    let shorter = filler.set_len(len.saturating_sub(left) / 4096 * 4096);
    assert!(shorter.is_ok(), "{}: {shorter:?}", path.display());
}
