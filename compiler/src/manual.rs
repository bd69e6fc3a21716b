//! Manual pages and shell completions, from the definition of the command line.

use std::path::{Path, PathBuf};

use clap::CommandFactory as _;
use clap_complete::Shell;
use clap_mangen::Man;

use crate::args::Arguments;
use crate::error::Error;

/// Name of the program, in the pages' names too.
const NAME: &str = "faas-wasm";

/// Writes the pages of all commands to a directory, or the first one to standard output.
///
/// # Errors
///
/// They cannot be written.
pub(crate) fn write(directory: Option<PathBuf>) -> Result<(), Error> {
    let Some(directory) = directory else {
        return crate::print(&page(Arguments::command())?);
    };
    let failed = |path: &Path, source| Error::Write {
        path: path.into(),
        source,
    };
    std::fs::create_dir_all(&directory).map_err(|source| failed(&directory, source))?;
    let mut command = Arguments::command().disable_help_subcommand(true);
    command.build();
    let mut pages = vec![(format!("{NAME}.1"), page(command.clone())?)];
    for subcommand in command.get_subcommands() {
        let name = format!("{NAME}-{}", subcommand.get_name());
        let page = page(subcommand.clone().display_name(&name))?;
        pages.push((format!("{name}.1"), page));
    }
    for (name, page) in pages {
        let path = directory.join(name);
        std::fs::write(&path, page).map_err(|source| failed(&path, source))?;
    }
    Ok(())
}

fn page(command: clap::Command) -> Result<String, Error> {
    let mut page = Vec::new();
    Man::new(command).render(&mut page).map_err(Error::Stdout)?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}

/// A script that completes our command line.
pub(crate) fn completions(shell: Shell) -> String {
    let mut script = Vec::new();
    clap_complete::generate(shell, &mut Arguments::command(), NAME, &mut script);
    String::from_utf8_lossy(&script).into_owned()
}
