//! Answers, for people or as JSON.

use super::Failed;
use serde::Serialize;
use std::io::{self, Write};

/// Prints `value` as JSON, or `lines` as a table of names and values.
///
/// # Errors
/// Standard output cannot be written; a closed pipe is not an error.
pub fn print(json: bool, value: &impl Serialize, lines: &[(String, String)]) -> Result<(), Failed> {
    let text = if json {
        serde_json::to_string_pretty(value)?
    } else {
        let width = lines.iter().map(|line| line.0.len()).max().unwrap_or(0);
        lines.iter().map(|(name, value)| format!("{name:width$}  {value}")).collect::<Vec<_>>().join("\n")
    };
    match writeln!(io::stdout(), "{text}") {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => Err(error.into()),
        _ => Ok(()),
    }
}
