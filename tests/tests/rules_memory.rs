//! What an old reader costs (P12, P16): bounded by pages and snapshots, never by the number of commits made under it. Here on
//! real files, so that everything that can grow is seen: fast tier, virtblocks, the shared mapping and the cold file. They lie on
//! tmpfs, where a sync takes no time.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::{Durability::Process, MediumKind, Options, Session, Store};
use nvlite_tests::needs;
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{all_are, commit, mapping_of, stat};
use nvlite_tests::sim::mix;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// Pages of the database: three times those that the fast tier holds.
const PAGES: u32 = 3000;
/// Commits of one measured stretch. Each changes [`AT_ONCE`] pages.
const COMMITS: u64 = 1600;
const AT_ONCE: u64 = 8;

fn attach(dir: &Path, medium: MediumKind) -> Arc<Store> {
    let options = Options { medium: Some(medium), region: 1 << 20, ..Options::default() };
    Store::attach(Arc::new(PlainBase::new(&dir.join("app.db"))), &options).unwrap()
}

/// The most that was seen of each.
#[derive(Clone, Copy, Default, Debug, PartialEq)]
struct Used {
    /// Blocks of the fast tier.
    blocks: u64,
    /// Virtblocks that are in use.
    virtblocks: u64,
    /// Cold blocks in use.
    cold: u64,
    /// Storage of the mapping, bytes.
    mapping: u64,
    /// Length of the cold file, bytes.
    cold_file: u64,
    /// Length of the region, bytes.
    region: u64,
}

impl Used {
    fn most(self, other: Used) -> Used {
        Used {
            blocks: self.blocks.max(other.blocks),
            virtblocks: self.virtblocks.max(other.virtblocks),
            cold: self.cold.max(other.cold),
            mapping: self.mapping.max(other.mapping),
            cold_file: self.cold_file.max(other.cold_file),
            region: self.region.max(other.region),
        }
    }

    fn fields(self) -> [u64; 6] {
        [self.blocks, self.virtblocks, self.cold, self.mapping, self.cold_file, self.region]
    }
}

struct Case {
    store: Arc<Store>,
    dir: tempfile::TempDir,
    mapping: PathBuf,
    commits: u64,
}

impl Case {
    fn used(&self) -> Used {
        let file = |name: &str| std::fs::metadata(self.dir.path().join(name)).unwrap();
        let s = |name| stat(&self.store, name);
        Used {
            blocks: s("blocks_present"),
            virtblocks: s("virtblocks_present") - s("virtblocks_free"),
            cold: s("cold_blocks"),
            mapping: std::fs::metadata(&self.mapping).unwrap().blocks() * 512,
            cold_file: file("app.db-cold").len(),
            region: file("app.db-nvlite").len(),
        }
    }

    /// Changes pages anywhere, so many times. Answers the most that was used.
    fn write(&mut self, s: &mut Session, commits: u64) -> Used {
        let mut most = Used::default();
        for _ in 0..commits {
            self.commits += 1;
            let n = self.commits;
            let page = |i| 2 + (mix(n, i) % u64::from(PAGES - 1)) as u32;
            commit(s, PAGES, (0..AT_ONCE).map(page), (2 + n % 250) as u8, Process).unwrap();
            if n.is_multiple_of(16) {
                most = most.most(self.used());
            }
        }
        most
    }
}

#[test]
fn p12_p16_what_an_old_reader_costs_does_not_grow_with_the_commits_under_it() {
    // Failure: one forgotten SELECT, and every commit after it keeps a version of each page that it changed: in the fast tier,
    // as virtblocks of the mapping, or in the cold file.
    for medium in [MediumKind::File, MediumKind::Ram] {
        let Ok(dir) = tempfile::tempdir_in("/dev/shm") else { return needs::skipped("/dev/shm") };
        let store = attach(dir.path(), medium);
        let (mut s, mut old) = (store.session().unwrap(), store.session().unwrap());
        commit(&mut s, PAGES, 2..=PAGES, 1, Process).unwrap();
        let blocks = stat(&store, "blocks_max");
        assert!(u64::from(PAGES) > 2 * blocks, "{medium:?}: {blocks} blocks");
        old.begin_read().unwrap();
        let mapping = mapping_of(&store.region_path()).unwrap();
        let mut case = Case { store: store.clone(), dir, mapping, commits: 0 };
        let first = case.write(&mut s, COMMITS);
        assert!(COMMITS * AT_ONCE > 10 * blocks, "{medium:?}: the fast tier was turned over ten times");
        let later = case.write(&mut s, 3 * COMMITS);
        println!("{medium:?}: {first:?}, then {later:?}; evictions {}", stat(&store, "evictions"));
        for (name, (first, later)) in ["blocks", "virtblocks", "cold blocks", "mapping", "cold file", "region"]
            .into_iter()
            .zip(first.fields().into_iter().zip(later.fields()))
        {
            // what grows with commits is four times as much by now
            assert!(later <= first + first / 2, "{medium:?}: {name}: {first}, then {later}");
        }
        // at most: the old version and the newest of every page, one being made, and what waits for its grace
        let bound = 2 * u64::from(PAGES) + 4 * blocks;
        assert!(later.virtblocks < bound && later.cold < bound, "{medium:?}: {later:?}, bound {bound}");
        assert!(all_are(&mut old, 2..=PAGES, 1).unwrap(), "{medium:?}: it reads what it read first");
        old.end_read();
        drop((s, old, case.store));
        store.close().unwrap();
    }
}
