//! `faas-wasm --version`.

use faas_wasm_artifact::{FORMAT_VERSION, host_features, host_triple};

use crate::backend;

/// One line; with `verbose` also the backends with their licences, and this machine.
pub(crate) fn describe(verbose: bool) -> String {
    let mut text = format!("faas-wasm {}\n", env!("CARGO_PKG_VERSION"));
    if !verbose {
        return text;
    }
    for backend in backend::ALL {
        let version = backend::version(backend).unwrap_or("not part of this build");
        text += &format!(
            "backend    {} {version} ({})\n",
            backend.name(),
            backend.licence()
        );
    }
    if let Some(backend) = backend::default() {
        text += &format!("default    {}\n", backend.name());
    }
    let features: Vec<_> = host_features()
        .iter()
        .map(|feature| feature.name())
        .collect();
    text += &format!("engine     wasmer-vm {}\n", wasmer_compiler::VERSION);
    text += &format!("format     {FORMAT_VERSION}\n");
    text += &format!("host       {} ({})\n", host_triple(), features.join(", "));
    text
}
