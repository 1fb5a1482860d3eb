//! Who is attached, and who of those lives: asked of the kernel, which lets a lock go when its holder dies, however it dies (P13).

use super::fork::PrivateFile;
use super::ofd;
use crate::base::limits::MAX_ATTACHMENTS;
use crate::base::{Error, Result};
use std::fmt;
use std::fs::File;
use std::sync::{Arc, Once};
use std::time::{Duration, Instant};

/// Where the lock bytes of the region file begin, far behind any data. Byte 0 is the attach lock, byte n attachment n's.
pub const LOCK_BASE: u64 = 1 << 62;

/// Number of an attachment, from 1. A number is used again when its attachment has ended; see
/// [`Slots::inherit`](super::Slots::inherit).
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug)]
pub struct AttachmentNo(pub u32);

impl fmt::Display for AttachmentNo {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

type Oracle = Arc<dyn Fn(AttachmentNo) -> bool + Send + Sync>;

enum Source {
    /// Lock bytes of this file.
    Kernel(PrivateFile),
    /// Whoever made us.
    Told(Oracle),
}

/// One process's attachment, alive as long as this is.
pub struct Liveness {
    own: AttachmentNo,
    source: Source,
    inherited: Once,
}

impl Liveness {
    /// Attaches: takes the first free lock byte of the region file, through a descriptor of our own that a forked child loses.
    ///
    /// # Errors
    /// `CantOpen` if all are taken.
    pub fn join(file: File) -> Result<Liveness> {
        let file = PrivateFile::reopen(&file)?;
        for no in 1..=MAX_ATTACHMENTS {
            if ofd::try_lock(&file, LOCK_BASE + u64::from(no)).map_err(|e| Error::io(&file.name(), "lock", e))? {
                return Ok(Self::new(AttachmentNo(no), Source::Kernel(file)));
            }
        }
        Err(Error::cant_open(&file.name(), format!("it has {MAX_ATTACHMENTS} attachments already, the most possible")))
    }

    /// An attachment without a file, as if alone: for tests and the simulator.
    #[must_use]
    pub fn solo() -> Liveness {
        Self::solo_as(AttachmentNo(1), Arc::new(|_| false))
    }

    /// An attachment without a file that is told which others are alive.
    #[must_use]
    pub fn solo_as(own: AttachmentNo, alive: Oracle) -> Liveness {
        Self::new(own, Source::Told(alive))
    }

    fn new(own: AttachmentNo, source: Source) -> Liveness {
        Liveness { own, source, inherited: Once::new() }
    }

    /// Our number.
    pub fn own(&self) -> AttachmentNo {
        self.own
    }

    /// True unless the attachment has certainly ended. Once false for what a slot names, it stays so. A system call for any but our own.
    pub fn is_alive(&self, no: AttachmentNo) -> bool {
        if no == self.own {
            return true;
        }
        match &self.source {
            Source::Kernel(_) if !(1..=MAX_ATTACHMENTS).contains(&no.0) => false,
            // In doubt alive: to wait in vain is mended, two holders of one lock are not.
            Source::Kernel(file) => ofd::is_locked(file, LOCK_BASE + u64::from(no.0), 1).unwrap_or(true),
            Source::Told(alive) => alive(no),
        }
    }

    /// True if any other attachment lives.
    pub fn anyone_else(&self) -> bool {
        match &self.source {
            Source::Kernel(file) => anyone_attached(file).unwrap_or(true),
            Source::Told(alive) => (1..=MAX_ATTACHMENTS).map(AttachmentNo).any(|no| no != self.own && alive(no)),
        }
    }

    /// Runs `f` the first time.
    pub(super) fn once(&self, f: impl FnOnce()) {
        self.inherited.call_once(f);
    }
}

/// True if anybody is attached to the region file, but for who is through this very description of it.
///
/// # Errors
/// The kernel's.
pub fn anyone_attached(file: &File) -> std::io::Result<bool> {
    ofd::is_locked(file, LOCK_BASE + 1, u64::from(MAX_ATTACHMENTS))
}

impl Drop for Liveness {
    fn drop(&mut self) {
        // Closing is not enough: a child between vfork and exec has the description, too, and who attaches meanwhile would
        // take us for alive. In a forked child it is not ours any more.
        if let Source::Kernel(file) = &self.source {
            let _ = ofd::unlock(file, LOCK_BASE + u64::from(self.own.0));
        }
    }
}

impl fmt::Debug for Liveness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Liveness({})", self.own)
    }
}

/// The lock under which attaching, detaching and recovery run. Given back on drop, and when the process dies.
#[derive(Debug)]
pub struct AttachLock {
    file: PrivateFile,
}

impl AttachLock {
    /// Takes the lock on the region file, asking again for up to `timeout`.
    ///
    /// # Errors
    /// `Busy` if another process has it all that time.
    pub fn take(file: &File, timeout: Duration) -> Result<AttachLock> {
        let file = PrivateFile::reopen(file)?;
        let deadline = Instant::now() + timeout;
        let mut pause = Duration::from_micros(500);
        loop {
            if ofd::try_lock(&file, LOCK_BASE).map_err(|e| Error::io(&file.name(), "lock", e))? {
                return Ok(AttachLock { file });
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Err(Error::Busy("another process is attaching, detaching or recovering"));
            }
            std::thread::sleep(pause.min(left));
            pause = (pause * 2).min(Duration::from_millis(10));
        }
    }
}

impl Drop for AttachLock {
    fn drop(&mut self) {
        // Closing would do, were the description not shared (see PrivateFile::reopen). In a forked child it is not ours any more.
        let _ = ofd::unlock(&self.file, LOCK_BASE);
    }
}
