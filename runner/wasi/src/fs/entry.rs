//! What names in the merged tree refer to.

use super::device::Device;
use super::lower::Probe;
use super::metadata::{Kind, Metadata};
use super::path::TreeId;
use super::upper::{Key, NodeId};

/// A directory, independent of its current name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dir {
    pub(crate) tree: TreeId,
    pub(crate) at: At,
}

/// The layer and the place of a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum At {
    /// A lower directory by its canonical path. It has no node until something in it changes.
    Lower(Vec<u8>),
    Upper(NodeId),
}

impl Dir {
    /// The guest's `/`.
    pub(crate) const ROOT: Self = Self::root_of(0);

    pub(crate) const fn root_of(tree: TreeId) -> Self {
        Self {
            tree,
            at: At::Lower(Vec::new()),
        }
    }
}

/// The object that a name refers to.
#[derive(Debug)]
pub(crate) enum Entry {
    Directory(Dir),
    /// An object of the upper layer other than a directory.
    Node(NodeId),
    /// An object of the lower layer other than a directory.
    Lower(LowerFile),
    /// A virtual device under its first name.
    Device(Device),
}

/// A file of the lower layer that no node replaces.
#[derive(Debug)]
pub(crate) struct LowerFile {
    pub(crate) tree: TreeId,
    pub(crate) path: Vec<u8>,
    pub(crate) probe: Probe,
}

impl LowerFile {
    pub(crate) fn key(&self) -> Key {
        let Metadata { device, inode, .. } = self.probe.metadata;
        (self.tree, device, inode)
    }
}

impl Probe {
    /// Whether this is a symlink.
    pub(crate) fn is_link(&self) -> bool {
        self.metadata.kind == Kind::SymbolicLink
    }
}
