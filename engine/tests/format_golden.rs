//! The bytes of each on-disk structure, written out: what was once written must be read for ever, and a layout that changes
//! without a new version fails here. An image that has to be edited is a new format version (see `CONTRIBUTING.md`).
#![cfg(not(loom))]
#![allow(missing_docs)]

use nvlite_engine::base::{Incarnation, Jci, PageNo, RegionId, checksum::checksum, page_sum::page_sum};
use nvlite_engine::format::applied;
use nvlite_engine::format::entry::{ENTRY, Entry, SUM_AT};
use nvlite_engine::format::journal::{Change, HEADER, Header, Packer, SLOT, groups};
use nvlite_engine::format::superblock::{self, Superblock};
use nvlite_engine::format::{FormatError, layout::Layout, mark};
use nvlite_engine::medium::MediumKind;

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.chars().filter_map(|c| c.to_digit(16)).map(|d| d as u8).collect();
    digits.chunks(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

/// Zeros, but for these fields: (offset, bytes).
fn image(len: usize, fields: &[(usize, &str)]) -> Vec<u8> {
    let mut image = vec![0; len];
    for &(at, hex) in fields {
        let field = bytes(hex);
        assert!(image[at..at + field.len()].iter().all(|b| *b == 0), "two fields at {at}");
        image[at..at + field.len()].copy_from_slice(&field);
    }
    image
}

/// Equal, or the fields in which they differ.
fn same(got: &[u8], want: &[u8]) {
    assert_eq!(got.len(), want.len());
    let wrong = (0..got.len())
        .step_by(8)
        .filter(|&at| got[at..at + 8.min(got.len() - at)] != want[at..at + 8.min(got.len() - at)]);
    let wrong: Vec<String> = wrong.map(|at| format!("at {at} is {}", hex(&got[at..(at + 8).min(got.len())]))).collect();
    assert!(wrong.is_empty(), "{wrong:?}");
}

fn superblock() -> Superblock {
    Superblock {
        page_size: 4096,
        region: RegionId(std::array::from_fn(|i| 0x10 + i as u8)),
        sequence: 0x0102_0304_0506_0708,
        incarnation: Incarnation(0x1112_1314_1516_1718),
        low_water: Jci(0x2122_2324_2526_2728),
        budget: 0x1000_0000,
        medium: MediumKind::File,
        complete: true,
        pages: 0x3132_3334,
        nonce: std::array::from_fn(|i| 0x40 + i as u8),
        boot: std::array::from_fn(|i| 0x50 + i as u8),
        shape: 0x6162_6364_6566_6768,
        mapping_len: 0x7172_7374_7576_7778,
        mapping: b"/dev/shm/m".to_vec(),
    }
}

const SUPERBLOCK: &[(usize, &str)] = &[
    (0, "4e564c4954455247"),                  // magic NVLITERG
    (8, "05000000"),                          // version
    (12, "00100000"),                         // page size
    (16, "101112131415161718191a1b1c1d1e1f"), // region
    (32, "0807060504030201"),                 // sequence
    (40, "1817161514131211"),                 // incarnation
    (48, "2827262524232221"),                 // low water
    (56, "0000001000000000"),                 // budget
    (64, "02"),                               // medium: file
    (65, "01"),                               // state: complete
    (66, "0a00"),                             // length of the path
    (68, "34333231"),                         // pages
    (72, "404142434445464748494a4b4c4d4e4f"), // nonce
    (88, "505152535455565758595a5b5c5d5e5f"), // boot
    (104, "6867666564636261"),                // shape
    (112, "7877767574737271"),                // length of the mapping
    (128, "2f6465762f73686d2f6d"),            // its path
    (4088, "30fdcd089e4cacbf"),               // checksum
];

#[test]
fn a_superblock_is_these_bytes() {
    let want = image(superblock::SIZE, SUPERBLOCK);
    same(&superblock().encode(), &want);
    assert_eq!(Superblock::decode(&want), Ok(superblock()));
    for (kind, code) in [(MediumKind::Dax, 1), (MediumKind::File, 2), (MediumKind::Ram, 3)] {
        assert_eq!(Superblock { medium: kind, ..superblock() }.encode()[64], code);
    }
    assert_eq!(Superblock { complete: false, ..superblock() }.encode()[65], 0);
}

/// A superblock with one byte changed and the checksum that its version has.
fn changed(at: usize, value: u8) -> Result<Superblock, FormatError> {
    let mut b = superblock().encode();
    b[at] = value;
    let sum = checksum(u64::from(b[8]), &b[..4088]);
    b[4088..].copy_from_slice(&sum.to_le_bytes());
    Superblock::decode(&b)
}

#[test]
fn a_superblock_of_a_state_version_or_medium_that_nobody_wrote_is_refused() {
    // Failure: what a later nvlite means by it is taken for an open region, recovered, and written over.
    for state in 2..=255 {
        assert_eq!(changed(65, state), Err(FormatError::OutOfRange("the state")));
    }
    assert_eq!(changed(65, 0), Ok(Superblock { complete: false, ..superblock() }));
    assert_eq!(changed(64, 4), Err(FormatError::OutOfRange("the medium")));
    assert_eq!(changed(64, 0), Err(FormatError::OutOfRange("the medium")));
    assert_eq!(changed(8, 6), Err(FormatError::Version(6)));
    for version in [0, 1, 2, 3, 4] {
        assert_eq!(changed(8, version), Err(FormatError::Version(version.into())));
    }
}

#[test]
fn a_micro_journal_is_these_bytes() {
    let mut packer = Packer::default();
    packer.ranges(PageNo(1), false, 0x1112_1314_1516_1718, [(24, &b"abcd"[..]), (92, b"ef")].into_iter());
    packer.ranges(PageNo(300), true, 0x2122_2324_2526_2728, [(0, &b"xyz"[..])].into_iter());
    packer.ranges(PageNo(9), true, 0x3132_3334_3536_3738, std::iter::empty());
    packer.block(PageNo(10), 200, false);
    (0..5).for_each(|i| packer.block(PageNo(20 + i), 70 + i, true));
    [u64::MAX, 0x0102_0304_0506_0709].into_iter().for_each(|sum| packer.sum_up(sum));
    packer.finish();
    assert_eq!(packer.parts(), 1);
    let part = packer.part_mut(0);
    let body = bytes(concat!(
        "04",               // page 1, ranges
        "1817161514131211", // its checksum
        "3004 61626364",    // 24 bytes on, 4 bytes
        "8101 02 6566",     // 64 bytes further, the last, 2 bytes
        "b109",             // page 300, fresh
        "2827262524232221",
        "0103 78797a", // at its start, the last, 3 bytes
        "25",          // page 9, fresh
        "3837363534333231",
        "0100",    // nothing
        "2a",      // page 10, a block
        "9003",    // fast, 200
        "53",      // page 20, a run
        "8d01 05", // cold, 70, of 5
        "02",      // the sum of the cold blocks' checksums
        "0807060504030201",
    ));
    same(&part[HEADER..], &body);
    let (seed, slot) = (0x0123_4567_89ab_cdef, 5);
    let header = Header {
        jci: Jci(0x0a0b_0c0d_0e0f),
        low_water: Jci(0x0a0b_0c0d_0e00),
        durable: Jci(0x0a0b_0c0d_0e0e),
        part: 0,
        parts: 3,
        len: body.len() as u16,
    };
    header.encode(seed, slot, checksum(seed, &body), part);
    let mut want = image(
        HEADER,
        &[
            (0, "a5d92651f0b06081"), // checksum
            (8, "0f0e0d0c0b0a0000"), // JCI
            (16, "0f000000"),        // down to the low water
            (20, "01000000"),        // down to the durable
            (24, "0000"),            // part
            (26, "0300"),            // parts
            (28, "3e00"),            // bytes of body
            (30, "0000"),            // flags
        ],
    );
    want.extend(&body);
    same(part, &want);
    want.resize(SLOT, 0xEE);
    assert_eq!(Header::decode(seed, slot, &want), Some(header));

    let mut read = Vec::new();
    for group in groups(&body, 4096) {
        let (page, change) = group.expect("the format");
        read.push(match change {
            Change::Ranges { fresh, sum, ranges } => {
                let ranges: Vec<_> = ranges.map(|(at, b)| format!("{at} {}", String::from_utf8_lossy(b))).collect();
                format!("{} {fresh} {sum:x} {}", page.0, ranges.join(", "))
            }
            Change::Block { index, cold } => format!("{} in {index} {cold}", page.0),
        });
    }
    let pages = [
        "1 false 1112131415161718 24 abcd, 92 ef",
        "300 true 2122232425262728 0 xyz",
        "9 true 3132333435363738 0 ",
        "10 in 200 false",
    ];
    let run = (0..5).map(|i| format!("{} in {} true", 20 + i, 70 + i));
    assert_eq!(read, pages.map(str::to_owned).into_iter().chain(run).collect::<Vec<_>>());
}

#[test]
fn an_entry_is_these_bytes() {
    let entry = Entry { page: PageNo(0x0102_0304), birth: Jci(0x1112_1314_1516_1718) };
    let words = entry.encode(7);
    let stored: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let both = "8b50895310101010"; // what stands before it, the first of them turned by four bytes
    let want = image(SUM_AT as usize, &[(0, "04030201"), (4, "93479f46"), (8, "1817161514131211"), (16, both)]);
    same(&stored, &want);
    let word = |at: usize| u64::from_le_bytes(want[at..at + 8].try_into().expect("eight bytes"));
    assert_eq!(Entry::decode(7, [0, 8, 16].map(word)), Some(entry));
    assert_eq!((SUM_AT, ENTRY), (24, 32), "the page's checksum is the last");
    assert_eq!(page_sum(&[[1; 64], [2; 64]].concat()), 0x5c52_f6e4_5b5a_2510);
}

#[test]
fn an_applied_word_is_these_bytes() {
    let word = applied::encode(7, Jci(0x1112_1314_1516));
    same(&word.to_le_bytes(), &image(8, &[(0, "161514131211"), (6, "1717")]));
    assert_eq!(applied::decode(7, word), Ok(Jci(0x1112_1314_1516)));
}

#[test]
fn p14_a_mark_is_these_bytes() {
    let id = RegionId(std::array::from_fn(|i| 0x10 + i as u8));
    let mut page = mark::empty(4096);
    mark::set(&mut page, id);
    let want = image(
        4096,
        &[
            (0, "53514c69746520666f726d6174203300"),  // SQLite format 3
            (16, "1000"),                             // page size, big-endian
            (18, "0303"),                             // versions of the marked
            (20, "00402020"),                         // fractions
            (72, "6e766c31"),                         // nvl1
            (76, "101112131415161718191a1b1c1d1e1f"), // region
        ],
    );
    same(&page, &want);
    let header: [u8; mark::HEADER] = want[..mark::HEADER].try_into().expect("a header");
    assert_eq!((mark::identity(&header), mark::page_size(&header)), (Some(id), Some(4096)));
    mark::normalise(0, &mut page);
    same(&page, &mark::empty(4096));
}

#[test]
fn a_region_is_laid_out_so() {
    let places = |budget, page_size, inside| {
        let l = Layout::new(budget, page_size, inside);
        (l.ring_slots, l.max_blocks, l.slot_at(l.ring_slots + 2), l.entries_at(), l.blocks_at(), l.len())
    };
    assert_eq!(places(256 << 20, 4096, true), (4096, 64007, 14336, 4206592, 6258688, 268431360));
    assert_eq!(places(1 << 20, 1024, true), (128, 853, 14336, 143360, 172032, 1045504));
    assert_eq!(places(256 << 20, 4096, false), (32768, 65536, 14336, 33566720, 35663872, 33566720));
    assert_eq!(places(1 << 20, 1024, false), (256, 1024, 14336, 274432, 307200, 274432));
}
