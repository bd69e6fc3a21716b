//! The document, with one section per benchmark.

use std::fmt::Write as _;

use super::{Better, Kept, Rule, Table, digits};

const HEAD: &str = "\
# Benchmarks

Written by `make bench`, and the section on compiled code also by `make bench-code`; do not edit. Each benchmark
runs us and the rival in turns on the same machine and compares the medians of the turns, unless its section says
otherwise. Ratios carry over to other machines, absolute numbers do not. *ok* keeps the target, *missed* misses it, and only *FAILED* fails the run: its bound is wider,
since machines that measure are rarely idle.

![The numbers below as bars](benchmarks.svg)
";

/// Start of a section, which also ends the section before it.
const HEADING: &str = "## ";

/// Updates the document with these results. Each result replaces the section with its title, or is appended. All
/// other sections stay unchanged.
pub fn update(old: &str, kept: &[Kept]) -> String {
    let mut sections = sections(old);
    for one in kept {
        let title = &one.results.title;
        let text = section(one);
        match sections.iter_mut().find(|(other, _)| other == title) {
            Some((_, old)) => *old = text,
            None => sections.push((title.clone(), text)),
        }
    }
    let texts = sections.iter().map(|(_, text)| text.trim_end());
    let texts: Vec<_> = [HEAD.trim_end()].into_iter().chain(texts).collect();
    texts.join("\n\n") + "\n"
}

/// Titles and texts of the sections, headings included.
fn sections(document: &str) -> Vec<(String, String)> {
    let mut sections: Vec<(String, String)> = Vec::new();
    for line in document.lines() {
        if let Some(title) = line.strip_prefix(HEADING) {
            sections.push((title.to_owned(), String::new()));
        }
        // Text before the first heading is dropped.
        if let Some((_, text)) = sections.last_mut() {
            *text += line;
            *text += "\n";
        }
    }
    sections
}

fn section(Kept { machine, results }: &Kept) -> String {
    let mut text = format!("{HEADING}{}\n\n", results.title);
    for line in &results.about {
        push(&mut text, format_args!("- {line}\n"));
    }
    push(&mut text, format_args!("- machine: {machine}\n"));
    for table in &results.tables {
        push_table(&mut text, table);
    }
    if !results.rules.is_empty() {
        text += "\n| promise | measured | target | fails unless | |\n|---|---:|---|---|---|\n";
        for rule in &results.rules {
            push_rule(&mut text, rule);
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::results::Results;

    fn kept(title: &str, about: &str) -> Kept {
        Kept {
            machine: "a machine".to_owned(),
            results: Results {
                name: String::new(),
                title: title.to_owned(),
                about: vec![about.to_owned()],
                tables: Vec::new(),
                rules: Vec::new(),
            },
        }
    }

    #[test]
    fn results_replace_only_their_section() {
        let first = update("", &[kept("Loads", "old"), kept("Requests", "kept")]);
        let second = update(&first, &[kept("Loads", "new"), kept("Code", "added")]);
        let sections = "\n\n## Loads\n\n- new\n- machine: a machine\n\n## Requests\n\n- kept\n- machine: a machine\n\n\
            ## Code\n\n- added\n- machine: a machine\n";
        assert_eq!(second, HEAD.trim_end().to_owned() + sections);
    }

    #[test]
    fn no_results_leave_the_document_unchanged() {
        let document = update("", &[kept("Loads", "x"), kept("Requests", "y")]);
        assert_eq!(update(&document, &[]), document);
    }

    #[test]
    fn the_committed_document_is_up_to_date() {
        let document = include_str!("../../../BENCHMARKS.md");
        assert_eq!(update(document, &[]), document);
    }
}
