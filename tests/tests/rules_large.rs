//! Rules of transactions larger than memory and log, on real files: the list of their shadow blocks has to fit the log.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::medium::{FileDisk, Mapped};
use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{
    Durability::Full, Error, MediumKind, Options, Parts, Region, Session, Store, mapping_len, region_len,
};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{PAGE, Rig, all_are, byte, commit, content, offset, put_header, stat};
use nvlite_tests::sim::{Policy, mix};
use std::path::Path;
use std::sync::Arc;

const BOTH: [MediumKind; 2] = [MediumKind::Ram, MediumKind::File];

/// A directory for this medium; `None` if the machine has none.
fn scratch(kind: MediumKind) -> Option<tempfile::TempDir> {
    match kind {
        MediumKind::Ram => tempfile::tempdir_in("/dev/shm").ok(),
        _ => tempfile::tempdir().ok(),
    }
}

/// The store in `dir`, in the least region. It is left as it is when it is closed: the next one recovers it.
fn open(dir: &Path, kind: MediumKind) -> Arc<Store> {
    let options = Options { medium: Some(kind), region: 1 << 20, keep_region: true, ..Options::default() };
    Store::attach(Arc::new(PlainBase::new(&dir.join("a.db"))), &options).unwrap()
}

/// Opens the store again and asks whether its pages are what they should be; then closes it for good.
fn survives(dir: &Path, kind: MediumKind, pages: impl IntoIterator<Item = u32> + Clone, want: u8) {
    let store = open(dir, kind);
    assert!(stat(&store, "incarnation") > 1, "it was recovered");
    assert!(all_are(&mut store.session().unwrap(), pages.clone(), want).unwrap(), "{kind:?}: recovered");
    store.close().unwrap();
    let options = Options { region: 1 << 20, ..Options::default() };
    let store = Store::attach(Arc::new(PlainBase::new(&dir.join("a.db"))), &options).unwrap();
    assert!(all_are(&mut store.session().unwrap(), pages, want).unwrap(), "{kind:?}: from the homes");
    store.close().unwrap();
}

#[test]
fn h6_a_transaction_of_any_size_commits_in_the_least_region() {
    // Failure: the list of its shadow blocks, one group each, does not fit the log, and SQLite is told that the disk is full.
    for kind in BOTH {
        let Some(dir) = scratch(kind) else { continue };
        let pages = 60_000;
        let store = open(dir.path(), kind);
        let mut s = store.session().unwrap();
        let before = stat(&store, "bytes_logged");
        commit(&mut s, pages, 2..=pages, 7, Full).unwrap();
        let logged = stat(&store, "bytes_logged") - before;
        assert!(logged < 60_000, "{kind:?}: {logged} bytes, more than one for each page");
        assert!(all_are(&mut s, 2..=pages, 7).unwrap(), "{kind:?}: before the store is closed");
        drop(s);
        store.close().unwrap();
        survives(dir.path(), kind, 2..=pages, 7);
    }
}

#[test]
fn h6_pages_written_in_any_order_are_lined_up() {
    // Failure: SQLite's cache spills pages in another order than that of their numbers, so that no runs form.
    for kind in BOTH {
        let Some(dir) = scratch(kind) else { continue };
        let pages = 25_000;
        let mut order: Vec<u32> = (2..=pages).collect();
        order.sort_by_key(|&page| mix(5, u64::from(page)));
        let store = open(dir.path(), kind);
        let mut s = store.session().unwrap();
        commit(&mut s, pages, order, 9, Full).unwrap();
        assert!(all_are(&mut s, 2..=pages, 9).unwrap(), "{kind:?}: before the store is closed");
        drop(s);
        store.close().unwrap();
        survives(dir.path(), kind, 2..=pages, 9);
    }
}

#[test]
fn h6_a_list_that_cannot_fit_is_a_named_error_and_changes_nothing() {
    // Failure: a transaction that touches every second page is half committed, or takes the store or its blocks with it.
    for kind in BOTH {
        let Some(dir) = scratch(kind) else { continue };
        let pages = 60_000;
        let store = open(dir.path(), kind);
        let mut s = store.session().unwrap();
        commit(&mut s, pages, 2..=pages, 1, Full).unwrap();
        store.checkpoint().unwrap();
        let mut blocks = Vec::new();
        for _ in 0..2 {
            match commit(&mut s, pages, (2..=pages).step_by(2), 2, Full) {
                Err(Error::Full { what: "a commit record", cause, .. }) => assert!(cause.contains("micro-journals")),
                other => panic!("{kind:?}: {other:?}"),
            }
            blocks.push(stat(&store, "cold_blocks"));
        }
        assert!(blocks[1] <= blocks[0], "{kind:?}: {blocks:?} cold blocks: what failed is not given back");
        assert!(all_are(&mut s, 2..=pages, 1).unwrap(), "{kind:?}: nothing of it is seen");
        // the connection goes on, with all the pages, and with few
        commit(&mut s, pages, 2..=pages, 3, Full).unwrap();
        commit(&mut s, pages, [2, 4, 6], 4, Full).unwrap();
        assert_eq!((byte(&mut s, 3).unwrap(), byte(&mut s, 4).unwrap()), (Some(3), Some(4)));
        drop(s);
        store.close().unwrap();
        survives(dir.path(), kind, (8..=pages).chain([3, 5]), 3);
    }
}

#[test]
fn h6_pointers_into_the_whole_fast_tier_stop_no_transaction() {
    // Failure: every block is pointed into, none comes free for a new version, and the commit ends in SQLITE_FULL although
    // the cold file has room.
    let rig = Rig::new(MediumKind::Dax);
    let store = rig.open().unwrap();
    let (mut s, mut reader) = (store.session().unwrap(), store.session().unwrap());
    let pages = 70;
    commit(&mut s, pages, 2..=pages, 1, Full).unwrap();
    store.checkpoint().unwrap();
    reader.begin_read().unwrap();
    let pointers: Vec<_> =
        (2..=pages).filter_map(|page| Some((page, reader.fetch(offset(page), PAGE).unwrap()?))).collect();
    let free = stat(&store, "blocks_max") - pointers.len() as u64;
    assert!(pointers.len() > 60 && free < 20, "{} of {} blocks", pointers.len(), stat(&store, "blocks_max"));
    s.begin_write().unwrap();
    put_header(&mut s, pages).unwrap();
    // few bytes of each: differences, no shadow blocks
    (2..=20).for_each(|page| s.write(offset(page) + 8, b"changed").unwrap());
    s.prepare().unwrap();
    s.commit(Full).unwrap();
    s.end_write();
    s.end_read();
    assert!(stat(&store, "shadow_blocks") > 0, "they went to shadow blocks after all");
    for &(page, pointer) in &pointers {
        // SAFETY: valid and unchanged until unfetch, for PAGE bytes.
        let seen = unsafe { std::slice::from_raw_parts(pointer, PAGE) };
        assert_eq!(seen, content(page, 1), "under the pointer to page {page}");
    }
    pointers.into_iter().for_each(|(page, pointer)| reader.unfetch(offset(page), pointer));
    reader.end_read();
    for after in [rig.crash(Policy::Newest), rig.crash(Policy::Oldest)] {
        let mut s = after.open().unwrap().session().unwrap();
        for page in 2..=pages {
            let mut want = content(page, 1);
            if page <= 20 {
                want[8..15].copy_from_slice(b"changed");
            }
            let mut got = vec![0; PAGE];
            s.read(offset(page), &mut got).unwrap();
            assert!(got == want, "page {page} after a crash");
        }
    }
}

/// Writes the first bytes of `pages` of 512 bytes each; the database has `size` pages afterwards.
fn change_small(s: &mut Session, size: u32, pages: impl Iterator<Item = u32>, bytes: &[u8]) {
    s.begin_write().unwrap();
    let mut header = [0; 512];
    s.read(0, &mut header).unwrap();
    let counter = u32::from_be_bytes(header[24..28].try_into().unwrap()) + 1;
    header[..24].copy_from_slice(b"SQLite format 3\0\x02\0\x01\x01\0\x40\x20\x20");
    header[24..28].copy_from_slice(&counter.to_be_bytes());
    header[28..32].copy_from_slice(&size.to_be_bytes());
    header[92..96].copy_from_slice(&counter.to_be_bytes());
    s.write(0, &header).unwrap();
    pages.for_each(|page| s.write(u64::from(page - 1) * 512, bytes).unwrap());
    s.prepare().unwrap();
    s.commit(Full).unwrap();
    s.end_write();
    s.end_read();
}

#[test]
fn p17_the_last_block_of_the_region_is_flushed_no_further_than_it_goes() {
    // Failure: a page that comes back from the cold file, not at home yet, is noted as if a block had 4096 bytes; where blocks
    // are smaller, the next retirement flushes what lies behind them, or behind the region.
    let (dir, budget) = (tempfile::tempdir().unwrap(), 2 << 20);
    let path = |name: &str| dir.path().join(name);
    let region = Mapped::create(&path("region"), region_len(budget, MediumKind::Ram), MediumKind::Ram).unwrap();
    let store = Store::assemble(Parts {
        region: Region::Pmem(Arc::new(region)),
        cold: Arc::new(FileDisk::create(&path("cold")).unwrap()),
        base: Arc::new(PlainBase::new(&path("a.db"))),
        segment: Segment::private(mapping_len(budget, MediumKind::Ram)).unwrap(),
        liveness: Liveness::solo(),
        budget,
        verify: true,
    })
    .unwrap();
    let mut s = store.session().unwrap();
    let (pages, whole) = (5000, [7; 512]);
    change_small(&mut s, pages, 2..=pages, &whole);
    assert!(stat(&store, "pages_cold") > 2500, "it does not fit");
    // brings in the last pages, which went to the cold file, until no block is left
    let mut next = pages;
    loop {
        let all = stat(&store, "blocks_present") == stat(&store, "blocks_max");
        let free = stat(&store, "blocks_free") as u32;
        let n = if all && free < 800 { free } else { 400 };
        change_small(&mut s, pages, next - n + 1..=next, &[8]);
        next -= n;
        if all && n == free {
            break;
        }
    }
    let mut got = [0; 512];
    for page in 2..=pages {
        s.read(u64::from(page - 1) * 512, &mut got).unwrap();
        assert!(got[0] == if page > next { 8 } else { 7 } && got[1..] == whole[1..], "page {page}");
    }
}
