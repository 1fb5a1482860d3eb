//! Who leaves last does what those wished who had the database open, not what he wishes himself.

#![allow(clippy::unwrap_used)]

use nvlite_engine::{MediumKind, Options, Store};
use nvlite_tests::plain_base::PlainBase;
use nvlite_tests::sql::{System, stock_integrity};
use std::path::Path;
use std::sync::Arc;

#[derive(Clone, Copy, Debug)]
enum Who {
    Keeps,
    Finishes,
    Looks,
}

use Who::{Finishes, Keeps, Looks};

/// As a process of its own attaches.
fn attach(who: Who, path: &Path, kind: MediumKind) -> Arc<Store> {
    let (keep_region, only_looks) = (matches!(who, Keeps), matches!(who, Looks));
    let options = Options { medium: Some(kind), region: 1 << 20, keep_region, only_looks, ..Options::default() };
    Store::attach(Arc::new(PlainBase::new(path)), &options).unwrap()
}

#[test]
fn the_last_close_is_what_those_wished_who_used_the_database() {
    for (first, second, kept) in [
        (Keeps, Keeps, true),
        (Keeps, Finishes, true),
        (Finishes, Keeps, true),
        (Keeps, Looks, true),
        (Looks, Keeps, true),
        (Looks, Looks, true),
        (Finishes, Looks, false),
        (Looks, Finishes, false),
        (Finishes, Finishes, false),
    ] {
        for (first_leaves_last, from_stock) in [(false, false), (false, true), (true, false), (true, true)] {
            for (system, kind) in [(System::File, MediumKind::File), (System::Ram, MediumKind::Ram)] {
                let scratch = system.scratch();
                let path = scratch.path("app.db");
                let stock = rusqlite::Connection::open(&path).unwrap();
                stock.execute_batch("CREATE TABLE t(x)").unwrap();
                drop(stock);
                if !from_stock {
                    attach(Keeps, &path, kind).close().unwrap();
                }
                let (a, b) = (attach(first, &path, kind), attach(second, &path, kind));
                let order = if first_leaves_last { [b, a] } else { [a, b] };
                order.into_iter().for_each(|store| store.close().unwrap());
                // as it was found is a stock file, if it was one
                let kept = kept && !(from_stock && matches!((first, second), (Looks, Looks)));
                let who = format!("{first:?}, {second:?}, {first_leaves_last}, {from_stock}, {kind:?}");
                let context = format!("{who}: {:?}", scratch.names());
                assert_eq!(scratch.path("app.db-nvlite").exists(), kept, "{context}");
                assert_eq!(stock_integrity(&path).is_err(), kept, "{context}");
                attach(Finishes, &path, kind).close().unwrap();
                assert_eq!(stock_integrity(&path).as_deref(), Ok("ok"), "{context}");
            }
        }
    }
}
