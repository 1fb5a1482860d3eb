//! `nvlite status`.

use super::database::{Outside, State, look, open};
use super::{Failed, Target, output};
use rusqlite::types::Value;
use serde::Serialize;
use serde_json::Map;

#[derive(Serialize)]
struct Status {
    db: String,
    #[serde(flatten)]
    outside: Outside,
    /// `nvlite_stat`, of a database that is open.
    #[serde(skip_serializing_if = "Map::is_empty")]
    stat: Map<String, serde_json::Value>,
}

/// Runs it.
///
/// # Errors
/// The database cannot be read.
pub fn run(target: &Target) -> Result<bool, Failed> {
    let outside = look(target)?;
    let stat = if outside.open { figures(target, &outside)? } else { Map::new() };
    let finding = outside.state == State::Foreign;
    let status = Status { db: target.db.display().to_string(), outside, stat };
    output::print(target.json, &status, &lines(&status))?;
    Ok(finding)
}

fn figures(target: &Target, outside: &Outside) -> Result<Map<String, serde_json::Value>, Failed> {
    let db = open(target, outside)?;
    let mut statement = db.prepare("SELECT name, value FROM nvlite_stat")?;
    let mut rows = statement.query(())?;
    let mut stat = Map::new();
    while let Some(row) = rows.next()? {
        let value = match row.get(1)? {
            Value::Integer(number) => number.into(),
            Value::Text(text) => text.into(),
            _ => serde_json::Value::Null,
        };
        stat.insert(row.get(0)?, value);
    }
    Ok(stat)
}

fn lines(status: &Status) -> Vec<(String, String)> {
    let line = |name: &str, value: String| (name.to_owned(), value);
    let explained = match status.outside.state {
        State::Empty => "empty",
        State::Stock => "stock SQLite file",
        State::Marked if status.outside.open => "open through nvlite",
        State::Marked => "kept by nvlite, or left by a process that died: the next open through nvlite recovers it",
        State::Foreign => "not a SQLite database",
    };
    let mut lines = vec![
        line("database", status.db.clone()),
        line("state", explained.into()),
        line("bytes", status.outside.bytes.to_string()),
    ];
    lines.extend(status.outside.page_size.map(|size| line("page size", size.to_string())));
    lines.extend(status.outside.region.clone().map(|region| line("region", region)));
    lines.extend(
        status
            .stat
            .iter()
            .map(|(name, value)| line(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
    );
    lines
}
