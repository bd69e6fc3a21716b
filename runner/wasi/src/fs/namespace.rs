//! What guests see as `/`: one directory of the host and what is mounted below it.
//!
//! ```text
//! tree 0   wasm_root      usually copy-on-write, with the virtual devices in dev/
//! tree 1.. wasm_mounts    each at a point, which is a canonical path in an earlier tree
//! ```
//!
//! Opened once per process and shared by all instances; it never changes afterwards. The
//! directories that lead to a point exist for the guest even where the lower layer lacks them
//! (the *skeleton*).

use std::sync::Arc;

use super::device::{DEVICES, Device, OWN_DEVICES};
use super::lower::Root;
use super::mounts::{Mount, MountError, MountProblem, components};
use super::tree::{At, Dir, FileSystem};
use super::walk::Entry;
use crate::errno::Errno;

/// Index of a tree in its namespace.
pub(crate) type TreeId = usize;

/// What a guest may do with a directory of the host.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Access {
    /// Changes give EROFS.
    #[default]
    ReadOnly,
    /// Changes are kept in memory and vanish with the instance.
    CopyOnWrite,
    /// Changes are real and shared with everybody.
    ReadWrite,
}

/// What guests see as `/`. A clone shows the same directories.
#[derive(Debug, Clone)]
pub struct Namespace {
    pub(crate) trees: Vec<Tree>,
}

/// One directory of the host in a namespace.
#[derive(Debug, Clone)]
pub(crate) struct Tree {
    pub(crate) root: Root,
    pub(crate) access: Access,
    /// Canonical paths in this tree at which others are mounted.
    points: Vec<(Vec<u8>, TreeId)>,
    /// Canonical paths of directories that exist whatever the lower layer says.
    skeleton: Vec<Vec<u8>>,
    /// The directory in which this tree is mounted; none for tree 0.
    pub(crate) above: Option<(TreeId, Vec<u8>)>,
    devices: bool,
}

impl Namespace {
    /// Shows `root` as the guest's `/`, with the virtual devices in its `/dev`.
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
        }
    }

    /// Opens the host's side of `mounts` and shows them; one may lie in another.
    ///
    /// # Errors
    ///
    /// The first mount that is wrong.
    pub fn with_mounts(mut self, mounts: &[Mount]) -> Result<Self, MountError> {
        let mut mounts: Vec<_> = mounts.iter().collect();
        // The shorter first, so that whatever another lies in is there before it.
        mounts.sort_by_key(|mount| {
            mount
                .guest
                .split('/')
                .filter(|name| !name.is_empty())
                .count()
        });
        for mount in mounts {
            self = self.with_mount(mount).map_err(|problem| MountError {
                entry: format!("{}={}", mount.guest, mount.host.display()),
                problem,
            })?;
        }
        Ok(self)
    }

    fn with_mount(self, mount: &Mount) -> Result<Self, MountProblem> {
        let components = components(&mount.guest)?;
        let root = Root::open(&mount.host)?;
        let shared = Arc::new(self);
        let point = find_point(Arc::clone(&shared), &components)?;
        // `find_point` has dropped its clone.
        let mut namespace = Arc::into_inner(shared).ok_or(MountProblem::NotADirectory)?;

        let Point {
            tree,
            path,
            missing,
        } = point;
        let id = namespace.trees.len();
        let below = &mut namespace.trees[tree];
        if path.is_empty() || below.point(&path).is_some() {
            return Err(MountProblem::Twice);
        }
        let mut above = path.clone();
        truncate_to_parent(&mut above);
        for at in missing {
            below.skeleton.push(path[..at].to_vec());
        }
        below.points.push((path, id));
        namespace.trees.push(Tree {
            root,
            access: mount.access,
            points: Vec::new(),
            skeleton: Vec::new(),
            above: Some((tree, above)),
            devices: false,
        });
        Ok(namespace)
    }
}

/// Where a mount goes: symlinks on the way are followed once, when it is made.
struct Point {
    tree: TreeId,
    path: Vec<u8>,
    /// Lengths of the prefixes of `path` that the lower layer may lack.
    missing: Vec<usize>,
}

fn find_point(namespace: Arc<Namespace>, components: &[&str]) -> Result<Point, MountProblem> {
    let mut fs = FileSystem::new(namespace, 0);
    let mut dir = Dir::ROOT;
    let mut rest = components.iter();
    let mut path = Vec::new();
    let mut missing = Vec::new();
    for name in rest.by_ref() {
        match fs.walk(&dir, name.as_bytes(), true) {
            Ok(target) => match target.entry {
                Some(Entry::Directory(found)) => dir = found,
                Some(_) => return Err(MountProblem::NotADirectory),
                None => {
                    path = lower_path(&target.parent);
                    push_component(&mut path, &target.name);
                    missing.push(path.len());
                    dir = target.parent;
                    break;
                }
            },
            Err(Errno::Noent) => return Err(MountProblem::NotADirectory),
            Err(_) => return Err(MountProblem::NotADirectory),
        }
    }
    if missing.is_empty() {
        path = lower_path(&dir);
    }
    for name in rest {
        push_component(&mut path, name.as_bytes());
        missing.push(path.len());
    }
    Ok(Point {
        tree: dir.tree,
        path,
        missing,
    })
}

/// The canonical path of a directory of a file system that nobody has changed.
fn lower_path(dir: &Dir) -> Vec<u8> {
    match &dir.at {
        At::Lower(path) => path.clone(),
        At::Upper(_) => Vec::new(),
    }
}

impl Tree {
    /// What is mounted at a canonical path.
    pub(crate) fn point(&self, path: &[u8]) -> Option<TreeId> {
        let found = self.points.iter().find(|(point, _)| point == path);
        found.map(|(_, tree)| *tree)
    }

    /// Whether the directory at a canonical path exists whatever the lower layer says.
    pub(crate) fn is_skeleton(&self, path: &[u8]) -> bool {
        self.skeleton.iter().any(|known| known == path)
    }

    /// Whether something of the namespace lies at or below a canonical path.
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

    /// Whether everything on a canonical path comes from the lower layer alone.
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

/// Appends a component to a canonical path.
pub(crate) fn push_component(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Removes the last component of a canonical path, and gives it.
pub(crate) fn truncate_to_parent(path: &mut Vec<u8>) -> Vec<u8> {
    match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => {
            let name = path.split_off(slash + 1);
            path.truncate(slash);
            name
        }
        None => std::mem::take(path),
    }
}
