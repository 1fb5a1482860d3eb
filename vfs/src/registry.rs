//! One [`Store`] per database and process, shared by its connections: attached with the first, closed with the last.

use crate::process::PerProcess;
use nvlite_engine::format::mark::{self, HEADER};
use nvlite_engine::store::medium_name;
use nvlite_engine::{BaseOpener, Error, Options, Result, Store};
use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// What makes two names the same database.
#[derive(Clone, Copy, PartialEq, Eq, Hash, Debug)]
pub struct Key {
    /// Device of the base file.
    pub device: u64,
    /// Inode of the base file.
    pub inode: u64,
}

/// A database of this process. Its lock is held over attach and close, so that a connection that comes in the middle
/// of either waits for its end.
#[derive(Default)]
struct Slot {
    state: Mutex<Attached>,
}

#[derive(Default)]
struct Attached {
    store: Option<Arc<Store>>,
    users: usize,
}

impl Slot {
    /// One more share in its store.
    fn share(&self, base: Arc<dyn BaseOpener>, options: &Options) -> Result<Arc<Store>> {
        let mut state = lock(&self.state);
        let store = match &state.store {
            Some(store) => {
                agree(store, base.as_ref(), options)?;
                store.wish(options);
                Arc::clone(store)
            }
            None => attach(base, options)?,
        };
        state.store = Some(Arc::clone(&store));
        state.users += 1;
        Ok(store)
    }
}

type Slots = Mutex<HashMap<Key, Arc<Slot>>>;

/// The slots of this process. A forked child starts with none: the parent's stores are not its own.
fn slots() -> MutexGuard<'static, HashMap<Key, Arc<Slot>>> {
    static SLOTS: PerProcess<Slots> = PerProcess::new();
    lock(SLOTS.get(|_| Slots::default()))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// One connection's share in a [`Store`].
pub struct Lease {
    key: Key,
    slot: Arc<Slot>,
    store: Option<Arc<Store>>,
    process: u32,
}

impl Lease {
    /// The store.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        self.store.as_ref().expect("a lease has its store until it is dropped")
    }

    /// True in a child that inherited the lease by fork.
    #[must_use]
    pub fn is_inherited(&self) -> bool {
        self.process != std::process::id()
    }

    /// Gives the share back; the last one closes the store.
    ///
    /// # Errors
    /// What [`Store::close`] answers.
    pub fn close(mut self) -> Result<()> {
        self.give_back()
    }

    fn give_back(&mut self) -> Result<()> {
        let Some(store) = self.store.take() else { return Ok(()) };
        if self.is_inherited() {
            // The parent's: whatever its end would do to the files is the parent's to do.
            std::mem::forget(store);
            return Ok(());
        }
        let mut state = lock(&self.slot.state);
        state.users -= 1;
        drop(store);
        let result = match state.users {
            0 => state.store.take().map_or(Ok(()), close_when_alone),
            _ => Ok(()),
        };
        drop(state);
        self.forget_slot();
        result
    }

    /// Takes an unused slot out of the map, unless somebody else is on the way to it.
    fn forget_slot(&self) {
        let mut slots = slots();
        let unused = |slot: &Arc<Slot>| Arc::strong_count(slot) == 2 && lock(&slot.state).users == 0;
        if slots.get(&self.key).is_some_and(|slot| Arc::ptr_eq(slot, &self.slot) && unused(slot)) {
            slots.remove(&self.key);
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // Errors are told by those who call `close`.
        let _ = self.give_back();
    }
}

/// True if this process is attached to the database and is not in the middle of attaching or closing.
#[must_use]
pub fn is_attached(key: Key) -> bool {
    let slot = slots().get(&key).cloned();
    slot.is_some_and(|slot| slot.state.try_lock().is_ok_and(|state| state.store.is_some()))
}

/// A share in the store of `key`, attaching if this process is not attached yet.
///
/// # Errors
/// What [`Store::attach`] answers, and options that contradict those of the attachment.
pub fn lease(key: Key, base: Arc<dyn BaseOpener>, options: &Options) -> Result<Lease> {
    let slot = Arc::clone(slots().entry(key).or_default());
    let mut lease = Lease { key, slot, store: None, process: std::process::id() };
    match lease.slot.share(base, options) {
        Ok(store) => {
            lease.store = Some(store);
            Ok(lease)
        }
        Err(error) => {
            lease.forget_slot();
            Err(error)
        }
    }
}

/// Attaches, and makes sure that the region is this file's: while a process has a database open, another file may be put in
/// its place, beside which the region of the old one still stands.
fn attach(base: Arc<dyn BaseOpener>, options: &Options) -> Result<Arc<Store>> {
    let store = Store::attach(Arc::clone(&base), options)?;
    let mut header = [0; HEADER];
    base.open()?.read_at(0, &mut header)?;
    if mark::identity(&header) != Some(store.region_id()) {
        let reason = "its region belongs to another file of this name that is still open: close that one first";
        return Err(Error::cant_open(base.path(), reason));
    }
    Ok(store)
}

/// Closes a store as soon as nobody else has it: a thread of the engine may have taken hold of it for a moment.
fn close_when_alone(store: Arc<Store>) -> Result<()> {
    let start = Instant::now();
    while Arc::strong_count(&store) > 1 && start.elapsed() < Duration::from_secs(2) {
        std::thread::sleep(Duration::from_micros(100));
    }
    store.close()
}

/// What a later connection asks for must be what the first one got.
fn agree(store: &Store, base: &dyn BaseOpener, options: &Options) -> Result<()> {
    if let Some(asked) = options.medium.filter(|asked| *asked != store.medium()) {
        let reason =
            format!("open in this process with medium={}, not {}", medium_name(store.medium()), medium_name(asked));
        return Err(Error::cant_open(base.path(), reason));
    }
    let canonical = |path: PathBuf| path.canonicalize().unwrap_or(path);
    let region = store.region_path();
    let place = canonical(region.parent().map(PathBuf::from).unwrap_or_default());
    if let Some(asked) = options.region_dir.clone().map(canonical).filter(|asked| *asked != place) {
        let reason = format!("open in this process with region_dir={}, not {}", place.display(), asked.display());
        return Err(Error::cant_open(base.path(), reason));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use nvlite_engine::BaseFile;
    use std::path::Path;

    /// The base file of no database.
    struct Nothing;

    impl BaseOpener for Nothing {
        fn path(&self) -> &Path {
            Path::new("/nothing.db")
        }
        fn open(&self) -> Result<Box<dyn BaseFile>> {
            Err(Error::cant_open(self.path(), "there is none"))
        }
        fn recover_stock(&self) -> Result<()> {
            Ok(())
        }
        fn identity(&self) -> Result<Option<(u64, u64)>> {
            Ok(None)
        }
    }

    #[test]
    fn what_cannot_be_attached_to_leaves_nothing_in_the_registry() {
        let key = Key { device: u64::MAX, inode: u64::MAX };
        for _ in 0..2 {
            assert!(lease(key, Arc::new(Nothing), &Options::default()).is_err());
            assert!(!slots().contains_key(&key));
        }
    }
}
