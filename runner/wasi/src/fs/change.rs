//! Changes of names: directories, links, removal, rename.
//!
//! The checks are in Linux's order, so that a call with several faults returns the same error. In trees
//! that write through, `direct.rs` makes the change after the checks of the namespace.

use std::collections::BTreeMap;

use super::entry::{At, Dir, Entry};
use super::metadata::now;
use super::namespace::Access;
use super::path::TreeId;
use super::tree::FileSystem;
use super::upper::{Body, Directory, NodeId, Slot};
use super::walk::{Target, trim_slashes};
use crate::errno::Errno;

/// A directory of a tree that writes through has moved to another path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Moved {
    pub(crate) tree: TreeId,
    pub(crate) from: Vec<u8>,
    pub(crate) to: Vec<u8>,
}

/// An upper bound of the cost of two names and the nodes above them.
const RENAME_RESERVE: u64 = 2048;

impl FileSystem {
    pub(crate) fn create_directory(&mut self, base: &Dir, path: &[u8]) -> Result<(), Errno> {
        let target = self.walk_to_name(base, path)?;
        if target.entry.is_some() {
            return Err(Errno::Exist);
        }
        if self.writable(target.parent.tree)? == Access::ReadWrite {
            return self.create_directory_direct(&target.parent, &target.name);
        }
        let directory = Directory {
            parent: None,
            origin: None,
            names: BTreeMap::new(),
        };
        self.add_node(&target.parent, &target.name, Body::Directory(directory))?;
        Ok(())
    }

    pub(crate) fn symlink(&mut self, content: &[u8], base: &Dir, path: &[u8]) -> Result<(), Errno> {
        match content.first() {
            None => return Err(Errno::Noent),
            // wasmtime refuses these, too. On shared storage they would mislead programs of the host.
            Some(b'/') => return Err(Errno::Perm),
            Some(_) if content.len() >= 4096 => return Err(Errno::Nametoolong),
            Some(_) if content.contains(&0) => return Err(Errno::Inval),
            Some(_) => {}
        }
        let target = self.walk_to_name(base, path)?;
        if target.slash {
            // It must be a directory, which is there then. Linux says EEXIST of anything; wasmtime looks first.
            self.walk(base, path, true)?.found()?;
            return Err(Errno::Exist);
        }
        if target.entry.is_some() {
            return Err(Errno::Exist);
        }
        if self.writable(target.parent.tree)? == Access::ReadWrite {
            return self.symlink_direct(content, &target.parent, &target.name);
        }
        self.add_node(
            &target.parent,
            &target.name,
            Body::Symlink(content.to_vec()),
        )?;
        Ok(())
    }

    pub(crate) fn read_link(&mut self, base: &Dir, path: &[u8]) -> Result<Vec<u8>, Errno> {
        let entry = self.walk(base, path, false)?.found()?;
        self.link(&entry).unwrap_or(Err(Errno::Inval))
    }

    /// Creates another name of a file.
    pub(crate) fn hard_link(
        &mut self,
        (base, path, follow): (&Dir, &[u8], bool),
        (new_base, new_path): (&Dir, &[u8]),
    ) -> Result<(), Errno> {
        let source = self.walk(base, path, follow)?;
        let source_tree = source.parent.tree;
        let (source_parent, source_name) = (source.parent.clone(), source.name.clone());
        let entry = source.found()?;
        let target = self.walk_to_name(new_base, new_path)?;
        if target.entry.is_some() {
            return Err(Errno::Exist);
        }
        if target.slash {
            return Err(Errno::Noent);
        }
        if source_tree != target.parent.tree {
            return Err(Errno::Xdev);
        }
        let access = self.writable(source_tree)?;
        if !self.is_linked(&target.parent) {
            return Err(Errno::Noent);
        }
        if matches!(entry, Entry::Directory(_)) {
            return Err(Errno::Perm);
        }
        if access == Access::ReadWrite {
            let from = (&source_parent, source_name.as_slice());
            return self.hard_link_direct(from, (&target.parent, &target.name));
        }
        if let Entry::Device(_) = entry {
            return Err(Errno::Perm);
        }
        let above = self.directory_node(&target.parent)?;
        let id = self.entry_node(entry)?;
        self.upper.set_name(above, &target.name, Slot::Node(id))?;
        self.upper.touch(above);
        let node = self.upper.node_mut(id);
        node.links += 1;
        node.times.changed = now();
        Ok(())
    }

    pub(crate) fn unlink(&mut self, base: &Dir, path: &[u8]) -> Result<(), Errno> {
        let target = self.walk_to_name(base, path)?;
        if let Some(Entry::Directory(_)) = target.entry {
            return Err(Errno::Isdir);
        }
        let (parent, name) = (target.parent.clone(), target.name.clone());
        let entry = target.found()?;
        if self.writable(parent.tree)? == Access::ReadWrite {
            return self.unlink_direct(&parent, &name);
        }
        let old = self.replaced(entry)?;
        let above = self.directory_node(&parent)?;
        self.hide(parent.tree, above, &name)?;
        self.upper.touch(above);
        self.drop_replaced(old);
        Ok(())
    }

    pub(crate) fn remove_directory(&mut self, base: &Dir, path: &[u8]) -> Result<(), Errno> {
        let target = self.walk_to_name(base, path)?;
        let (parent, name) = (target.parent.clone(), target.name.clone());
        let Entry::Directory(dir) = target.found()? else {
            return Err(Errno::Notdir);
        };
        if name.is_empty() {
            let parent = trim_slashes(path).ends_with(b"..");
            return Err(if parent {
                Errno::Notempty
            } else {
                Errno::Inval
            });
        }
        let access = self.writable(parent.tree)?;
        self.not_busy(&parent, &dir)?;
        if access == Access::ReadWrite {
            return self.remove_directory_direct(&parent, &name);
        }
        if !self.list(&dir)?.is_empty() {
            return Err(Errno::Notempty);
        }
        let above = self.directory_node(&parent)?;
        let id = self.directory_node(&dir)?;
        self.hide(parent.tree, above, &name)?;
        self.upper.touch(above);
        self.upper.remove_directory(id);
        Ok(())
    }

    /// Renames an entry, replacing the target if necessary. In a tree that writes through, descriptors of
    /// directories hold paths, which the caller updates from the result.
    pub(crate) fn rename(
        &mut self,
        (base, path): (&Dir, &[u8]),
        (new_base, new_path): (&Dir, &[u8]),
    ) -> Result<Option<Moved>, Errno> {
        let source = self.walk_to_name(base, path)?;
        let target = self.walk_to_name(new_base, new_path)?;
        if source.parent.tree != target.parent.tree {
            return Err(Errno::Xdev);
        }
        if source.name.is_empty() || target.name.is_empty() {
            return Err(Errno::Busy);
        }
        let Some(entry) = &source.entry else {
            return Err(Errno::Noent);
        };
        let tree = source.parent.tree;
        self.check_rename(&source, entry, &target)?;
        if target.entry.as_ref().is_some_and(|old| same(entry, old)) {
            return Ok(None);
        }
        let access = self.writable(tree)?;
        self.check_replace(entry, &target)?;
        if access == Access::ReadWrite {
            let is_directory = matches!(entry, Entry::Directory(_));
            let from = (&source.parent, source.name.as_slice());
            let moved = self.rename_direct(from, (&target.parent, &target.name))?;
            return Ok(Some(moved).filter(|_| is_directory));
        }
        if !self.is_linked(&target.parent) {
            return Err(Errno::Noent);
        }
        self.rename_in_upper(tree, source, target)?;
        Ok(None)
    }

    fn rename_in_upper(
        &mut self,
        tree: TreeId,
        source: Target,
        target: Target,
    ) -> Result<(), Errno> {
        let names = source.name.len() + target.name.len();
        if self.upper.budget.left() < RENAME_RESERVE + names as u64 {
            return Err(self.upper.budget.refuse());
        }
        let from = self.directory_node(&source.parent)?;
        let to = self.directory_node(&target.parent)?;
        let old = match target.entry {
            Some(Entry::Directory(dir)) => Replaced::Directory(self.directory_node(&dir)?),
            Some(entry) => self.replaced(entry)?,
            None => Replaced::Nothing,
        };
        let source_name = source.name.clone();
        let (id, is_directory) = match source.found()? {
            Entry::Directory(dir) => (self.directory_node(&dir)?, true),
            entry => (self.entry_node(entry)?, false),
        };
        self.upper.set_name(to, &target.name, Slot::Node(id))?;
        self.hide(tree, from, &source_name)?;
        if is_directory {
            self.upper.directory_mut(id).parent = Some(to);
        }
        self.upper.touch(from);
        self.upper.touch(to);
        self.upper.node_mut(id).times.changed = now();
        self.drop_replaced(old);
        Ok(())
    }

    /// Checks that do not depend on the replaced entry.
    fn check_rename(&self, source: &Target, entry: &Entry, target: &Target) -> Result<(), Errno> {
        if !matches!(entry, Entry::Directory(_)) && (source.slash || target.slash) {
            return Err(Errno::Notdir);
        }
        if let Entry::Directory(dir) = entry {
            if self.contains(dir, &target.parent) {
                return Err(Errno::Inval);
            }
            self.not_busy(&source.parent, dir)?;
        }
        if let Some(Entry::Directory(dir)) = &target.entry {
            if self.contains(dir, &source.parent) {
                return Err(Errno::Notempty);
            }
            self.not_busy(&target.parent, dir)?;
        }
        Ok(())
    }

    /// Checks whether the entry at the target may be replaced.
    fn check_replace(&self, entry: &Entry, target: &Target) -> Result<(), Errno> {
        match (entry, &target.entry) {
            (_, None) => Ok(()),
            (Entry::Directory(_), Some(Entry::Directory(old))) => {
                match self.list(old)?.is_empty() {
                    true => Ok(()),
                    false => Err(Errno::Notempty),
                }
            }
            (Entry::Directory(_), Some(_)) => Err(Errno::Notdir),
            (_, Some(Entry::Directory(_))) => Err(Errno::Isdir),
            (_, Some(_)) => Ok(()),
        }
    }

    /// Whether `inner` is `outer` or is inside it.
    fn contains(&self, outer: &Dir, inner: &Dir) -> bool {
        let outer = self.current(outer.clone());
        let mut dir = self.current(inner.clone());
        loop {
            if dir == outer {
                return true;
            }
            let parent = self.parent(&dir);
            if parent == dir {
                return false;
            }
            dir = parent;
        }
    }

    /// Refuses to move or remove a directory that is or contains a mount point.
    fn not_busy(&self, parent: &Dir, dir: &Dir) -> Result<(), Errno> {
        let origin = match &dir.at {
            At::Lower(path) => Some(path),
            At::Upper(id) => self.upper.directory(*id).origin.as_ref(),
        };
        let busy =
            parent.tree != dir.tree || origin.is_some_and(|path| self.tree(dir.tree).is_busy(path));
        if busy { Err(Errno::Busy) } else { Ok(()) }
    }

    /// Removes a name: with a whiteout if the lower layer has the name.
    fn hide(&mut self, tree: TreeId, above: NodeId, name: &[u8]) -> Result<(), Errno> {
        let shows = match self.upper.directory(above).origin.clone() {
            Some(path) => !matches!(self.lookup_lower(tree, &path, name), Ok(None)),
            None => false,
        };
        if shows {
            return self.upper.set_name(above, name, Slot::Whiteout);
        }
        self.upper.clear_name(above, name);
        Ok(())
    }

    /// Prepares to remove a name of an entry other than a directory.
    fn replaced(&mut self, entry: Entry) -> Result<Replaced, Errno> {
        Ok(match entry {
            Entry::Directory(_) => return Err(Errno::Isdir),
            Entry::Node(id) => Replaced::Node(id),
            Entry::Device(_) => Replaced::Nothing,
            // Other names and open descriptors of the file must see its smaller number of links.
            Entry::Lower(file)
                if file.probe.metadata.links > 1 || self.upper.is_open(&file.key()) =>
            {
                Replaced::Node(self.file_node(file)?)
            }
            Entry::Lower(_) => Replaced::Nothing,
        })
    }

    fn drop_replaced(&mut self, old: Replaced) {
        match old {
            Replaced::Nothing => {}
            Replaced::Node(id) => self.upper.unlink(id),
            Replaced::Directory(id) => self.upper.remove_directory(id),
        }
    }
}

/// The entry that loses its name.
#[derive(Debug)]
enum Replaced {
    Nothing,
    Node(NodeId),
    Directory(NodeId),
}

/// Whether two entries are the same file or directory.
fn same(one: &Entry, other: &Entry) -> bool {
    match (one, other) {
        (Entry::Directory(one), Entry::Directory(other)) => one == other,
        (Entry::Node(one), Entry::Node(other)) => one == other,
        (Entry::Lower(one), Entry::Lower(other)) => one.key() == other.key(),
        (Entry::Device(one), Entry::Device(other)) => one == other,
        _ => false,
    }
}
