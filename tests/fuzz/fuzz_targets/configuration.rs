//! The environment as the runner's configuration: lines `NAME=VALUE`.
#![no_main]

use std::collections::BTreeMap;

use faas_wasm_runner::config::{self, Config, ConfigError};

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let environment: BTreeMap<String, String> = text
        .lines()
        .filter_map(|line| line.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    faas_wasm_runner::fuzzing::upstream_url(bytes);
    let cuda = config::load_cuda(&environment);
    match config::load(&environment) {
        Ok(loaded) => {
            let wasm = &loaded.config.wasm;
            assert_eq!(cuda, Ok((wasm.use_cuda, wasm.cuda.clone())));
            check(&loaded.config);
            // A warning is one line of the log.
            assert!(
                !loaded.warnings.iter().any(|line| line.contains('\n')),
                "{:?}",
                loaded.warnings
            );
        }
        Err(ConfigError::Invalid(errors)) => assert!(!errors.is_empty()),
        Err(error) => assert!(!error.to_string().is_empty()),
    }
});

/// What is relied on without another look.
fn check(config: &Config) {
    assert!(!config.write_timeout.is_zero());
    assert!(config.max_connections > 0);
    assert!(config.max_inflight != Some(0));
    let wasm = &config.wasm;
    assert!(
        wasm.max_scale
            .is_none_or(|max| max >= wasm.min_scale && max > 0)
    );
    assert!(
        wasm.cpu_share
            .is_none_or(|share| share > 0.0 && share <= 1.0)
    );
    assert!(wasm.cpu_timeout.is_none_or(|timeout| !timeout.is_zero()));
    let mut guests: Vec<_> = wasm.mounts.iter().map(|mount| &mount.guest).collect();
    for guest in &guests {
        assert!(
            guest.starts_with('/') && guest.len() > 1 && !guest.ends_with('/'),
            "{guest}"
        );
        assert!(
            !guest.split('/').any(|part| part == "." || part == ".."),
            "{guest}"
        );
    }
    guests.sort();
    guests.dedup();
    assert_eq!(guests.len(), wasm.mounts.len());
}
