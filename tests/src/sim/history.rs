//! Histories to drive a store through.

use super::model::{Tx, Write};
use super::oracle::mix;

/// One step of a history.
#[derive(Clone, Debug)]
pub enum Step {
    /// A transaction; acknowledged as durable if the flag says so.
    Commit(Tx, bool),
    /// A transaction that is written and prepared, and then rolled back.
    Abort(Tx),
    /// A transaction between whose preparation and commit another connection reads, and asks for a checkpoint.
    Beside(Tx),
    /// Another process begins this transaction, and dies.
    Die(Tx, Death),
    /// A reader begins a transaction; it must see the same until it ends.
    Pin(usize),
    /// It compares what it sees with what it saw, and ends.
    Unpin(usize),
    /// What `nvlite_checkpoint()` does.
    Checkpoint,
    /// The store is closed cleanly and opened again.
    Reopen,
}

/// How a process dies.
#[derive(Clone, Copy, Debug)]
pub struct Death {
    /// In front of this operation on a medium, counted from 0.
    pub at: u64,
    /// That is one of a checkpoint after the commit, and not of the commit.
    pub retires: bool,
    /// Whether its commit waits for durability.
    pub durable: bool,
    /// Were that a sync, it dies in the middle of it, and the sync fails: what was written is in doubt.
    pub fails: bool,
}

/// What a generated history looks like.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// Steps.
    pub steps: usize,
    /// Page size.
    pub page_size: usize,
    /// The database grows up to this.
    pub max_pages: u32,
    /// Most pages that a transaction writes.
    pub max_writes: u32,
    /// In 1 of this many writes the whole page is new; else a few bytes are.
    pub whole: u64,
    /// Readers that come and go.
    pub readers: usize,
    /// Every so many steps a checkpoint; 0 for never.
    pub checkpoints: u64,
    /// Every so many steps a close and open; 0 for never.
    pub reopens: u64,
    /// In 1 of this many transactions nobody waits for durability; 0 for never.
    pub lazy: u64,
    /// In 1 of this many transactions the database shrinks; 0 for never.
    pub shrinks: u64,
    /// In 1 of this many transactions half of all pages are written, several times each; 0 for never.
    pub large: u64,
    /// In 1 of this many transactions the new pages are not written, so that they are zeros; 0 for never.
    pub sparse: u64,
    /// In 1 of this many transactions another connection does something in the middle; 0 for never.
    pub beside: u64,
    /// In 1 of this many transactions the process dies; 0 for never.
    pub deaths: u64,
    /// It dies in front of one of so many operations on a medium.
    pub operations: u64,
    /// In 1 of this many deaths it dies not in its commit, but in a checkpoint after it; 0 for never.
    pub retirers: u64,
    /// In 1 of this many deaths the operation fails, if it is a sync; 0 for never.
    pub failures: u64,
    /// What a process that died has published may be durable or not, as on `file`: after it somebody makes it so.
    pub batched: bool,
}

impl Shape {
    /// Few transactions over few pages, for exhaustive exploration.
    pub const TINY: Shape = Shape {
        steps: 3,
        page_size: 512,
        max_pages: 3,
        max_writes: 2,
        whole: 4,
        readers: 0,
        checkpoints: 0,
        reopens: 0,
        lazy: 0,
        shrinks: 0,
        large: 0,
        sparse: 0,
        beside: 0,
        deaths: 0,
        operations: 12,
        retirers: 0,
        failures: 0,
        batched: false,
    };

    /// So few bytes that all that a crash may leave can be gone through.
    pub const LEAST: Shape = Shape { steps: 2, max_pages: 2, max_writes: 1, whole: u64::MAX, sparse: 1, ..Shape::TINY };

    /// Hundreds of transactions of every kind.
    pub const LONG: Shape = Shape {
        steps: 300,
        page_size: 1024,
        max_pages: 120,
        max_writes: 8,
        whole: 4,
        readers: 3,
        checkpoints: 40,
        reopens: 150,
        lazy: 5,
        shrinks: 20,
        large: 15,
        sparse: 4,
        beside: 8,
        ..Shape::TINY
    };

    /// Every third transaction's process dies.
    pub const DEADLY: Shape = Shape { steps: 40, max_pages: 40, max_writes: 4, deaths: 3, large: 0, ..Shape::LONG };

    /// The same with the few operations that a commit on `file` has: zeros, the batch, the sync. Those of a retirement
    /// are more.
    pub const DEADLY_BATCH: Shape =
        Shape { steps: 60, operations: 4, retirers: 3, failures: 2, batched: true, ..Shape::DEADLY };

    /// A history of this shape.
    pub fn history(&self, seed: u64) -> Vec<Step> {
        let mut lot = Lot { seed, drawn: 0 };
        let mut pages = 0;
        let mut pinned = vec![false; self.readers];
        let mut steps = Vec::new();
        let every = |n: u64, lot: &mut Lot| n > 0 && lot.below(n) == 0;
        while steps.len() < self.steps {
            if every(self.checkpoints, &mut lot) {
                steps.push(Step::Checkpoint);
            } else if every(self.reopens, &mut lot) {
                pinned.fill(false);
                steps.push(Step::Reopen);
            } else if self.readers > 0 && lot.below(6) == 0 {
                let reader = lot.below(self.readers as u64) as usize;
                pinned[reader] = !pinned[reader];
                steps.push(if pinned[reader] { Step::Pin(reader) } else { Step::Unpin(reader) });
            } else {
                let tx = self.tx(&mut lot, pages);
                if self.steps > 10 && lot.below(12) == 0 {
                    steps.push(Step::Abort(tx));
                } else if every(self.deaths, &mut lot) {
                    steps.push(Step::Die(tx, self.death(&mut lot)));
                    if self.batched && lot.below(4) == 0 {
                        steps.push(Step::Checkpoint);
                    } else if self.batched {
                        steps.push(Step::Commit(self.tx(&mut lot, pages), true));
                    }
                } else if every(self.beside, &mut lot) {
                    pages = tx.pages;
                    steps.push(Step::Beside(tx));
                } else {
                    pages = tx.pages;
                    let lazy = every(self.lazy, &mut lot);
                    steps.push(Step::Commit(tx, !lazy));
                }
            }
        }
        steps
    }

    fn death(&self, lot: &mut Lot) -> Death {
        let at = lot.draw();
        let drawn = |n: u64, lot: &mut Lot| n > 0 && lot.below(n) == 0;
        let retires = drawn(self.retirers, lot);
        let durable = !self.batched || !drawn(self.lazy, lot);
        let fails = drawn(self.failures, lot);
        Death { at: at % if retires { 12 } else { self.operations }, retires, durable, fails }
    }

    /// One transaction on a database of `pages`, by lot.
    pub fn one(&self, seed: u64, pages: u32) -> Tx {
        self.tx(&mut Lot { seed, drawn: 0 }, pages)
    }

    fn tx(&self, lot: &mut Lot, pages: u32) -> Tx {
        let mut tx = Tx { writes: Vec::new(), pages: pages.max(1) };
        if self.shrinks > 0 && pages > 4 && lot.below(self.shrinks) == 0 {
            tx.pages = 1 + lot.below(u64::from(pages) - 1) as u32;
        } else if lot.below(3) == 0 || pages == 0 {
            // New pages are written whole, as SQLite does.
            let grown = (tx.pages + lot.below(u64::from(self.max_writes)) as u32).min(self.max_pages);
            if self.sparse == 0 || lot.below(self.sparse) != 0 {
                (pages.max(1) + 1..=grown).for_each(|page| tx.writes.push(self.whole_page(lot, page)));
            }
            tx.pages = grown;
        }
        let large = self.large > 0 && lot.below(self.large) == 0;
        let most = if large { u64::from(tx.pages) } else { u64::from(self.max_writes) };
        for _ in 0..lot.below(most) + 1 {
            let page = 1 + lot.below(u64::from(tx.pages)) as u32;
            tx.writes.push(if lot.below(self.whole) == 0 {
                self.whole_page(lot, page)
            } else {
                self.few_bytes(lot, page)
            });
        }
        tx
    }

    fn first_byte(page: u32) -> usize {
        if page == 1 { 100 } else { 0 }
    }

    fn whole_page(&self, lot: &mut Lot, page: u32) -> Write {
        let at = Self::first_byte(page);
        Write { page, at, bytes: lot.bytes(self.page_size - at) }
    }

    fn few_bytes(&self, lot: &mut Lot, page: u32) -> Write {
        let first = Self::first_byte(page);
        let len = 1 + lot.below(40) as usize;
        let at = first + lot.below((self.page_size - first - len) as u64) as usize;
        Write { page, at, bytes: lot.bytes(len) }
    }
}

/// Draws lots, reproducibly.
struct Lot {
    seed: u64,
    drawn: u64,
}

impl Lot {
    fn draw(&mut self) -> u64 {
        self.drawn += 1;
        mix(self.seed, self.drawn)
    }

    fn below(&mut self, n: u64) -> u64 {
        self.draw() % n
    }

    fn bytes(&mut self, len: usize) -> Vec<u8> {
        (0..len.div_ceil(8)).flat_map(|_| self.draw().to_le_bytes()).take(len).collect()
    }
}
