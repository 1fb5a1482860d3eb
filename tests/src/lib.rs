//! Test support: the crash simulator.

pub mod sim;
