//! House rules that a compiler does not check (see `CONTRIBUTING.md`).
#![allow(missing_docs)]

use std::fs;
use std::path::{Path, PathBuf};

const MAX_LINES: usize = 700;
const PRODUCT: &[&str] = &["engine/src", "vfs/src", "ext/src", "bench/src"];
const PACKAGES: &[&str] = &["engine", "vfs", "ext", "bench", "tests", "fuzz/src", "fuzz/fuzz_targets"];

/// The engine's modules from the ground up. A module names those of earlier rows only; those of one row, none of the
/// others, but for the last: what a VFS sees is one whole.
const LAYERS: &[&[&str]] = &[
    &["base"],
    &["format"],
    &["medium", "shm"],
    &["shared"],
    &["pages"],
    &["apply", "writeset"],
    &["engine"],
    &["commit"],
    &["flush"],
    &["retire"],
    &["fault", "recovery", "shadow", "verify"],
    &["assemble"],
    &["attach", "inspect", "keeper", "refusal", "session", "stats", "store", "whitebox"],
];

/// Modules of the engine that `vfs` and `ext` may name (`format` for the mark, by which `xOpen` knows whose a file is).
const VISIBLE: &[&str] = &["base", "format", "medium", "store"];

fn repo() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the workspace").to_owned()
}

/// What tools make in the middle of sources.
const MADE: &[&str] = &["target", "corpus", "artifacts", ".git"];

/// All files below `dir` (relative to the repository) that end in one of `endings`, as (path, text).
fn files(dir: &str, endings: &[&str]) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut todo = vec![repo().join(dir)];
    while let Some(path) = todo.pop() {
        if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| MADE.contains(&n)) {
            continue;
        }
        if path.is_dir() {
            todo.extend(fs::read_dir(&path).expect("a directory").map(|entry| entry.expect("an entry").path()));
        } else if path.file_name().and_then(|n| n.to_str()).is_some_and(|n| endings.iter().any(|e| n.ends_with(e))) {
            let name = path.strip_prefix(repo()).expect("below the repository").display().to_string();
            found.push((name, fs::read_to_string(&path).expect("text")));
        }
    }
    assert!(!found.is_empty(), "nothing in {dir}: the rule checks nothing");
    found.sort();
    found
}

fn sources(dirs: &[&str]) -> Vec<(String, String)> {
    dirs.iter().flat_map(|dir| files(dir, &[".rs"])).collect()
}

fn none(rule: &str, findings: &[String]) {
    assert!(findings.is_empty(), "{rule}:\n  {}", findings.join("\n  "));
}

/// Lines of `text` that are not comments, numbered from 1.
fn code(text: &str) -> impl Iterator<Item = (usize, &str)> {
    text.lines().enumerate().map(|(i, line)| (i + 1, line)).filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// The module names that follow `prefix` in code: `prefix::name` and `prefix::{name..., name...}`, with their lines.
fn named_modules(text: &str, prefix: &str) -> Vec<(usize, String)> {
    let is_name = |c: char| c.is_alphanumeric() || c == '_';
    let first_name = |s: &str| s.trim_start().split(|c| !is_name(c)).next().unwrap_or("").to_owned();
    let mut found = Vec::new();
    for (line, code) in code(text) {
        for (at, _) in code.match_indices(prefix) {
            if code[..at].ends_with(is_name) {
                continue;
            }
            let rest = &code[at + prefix.len()..];
            match rest.strip_prefix('{') {
                Some(group) if !group.contains('}') => found.push((line, "a_group_over_several_lines".into())),
                Some(group) => group.split([',', '}']).for_each(|item| found.push((line, first_name(item)))),
                None => found.push((line, first_name(rest))),
            }
        }
    }
    found.retain(|(_, name)| name.starts_with(|c: char| c.is_ascii_lowercase()));
    found
}

#[test]
fn no_file_is_a_god_file() {
    let long = |(name, text): (String, String)| {
        let lines = text.lines().count();
        (lines > MAX_LINES).then(|| format!("{name}: {lines} lines"))
    };
    let all = PACKAGES.iter().chain(&[".ci"]).flat_map(|dir| files(dir, &[".rs", ".sh", ".py", ".c", "run"]));
    none("files are at most 700 lines long", &all.filter_map(long).collect::<Vec<_>>());
}

#[test]
fn every_module_says_what_it_is_for() {
    let silent = sources(PACKAGES).into_iter().filter(|(_, text)| !text.starts_with("//!"));
    none("a source file starts with //!", &silent.map(|(name, _)| name).collect::<Vec<_>>());
}

#[test]
fn nothing_is_left_unfinished() {
    let marks = ["TODO", "FIXME", "XXX", "todo!", "unimplemented!", "dbg!("];
    let mut findings = Vec::new();
    for (name, text) in sources(PRODUCT) {
        for (i, line) in text.lines().enumerate() {
            if let Some(mark) = marks.iter().find(|mark| line.contains(*mark)) {
                findings.push(format!("{name}:{}: {mark}", i + 1));
            }
        }
    }
    none("product code is finished", &findings);
}

/// Whether an absolute path below `place` stands in a line.
fn names_place(line: &str, place: &str) -> bool {
    let inside = |before: &str| before.ends_with(|c: char| c.is_alphanumeric() || "_.}~".contains(c));
    line.match_indices(place).any(|(at, _)| !inside(&line[..at]))
}

#[test]
fn nothing_depends_on_one_machine() {
    // Written in two parts, so that this file does not find itself.
    let places = [["/ho", "me/"], ["/ro", "ot/"], ["/Us", "ers/"], ["/wo", "rk/"]].map(|parts| parts.concat());
    let endings = [".rs", ".sh", ".toml", ".md", ".py", ".c", "run", "init", ".yml", ".json", ".lock", ".gitignore"];
    let (mut findings, mut seen) = (Vec::new(), Vec::new());
    for (name, text) in files("", &endings) {
        for (i, line) in text.lines().enumerate() {
            let named = places.iter().filter(|place| names_place(line, place));
            findings.extend(named.map(|place| format!("{name}:{}: {place}", i + 1)));
        }
        seen.push(name);
    }
    for name in ["README.md", "Cargo.toml", "docs/protocol.md", ".ci/run", "tests/dax/run.sh", "tests/dax/init"] {
        assert!(seen.iter().any(|other| other == name), "{name} is not looked at");
    }
    none("no absolute paths of one machine", &findings);
}

/// The tables of a manifest whose names begin with `start`, with what comes after it and all that stands in them.
fn tables<'a>(manifest: &'a str, start: &str) -> Vec<(&'a str, Vec<&'a str>)> {
    let mut found = Vec::new();
    for table in manifest.split("\n[").filter_map(|table| table.strip_prefix(start)) {
        let mut lines = table.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
        found.push((lines.next().unwrap_or(""), lines.collect()));
    }
    found
}

#[test]
fn what_is_outside_the_workspace_has_its_lints() {
    let read = |name: &str| fs::read_to_string(repo().join(name)).expect("a manifest");
    let (root, mut findings) = (read("Cargo.toml"), Vec::new());
    let lints = tables(&root, "workspace.lints.");
    assert!(!lints.is_empty(), "the workspace has no lints: the rule checks nothing");
    for name in ["fuzz/Cargo.toml", "ext/tests/oldest/Cargo.toml"] {
        let own = read(name);
        let own = tables(&own, "lints.");
        let missing = lints.iter().filter(|table| !own.contains(table)).map(|(table, _)| format!("{name}: {table}"));
        findings.extend(missing);
    }
    none("the lints of the workspace hold for what cannot inherit them", &findings);
}

#[test]
fn the_engine_imports_downwards_only() {
    let row = |module: &str| LAYERS.iter().position(|row| row.contains(&module));
    let mut findings = Vec::new();
    for (name, text) in sources(&["engine/src"]) {
        let path = name.trim_start_matches("engine/src/").trim_end_matches(".rs");
        let module = path.split('/').next().unwrap_or(path);
        if module == "lib" {
            continue;
        }
        let Some(own) = row(module) else {
            findings.push(format!("{name}: the module {module} has no place in LAYERS"));
            continue;
        };
        for (line, other) in named_modules(&text, "crate::") {
            let allowed = match row(&other) {
                Some(place) => other == module || place < own || (place == own && own == LAYERS.len() - 1),
                None => false,
            };
            if !allowed {
                findings.push(format!("{name}:{line}: {module} may not name {other}"));
            }
        }
    }
    none("layers import downwards only", &findings);
}

#[test]
fn the_vfs_sees_the_top_of_the_engine_only() {
    let mut findings = Vec::new();
    for (name, text) in sources(&["vfs/src", "ext/src"]) {
        for (line, module) in named_modules(&text, "nvlite_engine::") {
            if !VISIBLE.contains(&module.as_str()) {
                findings.push(format!("{name}:{line}: names {module}"));
            }
        }
    }
    none("vfs and ext name only the top of the engine", &findings);
}

/// Where the rules of the protocol are defined, one heading each.
const PROTOCOL: &str = "docs/protocol.md";

/// Whether this is the number of a rule or a hazard.
fn is_number(word: &str) -> bool {
    let digits = word.strip_prefix(['P', 'H']).unwrap_or("");
    (1..=2).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit())
}

/// The numbers that a line cites.
fn cited(line: &str) -> impl Iterator<Item = &str> {
    line.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| is_number(word))
}

/// The tests of a source file by name.
fn tests_of(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut is_test = false;
    for line in text.lines().map(str::trim_start) {
        match line.strip_prefix("fn ") {
            Some(rest) if is_test => found.push(rest.split('(').next().unwrap_or("").to_owned()),
            _ => {}
        }
        is_test = line.starts_with("#[test]") || (is_test && line.starts_with("#["));
    }
    found
}

/// The numbers that a test bears: `p2_p13_a_gate` bears P2 and P13.
fn borne(test: &str) -> Vec<String> {
    test.split('_').map(str::to_uppercase).take_while(|word| is_number(word)).collect()
}

fn rules() -> Vec<String> {
    let text = fs::read_to_string(repo().join(PROTOCOL)).expect("the protocol");
    let headings = text.lines().filter_map(|line| line.strip_prefix("### "));
    headings.filter_map(|heading| cited(heading).next().map(str::to_owned)).collect()
}

#[test]
fn every_rule_that_is_cited_is_defined() {
    let rules = rules();
    let twice = rules.iter().filter(|rule| rules.iter().filter(|other| other == rule).count() > 1);
    none("a rule is defined once", &twice.cloned().collect::<Vec<_>>());
    let all: Vec<String> = (1..=19).map(|n| format!("P{n}")).chain((1..=8).map(|n| format!("H{n}"))).collect();
    let missing = all.iter().filter(|rule| !rules.contains(rule));
    none("the protocol has P1 to P19 and H1 to H8", &missing.cloned().collect::<Vec<_>>());
    let texts = ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "CHANGELOG.md", ".ci"];
    let endings = [".rs", ".sh", ".md", ".py", ".c", "run", "init"];
    let mut findings = Vec::new();
    for (name, text) in PACKAGES.iter().chain(&texts).flat_map(|dir| files(dir, &endings)) {
        for (i, line) in text.lines().enumerate().filter(|_| name != "tests/tests/tidy.rs") {
            let unknown = cited(line).filter(|number| !rules.iter().any(|rule| rule == number));
            findings.extend(unknown.map(|number| format!("{name}:{}: {number}", i + 1)));
        }
    }
    none(&format!("a rule that is cited has a heading in {PROTOCOL}"), &findings);
}

#[test]
fn every_rule_has_a_test_that_bears_its_number() {
    let tests: Vec<String> = sources(PACKAGES).iter().flat_map(|(_, text)| tests_of(text)).collect();
    let untested = rules().into_iter().filter(|rule| !tests.iter().any(|test| borne(test).contains(rule)));
    none("a rule has a test named after it", &untested.collect::<Vec<_>>());
    let text = fs::read_to_string(repo().join(PROTOCOL)).expect("the protocol");
    let named = text.split('`').skip(1).step_by(2).filter(|name| !borne(name).is_empty() && name.contains('_'));
    let gone = named.filter(|name| !tests.iter().any(|test| test == name));
    none(&format!("a test that {PROTOCOL} names exists"), &gone.map(str::to_owned).collect::<Vec<_>>());
    let mut silent = Vec::new();
    for section in text.split("\n### ").skip(1) {
        let Some(rule) = cited(section.lines().next().unwrap_or("")).next().map(str::to_owned) else { continue };
        let bears = tests.iter().filter(|test| borne(test).contains(&rule));
        let unnamed = bears.filter(|test| !section.contains(&format!("`{test}`")));
        silent.extend(unnamed.map(|test| format!("{rule}: {test}")));
    }
    none(&format!("a test that bears a rule's number is listed there in {PROTOCOL}"), &silent);
}

#[test]
fn the_rules_can_fail() {
    let text = "use crate::pages::Virt;\n// crate::store\nuse crate::{shm::Slot, base};\nlet x = my_crate::commit;\nuse crate::{\n";
    let names: Vec<_> =
        named_modules(text, "crate::").into_iter().map(|(line, name)| format!("{line} {name}")).collect();
    assert_eq!(names, ["1 pages", "3 shm", "3 base", "5 a_group_over_several_lines"]);
    assert_eq!(cited("P1, (H8) p2_x P100 xP3 P4_a `P22`/H9").collect::<Vec<_>>(), ["P1", "H8", "P22", "H9"]);
    assert!(names_place("see ../wo/x and /wo/x", "/wo/") && !names_place("$HOME/wo/x ../wo/x", "/wo/"));
    let text = "#[test]\n#[ignore]\nfn p2_p13_a() {\n}\n    #[test]\n    fn b() {}\n\nfn p3_c() {}\n";
    assert_eq!(tests_of(text), ["p2_p13_a", "b"]);
    assert_eq!((borne("p2_p13_a"), borne("b_p1")), (vec!["P2".to_owned(), "P13".to_owned()], vec![]));
}
