//! Right checksums over wrong bytes, so that what lies behind the checksums is reached. Written from the tables in
//! `engine/src/format`, not with its code.

use nvlite_engine::base::checksum::checksum;
use nvlite_engine::format::journal::{BODY, HEADER, slot_seed};
use nvlite_engine::format::superblock::SIZE;

/// Seals a whole slot. A length that is none is left for the parser to refuse.
pub fn slot(seed: u64, number: u64, bytes: &mut [u8]) {
    let len = usize::from(u16::from_le_bytes([bytes[28], bytes[29]])).min(BODY);
    let body = checksum(seed, &bytes[HEADER..HEADER + len]);
    let covered = [&bytes[8..HEADER], &body.to_le_bytes()[..]].concat();
    let sum = checksum(slot_seed(seed, number), &covered);
    bytes[..8].copy_from_slice(&sum.to_le_bytes());
}

/// The applied word for a JCI, of which it holds 48 bits.
pub fn applied(seed: u64, jci: u64) -> u64 {
    let parts = [0, 16, 32].map(|from| jci >> from & 0xffff);
    let check = parts.into_iter().fold(seed & 0xffff, |check, part| check ^ part);
    check << 48 | parts[2] << 32 | parts[1] << 16 | parts[0]
}

/// Seals a copy of the superblock, and makes it one of this version.
pub fn superblock(copy: &mut [u8]) {
    copy[..12].copy_from_slice(b"NVLITERG\x05\0\0\0");
    let sum = checksum(5, &copy[..SIZE - 8]);
    copy[SIZE - 8..SIZE].copy_from_slice(&sum.to_le_bytes());
}
