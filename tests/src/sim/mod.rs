//! The crash simulator.
//!
//! A [`World`] is a machine whose media record every store, flush, fence, write and sync. At any point of the log,
//! [`Replay`] knows what a crash there may leave ([`Image`]): for each 8-byte granule of memory and each 512-byte sector of
//! a file, every value it had since the last one known to be persistent, each unit independently of the others.
//! A new world starts from such an image; what is uncertain is decided when recovery first reads it, by a [`Policy`].
//! That world records too, so that recovery can be crashed as well.
//!
//! [`explore`](drive::explore) drives a store through a history, crashes it at every point worth it, in every way that the
//! plan asks for, and holds the recovered content against a [`Model`]. [`toy`] has stores with known bugs: the
//! test of the tester.

#![allow(clippy::panic, reason = "a test support that finds itself misused has nobody to tell but the test")]

mod cells;
pub mod drive;
mod event;
pub mod history;
mod image;
mod media;
pub mod model;
pub mod nvlite;
mod oracle;
pub mod toy;
mod world;

pub use event::{Dev, Event};
pub use image::{Image, Replay};
pub use media::{SimBase, SimDisk, SimPmem};
pub use model::Model;
pub use oracle::{Grain, Oracle, Policy, mix};
pub use world::{Died, Fault, World};
