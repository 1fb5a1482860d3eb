//! A crash simulator that finds nothing may be blind. Here it looks at toy stores of which we know what is wrong with them:
//! it must find each bug, find that each flush, fence and sync is needed, and find nothing in the toys that are right.

#![allow(clippy::panic)]

use nvlite_engine::{Disk, MediumKind, Site};
use nvlite_tests::sim::drive::{Failure, Plan, Report, explore, record};
use nvlite_tests::sim::history::Shape;
use nvlite_tests::sim::toy::{Bug, Toy, ToyMedium};
use nvlite_tests::sim::{Fault, Image, Policy, SimDisk, World};

const SHAPE: Shape = Shape { steps: 4, ..Shape::TINY };
const PLAN: Plan = Plan { points: usize::MAX, singles: 16, random: 6, exhaust: 100, nest: 11, depth: 2 };

fn run(toy: Toy, seed: u64, deleted: Option<Site>) -> Result<Report, Failure> {
    let recording = record(&toy, SHAPE, seed).expect("a toy works as long as nothing crashes");
    explore(&toy, &recording, SHAPE, PLAN, seed, deleted)
}

fn caught(toy: Toy, deleted: Option<Site>) -> bool {
    (0..20).any(|seed| run(toy, seed, deleted).is_err())
}

#[test]
fn toys_that_are_right_pass() {
    for medium in [ToyMedium::Memory, ToyMedium::Files] {
        let mut states = 0;
        for seed in 0..4 {
            let report = run(Toy { bug: Bug::None, medium }, seed, None).unwrap_or_else(|e| panic!("seed {seed}: {e}"));
            assert!(report.nested > 0, "recovery was crashed too");
            states += report.states;
        }
        assert!(states > 2000, "only {states} states were looked at");
    }
}

#[test]
fn each_bug_is_caught() {
    use Bug::{CarelessRecovery, EarlyReuse, MissingFence, NoChecksum, UnflushedRecord};
    for medium in [ToyMedium::Memory, ToyMedium::Files] {
        for bug in [UnflushedRecord, MissingFence, EarlyReuse, NoChecksum, CarelessRecovery] {
            // The next sync of the file covers what recovery wrote: here it is no bug.
            if (bug, medium) == (CarelessRecovery, ToyMedium::Files) {
                continue;
            }
            assert!(caught(Toy { bug, medium }, None), "{bug:?} on {medium:?} was not found");
        }
    }
}

#[test]
fn each_site_is_needed() {
    for site in [Site::CommitRecord, Site::CommitFence, Site::RetireLines, Site::RetireFence, Site::RecoverRanges] {
        let toy = Toy { bug: Bug::None, medium: ToyMedium::Memory };
        assert!(caught(toy, Some(site)), "without {site:?} nothing was found");
    }
    for site in [Site::Batch, Site::Homes] {
        let toy = Toy { bug: Bug::None, medium: ToyMedium::Files };
        assert!(caught(toy, Some(site)), "without {site:?} nothing was found");
    }
}

#[test]
fn what_a_failed_sync_lost_no_later_sync_brings_back() {
    // Failure: the tester forgives who tries a failed sync again, and takes what was written before it for persistent.
    let mut image = Image::new();
    image.add_file();
    let world = World::new(image, MediumKind::File, Policy::Newest);
    let file = SimDisk::new(&world, 0);
    let left = |policy| {
        let (mut bytes, after) = ([0; 2], World::new(world.crash_at(world.events()), MediumKind::File, policy));
        let found = SimDisk::new(&after, 0);
        found.read_at(0, &mut bytes[..1]).and_then(|_| found.read_at(512, &mut bytes[1..])).expect("it can be read");
        bytes
    };
    file.write_at(0, &[1; 1024]).and_then(|()| file.sync(Site::Batch)).expect("nothing fails");
    file.write_at(0, &[2; 1024]).expect("nothing fails");
    world.fail(Some(Fault { after: 0, errno: libc::EIO, times: 1 }));
    file.sync(Site::Batch).expect_err("it fails");
    file.write_at(512, &[2; 512]).and_then(|()| file.sync(Site::Batch)).expect("it does not fail again");
    assert_eq!(left(Policy::Oldest), [1, 2], "what was not written again is gone");
    assert_eq!(left(Policy::Newest), [2, 2], "or it is not");
    file.write_at(0, &[2; 512]).and_then(|()| file.sync(Site::Batch)).expect("nothing fails");
    assert_eq!(left(Policy::Oldest), [2, 2]);
}
