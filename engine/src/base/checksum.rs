//! The one checksum: XXH3-64, seeded, so that a valid structure of another region, incarnation or slot never validates here (H4).

use super::{Incarnation, RegionId};
use xxhash_rust::xxh3::xxh3_64_with_seed;

/// Checksum of `bytes` under `seed`.
#[must_use]
pub fn checksum(seed: u64, bytes: &[u8]) -> u64 {
    xxh3_64_with_seed(bytes, seed)
}

/// Seed of everything that belongs to one incarnation of one region.
#[must_use]
pub fn seed(region: RegionId, incarnation: Incarnation) -> u64 {
    xxh3_64_with_seed(&region.0, incarnation.0)
}
