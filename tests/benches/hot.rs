//! The pieces of the engine that every transaction goes through, each alone, on `ram`: `cargo bench -p nvlite-tests`.
#![allow(missing_docs, clippy::unwrap_used)]

use criterion::{BatchSize, Criterion, criterion_group, criterion_main};
use nvlite_engine::base::page_sum::{page_sum, sum_after};
use nvlite_engine::{Durability::Full, MediumKind, Options, Session, Store};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::rules::{PAGE, commit, content, offset};
use std::hint::black_box;
use std::sync::Arc;

/// Pages of the database: 64 MiB, beyond any cache but the last.
const PAGES: u32 = 16_384;

fn database() -> (tempfile::TempDir, Arc<Store>, Session) {
    let dir = tempfile::tempdir_in("/dev/shm").unwrap();
    let options = Options { medium: Some(MediumKind::Ram), ..Options::default() };
    let store = Store::attach(Arc::new(PlainBase::new(&dir.path().join("a.db"))), &options).unwrap();
    let mut session = store.session().unwrap();
    commit(&mut session, PAGES, 2..=PAGES, 1, Full).unwrap();
    (dir, store, session)
}

/// Pages of the database in no order, for ever.
fn pages() -> impl FnMut() -> u32 {
    let mut state = 1u32;
    move || {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        2 + (state >> 8) % (PAGES - 1)
    }
}

fn reading(criterion: &mut Criterion) {
    let (_dir, _store, mut session) = database();
    let (mut next, mut into) = (pages(), vec![0; PAGE]);
    session.begin_read().unwrap();
    criterion.bench_function("read a page", |b| {
        b.iter(|| session.read(offset(next()), black_box(&mut into)).unwrap());
    });
    criterion.bench_function("fetch and unfetch a page", |b| {
        b.iter(|| {
            let at = offset(next());
            let pointer = session.fetch(at, PAGE).unwrap().unwrap();
            session.unfetch(at, black_box(pointer));
        });
    });
    session.end_read();
    criterion.bench_function("begin and end a read", |b| {
        b.iter(|| {
            session.begin_read().unwrap();
            session.end_read();
        });
    });
}

fn writing(criterion: &mut Criterion) {
    let (_dir, _store, mut session) = database();
    let mut next = pages();
    criterion.bench_function("take and give back the writer lock", |b| {
        b.iter(|| {
            session.begin_write().unwrap();
            session.end_read();
        });
    });
    let mut value = 1u8;
    criterion.bench_function("commit of four bytes of one page", |b| {
        b.iter_batched(
            || {
                let page = next();
                let mut bytes = content(page, 1);
                value = value.wrapping_add(1);
                bytes[100..104].fill(value);
                (page, bytes)
            },
            |(page, bytes)| {
                session.begin_write().unwrap();
                session.write(offset(page), &bytes).unwrap();
                session.prepare().unwrap();
                session.commit(Full).unwrap();
                session.end_read();
            },
            BatchSize::SmallInput,
        );
    });
}

fn summing(criterion: &mut Criterion) {
    let old = content(1, 1);
    let (before, range) = (page_sum(&old), [9; 40]);
    criterion.bench_function("checksum of a page", |b| b.iter(|| page_sum(black_box(&old))));
    criterion.bench_function("checksum of a page of which 40 bytes change", |b| {
        b.iter(|| sum_after(before, Some(black_box(&old)), std::iter::once((100, &range[..]))));
    });
}

criterion_group!(hot, reading, writing, summing);
criterion_main!(hot);
