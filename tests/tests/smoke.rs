//! Transactions through Store and Session over real files.
#![allow(missing_docs, clippy::unwrap_used)]

use nvlite_engine::{Durability, MediumKind, Options, Store};
use nvlite_tests::plain_base::PlainBase;
use std::sync::Arc;

fn page1(size: u32, counter: u32, pages: u32) -> Vec<u8> {
    let mut p = vec![0u8; size as usize];
    p[..16].copy_from_slice(b"SQLite format 3\0");
    p[16..18].copy_from_slice(&(size as u16).to_be_bytes());
    p[18] = 1;
    p[19] = 1;
    p[24..28].copy_from_slice(&counter.to_be_bytes());
    p[28..32].copy_from_slice(&pages.to_be_bytes());
    p[92..96].copy_from_slice(&counter.to_be_bytes());
    p
}

fn run(kind: MediumKind, dir: &std::path::Path) {
    let path = dir.join("a.db");
    std::fs::write(&path, b"").unwrap();
    let options = Options { medium: Some(kind), region: 4 << 20, ..Options::default() };
    let store = Store::attach(Arc::new(PlainBase::new(&path)), &options).unwrap();
    let mut s = store.session().unwrap();
    for n in 1..3000u32 {
        s.begin_write().unwrap();
        let pages = 3 + n / 2;
        s.write(0, &page1(4096, n, pages)).unwrap();
        s.write(4096 * u64::from(1 + n % 2), &vec![n as u8; 4096]).unwrap();
        s.write(4096 * u64::from(pages - 1), &vec![(n % 251) as u8 + 1; 4096]).unwrap();
        s.prepare().unwrap();
        s.commit(Durability::Full).unwrap();
        s.end_write();
        s.end_read();
    }
    s.begin_read().unwrap();
    let mut b = vec![0; 4096];
    s.read(4096, &mut b).unwrap();
    assert_eq!(b[7], 2998u32 as u8);
    for page in 4..1500u64 {
        s.read(page * 4096, &mut b).unwrap();
        assert!(b[0] != 0 && b.iter().all(|&x| x == b[0]), "page {page}");
    }
    s.end_read();
    for row in store.stats() {
        println!("{} = {:?}", row.name, row.value);
    }
    drop(s);
    store.close().unwrap();
    let bytes = std::fs::read(&path).unwrap();
    assert_eq!(bytes.len(), 4096 * (3 + 2999 / 2));
    assert_eq!(bytes[18], 1);
    assert_eq!(std::fs::read_dir(dir).unwrap().count(), 1);
}

#[test]
fn file_medium() {
    let d = tempfile::tempdir_in(".").unwrap();
    run(MediumKind::File, d.path());
}
#[test]
fn ram_medium() {
    let d = tempfile::tempdir_in("/dev/shm").unwrap();
    run(MediumKind::Ram, d.path());
}
