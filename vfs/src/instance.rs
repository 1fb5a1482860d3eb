//! The VFS in one SQLite library. A process may hold several of these (its own, a wheel's), so nothing here is global
//! but their list.
#![allow(unsafe_code)]

use crate::api::{Api, Entry};
use crate::config::name_matches;
use crate::process::PerProcess;
use crate::sys::*;
use crate::{sql, vfs};
use std::ffi::{CStr, c_char, c_int};
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Mutex, PoisonError};

/// The name of the VFS.
pub const NAME: &CStr = c"nvlite";

/// The VFS in one SQLite library. Lives for ever, as a registered VFS must.
pub struct Instance {
    /// The library's functions.
    pub api: Api,
    /// Its place in the list: callbacks that get nothing but a `sqlite3_context` are made once for each place.
    pub place: usize,
    /// Its default VFS at registration: everything that is not ours goes there.
    pub base: *mut sqlite3_vfs,
    /// Ours, as it is registered.
    vfs: sqlite3_vfs,
    /// `NVLITE_MATCH`, if ours is the default VFS: the names that are ours.
    only: Option<String>,
}

// SAFETY: `base` and `vfs` are not changed after registration, except for the link that SQLite keeps under its own mutex.
unsafe impl Send for Instance {}
// SAFETY: as above.
unsafe impl Sync for Instance {}

/// Libraries that one process can serve.
pub const MAX_INSTANCES: usize = 4;

/// Those that are registered, from the first place on. Read without a lock, and so in a forked child as in its parent.
static INSTANCES: [AtomicPtr<Instance>; MAX_INSTANCES] =
    [const { AtomicPtr::new(std::ptr::null_mut()) }; MAX_INSTANCES];

fn instances() -> impl Iterator<Item = &'static Instance> {
    (0..).map_while(at)
}

/// The instance in the library of `api`, if there is one; without `api`, the only one.
#[must_use]
pub fn find(api: Option<&Api>) -> Option<&'static Instance> {
    instances().find(|instance| api.is_none_or(|api| instance.api.same_library(api)))
}

/// All instances.
#[must_use]
pub fn all() -> Vec<&'static Instance> {
    instances().collect()
}

/// The instance at a place of the list.
#[must_use]
pub fn at(place: usize) -> Option<&'static Instance> {
    // SAFETY: null, or a leaked instance.
    unsafe { INSTANCES.get(place)?.load(Ordering::Acquire).as_ref() }
}

/// The name under which a VFS of ours answers, as a "system call", what it does with every new connection ([`Entry`]):
/// another copy of this code, of any version, can have it done again.
pub const ENTRY_NAME: &CStr = c"nvlite_on_new_connection";

/// Registers VFS and SQL functions in the library of `api`, and answers what SQLite calls for every new connection from then
/// on. Idempotent; what `sqlite3_shutdown` dropped comes back, also if another copy of this code serves the library: one
/// linked into the program, or one loaded from another file.
///
/// # Errors
/// SQLite's code.
pub fn register(api: Api) -> Result<Entry, c_int> {
    static REGISTERING: PerProcess<Mutex<()>> = PerProcess::new();
    let default = std::env::var("NVLITE_DEFAULT").is_ok_and(|value| value == "1");
    let registering = REGISTERING.get(|_| Mutex::default()).lock().unwrap_or_else(PoisonError::into_inner);
    let known = find(Some(&api));
    let count = instances().count();
    // SAFETY: terminated names; sqlite3_vfs_find initialises SQLite if need be.
    let registered = unsafe { (api.vfs_find)(NAME.as_ptr()) };
    let (vfs, entry, instance): (_, Entry, _) = match known {
        None if !registered.is_null() => {
            // SAFETY: a registered VFS.
            (registered, unsafe { entry_of(registered) }.ok_or(SQLITE_ERROR)?, None)
        }
        None if count == MAX_INSTANCES => return Err(SQLITE_NOMEM),
        known => {
            let instance = match known {
                Some(instance) => instance,
                None => Box::leak(Instance::new(api, default, count)?),
            };
            ((&raw const instance.vfs).cast_mut(), sql::on_new_connection, Some(instance))
        }
    };
    // SAFETY: the VFS lives for ever; registering it again only moves it in SQLite's list. SQLite changes `pNext` alone.
    let code = unsafe { (api.vfs_register)(vfs, c_int::from(default)) };
    if code != SQLITE_OK {
        return Err(code);
    }
    if let Some(new) = instance.filter(|_| known.is_none()) {
        INSTANCES[count].store(std::ptr::from_ref(new).cast_mut(), Ordering::Release);
    }
    drop(registering);
    // SAFETY: the entry point has the signature that SQLite calls; registering it twice is one registration.
    match unsafe { (api.auto_extension)(Some(entry)) } {
        SQLITE_OK => Ok(entry),
        code => Err(code),
    }
}

/// What another copy of this code does with every new connection.
///
/// # Safety
/// `vfs` is a registered VFS.
unsafe fn entry_of(vfs: *mut sqlite3_vfs) -> Option<Entry> {
    // SAFETY: the member exists from version 3 on; under this name only we answer, and with this type.
    unsafe {
        let get = (*vfs).xGetSystemCall.filter(|_| (*vfs).iVersion >= 3)?;
        get(vfs, ENTRY_NAME.as_ptr()).map(|entry| std::mem::transmute::<unsafe extern "C" fn(), Entry>(entry))
    }
}

impl Instance {
    fn new(api: Api, default: bool, place: usize) -> Result<Box<Instance>, c_int> {
        // SAFETY: null asks for the default VFS.
        let base = unsafe { (api.vfs_find)(std::ptr::null()) };
        if base.is_null() {
            return Err(SQLITE_ERROR);
        }
        let only = std::env::var("NVLITE_MATCH").ok().filter(|_| default);
        // SAFETY: a registered VFS.
        let vfs = unsafe { vfs::table(&*base) };
        let mut instance = Box::new(Instance { api, place, base, vfs, only });
        instance.vfs.pAppData = (&raw const *instance).cast_mut().cast();
        Ok(instance)
    }

    /// The instance of a VFS of ours.
    ///
    /// # Safety
    /// `vfs` is the one that [`register`] registered.
    #[must_use]
    pub unsafe fn of(vfs: *mut sqlite3_vfs) -> &'static Instance {
        // SAFETY: pAppData was set to the leaked instance.
        unsafe { &*(*vfs).pAppData.cast::<Instance>() }
    }

    /// True if a database of that name is ours to open. `vfs=nvlite` in the URI always is; the name given to
    /// `sqlite3_open_v2` does not reach xOpen, and cannot be told from the default.
    ///
    /// # Safety
    /// `name` is the pointer that xOpen received.
    #[must_use]
    pub unsafe fn wants(&self, name: sqlite3_filename) -> bool {
        let Some(patterns) = &self.only else { return true };
        // SAFETY: as the caller promises.
        unsafe {
            self.api.parameter(name, c"vfs").is_some_and(|vfs| vfs.as_encoded_bytes() == NAME.to_bytes())
                || name_matches(patterns, &CStr::from_ptr(name).to_string_lossy())
        }
    }

    /// `nvlite/unix`, for `SQLITE_FCNTL_VFSNAME`.
    #[must_use]
    pub fn full_name(&self) -> String {
        // SAFETY: a registered VFS has a terminated name.
        let base = unsafe { CStr::from_ptr((*self.base).zName) };
        format!("{}/{}", NAME.to_string_lossy(), base.to_string_lossy())
    }
}

/// Where an entry point puts its error message.
pub type ErrorText = *mut *mut c_char;
