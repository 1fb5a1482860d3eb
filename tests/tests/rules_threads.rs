//! Rules of connections that several threads use, one after the other or beside each other: a fence waits for the flushes of its
//! own thread only (H1).
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::{Durability::Full, Error, MediumKind::Dax, Site, Store, mapping_len};
use nvlite_tests::hooked::{self, Op};
use nvlite_tests::rules::{PAGE, Rig, all_are, byte, commit, content, offset, put_header, stat};
use nvlite_tests::sim::Policy;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

#[test]
fn h1_shadow_blocks_are_durable_before_a_record_of_another_thread() {
    // Failure: a large transaction streams its pages in one thread, and is prepared and committed in another, whose fences do
    // not wait for them: after a power cut the record names blocks that hold what was there before.
    for prepares in [true, false] {
        let rig = Rig::new(Dax);
        let store = rig.open().unwrap();
        let mut s = store.session().unwrap();
        commit(&mut s, 8, 2..=8, 1, Full).unwrap();
        let write = move || {
            // what is rolled back leaves its bytes in the blocks
            s.begin_write().unwrap();
            (2..=50).for_each(|page| s.write(offset(page), &content(page, 9)).unwrap());
            s.end_write();
            s.begin_write().unwrap();
            put_header(&mut s, 50).unwrap();
            (2..=40).for_each(|page| s.write(offset(page), &content(page, 7)).unwrap());
            if prepares {
                s.prepare().unwrap(); // streams zeros, of the pages that were not written
            }
            s
        };
        let mut s = std::thread::spawn(write).join().unwrap();
        if !prepares {
            s.prepare().unwrap();
        }
        s.commit(Full).unwrap();
        assert!(stat(&store, "shadow_blocks") > 0);
        let mut after = rig.crash(Policy::Oldest).open().unwrap().session().unwrap();
        assert!(all_are(&mut after, 2..=40, 7).unwrap());
        let mut rest = [1; 10 * PAGE];
        assert_eq!(after.read(offset(41), &mut rest).unwrap(), rest.len());
        assert!(rest == [0; 10 * PAGE]);
    }
}

#[test]
fn h1_what_an_eviction_that_failed_has_cleared_is_durable() {
    // Failure: an eviction clears the entries of the versions behind the page that it takes away, and fails before it comes to a
    // fence. Another thread retires, and clears the page's own entry; after a power cut an older one is believed.
    let rig = Rig::new(Dax);
    let fails = Arc::new(AtomicBool::new(false));
    let mut parts = rig.parts(Segment::private(mapping_len(rig.budget(), Dax)).unwrap(), Liveness::solo());
    let its = fails.clone();
    parts.base = hooked::base(parts.base, move |op| match op {
        Op::Write if its.load(Ordering::SeqCst) => Err(Error::io(Path::new("base"), "write", io::Error::other("lost"))),
        _ => Ok(()),
    });
    let store = Store::assemble(parts).unwrap();
    let (mut s, mut old) = (store.session().unwrap(), store.session().unwrap());
    commit(&mut s, 20, 2..=20, 1, Full).unwrap();
    old.begin_read().unwrap();
    commit(&mut s, 20, 2..=18, 2, Full).unwrap();
    store.checkpoint().unwrap(); // clean now, with an older version behind each that has an entry
    fails.store(true, Ordering::SeqCst);
    let write = move || {
        // each needs a block, until room has to be made: clean pages go, and one that is to be written home cannot be
        let full = (21..=80).map(|page| commit(&mut s, page, [page], 3, Full)).find(Result::is_err);
        (s, full)
    };
    let (mut s, full) = std::thread::spawn(write).join().unwrap();
    assert!(full.is_some() && !rig.world.positions(Site::OlderEntry).is_empty(), "{full:?}");
    fails.store(false, Ordering::SeqCst);
    let size = u32::try_from(s.size().unwrap() / offset(2)).unwrap();
    let mut now = |page| byte(&mut s, page).unwrap();
    let now: Vec<_> = (2..=size).map(&mut now).collect();
    (0..4).for_each(|_| _ = store.checkpoint().unwrap());
    assert!(all_are(&mut old, 2..=20, 1).unwrap());
    let then = |deleted| -> nvlite_engine::Result<Vec<_>> {
        let mut t = rig.power_cut_without(deleted).open()?.session()?;
        (2..=size).map(|page| byte(&mut t, page)).collect()
    };
    assert_eq!(then(None).unwrap(), now);
    assert!(!then(Some(Site::OlderFence)).is_ok_and(|found| found == now), "nobody misses the fence");
}
