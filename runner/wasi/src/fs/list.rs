//! Reading directories: one list out of both layers and the namespace.

use std::collections::BTreeMap;

use super::metadata::Kind;
use super::namespace::TreeId;
use super::tree::{At, Dir, FileSystem};
use super::upper::Slot;
use crate::errno::Errno;

/// One name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
}

impl FileSystem {
    /// The names in a directory without `.` and `..`, in the order of their bytes, so that a list
    /// that is made again goes on at the same place.
    pub(crate) fn list(&self, dir: &Dir) -> Result<Vec<Name>, Errno> {
        let dir = self.current(dir.clone());
        let names = match &dir.at {
            At::Lower(path) => self.lower_names(dir.tree, path)?,
            At::Upper(id) => {
                if self.upper.node(*id).links == 0 {
                    return Err(Errno::Noent);
                }
                let directory = self.upper.directory(*id);
                let mut names = match &directory.origin {
                    Some(path) => self.lower_names(dir.tree, path)?,
                    None => BTreeMap::new(),
                };
                for (name, slot) in &directory.names {
                    match slot {
                        Slot::Whiteout => {
                            names.remove(name);
                        }
                        Slot::Node(id) => {
                            let node = self.upper.node(*id);
                            names.insert(name.clone(), (node.inode, node.kind()));
                        }
                    }
                }
                names
            }
        };
        let entry = |(name, (inode, kind))| Name { name, inode, kind };
        Ok(names.into_iter().map(entry).collect())
    }

    fn lower_names(
        &self,
        tree: TreeId,
        path: &[u8],
    ) -> Result<BTreeMap<Vec<u8>, (u64, Kind)>, Errno> {
        let place = self.tree(tree);
        let listed = match place.root.list(path) {
            Err(Errno::Noent | Errno::Notdir | Errno::Loop | Errno::Acces)
                if place.is_skeleton(path) =>
            {
                Vec::new()
            }
            listed => listed?,
        };
        let mut names: BTreeMap<_, _> = listed
            .into_iter()
            .map(|lower| (lower.name, (lower.inode, lower.kind)))
            .collect();
        for (name, is_directory) in place.added_names(path) {
            let found = self.lookup_lower(tree, path, name)?;
            let inode = match &found {
                Some(entry) => self.metadata(entry).map_or(0, |metadata| metadata.inode),
                None => 0,
            };
            let kind = match is_directory {
                true => Kind::Directory,
                false => Kind::CharacterDevice,
            };
            names.insert(name.to_vec(), (inode, kind));
        }
        Ok(names)
    }
}
