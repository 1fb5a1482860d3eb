//! The one checksum: XXH3-64, seeded, so that a valid structure of another region, incarnation or slot never validates here (H4).

use super::{Incarnation, RegionId};
use twox_hash::XxHash3_64;

/// Checksum of `bytes` under `seed`.
#[must_use]
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    XxHash3_64::oneshot_with_seed(seed, bytes)
}

/// Seed of everything that belongs to one incarnation of one region.
#[must_use]
pub fn seed(region: RegionId, incarnation: Incarnation) -> u64 {
    XxHash3_64::oneshot_with_seed(incarnation.0, &region.0)
}
