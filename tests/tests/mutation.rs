//! Is each flush, fence and sync of the engine needed, and would anybody notice if one were lost in a change? Here each site is
//! deleted in turn: its events persist nothing, and the crash simulator must find a state that is not recovered. A site that
//! survives is either one that the engine does not need, or a hole in the histories that are played.
//! `NVLITE_CRASH_SITE` asks for one site only.

#![allow(clippy::panic)]

use nvlite_engine::MediumKind::{self, Dax, File};
use nvlite_engine::Site;
use nvlite_tests::sim::drive::{Plan, Recording, explore, record};
use nvlite_tests::sim::history::Shape;
use nvlite_tests::sim::nvlite::Nvlite;
use std::collections::BTreeMap;
use std::path::Path;

/// Where the history itself comes by the site.
const THERE: Plan = Plan { points: 80, singles: 3, random: 4, exhaust: 0, nest: 23, depth: 1 };
/// Where only the recovery from a crash can.
const LATER: Plan = Plan { points: 24, singles: 1, random: 2, exhaust: 0, nest: 3, depth: 1 };

const BUSY: Shape = Shape { steps: 90, max_pages: 110, checkpoints: 25, reopens: 12, large: 6, ..Shape::LONG };
/// Records of two parts, of which those who die leave one behind.
const HALVES: Shape =
    Shape { steps: 80, max_pages: 8, max_writes: 2, whole: 1, deaths: 2, sparse: 0, shrinks: 0, ..Shape::DEADLY };
/// Pages that come, go and come again, as zeros.
const SHRINKING: Shape = Shape { steps: 60, max_pages: 24, shrinks: 3, sparse: 1, whole: 20, checkpoints: 8, ..BUSY };
/// Readers in the way.
const CROWDED: Shape = Shape { steps: 160, readers: 6, checkpoints: 60, shrinks: 8, lazy: 3, sparse: 2, ..BUSY };
/// Transactions that go to shadow blocks.
const LARGE: Shape = Shape { steps: 30, max_pages: 60, max_writes: 30, large: 2, checkpoints: 0, shrinks: 0, ..BUSY };
/// Such for which the fast tier has room.
const ROOMY: Shape = Shape { max_pages: 30, reopens: 4, ..LARGE };

/// Small pages, whose entries lie where a rolled back transaction had written others.
const FORGED: Shape = Shape { steps: 40, page_size: 512, max_pages: 12, reopens: 0, ..BUSY };

const SEEDS: u64 = 24;
/// The seed with which the database begins with a forgery.
const FORGERY: u64 = SEEDS;

/// The media on which the engine comes by a site.
fn media(site: Site) -> &'static [MediumKind] {
    match site {
        Site::CommitRecord
        | Site::CommitFence
        | Site::FinishRecord
        | Site::FinishFence
        | Site::DropRecord
        | Site::DropFence
        | Site::RetireLines
        | Site::RetireEntry
        | Site::RetireFence
        | Site::OlderEntry
        | Site::ClearEntry
        | Site::ClearFence
        | Site::HomewardEntry
        | Site::ShadowBlock
        | Site::ShadowSum
        | Site::ShadowFence
        | Site::ForgetEntries
        | Site::Superblock
        | Site::SuperblockFence
        | Site::RecoverUnbelieved
        | Site::RecoverHomeward
        | Site::RecoverFresh
        | Site::RecoverRanges
        | Site::RecoverEntry
        | Site::RecoverSum
        | Site::RecoverFence => &[Dax],
        Site::Batch | Site::SuperblockSync | Site::RecoverLog => &[File],
        Site::ShadowCold
        | Site::Homes
        | Site::MarkBlank
        | Site::LastPage
        | Site::MarkStock
        | Site::Unmark
        | Site::RecoverHomes => &[Dax, File],
        // Beyond the histories, and deleted in tests of their own: another thread that retires after one whose eviction failed
        // half way (`rules_threads.rs`), and a mark that is off, but not durably, when the next process opens (`life_power.rs`).
        Site::OlderFence | Site::KeepUnmarked => &[],
        // Names, which the simulator does not have: `life_power.rs` deletes these, but for `BaseName`, where the side files are
        // elsewhere, which `open_close.rs` counts.
        Site::SideNames | Site::BaseName | Site::ColdName | Site::AsideNames | Site::GoneNames => &[],
    }
}

/// Histories with which the loss of a site is likely to show, to save time; should it not, all are tried.
fn sooner(site: Site) -> &'static [u64] {
    match site {
        Site::FinishRecord | Site::FinishFence | Site::DropFence => &[4],
        Site::DropRecord => &[94],
        Site::ShadowFence | Site::RecoverEntry | Site::RecoverHomeward => &[11, 23],
        Site::RecoverFresh => &[5],
        Site::ShadowCold => &[2],
        Site::MarkStock | Site::LastPage | Site::Unmark => &[3],
        Site::ForgetEntries => &[FORGERY],
        Site::OlderEntry | Site::ClearEntry | Site::ClearFence | Site::HomewardEntry | Site::RecoverFence => &[1],
        _ => &[],
    }
}

/// So large that the entries of small pages reach where large ones were.
fn forgery(kind: MediumKind) -> Nvlite {
    Nvlite { kind, budget: 320 << 10, finish: true, forges: true }
}

/// Histories on one medium, each played once.
struct Histories {
    kind: MediumKind,
    played: BTreeMap<u64, Recording>,
    /// Of which it is known that nothing is wrong with them while nothing is deleted.
    sound: Vec<u64>,
}

impl Histories {
    fn subject(&self, seed: u64) -> Nvlite {
        if seed == FORGERY {
            return forgery(self.kind);
        }
        let finish = seed % 12 != 11 && (seed + seed / 6).is_multiple_of(3);
        Nvlite { kind: self.kind, budget: 160 << 10, finish, forges: false }
    }

    fn shape(&self, seed: u64) -> Shape {
        match (seed % 6, self.kind) {
            _ if seed == FORGERY => FORGED,
            (0, _) => Shape::TINY,
            (2, Dax) => Shape::DEADLY,
            (2, _) => LARGE,
            (3, _) => CROWDED,
            (4, Dax) => HALVES,
            (4, _) => Shape::DEADLY_BATCH,
            (5, Dax) if seed % 12 == 11 => ROOMY,
            (5, _) => SHRINKING,
            _ => BUSY,
        }
    }

    /// Whether the history comes by the site, and not only the recovery from a crash.
    fn is_there(&mut self, site: Site, seed: u64) -> bool {
        let (subject, shape) = (self.subject(seed), self.shape(seed));
        let play = || record(&subject, shape, seed).unwrap_or_else(|e| panic!("{subject:?}, seed {seed}: {e}"));
        !self.played.entry(seed).or_insert_with(play).world.positions(site).is_empty()
    }

    fn is_missed(&mut self, site: Site, seed: u64) -> bool {
        let plan = if self.is_there(site, seed) { THERE } else { LATER };
        let (subject, shape) = (self.subject(seed), self.shape(seed));
        let told = |e: &dyn std::fmt::Display| -> ! { panic!("{subject:?}, seed {seed}, nothing deleted: {e}") };
        let recording = &self.played[&seed];
        let missed = explore(&subject, recording, shape, plan, seed, Some(site)).is_err();
        if missed && !self.sound.contains(&seed) {
            _ = explore(&subject, recording, shape, plan, seed, None).unwrap_or_else(|e| told(&e));
            self.sound.push(seed);
        }
        missed
    }
}

fn each_site_is_needed(kind: MediumKind) {
    let mut histories = Histories { kind, played: BTreeMap::new(), sound: Vec::new() };
    let mut survivors = Vec::new();
    let asked = std::env::var("NVLITE_CRASH_SITE").ok();
    let wanted = |site: &Site| asked.as_ref().is_none_or(|name| *name == format!("{site:?}"));
    for &site in Site::ALL.iter().filter(|site| media(**site).contains(&kind) && wanted(site)) {
        match sooner(site).iter().copied().chain(0..SEEDS).find(|&seed| histories.is_missed(site, seed)) {
            Some(seed) => println!("{kind:?} without {site:?}: noticed with seed {seed}"),
            None => survivors.push(site),
        }
    }
    assert!(survivors.is_empty(), "{kind:?}: nobody misses {survivors:?}");
}

#[test]
fn each_site_on_dax_is_needed() {
    each_site_is_needed(Dax);
}

#[test]
fn each_site_on_file_is_needed() {
    each_site_is_needed(File);
}

#[test]
fn what_was_rolled_back_is_no_page_of_another_size() {
    // Failure: the new page size is durable before the zeros are that its entries should be, and recovery believes what stands
    // there, as of a commit before the first: the database has pages that nobody committed.
    let (subject, shape) = (forgery(Dax), Shape { steps: 2, ..FORGED });
    let recording = record(&subject, shape, 1).unwrap_or_else(|e| panic!("{e}"));
    let plan = Plan { depth: 0, exhaust: 0, ..Plan::TINY };
    explore(&subject, &recording, shape, plan, 1, None).unwrap_or_else(|e| panic!("{e}"));
}

#[test]
fn each_site_is_one_call() {
    // Failure: two calls under one name, of which only both together are ever deleted.
    let mut text = String::new();
    let mut todo = vec![Path::new(env!("CARGO_MANIFEST_DIR")).join("../engine/src")];
    while let Some(path) = todo.pop() {
        if path.is_dir() {
            todo.extend(std::fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else {
            text += &std::fs::read_to_string(&path).expect("text");
        }
    }
    let named = |site: &Site| {
        let name = format!("Site::{site:?}");
        text.match_indices(&name).filter(|(at, _)| !text[at + name.len()..].starts_with(char::is_alphanumeric)).count()
    };
    let wrong: Vec<_> = Site::ALL.iter().map(|site| (site, named(site))).filter(|(_, n)| *n != 1).collect();
    assert!(wrong.is_empty(), "sites and how often the engine names them: {wrong:?}");
}
