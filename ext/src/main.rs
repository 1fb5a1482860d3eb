//! `nvlite`: what an operator does with a database from the shell.
#![deny(unsafe_code)]

mod tool;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    let command = tool::Command::parse();
    match command.run() {
        Ok(finding) => ExitCode::from(u8::from(finding)),
        Err(error) => {
            eprintln!("nvlite: {error}");
            ExitCode::from(2)
        }
    }
}
