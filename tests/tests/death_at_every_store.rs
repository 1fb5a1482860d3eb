//! A process that has joined a live database dies right after a store to what it shares with others, or a call that changes a file, in
//! the middle of a commit, a retirement, a page brought in. This process stays attached, so that nothing is recovered: it has to bring
//! in order what the dead one left (P13), sees all or nothing of the dead one's commit, and goes on; the structures of the mapping must
//! then be whole (`Store::audit`).
//!
//! Somebody dies after the first store of each instruction that stores anything, and after some of each deed by lot. `NVLITE_DEATHS=all`
//! asks for all stores (of an instruction that makes very many, for some), a number for so many by lot; `NVLITE_DEATHS_SEED` for other
//! lots, `NVLITE_DEATHS_DEED` for one deed.

#![allow(missing_docs, clippy::panic)]

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
mod every_store {
    use nvlite_engine::MediumKind;
    use nvlite_tests::deaths::{Deed, Stage};
    use nvlite_tests::sim::mix;
    use std::collections::{HashMap, HashSet};
    use std::sync::mpsc::{RecvTimeoutError, channel};
    use std::time::Duration;

    const WORKER: &str = env!("CARGO_BIN_EXE_death_worker");
    /// Deaths by lot of each deed on each medium, if nothing else is asked for.
    const LOTS: usize = 6;
    /// Deaths after stores of one instruction in one deed, if all are asked for.
    const MOST: usize = 200;
    /// Stores after which one dies before the one that repairs, spread over its commit; of them the middle one, if nothing else is asked for.
    const EARLIER: usize = 3;
    /// Instructions that store there are at least; how many depends on the compiler.
    const LEAST: usize = 120;
    /// Who goes on takes milliseconds, were nothing in its way.
    const SOON: Duration = Duration::from_secs(30);

    /// What is done where.
    #[derive(Clone, Copy, Debug)]
    struct Scene {
        deed: Deed,
        kind: MediumKind,
        /// The store after which one has died before.
        earlier: Option<usize>,
    }

    impl Scene {
        fn stage(self) -> Stage {
            let stage = Stage::set(self.deed, self.kind).unwrap_or_else(|e| panic!("{self:?}: {e}"));
            if let Some(last) = self.earlier {
                let death = stage.earlier_victim(WORKER, last).unwrap_or_else(|e| panic!("{self:?}: {e}"));
                assert!(death.died, "{self:?}: the earlier victim lives");
            }
            stage
        }

        /// Dies after the `last`-th store, and looks what becomes of those who live, who die `soon` or later. True if it got there.
        fn die(self, last: usize, soon: bool) -> bool {
            let context = format!("{self:?}, death after store {last}, soon {soon}");
            let stage = self.stage();
            let death = stage.victim(WORKER, last).unwrap_or_else(|e| panic!("{context}: {e}"));
            let (tell, told) = channel();
            let living = std::thread::spawn(move || {
                let done = stage.go_on(death.told, soon);
                let _ = tell.send(());
                done
            });
            assert_ne!(told.recv_timeout(SOON), Err(RecvTimeoutError::Timeout), "{context}: who lives hangs");
            match living.join() {
                Ok(done) => done.unwrap_or_else(|e| panic!("{context}: {e}")),
                Err(_) => panic!("{context}: see above"),
            }
            death.died
        }

        /// Dies after some stores: of each instruction that is not in `covered`, and some by lot; or after all.
        fn die_often(self, seed: u64, covered: &mut HashSet<u64>) {
            let stores = self.stage().victim(WORKER, 0).unwrap_or_else(|e| panic!("{self:?}: {e}")).stores;
            assert!(stores.len() > 20, "{self:?}: it has hardly stored anything");
            let drawn = drawn(&stores, seed, covered);
            // on other media than a file there is nothing that is not yet where the next one looks for it
            let died =
                |&&last: &&usize| self.die(last, false) && (self.kind != MediumKind::File || self.die(last, true));
            let died = drawn.iter().filter(died).count();
            println!("{self:?}: {died} of {} deaths at {} stores", drawn.len(), stores.len());
            assert!(died * 10 > drawn.len() * 9, "{self:?}: only {died} of {} died", drawn.len());
        }
    }

    /// How many deaths by lot are asked for; `None` for all that can be.
    fn asked() -> Option<usize> {
        match std::env::var("NVLITE_DEATHS") {
            Err(_) => Some(LOTS),
            Ok(all) if all == "all" => None,
            Ok(n) => Some(n.parse().unwrap_or_else(|e| panic!("NVLITE_DEATHS={n}: {e}"))),
        }
    }

    /// After which of `stores`, counted from 1, somebody is to die.
    fn drawn(stores: &[u64], seed: u64, covered: &mut HashSet<u64>) -> Vec<usize> {
        let mut order: Vec<usize> = (0..stores.len()).collect();
        if let Some(lots) = asked() {
            // the first by each instruction, which takes the least time to come to, then some
            order.retain(|&i| covered.insert(stores[i]));
            let lot = |i: usize| (mix(seed, i as u64) % stores.len() as u64) as usize;
            order.extend((0..lots).map(lot));
        } else {
            let mut met: HashMap<u64, usize> = HashMap::new();
            stores.iter().for_each(|by| *met.entry(*by).or_default() += 1);
            let mut seen: HashMap<u64, usize> = HashMap::new();
            order.retain(|&i| {
                let nth = seen.entry(stores[i]).or_default();
                *nth += 1;
                nth.is_multiple_of(met[&stores[i]].div_ceil(MOST))
            });
            covered.extend(stores);
        }
        order.into_iter().map(|i| i + 1).collect()
    }

    /// Plays all deeds.
    pub fn deaths(kind: MediumKind) {
        let only = std::env::var("NVLITE_DEATHS_DEED").ok();
        let seed = std::env::var("NVLITE_DEATHS_SEED").map_or(1, |n| n.parse().expect("a number"));
        let is_asked = |deed: &Deed| match &only {
            Some(only) => *only == format!("{deed:?}"),
            // it fills tables, which takes seconds
            None => *deed != Deed::Fresh || std::env::var_os("NVLITE_DEATHS").is_some(),
        };
        let mut covered = HashSet::new();
        for deed in Deed::ALL.into_iter().filter(|deed| is_asked(deed) && deed.is_on(kind)) {
            let (scene, seed) = (Scene { deed, kind, earlier: None }, mix(seed, deed as u64));
            if deed != Deed::Repair {
                scene.die_often(seed, &mut covered);
                continue;
            }
            let stage = scene.stage();
            let stores = stage.earlier_victim(WORKER, 0).unwrap_or_else(|e| panic!("{scene:?}: {e}")).stores.len();
            let (first, step) = if std::env::var("NVLITE_DEATHS").is_ok() { (0, 1) } else { (EARLIER / 2, EARLIER) };
            for i in (first..EARLIER).step_by(step) {
                let earlier = Some(stores * (2 * i + 1) / (2 * EARLIER));
                Scene { earlier, ..scene }.die_often(seed, &mut covered);
            }
        }
        println!("{kind:?}: deaths after {} instructions that store", covered.len());
        assert!(only.is_some() || covered.len() > LEAST, "only {} instructions store", covered.len());
    }
}

#[cfg(all(target_os = "linux", target_arch = "x86_64"))]
use every_store::deaths;

#[cfg(not(all(target_os = "linux", target_arch = "x86_64")))]
fn deaths(_: nvlite_engine::MediumKind) {
    nvlite_tests::needs::skipped("Linux on x86-64, on which single stores are told");
}

#[test]
fn p13_death_at_every_store_on_file() {
    deaths(nvlite_engine::MediumKind::File);
}

#[test]
fn p13_death_at_every_store_on_ram() {
    deaths(nvlite_engine::MediumKind::Ram);
}
