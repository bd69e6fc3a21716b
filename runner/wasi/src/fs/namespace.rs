//! The guest's `/`: a host directory and the mounts below it.
//!
//! ```text
//! tree 0   wasm_root      usually copy-on-write, with the virtual devices in dev/
//! tree 1.. wasm_mounts    each at a mount point, a canonical path in an earlier tree
//! ```
//!
//! A namespace is opened once per process and shared by all instances. It never changes. The directories
//! above a mount point exist for the guest even if the lower layer lacks them (the *skeleton*).

use super::device::{DEVICES, Device, OWN_DEVICES};
use super::entry::Dir;
use super::lower::Root;
use super::path::TreeId;

/// A guest's access to a host directory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Changes fail with EROFS.
    #[default]
    ReadOnly,
    /// Changes stay in memory and vanish with the instance.
    CopyOnWrite,
    /// Changes are made to the host's files.
    ReadWrite,
}

/// The guest's `/`. A clone shows the same directories.
#[derive(Debug, Clone)]
pub struct Namespace {
    pub(crate) trees: Vec<Tree>,
    /// `/` and the added preopened directories, in the order of their descriptors.
    pub(crate) preopens: Vec<Preopen>,
}

/// A directory for which guests have a descriptor from the start.
#[derive(Debug, Clone)]
pub(crate) struct Preopen {
    pub(crate) name: String,
    pub(crate) dir: Dir,
}

/// A host directory in a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) root: Root,
    pub(crate) access: Access,
    /// Mount points in this tree: canonical paths, and the trees mounted there.
    pub(super) points: Vec<(Vec<u8>, TreeId)>,
    /// Canonical paths of directories that exist even if the lower layer lacks them.
    pub(super) skeleton: Vec<Vec<u8>>,
    /// The directory in which this tree is mounted. `None` for tree 0 and for detached trees.
    pub(crate) above: Option<(TreeId, Vec<u8>)>,
    devices: bool,
}

impl Namespace {
    /// Creates a namespace with `root` as `/` and the virtual devices in `/dev`.
    pub fn new(root: Root, access: Access) -> Self {
        Self {
            trees: vec![Tree {
                root,
                access,
                points: Vec::new(),
                skeleton: vec![DEVICES.to_vec(), OWN_DEVICES.to_vec()],
                above: None,
                devices: true,
            }],
            preopens: vec![Preopen {
                name: "/".to_owned(),
                dir: Dir::ROOT,
            }],
        }
    }
}

impl Tree {
    /// Creates a tree other than the guest's `/`.
    pub(super) fn new(root: Root, access: Access, above: Option<(TreeId, Vec<u8>)>) -> Self {
        Self {
            root,
            access,
            points: Vec::new(),
            skeleton: Vec::new(),
            above,
            devices: false,
        }
    }

    /// The tree that is mounted at a canonical path.
    pub(crate) fn point(&self, path: &[u8]) -> Option<TreeId> {
        let found = self.points.iter().find(|(point, _)| point == path);
        found.map(|(_, tree)| *tree)
    }

    /// Whether the directory at a canonical path exists even if the lower layer lacks it.
    pub(crate) fn is_skeleton(&self, path: &[u8]) -> bool {
        self.skeleton.iter().any(|known| known == path)
    }

    /// Whether a mount point or skeleton directory is at or below a canonical path.
    pub(crate) fn is_busy(&self, path: &[u8]) -> bool {
        let special = self
            .points
            .iter()
            .map(|(point, _)| point)
            .chain(&self.skeleton);
        special.into_iter().any(|special| {
            special.starts_with(path)
                && (path.is_empty() || matches!(special.get(path.len()), None | Some(b'/')))
        })
    }

    /// Whether every component of a canonical path comes from the lower layer alone.
    pub(crate) fn is_plain(&self, path: &[u8]) -> bool {
        let first = |path: &[u8]| {
            path.iter()
                .position(|&byte| byte == b'/')
                .unwrap_or(path.len())
        };
        let end = first(path);
        let special = self
            .points
            .iter()
            .map(|(point, _)| point)
            .chain(&self.skeleton);
        special
            .into_iter()
            .all(|special| special[..first(special)] != path[..end])
    }

    /// The virtual device `name` in the directory at a canonical path.
    pub(crate) fn device(&self, directory: &[u8], name: &[u8]) -> Option<Device> {
        self.devices.then(|| Device::find(directory, name))?
    }

    /// Names that the namespace adds to the directory at a canonical path: directories, devices.
    pub(crate) fn added_names(&self, directory: &[u8]) -> impl Iterator<Item = (&[u8], bool)> {
        let special = self
            .points
            .iter()
            .map(|(point, _)| point)
            .chain(&self.skeleton);
        let directories = special.filter_map(move |special| {
            let name = match directory {
                b"" => special.as_slice(),
                _ => special.strip_prefix(directory)?.strip_prefix(b"/")?,
            };
            (!name.is_empty() && !name.contains(&b'/')).then_some((name, true))
        });
        let devices = self
            .devices
            .then(|| Device::all_in(directory))
            .into_iter()
            .flatten()
            .map(|(name, _)| (name.as_bytes(), false));
        directories.chain(devices)
    }
}
