//! Plots of a report, as SVG: ratios as bars, a scenario each, and throughput over distance as lines.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, anyhow};
use plotters::coord::Shift;
use plotters::prelude::*;
use plotters::style::text_anchor::{HPos, Pos, VPos};

use super::report::{Better, POSTERN, Report, Row};
use super::scenarios::over_distance;

/// Wide enough for two names and the numbers in a README's column.
const WIDTH: u32 = 900;

/// Of one bar with its name.
const BAR_HEIGHT: u32 = 26;

/// Of title, axis and legend.
const FRAME_HEIGHT: u32 = 110;

/// Room for the names of measures at the left.
const NAMES_WIDTH: u32 = 380;

/// Ratios beyond this are drawn as this: what is so far off needs no scale.
const RATIO_SHOWN_MAX: f64 = 3.0;

/// How thick a bar is, of its place.
const BAR_SHARE: f64 = 0.7;

const FONT: &str = "sans-serif";

const TITLE_SIZE: i32 = 22;

const TEXT_SIZE: i32 = 16;

/// Tells columns apart, also for who does not see red and green (Okabe and Ito).
const COLORS: [RGBColor; 5] =
    [RGBColor(0, 114, 178), RGBColor(230, 159, 0), RGBColor(0, 158, 115), RGBColor(204, 121, 167), RGBColor(86, 180, 233)];

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Writes `ratios-B*.svg` and `distance-B*.svg` into `dir`.
pub(crate) fn write(report: &Report, dir: &Path) -> Result<()> {
    fs::create_dir_all(dir).with_context(|| dir.display().to_string())?;
    let mut scenarios: Vec<&str> = report.rows.iter().map(|row| row.scenario.as_str()).collect();
    scenarios.dedup();
    for scenario in scenarios {
        let rows: Vec<&Row> = report.rows.iter().filter(|row| row.scenario == scenario).collect();
        let compared: Vec<(&Row, f64)> = rows.iter().filter_map(|row| Some((*row, row.ratio("nginx")?.median))).collect();
        if !compared.is_empty() {
            let height = FRAME_HEIGHT + BAR_HEIGHT * compared.len() as u32;
            save(&dir.join(format!("ratios-{scenario}.svg")), height, |area| bars(area, scenario, &compared))?;
        }
        let far: Vec<(&Row, (f64, u64))> = rows.iter().filter_map(|row| Some((*row, over_distance(&row.measure)?))).collect();
        if far.len() > 1 {
            save(&dir.join(format!("distance-{scenario}.svg")), 480, |area| lines(area, scenario, report, &far))?;
        }
    }
    Ok(())
}

fn save(path: &Path, height: u32, draw: impl FnOnce(&Area<'_>) -> Result<()>) -> Result<()> {
    let area = SVGBackend::new(path, (WIDTH, height)).into_drawing_area();
    // Pages are light or dark; the plot brings its own ground.
    area.fill(&WHITE).map_err(undrawn)?;
    draw(&area)?;
    area.present().map_err(undrawn).with_context(|| path.display().to_string())
}

/// plotters' errors name its backend in their type, which nobody needs.
fn undrawn(error: impl std::fmt::Display) -> anyhow::Error {
    anyhow!("failed to draw: {error}")
}

/// One bar for each measure, from the top: Postern's median ratio to nginx, where 1 is as good.
fn bars(area: &Area<'_>, scenario: &str, rows: &[(&Row, f64)]) -> Result<()> {
    let count = rows.len() as f64;
    let most = rows.iter().map(|(_, ratio)| *ratio).fold(1.5, f64::max).min(RATIO_SHOWN_MAX);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{scenario}: {POSTERN} / nginx"), (FONT, TITLE_SIZE))
        .margin(10)
        .x_label_area_size(40)
        .y_label_area_size(NAMES_WIDTH)
        .build_cartesian_2d(0.0..most * 1.1, 0.0..count)
        .map_err(undrawn)?;
    // Names stand at bars, not at ticks.
    let mut mesh = chart.configure_mesh();
    mesh.disable_y_mesh().disable_y_axis().max_light_lines(0).label_style((FONT, TEXT_SIZE)).draw().map_err(undrawn)?;
    let middles = || (0..rows.len()).map(|index| count - index as f64 - 0.5);
    let bar = |(y, (_, ratio)): (f64, &(&Row, f64))| {
        Rectangle::new([(0.0, y - BAR_SHARE / 2.0), (ratio.min(most), y + BAR_SHARE / 2.0)], COLORS[0].filled())
    };
    chart.draw_series(middles().zip(rows).map(bar)).map_err(undrawn)?;
    chart.draw_series(LineSeries::new([(1.0, 0.0), (1.0, count)], BLACK)).map_err(undrawn)?;
    let style = (FONT, TEXT_SIZE).into_text_style(area);
    for (y, (row, ratio)) in middles().zip(rows) {
        let (name_end, height) = chart.backend_coord(&(0.0, y));
        let (bar_end, _) = chart.backend_coord(&(ratio.min(most), y));
        let left = style.pos(Pos::new(HPos::Right, VPos::Center));
        let right = style.pos(Pos::new(HPos::Left, VPos::Center));
        area.draw(&Text::new(named(row), (name_end - 6, height), left)).map_err(undrawn)?;
        area.draw(&Text::new(format!("{ratio:.2}"), (bar_end + 6, height), right)).map_err(undrawn)?;
    }
    Ok(())
}

fn named(row: &Row) -> String {
    let better = match row.better {
        Better::Higher => "higher is better",
        Better::Lower => "lower is better",
    };
    format!("{} ({better})", row.measure)
}

/// For each column and rate of the link, how much of it was used at each distance.
fn lines(area: &Area<'_>, scenario: &str, report: &Report, rows: &[(&Row, (f64, u64))]) -> Result<()> {
    let farthest = rows.iter().map(|(_, (ms, _))| *ms).fold(0.0, f64::max);
    let mut chart = ChartBuilder::on(area)
        .caption(format!("{scenario}: share of the link's rate, by round trip"), (FONT, TITLE_SIZE))
        .margin(10)
        .x_label_area_size(45)
        .y_label_area_size(55)
        .build_cartesian_2d(0.0..farthest * 1.05, 0.0..1.1)
        .map_err(undrawn)?;
    chart
        .configure_mesh()
        .max_light_lines(0)
        .x_desc("round trip in ms")
        .label_style((FONT, TEXT_SIZE))
        .draw()
        .map_err(undrawn)?;
    let mut rates: Vec<u64> = rows.iter().map(|(_, (_, mbit))| *mbit).collect();
    rates.sort_unstable();
    rates.dedup();
    for (column, color) in report.columns.iter().zip(COLORS.iter().cycle()) {
        for (mbit, width) in rates.iter().zip([1, 3].into_iter().cycle()) {
            let of_rate = rows.iter().filter(|(_, (_, other))| other == mbit);
            let points: Vec<(f64, f64)> = of_rate.filter_map(|(row, (ms, _))| Some((*ms, row.spread(column)?.median))).collect();
            if points.is_empty() {
                continue;
            }
            let style = color.stroke_width(width);
            let series = LineSeries::new(points, style).point_size(width + 1);
            let drawn = chart.draw_series(series).map_err(undrawn)?;
            drawn.label(format!("{column}, {mbit} Mbit/s")).legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], style));
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::LowerLeft)
        .label_font((FONT, TEXT_SIZE))
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK)
        .draw()
        .map_err(undrawn)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::super::markdown;
    use super::*;
    use crate::run::column::Link;
    use crate::run::scenarios::share_of;

    #[test]
    fn a_report_becomes_a_plot_of_ratios_and_one_of_distance() {
        let dir = tempfile::tempdir().unwrap();
        let mut report = markdown::tests::example();
        let link = |round_trip_ms, mbit| share_of(Link { round_trip_ms, mbit: Some(mbit) });
        for (ms, mbit) in [(20.0, 100), (200.0, 100), (20.0, 1000), (200.0, 1000)] {
            let row = report.rows[0].clone();
            report.rows.push(Row { measure: link(ms, mbit), ..row });
        }
        write(&report, dir.path()).unwrap();
        let ratios = fs::read_to_string(dir.path().join("ratios-B1.svg")).unwrap();
        assert!(ratios.contains("32 callers (higher is better)"), "{ratios}");
        let distance = fs::read_to_string(dir.path().join("distance-B1.svg")).unwrap();
        assert!(distance.contains("nginx, 1000 Mbit/s"), "{distance}");
    }
}
