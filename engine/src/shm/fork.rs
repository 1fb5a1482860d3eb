//! After `fork`: the child can tell, and holds nothing that keeps a dead parent looking alive (P13).

use crate::base::{Error, Result};
use rustix::mm::{Advice, MapFlags, ProtFlags};
use std::fs::{File, OpenOptions};
use std::mem::ManuallyDrop;
use std::ops::Deref;
use std::os::fd::{AsRawFd, RawFd};
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
// Process-private, so never part of a model.
use std::sync::atomic::{AtomicI32, AtomicU32, Ordering};

/// Knows the process it was made in.
#[derive(Clone, Debug)]
pub struct ForkGuard {
    page: &'static AtomicU32,
    process: u32,
}

/// A word that the kernel zeroes in a child (`MADV_WIPEONFORK`): the number of this process among its ancestors, or 0.
static PAGE: OnceLock<&'static AtomicU32> = OnceLock::new();
/// The last number given out here or in an ancestor. Not wiped, so a child's numbers are new ones.
static PROCESSES: AtomicU32 = AtomicU32::new(0);

impl ForkGuard {
    /// A guard for this process.
    ///
    /// # Errors
    /// If the kernel has no page for it.
    pub fn new() -> Result<ForkGuard> {
        let page = match PAGE.get() {
            Some(page) => page,
            None => {
                let page = wiped_page()?;
                arm()?;
                // Of two threads here at once, one leaks its page.
                PAGE.get_or_init(|| page)
            }
        };
        let fresh = PROCESSES.fetch_add(1, Ordering::Relaxed) + 1;
        let process = page.compare_exchange(0, fresh, Ordering::Relaxed, Ordering::Relaxed);
        Ok(ForkGuard { page, process: process.map_or_else(|there| there, |_| fresh) })
    }

    /// True in a child of the process that made the guard. One load.
    #[inline]
    pub fn in_child(&self) -> bool {
        self.page.load(Ordering::Relaxed) != self.process
    }
}

fn wiped_page() -> Result<&'static AtomicU32> {
    let len = rustix::param::page_size();
    let (prot, flags) = (ProtFlags::READ | ProtFlags::WRITE, MapFlags::PRIVATE);
    let failed = |e: rustix::io::Errno| Error::io(Path::new("(memory)"), "map a page", e.into());
    // SAFETY: a new anonymous mapping where the kernel likes; it touches no other.
    let page = unsafe { rustix::mm::mmap_anonymous(std::ptr::null_mut(), len, prot, flags) }.map_err(failed)?;
    // SAFETY: advice for the page just mapped; it has no content yet. Where the kernel does not know it (before 4.14), the
    // handler of `arm` zeroes the word, and only a raw clone() goes unnoticed.
    let _ = unsafe { rustix::mm::madvise(page, len, Advice::LinuxWipeOnFork) };
    // SAFETY: mapped for good, page-aligned, zeroed, and reached through this reference only.
    Ok(unsafe { &*page.cast::<AtomicU32>() })
}

/// Descriptors + 1 that a child must not keep; 0 is an empty place.
static KEPT: [AtomicI32; 4096] = [const { AtomicI32::new(0) }; 4096];
/// 1 while a thread changes [`KEPT`], opens or closes such a descriptor, or forks: the table tells a child the truth.
static LOCK: AtomicU32 = AtomicU32::new(0);

struct Locked;

impl Locked {
    fn take() -> Locked {
        lock();
        Locked
    }
}

impl Drop for Locked {
    fn drop(&mut self) {
        LOCK.store(0, Ordering::Release);
    }
}

fn lock() {
    while LOCK.compare_exchange_weak(0, 1, Ordering::Acquire, Ordering::Relaxed).is_err() {
        std::thread::yield_now();
    }
}

extern "C" fn before_fork() {
    lock();
}

extern "C" fn after_fork_in_parent() {
    LOCK.store(0, Ordering::Release);
}

/// Only async-signal-safe calls: the parent may have had other threads.
extern "C" fn after_fork_in_child() {
    if let Some(page) = PAGE.get() {
        page.store(0, Ordering::Relaxed);
    }
    // SAFETY: no memory is involved.
    let harmless = unsafe { libc::eventfd(0, libc::EFD_CLOEXEC) };
    for kept in &KEPT {
        let fd = kept.swap(0, Ordering::Relaxed) - 1;
        if fd >= 0 {
            // Not closed but replaced: the child's copy of the owner will close this number one day, which must still be its own.
            // SAFETY: no memory is involved; the number is that of a PrivateFile, whose owner cannot run here but to close it.
            unsafe { if harmless >= 0 { libc::dup3(harmless, fd, libc::O_CLOEXEC) } else { libc::close(fd) } };
        }
    }
    if harmless >= 0 {
        // SAFETY: opened above and known to nobody else.
        unsafe { libc::close(harmless) };
    }
    LOCK.store(0, Ordering::Release);
}

/// Installs the handlers, once in this process and its descendants.
fn arm() -> Result<()> {
    static ARMED: OnceLock<i32> = OnceLock::new();
    let code = *ARMED.get_or_init(|| {
        // SAFETY: functions that live as long as the library, which must never be unloaded while it has files open.
        unsafe { libc::pthread_atfork(Some(before_fork), Some(after_fork_in_parent), Some(after_fork_in_child)) }
    });
    let failed =
        |code| Error::io(Path::new("(memory)"), "install a fork handler", std::io::Error::from_raw_os_error(code));
    if code == 0 { Ok(()) } else { Err(failed(code)) }
}

/// An open file description that belongs to this process alone: a forked child loses it, so that its locks end with us.
/// (Between `vfork` and `exec` a child still has it; O_CLOEXEC ends that.)
#[derive(Debug)]
pub(super) struct PrivateFile(ManuallyDrop<File>);

impl PrivateFile {
    /// Opens the file again that `file` is: a description of its own, opened where no fork can come in between.
    pub fn reopen(file: &File) -> Result<PrivateFile> {
        arm()?;
        let _locked = Locked::take();
        let failed = |e| Error::io(&name_of(file), "open again", e);
        let opened = OpenOptions::new().read(true).write(true).open(link_to(file));
        // Without /proc, or the right to open it again: a copy of the description, which must then not be anyone else's.
        let file = opened.or_else(|_| file.try_clone()).map_err(failed)?;
        let fd = file.as_raw_fd();
        let place = KEPT.iter().find(|kept| kept.load(Ordering::Relaxed) == 0);
        let Some(place) = place else { return Err(failed(std::io::Error::from_raw_os_error(libc::EMFILE))) };
        place.store(fd + 1, Ordering::Relaxed);
        Ok(PrivateFile(ManuallyDrop::new(file)))
    }

    /// Its name, for messages.
    pub fn name(&self) -> PathBuf {
        name_of(&self.0)
    }
}

/// Where the kernel shows the file.
fn link_to(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// The file's name as the kernel knows it.
fn name_of(file: &File) -> PathBuf {
    let link = link_to(file);
    std::fs::read_link(&link).unwrap_or(link)
}

impl Deref for PrivateFile {
    type Target = File;

    fn deref(&self) -> &File {
        &self.0
    }
}

impl Drop for PrivateFile {
    fn drop(&mut self) {
        let _locked = Locked::take();
        let fd: RawFd = self.0.as_raw_fd();
        if let Some(place) = KEPT.iter().find(|kept| kept.load(Ordering::Relaxed) == fd + 1) {
            place.store(0, Ordering::Relaxed);
        }
        // SAFETY: dropped once, here, and not used afterwards.
        unsafe { ManuallyDrop::drop(&mut self.0) };
    }
}
