//! nvlite's storage engine: micro-journals, page versions, coalesced commits. It knows no SQLite.
//!
//! Layers import downwards only: [`base`] (units, errors), `format` (every byte that outlives a process),
//! [`medium`] and `shm` (where bytes lie, and the shared mapping), `pages` (virtblocks and versions), `commit`,
//! `recovery` and `retire`, and on top [`store`]: what a VFS sees.
#![deny(unsafe_code)]

pub mod base;
pub mod format;
pub mod medium;
pub mod shm;
pub mod store;

mod apply;
mod assemble;
mod attach;
mod commit;
mod engine;
mod fault;
mod flush;
mod keeper;
#[allow(unsafe_code)]
mod pages;
mod recovery;
mod refusal;
mod retire;
mod session;
mod shadow;
#[allow(unsafe_code)]
mod shared;
mod stats;
mod writeset;

pub use assemble::{Parts, mapping_len, region_len};
pub use base::{Error, Jci, Result};
pub use engine::Region;
pub use medium::{BaseFile, BaseOpener, Disk, MediumKind, Pmem, Site};
pub use store::{Durability, Options, Session, Stat, StatValue, Store};
