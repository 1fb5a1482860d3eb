//! Drives a store through a history, crashes it everywhere, and checks what it recovers.

use super::history::{Death, Shape, Step};
use super::image::Image;
use super::model::{Model, Submission};
use super::oracle::{Grain, Policy, mix};
use super::world::World;
use nvlite_engine::{MediumKind, Site};
use std::collections::HashMap;
use std::fmt;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

/// A kind of store that can be crashed.
pub trait Subject {
    /// An open store.
    type Db: Db;
    /// Its media, new and empty.
    fn media(&self) -> Image;
    /// What its memory claims to be.
    fn kind(&self) -> MediumKind;
    /// Opens what lies on the media of `world`: recovers it, or makes it if there is nothing.
    fn open(&self, world: &Arc<World>) -> Result<Self::Db, String>;
    /// As [`open`](Self::open), for other processes to open it, too.
    ///
    /// # Errors
    /// As there.
    fn open_shared(&self, world: &Arc<World>) -> Result<Self::Db, String> {
        self.open(world)
    }
}

/// An open store.
pub trait Db {
    /// Commits; durable when it returns, if asked for.
    fn commit(&mut self, submission: &Submission, durable: bool) -> Result<(), String>;
    /// All bytes of the newest state.
    fn content(&mut self) -> Result<Vec<u8>, String>;
    /// Does everything of a commit but the commit.
    fn abort(&mut self, _submission: &Submission) -> Result<(), String> {
        Ok(())
    }
    /// Commits, durably; before that, when everything is prepared, another connection reads and asks for a checkpoint.
    fn commit_beside(&mut self, submission: &Submission) -> Result<(), String> {
        self.commit(submission, true)
    }
    /// Another process begins to commit and dies, if it comes so far; then what it left is brought in order. `None` if
    /// this kind of store has no processes.
    fn die(&mut self, _submission: &Submission, _death: Death) -> Result<Option<Left>, String> {
        Ok(None)
    }
    /// Reader `reader` begins.
    fn pin(&mut self, _reader: usize) -> Result<(), String> {
        Ok(())
    }
    /// What it sees; `None` if this store has no readers.
    fn seen(&mut self, _reader: usize) -> Result<Option<Vec<u8>>, String> {
        Ok(None)
    }
    /// It ends.
    fn unpin(&mut self, _reader: usize) {}
    /// What `nvlite_checkpoint()` does.
    fn checkpoint(&mut self) -> Result<(), String> {
        Ok(())
    }
    /// Closes cleanly.
    fn close(self) -> Result<(), String>
    where
        Self: Sized,
    {
        Ok(())
    }
}

/// What a process that died has left.
pub struct Left {
    /// All bytes, as the next writer finds them.
    pub content: Vec<u8>,
    /// It had been told that its commit is durable.
    pub acknowledged: bool,
    /// Whether what is served is durable.
    pub durable: bool,
}

/// How much to explore.
#[derive(Clone, Copy, Debug)]
pub struct Plan {
    /// Most points of the log to crash at; all if it has fewer.
    pub points: usize,
    /// Most recent events to leave out, to keep alone, and to cut at, one by one.
    pub singles: usize,
    /// States by lot, of each kind.
    pub random: u64,
    /// Most states to visit at one point by going through all that recovery can tell apart: of all granules or, where
    /// those are more, of all lines. If lines are more, too, only samples are seen.
    pub exhaust: usize,
    /// Recovery is crashed too in 1 of this many states; 0 for never.
    pub nest: u64,
    /// How deep.
    pub depth: usize,
}

impl Plan {
    /// Everything, for tiny histories.
    pub const TINY: Plan = Plan { points: usize::MAX, singles: 12, random: 4, exhaust: 64, nest: 97, depth: 2 };
    /// All states of the tiniest histories.
    pub const WHOLE: Plan = Plan { points: usize::MAX, singles: 0, random: 20, exhaust: 5000, nest: 97, depth: 1 };
    /// Samples, for long ones.
    pub const LONG: Plan = Plan { points: 100, singles: 3, random: 2, exhaust: 0, nest: 97, depth: 1 };

    fn inner(self) -> Plan {
        Plan { points: 12, singles: 3, random: 1, exhaust: 0, nest: self.nest * 8, depth: self.depth - 1 }
    }
}

/// What was explored.
#[derive(Clone, Copy, Debug, Default)]
pub struct Report {
    /// Points of logs.
    pub points: usize,
    /// Crashed states that were recovered.
    pub states: usize,
    /// Those of them that were left by a crash of recovery.
    pub nested: usize,
    /// Points all of whose states that recovery can tell apart were recovered from, by granules or sectors.
    pub finished: usize,
    /// The same by lines.
    pub finished_by_lines: usize,
    /// Points with more states than the plan has room for.
    pub sampled: usize,
    /// Most units that were open at one point.
    pub open: usize,
}

/// At each depth, the number of events before the crash and the policy.
type Way = Vec<(usize, Policy)>;

/// A crash that is explored.
#[derive(Clone, Copy)]
struct Crash<'a> {
    /// What it may leave.
    image: &'a Image,
    /// Events before it.
    at: usize,
    /// What the database contained.
    model: &'a Model,
    plan: Plan,
}

/// A state from which the store did not recover, with what is needed to get there again.
#[derive(Debug)]
pub struct Failure {
    /// At each depth, the number of events before the crash and the policy.
    pub way: Way,
    /// What is wrong.
    pub what: String,
    /// What happened before the first crash.
    pub trace: String,
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (events, policy) in &self.way {
            write!(f, "crash after {events} events, {policy:?}: ")?;
        }
        write!(f, "{}\nafter\n{}", self.what, self.trace)
    }
}

struct Explorer<'a, S> {
    subject: &'a S,
    shape: Shape,
    seed: u64,
    deleted: Option<Site>,
    report: Report,
}

/// A store that was driven through a history, and what was recorded.
pub struct Recording {
    /// The machine.
    pub world: Arc<World>,
    /// What the database contained after each transaction.
    pub model: Model,
}

/// Drives a new store through the history of `shape` and `seed`, and closes it.
///
/// # Errors
/// If the store fails or answers wrongly while nothing crashes.
pub fn record<S: Subject>(subject: &S, shape: Shape, seed: u64) -> Result<Recording, String> {
    let world = World::new(subject.media(), subject.kind(), Policy::Newest);
    let mut db = Some(subject.open_shared(&world)?);
    let mut model = Model::new(shape.page_size);
    let mut pinned: HashMap<usize, Vec<u8>> = HashMap::new();
    for (i, step) in shape.history(seed).iter().enumerate() {
        let at = |e: String| format!("step {i} {}: {e}", name(step));
        if matches!(step, Step::Reopen) {
            pinned.clear();
            db.take().map_or(Ok(()), Db::close).map_err(at)?;
            db = Some(subject.open_shared(&world).map_err(at)?);
        }
        let db = db.as_mut().ok_or("closed")?;
        take_step(db, &world, &mut model, &mut pinned, step).map_err(at)?;
    }
    if let Some(mut db) = db {
        let newest = model.newest();
        model.identify(&db.content()?, newest, newest)?;
        db.close()?;
    }
    Ok(Recording { world, model })
}

fn name(step: &Step) -> String {
    match step {
        Step::Commit(tx, durable) => {
            format!("commit({} writes, {} pages, durable {durable})", tx.writes.len(), tx.pages)
        }
        Step::Beside(tx) => format!("commit({} writes, {} pages) beside others", tx.writes.len(), tx.pages),
        Step::Die(tx, death) => format!("{death:?}, commit({} writes)", tx.writes.len()),
        Step::Abort(tx) => format!("abort({} writes)", tx.writes.len()),
        other => format!("{other:?}"),
    }
}

fn take_step<D: Db>(
    db: &mut D,
    world: &World,
    model: &mut Model,
    pinned: &mut HashMap<usize, Vec<u8>>,
    step: &Step,
) -> Result<(), String> {
    match step {
        Step::Commit(tx, durable) => {
            let submission = model.submission(tx);
            world.submitted(submission.number);
            db.commit(&submission, *durable)?;
            model.push(tx);
            if *durable {
                world.acknowledged(submission.number);
            }
        }
        Step::Beside(tx) => {
            let submission = model.submission(tx);
            world.submitted(submission.number);
            db.commit_beside(&submission)?;
            model.push(tx);
            world.acknowledged(submission.number);
        }
        Step::Die(tx, death) => {
            let submission = model.submission(tx);
            let number = submission.number;
            world.submitted(number);
            if let Some(left) = db.die(&submission, *death)? {
                model.push(tx);
                let found = model.identify(&left.content, number - u64::from(!left.acknowledged), number)?;
                if left.durable {
                    world.acknowledged(found); // either way it was served
                }
                if found < number {
                    model.pop();
                }
            }
        }
        Step::Abort(tx) => db.abort(&model.submission(tx))?,
        Step::Pin(reader) => {
            db.pin(*reader)?;
            if let Some(seen) = db.seen(*reader)? {
                model.identify(&seen, 0, model.newest())?;
                pinned.insert(*reader, seen);
            }
        }
        Step::Unpin(reader) => {
            if let Some(before) = pinned.remove(reader)
                && db.seen(*reader)? != Some(before)
            {
                return Err(format!("the snapshot of reader {reader} has changed"));
            }
            db.unpin(*reader);
        }
        Step::Checkpoint => db.checkpoint()?,
        Step::Reopen => {
            // The process died, not the machine: nothing is lost. And what was served then must not be lost later.
            let newest = model.newest();
            model.identify(&db.content()?, newest, newest)?;
            world.acknowledged(newest);
        }
    }
    Ok(())
}

/// Crashes what was recorded, as if the site `deleted` persisted nothing, and recovers.
///
/// # Errors
/// The first state from which the store does not recover to a transaction between the last acknowledged and the last submitted.
pub fn explore<S: Subject>(
    subject: &S,
    recording: &Recording,
    shape: Shape,
    plan: Plan,
    seed: u64,
    deleted: Option<Site>,
) -> Result<Report, Failure> {
    let mut explorer = Explorer { subject, shape, seed, deleted, report: Report::default() };
    let explored = explorer.world(&recording.world, &recording.model, plan, &mut Vec::new());
    let lines = std::env::var("NVLITE_CRASH_TRACE").ok().and_then(|n| n.parse().ok()).unwrap_or(12);
    explored.map_err(|mut failure| {
        failure.trace = failure.way.first().map(|(at, _)| recording.world.trace(*at, lines)).unwrap_or_default();
        failure
    })?;
    Ok(explorer.report)
}

impl<S: Subject> Explorer<'_, S> {
    fn world(&mut self, world: &World, model: &Model, plan: Plan, way: &mut Way) -> Result<(), Failure> {
        let points = self.points(world, plan);
        let mut replay = world.replay(self.deleted);
        for at in points {
            while replay.position() < at && replay.step() {}
            self.report.points += 1;
            self.report.open = self.report.open.max(replay.image().open_units());
            self.point(Crash { image: replay.image(), at, model, plan }, way)?;
        }
        Ok(())
    }

    /// Where to crash: everywhere, or by lot; if a site is deleted, half of the lots fall soon after it.
    fn points(&self, world: &World, plan: Plan) -> Vec<usize> {
        let mut all = Vec::new();
        let mut replay = world.replay(self.deleted);
        while replay.next_point() {
            all.push(replay.position());
        }
        if all.len() <= plan.points {
            return all;
        }
        let sample = |from: &[usize], most: usize| -> Vec<usize> {
            let seed = mix(self.seed, from.len() as u64);
            let kept = |i: &usize| mix(seed, *i as u64) % from.len() as u64 <= most as u64;
            (0..from.len()).filter(kept).map(|i| from[i]).collect()
        };
        let Some(site) = self.deleted else { return sample(&all, plan.points) };
        let deleted = world.positions(site);
        let soon = |point: &&usize| {
            let before = all.partition_point(|other| other < *point).saturating_sub(3);
            deleted.iter().any(|at| (all[before]..**point).contains(at))
        };
        let near: Vec<usize> = all.iter().filter(soon).copied().collect();
        let mut points = [sample(&near, plan.points / 2), sample(&all, plan.points / 2)].concat();
        points.sort_unstable();
        points.dedup();
        points
    }

    fn point(&mut self, crash: Crash, way: &mut Way) -> Result<(), Failure> {
        let Crash { image, at, plan, .. } = crash;
        let mut policies = vec![Policy::Oldest];
        let stamps = image.open_stamps();
        if !stamps.is_empty() {
            policies.push(Policy::Newest);
            for stamp in stamps.iter().rev().take(plan.singles) {
                policies.extend([Policy::Without(*stamp), Policy::Only(*stamp), Policy::UpTo(*stamp)]);
            }
            for n in 0..plan.random {
                let seed = mix(self.seed, n + 1000 * at as u64);
                policies.extend([Policy::Events(seed), Policy::Units(seed)]);
            }
        }
        for policy in policies {
            self.state(crash, &policy, way)?;
        }
        if !stamps.is_empty() && plan.exhaust > 0 {
            self.all_states(crash, way)?;
        }
        Ok(())
    }

    /// Goes through all states that recovery can tell apart, if they are few enough.
    fn all_states(&mut self, crash: Crash, way: &mut Way) -> Result<(), Failure> {
        for grain in [Grain::Unit, Grain::Line] {
            let mut world = self.state(crash, &Policy::Script(grain, Vec::new()), way)?;
            let mut left = crash.plan.exhaust;
            while let Some(policy) = world.next_script() {
                // what is read later may depend on what was read before, so that the first guess need not hold
                if left == 0 || world.scripts() > crash.plan.exhaust {
                    break;
                }
                left -= 1;
                world = self.state(crash, &policy, way)?;
            }
            if world.next_script().is_none() {
                match grain {
                    Grain::Unit => self.report.finished += 1,
                    Grain::Line => self.report.finished_by_lines += 1,
                }
                return Ok(());
            }
        }
        self.report.sampled += 1;
        Ok(())
    }

    fn state(&mut self, crash: Crash, policy: &Policy, way: &mut Way) -> Result<Arc<World>, Failure> {
        let Crash { image, at, model, plan } = crash;
        self.report.states += 1;
        self.report.nested += usize::from(!way.is_empty());
        way.push((at, policy.clone()));
        let world = World::new(image.clone(), self.subject.kind(), policy.clone());
        let recovered = catch_unwind(AssertUnwindSafe(|| self.recover(&world, image, model)));
        let fail = |way: &Way, what: String| Failure { way: way.clone(), what, trace: String::new() };
        let after = match recovered {
            Ok(Ok(after)) => after,
            Ok(Err(what)) => return Err(fail(way, what)),
            Err(panic) => {
                let text = panic.downcast_ref::<String>().cloned();
                let text = text.or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string));
                return Err(fail(way, format!("panic: {}", text.unwrap_or_default())));
            }
        };
        let drawn =
            plan.depth > 0 && plan.nest > 0 && mix(self.seed, self.report.states as u64).is_multiple_of(plan.nest);
        // a deletion that recovery does not meet changes nothing from here on
        let meets = |site| !world.positions(site).is_empty();
        if drawn && self.deleted.is_none_or(meets) {
            self.world(&world, &after, plan.inner(), way)?;
        }
        way.pop();
        Ok(world)
    }

    /// Recovers, checks, commits twice more, and checks again.
    fn recover(&self, world: &Arc<World>, image: &Image, model: &Model) -> Result<Model, String> {
        let mut db = self.subject.open(world).map_err(|e| format!("recovery: {e}"))?;
        world.materialise();
        let number = model.identify(&db.content()?, image.acknowledged, image.submitted)?;
        // What was served once must not go away.
        world.submitted(number);
        world.acknowledged(number);
        let mut after = model.until(number);
        for i in 0..2 {
            let tx = self.shape.one(mix(self.seed, number * 2 + i), after.pages());
            let step = Step::Commit(tx, true);
            take_step(&mut db, world, &mut after, &mut HashMap::new(), &step)
                .map_err(|e| format!("commit after recovery: {e}"))?;
        }
        let newest = after.newest();
        after.identify(&db.content()?, newest, newest).map_err(|e| format!("after recovery and two commits: {e}"))?;
        Ok(after)
    }
}
