//! Transactions through the engine, without SQLite: what is written follows from the number of the transaction, so that
//! the whole database can be computed again for any number and compared.

use crate::Finding;
use nvlite_engine::store::{Durability, Options};
use nvlite_engine::{MediumKind, Result, Session, Store};
use nvlite_tests::plain_base::PlainBase;
use std::path::{Path, PathBuf};
use std::sync::Arc;

const PAGE: usize = 4096;
/// Pages of the database when it is fully grown: eight times the fast tier, so that pages are purged and come back.
const PAGES: u64 = 2048;
const FAST_TIER: u64 = 1 << 20;
/// Where the number of the newest transaction stands: the first bytes of page 2.
const NUMBER: u64 = PAGE as u64;

fn base(dir: &Path) -> PathBuf {
    dir.join("app.db")
}

/// Attaches to the database on `medium`; `None` leaves it to detection, which must find `dax` here.
fn attach(dir: &Path, medium: Option<MediumKind>) -> Finding<Arc<Store>> {
    let options = Options { medium, region: FAST_TIER, ..Options::default() };
    let store = Store::attach(Arc::new(PlainBase::new(&base(dir))), &options).map_err(|e| e.to_string())?;
    match (store.medium(), medium.unwrap_or(MediumKind::Dax)) {
        (found, expected) if found == expected => Ok(store),
        (found, expected) => Err(format!("medium {found:?} was chosen instead of {expected:?}")),
    }
}

/// Size in pages after transaction `n`; 0 is that nothing was ever committed.
fn pages(n: u64) -> u64 {
    if n == 0 { 0 } else { (n + 2).min(PAGES) }
}

/// What transaction `n` writes: (offset, bytes).
fn writes(n: u64) -> Vec<(u64, Vec<u8>)> {
    let mut list = vec![(0, header(n)), (NUMBER, n.to_le_bytes().to_vec())];
    let at = |page: u64, within: u64| page * PAGE as u64 + within;
    let fill = |salt: u64, len: usize| (0..len as u64).map(|i| (n * 131 + salt * 17 + i) as u8).collect::<Vec<u8>>();
    let some_page = |salt: u64| 2 + n.wrapping_mul(salt) % (pages(n) - 2);
    list.push((at(some_page(7), 100 + n % 3000), fill(1, 3)));
    list.push((at(some_page(11), n % 3500), fill(2, 118)));
    if n < PAGES {
        list.push((at(pages(n) - 1, 0), fill(3, PAGE))); // the page that is new
    }
    if n.is_multiple_of(16) {
        list.push((at(some_page(13), 0), fill(4, PAGE)));
    }
    if n.is_multiple_of(10) {
        // more than the gate takes in place (P2), and than there may be free blocks
        let from = 2 + n * 3 % pages(n);
        let many = from..pages(n).min(from + 90);
        list.extend(many.map(|page| (at(page, 0), fill(page, PAGE))));
    }
    list
}

/// Where the change counter stands, twice. Adoption moves it too, so that it does not follow from the transaction's number.
const COUNTERS: [usize; 2] = [24, 92];

/// A stock header: an empty schema in a database of `pages(n)` pages, with change counter 0.
fn header(n: u64) -> Vec<u8> {
    let mut page = vec![0; PAGE];
    page[..16].copy_from_slice(b"SQLite format 3\0");
    page[16..24].copy_from_slice(&[0x10, 0x00, 1, 1, 0, 64, 32, 32]);
    let mut word = |at: usize, value: u64| page[at..at + 4].copy_from_slice(&(value as u32).to_be_bytes());
    word(28, pages(n));
    word(44, 4);
    word(56, 1);
    word(96, 3_040_001);
    page[100] = 13; // an empty leaf of a table
    page[105..107].copy_from_slice(&[0x10, 0x00]);
    page
}

/// The database after transaction `n`.
fn image(n: u64) -> Vec<u8> {
    let mut image = vec![0; (pages(n) * PAGE as u64) as usize];
    for (at, bytes) in (1..=n).flat_map(writes) {
        image[at as usize..at as usize + bytes.len()].copy_from_slice(&bytes);
    }
    image
}

/// The number of the newest transaction, as `session` sees it.
fn newest(session: &mut Session) -> Result<u64> {
    let mut word = [0; 8];
    session.begin_read()?;
    session.read(NUMBER, &mut word)?;
    Ok(u64::from_le_bytes(word))
}

fn transact(session: &mut Session, n: u64) -> Result<()> {
    session.begin_read()?;
    session.begin_write()?;
    let mut counter = [0; 4];
    session.read(COUNTERS[0] as u64, &mut counter)?;
    let counter = (u32::from_be_bytes(counter) + 1).to_be_bytes();
    for (at, mut bytes) in writes(n) {
        if at == 0 {
            COUNTERS.iter().for_each(|&field| bytes[field..field + 4].copy_from_slice(&counter));
        }
        for (i, piece) in bytes.chunks(PAGE).enumerate() {
            session.write(at + (i * PAGE) as u64, piece)?;
        }
    }
    session.prepare()?;
    session.commit(Durability::Full)
}

/// Goes on from the newest transaction, acknowledging each, until the machine dies.
pub fn run(dir: &Path, medium: Option<MediumKind>) -> Finding<String> {
    let store = attach(dir, medium)?;
    let endless = || -> Result<()> {
        let mut session = store.session()?;
        let mut n = newest(&mut session)?;
        session.end_read();
        loop {
            n += 1;
            transact(&mut session, n)?;
            let jci = session.snapshot().map_or(0, |jci| jci.0);
            session.end_write();
            session.end_read();
            println!("ACK store {n} jci={jci}");
        }
    };
    endless().map(|()| String::new()).map_err(|e| e.to_string())
}

fn compare(what: &str, got: &[u8], n: u64) -> Finding {
    let mut want = image(n);
    if got.len() != want.len() {
        return Err(format!("{what}: {} bytes instead of {} at transaction {n}", got.len(), want.len()));
    }
    if want.is_empty() {
        return Ok(());
    }
    for field in COUNTERS {
        want[field..field + 4].copy_from_slice(&got[COUNTERS[0]..COUNTERS[0] + 4]);
    }
    let differing: Vec<usize> = (0..want.len()).filter(|&at| got[at] != want[at]).collect();
    let Some(&at) = differing.first() else { return Ok(()) };
    let near = at..(at + 8).min(want.len());
    Err(format!(
        "{what}: {} bytes differ at transaction {n}, the first in page {} at {}: {:02x?} instead of {:02x?}",
        differing.len(),
        at / PAGE + 1,
        at % PAGE,
        &got[near.clone()],
        &want[near],
    ))
}

/// The reopened database is the state of one transaction, not older than the last one acknowledged; and after a clean
/// close the base file alone is the same.
pub fn verify(dir: &Path, medium: Option<MediumKind>, acked: u64) -> Finding<String> {
    let store = attach(dir, medium)?;
    let look = || -> Result<(u64, Vec<u8>)> {
        let mut session = store.session()?;
        let n = newest(&mut session)?;
        let mut bytes = vec![0; session.size()? as usize];
        for (i, page) in bytes.chunks_mut(PAGE).enumerate() {
            session.read((i * PAGE) as u64, page)?;
        }
        session.end_read();
        Ok((n, bytes))
    };
    let (n, bytes) = look().map_err(|e| e.to_string())?;
    if n < acked {
        return Err(format!("transaction {acked} was acknowledged, {n} is the newest"));
    }
    compare("after recovery", &bytes, n)?;
    store.close().map_err(|e| e.to_string())?;
    compare("after a clean close", &std::fs::read(base(dir)).map_err(|e| e.to_string())?, n)?;
    Ok(format!("acknowledged={acked} found={n}"))
}
