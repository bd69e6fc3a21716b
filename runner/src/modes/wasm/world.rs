//! What guests see of the world, besides their requests: files, arguments, environment, devices.

use std::sync::Arc;

use faas_wasm_wasi::{Access, Mount, Namespace, Root, WasiContext};

use super::exchange::Exchange;
use super::streams::{ResponseHead, Stderr, Stdin, Stdout};
use crate::config::{Config, EnvironmentFilter, MountAccess, WasmSettings};
use crate::cuda::{Host, Provider};
use crate::log::Logger;
use crate::modes::StartError;
use crate::request::{RequestHead, guest_environment};

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct World {
    namespace: Arc<Namespace>,
    arguments: Arc<[Vec<u8>]>,
    environment: Arc<[Vec<u8>]>,
    cuda: Option<Provider>,
    pub(super) settings: Arc<WasmSettings>,
    log_buffer_size: i64,
    logger: Logger,
}

impl World {
    /// Opens what the configuration shows to guests.
    pub(super) fn new(
        config: &Config,
        settings: &Arc<WasmSettings>,
        logger: Logger,
        cuda: Option<Provider>,
    ) -> Result<Self, StartError> {
        let arguments: Vec<_> = config
            .fprocess
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        Ok(Self {
            namespace: Arc::new(namespace(settings)?),
            arguments: arguments.into(),
            environment: inherited(&settings.env).into(),
            cuda,
            settings: Arc::clone(settings),
            log_buffer_size: config.log_buffer_size,
            logger,
        })
    }

    /// The same world for another replica. Each has parts of its own where every run counts among their users, as threads
    /// that count in the same place wait for each other.
    pub(super) fn copy(&self) -> Self {
        Self {
            namespace: Arc::new(Namespace::clone(&self.namespace)),
            arguments: self.arguments.iter().cloned().collect(),
            environment: self.environment.iter().cloned().collect(),
            cuda: self.cuda.clone(),
            settings: Arc::clone(&self.settings),
            log_buffer_size: self.log_buffer_size,
            logger: self.logger,
        }
    }

    /// What one run has of it.
    pub(super) fn host(&self, head: &Arc<RequestHead>, exchange: &Arc<Exchange>) -> Host {
        let head = Arc::clone(head);
        let wasi = WasiContext::builder(Arc::clone(&self.namespace))
            .arguments(Arc::clone(&self.arguments))
            .environment(Arc::clone(&self.environment))
            .own_environment(move || guest_environment(&head))
            .stdin(Box::new(Stdin(Arc::clone(exchange))))
            .stdout(Box::new(Stdout(Arc::clone(exchange))))
            .stderr(Box::new(Stderr::new(
                exchange,
                self.logger,
                self.log_buffer_size,
            )))
            .response_control(Box::new(ResponseHead::new(exchange, self.logger)))
            .quota(self.settings.fs_quota)
            .descriptors(self.settings.fd_limit as usize)
            .build();
        let cuda = self.cuda.as_ref().map(Provider::instance);
        Host { wasi, cuda }
    }
}

/// What every guest sees, and the runner's variables that it shall see.
fn inherited(filter: &EnvironmentFilter) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt as _;
    let wanted = |name: &std::ffi::OsStr| match filter {
        EnvironmentFilter::All => true,
        EnvironmentFilter::Names(names) => names.iter().any(|wanted| name == wanted.as_str()),
    };
    let own = std::env::vars_os()
        .filter(|(name, _)| name != "PWD" && name != "FAAS_RESPONSE" && wanted(name));
    let own = own.map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name.into_vec()
    });
    let always = ["PWD=/", "FAAS_RESPONSE=/dev/faas/response"];
    let always = always.map(|variable| variable.as_bytes().to_vec());
    always.into_iter().chain(own).collect()
}

fn namespace(settings: &WasmSettings) -> Result<Namespace, StartError> {
    let access = if settings.root_readonly {
        Access::ReadOnly
    } else {
        Access::CopyOnWrite
    };
    let root = Root::open(&settings.root)
        .map_err(|error| StartError::new(format!("wasm_root: {error}")))?;
    let mounts: Vec<_> = settings
        .mounts
        .iter()
        .map(|mount| Mount {
            guest: mount.guest.clone(),
            host: mount.host.clone(),
            access: match mount.access {
                MountAccess::ReadOnly => Access::ReadOnly,
                MountAccess::CopyOnWrite => Access::CopyOnWrite,
                MountAccess::ReadWrite => Access::ReadWrite,
            },
        })
        .collect();
    Namespace::new(root, access)
        .with_mounts(&mounts)
        .map_err(|error| StartError::new(format!("wasm_mounts: {error}")))
}
