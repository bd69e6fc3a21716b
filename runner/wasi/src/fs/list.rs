//! Directory listings, merged from both layers and the namespace.

use std::collections::BTreeMap;

use super::entry::{At, Dir};
use super::metadata::Kind;
use super::path::TreeId;
use super::tree::FileSystem;
use super::upper::Slot;
use crate::errno::Errno;

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Name {
    pub(crate) name: Vec<u8>,
    pub(crate) inode: u64,
    pub(crate) kind: Kind,
}

/// The charge for a name of a kept list, besides its bytes.
const NAME_COST: usize = 64;
/// A list up to this size is kept without charge. A guest whose quota is exhausted may clean up by removing
/// names while it reads the directory, and a list that is read again would differ then.
const FREE: usize = 64 * 1024;

/// The names in a directory at the start of reading, so that a guest that continues with a cookie sees each name
/// once. Must be released with [`FileSystem::forget`].
#[derive(Debug)]
pub(crate) struct Listing {
    pub(crate) names: Vec<Name>,
    /// The charge to the budget.
    charged: usize,
}

impl FileSystem {
    /// Keeps a list of names if the budget has room: a guest can keep one for each of its descriptors, of
    /// directories that it has filled with names.
    pub(crate) fn keep(&mut self, names: Vec<Name>) -> Option<Listing> {
        let cost: usize = names.iter().map(|name| NAME_COST + name.name.len()).sum();
        let charged = if cost > FREE { cost } else { 0 };
        let budget = &mut self.upper.budget;
        // Without room the list is not kept, which is not an error.
        let fits = charged as u64 <= budget.left() && budget.charge(charged).is_ok();
        fits.then_some(Listing { names, charged })
    }

    /// Releases a list.
    pub(crate) fn forget(&mut self, listing: Listing) -> Vec<Name> {
        self.upper.budget.release(listing.charged);
        listing.names
    }

    /// The names in a directory without `.` and `..`, sorted by bytes, so that a list that is made again
    /// continues at the same place.
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
