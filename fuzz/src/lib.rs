//! Every parser of bytes from disk, fed with anything: it may refuse, it may not panic, and what it accepts is in range.
//!
//! The fuzz targets run these under `cargo fuzz`; `tests/tests/parsers.rs` runs them on a stable compiler with random input.

use nvlite_engine::format::entry::Entry;
use nvlite_engine::format::journal::{self, Change, Header};
use nvlite_engine::format::mark;
use nvlite_engine::format::superblock::{SIZE, Superblock};

/// Two superblocks, as they are, and as if their checksums were right.
pub fn superblock(data: &[u8]) {
    let (first, second) = data.split_at(data.len() / 2);
    let _ = (Superblock::decode(data), Superblock::choose(first, second));
    if let Ok(read) = Superblock::decode(data) {
        // What is accepted says the same when it is written and read again.
        assert_eq!(Superblock::decode(&read.encode()).ok(), Some(read));
    }
    if data.len() >= SIZE {
        let mut sealed = data[..SIZE].to_vec();
        sealed[..12].copy_from_slice(b"NVLITERG\x01\0\0\0");
        let sum = nvlite_engine::base::checksum::checksum(1, &sealed[..SIZE - 8]);
        sealed[SIZE - 8..].copy_from_slice(&sum.to_le_bytes());
        if let Ok(read) = Superblock::decode(&sealed) {
            assert!(read.page_size == 0 || (512..=65536).contains(&read.page_size));
            assert!(read.mapping.len() <= nvlite_engine::format::superblock::PATH_MAX);
        }
    }
}

/// A micro-journal's header, and its body as if the checksum were right.
pub fn journal(data: &[u8]) {
    let mut slot = vec![0; journal::SLOT];
    let n = data.len().min(slot.len());
    slot[..n].copy_from_slice(&data[..n]);
    if let Some(header) = Header::decode(7, 3, &slot) {
        assert!(header.part < header.parts && usize::from(header.len) <= journal::BODY);
    }
    for page_size in [512, 4096, 65536] {
        for group in journal::groups(data, page_size) {
            let Ok((page, change)) = group else { break };
            assert!(page.0 > 0);
            if let Change::Ranges { ranges, .. } = change {
                for (at, bytes) in ranges {
                    assert!(u64::from(at) + bytes.len() as u64 <= u64::from(page_size));
                }
            }
        }
    }
}

/// An entry of the virtblock array, and the header of a base file.
pub fn entry_mark(data: &[u8]) {
    let mut header = [0; mark::HEADER];
    let n = data.len().min(header.len());
    header[..n].copy_from_slice(&data[..n]);
    let word = |at: usize| header[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let words = [word(0), word(8)];
    if let Some(entry) = Entry::decode(word(16), words) {
        assert_eq!(entry.encode(word(16)), words);
    }
    let size = mark::page_size(&header);
    assert!(size.is_none_or(|size| size.is_power_of_two() && (512..=65536).contains(&size)));
    let _ = (mark::identity(&header), mark::pages(&header));
    for offset in [0, 18, 72, 91, 92, u64::MAX] {
        mark::normalise(offset, &mut header.clone());
    }
    mark::normalise(0, &mut header);
    assert_eq!(mark::identity(&header), None);
}
