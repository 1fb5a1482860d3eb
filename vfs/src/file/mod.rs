//! A connection's main database file: what it asked for, its session in the engine, its lock level.

mod control;
mod io;
mod methods;
mod pragma;
mod sync;

pub(crate) use control::{VISIT, Visit};
pub(crate) use io::MOST_MMAP;
pub use methods::{OurFile, conn_of, install, is_ours};
pub(crate) use pragma::OWN_JOURNAL_MODE;

use crate::base::VfsBase;
use crate::config::Config;
use crate::error::{Failure, Outcome, tell};
use crate::instance::Instance;
use crate::lock::{Level, Step};
use crate::names;
use crate::registry::{self, Key, Lease};
use crate::sys::*;
use nvlite_engine::format::mark::HEADER;
use nvlite_engine::{BaseOpener, Error, Session, Store};
use std::ffi::{CStr, OsString, c_int};
use std::mem::ManuallyDrop;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// What a URI asks for.
pub struct Asked {
    /// The engine's options and how pragmas are answered.
    pub config: Config,
    /// `immutable=1`: one snapshot from open to close.
    pub immutable: bool,
}

impl Asked {
    /// Reads the parameters: `get` answers one of ours, `set` whether one of SQLite's own is set.
    ///
    /// # Errors
    /// A bad value, or `nolock=1`: without locks there is no snapshot and no writer (P14).
    pub fn read(get: impl Fn(&str) -> Option<OsString>, set: impl Fn(&CStr) -> bool) -> Outcome<Asked> {
        if set(c"nolock") {
            return Err(Failure::Told(SQLITE_CANTOPEN, "parameter nolock: nvlite cannot do without locks".into()));
        }
        Ok(Asked { immutable: set(c"immutable"), config: Config::read(get)? })
    }
}

/// The attachment of a connection. Neither ends by itself: [`Conn::detach`] ends the session before its store may, and
/// leaves both alone in a forked child.
struct Link {
    session: ManuallyDrop<Session>,
    lease: ManuallyDrop<Lease>,
}

/// A connection's main database file.
pub struct Conn {
    instance: &'static Instance,
    path: PathBuf,
    asked: Asked,
    read_only: bool,
    link: Option<Link>,
    /// The header as it was at open, for the one read that SQLite sends without a lock.
    header: Option<[u8; HEADER]>,
    level: Level,
    /// Write transactions begun: a journal belongs to one of them.
    transaction: u64,
    /// `PRAGMA journal_mode` is our own and passes.
    own_journal_mode: bool,
    sync: sync::Tracker,
    /// `SQLITE_FCNTL_MMAP_SIZE`.
    mmap_limit: i64,
    /// `SQLITE_FCNTL_LOCK_TIMEOUT`, kept to be answered: waiting is the busy handler's (P11).
    lock_timeout: c_int,
    last_errno: i32,
    /// SQLite's cache of page 1 says what is not stored (P7): it is told to drop its cache at its next look.
    false_header: bool,
    /// A write could not be ordered (P6): nothing more until xUnlock(NONE).
    lock_lost: bool,
    /// A panic was caught: nothing more at all.
    poisoned: bool,
}

impl Conn {
    /// A connection that is not attached yet.
    #[must_use]
    pub fn new(
        instance: &'static Instance,
        path: &Path,
        asked: Asked,
        read_only: bool,
        header: Option<[u8; HEADER]>,
    ) -> Conn {
        Conn {
            instance,
            path: path.to_owned(),
            asked,
            read_only,
            link: None,
            header,
            level: Level::None,
            transaction: 0,
            own_journal_mode: false,
            sync: sync::Tracker::default(),
            mmap_limit: 0,
            lock_timeout: 0,
            last_errno: 0,
            false_header: false,
            lock_lost: false,
            poisoned: false,
        }
    }

    /// The session, attaching first if need be.
    fn session(&mut self) -> Outcome<&mut Session> {
        if self.link.is_none() {
            self.attach()?;
        }
        Ok(&mut self.link.as_mut().expect("attached above").session)
    }

    /// The store, attaching first if need be.
    ///
    /// # Errors
    /// As [`Store::attach`].
    pub fn store(&mut self) -> Outcome<&Arc<Store>> {
        self.session()?;
        Ok(self.link.as_ref().expect("attached above").lease.store())
    }

    /// Makes it a connection that has seen another history (P19).
    #[cfg(test)]
    pub(crate) fn assume_seen_another(&mut self) -> Outcome {
        self.session()?.assume_seen(nvlite_engine::base::Incarnation(0));
        Ok(())
    }

    /// True inside a write transaction.
    #[must_use]
    pub fn is_writing(&self) -> bool {
        self.level >= Level::Reserved || self.link.as_ref().is_some_and(|link| link.session.is_writing())
    }

    /// True if another connection of this process has attached to the database.
    fn is_attached_here(&self) -> Outcome<bool> {
        let identity = self.base().identity()?;
        Ok(identity.is_some_and(|(device, inode)| registry::is_attached(Key { device, inode })))
    }

    fn base(&self) -> VfsBase {
        VfsBase::new(self.instance, &self.path)
    }

    #[cold]
    fn attach(&mut self) -> Outcome {
        let base = Arc::new(self.base());
        let Some((device, inode)) = base.identity()? else {
            return Err(Error::cant_open(&self.path, "the file is gone").into());
        };
        // A connection that only reads still shares an attachment that writes, if the file permits: it may have to recover.
        let read_only = self.read_only && base.open_file()?.is_read_only();
        let options = self.asked.config.options(read_only, self.read_only);
        let lease = || registry::lease(Key { device, inode }, Arc::<VfsBase>::clone(&base), &options);
        // What an interrupted close left is put in order by a first try, which answers Busy.
        let lease = match lease() {
            Err(Error::Busy(_)) => lease()?,
            other => other?,
        };
        let mut session = lease.store().session()?;
        if self.asked.immutable {
            session.begin_read()?;
        }
        // before this, a journal beside the file is the file's own
        names::add(&self.path);
        self.link = Some(Link { session: ManuallyDrop::new(session), lease: ManuallyDrop::new(lease) });
        self.header = None;
        Ok(())
    }

    fn detach(&mut self) -> Outcome {
        let Some(Link { session, lease }) = self.link.take() else { return Ok(()) };
        if lease.is_inherited() {
            // In a forked child both belong to the parent; they are left as they are.
            return Ok(());
        }
        {
            let _session = ManuallyDrop::into_inner(session);
        }
        Ok(ManuallyDrop::into_inner(lease).close()?)
    }

    fn lock(&mut self, to: Level) -> Outcome {
        let step = self.level.raise(to).ok_or(Failure::Code(SQLITE_MISUSE))?;
        match step {
            Step::Pin => self.session()?.begin_read()?,
            Step::Write if self.read_only => return Err(self.refuse_write()),
            Step::Write => {
                self.session()?.begin_write()?;
                self.transaction += 1;
            }
            Step::Nothing | Step::EndWrite | Step::EndRead => {}
        }
        self.level = self.level.max(to);
        Ok(())
    }

    fn unlock(&mut self, to: Level) -> Outcome {
        let step = self.level.lower(to).ok_or(Failure::Code(SQLITE_MISUSE))?;
        if let Some(link) = &mut self.link {
            match step {
                Step::EndWrite => link.session.end_write(),
                Step::EndRead => link.session.end_read(),
                Step::Nothing | Step::Pin | Step::Write => {}
            }
        }
        self.level = self.level.min(to);
        if to == Level::None {
            self.lock_lost = false;
        }
        Ok(())
    }

    fn refuse_write(&self) -> Failure {
        Failure::Engine(Error::ReadOnly { path: self.path.clone(), reason: "opened for reading only".into() })
    }

    /// Tells a failure, remembers it, and answers its code.
    fn report(&mut self, failure: &Failure) -> c_int {
        if !failure.is_ordinary() {
            self.last_errno = failure.codes().1;
        }
        if matches!(failure, Failure::Engine(Error::LockLost)) {
            self.lock_lost = true;
        }
        tell(&self.instance.api, &self.path, failure)
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        if self.link.is_some() {
            names::remove(&self.path);
        }
        if let Err(failure) = self.detach() {
            // Told even if the code alone is an ordinary one: nobody can ask again.
            let text = format!("the close did not finish, the next open will: {}", failure.message());
            self.report(&Failure::Told(failure.codes().0, text));
        }
    }
}
