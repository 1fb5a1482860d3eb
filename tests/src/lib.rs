//! Test support: the crash simulator.

pub mod mortal;
pub mod needs;
pub mod plain_base;
pub mod processes;
pub mod rules;
pub mod sim;
pub mod sql;
