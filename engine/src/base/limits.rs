//! Limits, each with the reason for its value.

/// SQLite's smallest page.
pub const MIN_PAGE_SIZE: u32 = 512;
/// SQLite's largest page.
pub const MAX_PAGE_SIZE: u32 = 65536;
/// The page that contains this byte is never used by SQLite (its POSIX locks lie there): a permanent hole.
pub const PENDING_BYTE: u64 = 1 << 30;
/// Line of the CPU cache: the unit of a flush.
pub const LINE: u64 = 64;
/// Unit of device writes and of file growth.
pub const DEVICE_BLOCK: u64 = 4096;
/// Reader slots, one per connection over all processes. Slots are 128 bytes of sparse mapping.
pub const MAX_SLOTS: u32 = 4096;
/// Attached processes (more exactly: attachments; a process has one per database).
pub const MAX_ATTACHMENTS: u32 = 1024;
/// Default fast-tier budget of a database, bytes.
pub const DEFAULT_REGION: u64 = 256 << 20;
/// Least budget: fewer blocks than this cannot hold the pages that one statement pins.
pub const MIN_REGION: u64 = 1 << 20;
/// Largest budget: what lies beside the blocks is less than an eighth of it, and both fit a mapping of [`MAX_MAPPING`].
pub const MAX_REGION: u64 = 1 << 45;
/// Longest mapping: half of the addresses that a process has.
pub const MAX_MAPPING: u64 = 1 << 46;
/// Pages that may be stored in place inside the gate (P2): bounds the time in which readers cannot arrive.
pub const GATE_PAGES: usize = 32;
