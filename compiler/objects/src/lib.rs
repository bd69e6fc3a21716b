//! Stands in for the linker `libwild` inside of `wasmer-compiler`, and hands out what it would link.
//!
//! Both backends make a relocatable object of each function and trampoline, and give all of them to
//! a linker in memory. That linker works for the host's architecture alone, and behind it nobody can
//! tell any more which bytes of the code refer to what, so that a compiled function could not be
//! kept for the next build. Cargo puts this crate into its place (`[patch.crates-io]` in the
//! workspace's manifest): the names are those that `wasmer-compiler` calls, the output is a list of
//! all inputs, and [`objects`] takes it apart again. The tool links by itself.
//!
//! ```text
//! output:  for each input, in order:  length (8 bytes, little-endian), bytes
//! ```

#![forbid(unsafe_code)]
#![cfg_attr(test, allow(clippy::unwrap_used, reason = "tests"))]

pub mod error;

use std::fmt::Debug;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::error::Result;

/// Options that are followed by a value of their own.
const OPTIONS_WITH_VALUE: [&str; 3] = ["-m", "-o", "-z"];

/// The linker's command line, as far as it matters: what goes in and where it goes.
#[derive(Debug, Default)]
pub struct Args {
    inputs: Vec<PathBuf>,
    output: Option<PathBuf>,
}

impl Args {
    /// An empty command line; [`Args::parse`] reads it.
    ///
    /// # Errors
    ///
    /// None.
    pub fn new<F, S, I>(_: F) -> Result<Self>
    where
        F: Fn() -> I,
        S: AsRef<str>,
        I: Iterator<Item = S>,
    {
        Ok(Self::default())
    }

    /// Reads the arguments, of which the first is the program's name.
    ///
    /// # Errors
    ///
    /// There is no output.
    pub fn parse<F, S, I>(&mut self, arguments: F) -> Result
    where
        F: Fn() -> I,
        S: AsRef<str>,
        I: Iterator<Item = S>,
    {
        let mut arguments = arguments().skip(1);
        while let Some(argument) = arguments.next() {
            let argument = argument.as_ref();
            if OPTIONS_WITH_VALUE.contains(&argument) {
                let value = arguments.next();
                if argument == "-o" {
                    self.output = value.map(|value| value.as_ref().into());
                }
            } else if !argument.starts_with('-') {
                self.inputs.push(argument.into());
            }
        }
        match self.output {
            Some(_) => Ok(()),
            None => Err(error!("the command line names no output")),
        }
    }
}

/// Where inputs come from and the output goes: files in memory, for `wasmer-compiler`.
pub trait FileSystem: Send + Sync + 'static {
    /// An open input.
    type Input: InputFileData;
    /// An output that is being written.
    type Output: OutputFileData;

    /// Opens an input.
    ///
    /// # Errors
    ///
    /// It is not there.
    fn open_input(
        &self,
        path: &Path,
        prepopulate: bool,
    ) -> Result<(Self::Input, Option<Arc<File>>)>;

    /// Tells what is at `path`.
    ///
    /// # Errors
    ///
    /// Nothing is there.
    fn file_type(&self, path: &Path) -> Result<FileType>;

    /// Resolves links.
    ///
    /// # Errors
    ///
    /// It is not there.
    fn canonicalize(&self, path: &Path) -> Result<PathBuf>;

    /// Removes a file.
    ///
    /// # Errors
    ///
    /// It is not there.
    fn remove_file(&self, path: &Path) -> Result<()>;

    /// Gives a file another name.
    ///
    /// # Errors
    ///
    /// It is not there.
    fn rename_file(&self, path: &Path, new_path: &Path) -> Result<()>;

    /// Begins an output of a known size.
    ///
    /// # Errors
    ///
    /// It cannot be made.
    fn create_output(&self, path: Arc<Path>, options: OutputOptions) -> Result<Self::Output>;

    /// Writes a whole file.
    ///
    /// # Errors
    ///
    /// It cannot be written.
    fn write_auxiliary(&self, path: &Path, bytes: &[u8]) -> Result;
}

/// What is at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileType {
    /// A regular file.
    File,
}

/// An open input.
pub trait InputFileData: Debug + Send + Sync {
    /// All of it.
    fn bytes(&self) -> &[u8];
}

/// An output that is being written.
pub trait OutputFileData: Send {
    /// All of it.
    fn bytes(&self) -> &[u8];
    /// All of it, to be filled.
    fn bytes_mut(&mut self) -> &mut [u8];
    /// Ends the output.
    ///
    /// # Errors
    ///
    /// It cannot be kept.
    fn finish(self) -> Result;
}

/// How an output is to be made.
#[derive(Debug, Clone, Copy)]
pub struct OutputOptions {
    /// Its size in bytes.
    pub size: u64,
}

/// Writes the list of inputs where a linker would write its output.
#[derive(Debug)]
pub struct Linker<F: FileSystem> {
    files: F,
}

impl<F: FileSystem> Linker<F> {
    /// A linker of files in `files`.
    pub fn with_file_system(files: F) -> Self {
        Self { files }
    }

    /// Collects the inputs, in the order of the command line.
    ///
    /// # Errors
    ///
    /// A file is missing, or there is no output.
    pub fn run(&self, arguments: &Args) -> Result {
        let open = |path: &PathBuf| Ok(self.files.open_input(path, false)?.0);
        let inputs: Vec<F::Input> = arguments.inputs.iter().map(open).collect::<Result<_>>()?;
        let size: usize = inputs.iter().map(|input| 8 + input.bytes().len()).sum();
        let path = arguments.output.as_deref();
        let path = path.ok_or_else(|| error!("the command line names no output"))?;
        let options = OutputOptions { size: size as u64 };
        let mut output = self.files.create_output(path.into(), options)?;
        let mut rest = output.bytes_mut();
        for input in &inputs {
            let length = (input.bytes().len() as u64).to_le_bytes();
            for part in [&length[..], input.bytes()] {
                let (now, later) = rest
                    .split_at_mut_checked(part.len())
                    .ok_or_else(|| error!("the output is smaller than asked for"))?;
                now.copy_from_slice(part);
                rest = later;
            }
        }
        output.finish()
    }
}

/// The inputs in an output of [`Linker::run`], or `None` if it is none.
pub fn objects(mut output: &[u8]) -> Option<Vec<&[u8]>> {
    let mut objects = Vec::new();
    while !output.is_empty() {
        let (length, rest) = output.split_first_chunk::<8>()?;
        let length = usize::try_from(u64::from_le_bytes(*length)).ok()?;
        let (object, rest) = rest.split_at_checked(length)?;
        objects.push(object);
        output = rest;
    }
    Some(objects)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_command_line_of_a_linker() {
        let line = "ld -Bsymbolic -shared -z now -z relro -o out.so a.o b.o";
        let mut arguments = Args::new(|| line.split(' ')).unwrap();
        arguments.parse(|| line.split(' ')).unwrap();
        assert_eq!(arguments.output, Some("out.so".into()));
        assert_eq!(arguments.inputs, [Path::new("a.o"), Path::new("b.o")]);
        assert!(Args::default().parse(|| "ld a.o".split(' ')).is_err());
    }

    #[test]
    fn damaged_lists_are_refused() {
        let list = [&2_u64.to_le_bytes()[..], b"ab", &0_u64.to_le_bytes()[..]].concat();
        assert_eq!(objects(&list), Some(vec![&b"ab"[..], b""]));
        for length in 1..list.len() {
            // The first object alone is a list too.
            assert_eq!(objects(&list[..length]).is_some(), length == 10, "{length}");
        }
    }
}
