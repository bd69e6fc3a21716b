//! The link: objects in memory to a shared object in memory.
//!
//! The options are those of the link step that this replaces, with the target's emulation, and
//! without what would differ between two builds.

use std::collections::HashMap;
use std::fs::File;
use std::num::NonZero;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use libwild::error::Result;
use libwild::{
    Args, FileSystem, FileType, InputFileData, Linker, OutputFileData, OutputOptions, error,
};
use wasmer_types::CompileError;

/// Name of the output in [`Files`].
const OUTPUT: &str = "artifact.so";

/// Links objects in their order.
pub(super) fn link(
    emulation: &str,
    objects: Vec<Vec<u8>>,
    jobs: NonZero<usize>,
    debug: bool,
) -> std::result::Result<Vec<u8>, CompileError> {
    let threads = format!("--threads={jobs}");
    let options = [
        // Calls between functions need no indirection.
        "ld",
        "-m",
        emulation,
        "-Bsymbolic",
        "-shared",
        "-z",
        "now",
        "-z",
        "relro",
        "--build-id=none",
        &threads,
        "-o",
        OUTPUT,
    ];
    let files = Files::default();
    let mut arguments: Vec<String> = options.map(String::from).into();
    if !debug {
        arguments.push("--strip-debug".into());
    }
    for (number, object) in objects.into_iter().enumerate() {
        let name = format!("{number}.o");
        files.lock().insert(name.clone().into(), Arc::new(object));
        arguments.push(name);
    }
    run(&files, &arguments)
        .map_err(|error| CompileError::Codegen(format!("the linker failed: {error:?}")))
}

fn run(files: &Files, arguments: &[String]) -> Result<Vec<u8>> {
    let strings = || arguments.iter().map(String::as_str);
    let mut arguments = Args::new(strings)?;
    arguments.parse(strings)?;
    Linker::with_file_system(files.clone()).run(&arguments)?;
    let output = files.lock().remove(Path::new(OUTPUT));
    output
        .map(|output| Arc::unwrap_or_clone(output))
        .ok_or_else(|| error!("there is no output"))
}

/// Files of the link, by name.
#[derive(Debug, Clone, Default)]
struct Files(Arc<Mutex<HashMap<PathBuf, Arc<Vec<u8>>>>>);

impl Files {
    fn lock(&self) -> MutexGuard<'_, HashMap<PathBuf, Arc<Vec<u8>>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, path: &Path) -> Result<Arc<Vec<u8>>> {
        let found = self.lock().get(path).map(Arc::clone);
        found.ok_or_else(|| error!("there is no {}", path.display()))
    }
}

impl FileSystem for Files {
    type Input = Input;
    type Output = Output;

    fn open_input(&self, path: &Path, _prepopulate: bool) -> Result<(Input, Option<Arc<File>>)> {
        Ok((Input(self.get(path)?), None))
    }

    fn file_type(&self, path: &Path) -> Result<FileType> {
        self.get(path).map(|_| FileType::File)
    }

    fn canonicalize(&self, path: &Path) -> Result<PathBuf> {
        Ok(path.into())
    }

    fn remove_file(&self, path: &Path) -> Result<()> {
        self.lock().remove(path);
        Ok(())
    }

    fn rename_file(&self, path: &Path, new_path: &Path) -> Result<()> {
        let file = self.get(path)?;
        let mut files = self.lock();
        files.remove(path);
        files.insert(new_path.into(), file);
        Ok(())
    }

    fn create_output(&self, path: Arc<Path>, options: OutputOptions) -> Result<Output> {
        let size = usize::try_from(options.size).map_err(|_| error!("the output is too large"))?;
        Ok(Output {
            path,
            bytes: vec![0; size],
            files: self.clone(),
        })
    }

    fn write_auxiliary(&self, path: &Path, bytes: &[u8]) -> Result {
        self.lock().insert(path.into(), Arc::new(bytes.into()));
        Ok(())
    }
}

#[derive(Debug)]
struct Input(Arc<Vec<u8>>);

impl InputFileData for Input {
    fn bytes(&self) -> &[u8] {
        &self.0
    }
}

struct Output {
    path: Arc<Path>,
    bytes: Vec<u8>,
    files: Files,
}

impl OutputFileData for Output {
    fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn finish(self) -> Result {
        let Self { path, bytes, files } = self;
        files.write_auxiliary(&path, &bytes)
    }
}
