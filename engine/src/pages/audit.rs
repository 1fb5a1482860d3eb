//! Whether the structures of the mapping are whole: each virtblock and each block is in use, on its way to be free, or free,
//! and that in one place only. For tests of what is done after a death: a block that was lost, or is in two places, would
//! show much later, if at all.

use super::virt::Place;
use super::{Pages, heads};
use crate::base::sync::Ordering;
use crate::base::{BlockNo, VirtNo};
use std::collections::HashMap;

const R: Ordering = Ordering::Relaxed;

/// What was met so far, and what is wrong with it.
struct Audit<'a> {
    pages: &'a Pages,
    /// Where each virtblock was met.
    met: Vec<&'static str>,
    /// What holds each block.
    held: HashMap<Place, &'static str>,
    wrong: Vec<String>,
}

impl Audit<'_> {
    fn check(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.wrong.push(what());
        }
    }

    /// Notes that `v` was met in `place`, with the block that it names. False if it was met before: to go on would be to go round.
    fn meets(&mut self, v: VirtNo, place: &'static str) -> bool {
        let Some(met) = self.met.get_mut(v.0 as usize) else {
            self.wrong.push(format!("{place}: virtblock {v:?} is not present"));
            return false;
        };
        let before = std::mem::replace(met, place);
        self.check(before.is_empty(), || format!("virtblock {v:?} is in {before} and in {place}"));
        match self.pages.virt(v).place() {
            held @ (Place::Fast(_) | Place::Cold(_)) => self.holds(held, place),
            Place::Free if place != "the free virtblocks" => self.wrong.push(format!("{v:?} in {place} is free")),
            Place::Home | Place::Free => {}
        }
        before.is_empty()
    }

    fn holds(&mut self, block: Place, by: &'static str) {
        if let Some(other) = self.held.insert(block, by) {
            self.wrong.push(format!("{block:?} is held by {other} and by {by}"));
        }
    }

    /// Page by page, from the newest version to the oldest.
    fn chains(&mut self) {
        for (page, first) in heads::all(&self.pages.shared) {
            let (mut at, mut younger) = (first, None);
            while at != VirtNo::NONE && self.meets(at, "a chain") {
                let virt = self.pages.virt(at);
                let (its, birth) = (virt.page(), virt.birth());
                self.check(its == page, || format!("{at:?} of page {its} is in the chain of page {page}"));
                let older = younger.is_none_or(|younger| birth < younger);
                self.check(older, || format!("page {page}: {at:?} of {birth} is behind one of {younger:?}"));
                if let Place::Fast(b) = virt.place() {
                    let says = self.pages.block(b).virt.load(R);
                    self.check(says == at.0, || format!("{b:?} says that it is {says}'s, it is {at:?}'s"));
                }
                (at, younger) = (virt.older(), Some(birth));
            }
        }
    }

    fn lists(&mut self) {
        let head = self.pages.shared.head();
        let lists =
            [("limbo", &head.limbo), ("grace", &head.grace), ("aging", &head.aging), ("cleared", &head.cleared)];
        for (name, list) in lists {
            let (mut at, mut last) = (VirtNo(list.first.load(R)), VirtNo::NONE);
            while at != VirtNo::NONE && self.meets(at, name) {
                last = at;
                at = VirtNo(self.pages.virt(at).link.load(R));
            }
            let ends = list.last.load(R);
            self.check(ends == last.0, || format!("{name} ends with {last:?}, and says {ends}"));
        }
    }

    fn virtblocks(&mut self) {
        let head = self.pages.shared.head();
        let (mut at, mut n) = (VirtNo(head.free_virt.load(R)), 0);
        while at != VirtNo::NONE && self.meets(at, "the free virtblocks") {
            at = VirtNo(self.pages.virt(at).link.load(R));
            n += 1;
        }
        let said = head.free_virts.load(R);
        self.check(n == said, || format!("{n} virtblocks are free, and {said} are said to be"));
        let lost: Vec<usize> = (1..self.met.len()).filter(|&v| self.met[v].is_empty()).collect();
        self.check(lost.is_empty(), || format!("virtblocks are nowhere: {lost:?}"));
    }

    fn blocks(&mut self) {
        let head = self.pages.shared.head();
        for b in &self.pages.free_stack()[..head.free_blocks.load(R) as usize] {
            self.holds(Place::Fast(BlockNo(b.load(R))), "the free blocks");
        }
        let of = |b: u32| Place::Fast(BlockNo(b));
        let lost: Vec<u32> = (0..head.blocks_present.load(R)).filter(|&b| !self.held.contains_key(&of(b))).collect();
        self.check(lost.is_empty(), || format!("blocks are nowhere: {lost:?}"));
        let mut free = 0;
        for c in 0..head.cold_present.load(R) {
            let (owned, held) = (self.pages.cold_owner(c).load(R) != 0, self.held.contains_key(&Place::Cold(c)));
            free += u32::from(!owned);
            self.check(owned == held, || format!("cold block {c}: owned {owned}, held {held}"));
        }
        let said = head.cold_free.load(R);
        self.check(free == said, || format!("{free} cold blocks are free, and {said} are said to be"));
    }
}

impl Pages {
    /// What is wrong, each in a line. Under the writer lock, outside a transaction.
    #[must_use]
    pub fn audit(&self) -> Vec<String> {
        let head = self.shared.head();
        if self.geometry().is_none() {
            return Vec::new();
        }
        let met = vec![""; head.virts_present.load(R) as usize];
        let mut audit = Audit { pages: self, met, held: HashMap::new(), wrong: Vec::new() };
        audit.chains();
        audit.lists();
        audit.virtblocks();
        audit.blocks();
        let said = (head.heads_used.load(R), head.heads_tombs.load(R));
        heads::recount(&self.shared);
        let counted = (head.heads_used.load(R), head.heads_tombs.load(R));
        audit.check(said == counted, || format!("heads and tombs are {counted:?}, and are said to be {said:?}"));
        audit.wrong
    }
}
