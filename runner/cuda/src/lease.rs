//! The share of a device that an instance has.

use std::sync::Arc;

use crate::device::Prepared;
use crate::driver::{Context, Event, HostBuffer, Stream};

/// A context that instances share.
#[derive(Debug)]
pub(crate) struct SharedContext {
    pub(crate) context: Context,
}

/// An instance's share of a device: an exclusive context, or a stream in a shared one.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) device: usize,
    pub(crate) context: Context,
    /// Used by the host for staging and scrubbing. It is also the guest's default stream if the context is shared.
    pub(crate) stream: Stream,
    pub(crate) staging: Option<HostBuffer>,
    pub(crate) shared: Option<Arc<SharedContext>>,
    /// Orders the guest's streams against its default stream in a shared context.
    pub(crate) barrier: Option<Event>,
}

impl Lease {
    /// An exclusive context for one instance.
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

    /// The stream that the guest's stream 0 stands for.
    pub(crate) fn default_stream(&self) -> Stream {
        match self.shared {
            // The driver's stream 0 would wait for other instances.
            Some(_) => self.stream,
            None => Stream::LEGACY,
        }
    }
}
