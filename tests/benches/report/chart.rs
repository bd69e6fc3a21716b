//! The chart: bars, each row with a scale of its own, so that numbers of all sizes can be compared.

use std::fmt::Write as _;

use faas_wasm_tests::results::{Better, Results, Row, Table, digits};

const WIDTH: usize = 860;
const NAMES: usize = 370;
/// Room for the longest bar; its number stands behind it.
const BARS: usize = 400;
const BAR: usize = 11;
const GAP: usize = 9;
const HEADING: usize = 44;

/// Looks the same in light and dark: only the text follows the reader's colours.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}
.h{font-weight:600}.n{font-size:10px}
.c0{fill:#0969da}.c1{fill:#8c959f}.c2{fill:#c4cad1}.c3{fill:#dfe3e8}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.c1{fill:#6e7681}.c2{fill:#484f58}.c3{fill:#30363d}}
";

/// The chart of every table that asks for it.
pub(crate) fn draw(results: &[Results]) -> String {
    let mut bars = String::new();
    let mut y = 6;
    let tables = results.iter().flat_map(|one| &one.tables);
    for table in tables.filter(|table| table.chart) {
        y = draw_table(&mut bars, table, y);
    }
    let height = y + 6;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Benchmarks\">\n<style>\n{STYLE}</style>\n{bars}</svg>\n"
    )
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("a string takes everything");
}

fn draw_table(bars: &mut String, table: &Table, top: usize) -> usize {
    let better = match table.better {
        Better::Lower => "shorter is better",
        Better::Higher => "longer is better",
    };
    let title = escape(&format!("{}, {} ({better})", table.title, table.unit));
    push(
        bars,
        format_args!(
            "<text class=\"h\" x=\"0\" y=\"{}\">{title}</text>\n",
            top + 14
        ),
    );
    let mut x = 0;
    for (index, column) in table.columns.iter().enumerate() {
        let y = top + 24;
        push(
            bars,
            format_args!(
                "<rect class=\"c{}\" x=\"{x}\" y=\"{y}\" width=\"10\" height=\"10\"/>\
                 <text class=\"n\" x=\"{}\" y=\"{}\">{}</text>\n",
                colour(index),
                x + 14,
                y + 9,
                escape(column)
            ),
        );
        x += 28 + column.len() * 6;
    }
    let mut y = top + HEADING;
    // A single bar says nothing.
    let compared = |row: &&Row| row.values.iter().flatten().count() > 1;
    for row in table.rows.iter().filter(compared) {
        y = draw_row(bars, row, y);
    }
    y + GAP
}

fn draw_row(bars: &mut String, row: &Row, top: usize) -> usize {
    let largest = row.values.iter().flatten().copied().fold(0.0, f64::max);
    let count = row.values.iter().flatten().count();
    let middle = top + count * BAR / 2 + 4;
    push(
        bars,
        format_args!(
            "<text x=\"0\" y=\"{middle}\">{}</text>\n",
            escape(&row.name)
        ),
    );
    let mut y = top;
    for (index, value) in row.values.iter().enumerate() {
        let Some(value) = *value else { continue };
        let share = if largest > 0.0 { value / largest } else { 0.0 };
        let width = (share * BARS as f64).max(1.0);
        push(
            bars,
            format_args!(
                "<rect class=\"c{}\" x=\"{NAMES}\" y=\"{y}\" width=\"{width:.1}\" height=\"{}\"/>\
                 <text class=\"n\" x=\"{:.1}\" y=\"{}\">{}</text>\n",
                colour(index),
                BAR - 2,
                NAMES as f64 + width + 4.0,
                y + BAR - 3,
                digits(value)
            ),
        );
        y += BAR;
    }
    y + GAP
}

fn colour(index: usize) -> usize {
    index.min(3)
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
}
