//! Units, limits, errors, checksums, the seam for loom. Knows `std` and the kernel only.

#[allow(unsafe_code)]
pub(crate) mod bytes;
pub mod checksum;
pub mod error;
#[allow(unsafe_code)]
pub(crate) mod huge;
pub mod limits;
pub mod page_sum;
pub(crate) mod room;
pub mod sync;
pub mod units;

pub use error::{Error, Result};
pub use units::{BlockNo, Incarnation, Jci, MediumKind, PageNo, RegionId, VirtNo};
