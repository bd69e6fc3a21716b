//! `PROMISES.md` names tests and benchmarks. Each must exist and run: no test may be ignored or excluded from CI's
//! builds, and each benchmark needs a target in the Makefile.

use std::fs;
use std::path::{Path, PathBuf};

use faas_wasm_tests::Work;

const NOT_YET: &str = "not yet tested";

/// `cfg` conditions that hold where CI compiles tests, in `make test` and `make test-image`.
const COMPILED: [&str; 4] = [
    "test",
    // The tool enables this feature of the artifact crate.
    "all(test, feature = \"build\")",
    "feature = \"isolation\"",
    "feature = \"images\"",
];

/// A row of a table of promises.
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

/// The problems with the evidence for a promise.
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
        // The quoted name of a rule follows the benchmark's file.
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
    if let Some(target) = name.strip_prefix("make ") {
        let exists = read("Makefile").contains(&format!("\n{target}:"));
        return (!exists).then(|| format!("there is no {name}"));
    }
    if let Some((path, function)) = name.split_once("::") {
        return test_problem(&read, path, function)
            .map(|problem| format!("{name} {problem}"))
            .or_else(|| target_problem(&read, path));
    }
    let words = words.unwrap_or_default();
    if words.is_empty() || !read(name).contains(words) {
        return Some(format!("there is no {name} {words}"));
    }
    bench_problem(&read, name)
}

/// Reads a file of the repository by its path. Returns an empty string if there is none.
type Read<'a> = &'a dyn Fn(&str) -> String;

/// Why a function is not a test that runs, if so.
fn test_problem(read: Read<'_>, path: &str, function: &str) -> Option<String> {
    let text = read(path);
    let Some((before, _)) = text.split_once(&format!("fn {function}(")) else {
        return Some("does not exist".into());
    };
    let attributes = before.rsplit("\n\n").next().unwrap_or_default();
    if !attributes.contains("#[test]") && !attributes.contains("proptest") {
        return Some("is not a test".into());
    }
    let mut attribute_lines = attributes.lines().map(str::trim_start);
    if attribute_lines.any(|line| line.starts_with("#[") && line.contains("ignore")) {
        return Some("is ignored".into());
    }
    let conditions = conditions(attributes)
        .chain(inline_module_conditions(before))
        .map(str::to_owned)
        .chain(module_conditions(read, path));
    let mut missing = conditions.filter(|condition| !COMPILED.contains(&condition.as_str()));
    missing
        .next()
        .map(|condition| format!("is compiled only with cfg({condition})"))
}

/// The conditions of `#[cfg(...)]` and `#![cfg(...)]` attributes, one per line.
fn conditions(attributes: &str) -> impl Iterator<Item = &str> {
    attributes.lines().filter_map(|line| {
        let line = line.trim();
        let inner = line
            .strip_prefix("#[cfg(")
            .or_else(|| line.strip_prefix("#![cfg("));
        inner?.strip_suffix(")]")
    })
}

/// The conditions of inline modules that are still open at the end of a text, and those of the whole file.
fn inline_module_conditions(before: &str) -> impl Iterator<Item = &str> {
    let open = before
        .rsplit("\n}\n")
        .next()
        .unwrap_or_default()
        .split("\n\n")
        .filter(|part| part.lines().any(is_inline_module));
    let file = before
        .lines()
        .filter(|line| line.starts_with("#!["))
        .flat_map(conditions);
    open.flat_map(conditions).chain(file)
}

fn is_inline_module(line: &str) -> bool {
    let line = line.strip_prefix("pub ").unwrap_or(line);
    line.starts_with("mod ") && line.ends_with('{')
}

/// The conditions under which parent modules declare this file.
fn module_conditions(read: Read<'_>, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut path = PathBuf::from(path);
    while let (Some(stem), Some(folder)) = (path.file_stem(), path.parent()) {
        let (name, folder) = match (stem.to_str(), folder.file_name(), folder.parent()) {
            (Some("mod"), Some(name), Some(above)) => (name, above),
            _ => (stem, folder),
        };
        let name = name.to_str().unwrap_or_default();
        let declaration = format!("mod {name};");
        let parents = ["mod.rs", "lib.rs", "main.rs"].map(|file| folder.join(file));
        let parents = parents.into_iter().chain([folder.with_extension("rs")]);
        let parent = parents
            .filter(|parent| *parent != path)
            .find(|parent| read(&parent.to_string_lossy()).contains(&declaration));
        let Some(parent) = parent else {
            return found;
        };
        let text = read(&parent.to_string_lossy());
        let before = text.split(&declaration).next().unwrap_or_default();
        // The attributes are on the lines directly above the declaration.
        let (above, _) = before.rsplit_once('\n').unwrap_or_default();
        let attributes = above.lines().rev();
        let attributes = attributes.take_while(|line| line.starts_with("#["));
        found.extend(attributes.flat_map(conditions).map(str::to_owned));
        path = parent;
    }
    found
}

/// Reports a test target that needs a feature which no target of the Makefile enables.
fn target_problem(read: Read<'_>, path: &str) -> Option<String> {
    let (manifest, makefile) = (read("tests/Cargo.toml"), read("Makefile"));
    let path = path.strip_prefix("tests/")?;
    let targets = manifest.split("[[test]]").skip(1);
    let mut targets = targets.filter(|target| {
        let main = target
            .lines()
            .find_map(|line| line.strip_prefix("path = \""));
        let folder = main.and_then(|main| main.strip_suffix("main.rs\""));
        folder.is_some_and(|folder| path.starts_with(folder))
    });
    let features = targets.next()?.lines();
    let features = features.filter_map(|line| line.strip_prefix("required-features = [\""));
    let mut missing = features
        .filter_map(|names| names.strip_suffix("\"]"))
        .filter(|name| !makefile.contains(&format!("faas-wasm-tests/{name}")));
    missing
        .next()
        .map(|feature| format!("{path} needs the feature {feature}, which no target enables"))
}

/// Reports a benchmark that no target of the Makefile runs.
fn bench_problem(read: Read<'_>, path: &str) -> Option<String> {
    let Some((_, file)) = path.split_once("/benches/") else {
        return Some(format!("{path} is not a benchmark"));
    };
    let name = file.split(['/', '.']).next().unwrap_or_default();
    let makefile = read("Makefile");
    let listed = makefile.lines().find(|line| line.starts_with("BENCHES :="));
    let runs = listed.is_some_and(|line| line.split_whitespace().any(|word| word == name))
        || makefile.lines().any(|line| {
            line.split_once("--bench ")
                .is_some_and(|(_, rest)| rest.split([' ', ';']).next() == Some(name))
        });
    (!runs).then(|| format!("no target of the Makefile runs the benchmark {name}"))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[test]
fn evidence_for_promises_exists() {
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

/// Documents whose code spans and links must lead somewhere.
const DOCUMENTS: [&str; 3] = ["CONTRIBUTING.md", "SECURITY.md", "docs/tiers.md"];

/// The problems with a document's code spans that name a test, a target, or a path of the tree.
fn broken_references(root: &Path, document: &str) -> Vec<String> {
    let prose = document.split("```").step_by(2);
    let spans = prose.flat_map(|prose| prose.split('`').skip(1).step_by(2));
    let problems = spans.filter_map(|span| {
        let span = span.split_whitespace().collect::<Vec<_>>().join(" ");
        let is_path = span
            .split_once('/')
            .is_some_and(|(first, _)| !first.is_empty() && root.join(first).is_dir());
        match span.split_once("::") {
            Some((path, _)) if path.ends_with(".rs") => problem(root, &span, None),
            _ if span.starts_with("make ") => problem(root, &span, None),
            _ if is_path && !root.join(&span).exists() => Some(format!("there is no {span}")),
            _ => None,
        }
    });
    problems.collect()
}

#[test]
fn references_in_documents_exist() {
    for name in DOCUMENTS {
        let document = fs::read_to_string(root().join(name)).expect("it is there");
        let folder = root().join(name);
        let folder = folder.parent().expect("it is in a folder");
        let links = document.split("](").skip(1);
        let links = links.filter_map(|rest| rest.split([')', '#']).next());
        for link in links.filter(|link| !link.is_empty()) {
            assert!(folder.join(link).exists(), "{name}: there is no {link}");
        }
        assert_eq!(broken_references(&root(), &document), [""; 0], "{name}");
    }
}

#[test]
fn broken_references_are_found() {
    for (text, count) in [
        (
            "`tests/tests/promises.rs` and `tests/tests`, `a/b`, `make test`",
            0,
        ),
        ("`tests/no-such-file.rs`", 1),
        (
            "`tests/tests/promises.rs::no_such_test`, `make no-such-target`",
            2,
        ),
        (
            "```\nmake no-such-target\n``` and `tests/no-such-file.rs`",
            1,
        ),
    ] {
        let found = broken_references(&root(), text);
        assert_eq!(found.len(), count, "{text}: {found:?}");
    }
}

#[test]
fn missing_evidence_is_found() {
    let own = "`tests/tests/promises.rs::missing_evidence_is_found`";
    for good in [own, "`make test`", &format!("{own}, `make test`"), NOT_YET] {
        assert_eq!(problems(&root(), good), [""; 0], "{good}");
    }
    for bad in [
        "`tests/tests/promises.rs::no_such_test`",
        // A function that is not a test.
        "`tests/tests/promises.rs::root`",
        "`tests/tests/no_such_file.rs::missing_evidence_is_found`",
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

/// A small tree with one file for each kind of valid and invalid evidence.
const TREE: &[(&str, &str)] = &[
    (
        "Makefile",
        "BENCHES := listed\n\ntest:\n\tcargo nextest run --features faas-wasm-tests/isolation\n\tcargo bench --bench named\n",
    ),
    (
        "tests/Cargo.toml",
        "[[test]]\npath = \"tests/isolation/main.rs\"\nrequired-features = [\"isolation\"]\n\n\
         [[test]]\npath = \"other/main.rs\"\nrequired-features = [\"other\"]\n",
    ),
    ("tests/tests/isolation/main.rs", "#[test]\nfn runs() {}\n"),
    ("tests/other/main.rs", "#[test]\nfn runs() {}\n"),
    ("tests/benches/listed/report.rs", "a rule"),
    ("tests/benches/named.rs", "a rule"),
    ("tests/benches/forgotten.rs", "a rule"),
    ("tests/src/lib.rs", "a rule"),
    (
        "a/src/lib.rs",
        "#[cfg(test)]\nmod tests;\nmod plain;\n#[cfg(target_os = \"none\")]\nmod gone;\n",
    ),
    (
        "a/src/plain.rs",
        "#[cfg(test)]\nmod tests {\n    #[test]\n    fn runs() {}\n}\n",
    ),
    (
        "a/src/tests/mod.rs",
        "mod deep;\n\n#[test]\nfn runs() {}\n\n#[test]\n#[ignore = \"slow\"]\nfn ignored() {}\n\n\
         #[test]\n#[cfg_attr(target_os = \"linux\", ignore)]\nfn ignored_here() {}\n\n\
         #[test]\n#[cfg(feature = \"slow\")]\nfn conditional() {}\n\n\
         #[cfg(feature = \"slow\")]\nmod slow {\n    use super::*;\n\n    #[test]\n    fn inside() {}\n}\n\n\
         #[test]\nfn after() {}\n",
    ),
    ("a/src/tests/deep.rs", "#[test]\nfn runs() {}\n"),
    ("a/src/gone/mod.rs", "mod deep;\n"),
    ("a/src/gone/deep.rs", "#[test]\nfn runs() {}\n"),
    (
        "a/tests/whole.rs",
        "#![cfg(target_os = \"none\")]\n\n#[test]\nfn runs() {}\n",
    ),
];

#[test]
fn evidence_that_does_not_run_is_found() {
    let work = Work::new();
    for (path, text) in TREE {
        let path = work.join(path);
        fs::create_dir_all(path.parent().expect("it is below a folder")).expect("a folder");
        fs::write(path, text).expect("a file");
    }
    for good in [
        "`a/src/plain.rs::runs`",
        "`a/src/tests/mod.rs::runs`",
        "`a/src/tests/mod.rs::after`",
        "`a/src/tests/deep.rs::runs`",
        "`tests/tests/isolation/main.rs::runs`",
        "`tests/benches/listed/report.rs`: \"a rule\"",
        "`tests/benches/named.rs`: \"a rule\"",
    ] {
        assert_eq!(problems(work.path(), good), [""; 0], "{good}");
    }
    for (bad, problem) in [
        ("`a/src/tests/mod.rs::ignored`", "ignored"),
        ("`a/src/tests/mod.rs::ignored_here`", "ignored"),
        ("`a/src/tests/mod.rs::conditional`", "feature = \"slow\""),
        ("`a/src/tests/mod.rs::inside`", "feature = \"slow\""),
        ("`a/src/gone/deep.rs::runs`", "target_os"),
        ("`a/tests/whole.rs::runs`", "target_os"),
        ("`tests/other/main.rs::runs`", "the feature other"),
        ("`tests/benches/forgotten.rs`: \"a rule\"", "forgotten"),
        ("`tests/src/lib.rs`: \"a rule\"", "not a benchmark"),
    ] {
        let found = problems(work.path(), bad);
        assert!(
            found.len() == 1 && found[0].contains(problem),
            "{bad}: {found:?}"
        );
    }
}
