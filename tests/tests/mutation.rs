//! Is each flush, fence and sync of the engine needed, and would anybody notice if one were lost in a change? Here each site is
//! deleted in turn: its events persist nothing, and the crash simulator must find a state that is not recovered. A site that
//! survives is either one that the engine does not need, or a hole in the histories that are played.

#![allow(clippy::panic)]

use nvlite_engine::{MediumKind, Site};
use nvlite_tests::sim::drive::{Plan, explore, record};
use nvlite_tests::sim::history::Shape;
use nvlite_tests::sim::nvlite::Nvlite;

const PLAN: Plan = Plan { points: 80, singles: 3, random: 2, exhaust: 0, nest: 23, depth: 1 };
const SHORT: Shape = Shape { steps: 90, max_pages: 110, checkpoints: 25, reopens: 12, large: 6, ..Shape::LONG };

/// The first seed with which the loss of `site` is noticed, while without a loss all is well.
fn noticed(kind: MediumKind, site: Site, seeds: u64) -> Option<u64> {
    (0..seeds).find(|seed| {
        let subject = Nvlite { kind, budget: 160 << 10, finish: seed % 2 == 0 };
        let shape = if seed % 3 == 0 { Shape::TINY } else { SHORT };
        let recording = record(&subject, shape, *seed).unwrap_or_else(|e| panic!("{subject:?}, seed {seed}: {e}"));
        let lost = explore(&subject, &recording, shape, PLAN, *seed, Some(site)).is_err();
        if lost {
            let whole = explore(&subject, &recording, shape, PLAN, *seed, None);
            whole.unwrap_or_else(|e| panic!("{subject:?}, seed {seed}, nothing deleted: {e}"));
        }
        lost
    })
}

fn each_is_needed(kind: MediumKind, sites: &[Site], seeds: u64) {
    let mut survivors = Vec::new();
    for site in sites {
        match noticed(kind, *site, seeds) {
            Some(seed) => println!("{kind:?} without {site:?}: noticed with seed {seed}"),
            None => survivors.push(site),
        }
    }
    assert!(survivors.is_empty(), "{kind:?}: nobody misses {survivors:?}");
}

#[test]
fn each_site_on_dax_is_needed() {
    let sites = [
        Site::CommitRecord,
        Site::CommitFence,
        Site::RetireLines,
        Site::ShadowBlock,
        Site::Entry,
        Site::Superblock,
        Site::RecoverBlocks,
        Site::Homes,
        Site::Mark,
        Site::Cold,
    ];
    each_is_needed(MediumKind::Dax, &sites, 12);
}

#[test]
fn each_site_on_file_is_needed() {
    let sites = [Site::Batch, Site::Superblock, Site::Homes, Site::Mark, Site::Cold];
    each_is_needed(MediumKind::File, &sites, 12);
}
