//! The shared mapping: segment, liveness, reader slots, gate, writer queue, ring, batches.
//!
//! What is here holds for several processes that may each be killed between any two stores. Three rules keep it so:
//!
//! 1. Every word has one class of mutator (the slot's owner, the holder of a lock) or is changed by one compare-and-swap.
//!    The table beside each struct says which, and what a stale read costs.
//! 2. A lock names its holder as ([`SlotNo`], generation); whether that holder lives is asked of the kernel
//!    ([`Liveness`]), never of the mapping.
//! 3. Time decides who is served and when to look again, never who is right: a wrong clock costs fairness only.
//!
//! The engine lays out the mapping's header itself and places [`Clock`], [`Ring`], [`WriterLock`],
//! [`OwnedLock`] and [`SlotsHeader`] by offset ([`Segment::at`]).

mod batch;
mod clock;
#[allow(unsafe_code)]
mod fork;
mod futex;
mod gate;
mod grace;
#[allow(unsafe_code)]
mod liveness;
#[allow(unsafe_code)]
mod ofd;
mod owned_lock;
mod queue;
mod ring;
mod scan;
#[allow(unsafe_code)]
mod segment;
mod shape;
#[allow(unsafe_code)]
mod slot;
mod slots;
mod wait;
mod word;

pub use batch::{Batches, Seen};
pub use clock::now;
pub use fork::ForkGuard;
pub use futex::{wait as futex_wait, wake as futex_wake};
pub use gate::{Clock, PinAt, Pinned};
pub use grace::Grace;
pub use liveness::{AttachLock, AttachmentNo, LOCK_BASE, Liveness, anyone_attached};
pub use owned_lock::{Lock, OwnedLock};
pub use queue::{GRANT_EXPIRES, Hold, WriterLock};
pub use ring::{BLOCK_SLOTS, Log, Ring, doubt, lead, write_through};
pub use segment::{Segment, Shared};
pub(crate) use shape::shape;
pub use shape::{Shape, shape_of};
pub use slot::{Slot, SlotNo};
pub use slots::{Slots, SlotsHeader};
pub use word::Holder;
