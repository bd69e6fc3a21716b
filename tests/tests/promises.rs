//! `PROMISES.md` names tests and benchmarks; each of them must be there.

use std::fs;
use std::path::{Path, PathBuf};

const NOT_YET: &str = "not yet tested";

/// A row of one of the document's tables.
#[derive(Debug, PartialEq, Eq)]
struct Promise<'a> {
    number: u32,
    evidence: &'a str,
}

fn promises(document: &str) -> Vec<Promise<'_>> {
    let rows = document.lines().filter(|line| line.starts_with('|'));
    rows.filter_map(|row| {
        let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
        let number = cells[0].parse().ok()?;
        assert_eq!(cells.len(), 3, "{row}");
        Some(Promise {
            number,
            evidence: cells[2],
        })
    })
    .collect()
}

/// What is wrong with the evidence for a promise.
fn problems(root: &Path, evidence: &str) -> Vec<String> {
    if evidence == NOT_YET {
        return Vec::new();
    }
    let mut problems = Vec::new();
    let mut rest = evidence;
    loop {
        let Some((name, after)) = rest.strip_prefix('`').and_then(|rest| rest.split_once('`'))
        else {
            problems.push(format!(
                "`{rest}` is neither a name in backticks nor \"{NOT_YET}\""
            ));
            return problems;
        };
        // Words of a rule follow the benchmark's file.
        let (words, after) = match after
            .strip_prefix(": \"")
            .and_then(|after| after.split_once('"'))
        {
            Some((words, after)) => (Some(words), after),
            None => (None, after),
        };
        problems.extend(problem(root, name, words));
        match after.strip_prefix(", ") {
            Some(next) => rest = next,
            None if after.is_empty() => return problems,
            None => {
                problems.push(format!("`{after}` follows `{name}`"));
                return problems;
            }
        }
    }
}

fn problem(root: &Path, name: &str, words: Option<&str>) -> Option<String> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let found = if let Some(target) = name.strip_prefix("make ") {
        read("Makefile").contains(&format!("\n{target}:"))
    } else if let Some((path, function)) = name.split_once("::") {
        // Attributes of a test may follow the one that makes it a test.
        let text = read(path);
        let before = text
            .split(&format!("fn {function}("))
            .next()
            .unwrap_or_default();
        let attributes = before.rsplit("\n\n").next().unwrap_or_default();
        before.len() < text.len()
            && (attributes.contains("#[test]") || attributes.contains("proptest"))
    } else {
        words.is_some_and(|words| read(name).contains(words))
    };
    let words = words.unwrap_or_default();
    (!found).then(|| format!("there is no {name} {words}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn what_shows_a_promise_exists() {
    let document = fs::read_to_string(root().join("tests/PROMISES.md")).expect("it is there");
    let promises = promises(&document);
    assert!(promises.len() > 50, "the document has tables of promises");
    assert!(
        promises.is_sorted_by(|one, next| one.number < next.number),
        "each number is there once, in order"
    );
    let problems: Vec<_> = promises
        .iter()
        .flat_map(|promise| {
            let number = promise.number;
            let problems = problems(&root(), promise.evidence).into_iter();
            problems.map(move |problem| format!("{number}: {problem}"))
        })
        .collect();
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

#[test]
fn what_does_not_exist_is_found() {
    let own = "`tests/tests/promises.rs::what_does_not_exist_is_found`";
    for good in [own, "`make test`", &format!("{own}, `make test`"), NOT_YET] {
        assert_eq!(problems(&root(), good), [""; 0], "{good}");
    }
    for bad in [
        "`tests/tests/promises.rs::no_such_test`",
        // A function, but no test.
        "`tests/tests/promises.rs::root`",
        "`tests/tests/no_such_file.rs::what_does_not_exist_is_found`",
        "`tests/tests/promises.rs`",
        "`tests/benches/load/report.rs`: \"no such rule\"",
        "`make no-such-target`",
        "we have looked",
        "",
        "`make test` and more",
    ] {
        assert_ne!(problems(&root(), bad), [""; 0], "{bad}");
    }
}
