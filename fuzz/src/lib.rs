//! Everything that reads bytes from disk, fed with anything: it may refuse, it may not panic, and what it accepts is in range.
//!
//! Each function is a fuzz target (`fuzz_targets`); `tests/tests/parsers.rs` runs the same functions with seeded input, so
//! that every run of the tests goes through them. Input behind a checksum is tried as it is, and sealed with a right one.

pub mod left;
pub mod media;
pub mod region;
pub mod seal;

use nvlite_engine::base::{Jci, PageNo};
use nvlite_engine::format::COUNT_MAX;
use nvlite_engine::format::applied;
use nvlite_engine::format::entry::Entry;
use nvlite_engine::format::journal::{self, Change, Header};
use nvlite_engine::format::mark;
use nvlite_engine::format::superblock::{PATH_MAX, SIZE, Superblock};

/// Two superblocks, as they are, and with right checksums. Answers how many were accepted.
pub fn superblock(data: &[u8]) -> usize {
    let (first, second) = data.split_at(data.len() / 2);
    let mut accepted = usize::from(Superblock::choose(first, second).is_ok());
    let mut try_one = |copy: &[u8]| {
        let Ok(read) = Superblock::decode(copy) else { return };
        accepted += 1;
        assert!(read.page_size == 0 || (read.page_size.is_power_of_two() && (512..=65536).contains(&read.page_size)));
        assert!((1 << 16..=1 << 46).contains(&read.budget) && read.mapping.len() <= PATH_MAX);
        assert!([read.sequence, read.incarnation.0, read.low_water.0].iter().all(|&n| n <= COUNT_MAX));
        // What is accepted says the same when it is written and read again.
        assert_eq!(Superblock::decode(&read.encode()), Ok(read));
    };
    try_one(data);
    if data.len() >= SIZE {
        let mut sealed = data[..SIZE].to_vec();
        seal::superblock(&mut sealed);
        try_one(&sealed);
    }
    accepted
}

/// A slot of the ring, as it is, and with a right checksum. Answers how many groups were read in both.
pub fn journal(data: &[u8]) -> usize {
    const SEED: u64 = 7;
    const SLOT: u64 = 3;
    let mut slot = vec![0; journal::SLOT];
    let n = data.len().min(slot.len());
    slot[..n].copy_from_slice(&data[..n]);
    let read = |slot: &[u8]| {
        let header = Header::decode(SEED, SLOT, slot)?;
        assert!(header.part < header.parts && usize::from(header.len) <= journal::BODY);
        assert!(header.low_water <= header.jci && header.durable <= header.jci && header.jci.0 <= COUNT_MAX);
        Some(body(&slot[journal::HEADER..journal::HEADER + usize::from(header.len)]))
    };
    let as_it_is = read(&slot).unwrap_or(0);
    seal::slot(SEED, SLOT, &mut slot);
    as_it_is + read(&slot).unwrap_or(0)
}

/// The body of a slot, for each page size. Answers how many groups were read for the smallest.
pub fn body(body: &[u8]) -> usize {
    let counts = [512, 4096, 65536].map(|page_size| {
        let good = journal::groups(body, page_size).map_while(Result::ok);
        let check = |(page, change): (PageNo, Change<'_>)| {
            assert!(page.0 > 0);
            if let Change::Ranges { ranges, .. } = change {
                for (at, bytes) in ranges {
                    assert!(u64::from(at) + bytes.len() as u64 <= u64::from(page_size));
                }
            }
        };
        good.map(check).count()
    });
    assert!(counts.is_sorted(), "a larger page refuses what a smaller one takes");
    counts[0]
}

/// An entry of the virtblock array, the applied word, and the header of a base file, as they are, and with right
/// checks. Answers whether the header has a page size.
pub fn entry_mark(data: &[u8]) -> bool {
    let mut header = [0; mark::HEADER];
    let n = data.len().min(header.len());
    header[..n].copy_from_slice(&data[..n]);
    let word = |at: usize| header[at..at + 8].iter().fold(0, |word, byte| word << 8 | u64::from(*byte));
    let (seed, words) = (word(16), [word(0), word(8), word(32)]);
    if let Some(entry) = Entry::decode(seed, words) {
        let same = (0..3).filter(|&i| entry.encode(seed)[i] == words[i]);
        assert!(same.count() >= 2, "two of three agree");
    }
    let entry = Entry { page: PageNo(words[0] as u32), birth: Jci(words[1]) };
    assert_eq!(
        Entry::decode(seed, entry.encode(seed)),
        Some(entry).filter(|entry| entry.page.0 != 0 && entry.birth.0 != 0)
    );

    const JCI: u64 = (1 << 48) - 1;
    let word = word(24);
    if let Ok(jci) = applied::decode(seed, word) {
        assert!(jci.0 <= JCI && (word == 0 || seal::applied(seed, jci.0) == word));
    }
    let sealed = seal::applied(seed, words[1]);
    assert_eq!(applied::decode(seed, sealed), Ok(Jci(words[1] & JCI)));
    let flipped = sealed ^ 1 << (word % 64);
    assert!(flipped == 0 || applied::decode(seed, flipped).is_err(), "a flipped bit");

    let size = mark::page_size(&header);
    assert!(size.is_none_or(|size| size.is_power_of_two() && (512..=65536).contains(&size)));
    let _ = (mark::identity(&header), mark::pages(&header));
    header[..16].copy_from_slice(mark::SQLITE);
    let id = nvlite_engine::base::RegionId(std::array::from_fn(|i| data.get(i).copied().unwrap_or(9)));
    mark::set(&mut header, id);
    assert_eq!(mark::identity(&header), Some(id));
    for offset in [0, 18, 72, 91, 92, u64::MAX] {
        mark::normalise(offset, &mut header.clone());
    }
    mark::normalise(0, &mut header);
    assert!(mark::identity(&header).is_none() && mark::is_normal(&header));
    size.is_some()
}
