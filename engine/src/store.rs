//! What a VFS sees. A [`Store`] is one process's attachment to one database; a [`Session`] is one connection.

use crate::assemble::{self, Parts};
use crate::attach::{self, Attached};
use crate::base::{Error, Jci, MediumKind, RegionId, Result};
use crate::engine::Engine;
pub use crate::inspect::{
    Inspection, LogInspection, inspect, inspect_region, is_attached, missing_region, region_path,
};
use crate::keeper::Keeper;
use crate::medium::BaseOpener;
use crate::refusal;
pub use crate::session::Session;
pub use crate::shm::ForkGuard;
pub use crate::stats::medium_name;
pub use crate::verify::{Damage, DamagedPlace, Remedy};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often to begin anew after something in the way of an attachment was put out of it.
const ATTEMPTS: u32 = 4;

/// How to open a database. Values that conflict with those of processes already attached are an error that says so.
#[derive(Clone, Debug)]
pub struct Options {
    /// The medium, or `None` to detect it: `dax` where `MAP_SYNC` succeeds, else `file`.
    pub medium: Option<MediumKind>,
    /// Where region and cold file go; `None` is beside the base file.
    pub region_dir: Option<PathBuf>,
    /// Fast-tier budget of a new region, bytes. One that is there keeps its own, which is no conflict.
    pub region: u64,
    /// Keep region and mark over the last close instead of writing everything home, whoever closes last.
    pub keep_region: bool,
    /// Open to look only, with no wish of one's own about the last close: it is as those wish who have the database open, too.
    /// Were there none, it is left as it was found.
    pub only_looks: bool,
    /// Open without the right to write.
    pub read_only: bool,
    /// Take a stock file over. Who only reads a database leaves it as it is.
    pub adopt: bool,
}

impl Default for Options {
    fn default() -> Options {
        let region = crate::base::limits::DEFAULT_REGION;
        Options {
            medium: None,
            region_dir: None,
            region,
            keep_region: false,
            only_looks: false,
            read_only: false,
            adopt: true,
        }
    }
}

/// How long a commit waits.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Durability {
    /// `synchronous=OFF` and `NORMAL`: survives the death of all processes.
    Process,
    /// `synchronous=FULL` and `EXTRA`: survives what the medium promises.
    Full,
}

/// A row of `nvlite_stat`.
#[derive(Clone, Debug)]
pub struct Stat {
    /// Its name, `snake_case`.
    pub name: &'static str,
    /// Its value.
    pub value: StatValue,
}

/// The value of a [`Stat`].
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StatValue {
    /// A count or a position.
    Int(u64),
    /// A word.
    Text(String),
}

/// How the store came to its engine.
enum Held {
    /// By its files.
    Attached(Box<Attached>),
    /// From parts, by a test.
    Assembled(Box<Engine>),
}

/// One process's attachment to one database. Dropping the last one in the machine closes the database cleanly.
pub struct Store {
    /// Some until closed.
    held: Option<Held>,
    options: Options,
    keeper: Mutex<Option<Keeper>>,
}

impl Store {
    /// Lets a region that failed go on. For the simulator, which plays the death of a process by unwinding: to the engine that
    /// is a defect in the middle of a change.
    #[doc(hidden)]
    pub fn forget_failure(&self) {
        self.engine().shared.head().failed.store(0, crate::base::sync::Ordering::SeqCst);
    }

    /// What is wrong with the structures of the mapping, which no call would tell. For tests of what is done after a death.
    ///
    /// # Errors
    /// `Busy` while somebody writes; what [`Session::begin_write`] tells of a repair.
    #[doc(hidden)]
    pub fn audit(&self) -> Result<Vec<String>> {
        let engine = self.engine();
        if !engine.hold_past_maintenance(engine.maintainer)? {
            return Err(Error::Busy("another connection is writing"));
        }
        let wrong = engine.pages.audit();
        engine.shared.head().writer.release(engine.shared.slots(), engine.maintainer);
        Ok(wrong)
    }

    /// Does once what an attachment's own thread does from time to time (`file`). For tests of its death, with which
    /// nothing is cleaned up.
    ///
    /// # Errors
    /// Of the media.
    #[doc(hidden)]
    pub fn keep_once(self: &Arc<Self>) -> Result<()> {
        crate::keeper::once(self)
    }

    /// Attaches: recovers the region if nobody is attached, adopts a stock base file if it is unmarked.
    ///
    /// # Errors
    /// `Busy` while another process attaches, detaches or holds stock SQLite's lock; `CantOpen`, `Corrupt` and `Foreign` as
    /// P13 and P14 say.
    pub fn attach(base: Arc<dyn BaseOpener>, options: &Options) -> Result<Arc<Store>> {
        let attempt = |_| attach::attach(base.clone(), options).transpose();
        let attached = (0..ATTEMPTS).find_map(attempt);
        let attached = attached.ok_or(Error::Busy("side files of other databases are in the way"))??;
        attached.engine.wish(options);
        Ok(Arc::new_cyclic(|store| Store {
            keeper: Mutex::new(Keeper::start(&attached.engine, store.clone())),
            held: Some(Held::Attached(Box::new(attached))),
            options: options.clone(),
        }))
    }

    /// Notes what another connection of this process, which asks for `options`, wishes about the last close.
    pub fn wish(&self, options: &Options) {
        self.engine().wish(options);
    }

    /// A store over parts of the caller's own: recovers the region if it has content, else formats it and adopts the base.
    /// No thread is started, and nothing is written when it is dropped: as if the process had died.
    ///
    /// # Errors
    /// As [`attach`](Self::attach).
    pub fn assemble(parts: Parts) -> Result<Arc<Store>> {
        let engine = assemble::from_parts(parts)?;
        Ok(Arc::new(Store {
            held: Some(Held::Assembled(Box::new(engine))),
            options: Options::default(),
            keeper: Mutex::new(None),
        }))
    }

    /// Another store over parts of the caller's own, whose mapping one from [`assemble`](Self::assemble) filled and is
    /// using: as another process is attached. Each has a [`Liveness`](crate::shm::Liveness) of its own number.
    ///
    /// # Errors
    /// Of the media.
    pub fn assemble_beside(parts: Parts) -> Result<Arc<Store>> {
        let superblock = parts.region.superblock()?;
        let engine = Engine::join(parts, &superblock)?;
        Ok(Arc::new(Store {
            held: Some(Held::Assembled(Box::new(engine))),
            options: Options::default(),
            keeper: Mutex::new(None),
        }))
    }

    pub(crate) fn engine(&self) -> &Engine {
        match &self.held {
            Some(Held::Attached(attached)) => &attached.engine,
            Some(Held::Assembled(engine)) => engine,
            None => unreachable!("a store is closed by its last owner"),
        }
    }

    pub(crate) fn check_writable(&self) -> Result<()> {
        if self.options.read_only {
            let path = self.engine().base.path().to_owned();
            return Err(Error::ReadOnly { path, reason: "it was opened read-only".into() });
        }
        Ok(())
    }

    /// Whether a transaction of so many bytes of differences and pages goes on in shadow blocks.
    pub(crate) fn too_large(&self, bytes: usize, pages: usize) -> bool {
        let engine = self.engine();
        let ring = engine.layout.ring_slots * crate::format::journal::SLOT as u64;
        let most = engine.pages.geometry().map_or(u32::MAX, |_| engine.pages.most_blocks()) / 4;
        bytes as u64 > (ring / 8).min(1 << 20) || pages > most as usize
    }

    /// Tells the keeper that there may be something to retire.
    pub(crate) fn committed(&self) {
        if self.engine().mapped() {
            return; // there is none
        }
        if let Some(keeper) = self.keeper().as_ref() {
            keeper.nudge(self.engine());
        }
    }

    fn keeper(&self) -> MutexGuard<'_, Option<Keeper>> {
        self.keeper.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn stop_keeper(&self) {
        let keeper = self.keeper().take();
        if let Some(keeper) = keeper {
            keeper.stop(self.engine().forked());
        }
    }

    /// A new connection.
    ///
    /// # Errors
    /// `CantOpen` if all slots are taken; `Full` if there is no room for one.
    pub fn session(self: &Arc<Self>) -> Result<Session> {
        Session::new(self.clone())
    }

    /// The region's identity, which the mark in the base file names.
    #[must_use]
    pub fn region_id(&self) -> RegionId {
        self.engine().id
    }

    /// The path of the base file's region, for messages.
    #[must_use]
    pub fn region_path(&self) -> PathBuf {
        self.engine().region.path().to_owned()
    }

    /// The medium that was chosen.
    #[must_use]
    pub fn medium(&self) -> MediumKind {
        self.engine().region.kind()
    }

    /// All figures.
    #[must_use]
    pub fn stats(&self) -> Vec<Stat> {
        self.engine().stats()
    }

    /// Makes everything committed durable and writes homes as far as readers allow: `nvlite_checkpoint()`. Answers the
    /// durable JCI and the low-water mark.
    ///
    /// # Errors
    /// Of the media.
    pub fn checkpoint(self: &Arc<Self>) -> Result<(Jci, Jci)> {
        self.session()?.checkpoint()
    }

    /// Writes everything home and leaves a complete stock file, as the last detach does: for a store from parts.
    ///
    /// # Errors
    /// Of the media.
    pub fn finish(&self) -> Result<bool> {
        self.engine().finish_all()
    }

    /// Detaches. The last attachment writes homes, unmarks the base and removes the side files, unless asked to keep them.
    /// Dropping the last `Arc` does the same but cannot tell an error.
    ///
    /// # Errors
    /// Of the media; `Busy` if connections are still open.
    pub fn close(self: Arc<Self>) -> Result<()> {
        // the keeper borrows the store for each of its turns: with it stopped, whoever else has the store is a connection
        self.stop_keeper();
        match Arc::try_unwrap(self) {
            Ok(mut store) => store.detach(),
            Err(store) => {
                let weak = Arc::downgrade(&store);
                *store.keeper() = Keeper::start(store.engine(), weak);
                Err(Error::Busy("connections are still open"))
            }
        }
    }

    fn detach(&mut self) -> Result<()> {
        self.stop_keeper();
        match self.held.take() {
            Some(Held::Attached(attached)) => attached.detach(),
            Some(Held::Assembled(_)) | None => Ok(()),
        }
    }
}

impl Drop for Store {
    fn drop(&mut self) {
        if let Err(error) = self.detach() {
            tracing::error!(%error, "the database was not closed cleanly; the next open recovers it");
        }
    }
}

/// xSleep: if this thread's connection was refused at RESERVED and nothing was served to it since, waits in the writer queue
/// and returns early when granted (P11); else sleeps. Answers the time asked.
pub fn sleep(time: Duration) -> Duration {
    refusal::sleep(time);
    time
}

/// Clears the refusal that [`sleep`] would act on: `vfs` calls this when SQLite opens, deletes or looks for a file, which it
/// never does between a refusal and the busy handler. A [`Session`] clears its thread's when it pins or gets the writer
/// lock, and its own when it ends.
pub fn forget_refusal() {
    refusal::forget();
}
