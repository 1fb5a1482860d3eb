//! Bytes from disk may be anything. Here everything that reads them gets random bytes, and valid ones with bytes changed; it
//! may refuse them but never panic. The same functions are fuzz targets (`fuzz/`); this runs each for a second or two, with
//! the same inputs every time.

#[path = "../../fuzz/src/lib.rs"]
mod parsers;

use nvlite_engine::base::checksum::{checksum, seed};
use nvlite_engine::base::limits::MAX_REGION;
use nvlite_engine::base::{Incarnation, Jci, MediumKind, PageNo, RegionId};
use nvlite_engine::format::journal::{BODY, Change, HEADER, Header, Packer, SLOT, groups};
use nvlite_engine::format::layout::{Layout, RING_AT};
use nvlite_engine::format::mark;
use nvlite_engine::format::superblock::{SIZE, Superblock};
use nvlite_engine::medium::FileDisk;
use nvlite_engine::store::inspect_region;
use nvlite_engine::{Disk as _, Region};
use nvlite_tests::sim::mix;
use parsers::left::{Left, commit};
use parsers::region::{Reached, histories};
use std::sync::Arc;

fn superblock() -> Vec<u8> {
    let one = Superblock {
        page_size: 4096,
        region: RegionId([7; 16]),
        sequence: 9,
        incarnation: Incarnation(3),
        low_water: Jci(100),
        budget: 1 << 20,
        medium: MediumKind::File,
        complete: false,
        pages: 12,
        nonce: [1; 16],
        boot: [2; 16],
        shape: 5,
        mapping_len: 1 << 20,
        mapping: b"/somewhere".to_vec(),
    };
    one.encode()
}

/// Groups in [`slot`].
const GROUPS: usize = 2 + 1 + 300;

/// A slot with groups of every kind; not sealed.
fn slot() -> Vec<u8> {
    let mut packer = Packer::default();
    packer.ranges(PageNo(1), false, 5, [(24_u32, &b"abcd"[..]), (92, &b"efgh"[..])].into_iter());
    packer.ranges(PageNo(77), true, 6, std::iter::once((0_u32, &[9_u8; 300][..])));
    packer.block(PageNo(1 << 20), 12, true);
    (0..300).for_each(|n| packer.block(PageNo(500 + n), 40 + n, n >= 200));
    packer.sum_up(0x0102_0304_0506_0708);
    packer.finish();
    assert_eq!(packer.parts(), 1);
    let part = packer.part_mut(0);
    let header = Header {
        jci: Jci(9),
        low_water: Jci(4),
        durable: Jci(8),
        part: 0,
        parts: 1,
        len: (part.len() - HEADER) as u16,
    };
    header.encode(0, 0, 0, part);
    part.to_vec()
}

/// The body of [`slot`].
fn body() -> Vec<u8> {
    slot()[HEADER..].to_vec()
}

fn header() -> Vec<u8> {
    mark::empty(4096)[..mark::HEADER].to_vec()
}

/// Random numbers of input `n`, the same in every run.
fn random(n: u64) -> impl FnMut(usize) -> usize {
    let mut drawn = 0;
    move |below| {
        drawn += 1;
        (mix(n, drawn) % below as u64) as usize
    }
}

/// Calls `parse` with random bytes, and with `valid` as it is, changed in a few places and cut. A failure names the input.
fn try_all(count: u64, valid: &[u8], parse: impl Fn(&[u8])) {
    parse(valid);
    for n in 0..count {
        let _told = Told(n);
        let mut random = random(n);
        let data = if n % 4 == 0 {
            (0..random(600)).map(|_| random(256) as u8).collect()
        } else {
            let mut data = valid.to_vec();
            for _ in 0..1 + random(5) {
                let at = random(data.len());
                data[at] = if random(2) == 0 { random(256) as u8 } else { data[at] ^ 1 << random(8) };
            }
            let len = if n % 4 == 1 { random(data.len()) } else { data.len() };
            data[..len].to_vec()
        };
        parse(&data);
    }
}

/// Names the input that ended in a panic.
struct Told(u64);

impl Drop for Told {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("this was input {}", self.0);
        }
    }
}

/// How often `target` got how far, with as many inputs.
fn tally(count: u64, target: impl Fn(&[u8]) -> Reached) -> [u64; 4] {
    let mut tally = [0; 4];
    for n in 0..count {
        let _told = Told(n);
        let mut random = random(n);
        let data: Vec<u8> = (0..8 + random(56)).map(|_| random(256) as u8).collect();
        tally[target(&data) as usize] += 1;
    }
    tally
}

#[test]
fn what_is_valid_is_read_whole() {
    assert_eq!(groups(&body(), 4096).map(|group| group.map(|_| 1)).sum::<Result<usize, _>>(), Ok(GROUPS));
    assert_eq!(parsers::body(&body()), GROUPS);
    assert_eq!(parsers::journal(&slot()), GROUPS, "once its checksum is right");
    assert_eq!(parsers::superblock(&superblock()), 2);
    assert_eq!(parsers::superblock(&superblock().repeat(2)), 3);
    assert!(parsers::entry_mark(&header()));
}

#[test]
fn superblocks_may_be_anything() {
    try_all(20_000, &superblock().repeat(2), |data| _ = parsers::superblock(data));
    // most changes hit what is zero: here the fields are hit
    try_all(20_000, &superblock()[..140], |data| {
        let mut copy = superblock();
        let n = data.len().min(SIZE);
        copy[..n].copy_from_slice(&data[..n]);
        parsers::superblock(&copy);
    });
}

#[test]
fn micro_journals_may_be_anything() {
    try_all(30_000, &slot(), |data| _ = parsers::journal(data));
    try_all(30_000, &body(), |data| _ = parsers::body(data));
}

#[test]
fn entries_and_headers_may_be_anything() {
    try_all(30_000, &header(), |data| _ = parsers::entry_mark(data));
}

#[test]
fn regions_have_all_that_can_be_in_a_record() {
    for history in histories() {
        let found = inspect_region(&history.left.region_from_outside()).expect("reads").expect("there");
        let log = found.log.expect("undamaged");
        assert_eq!(log.commits as usize, history.states.len() - 1, "{log:?}");
        assert!(log.journals > log.commits, "a commit of several parts: {log:?}");
        assert_eq!(log.durable_pages > 0, found.medium == MediumKind::Ram, "{log:?}");
        let seed = nvlite_engine::base::checksum::seed(found.region, found.incarnation);
        let mut kinds = [0; 4];
        for (slot, bytes) in (0..).zip(history.left.region[RING_AT as usize..].chunks_exact(1024)) {
            let Some(header) = Header::decode(seed, slot, bytes) else { continue };
            for group in groups(&bytes[HEADER..HEADER + usize::from(header.len)], 1024) {
                kinds[match group.expect("parses").1 {
                    Change::Ranges { fresh, .. } => usize::from(fresh),
                    Change::Block { cold, .. } => 2 + usize::from(cold),
                }] += 1;
            }
        }
        let blocks = if found.medium == MediumKind::Ram { kinds[2] } else { kinds[3] };
        assert!(kinds[0] > 0 && kinds[1] > 0 && blocks > 8, "{kinds:?}");
        let mut left = history.left.clone();
        assert_eq!(Some(&left.content().expect("opens")), history.states.last());
    }
}

/// A superblock that asks for more than the region has, and a new region that is cut: nobody may look for what is not there,
/// for hours or beyond the mapping.
#[test]
fn regions_that_are_too_short_are_refused() {
    let mut left = histories()[1].left.clone();
    for at in [0, SIZE] {
        let mut copy = Superblock::decode(&left.region[at..at + SIZE]).expect("undamaged");
        copy.budget = MAX_REGION;
        left.region[at..at + SIZE].copy_from_slice(&copy.encode());
    }
    let found = inspect_region(&left.region_from_outside()).expect("reads").expect("there");
    assert!(found.log.is_err_and(|why| why.to_string().contains("it was cut")));

    // the page size, and so the length, comes with the first commit
    let mut new = Left::new(MediumKind::Ram);
    new.region.truncate(80 << 10);
    let said = new.run(|store| commit(&mut store.session()?, 2, &[]));
    assert!(said.is_err_and(|why| why.to_string().contains("it was cut")));
}

#[test]
fn a_log_that_names_more_shadow_blocks_than_there_can_be_is_refused() {
    // Failure: five bytes that were forged stand for 65,536 pages, and who looks at the log goes through a million times as many.
    let at_front = superblock();
    let said = Superblock::choose(&at_front, &at_front).unwrap();
    let (slots, seed) = (Layout::new(said.budget, 0, false).ring_slots, seed(said.region, said.incarnation));
    let runs = [7, 1, 0x80, 0x80, 4].repeat(BODY / 5); // from page 1, in cold blocks from 0 on
    let dir = tempfile::tempdir().unwrap();
    let region = FileDisk::create(&dir.path().join("region")).unwrap();
    region.write_at(0, &at_front).unwrap();
    for slot in 0..slots {
        let jci = said.low_water.0 + 1 + slot;
        let (mut bytes, len) = ([0; SLOT], runs.len() as u16);
        bytes[HEADER..HEADER + runs.len()].copy_from_slice(&runs);
        let header =
            Header { jci: Jci(jci), low_water: said.low_water, durable: said.low_water, part: 0, parts: 1, len };
        header.encode(seed, slot, checksum(seed, &runs), &mut bytes);
        region.write_at(RING_AT + slot * SLOT as u64, &bytes).unwrap();
    }
    let found = inspect_region(&Region::Disk(Arc::new(region))).unwrap().unwrap();
    let said = found.log.unwrap_err().to_string();
    assert!(said.contains(&format!("{} shadow blocks", slots * 65536 * (BODY as u64 / 5))), "{said}");
}

#[test]
fn damaged_regions_give_what_was_committed_or_an_error() {
    let [refused, read, ..] = tally(600, parsers::region::damaged);
    println!("{refused} refused, {read} read");
    assert!(refused > 60 && read > 60, "{refused} refused, {read} read");
}

#[test]
fn forged_regions_are_refused_or_are_databases() {
    let tally = tally(600, parsers::region::forged);
    println!("{tally:?} refused, read, committed, closed");
    assert!(tally[0] > 60 && tally[3] > 60, "{tally:?}");
}

#[test]
fn no_incarnation_is_forged_that_was() {
    // Failure: of both superblocks, unreadable for a while, one comes back with incarnation 0; after its recovery the log that
    // the history left counts again. Nobody but the forger counts backwards.
    const FORGED: [u8; 36] = [
        0x82, 0x2e, 1, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0, 0, 0, 0xa9, 2, 0x82, 0x2e, 1, 0xff, 0xff, 0xff, 0xff, 0,
        0, 0, 0, 0, 0, 0, 0xa9, 2, 0x2e, 0xa9, 0x2e, 0xa9,
    ];
    assert_ne!(parsers::region::forged(&FORGED), Reached::Refused);
}
