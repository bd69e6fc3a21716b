//! `faas-wasm check`: what a module needs, who provides it, and whether a runner would take it.

use std::fmt;
use std::path::Path;

use serde::Serialize;

use crate::build::Options;
use crate::cuda;
use crate::elements;
use crate::entry;
use crate::error::Error;
use crate::features;
use crate::imports::{self, Provider};
use crate::input;
use crate::lift;
use crate::message;
use crate::module::Module;
use crate::summary::bytes;
use crate::text;
use crate::wrap;

/// Bytes of a page of WebAssembly.
const PAGE: u64 = 65_536;
/// The runner's limits if it is not told others; see its CONFIGURATION.md.
const MEMORY_LIMIT: u64 = 4 << 30;
const TABLE_LIMIT: u64 = 1_000_000;

/// What was found. [`fmt::Display`] is for people; the fields are the keys of the JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Report {
    module: String,
    size: u64,
    functions: usize,
    imports: Vec<ImportReport>,
    features: Vec<&'static str>,
    memories: Vec<MemoryReport>,
    tables: Vec<u64>,
    entry: Option<String>,
    needs_cuda: bool,
    /// Why `build` or a runner would refuse it.
    refusals: Vec<String>,
}

#[derive(Debug, Serialize)]
struct ImportReport {
    module: String,
    name: String,
    #[serde(rename = "type")]
    ty: String,
    provider: &'static str,
    remark: Option<String>,
}

#[derive(Debug, Serialize)]
struct MemoryReport {
    /// In bytes.
    minimum: u64,
    maximum: Option<u64>,
    shared: bool,
}

impl Report {
    /// Whether it can be built and served.
    pub(crate) fn is_good(&self) -> bool {
        self.refusals.is_empty()
    }
}

/// Looks at a module as `build` would, and collects everything that is wrong with it.
///
/// # Errors
///
/// It cannot be read, or is no module.
pub(crate) fn check(path: &Path, options: &Options, allow_unknown: bool) -> Result<Report, Error> {
    let wasm = input::read(path)?;
    let mut refusals = Vec::new();
    // What the validator refuses cannot be looked at any further.
    crate::build::validate(path, &wasm, options)?;
    let mut module = crate::build::parse(path, &wasm)?;
    let invalid = |error: wasmparser::Error| Error::Invalid {
        path: path.into(),
        source: error.into(),
    };
    let mut refuse = |error: Error| refusals.push(error.in_one_line());
    if let Err(error) = crate::build::check_tail_calls(path, &module, options) {
        refuse(error);
    }
    let command = entry::command(path, &module, options.entry.as_deref());
    let entry = options.entry.as_deref().unwrap_or(entry::START);
    let entry = command.is_ok().then(|| entry.to_owned());
    let command = command.unwrap_or_else(|error| {
        refuse(error);
        None
    });
    if let Some(command) = &command {
        module = crate::build::parse(path, command)?;
    }
    let imports: Vec<_> = module
        .imports
        .iter()
        .map(|import| {
            let provider = imports::provider(&module, import);
            ImportReport {
                module: import.module.into(),
                name: import.name.into(),
                ty: imports::describe(&module, import),
                provider: provider.name(),
                remark: match provider {
                    Provider::Nobody(remark) => remark,
                    Provider::Wasi | Provider::Cuda => None,
                },
            }
        })
        .collect();
    let unknown = imports::check(path, &module);
    let needs_cuda = imports
        .iter()
        .any(|import| import.provider == Provider::Cuda.name());
    match unknown {
        Err(Error::UnknownImports {
            functions_only: true,
            ..
        }) if allow_unknown => {}
        Err(error) => refuse(error),
        Ok(()) => {}
    }
    if let Err(error) = cuda::derive(path, &module, options.cuda_abi) {
        refuse(error);
    }
    if let Err(error) = elements::check(path, &module) {
        refuse(error);
    }
    if let Err(error) = lift::lift(path, &module, &[]) {
        refuse(error);
    }
    if let Err(source) = wrap::wrap(&module) {
        refuse(Error::Wrap {
            path: path.into(),
            source,
        });
    }
    refusals.extend(beyond_limits(&module));
    Ok(Report {
        module: message::path(path),
        size: wasm.len() as u64,
        functions: module.names.offsets.len(),
        features: features::used(&module).map_err(invalid)?,
        memories: module
            .memories
            .iter()
            .map(|memory| MemoryReport {
                minimum: memory.initial * PAGE,
                maximum: memory.maximum.map(|pages| pages * PAGE),
                shared: memory.shared,
            })
            .collect(),
        tables: module.tables.clone(),
        entry,
        imports,
        needs_cuda,
        refusals,
    })
}

/// What a runner refuses if it is not told other limits: they hold for all memories or tables of an instance together.
pub(crate) fn beyond_limits(module: &Module<'_>) -> Vec<String> {
    let mut beyond = Vec::new();
    let size: u64 = module
        .memories
        .iter()
        .map(|memory| memory.initial * PAGE)
        .sum();
    if size > MEMORY_LIMIT {
        beyond.push(format!(
            "{} with {}, the runner's wasm_memory_limit is {}",
            beginning("memory 0", "memories", module.memories.len()),
            bytes(size),
            bytes(MEMORY_LIMIT)
        ));
    }
    let elements: u64 = module.tables.iter().sum();
    if elements > TABLE_LIMIT {
        beyond.push(format!(
            "{} with {elements} elements, the runner's wasm_table_limit is {TABLE_LIMIT}",
            beginning("table 0", "tables", module.tables.len()),
        ));
    }
    beyond
}

fn beginning(only: &str, all: &str, count: usize) -> String {
    match count {
        1 => format!("{only} begins"),
        _ => format!("all {count} {all} together begin"),
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut line =
            |name: &str, value: &dyn fmt::Display| writeln!(f, "{name:<10} {}", text::line(value));
        line("module", &self.module)?;
        line("size", &bytes(self.size))?;
        line("functions", &self.functions)?;
        line("entry", &self.entry.as_deref().unwrap_or("none"))?;
        let features = self.features.join(", ");
        line(
            "features",
            if features.is_empty() {
                &"none beyond the first standard"
            } else {
                &features
            },
        )?;
        for memory in &self.memories {
            let maximum = match memory.maximum {
                Some(maximum) => format!("at most {}", bytes(maximum)),
                None => "no maximum".into(),
            };
            let shared = if memory.shared { ", shared" } else { "" };
            line(
                "memory",
                &format_args!("{}, {maximum}{shared}", bytes(memory.minimum)),
            )?;
        }
        for elements in &self.tables {
            line("table", &format_args!("{elements} elements"))?;
        }
        let count = |provider: &Provider| {
            let name = provider.name();
            self.imports
                .iter()
                .filter(|import| import.provider == name)
                .count()
        };
        line(
            "imports",
            &format_args!(
                "{} from wasi, {} from cuda, {} from nobody",
                count(&Provider::Wasi),
                count(&Provider::Cuda),
                count(&Provider::Nobody(None))
            ),
        )?;
        for import in &self.imports {
            let remark = import.remark.as_ref().map(|remark| format!(" ({remark})"));
            let remark = remark.unwrap_or_default();
            let import_of = format!("{}.{}: {}{remark}", import.module, import.name, import.ty);
            writeln!(f, "  {:<6}   {}", import.provider, text::line(import_of))?;
        }
        if self.is_good() {
            return writeln!(f, "result     can be built and served");
        }
        writeln!(f, "result     refused")?;
        self.refusals
            .iter()
            .try_for_each(|refusal| writeln!(f, "  {}", text::line(refusal)))
    }
}
