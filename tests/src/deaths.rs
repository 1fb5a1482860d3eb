//! A live database of real processes: the stage on which one of them dies in the middle of something, and what must hold for
//! those who live. Files and locks are real, so that the kernel tells who lives; no process has a thread of its own, so that
//! the same deed makes the same stores.

#![allow(clippy::panic, reason = "for tests only, which it tells what is wrong")]

use crate::plain_base::PlainBase;
use crate::rules::{PAGE, offset, put_header, stat};
use crate::sql::{Scratch, System};
use crate::stores;
use nvlite_engine::medium::{FileDisk, Mapped};
use nvlite_engine::shm::{Liveness, Segment};
use nvlite_engine::store::medium_name;
use nvlite_engine::{Durability, Error, MediumKind, Parts, Region, Result, Session, Store, mapping_len, region_len};
use std::fs::{File, OpenOptions};
use std::io::{self, Write as _};
use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

/// Pages of most databases here.
const FEW: u32 = 8;
/// Slots of this process: the connection's, and the one for what is nobody's.
const SLOTS: u64 = 2;
/// Where a page says who wrote it.
const SAYS: [usize; 3] = [7, 500, 1001];

/// Budget of a region: some 40 blocks on `ram`, 64 on `file`, and 160 there for what is about blocks. What is written should be
/// little, as each step takes a while.
fn budget(deed: Deed, kind: MediumKind) -> u64 {
    match kind {
        MediumKind::File if deed == Deed::MakeRoom => 160 << 10,
        MediumKind::File => 64 << 10,
        _ => 120 << 10,
    }
}

/// Pages of a database that is larger than the fast tier, and those of them that are written: as many as there may be before they
/// go to shadow blocks, so that hardly more blocks are free than are needed.
fn many(kind: MediumKind) -> (u32, RangeInclusive<u32>) {
    if kind == MediumKind::File { (220, 60..=75) } else { (90, 60..=67) }
}

/// What is done, and interrupted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Deed {
    /// The first commit, with shadow blocks, for which everything has to be made present.
    Fresh,
    /// The first commit, after one with another page size was rolled back.
    First,
    /// A commit in place, where the medium knows that.
    InPlace,
    /// One that has to copy, as a reader looks.
    Copy,
    /// One that nobody waits for.
    Lazy,
    /// One that adds pages.
    Grow,
    /// One that cuts pages off.
    Shrink,
    /// Pages come in from their homes, as they are read and as they are written.
    FaultIn,
    /// A commit that finds the log so full that it retires.
    Retire,
    /// One of shadow blocks.
    Large,
    /// Such, rolled back.
    RollBack,
    /// One in a database that is larger than the fast tier.
    MakeRoom,
    /// A checkpoint, with shadow blocks to bring home, and homes that a reader needs.
    Checkpoint,
    /// What the thread of an attachment does when the log is half full: it retires without the writer lock.
    Keep,
    /// A commit after another one has died in the middle of [`Copy`](Self::Copy).
    Repair,
}

impl Deed {
    /// All, in the order in which they are to be played.
    pub const ALL: [Deed; 15] = [
        Deed::First,
        Deed::InPlace,
        Deed::Copy,
        Deed::Lazy,
        Deed::Grow,
        Deed::Shrink,
        Deed::FaultIn,
        Deed::Retire,
        Deed::Large,
        Deed::RollBack,
        Deed::MakeRoom,
        Deed::Checkpoint,
        Deed::Keep,
        Deed::Repair,
        // the longest: what others do is not to be looked for there
        Deed::Fresh,
    ];

    /// Whether there is something to do on this medium.
    #[must_use]
    pub fn is_on(self, kind: MediumKind) -> bool {
        self != Deed::Keep || kind == MediumKind::File
    }

    /// The transaction.
    fn tx(self, kind: MediumKind) -> Tx {
        let tx = |size, pages, byte| Tx { size, pages, byte };
        match self {
            Deed::First => tx(5, 2..=5, 2),
            Deed::Grow => tx(FEW + 2, 4..=FEW + 2, 2),
            Deed::Shrink => tx(FEW - 3, 2..=3, 2),
            Deed::Fresh | Deed::Large | Deed::RollBack => tx(FEW + 20, 2..=FEW + 20, 2),
            Deed::MakeRoom => {
                let (size, pages) = many(kind);
                tx(size, pages, 2)
            }
            Deed::Repair => tx(FEW, 3..=5, 3),
            _ => tx(FEW, 2..=4, 2),
        }
    }

    fn changes(self) -> bool {
        !matches!(self, Deed::RollBack | Deed::Checkpoint | Deed::Keep)
    }

    /// Does it, for which `tx` was made ready, and calls `told` when it was told that it is done.
    fn act(self, s: &mut Session, tx: &Ready, told: impl FnOnce()) -> Result<()> {
        match self {
            Deed::Checkpoint => {
                s.checkpoint()?;
                told();
                return Ok(());
            }
            Deed::Keep => {
                s.store().clone().keep_once()?;
                told();
                return Ok(());
            }
            Deed::FaultIn => {
                s.begin_read()?;
                (4..=7).try_for_each(|page| s.read(offset(page), &mut [0; PAGE]).map(|_| ()))?;
                s.end_read();
            }
            _ => {}
        }
        let how = if self == Deed::Lazy { Durability::Process } else { Durability::Full };
        let done = tx.write(s).and_then(|()| if self.changes() { s.commit(how) } else { Ok(()) });
        told();
        s.end_write();
        s.end_read();
        done
    }
}

/// A transaction: the database has `size` pages afterwards, `pages` are full of `byte`.
struct Tx {
    size: u32,
    pages: RangeInclusive<u32>,
    byte: u8,
}

/// Begins to write, in the newest snapshot: what a dead holder of the lock has published, need not have been visible before.
fn hold(s: &mut Session) -> Result<()> {
    match s.begin_write() {
        Err(Error::BusySnapshot) => {
            s.end_read();
            s.begin_write()
        }
        other => other,
    }
}

/// A transaction and what it writes.
struct Ready {
    size: u32,
    pages: Vec<(u32, Vec<u8>)>,
}

impl Ready {
    /// Everything but the commit.
    fn write(&self, s: &mut Session) -> Result<()> {
        hold(s)?;
        let before = s.size()?;
        put_header(s, self.size)?;
        self.pages.iter().try_for_each(|(page, content)| s.write(offset(*page), content))?;
        if offset(self.size + 1) < before {
            s.truncate(offset(self.size + 1))?;
        }
        s.prepare()
    }
}

impl Tx {
    fn ready(&self) -> Ready {
        let pages = self.pages.clone().map(|page| (page, content(page, self.byte))).collect();
        Ready { size: self.size, pages }
    }

    fn run(&self, s: &mut Session) -> Result<()> {
        let done = self.ready().write(s).and_then(|()| s.commit(Durability::Full));
        s.end_write();
        s.end_read();
        done
    }
}

/// A page that says in a few places who wrote it, and else only which it is: what is stored are a few bytes, and few instructions are
/// needed to find them.
fn content(page: u32, byte: u8) -> Vec<u8> {
    let at = |i: usize| if SAYS.contains(&i) { byte } else { (page as usize * 31 + i / 7) as u8 };
    (0..PAGE).map(at).collect()
}

/// Who wrote a page; `None` if it is nobody's.
fn byte(s: &mut Session, page: u32) -> Result<Option<u8>> {
    let mut got = vec![0; PAGE];
    s.read(offset(page), &mut got)?;
    Ok((got == content(page, got[SAYS[0]])).then_some(got[SAYS[0]]))
}

/// What the pages are full of, from page 1 on, for which 0 stands.
type State = Vec<u8>;

fn after(state: &State, tx: &Tx) -> State {
    let mut state = state.clone();
    state.resize(tx.size as usize, 0);
    tx.pages.clone().for_each(|page| state[page as usize - 1] = tx.byte);
    state
}

/// What is read, in the snapshot that the session has or a new one.
fn look(s: &mut Session) -> Result<State> {
    let pages = (s.size()? / PAGE as u64) as u32;
    let what = |page| match page {
        1 => Ok(0),
        page => Ok(byte(s, page)?.unwrap_or_else(|| panic!("page {page} is no transaction's"))),
    };
    (1..=pages).map(what).collect()
}

fn open_region(path: &Path, kind: MediumKind) -> Result<Region> {
    Ok(match kind {
        MediumKind::File => Region::Disk(Arc::new(FileDisk::open(path)?)),
        kind => Region::Pmem(Arc::new(Mapped::open(path, kind)?)),
    })
}

/// The files of one database.
struct Files {
    dir: PathBuf,
    kind: MediumKind,
    budget: u64,
}

impl Files {
    fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// As if there had been none but the base file.
    fn create(&self) -> Result<()> {
        for name in ["region", "cold"] {
            let _ = std::fs::remove_file(self.path(name));
        }
        FileDisk::create(&self.path("cold"))?;
        match self.kind {
            MediumKind::File => FileDisk::create(&self.path("region")).map(|_| ()),
            kind => Mapped::create(&self.path("region"), region_len(self.budget, kind), kind).map(|_| ()),
        }
    }

    /// An attachment: of a new mapping, or of the one that is there.
    fn attach(&self, role: Role) -> Result<Arc<Store>> {
        let (mapping, len) = (self.path("mapping"), mapping_len(self.budget, self.kind));
        let first = role == Role::First;
        if first {
            let _ = std::fs::remove_file(&mapping);
        }
        let lock = OpenOptions::new().read(true).write(true).open(self.path("region"));
        let lock: File = lock.map_err(|e| Error::io(&self.path("region"), "open", e))?;
        let mut parts = Parts {
            region: open_region(&self.path("region"), self.kind)?,
            cold: Arc::new(FileDisk::open(&self.path("cold"))?),
            base: Arc::new(PlainBase::new(&self.path("base"))),
            segment: if first { Segment::create(&mapping, len) } else { Segment::open(&mapping, len) }?,
            liveness: Liveness::join(lock)?,
            budget: self.budget,
            verify: true,
        };
        if role == Role::Victim {
            (parts.cold, parts.base) = (stores::disk(parts.cold), stores::base(parts.base));
            if let Region::Disk(disk) = parts.region {
                parts.region = Region::Disk(stores::disk(disk));
            }
        }
        if first { Store::assemble(parts) } else { Store::assemble_beside(parts) }
    }
}

/// Who attaches.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Role {
    /// Who finds nobody there.
    First,
    /// Who finds the first there, and dies.
    Victim,
}

/// A database that this process has open, ready for another one to come and die.
pub struct Stage {
    deed: Deed,
    files: Files,
    store: Arc<Store>,
    session: Session,
    /// One that reads, and what it sees.
    reader: Option<(Session, State)>,
    before: State,
    _scratch: Scratch,
}

impl Stage {
    /// Where `deed` can be done.
    ///
    /// # Errors
    /// Of the engine.
    pub fn set(deed: Deed, kind: MediumKind) -> Result<Stage> {
        let scratch = System::Ram.scratch();
        let files = Files { dir: scratch.path(""), kind, budget: budget(deed, kind) };
        files.create()?;
        let mut store = files.attach(Role::First)?;
        let mut session = store.session()?;
        let size = if deed == Deed::MakeRoom { many(kind).0 } else { FEW };
        if deed == Deed::First {
            session.begin_write()?;
            session.write(0, &[0; 512])?;
            session.prepare()?;
            session.end_write();
            session.end_read();
        } else if deed != Deed::Fresh {
            // more than the fast tier holds: the first blocks of the cold file are made present
            Tx { size: 70, pages: 2..=70, byte: 9 }.ready().write(&mut session)?;
            session.end_write();
            session.end_read();
            // not too many at once, which would go to shadow blocks
            for first in (2..=size).step_by(6) {
                let last = (first + 5).min(size);
                Tx { size: last, pages: first..=last, byte: 1 }.run(&mut session)?;
            }
        }
        if deed == Deed::FaultIn {
            drop(session);
            assert!(store.finish()?, "nobody else is there");
            drop(store);
            files.create()?;
            store = files.attach(Role::First)?;
            session = store.session()?;
        }
        let mut stage =
            Stage { deed, files, before: look(&mut session)?, store, session, reader: None, _scratch: scratch };
        stage.prepare()?;
        Ok(stage)
    }

    fn run(&mut self, tx: &Tx) -> Result<()> {
        tx.run(&mut self.session)?;
        self.before = after(&self.before, tx);
        Ok(())
    }

    fn prepare(&mut self) -> Result<()> {
        if matches!(self.deed, Deed::Copy | Deed::Repair | Deed::Checkpoint | Deed::Shrink) {
            let mut reader = self.store.session()?;
            reader.begin_read()?;
            let seen = look(&mut reader)?;
            self.reader = Some((reader, seen));
        }
        match self.deed {
            Deed::Retire | Deed::Keep => {
                let slots = stat(&self.store, "ring_slots");
                let limit = match (self.deed, self.files.kind) {
                    (Deed::Keep, _) => slots / 2,
                    (_, MediumKind::File) => slots - 9,
                    _ => slots / 4,
                };
                while stat(&self.store, "ring_used") <= limit {
                    self.run(&Tx { size: FEW, pages: 5..=6, byte: 1 })?;
                }
            }
            Deed::Checkpoint => self.run(&Deed::Large.tx(self.files.kind))?,
            // of what was, nothing is to be retired by the way
            Deed::Fresh | Deed::First | Deed::MakeRoom => {}
            _ => _ = self.session.checkpoint()?,
        }
        Ok(())
    }

    /// The victim: it does the deed and dies after its `last`-th store, or at its end if that is 0.
    ///
    /// # Errors
    /// It cannot be started, or fails.
    pub fn victim(&self, worker: &str, last: usize) -> io::Result<Death> {
        self.process(self.deed, worker, last)
    }

    /// One that dies before it.
    ///
    /// # Errors
    /// As [`victim`](Self::victim).
    pub fn earlier_victim(&self, worker: &str, last: usize) -> io::Result<Death> {
        self.process(Deed::Copy, worker, last)
    }

    fn process(&self, deed: Deed, worker: &str, last: usize) -> io::Result<Death> {
        let mut command = Command::new(worker);
        command.args([&format!("{deed:?}"), medium_name(self.files.kind)]).arg(&self.files.dir).arg(last.to_string());
        command.env("RUST_BACKTRACE", "0"); // the addresses at which it stores are what is looked for
        let out = command.output()?;
        let died = out.status.signal() == Some(libc::SIGKILL);
        if !died && !out.status.success() {
            return Err(io::Error::other(format!("{}: {}", out.status, String::from_utf8_lossy(&out.stderr))));
        }
        let said = String::from_utf8_lossy(&out.stdout);
        let mut words = said.split_whitespace();
        let told = words.next().is_some_and(|word| word == DONE);
        Ok(Death { died, told, stores: words.filter_map(|word| word.parse().ok()).collect() })
    }

    /// What there may be now, in the order in which it may come.
    fn possible(&self, told: bool) -> Vec<State> {
        let kind = self.files.kind;
        let mut all = vec![self.before.clone()];
        if self.deed == Deed::Repair {
            all.push(after(&self.before, &Deed::Copy.tx(kind)));
        }
        if self.deed.changes() {
            let done = all.iter().map(|state| after(state, &self.deed.tx(kind))).collect();
            all = if told { done } else { [all, done].concat() };
        }
        all
    }

    /// The victim is dead, and was told that its deed was done, or not. What must hold for us. If `soon`, we die after one commit,
    /// while the victim's is in the log only.
    ///
    /// # Errors
    /// Of the engine: there should be none.
    ///
    /// # Panics
    /// If something else does not hold.
    pub fn go_on(mut self, told: bool, soon: bool) -> Result<()> {
        let possible = self.possible(told);
        let seen = look(&mut self.session)?;
        let first = possible.iter().position(|state| *state == seen);
        let first =
            first.unwrap_or_else(|| panic!("told {told}, and there is {seen:?} instead of one of {possible:?}"));
        self.reader_sees_the_same()?;
        hold(&mut self.session)?;
        let seen = look(&mut self.session)?;
        assert!(possible[first..].contains(&seen), "told {told}, and then there is {seen:?}: {:?}", &possible[first..]);
        self.session.end_write();
        self.session.end_read();
        self.sound()?;

        self.before = seen;
        let size = self.before.len().max(6) as u32;
        if soon {
            let first = if self.before.len() < 5 { 2 } else { 5 };
            self.run(&Tx { size, pages: first..=6, byte: 7 })?;
            return self.again();
        }
        for byte in 7..10 {
            self.run(&Tx { size, pages: 2..=6, byte })?;
            assert_eq!(look(&mut self.session)?, self.before, "after a commit of ours");
            self.session.end_read();
            self.reader_sees_the_same()?;
        }
        self.reader = None;
        // the first takes over the locks that the dead had, and for which they keep their slots
        self.session.checkpoint()?;
        self.session.checkpoint()?;
        self.sound()?;
        assert_eq!(stat(&self.store, "slots"), SLOTS, "the dead have none");
        self.again()
    }

    fn reader_sees_the_same(&mut self) -> Result<()> {
        if let Some((reader, before)) = &mut self.reader {
            assert_eq!(look(reader)?, *before, "a snapshot has changed");
        }
        Ok(())
    }

    /// Nothing is lost, nothing in two places.
    fn sound(&self) -> Result<()> {
        let wrong = self.store.audit()?;
        assert!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    }

    /// We die, too, and the next one recovers: it has copies of the files, as we cannot but leave in order.
    fn again(self) -> Result<()> {
        let Stage { files, before, .. } = &self;
        let scratch = System::Ram.scratch();
        let left = Files { dir: scratch.path(""), ..*files };
        for name in ["base", "region", "cold"] {
            std::fs::copy(files.path(name), left.path(name)).map_err(|e| Error::io(&files.path(name), "copy", e))?;
        }
        let store = left.attach(Role::First)?;
        let mut session = store.session()?;
        assert_eq!(look(&mut session)?, *before, "after the death of all");
        session.end_read();
        Tx { size: before.len() as u32, pages: 2..=6, byte: 10 }.run(&mut session)?;
        let wrong = store.audit()?;
        assert!(wrong.is_empty(), "after the death of all: {wrong:#?}");
        Ok(())
    }
}

/// One write system call for the whole word.
fn say(word: &str) {
    let mut out = std::io::stdout().lock();
    if out.write_all(word.as_bytes()).and_then(|()| out.flush()).is_err() {
        std::process::exit(3);
    }
}

/// What became of a victim.
#[derive(Debug)]
pub struct Death {
    /// It came to the store after which it was to die.
    pub died: bool,
    /// It was told that its deed was done.
    pub told: bool,
    /// What made its stores, if it was to die at its end.
    pub stores: Vec<u64>,
}

/// What the victim says when it was told that its deed is done.
const DONE: &str = "done";

/// The victim.
///
/// # Panics
/// If it cannot do what it was asked for.
pub fn worker() {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let [deed, medium, dir, last] = args.as_slice() else { panic!("{args:?}") };
    // SAFETY: a plain system call: whoever hangs is killed at last.
    unsafe { libc::alarm(60) };
    let deed = Deed::ALL.into_iter().find(|known| format!("{known:?}") == *deed).expect("a deed");
    let kind = if medium == "file" { MediumKind::File } else { MediumKind::Ram };
    let files = Files { dir: dir.into(), kind, budget: budget(deed, kind) };
    let last: usize = last.parse().expect("a number");
    let work = || -> Result<()> {
        let store = files.attach(Role::Victim)?;
        let (mut session, tx) = (store.session()?, deed.tx(kind).ready());
        stores::watch(&[&files.path("mapping"), &files.path("region")], last);
        deed.act(&mut session, &tx, || say(DONE))?;
        for store in stores::watched().iter().filter(|_| last == 0) {
            say(&format!(" {store}"));
        }
        std::process::exit(0); // without leaving
    };
    work().unwrap_or_else(|error| panic!("{error}"));
}
