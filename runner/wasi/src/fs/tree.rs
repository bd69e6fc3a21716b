//! The file system of one instance: a namespace and what the instance has changed in it.
//!
//! Its operations are in files by subject: `walk.rs` resolves paths, `open.rs` opens files and transfers
//! data, `change.rs` changes names in copy-on-write trees, `direct.rs` in trees that write through, and
//! `list.rs` reads directories.

use std::sync::Arc;

use super::content::Content;
use super::device::Device;
use super::entry::{At, Dir, Entry, LowerFile};
use super::fault_injection;
use super::metadata::{Kind, Metadata, NewTime, Times, now};
use super::namespace::{Access, Namespace, Tree};
use super::path::{TreeId, push_component, truncate_to_parent};
use super::upper::{Body, NodeId, UPPER_DEVICE, Upper};
use crate::errno::Errno;

/// The merged file system that one instance sees.
#[derive(Debug)]
pub(crate) struct FileSystem {
    pub(crate) namespace: Arc<Namespace>,
    pub(crate) upper: Upper,
}

#[cfg(feature = "fault-injection")]
impl Drop for FileSystem {
    fn drop(&mut self) {
        fault_injection::keep(&mut self.upper);
    }
}

impl FileSystem {
    /// Creates an unchanged file system. It costs nothing until something changes.
    pub(crate) fn new(namespace: Arc<Namespace>, quota: u64) -> Self {
        Self {
            namespace,
            upper: fault_injection::take().unwrap_or_else(|| Upper::new(quota)),
        }
    }

    pub(crate) fn tree(&self, id: TreeId) -> &Tree {
        &self.namespace.trees[id]
    }

    /// Returns the access to a tree, or an error if it is read-only.
    pub(crate) fn writable(&self, tree: TreeId) -> Result<Access, Errno> {
        match self.tree(tree).access {
            Access::ReadOnly => Err(Errno::Rofs),
            access => Ok(access),
        }
    }

    /// The same directory as its node, if it has received one since `dir` was made.
    pub(crate) fn current(&self, dir: Dir) -> Dir {
        match &dir.at {
            At::Lower(path) => match self.upper.origin(dir.tree, path) {
                Some(id) => Dir {
                    tree: dir.tree,
                    at: At::Upper(id),
                },
                None => dir,
            },
            At::Upper(_) => dir,
        }
    }

    /// The parent directory. The parent of the guest's `/` is `/`.
    pub(crate) fn parent(&self, dir: &Dir) -> Dir {
        let within = match &dir.at {
            At::Upper(id) => self.upper.directory(*id).parent.map(At::Upper),
            At::Lower(path) if path.is_empty() => None,
            At::Lower(path) => {
                let mut path = path.clone();
                truncate_to_parent(&mut path);
                Some(At::Lower(path))
            }
        };
        let parent = match within {
            Some(at) => Dir { tree: dir.tree, at },
            None => match &self.tree(dir.tree).above {
                Some((tree, path)) => Dir {
                    tree: *tree,
                    at: At::Lower(path.clone()),
                },
                None => Dir::ROOT,
            },
        };
        self.current(parent)
    }

    /// As `parent`, of a directory that may have received a node meanwhile.
    pub(crate) fn parent_of(&self, dir: &Dir) -> Dir {
        self.parent(&self.current(dir.clone()))
    }

    /// Whether the directory is still in the tree, so that names can be created in it.
    pub(crate) fn is_linked(&self, dir: &Dir) -> bool {
        match &dir.at {
            At::Upper(id) => self.upper.node(*id).links > 0,
            At::Lower(_) => true,
        }
    }

    /// The node of a directory. Creates it and those above it if necessary.
    pub(crate) fn directory_node(&mut self, dir: &Dir) -> Result<NodeId, Errno> {
        let path = match &dir.at {
            At::Upper(id) => return Ok(*id),
            At::Lower(path) => path,
        };
        let mut parent = None;
        let ends = std::iter::once(0).filter(|_| !path.is_empty());
        let slashes = path.iter().enumerate().filter(|(_, byte)| **byte == b'/');
        let ends = ends.chain(slashes.map(|(at, _)| at));
        for end in ends.chain([path.len()]) {
            let prefix = &path[..end];
            let id = match self.upper.origin(dir.tree, prefix) {
                Some(id) => id,
                None => {
                    let lower = self.lower_directory(dir.tree, prefix)?;
                    let place = (dir.tree, prefix.to_vec());
                    self.upper.create_over(place, parent, lower)?
                }
            };
            parent = Some(id);
        }
        parent.ok_or(Errno::Io)
    }

    /// The metadata of a lower directory, or synthetic metadata if only the namespace has it.
    pub(crate) fn lower_directory(&self, tree: TreeId, path: &[u8]) -> Result<Metadata, Errno> {
        match self.tree(tree).root.probe(path) {
            Ok(probe) if probe.metadata.kind == Kind::Directory => Ok(probe.metadata),
            Ok(_) | Err(Errno::Noent | Errno::Notdir | Errno::Loop)
                if self.tree(tree).is_skeleton(path) =>
            {
                Ok(synthetic_metadata(tree, path, Kind::Directory))
            }
            Ok(_) => Err(Errno::Notdir),
            Err(errno) => Err(errno),
        }
    }

    /// The node that replaces a lower file. Creates it if necessary.
    pub(crate) fn file_node(&mut self, file: LowerFile) -> Result<NodeId, Errno> {
        let key = file.key();
        if let Some(id) = self.upper.replacement(&key) {
            return Ok(id);
        }
        let LowerFile { tree, path, probe } = file;
        let metadata = probe.metadata;
        let (body, held) = match metadata.kind {
            Kind::RegularFile => {
                let flags = rustix::fs::OFlags::RDONLY;
                let origin = self.tree(tree).root.open_data(&path, &probe, flags)?;
                (Body::File(Content::over(origin, metadata.size)), None)
            }
            Kind::SymbolicLink => (Body::Symlink(probe.read_link()?), Some(probe.into_fd())),
            kind => (Body::Special(kind), Some(probe.into_fd())),
        };
        self.upper.replace(key, body, metadata, held)
    }

    /// The node of an entry other than a directory.
    pub(crate) fn entry_node(&mut self, entry: Entry) -> Result<NodeId, Errno> {
        match entry {
            Entry::Directory(_) => Err(Errno::Isdir),
            Entry::Node(id) => Ok(id),
            Entry::Lower(file) => self.file_node(file),
            Entry::Device(device) => self.upper.create(Body::Device(device)),
        }
    }

    /// The metadata of an entry.
    pub(crate) fn metadata(&self, entry: &Entry) -> Result<Metadata, Errno> {
        match entry {
            Entry::Directory(dir) => self.directory_metadata(dir),
            Entry::Node(id) => Ok(self.upper.node(*id).metadata()),
            Entry::Lower(file) => Ok(file.probe.metadata),
            Entry::Device(device) => Ok(device_metadata(*device)),
        }
    }

    pub(crate) fn directory_metadata(&self, dir: &Dir) -> Result<Metadata, Errno> {
        match self.current(dir.clone()).at {
            At::Upper(id) => Ok(self.upper.node(id).metadata()),
            At::Lower(path) => self.lower_directory(dir.tree, &path),
        }
    }

    /// Changes the times of an entry.
    pub(crate) fn set_entry_times(
        &mut self,
        entry: Entry,
        accessed: NewTime,
        modified: NewTime,
    ) -> Result<(), Errno> {
        match entry {
            Entry::Directory(dir) => self.set_directory_times(&dir, accessed, modified),
            Entry::Device(_) => Ok(()),
            Entry::Node(id) => {
                self.set_node_times(id, accessed, modified);
                Ok(())
            }
            Entry::Lower(file) => match self.writable(file.tree)? {
                Access::ReadWrite => self.set_direct_times(&file, accessed, modified),
                _ => {
                    let id = self.file_node(file)?;
                    self.set_node_times(id, accessed, modified);
                    Ok(())
                }
            },
        }
    }

    pub(crate) fn set_directory_times(
        &mut self,
        dir: &Dir,
        accessed: NewTime,
        modified: NewTime,
    ) -> Result<(), Errno> {
        let dir = self.current(dir.clone());
        if let (Access::ReadWrite, At::Lower(path)) = (self.writable(dir.tree)?, &dir.at) {
            let probe = self.tree(dir.tree).root.probe(path)?;
            let file = LowerFile {
                tree: dir.tree,
                path: path.clone(),
                probe,
            };
            return self.set_direct_times(&file, accessed, modified);
        }
        let id = self.directory_node(&dir)?;
        self.set_node_times(id, accessed, modified);
        Ok(())
    }

    pub(crate) fn set_node_times(&mut self, id: NodeId, accessed: NewTime, modified: NewTime) {
        let now = now();
        let apply = |time: &mut u64, new| match new {
            NewTime::Keep => {}
            NewTime::Now => *time = now,
            NewTime::At(at) => *time = at,
        };
        let Times {
            accessed: old_accessed,
            modified: old_modified,
            changed,
        } = &mut self.upper.node_mut(id).times;
        apply(old_accessed, accessed);
        apply(old_modified, modified);
        *changed = now;
    }
}

/// Metadata of an object that exists in no layer.
fn synthetic_metadata(tree: TreeId, path: &[u8], kind: Kind) -> Metadata {
    let mut name = path.to_vec();
    push_component(&mut name, tree.to_string().as_bytes());
    // FNV-1a, as a stable number.
    let inode = name.iter().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3)
    });
    Metadata {
        device: UPPER_DEVICE,
        inode: inode >> 2 | 1 << 63,
        kind,
        links: 1,
        size: 0,
        times: Times::default(),
    }
}

pub(crate) fn device_metadata(device: Device) -> Metadata {
    synthetic_metadata(usize::MAX, &[device as u8], Kind::CharacterDevice)
}
