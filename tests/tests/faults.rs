//! A disk that fails is worse than one that loses power: the program lives on and may believe what is not so. Here every write,
//! sync, growth and cut of the simulated files fails in turn, once or from then on, with an I/O error or for lack of room: of the
//! first format and of recovery, of transactions and checkpoints, and of the clean close.
//! The store must say so or get over it; what it answers afterwards must be right, and so must what the next process recovers,
//! with or without a power cut.

#![allow(clippy::panic)]

use nvlite_engine::MediumKind;
use nvlite_tests::sim::drive::{Db as _, Subject as _};
use nvlite_tests::sim::history::{Shape, Step};
use nvlite_tests::sim::nvlite::{Nvlite, NvliteDb};
use nvlite_tests::sim::{Fault, Image, Model, Policy, World};
use std::sync::Arc;

const SHAPE: Shape = Shape { steps: 40, max_pages: 90, reopens: 0, beside: 0, checkpoints: 8, large: 5, ..Shape::LONG };
const SHORT: Shape = Shape { steps: 8, checkpoints: 4, large: 3, ..SHAPE };

/// What is known of the content: at least `acknowledged`, at most the newest of the model.
#[derive(Clone)]
struct Known {
    model: Model,
    acknowledged: u64,
    /// Events before a close that nothing had failed before.
    closing: Option<usize>,
}

impl Known {
    fn check(&self, db: &mut NvliteDb, context: &str) -> u64 {
        let content = db.content().unwrap_or_else(|e| panic!("{context}: {e}"));
        self.found(&content, context)
    }

    fn found(&self, content: &[u8], context: &str) -> u64 {
        let found = self.model.identify(content, self.acknowledged, self.model.newest());
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
    let before = world.events();
    let image = world.crash_at(before);
    let mut db = subject.open(world).unwrap_or_else(|e| panic!("{context}: the next process: {e}"));
    let served = known.check(&mut db, &format!("{context}: the next process"));
    power_cuts(subject, &image, known, context);
    // what it has served must not go away, though it read it where a failed sync may have left it
    let known_now = Known { acknowledged: served, model: known.model.until(served), closing: None };
    power_cuts(subject, &world.crash_at(world.events()), &known_now, &format!("{context}: after the next process"));
    for i in 1..4 {
        let at = before + (world.events() - before) * i / 4;
        power_cuts(subject, &world.crash_at(at), known, &format!("{context}: {i} quarters of the next recovery"));
    }
    if let Some(events) = known.closing {
        power_cuts(subject, &world.crash_at(events), known, &format!("{context}: before the close"));
    }
}

fn power_cuts(subject: &Nvlite, image: &Image, known: &Known, context: &str) {
    for policy in [Policy::Oldest, Policy::Newest, Policy::Events(1), Policy::Units(2)] {
        let after = World::new(image.clone(), subject.kind, policy.clone());
        let context = format!("{context}: a power cut, {policy:?}");
        let mut db = subject.open(&after).unwrap_or_else(|e| panic!("{context}: {e}"));
        known.check(&mut db, &context);
    }
}

/// Opens, plays, reads and closes. Answers the first error; what was read before it is right.
fn live(subject: &Nvlite, world: &Arc<World>, steps: &[Step], known: &mut Known, context: &str) -> Result<(), String> {
    let mut db = subject.open(world)?;
    world.materialise();
    // what recovery has served must not go away
    known.acknowledged = known.found(&db.content()?, context);
    known.model = known.model.until(known.acknowledged);
    let mut error = play(&mut db, steps, known);
    // Reading goes on, or says that the region has failed; it is never wrong.
    match db.content() {
        Ok(content) => _ = known.found(&content, &format!("{context}: {error:?}")),
        Err(e) => error = error.or(Some(e)),
    }
    match error {
        // the process ends without a close, or closes what has failed
        Some(e) if known.model.newest().is_multiple_of(2) => Err(e),
        Some(e) => db.close().and(Err(e)),
        None => {
            known.closing = Some(world.events());
            db.close()
        }
    }
}

/// Where lives begin that a fault interrupts: a machine, and what is known of what is on it.
struct Start {
    name: &'static str,
    image: Image,
    policy: Policy,
    known: Known,
}

impl Start {
    fn all(subject: &Nvlite, steps: &[Step]) -> Vec<Start> {
        let new = || Known { model: Model::new(SHAPE.page_size), acknowledged: 0, closing: None };
        let world = World::new(subject.media(), subject.kind, Policy::Newest);
        let (mut db, mut known) = (subject.open(&world).expect("opens"), new());
        let played = play(&mut db, steps, &mut known);
        assert_eq!(played, None);
        let left = world.crash_at(world.events());
        vec![
            Start { name: "new", image: subject.media(), policy: Policy::Newest, known: new() },
            Start { name: "after a death", image: left.clone(), policy: Policy::Newest, known: known.clone() },
            Start { name: "after a power cut", image: left, policy: Policy::Units(3), known },
        ]
    }
}

/// Operations of a whole life fail in turn: after one, the one that is `step` further on.
fn fail_everywhere(kind: MediumKind, shape: Shape, seed: u64, step: impl Fn(u64) -> u64) {
    let subject = Nvlite { kind, budget: 160 << 10, finish: true, forges: false };
    let steps = shape.history(seed);
    let (mut failed, mut survived) = (0, 0);
    for start in Start::all(&subject, &steps) {
        for (errno, times) in [libc::EIO, libc::ENOSPC].into_iter().flat_map(|e| [(e, 1), (e, u64::MAX)]) {
            let mut after = 0;
            loop {
                let context =
                    format!("{kind:?}, {}, seed {seed}, error {errno} x {times} after {after} operations", start.name);
                let world = World::new(start.image.clone(), kind, start.policy.clone());
                let mut known = start.known.clone();
                world.fail(Some(Fault { after, errno, times }));
                let lived = live(&subject, &world, &steps, &mut known, &context);
                if world.struck() == 0 {
                    lived.unwrap_or_else(|e| panic!("{context}: nothing failed, and yet: {e}"));
                    break;
                }
                match &lived {
                    Err(_) => failed += 1,
                    Ok(()) => survived += 1,
                }
                assert!(
                    lived.is_err() || times == 1,
                    "{context}: a close that can write nothing says that all is well"
                );
                afterwards(&subject, &world, &known, &format!("{context}: {lived:?}"));
                after += step(after);
            }
        }
    }
    println!("{kind:?}: {failed} errors told, {survived} got over");
    assert!(failed > 0, "no fault was felt");
}

#[test]
fn every_operation_on_file_may_fail() {
    fail_everywhere(MediumKind::File, SHORT, 1, |_| 1);
    fail_everywhere(MediumKind::File, SHORT, 2, |_| 1);
}

#[test]
fn every_operation_beside_dax_may_fail() {
    fail_everywhere(MediumKind::Dax, SHORT, 1, |_| 1);
    fail_everywhere(MediumKind::Dax, SHORT, 2, |_| 1);
}

#[test]
fn operations_of_long_histories_may_fail() {
    for kind in [MediumKind::File, MediumKind::Dax] {
        fail_everywhere(kind, SHAPE, 1, |after| 1 + after / 8);
        fail_everywhere(kind, SHAPE, 2, |after| 1 + after / 8);
    }
}
