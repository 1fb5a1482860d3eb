//! Whether what pages have in memory and in the cold file still is what was put there. Recovery asks that of a region that it
//! finds; this, of a database that is open, a few blocks at a time, between others' commits.

use crate::base::page_sum::page_sum;
use crate::base::sync::Ordering;
use crate::base::{BlockNo, PageNo, Result, VirtNo};
use crate::engine::Engine;
use crate::medium::BaseFile;
use crate::pages::Pages;
use crate::pages::virt::{Place, Virt};
use std::ops::Range;

const R: Ordering = Ordering::Relaxed;

/// Where a page is that does not hold what was put there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DamagedPlace {
    /// In this block of the fast tier.
    Fast(u32),
    /// In this block of the cold file.
    Cold(u32),
}

/// What is left of a damaged page.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Remedy {
    /// Its home in the base file holds what it should.
    Home,
    /// Only readers of an older snapshot need it.
    OldVersion,
    /// There is no other copy.
    None,
}

/// A page that does not hold what was put there.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Damage {
    /// The page.
    pub page: PageNo,
    /// Where.
    pub place: DamagedPlace,
    /// What is left of it.
    pub remedy: Remedy,
}

impl Engine {
    /// Blocks that there are to verify: those of the fast tier, then those of the cold file.
    pub fn to_verify(&self) -> (u32, u32) {
        let head = self.shared.head();
        match self.pages.settled() {
            Some(_) => (head.blocks_present.load(Ordering::Acquire), head.cold_present.load(Ordering::Acquire)),
            None => (0, 0),
        }
    }

    /// Adds the damaged ones of these blocks of the fast tier. Under the writer lock, as nothing is stored to them then.
    pub fn verify_fast(&self, blocks: Range<u32>, base: &dyn BaseFile, found: &mut Vec<Damage>) -> Result<()> {
        for b in blocks.map(BlockNo) {
            let block = self.pages.block(b);
            let v = VirtNo(block.virt.load(R));
            if !self.is_version(v, Place::Fast(b)) {
                continue;
            }
            let sum = block.sum.load(R);
            if page_sum(self.pages.geo().arena.view(b)) != sum {
                found.push(self.damage(v, DamagedPlace::Fast(b.0), Some(sum), base)?);
            }
        }
        Ok(())
    }

    /// As [`verify_fast`](Self::verify_fast), of the cold file.
    ///
    /// # Errors
    /// Of the file.
    pub fn verify_cold(&self, blocks: Range<u32>, base: &dyn BaseFile, found: &mut Vec<Damage>) -> Result<()> {
        let mut content = vec![0; self.pages.geo().arena.size() as usize];
        for c in blocks {
            let v = VirtNo(self.pages.cold_owner_of(c));
            if !self.is_version(v, Place::Cold(c)) {
                continue;
            }
            let good = match self.pages.load_cold(c, &mut content) {
                Err(error) if !matches!(error, crate::base::Error::Corrupt { .. }) => return Err(error),
                read => read.is_ok() && Pages::sum_of_cold(c, &content) == self.pages.cold_sum(c),
            };
            if !good {
                found.push(self.damage(v, DamagedPlace::Cold(c), None, base)?);
            }
        }
        Ok(())
    }

    /// Whether `v` is in the chain of a page, and has its content there. What is on its way to be free nobody reads.
    fn is_version(&self, v: VirtNo, place: Place) -> bool {
        if v == VirtNo::NONE || v.0 >= self.shared.head().virts_present.load(R) || self.pages.virt(v).place() != place {
            return false;
        }
        let mut at = self.pages.newest(self.pages.virt(v).page()).map_or(VirtNo::NONE, |(newest, _)| newest);
        while at != v && at != VirtNo::NONE {
            at = self.pages.virt(at).older();
        }
        at == v
    }

    fn damage(&self, v: VirtNo, place: DamagedPlace, sum: Option<u64>, base: &dyn BaseFile) -> Result<Damage> {
        let virt: &Virt = self.pages.virt(v);
        let page = virt.page();
        let remedy = if self.pages.newest(page).is_none_or(|(newest, _)| newest != v) {
            Remedy::OldVersion
        } else if virt.is_dirty() {
            Remedy::None
        } else {
            let mut home = vec![0; self.pages.geo().arena.size() as usize];
            let whole = self.read_home(page, 0, &mut home, base)? == home.len();
            if whole && Some(page_sum(&home)) == sum { Remedy::Home } else { Remedy::None }
        };
        Ok(Damage { page, place, remedy })
    }
}
