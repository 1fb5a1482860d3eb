//! Test support: the crash simulator.
