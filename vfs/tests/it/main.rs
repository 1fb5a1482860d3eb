//! The VFS against the SQLite that is linked in: one program, so that it is linked once.
#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod answers;
mod attach;
mod bases;
mod examples;
mod files;
mod formats;
mod journal;
mod media;
#[allow(dead_code, reason = "not all of it is needed here")]
#[path = "../../../tests/src/needs.rs"]
mod needs;
mod pragmas;
mod snapshots;
mod sql;
mod stock;
mod stress;
mod support;
mod threads;
mod transactions;
