//! What a connection asks for: URI parameters, else environment variables `NVLITE_<NAME>`, else defaults.

use crate::error::{Failure, Outcome};
use crate::sys::SQLITE_CANTOPEN;
use nvlite_engine::base::limits::{DEFAULT_REGION, MAX_REGION, MIN_REGION};
use nvlite_engine::store::medium_name;
use nvlite_engine::{MediumKind, Options};
use std::ffi::{OsStr, OsString};
use std::path::PathBuf;

/// The value of a parameter in the environment, `NVLITE_<NAME>`; an empty one is none.
#[must_use]
pub fn environment(parameter: &str) -> Option<OsString> {
    std::env::var_os(format!("NVLITE_{}", parameter.to_ascii_uppercase())).filter(|value| !value.is_empty())
}

/// What a connection asks for. `None` is "not said".
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Config {
    /// `medium=auto|dax|file|ram`; `auto` is `None`.
    pub medium: Option<MediumKind>,
    /// `region_dir=DIR`.
    pub region_dir: Option<PathBuf>,
    /// `region=SIZE`, bytes.
    pub region: Option<u64>,
    /// `keep_region=1`.
    pub keep_region: bool,
    /// `keep_region=as_found`.
    pub only_looks: bool,
    /// `journal_mode_reply=wal`: what `PRAGMA journal_mode` is to answer.
    pub reply_wal: bool,
}

impl Config {
    /// Reads every parameter through `get`, which knows the URI.
    ///
    /// # Errors
    /// A value that cannot be understood: the message names parameter, value and what would be right.
    pub fn read(get: impl Fn(&str) -> Option<OsString>) -> Outcome<Config> {
        let path = |name: &str| get(name).or_else(|| environment(name)).filter(|value| !value.is_empty());
        let get = |name: &str| path(name).map(|value| value.to_string_lossy().into_owned());
        let mut config = Config::default();
        if let Some(value) = get("medium") {
            config.medium = parse_medium(&value)?;
        }
        if let Some(value) = get("region") {
            let size = parse_size(&value).filter(|size| (MIN_REGION..=MAX_REGION).contains(size));
            config.region =
                Some(size.ok_or_else(|| bad("region", &value, "a size from 1MiB to 32TiB, such as 64MiB"))?);
        }
        // where it is now: the program may go to another directory before it closes
        let absolute = |dir: OsString| std::path::absolute(&dir).map_err(|error| unusable(&dir, &error));
        config.region_dir = path("region_dir").map(absolute).transpose()?;
        match get("keep_region") {
            Some(value) if value.eq_ignore_ascii_case("as_found") => config.only_looks = true,
            Some(value) => {
                let keep = parse_bool(&value).ok_or_else(|| bad("keep_region", &value, "0, 1 or as_found"))?;
                config.keep_region = keep;
            }
            None => {}
        }
        if let Some(value) = get("journal_mode_reply") {
            config.reply_wal = match value.to_ascii_lowercase().as_str() {
                "wal" => true,
                "memory" => false,
                _ => return Err(bad("journal_mode_reply", &value, "wal or memory")),
            };
        }
        Ok(config)
    }

    /// For the engine. `read_only` is the file, `only_reads` the connection.
    #[must_use]
    pub fn options(&self, read_only: bool, only_reads: bool) -> Options {
        Options {
            medium: self.medium,
            region_dir: self.region_dir.clone(),
            region: self.region.unwrap_or(DEFAULT_REGION),
            keep_region: self.keep_region,
            only_looks: self.only_looks,
            read_only,
            adopt: !only_reads,
        }
    }
}

fn bad(parameter: &str, value: &str, right: &str) -> Failure {
    Failure::Told(SQLITE_CANTOPEN, format!("parameter {parameter}: '{value}' is not {right}"))
}

fn unusable(dir: &OsStr, error: &std::io::Error) -> Failure {
    Failure::Told(SQLITE_CANTOPEN, format!("parameter region_dir: '{}': {error}", dir.display()))
}

fn parse_medium(value: &str) -> Outcome<Option<MediumKind>> {
    let word = value.to_ascii_lowercase();
    let kind = [MediumKind::Dax, MediumKind::File, MediumKind::Ram].into_iter().find(|kind| medium_name(*kind) == word);
    if kind.is_none() && word != "auto" {
        return Err(bad("medium", value, "auto, dax, file or ram"));
    }
    Ok(kind)
}

fn parse_bool(value: &str) -> Option<bool> {
    match value.to_ascii_lowercase().as_str() {
        "1" | "on" | "yes" | "true" => Some(true),
        "0" | "off" | "no" | "false" => Some(false),
        _ => None,
    }
}

/// `64MiB` style: a number and B, K, KB, KiB, M, ..., T, TB, TiB (all powers of 1024).
#[must_use]
pub fn parse_size(text: &str) -> Option<u64> {
    let text = text.trim();
    let digits = text.len() - text.trim_start_matches(|c: char| c.is_ascii_digit()).len();
    let number: u64 = text[..digits].parse().ok()?;
    let unit = text[digits..].trim().to_ascii_lowercase();
    let shift = match unit.trim_end_matches("ib").trim_end_matches('b') {
        "" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        _ => return None,
    };
    number.checked_mul(1 << shift)
}

/// True if `name` matches `pattern`, where `*` stands for any bytes and `?` for one. A pattern without `/` is compared
/// with the last component; several are separated by `,`.
#[must_use]
pub fn name_matches(patterns: &str, name: &str) -> bool {
    let last = name.rsplit('/').next().unwrap_or(name);
    patterns.split(',').any(|pattern| {
        let subject = if pattern.contains('/') { name } else { last };
        glob(pattern.trim().as_bytes(), subject.as_bytes())
    })
}

fn glob(pattern: &[u8], text: &[u8]) -> bool {
    match (pattern.first(), text.first()) {
        (None, None) => true,
        (Some(b'*'), _) => glob(&pattern[1..], text) || (!text.is_empty() && glob(pattern, &text[1..])),
        (Some(b'?'), Some(_)) => glob(&pattern[1..], &text[1..]),
        (Some(a), Some(b)) if a == b => glob(&pattern[1..], &text[1..]),
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Outcome<Config> {
        Config::read(|name| pairs.iter().find(|p| p.0 == name).map(|p| p.1.into()))
    }

    #[test]
    fn sizes() {
        for (text, bytes) in [("4096", 4096), ("64MiB", 64 << 20), ("2g", 2 << 30), ("8 kb", 8192), ("1B", 1)] {
            assert_eq!(parse_size(text), Some(bytes), "{text}");
        }
        for text in ["", "MiB", "5x", "-1", "99999999999999999999", "16777216T"] {
            assert_eq!(parse_size(text), None, "{text}");
        }
    }

    #[test]
    fn bad_values_name_their_parameter() {
        for (name, value) in [
            ("medium", "disk"),
            ("region", "many"),
            ("region", "4k"),
            ("region", "33TiB"),
            ("keep_region", "2"),
            ("journal_mode_reply", "x"),
        ] {
            let failure = read(&[(name, value)]).expect_err(value);
            assert!(failure.message().contains(name) && failure.message().contains(value), "{}", failure.message());
        }
        let config = read(&[("medium", "RAM"), ("region", "64MiB"), ("region_dir", "/x")]).expect("good values");
        assert_eq!(config.medium, Some(MediumKind::Ram));
        assert_eq!(config.region, Some(64 << 20));
        for (value, keeps, only_looks) in [("1", true, false), ("0", false, false), ("as_found", false, true)] {
            let options = read(&[("keep_region", value)]).expect(value).options(false, false);
            assert_eq!((options.keep_region, options.only_looks), (keeps, only_looks), "{value}");
        }
    }

    #[test]
    fn patterns() {
        assert!(name_matches("*.db", "/a/b/app.db") && !name_matches("*.db", "/a/app.sqlite"));
        assert!(name_matches("x*, app.?b", "/a/app.db") && name_matches("/srv/*/app.db", "/srv/1/app.db"));
        assert!(!name_matches("", "/a/app.db"));
    }
}
