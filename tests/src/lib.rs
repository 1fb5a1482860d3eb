//! Test support: the crash simulator.

pub mod limits;
pub mod mortal;
pub mod plain_base;
pub mod processes;
pub mod rules;
pub mod sim;
pub mod sql;
