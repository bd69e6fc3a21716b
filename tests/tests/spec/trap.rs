//! Kinds of trap, with the names that the suite and the runner use.

/// A way to end without returning.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Trap {
    /// A trap, with the runner's names. Messages in older scripts can mean several traps.
    Named(&'static [&'static str]),
    /// A trap that is missing in the table below. It fails the test, so that it gets added.
    Unknown(String),
}

const MEMORY: &str = "out of bounds memory access";
const TABLE: &str = "out of bounds table access";
const NULL: &str = "uninitialized element called";
const SIGNATURE: &str = "indirect call type mismatch";

/// The start of the suite's message, and the runner's names.
const NAMES: [(&str, &[&str]); 18] = [
    (MEMORY, &[MEMORY]),
    (TABLE, &[TABLE]),
    ("out of bounds", &[MEMORY, TABLE]),
    ("undefined element", &[TABLE]),
    ("undefined", &[TABLE]),
    ("uninitialized", &[NULL]),
    ("null function reference", &[NULL]),
    (SIGNATURE, &[SIGNATURE]),
    ("indirect call", &[SIGNATURE]),
    ("integer overflow", &["integer overflow"]),
    ("integer divide by zero", &["integer divide by zero"]),
    (
        "invalid conversion to integer",
        &["invalid conversion to integer"],
    ),
    ("unreachable", &["unreachable instruction executed"]),
    ("call stack exhausted", &["call stack exhausted"]),
    ("unaligned atomic", &["unaligned atomic access"]),
    (
        "expected shared memory",
        &["atomic wait on memory that is not shared"],
    ),
    ("null exception reference", &["null exception reference"]),
    ("null reference", &["null exception reference"]),
];

impl Trap {
    /// An uncaught exception.
    pub(crate) const EXCEPTION: Self = Self::Named(&["uncaught exception"]);

    /// The trap for a message of the suite.
    pub(crate) fn of_suite(message: &str) -> Self {
        let known = NAMES.iter().find(|(start, _)| message.starts_with(start));
        known.map_or_else(
            || Self::Unknown(message.to_owned()),
            |(_, names)| Self::Named(names),
        )
    }

    /// Whether the runner's report on standard error names this trap.
    pub(crate) fn is_reported(&self, report: &str) -> bool {
        let mut lines = report.lines();
        let reported = lines.find_map(|line| line.strip_prefix("wasm trap: "));
        self.is_named(reported.unwrap_or_default())
    }

    /// Whether the runner's name means this trap.
    pub(crate) fn is_named(&self, name: &str) -> bool {
        matches!(self, Self::Named(names) if names.contains(&name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_kinds_of_trap_do_not_match() {
        let trap = Trap::of_suite("uninitialized element 2");
        assert!(trap.is_reported("wasm trap: uninitialized element called\n   0: f+0x3\n"));
        assert!(!trap.is_reported("wasm trap: indirect call type mismatch\n"));
        assert!(!trap.is_reported(""));
        assert!(Trap::EXCEPTION.is_reported("wasm trap: uncaught exception\n"));
        let either = Trap::of_suite("out of bounds");
        assert!(either.is_named(MEMORY) && either.is_named(TABLE) && !either.is_named(NULL));
        assert!(!Trap::of_suite("something new").is_reported("wasm trap: something new\n"));
    }
}
