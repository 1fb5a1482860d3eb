//! A disk that fails is worse than one that loses power: the program lives on and may believe what is not so. Here every write,
//! sync, growth and cut of the simulated files fails in turn, once or from then on, with an I/O error or for lack of room.
//! The store must say so or get over it; what it answers afterwards must be right, and so must what the next process recovers,
//! with or without a power cut.

#![allow(clippy::panic)]

use nvlite_engine::MediumKind;
use nvlite_tests::sim::drive::{Db as _, Subject as _};
use nvlite_tests::sim::history::{Shape, Step};
use nvlite_tests::sim::nvlite::{Nvlite, NvliteDb};
use nvlite_tests::sim::{Fault, Model, Policy, World};
use std::sync::Arc;

const SHAPE: Shape = Shape { steps: 40, max_pages: 90, reopens: 0, beside: 0, checkpoints: 8, large: 5, ..Shape::LONG };

/// What is known of the content: at least `acknowledged`, at most the newest of the model.
struct Known {
    model: Model,
    acknowledged: u64,
}

impl Known {
    fn check(&self, db: &mut NvliteDb, context: &str) -> u64 {
        let content = db.content().unwrap_or_else(|e| panic!("{context}: {e}"));
        let found = self.model.identify(&content, self.acknowledged, self.model.newest());
        found.unwrap_or_else(|e| panic!("{context}: {e}"))
    }
}

/// Plays until the first error; answers it. A transaction that failed may be there or not: the model has it as submitted.
fn play(db: &mut NvliteDb, steps: &[Step], known: &mut Known) -> Option<String> {
    for step in steps {
        let done = match step {
            Step::Commit(tx, durable) => {
                let submission = known.model.submission(tx);
                let done = db.commit(&submission, *durable);
                known.model.push(tx);
                if done.is_ok() && *durable {
                    known.acknowledged = submission.number;
                }
                done
            }
            Step::Abort(tx) => db.abort(&known.model.submission(tx)),
            Step::Checkpoint => db.checkpoint(),
            Step::Pin(reader) => db.pin(*reader),
            Step::Unpin(reader) => {
                db.unpin(*reader);
                Ok(())
            }
            Step::Beside(_) | Step::Die(..) | Step::Reopen => Ok(()),
        };
        if let Err(e) = done {
            return Some(e);
        }
    }
    None
}

/// The next process finds the world as it is, and one after a power cut finds what that leaves.
fn afterwards(subject: &Nvlite, world: &Arc<World>, known: &Known, context: &str) {
    world.fail(None);
    let image = world.crash_at(world.events());
    let mut db = subject.open(world).unwrap_or_else(|e| panic!("{context}: the next process: {e}"));
    known.check(&mut db, &format!("{context}: the next process"));
    for policy in [Policy::Oldest, Policy::Newest, Policy::Events(1), Policy::Units(2)] {
        let after = World::new(image.clone(), subject.kind, policy.clone());
        let context = format!("{context}: a power cut, {policy:?}");
        let mut db = subject.open(&after).unwrap_or_else(|e| panic!("{context}: {e}"));
        known.check(&mut db, &context);
    }
}

fn fail_everywhere(kind: MediumKind, seed: u64) {
    let subject = Nvlite { kind, budget: 160 << 10, finish: true };
    let steps = SHAPE.history(seed);
    let (mut failed, mut survived) = (0, 0);
    for errno in [libc::EIO, libc::ENOSPC] {
        for times in [1, u64::MAX] {
            let mut after = 0;
            loop {
                let context = format!("{kind:?}, seed {seed}, error {errno} x {times} after {after} operations");
                let world = World::new(subject.media(), kind, Policy::Newest);
                let mut db = subject.open(&world).unwrap_or_else(|e| panic!("{context}: {e}"));
                let mut known = Known { model: Model::new(SHAPE.page_size), acknowledged: 0 };
                world.fail(Some(Fault { after, errno, times }));
                let error = play(&mut db, &steps, &mut known);
                if error.is_none() && world.struck() == 0 {
                    break;
                }
                if error.is_some() {
                    failed += 1
                } else {
                    survived += 1
                }
                // Reading goes on, or says that the region has failed; it is never wrong.
                if let Ok(content) = db.content() {
                    let found = known.model.identify(&content, known.acknowledged, known.model.newest());
                    found.unwrap_or_else(|e| panic!("{context}: {error:?}: {e}"));
                }
                drop(db);
                afterwards(&subject, &world, &known, &format!("{context}: {error:?}"));
                after += 1 + after / 8;
            }
        }
    }
    println!("{kind:?}: {failed} errors told, {survived} got over");
    assert!(failed > 0, "no fault was felt");
}

#[test]
fn every_operation_on_file_may_fail() {
    fail_everywhere(MediumKind::File, 1);
    fail_everywhere(MediumKind::File, 2);
}

#[test]
fn every_operation_beside_dax_may_fail() {
    fail_everywhere(MediumKind::Dax, 1);
    fail_everywhere(MediumKind::Dax, 2);
}
