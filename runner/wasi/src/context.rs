//! The WASI state of one instance: arguments, environment, streams, files and clocks.

use std::cell::LazyCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{FileSystem, Namespace};
use crate::stream::{Discard, Empty, InputStream, OutputStream};
use crate::table::{Descriptor, Object, Table};

/// Default limit of an instance's upper layer in bytes.
pub const DEFAULT_QUOTA: u64 = 64 << 20;

/// Default limit of an instance's open descriptors.
pub const DEFAULT_DESCRIPTORS: usize = 256;

/// An embedder's state of a run that contains a [`WasiContext`].
pub trait WasiHost {
    /// The context of the running instance.
    fn wasi(&mut self) -> &mut WasiContext;
}

impl WasiHost for WasiContext {
    fn wasi(&mut self) -> &mut WasiContext {
        self
    }
}

/// Made when the guest first asks for it; most small guests never do.
type OwnEnvironment = LazyCell<Vec<Vec<u8>>, Box<dyn FnOnce() -> Vec<Vec<u8>> + Send>>;

/// Everything that one instance can reach through WASI. A context is made for one run and costs one
/// allocation; files cost nothing until the guest touches them.
pub struct WasiContext {
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    pub(crate) own_environment: OwnEnvironment,
    pub(crate) stdin: Box<dyn InputStream>,
    pub(crate) stdout: Box<dyn OutputStream>,
    pub(crate) stderr: Box<dyn OutputStream>,
    pub(crate) response_control: Box<dyn OutputStream>,
    pub(crate) fs: FileSystem,
    pub(crate) table: Table,
    /// CPU time of the thread when the guest first asked for it.
    pub(crate) cpu_start: Option<Duration>,
}

impl WasiContext {
    /// Starts building a context with `namespace` as its `/`, without arguments and environment, with an
    /// empty input, and with output that is discarded.
    pub fn builder(namespace: Arc<Namespace>) -> WasiContextBuilder {
        WasiContextBuilder {
            namespace,
            arguments: Strings(None),
            environment: Strings(None),
            own_environment: LazyCell::new(Box::new(Vec::new)),
            stdin: Box::new(Empty),
            stdout: Box::new(Discard),
            stderr: Box::new(Discard),
            response_control: Box::new(Discard),
            quota: DEFAULT_QUOTA,
            descriptors: DEFAULT_DESCRIPTORS,
        }
    }

    /// Resources that the run has used so far, and the limits that it has reached.
    pub fn usage(&self) -> Usage {
        let budget = &self.fs.upper.budget;
        Usage {
            overlay: budget.peak(),
            overlay_limited: budget.has_refused(),
            descriptors_limited: self.table.has_refused(),
        }
    }

    /// Stdout as the embedder passed it, for use after the guest has ended.
    pub fn stdout_mut(&mut self) -> &mut dyn OutputStream {
        &mut *self.stdout
    }

    /// Stderr as the embedder passed it.
    pub fn stderr_mut(&mut self) -> &mut dyn OutputStream {
        &mut *self.stderr
    }

    /// Stdin as the embedder passed it.
    pub fn stdin_mut(&mut self) -> &mut dyn InputStream {
        &mut *self.stdin
    }
}

/// The use of limited resources by one run.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Maximum size of the upper layer in bytes, including nodes and names.
    pub overlay: u64,
    /// Whether the upper layer's limit refused a change.
    pub overlay_limited: bool,
    /// Whether the limit of descriptors refused one.
    pub descriptors_limited: bool,
}

impl fmt::Debug for WasiContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasiContext")
            .field("arguments", &self.arguments.iter().count())
            .field("fs", &self.fs)
            .field("table", &self.table)
            .finish_non_exhaustive()
    }
}

/// Strings that many contexts share. `None` means no strings: the standard library's empty `Arc<[_]>` has one
/// reference count for the whole process, on which threads that make contexts would contend.
pub(crate) struct Strings(Option<Arc<[Vec<u8>]>>);

impl Strings {
    pub(crate) fn iter(&self) -> std::slice::Iter<'_, Vec<u8>> {
        self.0.as_deref().unwrap_or_default().iter()
    }
}

/// Makes a [`WasiContext`].
#[must_use]
pub struct WasiContextBuilder {
    namespace: Arc<Namespace>,
    arguments: Strings,
    environment: Strings,
    own_environment: OwnEnvironment,
    stdin: Box<dyn InputStream>,
    stdout: Box<dyn OutputStream>,
    stderr: Box<dyn OutputStream>,
    response_control: Box<dyn OutputStream>,
    quota: u64,
    descriptors: usize,
}

impl fmt::Debug for WasiContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasiContextBuilder").finish_non_exhaustive()
    }
}

impl WasiContextBuilder {
    /// Sets the arguments, starting with the program's name. Most guests treat a NUL as an argument's end.
    pub fn arguments(mut self, arguments: impl Into<Arc<[Vec<u8>]>>) -> Self {
        self.arguments = Strings(Some(arguments.into()));
        self
    }

    /// Sets the part of the environment that many instances share, as `KEY=VALUE`.
    pub fn environment(mut self, environment: impl Into<Arc<[Vec<u8>]>>) -> Self {
        self.environment = Strings(Some(environment.into()));
        self
    }

    /// Sets the part of the environment that only this instance has, as `KEY=VALUE`. `make` runs when the
    /// guest first asks for the environment.
    pub fn own_environment(mut self, make: impl FnOnce() -> Vec<Vec<u8>> + Send + 'static) -> Self {
        self.own_environment = LazyCell::new(Box::new(make));
        self
    }

    /// Sets the source of stdin.
    pub fn stdin(mut self, stream: Box<dyn InputStream>) -> Self {
        self.stdin = stream;
        self
    }

    /// Sets the destination of stdout.
    pub fn stdout(mut self, stream: Box<dyn OutputStream>) -> Self {
        self.stdout = stream;
        self
    }

    /// Sets the destination of stderr.
    pub fn stderr(mut self, stream: Box<dyn OutputStream>) -> Self {
        self.stderr = stream;
        self
    }

    /// Sets the destination of writes to `/dev/faas/response`, which must never wait.
    pub fn response_control(mut self, stream: Box<dyn OutputStream>) -> Self {
        self.response_control = stream;
        self
    }

    /// Sets the limit of the upper layer in bytes, including nodes and names.
    pub fn quota(mut self, bytes: u64) -> Self {
        self.quota = bytes;
        self
    }

    /// Sets the maximum number of open descriptors, including the standard streams and preopened
    /// directories.
    pub fn descriptors(mut self, limit: usize) -> Self {
        self.descriptors = limit;
        self
    }

    /// Builds the context.
    pub fn build(self) -> WasiContext {
        let streams = [Object::Stdin, Object::Stdout, Object::Stderr].map(Descriptor::stream);
        let preopens = self.namespace.preopens.iter().enumerate();
        let preopens =
            preopens.map(|(index, preopen)| Descriptor::preopened(index, preopen.dir.clone()));
        let table = Table::new(streams.into_iter().chain(preopens), self.descriptors);
        WasiContext {
            arguments: self.arguments,
            environment: self.environment,
            own_environment: self.own_environment,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            response_control: self.response_control,
            fs: FileSystem::new(self.namespace, self.quota),
            table,
            cpu_start: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contexts_move_between_threads() {
        fn sendable<T: Send>() {}
        sendable::<WasiContext>();
        sendable::<WasiContextBuilder>();
        sendable::<Arc<Namespace>>();
    }
}
