//! What one medium may hold after a crash: for each unit of atomicity, the values it may have.
//!
//! A unit is an aligned 8-byte granule of a `Pmem` or a 512-byte sector of a `Disk`. A unit with one possible value is
//! *settled*; the others are *open* and list every value they had since, and including, the last one known to be persistent.

use std::collections::BTreeMap;
use std::sync::Arc;

/// Bytes of a granule.
pub const GRANULE: u64 = 8;
/// Bytes of a cache line.
pub const LINE: u64 = 64;
/// Bytes of a sector.
pub const SECTOR: u64 = 512;

/// Something that a crash keeps whole or not at all.
pub trait Unit: Clone + PartialEq + Send + Sync + 'static {
    /// Its size in bytes.
    const SIZE: usize;
    /// The unit that starts `bytes`.
    fn take(bytes: &[u8]) -> Self;
    /// Writes it over the start of `bytes`.
    fn put(&self, bytes: &mut [u8]);
}

impl Unit for u64 {
    const SIZE: usize = GRANULE as usize;

    fn take(bytes: &[u8]) -> u64 {
        match bytes.first_chunk() {
            Some(word) => u64::from_ne_bytes(*word),
            None => 0,
        }
    }

    fn put(&self, bytes: &mut [u8]) {
        bytes[..8].copy_from_slice(&self.to_ne_bytes());
    }
}

/// The content of one sector.
#[derive(Clone, PartialEq)]
pub struct Sector(Arc<[u8]>);

impl Unit for Sector {
    const SIZE: usize = SECTOR as usize;

    fn take(bytes: &[u8]) -> Sector {
        Sector(bytes[..Self::SIZE].into())
    }

    fn put(&self, bytes: &mut [u8]) {
        bytes[..Self::SIZE].copy_from_slice(&self.0);
    }
}

/// A value that a unit had, and the event that gave it.
#[derive(Clone)]
pub struct Version<V> {
    /// Number of the event that stored it; 0 for what was there before the first.
    pub stamp: u32,
    /// The value.
    pub value: V,
}

/// Every value that an open unit may have, oldest first; at least two.
pub type Open<V> = Vec<Version<V>>;

/// All units of one medium.
#[derive(Clone)]
pub struct Cells<U: Unit> {
    /// The settled units; under an open one, its oldest value.
    pub bytes: Vec<u8>,
    /// The open ones, by number.
    pub open: BTreeMap<u64, Open<U>>,
}

impl<U: Unit> Cells<U> {
    /// Zeros, all settled. `len` is rounded up to whole units.
    pub fn new(len: usize) -> Self {
        Cells { bytes: vec![0; len.next_multiple_of(U::SIZE)], open: BTreeMap::new() }
    }

    /// Makes room for units below `len`.
    pub fn reach(&mut self, len: u64) {
        let len = (len as usize).next_multiple_of(U::SIZE);
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }

    /// Forgets every unit that starts at or above `len`, and what lies above `len` in the one that contains it.
    pub fn cut(&mut self, len: u64) {
        let whole = (len as usize).next_multiple_of(U::SIZE);
        if whole < self.bytes.len() {
            self.bytes.truncate(whole);
            self.open.split_off(&((whole / U::SIZE) as u64));
        }
        let len = len as usize;
        if len < self.bytes.len() {
            self.bytes[len..].fill(0);
        }
    }

    fn settled(&self, unit: u64) -> U {
        U::take(&self.bytes[unit as usize * U::SIZE..])
    }

    /// The newest value of a unit.
    pub fn newest(&self, unit: u64) -> U {
        match self.open.get(&unit).and_then(|open| open.last()) {
            Some(version) => version.value.clone(),
            None => self.settled(unit),
        }
    }

    /// A store of one whole unit: one value more that it may have.
    pub fn store(&mut self, unit: u64, stamp: u32, value: U) {
        if self.newest(unit) == value {
            return;
        }
        let oldest = Version { stamp: 0, value: self.settled(unit) };
        let open = self.open.entry(unit).or_insert_with(|| vec![oldest]);
        open.push(Version { stamp, value });
    }

    /// What `unit` had at the event `stamp` is persistent: it has that value or a later one.
    pub fn settle(&mut self, unit: u64, stamp: u32) {
        let Some(open) = self.open.get_mut(&unit) else { return };
        let kept = open.iter().rposition(|version| version.stamp <= stamp).unwrap_or(0);
        open.drain(..kept);
        open[0].value.put(&mut self.bytes[unit as usize * U::SIZE..]);
        if open.len() == 1 {
            self.open.remove(&unit);
        }
    }

    /// Everything has its newest value.
    pub fn settle_all(&mut self) {
        for (unit, open) in std::mem::take(&mut self.open) {
            if let Some(version) = open.last() {
                version.value.put(&mut self.bytes[unit as usize * U::SIZE..]);
            }
        }
    }

    /// It was seen what the medium held: of the values it might have had when the power failed, only `value` remains.
    /// What was stored since stays possible.
    pub fn observe(&mut self, unit: u64, value: &U) {
        self.open.remove(&unit);
        value.put(&mut self.bytes[unit as usize * U::SIZE..]);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn possible(cells: &Cells<u64>, unit: u64) -> Vec<u64> {
        match cells.open.get(&unit) {
            Some(open) => open.iter().map(|version| version.value).collect(),
            None => vec![cells.settled(unit)],
        }
    }

    #[test]
    fn a_unit_may_have_every_value_since_the_last_persistent_one() {
        let mut cells = Cells::<u64>::new(64);
        cells.store(3, 1, 10);
        cells.store(3, 2, 20);
        cells.store(3, 4, 30);
        assert_eq!(possible(&cells, 3), [0, 10, 20, 30]);
        cells.settle(3, 3);
        assert_eq!(possible(&cells, 3), [20, 30]);
        cells.settle(3, 3);
        assert_eq!(possible(&cells, 3), [20, 30]);
        cells.settle_all();
        assert_eq!(possible(&cells, 3), [30]);
    }

    #[test]
    fn a_flush_from_before_an_earlier_settling_settles_nothing_new() {
        let mut cells = Cells::<u64>::new(64);
        cells.store(0, 1, 1);
        cells.settle_all();
        cells.store(0, 3, 2);
        cells.store(0, 4, 3);
        cells.settle(0, 2);
        assert_eq!(possible(&cells, 0), [1, 2, 3]);
    }
}
