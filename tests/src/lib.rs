//! Test support: the crash simulator.

pub mod child;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))] // see `stores`
pub mod deaths;
pub mod hooked;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))] // calls and registers of that machine
pub mod life;
pub mod limits;
pub mod mortal;
pub mod needs;
pub mod plain_base;
pub mod processes;
pub mod rules;
pub mod sim;
pub mod sql;
#[cfg(all(target_os = "linux", target_arch = "x86_64"))] // registers of that machine
pub mod stores;
