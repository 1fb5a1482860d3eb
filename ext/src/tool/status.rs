//! `nvlite status`.

use super::database::{Outside, State, look, missing, open, region_path};
use super::{Failed, Target, output};
use nvlite_engine::store::{inspect, medium_name};
use rusqlite::types::Value;
use serde::Serialize;
use serde_json::Map;

#[derive(Serialize)]
struct Status {
    db: String,
    #[serde(flatten)]
    outside: Outside,
    /// What the region says, of a database that nobody has open.
    #[serde(skip_serializing_if = "Option::is_none")]
    left: Option<Left>,
    /// Why the region, or its log, cannot be believed.
    #[serde(skip_serializing_if = "Option::is_none")]
    problem: Option<String>,
    /// `nvlite_stat`, of a database that is open.
    #[serde(skip_serializing_if = "Map::is_empty")]
    stat: Map<String, serde_json::Value>,
}

/// A region that nobody is attached to, and what the next open would do with it. Keys are added to it, never changed.
#[derive(Serialize)]
struct Left {
    /// Its identity.
    region: String,
    /// Whether the base file bears its mark: a region whose mark it does not bear is never applied. Beside a stock file it is
    /// set aside.
    marked: bool,
    /// `dax`, `file` or `ram`.
    medium: &'static str,
    /// Once it is known.
    page_size: Option<u32>,
    /// Of the fast tier, in bytes.
    budget: u64,
    incarnation: u64,
    /// Whether all was written home, and only the end of the close is missing.
    complete: bool,
    /// Everything up to this commit is durable at its place.
    low_water: u64,
    /// The newest commit in the log.
    newest: u64,
    /// Commits that the next open redoes, the micro-journals that they consist of, and the entries in those.
    commits_to_redo: u64,
    journals_to_redo: u64,
    entries_to_redo: u64,
    /// Pages whose place is a block of the region (`dax`, `ram`).
    durable_pages: u64,
}

impl Left {
    /// Of the region beside a database, if there is one; and what is wrong with it.
    fn of(target: &Target, outside: &Outside) -> Result<(Option<Left>, Option<String>), Failed> {
        let path = region_path(target)?;
        let found = match inspect(&path) {
            Ok(Some(found)) => found,
            Err(error) if path.exists() => return Ok((None, Some(error.to_string()))),
            Ok(None) | Err(_) => return Ok((None, outside.region.map(|id| missing(target, id)).transpose()?)),
        };
        let marked = outside.region == Some(found.region);
        let region = found.region.to_string();
        let (log, problem) = match (found.log, outside.region) {
            (log, Some(id)) if !marked => (log.ok(), Some(missing(target, id)?)),
            (Ok(log), _) => (Some(log), None),
            (Err(error), _) => (None, Some(error.to_string())),
        };
        let left = Left {
            marked,
            region,
            medium: medium_name(found.medium),
            page_size: found.page_size,
            budget: found.budget,
            incarnation: found.incarnation.0,
            complete: found.complete,
            low_water: log.map_or(found.low_water, |log| log.low_water).0,
            newest: log.map_or(found.low_water, |log| log.newest).0,
            commits_to_redo: log.map_or(0, |log| log.commits),
            journals_to_redo: log.map_or(0, |log| log.journals),
            entries_to_redo: log.map_or(0, |log| log.entries),
            durable_pages: log.map_or(0, |log| log.durable_pages),
        };
        Ok((Some(left), problem))
    }

    fn lines(&self) -> Vec<(&'static str, String)> {
        let mark = match self.marked {
            true => "the database bears its mark".to_owned(),
            false => format!("of region {}, whose mark the database does not bear", self.region),
        };
        let redo = format!(
            "{} commits up to {}: {} micro-journals, {} entries",
            self.commits_to_redo, self.newest, self.journals_to_redo, self.entries_to_redo
        );
        vec![
            ("side files", mark),
            ("medium", self.medium.to_owned()),
            ("budget", self.budget.to_string()),
            ("incarnation", self.incarnation.to_string()),
            ("complete", if self.complete { "yes: the next open ends the close" } else { "no" }.to_owned()),
            ("low water", self.low_water.to_string()),
            ("to redo", redo),
            ("durable pages", self.durable_pages.to_string()),
        ]
    }
}

/// Runs it.
///
/// # Errors
/// The database cannot be read.
pub fn run(target: &Target) -> Result<bool, Failed> {
    let outside = look(target)?;
    let stat = if outside.open { figures(target)? } else { Map::new() };
    let (left, problem) = if outside.open { (None, None) } else { Left::of(target, &outside)? };
    let finding = outside.state == State::Foreign || problem.is_some();
    let status = Status { db: target.db.display().to_string(), outside, left, problem, stat };
    output::print(target.json, &status, &lines(&status))?;
    Ok(finding)
}

fn figures(target: &Target) -> Result<Map<String, serde_json::Value>, Failed> {
    let db = open(target)?;
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
        State::Marked if status.problem.is_some() => {
            "marked by nvlite, but its newest data cannot be read: see the problem"
        }
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
    lines.extend(status.outside.region.map(|id| line("region", id.to_string())));
    let left = status.left.iter().flat_map(Left::lines);
    lines.extend(left.map(|(name, value)| line(name, value)));
    lines.extend(status.problem.clone().map(|problem| line("problem", problem)));
    lines.extend(
        status
            .stat
            .iter()
            .map(|(name, value)| line(name, value.as_str().map_or_else(|| value.to_string(), str::to_owned))),
    );
    lines
}
