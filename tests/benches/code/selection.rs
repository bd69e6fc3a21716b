//! The selection of measurements: everything, unless the environment asks for less.

use std::path::{Path, PathBuf};

use faas_wasm_tests::{Backend, tool_program};

/// Environment variable with the kernels to run, separated by commas.
const KERNELS: &str = "FAAS_WASM_CODE_KERNELS";
/// Environment variable with the backends to measure, separated by commas.
const BACKENDS: &str = "FAAS_WASM_CODE_BACKENDS";
/// Environment variable with two builds of `faas-wasm` to compare, separated by a comma.
const TOOLS: &str = "FAAS_WASM_CODE_TOOLS";
/// Environment variable with the number of rounds.
const ROUNDS: &str = "FAAS_WASM_CODE_ROUNDS";
/// Environment variable with the CPU level of all code, as the tool names it.
const CPU: &str = "FAAS_WASM_CODE_CPU";

const DEFAULT_ROUNDS: usize = 5;
/// The level of most servers in use. Other architectures have no levels.
const DEFAULT_CPU: &str = if cfg!(target_arch = "x86_64") {
    "x86-64-v3"
} else {
    "native"
};

/// The selected measurements.
#[derive(Debug)]
pub(crate) struct Selection {
    /// Names of the kernels, in order.
    pub(crate) kernels: Vec<String>,
    /// Backends of the tools.
    pub(crate) backends: Vec<Backend>,
    /// The build of `faas-wasm` that is measured, or two that are compared.
    pub(crate) tools: Vec<PathBuf>,
    /// Number of runs of each contestant.
    pub(crate) rounds: usize,
    /// CPU level.
    pub(crate) cpu: String,
}

impl Selection {
    /// Reads the variables.
    ///
    /// # Errors
    ///
    /// If a variable selects something that does not exist.
    pub(crate) fn from_environment() -> Result<Self, String> {
        let tools = match list(TOOLS) {
            None => vec![tool_program()],
            Some(tools) if tools.len() == 2 => tools.into_iter().map(PathBuf::from).collect(),
            Some(_) => return Err("TOOLS takes two paths: TOOLS=BEFORE,AFTER".to_owned()),
        };
        if let Some(missing) = tools.iter().find(|tool| !tool.is_file()) {
            return Err(format!("there is no program {}", missing.display()));
        }
        let rounds = match variable(ROUNDS) {
            None => DEFAULT_ROUNDS,
            Some(text) => text
                .parse()
                .ok()
                .filter(|rounds| *rounds > 0)
                .ok_or_else(|| format!("ROUNDS takes a number from 1, not `{text}`"))?,
        };
        Ok(Self {
            kernels: chosen("kernel", &all_kernels(), list(KERNELS))?,
            backends: backends(&tools[0])?,
            tools,
            rounds,
            cpu: variable(CPU).unwrap_or_else(|| DEFAULT_CPU.to_owned()),
        })
    }

    /// Whether two builds are compared.
    pub(crate) fn compares(&self) -> bool {
        self.tools.len() > 1
    }

    /// Whether the selection covers everything that the promises need.
    pub(crate) fn is_whole(&self) -> bool {
        self.cpu == DEFAULT_CPU && self.kernels.len() == all_kernels().len()
    }
}

/// The directory of the kernels' sources.
pub(crate) fn sources() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/code/kernels")
}

fn all_kernels() -> Vec<String> {
    let entries = std::fs::read_dir(sources()).expect("the sources are there");
    let paths = entries.map(|entry| entry.expect("it can be read").path());
    let mut names: Vec<_> = paths
        .filter(|path| path.extension().is_some_and(|extension| extension == "c"))
        .filter_map(|path| Some(path.file_stem()?.to_string_lossy().into_owned()))
        .collect();
    names.sort();
    names
}

fn backends(tool: &Path) -> Result<Vec<Backend>, String> {
    // The default backend first.
    let backends: Vec<_> = Backend::of(tool).into_iter().rev().collect();
    let names: Vec<_> = backends.iter().map(|one| one.name().to_owned()).collect();
    let wanted = chosen("backend", &names, list(BACKENDS))?;
    Ok(backends
        .into_iter()
        .filter(|one| wanted.iter().any(|name| name == one.name()))
        .collect())
}

fn chosen(kind: &str, all: &[String], wanted: Option<Vec<String>>) -> Result<Vec<String>, String> {
    let Some(wanted) = wanted else {
        return Ok(all.to_vec());
    };
    match wanted.iter().find(|name| !all.contains(name)) {
        Some(name) => Err(format!(
            "there is no {kind} `{name}`; there are {}",
            all.join(", ")
        )),
        None => Ok(wanted),
    }
}

/// The value of a variable, unless it is unset or empty: the Makefile passes empty values for options that are not
/// given.
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok().filter(|value| !value.is_empty())
}

fn list(name: &str) -> Option<Vec<String>> {
    let value = variable(name)?;
    Some(value.split(',').map(str::to_owned).collect())
}
