//! nvlite's storage engine: micro-journals, page versions, coalesced commits. It knows no SQLite.
//!
//! Layers import downwards only: [`base`] (units, errors), [`mod@format`] (every byte that outlives a process), [`medium`] and
//! [`shm`] (where bytes lie, locks and slots), [`shared`] (what lies where in the mapping), [`pages`] (virtblocks and versions),
//! [`commit`], [`flush`], [`retire`], [`fault`] and [`recovery`], and on top [`store`]: what a VFS sees. `tests/tests/tidy.rs` holds the
//! whole order.
//!
//! A commit, step by step:
//! 1. [`Session::begin_write`] takes the writer lock ([`shm::WriterLock`]).
//! 2. [`Session::write`] keeps what differs ([`writeset::WriteSet`]), or a shadow block ([`shadow`]).
//! 3. [`Session::prepare`] builds the record ([`format::journal::Packer`]) and reserves all that the commit needs.
//! 4. [`Session::commit`] publishes it ([`engine::Engine::publish`], [`apply`], [`shm::Clock`]) and waits for the batch
//!    ([`engine::Engine::flush`]).
//! 5. Later its slots are retired ([`retire`]), and cold pages go home ([`fault`]).
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
mod inspect;
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
mod verify;
#[cfg(all(test, not(loom)))]
#[allow(clippy::panic)]
mod whitebox;
mod writeset;

/// What the models share with the product beside [`shm`].
#[cfg(loom)]
pub mod models {
    pub use crate::pages::chain::{self, Chain};
    pub use crate::pages::pins::Pins;
    pub use crate::pages::virt::{Block, Virt};
}

pub use assemble::{Parts, keep_unmarked, mapping_len, region_len};
pub use base::{Error, Jci, PageNo, Result};
pub use engine::Region;
pub use medium::{BaseFile, BaseOpener, Disk, MediumKind, Pmem, Site};
// for a model: the mapping is not there to be opened
#[cfg(loom)]
pub use pages::{heads, virt::Place};
pub use store::{Durability, Options, Session, Stat, StatValue, Store};
