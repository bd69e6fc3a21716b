//! An instance's part of a device.

use std::sync::Arc;

use crate::device::Prepared;
use crate::driver::{Context, Event, HostBuffer, Stream};

/// A context that instances share.
#[derive(Debug)]
pub(crate) struct SharedContext {
    pub(crate) context: Context,
}

/// An instance's part of a device: a context of its own, or a stream in a shared one.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) device: usize,
    pub(crate) context: Context,
    /// Ours: for staging and scrubbing, and the guest's default stream if the context is shared.
    pub(crate) stream: Stream,
    pub(crate) staging: Option<HostBuffer>,
    pub(crate) shared: Option<Arc<SharedContext>>,
    /// Recorded where the default stream of a shared context and the guest's wait for each other.
    pub(crate) barrier: Option<Event>,
}

impl Lease {
    /// Takes a context for one instance alone.
    pub(crate) fn own(device: usize, prepared: Prepared) -> Self {
        Self {
            device,
            context: prepared.context,
            stream: prepared.stream,
            staging: Some(prepared.staging),
            shared: None,
            barrier: None,
        }
    }

    /// What the guest's stream 0 is.
    pub(crate) fn default_stream(&self) -> Stream {
        match self.shared {
            // The real one would wait for other instances.
            Some(_) => self.stream,
            None => Stream::LEGACY,
        }
    }
}
