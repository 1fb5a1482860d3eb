//! What the database must contain: a list of states, one after each transaction.

use std::sync::Arc;

/// A write of one transaction, within one page.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Page, from 1.
    pub page: u32,
    /// First byte in the page.
    pub at: usize,
    /// Bytes.
    pub bytes: Vec<u8>,
}

/// A transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tx {
    /// In this order. Never within the first 100 bytes of page 1: those are the header, which the model writes.
    pub writes: Vec<Write>,
    /// Pages that the database has afterwards; at least 1.
    pub pages: u32,
}

/// What is submitted to a store: byte ranges of the database, and its size if that shrinks.
#[derive(Clone, Debug)]
pub struct Submission {
    /// Number of the transaction, from 1.
    pub number: u64,
    /// (offset, bytes).
    pub writes: Vec<(u64, Vec<u8>)>,
    /// Size afterwards, bytes.
    pub size: u64,
    /// True if that is less than before.
    pub shrinks: bool,
}

/// Content after a transaction.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct State {
    pages: Vec<Arc<[u8]>>,
}

/// Every state from the empty database on.
#[derive(Clone, Debug)]
pub struct Model {
    page_size: usize,
    states: Vec<State>,
}

impl Model {
    /// Of an empty database.
    pub fn new(page_size: usize) -> Self {
        Model { page_size, states: vec![State::default()] }
    }

    /// The page size.
    pub fn page_size(&self) -> usize {
        self.page_size
    }

    /// Number of the newest transaction.
    pub fn newest(&self) -> u64 {
        self.states.len() as u64 - 1
    }

    /// Pages after the newest transaction.
    pub fn pages(&self) -> u32 {
        self.states.last().map_or(0, |state| state.pages.len() as u32)
    }

    /// Only the history up to transaction `n` happened.
    #[must_use]
    pub fn until(&self, n: u64) -> Model {
        Model { page_size: self.page_size, states: self.states[..=n as usize].to_vec() }
    }

    /// What to submit for `tx` now; the model does not change.
    pub fn submission(&self, tx: &Tx) -> Submission {
        let next = self.after(tx);
        let before = self.pages();
        let header = next.pages[0][..100].to_vec();
        let mut writes: Vec<(u64, Vec<u8>)> = vec![(0, header)];
        let offset = |write: &Write| u64::from(write.page - 1) * self.page_size as u64 + write.at as u64;
        writes.extend(tx.writes.iter().filter(|w| w.page <= tx.pages).map(|w| (offset(w), w.bytes.clone())));
        let number = self.states.len() as u64;
        Submission { number, writes, size: u64::from(tx.pages) * self.page_size as u64, shrinks: tx.pages < before }
    }

    /// `tx` was submitted.
    pub fn push(&mut self, tx: &Tx) {
        let next = self.after(tx);
        self.states.push(next);
    }

    /// The newest transaction never was.
    pub fn pop(&mut self) {
        self.states.pop();
    }

    fn after(&self, tx: &Tx) -> State {
        assert!(tx.pages > 0, "a database has a page 1");
        let mut pages = self.states.last().cloned().unwrap_or_default().pages;
        pages.resize(tx.pages as usize, vec![0; self.page_size].into());
        for write in tx.writes.iter().filter(|write| write.page <= tx.pages) {
            let page = &mut pages[write.page as usize - 1];
            let mut bytes = page.to_vec();
            bytes[write.at..write.at + write.bytes.len()].copy_from_slice(&write.bytes);
            *page = bytes.into();
        }
        let mut first = pages[0].to_vec();
        header(&mut first, self.page_size, self.states.len() as u32, tx.pages);
        pages[0] = first.into();
        State { pages }
    }

    /// All bytes after transaction `n`.
    pub fn content(&self, n: u64) -> Vec<u8> {
        self.states[n as usize].pages.iter().flat_map(|page| page.iter().copied()).collect()
    }

    /// The transaction after which the database has this content.
    ///
    /// # Errors
    /// If there is none, or it is older than `acknowledged` or newer than `submitted`; says what is different.
    pub fn identify(&self, content: &[u8], acknowledged: u64, submitted: u64) -> Result<u64, String> {
        let number = match content.get(60..64) {
            Some(counter) => u64::from(u32::from_be_bytes(counter.try_into().map_err(|_| "no counter")?)),
            None => 0,
        };
        let range = format!("acknowledged {acknowledged}, submitted {submitted}");
        if number < acknowledged {
            return Err(format!("transaction {number} is the newest: an acknowledged one is lost ({range})"));
        }
        if number > submitted || number > self.newest() {
            return Err(format!("transaction {number} is the newest: it was never submitted ({range})"));
        }
        let expected = self.content(number);
        // The engine itself raises SQLite's change counter, when it adopts a base.
        let counter = |at: &usize| (24..28).contains(at) || (92..96).contains(at);
        if expected.len() != content.len() {
            return Err(format!("{} bytes instead of {} after transaction {number}", content.len(), expected.len()));
        }
        let Some(at) = (0..content.len()).find(|at| content[*at] != expected[*at] && !counter(at)) else {
            return Ok(number);
        };
        let (page, byte) = (at / self.page_size, at % self.page_size);
        let source = (0..=self.newest()).rev().find(|n| {
            self.states[*n as usize]
                .pages
                .get(page)
                .is_some_and(|p| p[..] == content[page * self.page_size..(page + 1) * self.page_size])
        });
        let whose = source.map_or("of no transaction at all".to_owned(), |n| format!("of transaction {n}"));
        Err(format!(
            "page {} differs from byte {byte} on after transaction {number} ({range}); the page is {whose}",
            page + 1
        ))
    }
}

/// The part of SQLite's file header that the engine looks at.
fn header(page: &mut [u8], page_size: usize, number: u32, pages: u32) {
    let size = if page_size == 65536 { 1 } else { page_size as u16 };
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..18].copy_from_slice(&size.to_be_bytes());
    page[18..24].copy_from_slice(&[1, 1, 0, 64, 32, 32]);
    page[24..28].copy_from_slice(&number.to_be_bytes());
    page[28..32].copy_from_slice(&pages.to_be_bytes());
    page[44..48].copy_from_slice(&4_u32.to_be_bytes());
    page[56..60].copy_from_slice(&1_u32.to_be_bytes());
    page[60..64].copy_from_slice(&number.to_be_bytes());
    page[92..96].copy_from_slice(&number.to_be_bytes());
    page[96..100].copy_from_slice(&3_054_001_u32.to_be_bytes());
}
