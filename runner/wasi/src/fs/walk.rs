//! Path resolution through both layers.
//!
//! A guest's path is relative to a directory that the guest holds. `..` in the path may not lead above
//! that directory (EPERM, as in wasmtime). Symlinks are resolved inside the guest's `/`, as in a chroot:
//! an absolute target starts there, and `..` stops there.
//!
//! The kernel walks the rest of a path in one call if no entry of the upper layer or the namespace can be
//! on the way. That holds from the first directory without a node on, because a directory with a node has
//! nodes for all directories above it.

use std::borrow::Cow;

use super::entry::{At, Dir, Entry, LowerFile};
use super::lower::Probe;
use super::metadata::Kind;
use super::path::{TreeId, push_component, truncate_to_parent};
use super::tree::FileSystem;
use super::upper::{Body, NodeId, Slot};
use crate::errno::Errno;

/// Maximum number of symlinks in a path, as in Linux.
const MAX_LINKS: usize = 40;
/// Maximum length of a path and of a name, as in Linux.
const PATH_MAX: usize = 4096;
const NAME_MAX: usize = 255;

/// The result of a walk.
#[derive(Debug)]
pub(crate) struct Target {
    pub(crate) parent: Dir,
    /// Empty if the path ends in `.` or `..` or is a root.
    pub(crate) name: Vec<u8>,
    /// `None` if `parent` has no such name.
    pub(crate) entry: Option<Entry>,
    /// Whether the path ends with a slash, so that it must name a directory.
    pub(crate) slash: bool,
}

impl Target {
    /// The entry that the path names.
    pub(crate) fn found(self) -> Result<Entry, Errno> {
        match self.entry {
            Some(entry) if self.slash && !matches!(entry, Entry::Directory(_)) => {
                Err(Errno::Notdir)
            }
            Some(entry) => Ok(entry),
            None => Err(Errno::Noent),
        }
    }
}

/// The rest of a path during a walk, with the targets of symlinks inserted.
struct Rest<'a> {
    path: Cow<'a, [u8]>,
    position: usize,
    /// Number of bytes at the end of `path` that come from the guest and not from a symlink.
    own: usize,
    links: usize,
    /// Whether a symlink is on the way, so that the kernel cannot walk the rest in one call.
    by_steps: bool,
}

impl<'a> Rest<'a> {
    fn skip_slashes(&mut self) {
        while self.path.get(self.position) == Some(&b'/') {
            self.position += 1;
        }
    }

    fn left(&self) -> &[u8] {
        &self.path[self.position..]
    }

    /// Whether the next component comes from the guest and not from a symlink.
    fn is_own(&self) -> bool {
        self.left().len() <= self.own
    }

    /// Inserts the target of a symlink before the rest.
    fn follow(&mut self, target: &[u8]) -> Result<(), Errno> {
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Errno::Loop);
        }
        if target.is_empty() {
            return Err(Errno::Noent);
        }
        let left = self.left();
        let mut path = Vec::with_capacity(target.len() + 1 + left.len());
        path.extend_from_slice(target);
        // The rest starts with the slash after the symlink's name.
        path.extend_from_slice(left);
        if path.len() > 2 * PATH_MAX {
            return Err(Errno::Nametoolong);
        }
        self.own = self.own.min(left.len());
        self.by_steps = false;
        self.path = Cow::Owned(path);
        self.position = 0;
        Ok(())
    }
}

/// The result of a walk by the kernel.
enum AtOnce {
    /// Parent, name, entry, and whether a slash follows.
    Found(Dir, Vec<u8>, Option<Entry>, bool),
    /// An entry of the upper layer or the namespace, or a dot component, may be on the way.
    NotHere,
    /// A symlink, or an entry that is not a directory, is on the way.
    BySteps,
}

impl FileSystem {
    /// Resolves `path` relative to `base`. A symlink at its end is followed if `follow` is set or a slash
    /// comes after it.
    pub(crate) fn walk(&mut self, base: &Dir, path: &[u8], follow: bool) -> Result<Target, Errno> {
        if path.is_empty() {
            return Err(Errno::Noent);
        }
        if path[0] == b'/' {
            return Err(Errno::Perm);
        }
        if path.len() >= PATH_MAX {
            return Err(Errno::Nametoolong);
        }
        if path.contains(&0) {
            return Err(Errno::Inval);
        }
        let base = self.current(base.clone());
        let mut dir = base.clone();
        let mut rest = Rest {
            path: Cow::Borrowed(path),
            position: 0,
            own: path.len(),
            links: 0,
            by_steps: false,
        };
        loop {
            rest.skip_slashes();
            if rest.left().is_empty() {
                return Ok(directory_target(dir, true));
            }
            let at_once = match rest.by_steps {
                true => AtOnce::NotHere,
                false => self.walk_lower(&dir, rest.left())?,
            };
            let (parent, name, entry, slash) = match at_once {
                AtOnce::Found(parent, name, entry, slash) => {
                    rest.position = rest.path.len();
                    (parent, name, entry, slash)
                }
                AtOnce::NotHere | AtOnce::BySteps => {
                    rest.by_steps |= matches!(at_once, AtOnce::BySteps);
                    let name = first_component(rest.left()).to_vec();
                    match name.as_slice() {
                        b"." => {
                            rest.position += 1;
                            continue;
                        }
                        b".." => {
                            if rest.is_own() && dir == base {
                                return Err(Errno::Perm);
                            }
                            dir = self.parent(&dir);
                            rest.position += 2;
                            continue;
                        }
                        _ if name.len() > NAME_MAX => return Err(Errno::Nametoolong),
                        _ => {}
                    }
                    rest.position += name.len();
                    let slash = !rest.left().is_empty();
                    let entry = self.lookup(&dir, &name)?;
                    (dir.clone(), name, entry, slash)
                }
            };
            let last = rest.left().iter().all(|&byte| byte == b'/');
            if let Some(link) = entry.as_ref().and_then(|entry| self.link(entry))
                && (!last || follow || slash)
            {
                let target = link?;
                // `rest` still has the part after the link, except for the trailing slash of a path
                // that the kernel has walked to its end.
                if slash && rest.left().is_empty() {
                    rest.path = Cow::Borrowed(b"/");
                    rest.position = 0;
                }
                rest.follow(&target)?;
                dir = match rest.path.first() {
                    Some(b'/') => self.current(Dir::ROOT),
                    _ => parent,
                };
                continue;
            }
            match entry {
                _ if last => {
                    return Ok(Target {
                        parent,
                        name,
                        entry,
                        slash,
                    });
                }
                Some(Entry::Directory(found)) => dir = found,
                Some(_) => return Err(Errno::Notdir),
                None => return Err(Errno::Noent),
            }
        }
    }

    /// Finds a name that is to be made, moved or removed: a symlink there is never followed, not
    /// even with a slash after it.
    pub(crate) fn walk_to_name(&mut self, base: &Dir, path: &[u8]) -> Result<Target, Errno> {
        let trimmed = trim_slashes(path);
        if trimmed.is_empty() {
            return self.walk(base, path, false);
        }
        let mut target = self.walk(base, trimmed, false)?;
        target.slash |= trimmed.len() < path.len();
        Ok(target)
    }

    /// Lets the kernel walk a whole path, if all of it is in the lower layer.
    fn walk_lower(&self, dir: &Dir, left: &[u8]) -> Result<AtOnce, Errno> {
        let trimmed = trim_slashes(left);
        let Some(above) = self.shown_through(dir, first_component(trimmed)) else {
            return Ok(AtOnce::NotHere);
        };
        let plain = |name: &[u8]| !matches!(name, b"" | b"." | b"..") && name.len() <= NAME_MAX;
        let mut path = above.to_vec();
        push_component(&mut path, trimmed);
        let tree = self.tree(dir.tree);
        if !trimmed.split(|&byte| byte == b'/').all(plain)
            || !tree.is_plain(&path)
            || path.len() >= PATH_MAX
        {
            return Ok(AtOnce::NotHere);
        }
        let slash = trimmed.len() < left.len();
        let entry = match tree.root.probe(&path) {
            Ok(probe) => Some(self.lower_entry(dir.tree, path.clone(), probe)),
            Err(Errno::Noent) => {
                // The last component is missing, or an earlier one.
                if trimmed.contains(&b'/') {
                    let mut parent = path.clone();
                    truncate_to_parent(&mut parent);
                    let probe = tree.root.probe(&parent)?;
                    if probe.metadata.kind != Kind::Directory {
                        return Ok(AtOnce::BySteps);
                    }
                }
                None
            }
            Err(Errno::Loop | Errno::Notdir | Errno::Acces) => return Ok(AtOnce::BySteps),
            Err(errno) => return Err(errno),
        };
        let name = truncate_to_parent(&mut path);
        let parent = self.current(Dir {
            tree: dir.tree,
            at: At::Lower(path),
        });
        Ok(AtOnce::Found(parent, name, entry, slash))
    }

    /// The lower path of a directory in which `name` and everything below it is unchanged.
    fn shown_through<'a>(&'a self, dir: &'a Dir, name: &[u8]) -> Option<&'a [u8]> {
        let id = match &dir.at {
            At::Lower(path) => return Some(path),
            At::Upper(id) => *id,
        };
        let directory = self.upper.directory(id);
        if self.upper.node(id).links == 0 || directory.names.contains_key(name) {
            return None;
        }
        let origin = directory.origin.as_deref()?;
        let mut path = origin.to_vec();
        push_component(&mut path, name);
        match self.upper.origin(dir.tree, &path) {
            Some(_) => None,
            None => Some(origin),
        }
    }

    /// The entry of `name` in a directory.
    pub(crate) fn lookup(&self, dir: &Dir, name: &[u8]) -> Result<Option<Entry>, Errno> {
        let path = match &dir.at {
            At::Lower(path) => path,
            At::Upper(id) => {
                let directory = self.upper.directory(*id);
                match directory.names.get(name) {
                    Some(Slot::Whiteout) => return Ok(None),
                    Some(Slot::Node(id)) => return Ok(Some(self.node_entry(dir.tree, *id))),
                    None => {}
                }
                if self.upper.node(*id).links == 0 {
                    return Ok(None);
                }
                match &directory.origin {
                    Some(path) => path,
                    None => return Ok(None),
                }
            }
        };
        if let At::Upper(_) = &dir.at {
            // A directory with a node needs no inspection.
            let mut inner = path.clone();
            push_component(&mut inner, name);
            if let Some(id) = self.upper.origin(dir.tree, &inner) {
                return Ok(Some(self.node_entry(dir.tree, id)));
            }
        }
        self.lookup_lower(dir.tree, path, name)
    }

    /// The entry of `name` in a lower directory and the namespace.
    pub(crate) fn lookup_lower(
        &self,
        tree: TreeId,
        directory: &[u8],
        name: &[u8],
    ) -> Result<Option<Entry>, Errno> {
        let place = self.tree(tree);
        let mut path = directory.to_vec();
        push_component(&mut path, name);
        if let Some(mounted) = place.point(&path) {
            let root = self.current(Dir::root_of(mounted));
            return Ok(Some(Entry::Directory(root)));
        }
        if let Some(device) = place.device(directory, name) {
            return Ok(Some(Entry::Device(device)));
        }
        let skeleton = |path| {
            let at = At::Lower(path);
            Some(Entry::Directory(self.current(Dir { tree, at })))
        };
        match place.root.probe(&path) {
            Ok(probe) if probe.metadata.kind != Kind::Directory && place.is_skeleton(&path) => {
                Ok(skeleton(path))
            }
            Ok(probe) => Ok(Some(self.lower_entry(tree, path, probe))),
            Err(_) if place.is_skeleton(&path) => Ok(skeleton(path)),
            Err(Errno::Noent) => Ok(None),
            Err(Errno::Notdir) if place.is_skeleton(directory) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    fn lower_entry(&self, tree: TreeId, path: Vec<u8>, probe: Probe) -> Entry {
        if probe.metadata.kind == Kind::Directory {
            let at = At::Lower(path);
            return Entry::Directory(self.current(Dir { tree, at }));
        }
        let file = LowerFile { tree, path, probe };
        match self.upper.replacement(&file.key()) {
            Some(id) => Entry::Node(id),
            None => Entry::Lower(file),
        }
    }

    fn node_entry(&self, tree: TreeId, id: NodeId) -> Entry {
        match &self.upper.node(id).body {
            Body::Directory(_) => Entry::Directory(Dir {
                tree,
                at: At::Upper(id),
            }),
            _ => Entry::Node(id),
        }
    }

    /// The target if `entry` is a symlink.
    pub(crate) fn link(&self, entry: &Entry) -> Option<Result<Vec<u8>, Errno>> {
        match entry {
            Entry::Lower(file) if file.probe.is_link() => Some(file.probe.read_link()),
            Entry::Node(id) => match &self.upper.node(*id).body {
                Body::Symlink(target) => Some(Ok(target.clone())),
                _ => None,
            },
            _ => None,
        }
    }
}

fn directory_target(dir: Dir, slash: bool) -> Target {
    Target {
        parent: dir.clone(),
        name: Vec::new(),
        entry: Some(Entry::Directory(dir)),
        slash,
    }
}

fn first_component(path: &[u8]) -> &[u8] {
    let end = path.iter().position(|&byte| byte == b'/');
    &path[..end.unwrap_or(path.len())]
}

/// The path without trailing slashes.
pub(crate) fn trim_slashes(path: &[u8]) -> &[u8] {
    let end = path.iter().rposition(|&byte| byte != b'/');
    &path[..end.map_or(0, |end| end + 1)]
}
