//! The table on the terminal.

use std::fmt::Write;

use crate::report::{Figures, Report};
use crate::stats::{Ratio, Summary};
use crate::systems::{DEVICE_FLUSHES, LOG_BYTES};

/// Counts that have a column of their own.
const COLUMNS: [(&str, &str); 6] = [
    (DEVICE_FLUSHES, "flushes/tx"),
    ("fences", "fences/tx"),
    (LOG_BYTES, "log B/tx"),
    ("write_calls", "writes/tx"),
    ("bytes_written", "bytes/tx"),
    ("system_calls", "syscalls/tx"),
];

/// Counts that are states rather than events, whose growth per transaction is of no interest on a terminal.
const STATES: [&str; 5] = ["jci_", "blocks_", "heads", "pages_hot", "ring_used"];

/// Ratios in a line.
const PER_LINE: usize = 16;

/// Rounds of which the ratio is printed; a run of many hours has thousands.
const MOST_ROUNDS: usize = 6 * PER_LINE;

/// The whole report in text.
pub fn render(report: &Report) -> String {
    let mut out = format!("{}\n\n", report.benchmark.title());
    systems(report, &mut out);
    classes(report, &mut out);
    other_counts(report, &mut out);
    out.push('\n');
    ratios(report, &mut out);
    out.push_str("\nwall, round by round\n");
    for (pair, ratio) in of_the_first(report) {
        out.push_str(&rounds(pair, &ratio.rounds));
    }
    settling(report, &mut out);
    let machine = &report.machine;
    let _ = writeln!(
        out,
        "\nConsistent after the run: {}.\n{}, {} logical processors, Linux {}, {}; SQLite {}, {} build.",
        report.systems.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(", "),
        machine.cpu,
        machine.cores,
        machine.kernel,
        machine.file_system,
        report.versions.sqlite,
        report.versions.build
    );
    out
}

fn systems(report: &Report, out: &mut String) {
    let counts = COLUMNS.iter().filter(|(name, _)| report.systems.iter().any(|(_, f)| f.counts.contains_key(*name)));
    let counts: Vec<_> = counts.collect();
    let _ = write!(
        out,
        "{:<12}{:>10}{:>20}{:>11}{:>11}{:>10}{:>10}{:>10}{:>6}",
        "system", "tx/s", "min .. max", "CPU us/tx", "background", "p50 us", "p99 us", "p99.9 us", "fair"
    );
    if new_orders(report).is_some() {
        let _ = write!(out, "{:>13}", "new orders/s");
    }
    for (_, title) in &counts {
        let _ = write!(out, "{title:>13}");
    }
    out.push('\n');
    for (name, figures) in &report.systems {
        let spread = format!("{} .. {}", short(figures.throughput_min), short(figures.throughput_max));
        let latency = figures.latency_us;
        let _ = write!(
            out,
            "{name:<12}{:>10}{spread:>20}{:>11}{:>11}{:>10}{:>10}{:>10}{:>6.2}",
            short(figures.throughput),
            short(figures.cpu_us_per_tx),
            short(figures.background_cpu_us_per_tx),
            short(latency.p50),
            short(latency.p99),
            short(latency.p999),
            figures.fairness
        );
        if let Some(class) = new_orders(report) {
            let _ = write!(out, "{:>13}", short(figures.classes[class].1.throughput));
        }
        for (key, _) in &counts {
            let _ = write!(out, "{:>13}", figures.counts.get(*key).map_or_else(|| "-".to_owned(), |&n| short(n)));
        }
        out.push('\n');
    }
}

/// TPC-C's own measure among the classes.
fn new_orders(report: &Report) -> Option<usize> {
    report.systems.first()?.1.classes.iter().position(|(name, _)| *name == "new_order")
}

/// Rates and latencies by kind, where each has threads of its own; the JSON has them always.
fn classes(report: &Report, out: &mut String) {
    if !report.benchmark.roles {
        return;
    }
    let _ = writeln!(out, "\n{:<12}{:<24}{:>10}{:>10}{:>10}{:>10}", "", "kind", "tx/s", "p50 us", "p99 us", "p99.9 us");
    for (name, figures) in &report.systems {
        for (kind, class) in &figures.classes {
            let (rate, latency) = (short(class.throughput), class.latency_us);
            let [p50, p99, p999] = [latency.p50, latency.p99, latency.p999].map(short);
            let _ = writeln!(out, "{name:<12}{kind:<24}{rate:>10}{p50:>10}{p99:>10}{p999:>10}");
        }
    }
}

fn other_counts(report: &Report, out: &mut String) {
    for (name, figures) in &report.systems {
        let known = |count: &str| {
            let state = STATES.iter().any(|state| count.starts_with(state));
            state || count == "read_calls" || COLUMNS.iter().any(|(column, _)| *column == count)
        };
        let others = figures.counts.iter().filter(|(count, value)| !known(count) && **value != 0.0);
        let text: Vec<String> = others.map(|(count, &value)| format!("{count} {}", short(value))).collect();
        if !text.is_empty() {
            let _ = writeln!(out, "\n{name}, per transaction: {}", text.join(", "));
        }
    }
}

fn ratios(report: &Report, out: &mut String) {
    let _ =
        writeln!(out, "{:<24}{:>8}{:>18}{:>11}{:>18}", "throughput ratio", "wall", "min .. max", "CPU", "min .. max");
    let rank = |name: &str| report.systems.iter().position(|(system, _)| *system == name);
    for (pair, ratio) in &report.ratios {
        let Some((first, second)) = pair.split_once('/') else { continue };
        if rank(first) > rank(second) {
            continue;
        }
        let (wall, wall_spread) = columns(ratio.wall);
        let (cpu, cpu_spread) = columns(ratio.cpu);
        let _ = writeln!(out, "{pair:<24}{wall:>8}{wall_spread:>18}{cpu:>11}{cpu_spread:>18}");
        for (role, wall) in &ratio.roles {
            let (wall, spread) = columns(*wall);
            let _ = writeln!(out, "{:<24}{wall:>8}{spread:>18}", format!("  {role}"));
        }
    }
}

/// The first system's ratios to the others.
fn of_the_first(report: &Report) -> impl Iterator<Item = (&str, &Ratio)> {
    let first = report.systems.first().map(|(name, _)| *name);
    let ratios = report.ratios.iter().map(|(pair, ratio)| (pair.as_str(), ratio));
    ratios.filter(move |(pair, _)| pair.split('/').next() == first)
}

/// What the median was taken of: how steady the machine was, and whether anything changed with time.
fn rounds(pair: &str, ratios: &[f64]) -> String {
    let mut out = String::new();
    for (line, ratios) in ratios[..ratios.len().min(MOST_ROUNDS)].chunks(PER_LINE).enumerate() {
        let _ = write!(out, "{:<24}", if line == 0 { pair } else { "" });
        ratios.iter().for_each(|ratio| _ = write!(out, " {ratio:>5.2}"));
        out.push('\n');
    }
    if ratios.len() > MOST_ROUNDS {
        let _ = writeln!(out, "{:<24} and {} more, which --json has", "", ratios.len() - MOST_ROUNDS);
    }
    out
}

/// The wall clock of a turn ends with its last transaction; this says what came after it.
fn settling(report: &Report, out: &mut String) {
    let of = |(name, figures): &(&str, Figures)| format!("{name} {}", short(figures.settle_ms));
    let times: Vec<String> = report.systems.iter().map(of).collect();
    let _ = writeln!(out, "\nBusy after a turn, ms (counts and CPU include it, wall does not): {}.", times.join(", "));
    let settled = |(pair, ratio): (&str, &Ratio)| Some(format!("{pair} {:.2}", ratio.wall_settled?.median));
    let ratios: Vec<String> = of_the_first(report).filter_map(settled).collect();
    if !ratios.is_empty() {
        let _ = writeln!(out, "Wall clock with it: {}.", ratios.join(", "));
    }
}

fn columns(summary: Option<Summary>) -> (String, String) {
    match summary {
        None => ("-".to_owned(), "-".to_owned()),
        Some(Summary { median, min, max }) => (format!("{median:.2}"), format!("{min:.2} .. {max:.2}")),
    }
}

/// Three digits that matter.
fn short(figure: f64) -> String {
    match figure.abs() {
        size if size == 0.0 || size >= 100.0 => format!("{figure:.0}"),
        size if size >= 10.0 => format!("{figure:.1}"),
        size if size >= 0.01 => format!("{figure:.2}"),
        _ => format!("{figure:.1e}"),
    }
}

#[cfg(test)]
mod tests {
    use super::{MOST_ROUNDS, rounds, short};

    #[test]
    fn rounds_stand_in_lines_and_those_that_are_left_out_are_counted() {
        let few: Vec<f64> = (1..=18).map(f64::from).collect();
        let text = rounds("a/b", &few);
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].starts_with("a/b    ") && lines[0].ends_with(" 14.00 15.00 16.00"), "{text}");
        assert_eq!((lines[0].len(), lines[1..].to_owned()), (120, vec![&*format!("{:24} 17.00 18.00", "")]));
        let many = rounds("a/b", &[1.0; MOST_ROUNDS + 3]);
        assert!(many.ends_with(" and 3 more, which --json has\n"), "{many}");
        assert_eq!(many.matches("1.00").count(), MOST_ROUNDS);
    }

    #[test]
    fn figures_keep_the_digits_that_matter() {
        assert_eq!([0.0, 123.4, 12.34, 1.234, 0.012, 0.001].map(short), ["0", "123", "12.3", "1.23", "0.01", "1.0e-3"]);
    }
}
