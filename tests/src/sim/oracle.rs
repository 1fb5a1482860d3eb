//! Which of its possible values an open unit turns out to have. Asked when recovery first reads the unit.

use super::cells::Version;

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
    /// By script: choice by choice, the oldest value where it ends.
    Script(Vec<usize>),
}

/// Chooses, and remembers what it chose from.
#[derive(Clone, Debug)]
pub struct Oracle {
    policy: Policy,
    asked: u64,
    /// For a script: each choice and out of how many.
    trail: Vec<(usize, usize)>,
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
        Oracle { policy, asked: 0, trail: Vec::new() }
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
            Policy::Script(script) => {
                let chosen = script.get(self.trail.len()).copied().unwrap_or(0);
                self.trail.push((chosen, open.len()));
                chosen
            }
        }
    }

    /// The script that follows the one just played, depth first; `None` when all were played.
    pub fn next_script(&self) -> Option<Policy> {
        let last = self.trail.iter().rposition(|(chosen, of)| chosen + 1 < *of)?;
        let mut script: Vec<usize> = self.trail[..last].iter().map(|(chosen, _)| *chosen).collect();
        script.push(self.trail[last].0 + 1);
        Some(Policy::Script(script))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scripts_visit_every_combination_once() {
        let versions = |n: u32| (0..n).map(|stamp| Version { stamp, value: stamp }).collect::<Vec<_>>();
        let mut seen = std::collections::BTreeSet::new();
        let mut policy = Some(Policy::Script(Vec::new()));
        while let Some(script) = policy {
            let mut oracle = Oracle::new(script);
            let first = oracle.choose(&versions(3));
            let second = if first == 1 { oracle.choose(&versions(4)) } else { 9 };
            assert!(seen.insert((first, second)));
            policy = oracle.next_script();
        }
        assert_eq!(seen.len(), 1 + 4 + 1);
    }
}
