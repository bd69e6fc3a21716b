//! The document.

use std::fmt::Write as _;

use faas_wasm_tests::results::{Better, Results, Rule, Table, digits};

const HEAD: &str = "\
# Benchmarks

Written by `make bench`, whole; do not edit. Each benchmark runs us and the rival in turns on the same
machine and compares the medians of the turns. Ratios carry over to other machines, absolute numbers
do not. *ok* keeps the target, *missed* misses it, and only *FAILED* fails the run: its bound is wider,
since machines that measure are rarely idle.

![The numbers below as bars](benchmarks.svg)
";

/// The whole of it.
pub(crate) fn write(results: &[Results], machine: &str) -> String {
    let mut text = String::from(HEAD);
    push(&mut text, format_args!("\nMachine: {machine}.\n"));
    for one in results {
        push(&mut text, format_args!("\n## {}\n\n", one.title));
        for line in &one.about {
            push(&mut text, format_args!("- {line}\n"));
        }
        for table in &one.tables {
            push_table(&mut text, table);
        }
        if !one.rules.is_empty() {
            text += "\n| promise | measured | target | fails unless | |\n|---|---:|---|---|---|\n";
            one.rules.iter().for_each(|rule| push_rule(&mut text, rule));
        }
    }
    text
}

fn push(text: &mut String, arguments: std::fmt::Arguments<'_>) {
    text.write_fmt(arguments)
        .expect("a string takes everything");
}

fn push_table(text: &mut String, table: &Table) {
    let better = match table.better {
        Better::Lower => "less is better",
        Better::Higher => "more is better",
    };
    push(
        text,
        format_args!("\n| {}, {} ({better}) |", table.title, table.unit),
    );
    for column in &table.columns {
        push(text, format_args!(" {column} |"));
    }
    *text += "\n|---|";
    *text += &"---:|".repeat(table.columns.len());
    *text += "\n";
    for row in &table.rows {
        push(text, format_args!("| {} |", row.name));
        for value in &row.values {
            let value = value.map_or_else(|| "-".to_owned(), digits);
            push(text, format_args!(" {value} |"));
        }
        *text += "\n";
    }
}

fn push_rule(text: &mut String, rule: &Rule) {
    push(
        text,
        format_args!(
            "| {} | {} | {} | {} | {} |\n",
            rule.what,
            rule.measured.map_or_else(|| "-".to_owned(), digits),
            rule.target,
            rule.gate
                .map_or_else(|| "-".to_owned(), |gate| gate.to_string()),
            rule.verdict()
        ),
    );
}
