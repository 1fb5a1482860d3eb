//! What a power cut may leave of files: a child is watched, and what it does to files and directories is written down. Then any
//! of what it had not made durable may be missing: data that was not synced, and names made, changed or taken away in a
//! directory that was not synced.
//!
//! This is less than a file system promises in practice, and all that it promises on paper.

use super::calls::{Change, change};
use super::trace::{Call, Verdict};
use super::{Place, told};
use crate::sim::mix;
use crate::sql::System;
use nvlite_engine::base::RegionId;
use nvlite_engine::format::mark;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::fs;
use std::hash::{Hash as _, Hasher as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

const SECTOR: u64 = 512;
/// So many of the newest open events are left out, and kept alone, one by one.
const SINGLES: usize = 16;
/// States by lot, at each point.
const LOTS: u64 = 8;
/// So few open events are gone through in all combinations.
const FEW: usize = 6;

/// A file, by a number that is never used again.
type FileNo = usize;

/// One thing that happened.
#[derive(Clone, Debug)]
pub enum Event {
    /// A name was made.
    Link(PathBuf, FileNo),
    /// A name was taken away.
    Unlink(PathBuf),
    /// A file has another name.
    Rename(PathBuf, PathBuf, FileNo),
    /// Bytes were written.
    Write(FileNo, u64, Vec<u8>),
    /// The file was cut or extended.
    SetLen(FileNo, u64),
    /// The file is at least so long.
    Reach(FileNo, u64),
    /// Its data is durable.
    Sync(FileNo),
    /// The names in this directory are.
    SyncDir(PathBuf),
    /// This was acknowledged; `true`: the close was, too.
    Told(Option<i64>, bool),
}

impl Event {
    fn syncs(&self) -> bool {
        matches!(self, Event::Sync(_) | Event::SyncDir(_))
    }

    /// Whether `sync` makes this durable.
    fn covered_by(&self, sync: &Event) -> bool {
        match (self, sync) {
            (Event::Write(file, ..) | Event::SetLen(file, _) | Event::Reach(file, _), Event::Sync(synced)) => {
                file == synced
            }
            (Event::Link(path, _) | Event::Unlink(path) | Event::Rename(path, ..), Event::SyncDir(dir)) => {
                path.parent() == Some(dir)
            }
            _ => false,
        }
    }

    /// Whether a sync after this one makes it superfluous.
    fn same_sync(&self, other: &Event) -> bool {
        match (self, other) {
            (Event::Sync(a), Event::Sync(b)) => a == b,
            (Event::SyncDir(a), Event::SyncDir(b)) => a == b,
            _ => false,
        }
    }
}

#[derive(Clone, Default)]
struct Files {
    contents: Vec<Vec<u8>>,
    names: BTreeMap<PathBuf, FileNo>,
}

impl Files {
    fn apply(&mut self, event: &Event, torn: Option<u64>) {
        match event {
            Event::Link(path, file) => _ = self.names.insert(path.clone(), *file),
            Event::Unlink(path) => _ = self.names.remove(path),
            Event::Rename(from, to, file) => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            Event::SetLen(file, len) => self.contents[*file].resize(*len as usize, 0),
            Event::Reach(file, end) => {
                let content = &mut self.contents[*file];
                content.resize(content.len().max(*end as usize), 0);
            }
            Event::Write(file, off, bytes) => {
                let content = &mut self.contents[*file];
                let mut at = *off;
                let mut rest = bytes.as_slice();
                while !rest.is_empty() {
                    let here = ((SECTOR - at % SECTOR) as usize).min(rest.len());
                    if torn.is_none_or(|seed| mix(seed, at / SECTOR).is_multiple_of(2)) {
                        content.resize(content.len().max(at as usize + here), 0);
                        content[at as usize..at as usize + here].copy_from_slice(&rest[..here]);
                    }
                    at += here as u64;
                    rest = &rest[here..];
                }
            }
            Event::Sync(_) | Event::SyncDir(_) | Event::Told(..) => {}
        }
    }

    fn put(&self, place: &Place) {
        for (path, file) in &self.names {
            fs::write(place.scratch.path("").join(path), &self.contents[*file]).expect("writes");
        }
    }

    fn digest(&self, known: Option<i64>, closed: bool) -> u64 {
        let mut hash = DefaultHasher::new();
        for (path, file) in &self.names {
            (path, &self.contents[*file]).hash(&mut hash);
        }
        (known, closed).hash(&mut hash);
        hash.finish()
    }
}

/// What of an open event is left.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Kept {
    All,
    Nothing,
    /// Some sectors.
    Torn(u64),
}

/// A moment of a life.
struct Moment<'a> {
    durable: Files,
    /// What is not, in order.
    open: Vec<&'a Event>,
    known: Option<i64>,
    closed: bool,
}

impl Moment<'_> {
    fn sync(&mut self, sync: &Event) {
        self.open.retain(|event| {
            let covered = event.covered_by(sync);
            if covered {
                self.durable.apply(event, None);
            }
            !covered
        });
    }

    fn left(&self, kept: &[Kept]) -> Files {
        let mut files = self.durable.clone();
        for (event, kept) in self.open.iter().zip(kept) {
            match kept {
                Kept::All => files.apply(event, None),
                Kept::Torn(seed) => files.apply(event, Some(*seed)),
                Kept::Nothing => {}
            }
        }
        files
    }
}

/// A life, written down.
pub struct Recording {
    system: System,
    foreign: Vec<Vec<u8>>,
    start: Files,
    known: Option<i64>,
    /// What happened.
    pub events: Vec<Event>,
}

struct Recorder {
    root: PathBuf,
    numbers: HashMap<u64, FileNo>,
    names: BTreeMap<PathBuf, FileNo>,
    files: usize,
    /// Calls that have begun, by thread, and what they will have done.
    begun: HashMap<i32, Option<Begun>>,
    events: Vec<Event>,
    said: String,
    known: Option<i64>,
}

enum Begun {
    Done(Event),
    Creates(PathBuf),
    Says(Vec<u8>),
}

impl Recorder {
    fn inside(&self, path: &Path) -> Option<PathBuf> {
        path.strip_prefix(&self.root).ok().map(Path::to_owned)
    }

    fn file(&self, call: &Call, fd: u64) -> Option<FileNo> {
        let (path, inode) = call.file(fd)?;
        self.inside(&path)?;
        self.numbers.get(&inode).copied()
    }

    fn begins(&self, call: &Call) -> Option<Begun> {
        Some(Begun::Done(match change(call)? {
            Change::Create(path) => return Some(Begun::Creates(self.inside(&path)?)),
            Change::Say(len) => return Some(Begun::Says(call.bytes(1, len).ok()?)),
            Change::Write(fd, at, len) => Event::Write(self.file(call, fd)?, at, call.bytes(1, len).ok()?),
            Change::SetLen(fd, len) => Event::SetLen(self.file(call, fd)?, len),
            Change::Allocate(fd, end) => Event::Reach(self.file(call, fd)?, end),
            Change::Sync(fd) => {
                let (path, _) = call.file(fd)?;
                let inside = self.inside(&path)?;
                if path.is_dir() { Event::SyncDir(inside) } else { Event::Sync(self.file(call, fd)?) }
            }
            Change::Rename(from, to) => {
                let from = self.inside(&from)?;
                let file = *self.names.get(&from)?;
                Event::Rename(from, self.inside(&to)?, file)
            }
            Change::Unlink(path) => Event::Unlink(self.inside(&path)?),
            Change::Other => return None,
        }))
    }

    fn visit(&mut self, call: &Call) {
        let Some(result) = call.result else {
            let begun = self.begins(call);
            self.begun.insert(call.tid, begun);
            return;
        };
        let Some(Some(begun)) = self.begun.remove(&call.tid) else { return };
        if result < 0 {
            return;
        }
        let event = match begun {
            Begun::Says(bytes) => {
                self.said.push_str(&String::from_utf8_lossy(&bytes));
                let (known, closed) = told(&self.said, self.known);
                Event::Told(known, closed)
            }
            Begun::Creates(path) if self.names.contains_key(&path) => return,
            Begun::Creates(path) => {
                let inode = fs::metadata(self.root.join(&path)).expect("just made").ino();
                self.numbers.insert(inode, self.files);
                self.files += 1;
                Event::Link(path, self.files - 1)
            }
            Begun::Done(Event::Write(file, at, mut bytes)) => {
                bytes.truncate(result as usize);
                Event::Write(file, at, bytes)
            }
            Begun::Done(event) => event,
        };
        match &event {
            Event::Link(path, file) => _ = self.names.insert(path.clone(), *file),
            Event::Unlink(path) => _ = self.names.remove(path),
            Event::Rename(from, to, file) => {
                self.names.remove(from);
                self.names.insert(to.clone(), *file);
            }
            _ => {}
        }
        self.events.push(event);
    }
}

/// Writes a whole life at `place` down.
pub fn record(place: &Place, known: Option<i64>, worker: &str) -> Recording {
    let root = place.scratch.path("").components().as_path().to_owned();
    let mut start = Files::default();
    let mut recorder = Recorder {
        root,
        numbers: HashMap::new(),
        names: BTreeMap::new(),
        files: 0,
        begun: HashMap::new(),
        events: Vec::new(),
        said: String::new(),
        known,
    };
    for dir in [place.home(), place.side()] {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            let path = recorder.inside(&entry.path()).expect("inside");
            recorder.numbers.insert(entry.metadata().expect("there").ino(), start.contents.len());
            start.names.insert(path, start.contents.len());
            start.contents.push(fs::read(entry.path()).expect("reads"));
        }
    }
    recorder.names = start.names.clone();
    recorder.files = start.contents.len();
    let end = place.live(worker, |call| {
        recorder.visit(call);
        Verdict::Go
    });
    assert_eq!(end.status, Some(0), "{}", end.said);
    start.contents.resize(recorder.files, Vec::new());
    Recording { system: place.system, foreign: place.foreign.clone(), start, known, events: recorder.events }
}

/// What was explored.
#[derive(Clone, Copy, Default, Debug)]
pub struct Report {
    /// Points in time.
    pub points: usize,
    /// Different states.
    pub states: usize,
}

impl Recording {
    /// As if the mark of this region had been taken off the base before, but not durably.
    pub fn mark_may_be_back(&mut self, region: RegionId) {
        let base = self.start.names[Path::new("home/life.db")];
        let content = &mut self.start.contents[base];
        self.events.insert(0, Event::Write(base, 0, content[..SECTOR as usize].to_vec()));
        mark::set(content, region);
    }

    /// Cuts the power everywhere, as if the sync that is event `without` had done nothing, and checks what is left. States in
    /// `seen` are not visited again.
    ///
    /// # Errors
    /// The first state that is not what it must be.
    pub fn explore(&self, without: Option<usize>, seen: &mut HashSet<u64>) -> Result<Report, String> {
        let missing = without.map(|i| &self.events[i]);
        let mut now = Moment { durable: self.start.clone(), open: Vec::new(), known: self.known, closed: false };
        let mut report = Report::default();
        for (i, event) in self.events.iter().enumerate() {
            // before a sync that is missing, nothing is different
            let interesting = without.is_none_or(|without| i > without);
            if event.syncs() && without != Some(i) {
                if interesting {
                    self.cut(&now, missing, seen, &mut report)
                        .map_err(|e| format!("power cut before event {i}, {}: {e}", brief(event)))?;
                }
                if interesting && missing.is_some_and(|missing| missing.same_sync(event)) {
                    return Ok(report); // which makes up for it
                }
                now.sync(event);
            }
            if let Event::Told(newest, ended) = event {
                (now.known, now.closed) = (*newest, *ended);
                if interesting {
                    self.cut(&now, missing, seen, &mut report)
                        .map_err(|e| format!("power cut after event {i}, {}: {e}", brief(event)))?;
                }
            } else if !event.syncs() {
                now.open.push(event);
            }
        }
        Ok(report)
    }

    fn cut(
        &self,
        now: &Moment<'_>,
        missing: Option<&Event>,
        seen: &mut HashSet<u64>,
        report: &mut Report,
    ) -> Result<(), String> {
        report.points += 1;
        let seed = report.points as u64;
        let choices = missing.map_or_else(|| choices(&now.open, seed), |sync| focused(&now.open, sync, seed));
        for kept in choices {
            let files = now.left(&kept);
            if !seen.insert(files.digest(now.known, now.closed)) {
                continue;
            }
            report.states += 1;
            let mut place = Place::new(self.system);
            place.foreign.clone_from(&self.foreign);
            files.put(&place);
            let right = if now.closed { place.check_closed(now.known) } else { Ok(()) };
            right.and_then(|()| place.check(now.known)).map_err(|e| {
                let open = now.open.iter().zip(&kept).map(|(event, kept)| format!("  {} {kept:?}", brief(event)));
                format!("{e}\nopen:\n{}", open.collect::<Vec<_>>().join("\n"))
            })?;
        }
        Ok(())
    }

    /// All syncs, by what they make durable: their numbers. What was synced before, and not changed since, is made so again.
    pub fn syncs(&self) -> BTreeMap<String, Vec<usize>> {
        let mut open: Vec<&Event> = Vec::new();
        let mut syncs: BTreeMap<String, Vec<usize>> = BTreeMap::new();
        for (i, event) in self.events.iter().enumerate() {
            if !event.syncs() {
                open.push(event);
                continue;
            }
            let covered = open.iter().filter(|pending| pending.covered_by(event));
            let what: BTreeSet<String> = covered.map(|pending| self.purpose(pending)).collect();
            let again = self.events[..i].iter().any(|before| before.same_sync(event));
            if !what.is_empty() {
                syncs.entry(what.into_iter().collect::<Vec<_>>().join(", ")).or_default().push(i);
            } else if again {
                syncs.entry(self.again(event)).or_default().push(i);
            }
            open.retain(|pending| !pending.covered_by(event));
        }
        syncs
    }

    fn again(&self, sync: &Event) -> String {
        match sync {
            Event::Sync(file) => format!("again {}", self.purpose(&Event::SetLen(*file, 0))),
            other => format!("again {other:?}"),
        }
    }

    /// What an event is for, as far as its place tells.
    fn purpose(&self, event: &Event) -> String {
        let name = |path: &Path| {
            let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
            name.split(".stale-").next().unwrap_or_default().to_owned()
        };
        let of = |file: &FileNo| {
            let made = |event: &Event| matches!(event, Event::Link(_, no) if no == file);
            let made = self.events.iter().find(|event| made(event)).map(|event| match event {
                Event::Link(path, _) => name(path),
                _ => String::new(),
            });
            made.or_else(|| self.start.names.iter().find(|(_, no)| *no == file).map(|(path, _)| name(path)))
        };
        let of = |file| of(file).unwrap_or_default();
        match event {
            Event::Link(path, _) => format!("make {}", name(path)),
            Event::Unlink(path) => format!("remove {}", name(path)),
            Event::Rename(path, ..) => format!("rename {}", name(path)),
            Event::SetLen(file, _) | Event::Reach(file, _) => format!("length of {}", of(file)),
            Event::Write(file, at, bytes) => match (of(file), *at, bytes.len()) {
                (file, 0, 100) if file == "life.db" => "mark of life.db".to_owned(),
                (file, 0, 512) if file == "life.db" => "no mark of life.db".to_owned(),
                (file, 0 | 4096, 4096) if file == "life.db-nvlite" => "superblock".to_owned(),
                (file, ..) => file,
            },
            Event::Sync(_) | Event::SyncDir(_) | Event::Told(..) => String::new(),
        }
    }
}

fn brief(event: &Event) -> String {
    match event {
        Event::Write(file, at, bytes) => format!("write {file}, {} at {at}", bytes.len()),
        other => format!("{other:?}"),
    }
}

/// All or nothing, all data or all names, each alone and all but each, by lot; if they are few, every combination.
fn choices(open: &[&Event], seed: u64) -> Vec<Vec<Kept>> {
    let n = open.len();
    let each = |f: &dyn Fn(usize) -> bool| (0..n).map(|i| if f(i) { Kept::All } else { Kept::Nothing }).collect();
    let mut all: Vec<Vec<Kept>> = vec![each(&|_| false), each(&|_| true)];
    let name = |i: usize| matches!(open[i], Event::Link(..) | Event::Unlink(_) | Event::Rename(..));
    all.extend([each(&name), each(&|i| !name(i))]);
    if n <= FEW {
        all.extend((0..1usize << n).map(|set| each(&|i| set >> i & 1 == 1)));
    } else {
        for one in (0..n).rev().take(SINGLES) {
            all.extend([each(&|i| i == one), each(&|i| i != one), each(&|i| i < one)]);
        }
    }
    for lot in 0..LOTS {
        let draw = |i: usize| mix(seed * LOTS + lot, i as u64) % 4;
        let torn = |i: usize| match draw(i) {
            0 => Kept::Nothing,
            1 => Kept::Torn(mix(seed, lot)),
            _ => Kept::All,
        };
        all.push((0..n).map(torn).collect());
    }
    all
}

/// What `sync` would have made durable is missing: all of it, and one by one, with and without all else.
fn focused(open: &[&Event], sync: &Event, seed: u64) -> Vec<Vec<Kept>> {
    let covered: Vec<usize> = (0..open.len()).filter(|i| open[*i].covered_by(sync)).collect();
    let each =
        |f: &dyn Fn(usize) -> bool| (0..open.len()).map(|i| if f(i) { Kept::All } else { Kept::Nothing }).collect();
    let mut all: Vec<Vec<Kept>> = vec![each(&|i| !covered.contains(&i)), each(&|_| false)];
    for one in covered.iter().rev().take(SINGLES) {
        all.extend([each(&|i| i != *one), each(&|i| i != *one && covered.contains(&i)), each(&|i| i == *one)]);
    }
    let torn = |i: usize| if covered.contains(&i) { Kept::Torn(seed) } else { Kept::All };
    all.push((0..open.len()).map(torn).collect());
    all
}
