//! Open-file-description locks on single bytes: they end with the last descriptor of one `open`, whichever way the process ends.

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

fn request(kind: libc::c_int, start: u64, len: u64) -> libc::flock {
    // SAFETY: plain integers; zero is valid for each, and required of l_pid.
    let mut lock: libc::flock = unsafe { std::mem::zeroed() };
    lock.l_type = kind as libc::c_short;
    lock.l_whence = libc::SEEK_SET as libc::c_short;
    lock.l_start = start as libc::off_t;
    lock.l_len = len as libc::off_t;
    lock
}

fn fcntl(file: &File, op: libc::c_int, lock: &mut libc::flock) -> io::Result<()> {
    // SAFETY: the descriptor is open as long as `file` is borrowed; the kernel reads and writes just the struct.
    if unsafe { libc::fcntl(file.as_raw_fd(), op, lock) } == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Locks a byte for writing; false if another open file description has it.
pub(super) fn try_lock(file: &File, byte: u64) -> io::Result<bool> {
    match fcntl(file, libc::F_OFD_SETLK, &mut request(libc::F_WRLCK, byte, 1)) {
        Ok(()) => Ok(true),
        Err(e) if matches!(e.raw_os_error(), Some(libc::EAGAIN | libc::EACCES)) => Ok(false),
        Err(e) => Err(e),
    }
}

/// Unlocks a byte.
pub(super) fn unlock(file: &File, byte: u64) -> io::Result<()> {
    fcntl(file, libc::F_OFD_SETLK, &mut request(libc::F_UNLCK, byte, 1))
}

/// True if another open file description has a byte of the range locked.
pub(super) fn is_locked(file: &File, start: u64, len: u64) -> io::Result<bool> {
    let mut lock = request(libc::F_WRLCK, start, len);
    fcntl(file, libc::F_OFD_GETLK, &mut lock)?;
    Ok(lock.l_type != libc::F_UNLCK as libc::c_short)
}
