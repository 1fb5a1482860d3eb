//! Which system calls change files, and whose.

use super::Place;
use super::trace::Call;
use std::path::PathBuf;

/// What a call is about to do, or has done.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Change {
    /// Opens this path, and makes it if it is missing.
    Create(PathBuf),
    /// Writes so many bytes through this descriptor, to this place.
    Write(u64, u64, usize),
    /// Cuts or extends.
    SetLen(u64, u64),
    /// Makes room up to here.
    Allocate(u64, u64),
    /// Makes a file or a directory durable.
    Sync(u64),
    /// Gives another name.
    Rename(PathBuf, PathBuf),
    /// Takes a name away.
    Unlink(PathBuf),
    /// Says something to the parent.
    Say(usize),
    /// Anything else that changes something, or maps it.
    Other,
}

/// What `call` does to files; `None` if nothing.
pub fn change(call: &Call) -> Option<Change> {
    let a = call.args;
    let path = |arg| call.path(arg).unwrap_or_default();
    let created = |flags: u64, arg| (flags as i32 & libc::O_CREAT != 0).then(|| Change::Create(path(arg)));
    match call.number {
        libc::SYS_open => created(a[1], 0),
        libc::SYS_openat => created(a[2], 1),
        libc::SYS_creat => Some(Change::Create(path(0))),
        libc::SYS_write if a[0] == 1 => Some(Change::Say(a[2] as usize)),
        libc::SYS_write => Some(Change::Write(a[0], call.position(a[0])?, a[2] as usize)),
        libc::SYS_pwrite64 => Some(Change::Write(a[0], a[3], a[2] as usize)),
        libc::SYS_ftruncate => Some(Change::SetLen(a[0], a[1])),
        libc::SYS_fallocate if a[1] == 0 => Some(Change::Allocate(a[0], a[2] + a[3])),
        libc::SYS_fsync | libc::SYS_fdatasync => Some(Change::Sync(a[0])),
        libc::SYS_rename => Some(Change::Rename(path(0), path(1))),
        libc::SYS_renameat | libc::SYS_renameat2 => Some(Change::Rename(path(1), path(3))),
        libc::SYS_unlink => Some(Change::Unlink(path(0))),
        libc::SYS_unlinkat => Some(Change::Unlink(path(1))),
        libc::SYS_mmap if a[3] & libc::MAP_SHARED as u64 != 0 && a[4] as i32 >= 0 => Some(Change::Other),
        libc::SYS_fallocate
        | libc::SYS_truncate
        | libc::SYS_writev
        | libc::SYS_pwritev
        | libc::SYS_pwritev2
        | libc::SYS_link
        | libc::SYS_linkat
        | libc::SYS_symlink
        | libc::SYS_mkdir
        | libc::SYS_rmdir
        | libc::SYS_msync
        | libc::SYS_sync_file_range
        | libc::SYS_chmod
        | libc::SYS_fchmod
        | libc::SYS_fchown
        | libc::SYS_copy_file_range
        | libc::SYS_sendfile => Some(Change::Other),
        _ => None,
    }
}

/// Counts the stops before and after calls that change something, from the child's first word on.
#[derive(Default)]
pub struct Counter {
    begun: bool,
    /// Stops so far.
    pub stops: usize,
}

impl Counter {
    /// True if this stop counts.
    pub fn counts(&mut self, call: &Call) -> bool {
        let Some(change) = change(call) else { return false };
        let counts = self.begun;
        self.begun |= matches!(change, Change::Say(_)) && call.result.is_some();
        self.stops += usize::from(counts);
        counts
    }
}

/// A call in words, for people.
pub fn describe(call: &Call, place: &Place) -> String {
    let of = |fd: &u64| call.file(*fd).map_or("?".to_owned(), |(path, _)| path.display().to_string());
    let what = match change(call) {
        None => format!("call {}", call.number),
        Some(Change::Create(path)) => format!("open {}", path.display()),
        Some(Change::Write(fd, at, len)) => format!("write {}, {len} at {at}", of(&fd)),
        Some(Change::SetLen(fd, len)) => format!("cut {} to {len}", of(&fd)),
        Some(Change::Allocate(fd, end)) => format!("allocate {} to {end}", of(&fd)),
        Some(Change::Sync(fd)) => format!("sync {}", of(&fd)),
        Some(Change::Rename(from, to)) => format!("rename {} to {}", from.display(), to.display()),
        Some(Change::Unlink(path)) => format!("unlink {}", path.display()),
        Some(Change::Say(_)) => "say".to_owned(),
        Some(Change::Other) => format!("call {} on {}", call.number, of(&call.args[0])),
    };
    let what = what.replace(&format!("{}/", place.scratch.path("").display()).replace("//", "/"), "");
    format!("{} {what}", if call.result.is_some() { "after" } else { "before" })
}
