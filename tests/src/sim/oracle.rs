//! Which of its possible values an open unit turns out to have. Asked when recovery first reads the unit.

use super::cells::Version;
use super::event::Dev;
use std::collections::{BTreeSet, HashMap};

/// A way of choosing; each is reproducible from what it holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Policy {
    /// Nothing that was not known to be persistent survived.
    Oldest,
    /// Everything survived.
    Newest,
    /// Everything but what this event stored.
    Without(u32),
    /// Nothing but what this event stored.
    Only(u32),
    /// What was stored until this event, nothing later.
    UpTo(u32),
    /// Each event's stores survived whole or not at all, by lot.
    Events(u64),
    /// Each unit by lot.
    Units(u64),
    /// By script: choice by choice, the oldest value where it ends. What is still open when recovery is done was nothing to
    /// it; that goes by lot, another one for each script.
    Script(Grain, Vec<usize>),
}

/// What a script decides at once.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Grain {
    /// A unit.
    Unit,
    /// A line of memory, which was written back after one of the stores to it or never; of files a sector.
    Line,
}

/// Chooses, and remembers what it chose from.
#[derive(Clone, Debug)]
pub struct Oracle {
    policy: Policy,
    asked: u64,
    /// For a script: each choice and out of how many.
    trail: Vec<(usize, usize)>,
    /// For a script by lines: the newest event that each of those decided so far has seen.
    lines: HashMap<(Dev, u64), u32>,
    /// The script is over.
    over: bool,
}

/// A number that looks random, from two others (splitmix64).
pub fn mix(seed: u64, n: u64) -> u64 {
    let mut z = seed.wrapping_add(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)).wrapping_add(0x9E37_79B9_7F4A_7C15);
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

impl Oracle {
    /// One that follows `policy`.
    pub fn new(policy: Policy) -> Self {
        Oracle { policy, asked: 0, trail: Vec::new(), lines: HashMap::new(), over: false }
    }

    /// The position of the value that the unit has.
    pub fn choose<V>(&mut self, open: &[Version<V>]) -> usize {
        let newest = |kept: &dyn Fn(u32) -> bool| open.iter().rposition(|v| kept(v.stamp)).unwrap_or(0);
        self.asked += 1;
        match &self.policy {
            Policy::Oldest => 0,
            Policy::Newest => open.len() - 1,
            Policy::Without(event) => newest(&|stamp| stamp != *event),
            Policy::Only(event) => newest(&|stamp| stamp == *event),
            Policy::UpTo(event) => newest(&|stamp| stamp <= *event),
            Policy::Events(seed) => newest(&|stamp| mix(*seed, u64::from(stamp)) & 1 == 0),
            Policy::Units(seed) => (mix(*seed, self.asked) % open.len() as u64) as usize,
            Policy::Script(_, script) if self.over => {
                let seed = script.iter().fold(script.len() as u64, |seed, chosen| mix(seed, *chosen as u64));
                (mix(seed, self.asked) % open.len() as u64) as usize
            }
            Policy::Script(..) => self.next_choice(open.len()),
        }
    }

    /// As [`choose`](Self::choose), of a unit in a line that is decided at once if the policy says so; `stamps` are the
    /// events that gave the open units of that line their values, the oldest values apart.
    pub fn choose_in_line<V>(
        &mut self,
        line: (Dev, u64),
        open: &[Version<V>],
        stamps: impl FnOnce() -> BTreeSet<u32>,
    ) -> usize {
        if self.over || !matches!(self.policy, Policy::Script(Grain::Line, _)) {
            return self.choose(open);
        }
        let until = match self.lines.get(&line) {
            Some(until) => *until,
            None => {
                let stamps = stamps();
                let chosen = self.next_choice(stamps.len() + 1);
                let until = chosen.checked_sub(1).and_then(|i| stamps.into_iter().nth(i)).unwrap_or(0);
                self.lines.insert(line, until);
                until
            }
        };
        open.iter().skip(1).rposition(|v| v.stamp <= until).map_or(0, |i| i + 1)
    }

    fn next_choice(&mut self, of: usize) -> usize {
        let Policy::Script(_, script) = &self.policy else { return 0 };
        let chosen = script.get(self.trail.len()).copied().unwrap_or(0);
        self.trail.push((chosen, of));
        chosen
    }

    /// From here on no choice can change what recovery does.
    pub fn end_script(&mut self) {
        self.over = true;
    }

    /// How many scripts there are, if all meet the same choices.
    pub fn scripts(&self) -> usize {
        self.trail.iter().fold(1, |n, (_, of)| n.saturating_mul(*of))
    }

    /// The script that follows the one just played, depth first; `None` when all were played.
    pub fn next_script(&self) -> Option<Policy> {
        let Policy::Script(grain, _) = self.policy else { return None };
        let last = self.trail.iter().rposition(|(chosen, of)| chosen + 1 < *of)?;
        let mut script: Vec<usize> = self.trail[..last].iter().map(|(chosen, _)| *chosen).collect();
        script.push(self.trail[last].0 + 1);
        Some(Policy::Script(grain, script))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_visit_every_combination_once() {
        let versions = |n: u32| (0..n).map(|stamp| Version { stamp, value: stamp }).collect::<Vec<_>>();
        let mut seen = std::collections::BTreeSet::new();
        let mut policy = Some(Policy::Script(Grain::Unit, Vec::new()));
        while let Some(script) = policy {
            let mut oracle = Oracle::new(script);
            let first = oracle.choose(&versions(3));
            let second = if first == 1 { oracle.choose(&versions(4)) } else { 9 };
            oracle.end_script();
            oracle.choose(&versions(5));
            assert!(seen.insert((first, second)));
            policy = oracle.next_script();
        }
        assert_eq!(seen.len(), 1 + 4 + 1);
    }
    #[test]
    fn a_line_has_what_was_stored_until_one_moment() {
        let of = |stamps: &[u32]| stamps.iter().map(|&stamp| Version { stamp, value: stamp }).collect::<Vec<_>>();
        let (one, two) = (of(&[0, 3, 7]), of(&[2, 5]));
        let mut seen = Vec::new();
        let mut policy = Some(Policy::Script(Grain::Line, Vec::new()));
        while let Some(script) = policy {
            let mut oracle = Oracle::new(script);
            let mut value =
                |open: &[Version<u32>]| open[oracle.choose_in_line((0, 4), open, || [3, 5, 7].into())].value;
            seen.push((value(&one), value(&two)));
            policy = oracle.next_script();
        }
        assert_eq!(seen, [(0, 2), (3, 2), (3, 5), (7, 5)]);
    }
}
