//! The figures of `nvlite_stat`.

use crate::base::MediumKind;
use crate::base::sync::{AtomicU64, Ordering};
use crate::engine::{CONNECTION, Engine};
use crate::medium::is_tmpfs;
use crate::pages::heads;
use crate::store::{Stat, StatValue};

/// A medium's name, as in the URI.
#[must_use]
pub fn medium_name(kind: MediumKind) -> &'static str {
    match kind {
        MediumKind::Dax => "dax",
        MediumKind::File => "file",
        MediumKind::Ram => "ram",
    }
}

impl Engine {
    /// All figures, in a fixed order.
    #[must_use]
    pub fn stats(&self) -> Vec<Stat> {
        let head = self.shared.head();
        let c = &head.counters;
        let read = |a: &AtomicU64| a.load(Ordering::Relaxed);
        let medium = self.region.kind();
        // `file` on a tmpfs goes with the machine, too
        let in_memory = |path| is_tmpfs(path).unwrap_or(false);
        let volatile = medium == MediumKind::Ram || in_memory(self.region.path()) || in_memory(self.base.path());
        let survives = if volatile { "the death of all processes" } else { "power loss" };
        let slots = self.shared.slots();
        let oldest = slots.oldest_pin().map_or(0, |jci| jci.0);
        let readers = slots.used().filter(|(_, slot)| slot.pin().is_some()).count() as u64;
        let connections = slots.used().filter(|(_, slot)| slot.words[CONNECTION].load(Ordering::Relaxed) != 0).count();
        let (clean, dirty, cold) = if self.pages.geometry().is_some() { self.usage() } else { (0, 0, 0) };
        let text = |name, value: &str| Stat { name, value: StatValue::Text(value.to_owned()) };
        let mut rows = vec![
            text("medium", medium_name(medium)),
            text("survives", survives),
            text("region_id", &self.id.to_string()),
            text("region", &self.region.path().display().to_string()),
            text("oldest_reader", &self.oldest_reader()),
        ];
        let ints = [
            ("attachment", u64::from(self.live.own().0)),
            ("page_size", self.pages.settled().map_or(0, |g| u64::from(g.arena.size()))),
            ("incarnation", self.incarnation().0),
            ("jci_published", head.clock.published().0),
            ("jci_durable", head.clock.durable().0),
            ("jci_visible", head.clock.visible().0),
            ("jci_low_water", read(&head.retired)),
            ("jci_oldest_reader", oldest),
            ("readers", readers),
            ("connections", connections as u64),
            ("slots", slots.used().count() as u64),
            ("queue", u64::from(head.writer.waiting(self.shared.slots()))),
            ("commits", read(&c.commits)),
            ("batches", read(&c.batches)),
            ("fences", read(&c.fences)),
            ("syncs", read(&c.syncs)),
            ("flushes", read(&c.fences) + read(&c.syncs)),
            ("lines_flushed", read(&c.lines_flushed)),
            ("bytes_logged", read(&c.bytes_logged)),
            ("log_bytes_written", read(&c.log_bytes_written)),
            ("pages_in_place", read(&c.pages_in_place)),
            ("pages_copied", read(&c.pages_copied)),
            ("shadow_blocks", read(&c.shadow_blocks)),
            ("retirements", read(&c.retirements)),
            ("homes_written", read(&c.homes_written)),
            ("homes_saved", read(&c.homes_saved)),
            ("faults", read(&c.faults)),
            ("evictions", read(&c.evictions)),
            ("repairs", read(&c.repairs)),
            ("refusals", read(&c.refusals)),
            ("blocks_max", self.pages.geometry().map_or(0, |g| u64::from(g.layout.max_blocks))),
            ("blocks_present", u64::from(head.blocks_present.load(Ordering::Relaxed))),
            ("blocks_free", u64::from(head.free_blocks.load(Ordering::Relaxed))),
            ("pages_hot_clean", clean),
            ("pages_hot_dirty", dirty),
            ("pages_cold", cold),
            ("cold_blocks", u64::from(self.pages.cold_used())),
            ("cold_blocks_unused", u64::from(head.cold_unused.load(Ordering::Relaxed))),
            ("virtblocks_present", u64::from(head.virts_present.load(Ordering::Relaxed))),
            ("virtblocks_free", u64::from(head.free_virts.load(Ordering::Relaxed))),
            ("ring_slots", self.layout.ring_slots),
            ("ring_used", self.ring_used()),
            ("heads", heads_len(self)),
        ];
        rows.extend(ints.into_iter().map(|(name, n)| Stat { name, value: StatValue::Int(n) }));
        rows
    }
}

fn heads_len(engine: &Engine) -> u64 {
    if engine.pages.geometry().is_some() { heads::all(&engine.shared).count() as u64 } else { 0 }
}
