//! What the recorder writes down.

use nvlite_engine::Site;
use std::cell::Cell;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

/// Number of a medium in its world.
pub type Dev = usize;

/// Number of a thread, from 1 in the order of their first event.
pub type Thread = u32;

/// One thing that happened. Its number in the log, from 1, is its stamp.
#[derive(Clone)]
pub enum Event {
    /// Whole granules were stored, the first of them number `unit`.
    Store {
        /// Where.
        dev: Dev,
        /// First granule.
        unit: u64,
        /// Their values.
        words: Arc<[u64]>,
    },
    /// Lines were flushed (or stored past the caches) by a thread.
    Flush {
        /// Where.
        dev: Dev,
        /// Why.
        site: Site,
        /// Who.
        thread: Thread,
        /// First byte.
        off: u64,
        /// Bytes.
        len: u64,
    },
    /// A thread waited for its flushes.
    Fence {
        /// Where.
        dev: Dev,
        /// Why.
        site: Site,
        /// Who.
        thread: Thread,
    },
    /// Whole sectors were written, the first of them number `unit`; the file is `len` bytes long afterwards.
    Write {
        /// Where.
        dev: Dev,
        /// First sector.
        unit: u64,
        /// Their content.
        bytes: Arc<[u8]>,
        /// Length of the file.
        len: u64,
    },
    /// The file was cut or extended.
    SetLen {
        /// Where.
        dev: Dev,
        /// Length of the file.
        len: u64,
    },
    /// Everything written to the file is persistent.
    Sync {
        /// Where.
        dev: Dev,
        /// Why.
        site: Site,
    },
    /// A sync of the file failed: what was written is in doubt until it is written again, whatever a later sync says.
    SyncFailed {
        /// Where.
        dev: Dev,
    },
    /// An open granule of the crashed medium was read: this is what it holds.
    SawWord {
        /// Where.
        dev: Dev,
        /// The granule.
        unit: u64,
        /// Its value.
        word: u64,
    },
    /// An open sector of the crashed medium was read: this is what it holds.
    SawSector {
        /// Where.
        dev: Dev,
        /// The sector.
        unit: u64,
        /// Its content.
        bytes: Arc<[u8]>,
    },
    /// The length of the crashed file was asked for: this is it.
    SawLen {
        /// Where.
        dev: Dev,
        /// The length.
        len: u64,
    },
    /// The thread is no more, and others can know. On its way out the kernel has waited for its flushes.
    Ended {
        /// Who.
        thread: Thread,
    },
    /// A new, empty medium stands where this one was, durably.
    Renew {
        /// Which.
        dev: Dev,
    },
    /// A transaction with this number is about to be committed: from here on it may survive.
    Submitted(u64),
    /// The transaction was acknowledged as durable: from here on it must survive.
    Acknowledged(u64),
}

impl Event {
    /// True if this makes something persistent.
    pub fn persists(&self) -> bool {
        matches!(self, Event::Fence { .. } | Event::Sync { .. } | Event::Ended { .. } | Event::Renew { .. })
    }

    /// True for the two notes that the workload leaves.
    pub fn is_mark(&self) -> bool {
        matches!(self, Event::Submitted(_) | Event::Acknowledged(_))
    }
}

impl fmt::Display for Event {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Event::Store { dev, unit, words } => write!(f, "{dev}: store {}+{}", unit * 8, words.len() * 8),
            Event::Flush { dev, site, thread, off, len } => write!(f, "{dev}: flush {site:?} by {thread} {off}+{len}"),
            Event::Fence { dev, site, thread } => write!(f, "{dev}: fence {site:?} by {thread}"),
            Event::Write { dev, unit, bytes, len } => {
                write!(f, "{dev}: write {}+{}, now {len}", unit * 512, bytes.len())
            }
            Event::SetLen { dev, len } => write!(f, "{dev}: length {len}"),
            Event::Sync { dev, site } => write!(f, "{dev}: sync {site:?}"),
            Event::SyncFailed { dev } => write!(f, "{dev}: failed sync"),
            Event::SawWord { dev, unit, word } => write!(f, "{dev}: saw at {} {word:#x}", unit * 8),
            Event::SawSector { dev, unit, .. } => write!(f, "{dev}: saw sector at {}", unit * 512),
            Event::SawLen { dev, len } => write!(f, "{dev}: saw length {len}"),
            Event::Ended { thread } => write!(f, "end of {thread}"),
            Event::Renew { dev } => write!(f, "{dev}: new"),
            Event::Submitted(n) => write!(f, "submitted {n}"),
            Event::Acknowledged(n) => write!(f, "acknowledged {n}"),
        }
    }
}

static NEXT: AtomicU32 = AtomicU32::new(1);
thread_local!(static NUMBER: Cell<Thread> = Cell::new(NEXT.fetch_add(1, Ordering::Relaxed)));

/// The calling thread's number.
pub fn this_thread() -> Thread {
    NUMBER.get()
}

/// Does `work` as another thread would: its fences wait for its own flushes only.
pub fn as_another_thread<T>(work: impl FnOnce() -> T) -> T {
    let own = NUMBER.replace(NEXT.fetch_add(1, Ordering::Relaxed));
    let done = work();
    NUMBER.set(own);
    done
}
