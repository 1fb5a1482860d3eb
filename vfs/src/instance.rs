//! The VFS in one SQLite library. A process may hold several of these (its own, a wheel's), so nothing here is global
//! but their list.
#![allow(unsafe_code)]

use crate::api::Api;
use crate::config::name_matches;
use crate::sys::*;
use crate::{sql, vfs};
use std::ffi::{CStr, c_char, c_int};
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

static INSTANCES: Mutex<Vec<&'static Instance>> = Mutex::new(Vec::new());

/// The instance in the library of `api`, if there is one; without `api`, the only one.
#[must_use]
pub fn find(api: Option<&Api>) -> Option<&'static Instance> {
    let instances = INSTANCES.lock().unwrap_or_else(PoisonError::into_inner);
    match api {
        Some(api) => instances.iter().find(|instance| instance.api.same_library(api)).copied(),
        None => instances.first().copied(),
    }
}

/// The instance at a place of the list.
#[must_use]
pub fn at(place: usize) -> Option<&'static Instance> {
    INSTANCES.lock().unwrap_or_else(PoisonError::into_inner).get(place).copied()
}

/// Registers VFS and SQL functions in the library of `api`. Idempotent; what `sqlite3_shutdown` dropped comes back.
///
/// # Errors
/// SQLite's code. `SQLITE_OK` stands for a `nvlite` VFS that another copy of this code has registered already.
pub fn register(api: Api) -> Result<&'static Instance, c_int> {
    let default = std::env::var("NVLITE_DEFAULT").is_ok_and(|value| value == "1");
    let mut instances = INSTANCES.lock().unwrap_or_else(PoisonError::into_inner);
    let known = instances.iter().find(|instance| instance.api.same_library(&api)).copied();
    // SAFETY: terminated names; sqlite3_vfs_find initialises SQLite if need be.
    let registered = unsafe { (api.vfs_find)(NAME.as_ptr()) };
    let instance = match known {
        Some(instance) => instance,
        None if !registered.is_null() => return Err(SQLITE_OK),
        None if instances.len() == MAX_INSTANCES => return Err(SQLITE_NOMEM),
        None => Box::leak(Instance::new(api, default, instances.len())?),
    };
    // SAFETY: the VFS lives for ever; registering it again only moves it in SQLite's list. SQLite changes `pNext` alone.
    let code = unsafe { (api.vfs_register)((&raw const instance.vfs).cast_mut(), c_int::from(default)) };
    if code != SQLITE_OK {
        return Err(code);
    }
    if known.is_none() {
        instances.push(instance);
    }
    drop(instances);
    // SAFETY: the entry point has the signature that SQLite calls; registering it twice is one registration.
    match unsafe { (api.auto_extension)(Some(sql::on_new_connection)) } {
        SQLITE_OK => Ok(instance),
        code => Err(code),
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

    /// True if a database of that name is ours to open. An explicit `vfs=nvlite` always is.
    ///
    /// # Safety
    /// `name` is the pointer that xOpen received.
    #[must_use]
    pub unsafe fn wants(&self, name: sqlite3_filename) -> bool {
        let Some(patterns) = &self.only else { return true };
        // SAFETY: as the caller promises.
        unsafe {
            self.api.parameter(name, c"vfs").is_some_and(|vfs| vfs.as_bytes() == NAME.to_bytes())
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
