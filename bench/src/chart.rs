//! The chart: throughput of every system on the left, the first system's ratio to the others, round by round, on the
//! right.

use plotters::coord::Shift;
use plotters::prelude::*;

use crate::error::{Error, Result};
use crate::report::{Figures, Report};

const SIZE: (u32, u32) = (1100, 420);
const COLOURS: [RGBColor; 6] = [
    RGBColor(0x00, 0x6d, 0x77),
    RGBColor(0xe0, 0x7a, 0x1f),
    RGBColor(0x6a, 0x4c, 0x93),
    RGBColor(0xb2, 0x3a, 0x48),
    RGBColor(0x4d, 0x7c, 0x0f),
    RGBColor(0x55, 0x55, 0x55),
];

type Panel<'a> = DrawingArea<SVGBackend<'a>, Shift>;
type Drawn = std::result::Result<(), Box<dyn std::error::Error>>;

/// Draws the report; the text of an SVG file.
pub fn draw(report: &Report) -> Result<String> {
    let mut text = String::new();
    panels(report, &mut text).map_err(|reason| Error::Chart(reason.to_string()))?;
    Ok(text)
}

fn panels(report: &Report, text: &mut String) -> Drawn {
    let root = SVGBackend::with_string(text, SIZE).into_drawing_area();
    root.fill(&WHITE)?;
    let root = root.titled(&report.benchmark.title(), ("sans-serif", 17))?;
    let (left, right) = root.split_horizontally(SIZE.0 / 2);
    throughput(report, &left)?;
    rounds(report, &right)?;
    root.present()?;
    Ok(())
}

/// A bar per system: median, with a line from the worst turn to the best.
fn throughput(report: &Report, panel: &Panel) -> Drawn {
    let top = report.systems.iter().map(|(_, figures)| figures.throughput_max).fold(1.0, f64::max) * 1.1;
    let names: Vec<&str> = report.systems.iter().map(|(name, _)| *name).collect();
    let mut chart = ChartBuilder::on(panel)
        .caption("transactions per second (median, min .. max)", ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(70)
        .build_cartesian_2d((0..names.len() - 1).into_segmented(), 0.0..top)?;
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(WHITE)
        .x_labels(names.len())
        .x_label_formatter(&|place| match place {
            SegmentValue::CenterOf(index) => names.get(*index).copied().unwrap_or_default().to_owned(),
            _ => String::new(),
        })
        .y_label_formatter(&|rate| format!("{rate:.0}"))
        .draw()?;
    let bars = report.systems.iter().enumerate().map(|(index, (_, figures))| bar(index, figures));
    chart.draw_series(bars)?;
    let spreads = report.systems.iter().enumerate().map(|(index, (_, figures))| {
        let at = SegmentValue::CenterOf(index);
        PathElement::new(vec![(at.clone(), figures.throughput_min), (at, figures.throughput_max)], BLACK)
    });
    chart.draw_series(spreads)?;
    Ok(())
}

fn bar(index: usize, figures: &Figures) -> Rectangle<(SegmentValue<usize>, f64)> {
    let (left, right) = (SegmentValue::Exact(index), SegmentValue::Exact(index + 1));
    let mut bar = Rectangle::new([(left, 0.0), (right, figures.throughput)], colour(index).mix(0.8).filled());
    bar.set_margin(0, 0, 12, 12);
    bar
}

/// A line per peer: the first system's throughput over the peer's in every round.
fn rounds(report: &Report, panel: &Panel) -> Drawn {
    let Some((first, _)) = report.systems.first() else { return Ok(()) };
    let lines: Vec<(usize, &str, &[f64])> = report
        .systems
        .iter()
        .enumerate()
        .skip(1)
        .filter_map(|(index, (name, _))| {
            let pair = format!("{first}/{name}");
            let (_, ratio) = report.ratios.iter().find(|(key, _)| *key == pair)?;
            Some((index, *name, &ratio.rounds[..]))
        })
        .collect();
    let top = lines.iter().flat_map(|(_, _, ratios)| ratios.iter()).fold(1.0f64, |top, &ratio| top.max(ratio)) * 1.1;
    let last = lines.iter().map(|(_, _, ratios)| ratios.len()).max().unwrap_or(1).max(2) as f64;
    let mut chart = ChartBuilder::on(panel)
        .caption(format!("throughput of {first} over each peer's, by round"), ("sans-serif", 14))
        .margin(10)
        .x_label_area_size(30)
        .y_label_area_size(50)
        .build_cartesian_2d(1.0..last, 0.0..top)?;
    chart.configure_mesh().x_label_formatter(&|round| format!("{round:.0}")).light_line_style(WHITE).draw()?;
    for (index, name, ratios) in lines {
        let points = (1..).map(f64::from).zip(ratios.iter().copied());
        let style = colour(index).stroke_width(2);
        chart
            .draw_series(LineSeries::new(points, style))?
            .label(name)
            .legend(move |(x, y)| PathElement::new(vec![(x, y), (x + 18, y)], style));
    }
    chart.draw_series(LineSeries::new([(1.0, 1.0), (last, 1.0)], BLACK.mix(0.5)))?;
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}
