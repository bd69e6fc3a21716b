//! What one instance has of the world: arguments, environment, streams, files, clocks.

use std::cell::LazyCell;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::fs::{Dir, FileSystem, Namespace};
use crate::stream::{Discard, Empty, InputStream, OutputStream};
use crate::table::{Descriptor, Object, Table};

/// Upper layer of one instance in bytes, unless set otherwise.
pub const DEFAULT_QUOTA: u64 = 64 << 20;

/// Open descriptors of one instance, unless set otherwise.
pub const DEFAULT_DESCRIPTORS: usize = 256;

/// An embedder's state of a run that has a [`WasiContext`] in it.
pub trait WasiHost {
    /// The context of the instance that is running.
    fn wasi(&mut self) -> &mut WasiContext;
}

impl WasiHost for WasiContext {
    fn wasi(&mut self) -> &mut WasiContext {
        self
    }
}

/// Made when the guest first asks for it; most that are small never do.
type OwnEnvironment = LazyCell<Vec<Vec<u8>>, Box<dyn FnOnce() -> Vec<Vec<u8>> + Send>>;

/// Everything that one instance can reach through WASI. Made for one run, and cheap to make: one
/// allocation, and none for files before the guest touches them.
pub struct WasiContext {
    pub(crate) arguments: Strings,
    pub(crate) environment: Strings,
    pub(crate) own_environment: OwnEnvironment,
    pub(crate) stdin: Box<dyn InputStream>,
    pub(crate) stdout: Box<dyn OutputStream>,
    pub(crate) stderr: Box<dyn OutputStream>,
    pub(crate) side: Box<dyn OutputStream>,
    pub(crate) fs: FileSystem,
    pub(crate) table: Table,
    /// CPU time of the thread when the guest first asked for it.
    pub(crate) cpu_start: Option<Duration>,
}

impl WasiContext {
    /// Begins a context that sees `namespace` as its `/`, has no arguments and no environment,
    /// reads nothing and whose output is discarded.
    pub fn builder(namespace: Arc<Namespace>) -> WasiContextBuilder {
        WasiContextBuilder {
            namespace,
            arguments: Strings(None),
            environment: Strings(None),
            own_environment: LazyCell::new(Box::new(Vec::new)),
            stdin: Box::new(Empty),
            stdout: Box::new(Discard),
            stderr: Box::new(Discard),
            side: Box::new(Discard),
            quota: DEFAULT_QUOTA,
            descriptors: DEFAULT_DESCRIPTORS,
        }
    }

    /// What the run has used so far, and which limits it met.
    pub fn usage(&self) -> Usage {
        let budget = &self.fs.upper.budget;
        Usage {
            overlay: budget.peak(),
            overlay_limited: budget.has_refused(),
            descriptors_limited: self.table.has_refused(),
        }
    }

    /// Stdout as it was given, for what is to be done once the guest has ended.
    pub fn stdout_mut(&mut self) -> &mut dyn OutputStream {
        &mut *self.stdout
    }

    /// Stderr as it was given.
    pub fn stderr_mut(&mut self) -> &mut dyn OutputStream {
        &mut *self.stderr
    }

    /// Stdin as it was given.
    pub fn stdin_mut(&mut self) -> &mut dyn InputStream {
        &mut *self.stdin
    }
}

/// What one run has used of what its context limits.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Bytes of the upper layer at its largest, nodes and names included.
    pub overlay: u64,
    /// Something did not fit into the upper layer.
    pub overlay_limited: bool,
    /// There was no number for one more descriptor.
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

/// Strings that many contexts can have. `None` is none of them: the standard library's empty `Arc<[_]>` counts its
/// owners in one place for the whole process, on which threads that make contexts would wait for each other.
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
    side: Box<dyn OutputStream>,
    quota: u64,
    descriptors: usize,
}

impl fmt::Debug for WasiContextBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WasiContextBuilder").finish_non_exhaustive()
    }
}

impl WasiContextBuilder {
    /// The arguments, the program's name first. A NUL ends an argument for most guests.
    pub fn arguments(mut self, arguments: impl Into<Arc<[Vec<u8>]>>) -> Self {
        self.arguments = Strings(Some(arguments.into()));
        self
    }

    /// The environment that is the same for many instances, as `KEY=VALUE`.
    pub fn environment(mut self, environment: impl Into<Arc<[Vec<u8>]>>) -> Self {
        self.environment = Strings(Some(environment.into()));
        self
    }

    /// What this instance has in its environment besides, as `KEY=VALUE`. Made when the guest first asks for it.
    pub fn own_environment(mut self, make: impl FnOnce() -> Vec<Vec<u8>> + Send + 'static) -> Self {
        self.own_environment = LazyCell::new(Box::new(make));
        self
    }

    /// Where stdin comes from.
    pub fn stdin(mut self, stream: Box<dyn InputStream>) -> Self {
        self.stdin = stream;
        self
    }

    /// Where stdout goes.
    pub fn stdout(mut self, stream: Box<dyn OutputStream>) -> Self {
        self.stdout = stream;
        self
    }

    /// Where stderr goes.
    pub fn stderr(mut self, stream: Box<dyn OutputStream>) -> Self {
        self.stderr = stream;
        self
    }

    /// Where writes to `/dev/faas/response` go. It never waits.
    pub fn side(mut self, stream: Box<dyn OutputStream>) -> Self {
        self.side = stream;
        self
    }

    /// Bytes of upper layer, nodes and names included.
    pub fn quota(mut self, bytes: u64) -> Self {
        self.quota = bytes;
        self
    }

    /// Most descriptors open at once, the four that are there at the start included.
    pub fn descriptors(mut self, limit: usize) -> Self {
        self.descriptors = limit;
        self
    }

    /// Makes the context.
    pub fn build(self) -> WasiContext {
        let first = [
            Descriptor::stream(Object::Stdin),
            Descriptor::stream(Object::Stdout),
            Descriptor::stream(Object::Stderr),
            Descriptor::preopened(Dir::ROOT),
        ];
        WasiContext {
            arguments: self.arguments,
            environment: self.environment,
            own_environment: self.own_environment,
            stdin: self.stdin,
            stdout: self.stdout,
            stderr: self.stderr,
            side: self.side,
            fs: FileSystem::new(self.namespace, self.quota),
            table: Table::new(first, self.descriptors),
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
