//! The mark in the base file's header (P14): stock SQLite refuses a file whose read version is above 2.
//!
//! | offset | bytes | stock file | marked |
//! | --- | --- | --- | --- |
//! | 18 | 1 | write version: 1, or 2 for WAL | 3 |
//! | 19 | 1 | read version: 1, or 2 for WAL | 3 |
//! | 72 | 4 | 0 (reserved) | `nvl1` |
//! | 76 | 16 | 0 (reserved) | identity of the region |
//!
//! All within the first 512-byte sector, so that it is set and removed in one.

use super::{get_be32, put};
use crate::base::RegionId;

/// Bytes of SQLite's database header.
pub const HEADER: usize = 100;
const MAGIC: &[u8; 4] = b"nvl1";
/// What every SQLite file starts with.
pub const SQLITE: &[u8; 16] = b"SQLite format 3\0";

/// The identity in a marked header.
#[must_use]
pub fn identity(header: &[u8; HEADER]) -> Option<RegionId> {
    let mut id = RegionId::default();
    id.0.copy_from_slice(&header[76..92]);
    (header[..16] == SQLITE[..] && header[18] == 3 && header[19] == 3 && &header[72..76] == MAGIC).then_some(id)
}

/// Marks a header (or a whole first page).
pub fn set(header: &mut [u8], id: RegionId) {
    header[18] = 3;
    header[19] = 3;
    put(header, 72, MAGIC);
    put(header, 76, &id.0);
}

/// Gives bytes of a file's start, read from `offset` on, the form that SQLite sees: versions 1, reserved bytes 0 (P7).
pub fn normalise(offset: u64, bytes: &mut [u8]) {
    let mut set = |at: u64, value: u8| {
        if let Some(b) = at.checked_sub(offset).and_then(|i| bytes.get_mut(i as usize)) {
            *b = value;
        }
    };
    if offset > 91 {
        return;
    }
    set(18, 1);
    set(19, 1);
    (72..92).for_each(|at| set(at, 0));
}

/// Whether a whole first page has the form that SQLite sees.
#[must_use]
pub fn is_normal(page: &[u8]) -> bool {
    page.len() >= HEADER && page[18] == 1 && page[19] == 1 && page[72..92] == [0; 20]
}

/// Page size of a database header; `None` if it is not one.
#[must_use]
pub fn page_size(header: &[u8]) -> Option<u32> {
    let raw = u32::from(header[16]) << 8 | u32::from(header[17]);
    let size = if raw == 1 { 65536 } else { raw };
    (size.is_power_of_two() && (512..=65536).contains(&size)).then_some(size)
}

/// Pages of the database as its header says, if it can be believed (change counter equals version-valid-for).
#[must_use]
pub fn pages(header: &[u8]) -> Option<u32> {
    let n = get_be32(header, 28);
    (n != 0 && get_be32(header, 24) == get_be32(header, 92)).then_some(n)
}

/// A header for an empty database of this page size, so that a marked file is never without one.
#[must_use]
pub fn empty(page_size: u32) -> Vec<u8> {
    let mut page = vec![0u8; page_size.max(512) as usize];
    put(&mut page, 0, SQLITE);
    let raw = if page_size == 65536 { 1 } else { page_size as u16 };
    put(&mut page, 16, &raw.to_be_bytes());
    put(&mut page, 18, &[1, 1, 0, 64, 32, 32]);
    page
}
