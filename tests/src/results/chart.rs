//! The chart: horizontal bars. Each row has a separate scale, so that numbers of different magnitudes can be
//! compared.

use std::fmt::Write as _;

use super::{Better, Kept, Row, Table, digits};

const WIDTH: usize = 860;
const NAMES: usize = 370;
/// Width of the longest bar; its number stands to the right of it.
const BARS: usize = 400;
const BAR: usize = 11;
const GAP: usize = 9;
const HEADING: usize = 44;

/// Looks the same in light and dark themes: only the text uses the reader's colors.
const STYLE: &str = "\
text{font:12px system-ui,sans-serif;fill:#24292f}
.h{font-weight:600}.n{font-size:10px}
.c0{fill:#0969da}.c1{fill:#8c959f}.c2{fill:#c4cad1}.c3{fill:#dfe3e8}
@media(prefers-color-scheme:dark){text{fill:#e6edf3}.c1{fill:#6e7681}.c2{fill:#484f58}.c3{fill:#30363d}}
";

/// Start of a benchmark's bars; its name and the height in pixels follow.
const BEGIN: &str = "<g data-name=\"";
const MIDDLE: &str = "\" data-height=\"";
const END: &str = "</g>";
/// Pixels above the first benchmark and below the last one.
const MARGIN: usize = 6;

/// The bars of one benchmark.
struct Block {
    name: String,
    height: usize,
    bars: String,
}

/// Adds every table marked for the chart. The bars replace earlier bars of the same benchmark, or are appended. The
/// bars of other benchmarks stay unchanged.
pub fn update(old: &str, kept: &[Kept]) -> String {
    let mut blocks = blocks(old);
    for Kept { results, .. } in kept {
        let mut block = Block {
            name: results.name.clone(),
            height: 0,
            bars: String::new(),
        };
        for table in results.tables.iter().filter(|table| table.chart) {
            block.height = draw_table(&mut block.bars, table, block.height);
        }
        match blocks.iter_mut().find(|old| old.name == block.name) {
            Some(old) => *old = block,
            None => blocks.push(block),
        }
    }
    draw(&blocks)
}

fn draw(blocks: &[Block]) -> String {
    let mut groups = String::new();
    let mut y = MARGIN;
    for Block { name, height, bars } in blocks.iter().filter(|block| block.height > 0) {
        push(
            &mut groups,
            format_args!(
                "{BEGIN}{name}{MIDDLE}{height}\" transform=\"translate(0 {y})\">\n{bars}{END}\n"
            ),
        );
        y += height;
    }
    let height = y + MARGIN;
    format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {height}\" width=\"{WIDTH}\" \
         height=\"{height}\" role=\"img\" aria-label=\"Benchmarks\">\n<style>\n{STYLE}</style>\n{groups}</svg>\n"
    )
}

/// Parses the bars of a chart that this module drew.
fn blocks(chart: &str) -> Vec<Block> {
    let groups = chart.split(BEGIN).skip(1);
    let block = |group: &str| {
        let (name, rest) = group.split_once(MIDDLE)?;
        let (height, rest) = rest.split_once('"')?;
        let (_, rest) = rest.split_once('\n')?;
        let (bars, _) = rest.split_once(END)?;
        Some(Block {
            name: name.to_owned(),
            height: height.parse().ok()?,
            bars: bars.to_owned(),
        })
    };
    groups.filter_map(block).collect()
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
    // A row with a single bar compares nothing.
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Results;

    fn kept(name: &str, rows: usize) -> Kept {
        let row = Row {
            name: format!("row of {name}"),
            values: vec![Some(1.0), Some(2.0)],
        };
        Kept {
            machine: String::new(),
            results: Results {
                name: name.to_owned(),
                title: String::new(),
                about: Vec::new(),
                tables: vec![Table {
                    title: format!("table of {name}"),
                    unit: "us".to_owned(),
                    better: Better::Lower,
                    columns: vec!["ours".to_owned(), "theirs".to_owned()],
                    rows: vec![row; rows],
                    chart: true,
                }],
                rules: Vec::new(),
            },
        }
    }

    #[test]
    fn bars_replace_only_those_of_their_benchmark() {
        let first = update("", &[kept("load", 1), kept("code", 1)]);
        let second = update(&first, &[kept("load", 3)]);
        assert_eq!(second, update("", &[kept("load", 3), kept("code", 1)]));
        assert_eq!(update(&second, &[]), second);
    }

    #[test]
    fn a_benchmark_without_a_chart_takes_no_room() {
        let mut without = kept("code", 1);
        without.results.tables[0].chart = false;
        let chart = update("", &[kept("load", 1), kept("code", 1)]);
        assert_eq!(update(&chart, &[without]), update("", &[kept("load", 1)]));
    }

    #[test]
    fn the_committed_chart_is_up_to_date() {
        let chart = include_str!("../../../benchmarks.svg");
        assert_eq!(update(chart, &[]), chart);
    }
}
