//! The superblock: what a region is, and from where its log counts. Two copies; the valid one with the higher sequence holds.
//!
//! | offset | bytes | field |
//! | --- | --- | --- |
//! | 0 | 8 | magic `NVLITERG` |
//! | 8 | 4 | format version |
//! | 12 | 4 | page size, 0 while unknown |
//! | 16 | 16 | region identity |
//! | 32 | 8 | sequence |
//! | 40 | 8 | incarnation |
//! | 48 | 8 | low water: everything up to this JCI is durable at its place |
//! | 56 | 8 | budget in bytes |
//! | 64 | 1 | medium: 1 `dax`, 2 `file`, 3 `ram` |
//! | 65 | 1 | state: 0 open, 1 complete (the base holds everything); any other is refused |
//! | 66 | 2 | length of the mapping's path |
//! | 68 | 4 | pages of the database when the state is complete |
//! | 72 | 16 | nonce of the shared mapping |
//! | 88 | 16 | boot identity of the machine on which the mapping lives |
//! | 104 | 8 | hash of the mapping's layout |
//! | 112 | 8 | length of the mapping |
//! | 128 | 960 | the mapping's path |
//! | 4088 | 8 | checksum of bytes 0..4088 |

use super::{COUNT_MAX, FormatError, get_u16, get_u32, get_u64, put};
use crate::base::MediumKind;
use crate::base::checksum::checksum;
use crate::base::limits::MAX_REGION;
use crate::base::{Incarnation, Jci, RegionId};

/// Bytes of one copy.
pub const SIZE: usize = 4096;
/// The format this code writes, and the only one it reads.
pub const VERSION: u32 = 5;
const MAGIC: &[u8; 8] = b"NVLITERG";
const PATH_AT: usize = 128;
/// Longest path of a mapping.
pub const PATH_MAX: usize = 960;
const SUM_AT: usize = SIZE - 8;
const _: () = assert!(PATH_AT + PATH_MAX <= SUM_AT);

/// The content of a superblock.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Superblock {
    /// Page size, 0 while unknown.
    pub page_size: u32,
    /// Identity.
    pub region: RegionId,
    /// Which copy is newer.
    pub sequence: u64,
    /// The history.
    pub incarnation: Incarnation,
    /// Everything up to this is durable at its place.
    pub low_water: Jci,
    /// Fast-tier budget.
    pub budget: u64,
    /// What it lies on.
    pub medium: MediumKind,
    /// Whether the base holds everything.
    pub complete: bool,
    /// Pages of the database when complete.
    pub pages: u32,
    /// Nonce of the mapping.
    pub nonce: [u8; 16],
    /// Boot of the machine in which the mapping lives.
    pub boot: [u8; 16],
    /// Hash of the mapping's layout.
    pub shape: u64,
    /// Length of the mapping.
    pub mapping_len: u64,
    /// Where it is.
    pub mapping: Vec<u8>,
}

impl Superblock {
    /// Where in the region it lies: over the copy before the last.
    #[must_use]
    pub fn place(&self) -> u64 {
        self.sequence % 2 * SIZE as u64
    }

    /// Its bytes.
    #[must_use]
    pub fn encode(&self) -> Vec<u8> {
        let mut b = vec![0u8; SIZE];
        put(&mut b, 0, MAGIC);
        put(&mut b, 8, &VERSION.to_le_bytes());
        put(&mut b, 12, &self.page_size.to_le_bytes());
        put(&mut b, 16, &self.region.0);
        put(&mut b, 32, &self.sequence.to_le_bytes());
        put(&mut b, 40, &self.incarnation.0.to_le_bytes());
        put(&mut b, 48, &self.low_water.0.to_le_bytes());
        put(&mut b, 56, &self.budget.to_le_bytes());
        let medium = match self.medium {
            MediumKind::Dax => 1,
            MediumKind::File => 2,
            MediumKind::Ram => 3,
        };
        let path = &self.mapping[..self.mapping.len().min(PATH_MAX)];
        put(&mut b, 64, &[medium, u8::from(self.complete)]);
        put(&mut b, 66, &(path.len() as u16).to_le_bytes());
        put(&mut b, 68, &self.pages.to_le_bytes());
        put(&mut b, 72, &self.nonce);
        put(&mut b, 88, &self.boot);
        put(&mut b, 104, &self.shape.to_le_bytes());
        put(&mut b, 112, &self.mapping_len.to_le_bytes());
        put(&mut b, PATH_AT, path);
        let sum = checksum(u64::from(VERSION), &b[..SUM_AT]);
        put(&mut b, SUM_AT, &sum.to_le_bytes());
        b
    }

    /// Reads one copy.
    ///
    /// # Errors
    /// What is wrong with it. A newer version is reported before its checksum is looked at, an older one when that holds.
    pub fn decode(b: &[u8]) -> Result<Superblock, FormatError> {
        if b.len() < SIZE {
            return Err(FormatError::Truncated);
        }
        if &b[..8] != MAGIC {
            return Err(FormatError::Foreign);
        }
        let version = get_u32(b, 8);
        if version > VERSION {
            return Err(FormatError::Version(version));
        }
        if checksum(u64::from(version), &b[..SUM_AT]) != get_u64(b, SUM_AT) {
            return Err(FormatError::Checksum);
        }
        if version != VERSION {
            return Err(FormatError::Version(version));
        }
        let medium = match b[64] {
            1 => MediumKind::Dax,
            2 => MediumKind::File,
            3 => MediumKind::Ram,
            _ => return Err(FormatError::OutOfRange("the medium")),
        };
        if b[65] > 1 {
            return Err(FormatError::OutOfRange("the state"));
        }
        let page_size = get_u32(b, 12);
        if page_size != 0 && !(page_size.is_power_of_two() && (512..=65536).contains(&page_size)) {
            return Err(FormatError::OutOfRange("the page size"));
        }
        if !(1 << 16..=MAX_REGION).contains(&get_u64(b, 56)) {
            return Err(FormatError::OutOfRange("the budget"));
        }
        if [32, 40, 48].iter().any(|&at| get_u64(b, at) > COUNT_MAX) {
            return Err(FormatError::OutOfRange("a counter"));
        }
        let path_len = usize::from(get_u16(b, 66));
        if path_len > PATH_MAX {
            return Err(FormatError::OutOfRange("the length of a path"));
        }
        let sixteen = |at: usize| {
            let mut v = [0u8; 16];
            v.copy_from_slice(&b[at..at + 16]);
            v
        };
        Ok(Superblock {
            page_size,
            region: RegionId(sixteen(16)),
            sequence: get_u64(b, 32),
            incarnation: Incarnation(get_u64(b, 40)),
            low_water: Jci(get_u64(b, 48)),
            budget: get_u64(b, 56),
            medium,
            complete: b[65] == 1,
            pages: get_u32(b, 68),
            nonce: sixteen(72),
            boot: sixteen(88),
            shape: get_u64(b, 104),
            mapping_len: get_u64(b, 112),
            mapping: b[PATH_AT..PATH_AT + path_len].to_vec(),
        })
    }

    /// The copy that holds, of both as read (`SIZE` bytes each).
    ///
    /// # Errors
    /// Why neither can be used; another version wins over every other reason.
    pub fn choose(first: &[u8], second: &[u8]) -> Result<Superblock, FormatError> {
        match (Superblock::decode(first), Superblock::decode(second)) {
            (Ok(a), Ok(b)) => Ok(if a.sequence >= b.sequence { a } else { b }),
            (Err(FormatError::Version(v)), _) | (_, Err(FormatError::Version(v))) => Err(FormatError::Version(v)),
            (Ok(one), Err(_)) | (Err(_), Ok(one)) => Ok(one),
            (Err(why), Err(FormatError::Foreign)) => Err(why),
            (Err(_), Err(why)) => Err(why),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_that_cannot_be_counted_on_from_are_refused() {
        let good = Superblock {
            page_size: 512,
            region: RegionId([3; 16]),
            sequence: COUNT_MAX,
            incarnation: Incarnation(COUNT_MAX),
            low_water: Jci(COUNT_MAX),
            budget: 1 << 20,
            medium: MediumKind::Ram,
            complete: true,
            pages: 1,
            nonce: [4; 16],
            boot: [5; 16],
            shape: 6,
            mapping_len: 7,
            mapping: b"/dev/shm/x".to_vec(),
        };
        assert_eq!(Superblock::decode(&good.encode()).as_ref(), Ok(&good));
        let refused = |change: fn(&mut Superblock)| {
            let mut bad = good.clone();
            change(&mut bad);
            assert_eq!(Superblock::decode(&bad.encode()), Err(FormatError::OutOfRange("a counter")));
        };
        refused(|s| s.sequence = u64::MAX);
        refused(|s| s.incarnation.0 = COUNT_MAX + 1);
        refused(|s| s.low_water.0 = u64::MAX);
    }
}
