//! The nodes of the upper layer: one instance's changes, in memory.
//!
//! A lower file leads to its node in one of two ways, so that opening or changing a file needs no copy of
//! the directories above it:
//!
//! - A *directory* has a node as soon as a name in it changes. Its `origin` is the lower directory that
//!   shows through. Then all directories above have nodes, too, and `origins` finds the node by the
//!   lower path. Renaming a directory moves its node; the origin stays.
//! - Any other lower file has a node as soon as its data or times change or it gets another name. It is
//!   found by device and inode (`overrides`), so hard links of the lower layer remain one file. The
//!   node holds a descriptor of the lower file, so its inode is not reused meanwhile.
//!
//! Every node and every name is charged to the budget. The charge is returned when the last name and the
//! last descriptor are gone.

use std::collections::{BTreeMap, HashMap};
use std::os::fd::OwnedFd;

use super::content::{Budget, Content};
use super::device::Device;
use super::metadata::{Kind, Metadata, Times, now};
use super::path::TreeId;
use crate::errno::Errno;

/// Index of a node.
pub(crate) type NodeId = usize;

/// A file of the lower layer: tree, device, inode.
pub(crate) type Key = (TreeId, u64, u64);

/// The charge for a node, besides its data, in bytes.
const NODE_COST: usize = 512;
/// The charge for a name, besides its length, in bytes.
const NAME_COST: usize = 128;
/// Maximum number of host descriptors that an instance's upper layer holds.
const HELD_LIMIT: usize = 1024;
/// First inode number of the upper layer, beyond those of usual file systems.
const FIRST_INODE: u64 = 1 << 62;
/// Device number of nodes without a lower file.
pub(crate) const UPPER_DEVICE: u64 = 0x00fa_a500;

/// A file or directory of the upper layer.
#[derive(Debug)]
pub(crate) struct Node {
    pub(crate) device: u64,
    pub(crate) inode: u64,
    /// Number of names. For a directory, 1 while it is in the tree.
    pub(crate) links: u64,
    /// Number of the guest's descriptors.
    pub(crate) handles: u32,
    /// Number of names in upper directories. It can differ from `links`: the host may create further names of
    /// a lower file meanwhile, or several mounts may show the file.
    slots: u32,
    pub(crate) times: Times,
    pub(crate) body: Body,
    /// The lower file that this node replaces.
    key: Option<Key>,
    /// Holds the inode of the lower file, if `body` does not.
    _held: Option<OwnedFd>,
}

/// The kind of a node, with its data.
#[derive(Debug)]
pub(crate) enum Body {
    Directory(Directory),
    File(Content),
    Symlink(Vec<u8>),
    Device(Device),
    /// A device, socket or fifo of the host that was renamed or linked. It cannot be opened.
    Special(Kind),
}

/// A directory of the upper layer.
#[derive(Debug)]
pub(crate) struct Directory {
    pub(crate) parent: Option<NodeId>,
    /// Canonical path of the lower directory that shows through.
    pub(crate) origin: Option<Vec<u8>>,
    pub(crate) names: BTreeMap<Vec<u8>, Slot>,
}

/// The entry of a name in an upper directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Slot {
    /// A whiteout: the name is gone even if the lower directory has it.
    Whiteout,
    Node(NodeId),
}

/// The upper layer of one instance.
#[derive(Debug)]
pub(crate) struct Upper {
    nodes: Vec<Option<Node>>,
    free: Vec<NodeId>,
    /// By tree: lower path to directory.
    origins: Vec<HashMap<Vec<u8>, NodeId>>,
    overrides: HashMap<Key, NodeId>,
    /// Lower files that are open without a node, once for each descriptor.
    open: Vec<Key>,
    pub(crate) budget: Budget,
    made: u64,
    held: usize,
}

impl Upper {
    pub(crate) fn new(limit: u64) -> Self {
        Self {
            nodes: Vec::new(),
            free: Vec::new(),
            origins: Vec::new(),
            overrides: HashMap::new(),
            open: Vec::new(),
            budget: Budget::new(limit),
            made: 0,
            held: 0,
        }
    }

    /// An existing node.
    ///
    /// # Panics
    ///
    /// If it does not exist. Identifiers come from this layer and are dropped with the node.
    pub(crate) fn node(&self, id: NodeId) -> &Node {
        match self.nodes.get(id) {
            Some(Some(node)) => node,
            _ => unreachable!("node {id} was freed while in use"),
        }
    }

    /// As [`Upper::node`].
    pub(crate) fn node_mut(&mut self, id: NodeId) -> &mut Node {
        match self.nodes.get_mut(id) {
            Some(Some(node)) => node,
            _ => unreachable!("node {id} was freed while in use"),
        }
    }

    /// The directory of a node that is a directory.
    pub(crate) fn directory(&self, id: NodeId) -> &Directory {
        match &self.node(id).body {
            Body::Directory(directory) => directory,
            body => unreachable!("node {id} is no directory but {body:?}"),
        }
    }

    /// As [`Upper::directory`].
    pub(crate) fn directory_mut(&mut self, id: NodeId) -> &mut Directory {
        match &mut self.node_mut(id).body {
            Body::Directory(directory) => directory,
            body => unreachable!("node {id} is no directory but {body:?}"),
        }
    }

    /// The node and the budget, for writes.
    pub(crate) fn content_mut(&mut self, id: NodeId) -> Option<(&mut Content, &mut Budget)> {
        match self.nodes.get_mut(id) {
            Some(Some(Node {
                body: Body::File(content),
                ..
            })) => Some((content, &mut self.budget)),
            _ => None,
        }
    }

    /// The node of a lower directory.
    pub(crate) fn origin(&self, tree: TreeId, path: &[u8]) -> Option<NodeId> {
        self.origins.get(tree)?.get(path).copied()
    }

    /// The node that replaces a lower file.
    pub(crate) fn replacement(&self, key: &Key) -> Option<NodeId> {
        if self.overrides.is_empty() {
            return None;
        }
        self.overrides.get(key).copied()
    }

    /// Creates a node without a lower file.
    pub(crate) fn create(&mut self, body: Body) -> Result<NodeId, Errno> {
        let inode = FIRST_INODE + self.made;
        let times = Times::all(now());
        let id = self.insert(body, None, (UPPER_DEVICE, inode, 1), times, None)?;
        self.made += 1;
        Ok(id)
    }

    /// Creates the node of a lower directory, or of a directory that only the namespace has.
    pub(crate) fn create_over(
        &mut self,
        (tree, path): (TreeId, Vec<u8>),
        parent: Option<NodeId>,
        lower: Metadata,
    ) -> Result<NodeId, Errno> {
        self.budget.charge(path.len())?;
        let directory = Directory {
            parent,
            origin: Some(path.clone()),
            names: BTreeMap::new(),
        };
        let identity = (lower.device, lower.inode, 1);
        let id = self
            .insert(
                Body::Directory(directory),
                None,
                identity,
                lower.times,
                None,
            )
            .inspect_err(|_| self.budget.release(path.len()))?;
        while self.origins.len() <= tree {
            self.origins.push(HashMap::new());
        }
        self.origins[tree].insert(path, id);
        Ok(id)
    }

    /// Creates the node that replaces a lower file.
    pub(crate) fn replace(
        &mut self,
        key: Key,
        body: Body,
        lower: Metadata,
        held: Option<OwnedFd>,
    ) -> Result<NodeId, Errno> {
        if self.held >= HELD_LIMIT {
            return Err(Errno::Nfile);
        }
        let identity = (lower.device, lower.inode, lower.links);
        let id = self.insert(body, Some(key), identity, lower.times, held)?;
        self.overrides.insert(key, id);
        self.held += 1;
        Ok(id)
    }

    fn insert(
        &mut self,
        body: Body,
        key: Option<Key>,
        (device, inode, links): (u64, u64, u64),
        times: Times,
        held: Option<OwnedFd>,
    ) -> Result<NodeId, Errno> {
        self.budget.charge(NODE_COST + body_cost(&body))?;
        let node = Node {
            device,
            inode,
            links,
            handles: 0,
            slots: 0,
            times,
            body,
            key,
            _held: held,
        };
        Ok(match self.free.pop() {
            Some(id) => {
                self.nodes[id] = Some(node);
                id
            }
            None => {
                self.nodes.push(Some(node));
                self.nodes.len() - 1
            }
        })
    }

    /// Sets a name in a directory. The caller maintains the number of links.
    pub(crate) fn set_name(&mut self, id: NodeId, name: &[u8], slot: Slot) -> Result<(), Errno> {
        let names = &mut self.directory_mut(id).names;
        let before = match names.get_mut(name) {
            Some(present) => Some(std::mem::replace(present, slot)),
            None => {
                self.budget.charge(NAME_COST + name.len())?;
                let names = &mut self.directory_mut(id).names;
                names.insert(name.to_vec(), slot)
            }
        };
        self.count_slot(Some(slot), 1);
        self.count_slot(before, -1);
        Ok(())
    }

    /// Removes a name from a directory, so that a lower entry of that name shows through again.
    pub(crate) fn clear_name(&mut self, id: NodeId, name: &[u8]) {
        let before = self.directory_mut(id).names.remove(name);
        if before.is_some() {
            self.budget.release(NAME_COST + name.len());
        }
        self.count_slot(before, -1);
    }

    fn count_slot(&mut self, slot: Option<Slot>, change: i32) {
        if let Some(Slot::Node(id)) = slot {
            let node = self.node_mut(id);
            node.slots = node.slots.saturating_add_signed(change);
        }
    }

    /// Updates a directory's times after a change of its names.
    pub(crate) fn touch(&mut self, id: NodeId) {
        let now = now();
        let times = &mut self.node_mut(id).times;
        times.modified = now;
        times.changed = now;
    }

    /// Records that a lower file was opened without a node.
    pub(crate) fn open_lower(&mut self, key: Key) {
        self.open.push(key);
    }

    /// Records that such a file was closed.
    pub(crate) fn close_lower(&mut self, key: &Key) {
        if let Some(index) = self.open.iter().rposition(|open| open == key) {
            self.open.swap_remove(index);
        }
        if let Some(id) = self.replacement(key) {
            self.free_if_unused(id);
        }
    }

    /// Whether a lower file is open without a node.
    pub(crate) fn is_open(&self, key: &Key) -> bool {
        self.open.contains(key)
    }

    /// Removes one name of a node that is not a directory.
    pub(crate) fn unlink(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.links = node.links.saturating_sub(1);
        node.times.changed = now();
        self.free_if_unused(id);
    }

    /// Removes a directory from the tree. Its descriptors see an empty directory.
    pub(crate) fn remove_directory(&mut self, id: NodeId) {
        let directory = self.directory_mut(id);
        // The parent may be freed now.
        directory.parent = None;
        for (name, slot) in std::mem::take(&mut directory.names) {
            self.budget.release(NAME_COST + name.len());
            self.count_slot(Some(slot), -1);
        }
        self.node_mut(id).links = 0;
        self.free_if_unused(id);
    }

    /// Records that a descriptor of a node was closed.
    pub(crate) fn close(&mut self, id: NodeId) {
        let node = self.node_mut(id);
        node.handles = node.handles.saturating_sub(1);
        self.free_if_unused(id);
    }

    fn free_if_unused(&mut self, id: NodeId) {
        let node = self.node(id);
        let used = node.links > 0 || node.slots > 0 || node.handles > 0;
        if used || node.key.is_some_and(|key| self.is_open(&key)) {
            return;
        }
        // A removed lower directory remains known as removed, because descriptors may still hold its path.
        if matches!(
            &node.body,
            Body::Directory(Directory {
                origin: Some(_),
                ..
            })
        ) {
            return;
        }
        let Some(node) = self.nodes[id].take() else {
            return;
        };
        self.free.push(id);
        self.budget.release(NODE_COST + body_cost(&node.body));
        if let Some(key) = node.key {
            self.overrides.remove(&key);
            self.held -= 1;
        }
        if let Body::File(content) = node.body {
            content.release(&mut self.budget);
        }
    }
}

fn body_cost(body: &Body) -> usize {
    match body {
        Body::Symlink(target) => target.len(),
        _ => 0,
    }
}

impl Node {
    pub(crate) fn kind(&self) -> Kind {
        match &self.body {
            Body::Directory(_) => Kind::Directory,
            Body::File(_) => Kind::RegularFile,
            Body::Symlink(_) => Kind::SymbolicLink,
            Body::Device(_) => Kind::CharacterDevice,
            Body::Special(kind) => *kind,
        }
    }

    pub(crate) fn metadata(&self) -> Metadata {
        let size = match &self.body {
            Body::File(content) => content.length(),
            Body::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        Metadata {
            device: self.device,
            inode: self.inode,
            kind: self.kind(),
            links: self.links,
            size,
            times: self.times,
        }
    }
}
