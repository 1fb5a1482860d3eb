//! Rules of what is taken over from the dead: after a repair, a retirement and a power cut, each page is found in its newest
//! place, wherever in its stores the dead writer stopped.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::{Durability::Full, MediumKind::Dax, Session, Site, Store};
use nvlite_tests::processes::Processes;
use nvlite_tests::rules::{PAGE, Rig, all_are, byte, commit, offset, put_header, stat};
use nvlite_tests::sim::{Fault, Policy, mix};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;
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

/// Retires what there is, and looks at what is found after a power cut, or the death of all, at any point of that that matters:
/// it must be what is found now.
fn retires(rig: &Rig, living: &Arc<Store>, pages: RangeInclusive<u32>, what: &str) {
    let (now, from) = (found(living, pages.clone()), rig.world.events());
    (0..3).for_each(|_| _ = living.checkpoint().unwrap());
    let sites = [Site::RetireFence, Site::SuperblockFence, Site::ClearEntry, Site::ClearFence].into_iter();
    let points: BTreeSet<usize> = sites.flat_map(|site| rig.world.positions(site)).filter(|at| *at >= from).collect();
    let mut replay = rig.world.replay(None);
    for at in points {
        while replay.position() <= at && replay.step() {}
        for policy in [Policy::Oldest, Policy::Newest] {
            let after = rig.from_image(replay.image().clone(), policy.clone()).open();
            let after = after.unwrap_or_else(|error| unreachable!("{what}, event {at}, {policy:?}: {error}"));
            assert_eq!(found(&after, pages.clone()), now, "{what}, event {at}, {policy:?}");
        }
    }
}

/// Takes the writer lock of the dead over, and repairs.
fn repairs(living: &Arc<Store>) {
    let mut s = living.session().unwrap();
    if s.begin_write().is_err() {
        s.end_read(); // it had pinned before the repair
        s.begin_write().unwrap();
    }
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
        let before = stat(&living, "pages_in_place");
        mortal.dies_after(n);
        let died = mortal.dies_in(move || {
            commit(&mut s, 9, [9], 4, Full).unwrap();
            s
        });
        processes.kill(2);
        let (in_place, copied) = (stat(&living, "pages_in_place") > before, stat(&living, "pages_copied"));
        repairs(&living);
        // a copy takes a block, and nobody reserved one
        assert!(!in_place || stat(&living, "pages_copied") == copied, "point {n}: copied, for the pin of the dead");
        retires(&rig, &living, 2..=9, &format!("point {n}"));
        if !died {
            return assert!(n > 8, "{n} points");
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
        repairs(&living);
        retires(&rig, &living, 2..=4, &format!("point {n}"));
        assert!(all_are(&mut old, 2..=4, 1).unwrap(), "point {n}");
        if !died {
            return assert!(n > 8, "{n} points");
        }
    }
}

#[test]
fn p17_a_page_has_one_place_after_it_was_brought_in_again() {
    // Failure: the writer dies between saying that a block is the place of a page that it brings in from the cold file, and
    // making it so; the next one brings it in again, and two blocks, of one age, claim to be the place.
    for n in 0.. {
        let rig = Rig::new(Dax);
        let processes = Processes::new(&rig).unwrap();
        let living = processes.start(1, |region| region).unwrap();
        let (dying, mortal) = processes.start_mortal(2).unwrap();
        let mut s = dying.session().unwrap();
        commit(&mut s, 90, 2..=90, 1, Full).unwrap();
        assert!(stat(&living, "cold_blocks") > 0);
        mortal.dies_after(n);
        let died = mortal.dies_in(move || {
            commit(&mut s, 90, [90], 2, Full).unwrap();
            s
        });
        processes.kill(2);
        repairs(&living);
        commit(&mut living.session().unwrap(), 90, [90], 3, Full).unwrap();
        retires(&rig, &living, 2..=90, &format!("point {n}"));
        if !died {
            return assert!(n > 8, "{n} points");
        }
    }
}

#[test]
fn p17_entries_of_pages_that_came_home_are_cleared_whoever_dies() {
    // Failure: pages of a large transaction come home from the cold file, and who wrote them dies before the entries of their
    // older blocks are cleared, or flushed. Who retires the transaction finds the pages at home, or the entries cleared, and
    // leaves them alone; after a power cut the older blocks are believed.
    for n in 0.. {
        let rig = Rig::new(Dax);
        let processes = Processes::new(&rig).unwrap();
        let living = processes.start(1, |region| region).unwrap();
        let (dying, mortal) = processes.start_mortal(2).unwrap();
        let mut s = dying.session().unwrap();
        (2..=65).step_by(8).for_each(|first| commit(&mut s, 65, first..first + 8, 1, Full).unwrap());
        living.checkpoint().unwrap();
        let mut old = reader(&living);
        commit(&mut s, 65, 30..=65, 2, Full).unwrap();
        assert!(stat(&living, "cold_blocks") > 0);
        drop(s);
        mortal.dies_after(n);
        let died = mortal.dies_in(move || {
            dying.checkpoint().unwrap();
            dying
        });
        processes.kill(2);
        living.checkpoint().unwrap();
        assert_eq!(stat(&living, "jci_low_water"), stat(&living, "jci_published"));
        assert!(all_are(&mut old, 2..=65, 1).unwrap(), "point {n}");
        let after = rig.crash(Policy::Oldest).open().unwrap();
        let mut s = reader(&after);
        assert!(all_are(&mut s, 2..=29, 1).unwrap() && all_are(&mut s, 30..=65, 2).unwrap(), "point {n}");
        if !died {
            return assert!(n > 8, "{n} points");
        }
    }
}

#[test]
fn p17_what_a_half_applied_commit_superseded_is_kept_until_it_is_durable() {
    // Failure: who takes over knows the commit in progress, but lets what it superseded go as soon as the one before is retired:
    // the old place's entry is cleared under the very fence that makes the new place durable.
    let diff = |s: &mut Session| {
        s.begin_write().unwrap();
        put_header(s, 4).unwrap();
        s.write(offset(2) + 10, b"new").unwrap();
        s.prepare().unwrap();
        s.commit(Full).unwrap();
        s.end_write();
        s.end_read();
    };
    let page_two = |store: &Arc<Store>| {
        let mut got = vec![0; PAGE];
        reader(store).read(offset(2), &mut got).unwrap();
        got
    };
    for n in 0.. {
        let rig = Rig::new(Dax);
        let processes = Processes::new(&rig).unwrap();
        let living = processes.start(1, |region| region).unwrap();
        let (dying, mortal) = processes.start_mortal(2).unwrap();
        let mut s = dying.session().unwrap();
        commit(&mut s, 4, 2..=4, 1, Full).unwrap();
        let lap = |s: &mut Session| {
            let before = stat(&living, "retirements");
            (0..).find(|n| {
                commit(s, 4, [3], *n as u8, Full).unwrap();
                stat(&living, "retirements") > before
            });
        };
        lap(&mut s);
        // all of that is retired and attested, and nothing of it at home
        rig.world.fail(Some(Fault { after: 0, errno: libc::ENOSPC, times: u64::MAX }));
        assert!(living.checkpoint().is_err());
        rig.world.fail(None);
        assert_eq!(stat(&living, "jci_low_water"), stat(&living, "jci_published"));
        let mut reader = reader(&living);
        let pointer = reader.fetch(offset(2), PAGE).unwrap().unwrap(); // nobody may store there: the page is copied
        reader.end_read();
        mortal.dies_after(n);
        let died = mortal.dies_in(move || {
            diff(&mut s);
            s
        });
        processes.kill(2);
        _ = reader.begin_write(); // repairs; its snapshot may not be the newest any more
        reader.end_read();
        reader.unfetch(offset(2), pointer);
        let from = rig.world.events();
        lap(&mut reader);
        let now = page_two(&living);
        let fence = rig.world.positions(Site::CommitFence).into_iter().rfind(|at| *at >= from).unwrap();
        for policy in (0..24).map(Policy::Units) {
            let after = rig.from_image(rig.world.crash_at(fence), policy.clone()).open();
            let after = after.unwrap_or_else(|error| unreachable!("point {n}, {policy:?}: {error}"));
            assert!(page_two(&after) == now, "point {n}, {policy:?}");
        }
        if !died {
            return assert!(n > 5, "{n} points");
        }
    }
}

/// The `n`-th of the numbers that a seed stands for, below `most`.
fn drawn(seed: u64, n: u64, most: u64) -> u64 {
    mix(seed, n) % most
}

/// A writer that readers make keep old versions dies at some point of many commits; another process takes over and retires.
/// Wherever the power fails during that, what it found is found again.
fn takes_over_after_a_death(seed: u64) {
    const SIZE: u32 = 75;
    let rig = Rig::new(Dax);
    let processes = Processes::new(&rig).unwrap();
    let living = processes.start(1, |region| region).unwrap();
    let (dying, mortal) = processes.start_mortal(2).unwrap();
    let mut s = dying.session().unwrap();
    commit(&mut s, SIZE, 2..=SIZE, 1, Full).unwrap();
    let mut readers: Vec<_> = (0..3).map(|_| living.session().unwrap()).collect();
    mortal.dies_after(drawn(seed, 0, 12_000));
    let died = mortal.dies_in(move || {
        for i in 1..=400 {
            let x = drawn(seed, i, 1 << 40);
            let reader = &mut readers[(x % 3) as usize];
            match x >> 4 & 3 {
                0 => {
                    reader.end_read();
                    reader.begin_read().unwrap();
                }
                1 => reader.end_read(),
                _ => {}
            }
            let pages = (0..1 + (x >> 8) % 5).map(|j| 2 + drawn(x, j, u64::from(SIZE) - 1) as u32);
            _ = commit(&mut s, SIZE, pages.collect::<Vec<_>>(), (2 + i % 250) as u8, Full); // room may be short
        }
        (s, readers)
    });
    processes.kill(2);
    if !died {
        return;
    }
    repairs(&living);
    retires(&rig, &living, 2..=SIZE, &format!("seed {seed}"));
}

#[test]
fn p17_entries_are_cleared_in_order_after_a_repair() {
    // Failure: of a page's blocks that are to be free, a younger one's entry is cleared before an older one's, or is taken for
    // cleared because the dead writer had stored that and not flushed it, and the older one is believed after a power cut.
    let asked = |name: &str, default| std::env::var(name).ok().and_then(|n| n.parse().ok()).unwrap_or(default);
    let first = asked("NVLITE_CRASH_FIRST", 0);
    (first..first + asked("NVLITE_CRASH_SEEDS", 40)).for_each(takes_over_after_a_death);
}

/// A process that lives, beside one that has died in front of the `n`-th operation of a checkpoint, if there are as many.
fn dies_in_checkpoint(processes: &Processes, n: u64) -> (Arc<Store>, bool) {
    let living = processes.start(1, |region| region).unwrap();
    let (dying, mortal) = processes.start_mortal(2).unwrap();
    let mut s = dying.session().unwrap();
    (1..=3).for_each(|byte| commit(&mut s, 4, 2..=4, byte, Full).unwrap());
    mortal.dies_after(n);
    let died = mortal.dies_in(move || dying.checkpoint().map(|_| s));
    processes.kill(2);
    (living, died)
}

#[test]
fn p13_a_superblock_that_the_dead_left_is_durable_before_the_other_is_written_over() {
    // Failure: who dies before the superblock that it wrote is durable leaves one that reads well. The next is written over the
    // other copy, and a power cut takes both.
    for (n, all) in (0..).flat_map(|n| [(n, false), (n, true)]) {
        let rig = Rig::new(Dax);
        let processes = Processes::new(&rig).unwrap();
        let (living, died) = dies_in_checkpoint(&processes, n);
        let from = rig.world.events();
        if all {
            processes.kill(1);
            rig.open().unwrap();
        } else {
            living.checkpoint().unwrap();
        }
        let sites = [Site::Superblock, Site::SuperblockFence].into_iter();
        let points: BTreeSet<usize> =
            sites.flat_map(|site| rig.world.positions(site)).filter(|at| *at >= from).collect();
        for at in points {
            let lots = (0..4).map(|lot| Policy::Units(mix(n, lot)));
            for policy in lots.chain([Policy::Oldest, Policy::Newest]) {
                let what = format!("operation {n}, all dead: {all}, event {at}, {policy:?}");
                let after = rig.from_image(rig.world.crash_at(at), policy).open();
                let after = after.unwrap_or_else(|error| unreachable!("{what}: {error}"));
                assert_eq!(found(&after, 2..=4), [Some(3); 3], "{what}");
            }
        }
        if all && !died {
            return assert!(n > 4, "{n} operations");
        }
    }
}
