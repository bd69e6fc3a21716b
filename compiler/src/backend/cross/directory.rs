//! Objects that a backend writes to files, one a function or trampoline.
//!
//! wasmer's LLVM backend writes them where a user wants to look at its work, together with its
//! intermediate code and assembly, which take several times the place: those are removed as soon as
//! they appear, unless somebody wants them (`--emit`).

use std::collections::{HashMap, HashSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use object::{Object as _, ObjectSymbol as _, SymbolKind};
use wasmer_types::{CompileError, FunctionType, ModuleInfo};

use crate::emit::Emit;
use crate::temporary::TemporaryDirectory;

/// Time between two sweeps for files that nobody needs.
const SWEEP: Duration = Duration::from_millis(100);

/// A directory that a backend writes its objects to.
#[derive(Debug)]
pub(in crate::backend) struct ObjectDirectory {
    directory: TemporaryDirectory,
    sweeper: Option<(Sender<()>, JoinHandle<()>)>,
}

impl ObjectDirectory {
    /// Creates it, for files of which only the objects and one other kind are wanted.
    pub(in crate::backend) fn new(wanted: Option<Emit>) -> io::Result<Self> {
        let directory = TemporaryDirectory::new()?;
        let (end, ended) = channel::<()>();
        let path = directory.path().to_owned();
        let thread = std::thread::Builder::new().spawn(move || {
            while ended.recv_timeout(SWEEP) == Err(RecvTimeoutError::Timeout) {
                // A file that is being written can be removed: its writer does not notice.
                for path in files(&path).unwrap_or_default() {
                    if !is_object(&path) && !wanted.is_some_and(|wanted| is_kind(&path, wanted)) {
                        let _ = std::fs::remove_file(path);
                    }
                }
            }
        })?;
        Ok(Self {
            directory,
            sweeper: Some((end, thread)),
        })
    }

    pub(in crate::backend) fn path(&self) -> &Path {
        self.directory.path()
    }

    /// Copies the files of a kind to a directory.
    pub(in crate::backend) fn save(&self, kind: Emit, to: &Path) -> io::Result<()> {
        std::fs::create_dir_all(to)?;
        for path in files(self.path())? {
            if let Some(name) = path.file_name().filter(|_| is_kind(&path, kind)) {
                std::fs::copy(&path, to.join(name))?;
            }
        }
        Ok(())
    }

    /// Reads the objects, and the symbols of all functions and then of the call trampolines of all
    /// types. The objects are in the order in which the symbols need them.
    pub(super) fn read(
        &self,
        functions: usize,
        module: &ModuleInfo,
    ) -> Result<(Vec<Vec<u8>>, Vec<String>), CompileError> {
        let failed = |error: io::Error| {
            CompileError::Resource(format!("objects in {}: {error}", self.path().display()))
        };
        let mut found = HashMap::new();
        for path in files(self.path()).map_err(failed)? {
            if is_object(&path) {
                let bytes = std::fs::read(&path).map_err(failed)?;
                found.insert(defined_symbol(&bytes)?, bytes);
            }
        }
        let types: Vec<_> = module.signatures.values().collect();
        let symbols: Vec<String> = (0..functions)
            .map(|index| format!("f{index}"))
            .chain((0..types.len()).map(|index| trampoline(&found, &types, index)))
            .collect();
        let mut objects = Vec::with_capacity(symbols.len());
        let mut placed = HashSet::new();
        for symbol in &symbols {
            if placed.insert(symbol) {
                let object = found.remove(symbol);
                objects.push(object.ok_or_else(|| {
                    CompileError::Codegen(format!("there is no object with {symbol}"))
                })?);
            }
        }
        Ok((objects, symbols))
    }
}

/// The symbol of a type's call trampoline. The files are named by types, so that equal types have
/// one trampoline, with the symbol of any of them.
fn trampoline(found: &HashMap<String, Vec<u8>>, types: &[&FunctionType], index: usize) -> String {
    let symbol = |index: usize| format!("t{index}");
    (0..types.len())
        .filter(|other| types[*other] == types[index])
        .map(symbol)
        .find(|symbol| found.contains_key(symbol))
        .unwrap_or_else(|| symbol(index))
}

/// The function that an object is for.
fn defined_symbol(object: &[u8]) -> Result<String, CompileError> {
    let bad = |error: String| CompileError::Codegen(format!("an object cannot be read: {error}"));
    let file = object::File::parse(object).map_err(|error| bad(error.to_string()))?;
    let mut symbols = file.symbols().filter(|symbol| {
        symbol.is_definition() && symbol.is_global() && symbol.kind() == SymbolKind::Text
    });
    match (symbols.next(), symbols.next()) {
        (Some(symbol), None) => {
            let name = symbol.name().map_err(|error| bad(error.to_string()))?;
            Ok(name.to_owned())
        }
        _ => Err(bad("it should define one function".into())),
    }
}

fn is_object(path: &Path) -> bool {
    is_kind(path, Emit::Obj)
}

fn is_kind(path: &Path, kind: Emit) -> bool {
    path.to_string_lossy().ends_with(kind.suffix())
}

/// All files in a directory and those below it, in no order.
fn files(directory: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let mut directories = vec![directory.to_owned()];
    while let Some(directory) = directories.pop() {
        for entry in std::fs::read_dir(directory)? {
            let entry = entry?;
            let kind = entry.file_type()?;
            let list = if kind.is_dir() {
                &mut directories
            } else {
                &mut found
            };
            list.push(entry.path());
        }
    }
    Ok(found)
}

impl Drop for ObjectDirectory {
    fn drop(&mut self) {
        if let Some((end, thread)) = self.sweeper.take() {
            drop(end);
            // It cannot panic; and if it did, there would be nothing to do about it.
            let _ = thread.join();
        }
    }
}
