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

use std::path::PathBuf;
use std::sync::Arc;

use super::device::Device;
use super::lower::{Root, RootError};
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

/// A directory of the host to be shown somewhere below the guest's `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path for the guest.
    pub guest: String,
    /// Path on the host.
    pub host: PathBuf,
    /// What the guest may do there.
    pub access: Access,
}

/// An entry of a list of mounts that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mount {entry:?}: {problem}")]
pub struct MountError {
    /// The entry as it was written.
    pub entry: String,
    /// What is wrong with it.
    #[source]
    pub problem: MountProblem,
}

/// What is wrong with a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountProblem {
    /// There is no `=`, or nothing on one side of it.
    #[error("expected GUEST=HOST, GUEST=HOST:ro, GUEST=HOST:cow or GUEST=HOST:rw")]
    Shape,
    /// The part after the last colon is none of the three.
    #[error("unknown access {0:?}, expected ro, cow or rw")]
    UnknownAccess(String),
    /// The guest's side is relative, or has `.`, `..` or a NUL in it, or is `/` itself.
    #[error("the guest's path must be absolute, without . and .., and below /")]
    GuestPath,
    /// Two mounts are at the same place.
    #[error("something else is mounted there already")]
    Twice,
    /// On the way to the point lies something that is no directory, or that cannot be read.
    #[error("the guest's path leads through something that is not a directory")]
    NotADirectory,
    /// The host's side cannot be opened.
    #[error(transparent)]
    Host(#[from] RootError),
}

/// Reads a comma-separated list of `GUEST=HOST[:ro|:cow|:rw]`; `ro` is the default.
///
/// # Errors
///
/// The first entry that is malformed; whether the directories exist is not looked at.
pub fn parse_mounts(list: &str) -> Result<Vec<Mount>, MountError> {
    let mut mounts: Vec<Mount> = Vec::new();
    for entry in list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let fail = |problem| MountError {
            entry: entry.to_owned(),
            problem,
        };
        let mount = parse_mount(entry).map_err(fail)?;
        let point = components(&mount.guest).map_err(fail)?;
        if mounts
            .iter()
            .any(|other| components(&other.guest).is_ok_and(|other| other == point))
        {
            return Err(fail(MountProblem::Twice));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

fn parse_mount(entry: &str) -> Result<Mount, MountProblem> {
    let (guest, host) = entry.split_once('=').ok_or(MountProblem::Shape)?;
    let (host, access) = match host.rsplit_once(':') {
        Some((host, "ro")) => (host, Access::ReadOnly),
        Some((host, "cow")) => (host, Access::CopyOnWrite),
        Some((host, "rw")) => (host, Access::ReadWrite),
        Some((_, other)) if !other.contains('/') => {
            return Err(MountProblem::UnknownAccess(other.to_owned()));
        }
        _ => (host, Access::ReadOnly),
    };
    if guest.is_empty() || host.is_empty() || host.contains('\0') {
        return Err(MountProblem::Shape);
    }
    Ok(Mount {
        guest: guest.to_owned(),
        host: host.into(),
        access,
    })
}

/// The components of a guest's mount path.
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

/// What guests see as `/`.
#[derive(Debug)]
pub struct Namespace {
    pub(crate) trees: Vec<Tree>,
}

/// One directory of the host in a namespace.
#[derive(Debug)]
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

const DEVICES: &[u8] = b"dev";

impl Namespace {
    /// Shows `root` as the guest's `/`, with the virtual devices in its `/dev`.
    pub fn new(root: Root, access: Access) -> Self {
        Self {
            trees: vec![Tree {
                root,
                access,
                points: Vec::new(),
                skeleton: vec![DEVICES.to_vec()],
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
        (self.devices && directory == DEVICES).then(|| Device::named(name))?
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
        let devices = (self.devices && directory == DEVICES)
            .then_some(Device::ALL.iter())
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_documented() {
        let mounts =
            parse_mounts("/data=/srv/data, /tmp=/var/tmp:rw,/c=/with:colon/x:cow,").unwrap();
        let expected = [
            ("/data", "/srv/data", Access::ReadOnly),
            ("/tmp", "/var/tmp", Access::ReadWrite),
            ("/c", "/with:colon/x", Access::CopyOnWrite),
        ];
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| {
                (
                    mount.guest.as_str(),
                    mount.host.to_str().unwrap(),
                    mount.access,
                )
            })
            .collect();
        assert_eq!(found, expected);
        assert!(parse_mounts("").unwrap().is_empty());
    }

    #[test]
    fn a_malformed_mount_is_shown() {
        for (entry, message) in [
            ("data", "expected GUEST=HOST"),
            ("=/srv", "expected GUEST=HOST"),
            ("/data=", "expected GUEST=HOST"),
            ("/data=:ro", "expected GUEST=HOST"),
            ("/data=/srv:rx", "unknown access \"rx\""),
            ("/data=/srv:", "unknown access \"\""),
            ("data=/srv", "must be absolute"),
            ("/=/srv", "must be absolute"),
            ("/a/../b=/srv", "must be absolute"),
            ("//data/=/other", "mounted there already"),
        ] {
            let error = parse_mounts(&format!("/data=/srv,{entry}")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("{entry:?}")), "{text}");
            assert!(text.contains(message), "{entry}: {text}");
        }
    }

    #[test]
    fn a_missing_host_directory_is_shown() {
        let root = Root::open("/").unwrap();
        let mounts = parse_mounts("/data=/nonexistent/x").unwrap();
        let error = Namespace::new(root, Access::CopyOnWrite)
            .with_mounts(&mounts)
            .unwrap_err();
        assert_eq!(error.entry, "/data=/nonexistent/x");
        assert!(error.to_string().contains("No such file"), "{error}");
    }
}
