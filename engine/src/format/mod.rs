//! Every byte that outlives a process. Pure: no I/O, no shared state. All integers are little-endian.
//!
//! | structure | where | module |
//! | --- | --- | --- |
//! | superblock, two copies | region, bytes 0 and 4096 | [`superblock`] |
//! | applied word | region on `dax` and `ram`, byte 8192 | [`applied`] |
//! | micro-journals | region, byte 12288 on | [`journal`] |
//! | durable virtblock array | region on `dax` and `ram` | [`entry`] |
//! | mark | header of the base file | [`mark`] |

pub mod applied;
pub mod entry;
pub mod journal;
pub mod layout;
pub mod mark;
pub mod superblock;

/// No sequence, incarnation or JCI comes so far; what says so is garbage, and counting on from it would overflow.
pub const COUNT_MAX: u64 = 1 << 62;

/// Why bytes are not what they should be.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum FormatError {
    /// They end too early.
    #[error("it ends too early")]
    Truncated,
    /// A number lies outside its range.
    #[error("{0} is out of range")]
    OutOfRange(&'static str),
    /// The checksum does not match.
    #[error("the checksum does not match")]
    Checksum,
    /// Another program's file.
    #[error("it is not an nvlite region (wrong magic)")]
    Foreign,
    /// A format this version does not know.
    #[error("its format version is {0}; this nvlite knows version {known}", known = superblock::VERSION)]
    Version(u32),
}

/// Reads a little-endian `u16` at `at`; the caller has checked the length.
#[must_use]
pub fn get_u16(b: &[u8], at: usize) -> u16 {
    u16::from_le_bytes([b[at], b[at + 1]])
}

/// Reads a little-endian `u32` at `at`.
#[must_use]
pub fn get_u32(b: &[u8], at: usize) -> u32 {
    u32::from_le_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}

/// Reads a little-endian `u64` at `at`.
#[must_use]
pub fn get_u64(b: &[u8], at: usize) -> u64 {
    u64::from(get_u32(b, at)) | u64::from(get_u32(b, at + 4)) << 32
}

/// Writes `bytes` at `at`.
pub fn put(b: &mut [u8], at: usize, bytes: &[u8]) {
    b[at..at + bytes.len()].copy_from_slice(bytes);
}

/// Reads SQLite's big-endian `u32` at `at`.
#[must_use]
pub fn get_be32(b: &[u8], at: usize) -> u32 {
    u32::from_be_bytes([b[at], b[at + 1], b[at + 2], b[at + 3]])
}
