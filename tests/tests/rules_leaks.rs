//! What fails gives back what it took: blocks and virtblocks are lost to no error, however often it is met.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{Durability::Full, Error, MediumKind, Store, mapping_len};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::rules::{Rig, commit, stat};
use nvlite_tests::sim::Policy;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// A store, and whether writes to its cold file fail for lack of room.
fn opened(rig: &Rig) -> (Arc<Store>, Arc<AtomicBool>) {
    let full = Arc::new(AtomicBool::new(false));
    let its = full.clone();
    let mut parts = rig.parts(Segment::private(mapping_len(rig.budget(), rig.kind())).unwrap(), Liveness::solo());
    parts.cold = hooked::disk(parts.cold, move |op| match op {
        Op::Write if its.load(Ordering::SeqCst) => {
            Err(Error::Full { path: "cold".into(), what: "a write", cause: "no space left".into() })
        }
        _ => Ok(()),
    });
    (Store::assemble(parts).unwrap(), full)
}

/// Does over and over what fails, and looks for what is lost.
fn loses_nothing(store: &Arc<Store>, mut fails: impl FnMut() -> bool) {
    let blocks = || stat(store, "blocks_present") - stat(store, "blocks_free");
    let taken = || (stat(store, "cold_blocks"), stat(store, "virtblocks_free"), blocks());
    (0..3).for_each(|_| assert!(fails(), "it has to fail")); // what waits for a grace period settles
    let before = taken();
    (0..5).for_each(|_| assert!(fails(), "it has to fail"));
    assert_eq!(taken(), before, "cold blocks, free virtblocks, blocks");
}

#[test]
fn a_shadow_block_that_cannot_be_written_is_given_back() {
    let (store, full) = opened(&Rig::new(MediumKind::File));
    let mut s = store.session().unwrap();
    commit(&mut s, 8, 2..=8, 1, Full).unwrap();
    full.store(true, Ordering::SeqCst);
    loses_nothing(&store, || commit(&mut s, 200, 2..=200, 2, Full).is_err());
}

#[test]
fn a_home_that_cannot_be_saved_costs_nothing() {
    let rig = Rig::new(MediumKind::File);
    let store = rig.open().unwrap();
    commit(&mut store.session().unwrap(), 40, 2..=40, 1, Full).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let (store, full) = opened(&rig.crash(Policy::Newest));
    let (mut s, mut old) = (store.session().unwrap(), store.session().unwrap());
    old.begin_read().unwrap();
    commit(&mut s, 200, 2..=200, 3, Full).unwrap(); // whole pages: it replaces homes unseen
    full.store(true, Ordering::SeqCst);
    loses_nothing(&store, || store.checkpoint().is_err());
}

#[test]
fn a_version_that_cannot_be_moved_costs_nothing() {
    let (store, full) = opened(&Rig::new(MediumKind::Dax));
    let mut s = store.session().unwrap();
    full.store(true, Ordering::SeqCst);
    let mut readers = Vec::new();
    // each reader keeps a version of each page, until there is no room for another one
    while commit(&mut s, 8, 2..=8, readers.len() as u8, Full).is_ok() {
        let mut reader = store.session().unwrap();
        reader.begin_read().unwrap();
        readers.push(reader);
        assert!(readers.len() < 200, "there is room for ever");
    }
    loses_nothing(&store, || commit(&mut s, 8, 2..=8, 9, Full).is_err());
    assert_eq!(stat(&store, "cold_blocks"), 0);
}

#[test]
fn a_page_that_cannot_be_read_costs_nothing() {
    let rig = Rig::new(MediumKind::File);
    let store = rig.open().unwrap();
    commit(&mut store.session().unwrap(), 40, 2..=40, 1, Full).unwrap();
    store.checkpoint().unwrap();
    drop(store);
    let after = rig.crash(Policy::Newest);
    let mut parts = after.parts(Segment::private(mapping_len(rig.budget(), rig.kind())).unwrap(), Liveness::solo());
    let unreadable = Arc::new(AtomicBool::new(false));
    let its = unreadable.clone();
    parts.base = hooked::base(parts.base, move |op| match op {
        Op::Read if its.load(Ordering::SeqCst) => {
            Err(Error::io("base".as_ref(), "read", std::io::Error::other("lost")))
        }
        _ => Ok(()),
    });
    let store = Store::assemble(parts).unwrap();
    let mut s = store.session().unwrap();
    commit(&mut s, 40, [2], 2, Full).unwrap(); // page 1 is in
    unreadable.store(true, Ordering::SeqCst);
    loses_nothing(&store, || commit(&mut s, 40, [30], 2, Full).is_err());
}

#[test]
fn a_page_for_which_room_has_to_be_made_costs_nothing() {
    let store = Rig::new(MediumKind::File).open().unwrap();
    let mut s = store.session().unwrap();
    let used = || stat(&store, "virtblocks_present") - stat(&store, "virtblocks_free");
    let pages = 4 * 160;
    commit(&mut s, pages, 2..=pages, 1, Full).unwrap();
    assert!(u64::from(pages) > 3 * stat(&store, "blocks_max"));
    // the most that are in use while all pages come in, some at a time
    let mut round = |byte| {
        let turn = |page| commit(&mut s, pages, page..page + 20, byte, Full).map(|()| used()).unwrap();
        (2..=pages - 20).step_by(20).map(turn).max().unwrap()
    };
    round(2);
    let before = round(3);
    (4..30).for_each(|byte| _ = round(byte));
    let after = round(30);
    assert!(after < 2 * before, "{before} virtblocks in use, then {after}");
}
