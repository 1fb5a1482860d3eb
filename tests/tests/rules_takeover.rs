//! Rules of what is taken over from the dead: after a repair, a retirement and a power cut, each page is found in its newest
//! place, wherever in its stores the dead writer stopped.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::{Durability::Full, MediumKind::Dax, Session, Store};
use nvlite_tests::processes::Processes;
use nvlite_tests::rules::{Rig, all_are, byte, commit};
use nvlite_tests::sim::Policy;
use std::sync::Arc;

/// A machine whose base is a stock file of `pages` pages, all full of 1.
fn stock(pages: u32) -> Rig {
    let rig = Rig::new(Dax);
    let store = rig.open().unwrap();
    commit(&mut store.session().unwrap(), pages, 2..=pages, 1, Full).unwrap();
    assert!(store.finish().unwrap());
    drop(store);
    [0, 1].into_iter().for_each(|medium| rig.world.renew(medium));
    rig
}

/// A connection of `store` that reads from now on.
fn reader(store: &Arc<Store>) -> Session {
    let mut reader = store.session().unwrap();
    reader.begin_read().unwrap();
    reader
}

/// What `pages` are full of for `store`.
fn found(store: &Arc<Store>, pages: impl IntoIterator<Item = u32>) -> Vec<Option<u8>> {
    let mut s = reader(store);
    pages.into_iter().map(|page| byte(&mut s, page).unwrap()).collect()
}

#[test]
fn p17_a_page_has_one_place_after_a_commit_in_place_was_finished() {
    // Failure: a commit in place makes a clean block the place of its page; the writer dies before it has stored there, and who
    // finishes the commit takes the dead one's pin for a reader's, and copies the page: two blocks, of one age, claim to be its
    // place, and recovery believes that of the higher number.
    for n in 0.. {
        let rig = stock(9);
        let processes = Processes::new(&rig).unwrap();
        let living = processes.start(1, |region| region).unwrap();
        let (dying, mortal) = processes.start_mortal(2).unwrap();
        let mut s = dying.session().unwrap();
        // each page in the next block, the last one's the highest; then a lower one comes free
        assert_eq!(found(&living, 2..=9), [Some(1); 8]);
        for byte in 2..=3 {
            let _reader = reader(&living);
            commit(&mut s, 9, [2], byte, Full).unwrap();
        }
        (0..2).for_each(|_| _ = living.checkpoint().unwrap());
        mortal.dies_after(n);
        let died = mortal.dies_in(move || {
            commit(&mut s, 9, [9], 4, Full).unwrap();
            s
        });
        processes.kill(2);
        living.checkpoint().unwrap();
        let now = found(&living, 2..=9);
        for policy in [Policy::Oldest, Policy::Newest] {
            let then = found(&rig.crash(policy).open().unwrap(), 2..=9);
            assert_eq!(then, now, "operation {n}");
        }
        if !died {
            return assert!(n > 8, "{n} operations");
        }
    }
}

#[test]
fn p17_a_page_has_one_place_after_a_copy_was_made_again() {
    // Failure: the writer dies between saying that a copy is its page's place and making it so; who finishes the commit makes
    // another one, and two blocks, of one age, claim to be the place.
    for n in 0.. {
        let rig = Rig::new(Dax);
        let processes = Processes::new(&rig).unwrap();
        let living = processes.start(1, |region| region).unwrap();
        let (dying, mortal) = processes.start_mortal(2).unwrap();
        let mut s = dying.session().unwrap();
        commit(&mut s, 4, 2..=4, 1, Full).unwrap();
        let mut old = reader(&living);
        mortal.dies_after(n);
        let died = mortal.dies_in(move || {
            commit(&mut s, 4, 2..=4, 2, Full).unwrap();
            s
        });
        processes.kill(2);
        living.checkpoint().unwrap();
        assert!(all_are(&mut old, 2..=4, 1).unwrap(), "operation {n}");
        let now = found(&living, 2..=4);
        for policy in [Policy::Oldest, Policy::Newest] {
            let then = found(&rig.crash(policy).open().unwrap(), 2..=4);
            assert_eq!(then, now, "operation {n}");
        }
        if !died {
            return assert!(n > 8, "{n} operations");
        }
    }
}
