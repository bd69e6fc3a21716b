//! `faas-wasm --version`.

use faas_wasm_artifact::{FORMAT_VERSION, host_features, host_triple};
use serde::Serialize;

use crate::backend;

/// This build and what it is made of; the fields are the keys of the JSON.
#[derive(Debug, Serialize)]
pub(crate) struct Version {
    version: &'static str,
    backends: Vec<Backend>,
    default_backend: Option<&'static str>,
    engine_version: &'static str,
    format: u32,
    host: &'static str,
    host_features: Vec<&'static str>,
}

#[derive(Debug, Serialize)]
struct Backend {
    name: &'static str,
    /// `None` if it is not part of this build.
    version: Option<&'static str>,
    licence: &'static str,
}

impl Version {
    pub(crate) fn new() -> Self {
        let backends = backend::ALL.map(|backend| Backend {
            name: backend.name(),
            version: backend::version(backend),
            licence: backend.licence(),
        });
        Self {
            version: env!("CARGO_PKG_VERSION"),
            backends: backends.into(),
            default_backend: backend::default().map(faas_wasm_artifact::Backend::name),
            engine_version: wasmer_compiler::VERSION,
            format: FORMAT_VERSION,
            host: host_triple(),
            host_features: host_features()
                .iter()
                .map(|feature| feature.name())
                .collect(),
        }
    }

    /// One line; with `verbose` also the backends with their licences, and this machine.
    pub(crate) fn describe(&self, verbose: bool) -> String {
        let mut text = format!("faas-wasm {}\n", self.version);
        if !verbose {
            return text;
        }
        for backend in &self.backends {
            let version = backend.version.unwrap_or("not part of this build");
            text += &format!(
                "backend    {} {version} ({})\n",
                backend.name, backend.licence
            );
        }
        if let Some(default) = self.default_backend {
            text += &format!("default    {default}\n");
        }
        text += &format!("engine     wasmer-vm {}\n", self.engine_version);
        text += &format!("format     {}\n", self.format);
        text + &format!(
            "host       {} ({})\n",
            self.host,
            self.host_features.join(", ")
        )
    }
}
