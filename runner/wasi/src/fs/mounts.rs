//! Mounts: further host directories below the guest's `/`.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::entry::{At, Dir, Entry};
use super::lower::{Root, RootError};
use super::namespace::{Access, Namespace, Preopen, Tree};
use super::path::{TreeId, push_component, truncate_to_parent};
use super::tree::FileSystem;

/// A host directory to show below the guest's `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path in the guest.
    pub guest: String,
    /// Path on the host.
    pub host: PathBuf,
    /// What the guest may do there.
    pub access: Access,
}

/// A mount that cannot be made.
#[derive(Debug, thiserror::Error)]
#[error("mount {entry:?}: {problem}")]
pub struct MountError {
    /// The mount as `GUEST=HOST`.
    pub entry: String,
    /// What is wrong with it.
    #[source]
    pub problem: MountProblem,
}

/// What is wrong with a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountProblem {
    /// The guest path is relative, contains `.`, `..` or a NUL, or is `/` itself.
    #[error("the guest's path must be absolute, without . and .., and below /")]
    GuestPath,
    /// Two mounts are at the same place.
    #[error("something else is mounted there already")]
    Twice,
    /// The path to the mount point leads through something other than a readable directory.
    #[error("the guest's path leads through something that is not a directory")]
    NotADirectory,
    /// The host directory cannot be opened.
    #[error(transparent)]
    Host(#[from] RootError),
}

impl Namespace {
    /// Opens the host directories of `mounts` and adds them. A mount may be inside another.
    ///
    /// # Errors
    ///
    /// [`MountError`] for the first mount that cannot be made.
    pub fn with_mounts(mut self, mounts: &[Mount]) -> Result<Self, MountError> {
        let mut mounts: Vec<_> = mounts.iter().collect();
        // Shorter paths first, so that a mount that contains another is made before it.
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
        let above = Some((tree, above));
        namespace.trees.push(Tree::new(root, mount.access, above));
        Ok(namespace)
    }

    /// Adds a preopened directory called `name` for the directory at `point`, which must be `/` or a mount
    /// point.
    ///
    /// # Errors
    ///
    /// [`MountProblem::NotADirectory`] if there is no directory at `point`.
    pub fn with_preopen(self, name: &str, point: &str) -> Result<Self, MountProblem> {
        let shared = Arc::new(self);
        let mut fs = FileSystem::new(Arc::clone(&shared), 0);
        let mut dir = Dir::ROOT;
        for component in point.split('/').filter(|name| !name.is_empty()) {
            let target = fs.walk(&dir, component.as_bytes(), true);
            dir = match target.map(|target| target.entry) {
                Ok(Some(Entry::Directory(found))) => found,
                _ => return Err(MountProblem::NotADirectory),
            };
        }
        drop(fs);
        let mut namespace = Arc::into_inner(shared).ok_or(MountProblem::NotADirectory)?;
        namespace.preopens.push(Preopen {
            name: name.to_owned(),
            dir,
        });
        Ok(namespace)
    }

    /// Adds a preopened directory called `name` for a host directory that no path of the guest leads to.
    ///
    /// # Errors
    ///
    /// [`MountProblem::Host`] if the directory cannot be opened.
    pub fn with_detached_preopen(
        mut self,
        name: &str,
        host: &Path,
        access: Access,
    ) -> Result<Self, MountProblem> {
        let tree = self.trees.len();
        self.trees.push(Tree::new(Root::open(host)?, access, None));
        self.preopens.push(Preopen {
            name: name.to_owned(),
            dir: Dir::root_of(tree),
        });
        Ok(self)
    }
}

/// A mount point. Symlinks in its path are followed once, when the mount is made.
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

/// The canonical path of a directory in an unchanged file system.
fn lower_path(dir: &Dir) -> Vec<u8> {
    match &dir.at {
        At::Lower(path) => path.clone(),
        At::Upper(_) => Vec::new(),
    }
}

/// The components of a mount's guest path.
fn components(guest: &str) -> Result<Vec<&str>, MountProblem> {
    let relative = guest.strip_prefix('/').ok_or(MountProblem::GuestPath)?;
    let components: Vec<_> = relative
        .split('/')
        .filter(|name| !name.is_empty())
        .collect();
    if components.is_empty()
        || guest.contains('\0')
        || components.iter().any(|name| matches!(*name, "." | ".."))
    {
        return Err(MountProblem::GuestPath);
    }
    Ok(components)
}
