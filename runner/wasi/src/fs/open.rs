//! Opening files, and the data of open ones.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::content::Content;
use super::device::Device;
use super::entry::{At, Dir, Entry, LowerFile};
use super::metadata::{Kind, Metadata, NewTime, now, timestamps};
use super::namespace::{Access, TreeId};
use super::tree::FileSystem;
use super::upper::{Body, Directory, Key, NodeId, Slot};
use super::walk::Target;
use crate::errno::Errno;

/// Looks at what is to be opened, as long as it is another thing when it is opened.
const MOST_ATTEMPTS: usize = 16;

/// How a path is to be opened.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct OpenOptions {
    pub(crate) follow: bool,
    pub(crate) create: bool,
    pub(crate) exclusive: bool,
    pub(crate) truncate: bool,
    pub(crate) directory: bool,
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// What opening a path gives.
#[derive(Debug)]
pub(crate) enum Opened {
    Directory(Dir),
    File(File),
    Device(Device),
}

/// An open regular file. Give it back with [`FileSystem::close`].
#[derive(Debug)]
pub(crate) enum File {
    /// A lower file as it is; if it has changed since, its node has what counts.
    Lower { tree: TreeId, fd: OwnedFd, key: Key },
    /// A file of the upper layer.
    Node(NodeId),
    /// A file of a tree that writes through.
    Direct(OwnedFd),
}

impl FileSystem {
    /// Opens `path` from `base` on, with O_CREAT and the like as in POSIX.
    pub(crate) fn open(
        &mut self,
        base: &Dir,
        path: &[u8],
        options: OpenOptions,
    ) -> Result<Opened, Errno> {
        // The host or another instance may make, replace or remove the file between the look at it and its
        // opening, which is no error of the guest. A storm of changes must not hold it for ever.
        for _ in 1..MOST_ATTEMPTS {
            match self.try_open(base, path, options) {
                Err(Errno::Stale) => {}
                Err(Errno::Exist) if !options.exclusive => {}
                opened => return opened,
            }
        }
        self.try_open(base, path, options)
    }

    fn try_open(&mut self, base: &Dir, path: &[u8], options: OpenOptions) -> Result<Opened, Errno> {
        let new_only = options.create && options.exclusive;
        if options.create && path.ends_with(b"/") {
            // What is made here is never a directory; errors on the way there come first.
            self.walk_to_name(base, path)?;
            return Err(Errno::Isdir);
        }
        let target = self.walk(base, path, options.follow && !new_only)?;
        let Target {
            parent,
            name,
            entry,
            slash,
        } = target;
        let Some(entry) = entry else {
            return match options.create {
                false => Err(Errno::Noent),
                true if slash => Err(Errno::Isdir),
                true => self.create_file(&parent, &name, options).map(Opened::File),
            };
        };
        if new_only {
            return Err(Errno::Exist);
        }
        let entry = match entry {
            Entry::Directory(dir) => {
                if options.write || options.create || options.truncate {
                    return Err(Errno::Isdir);
                }
                // What may not be looked at may not be opened either.
                self.directory_metadata(&dir)?;
                if let At::Upper(id) = dir.at {
                    self.upper.node_mut(id).handles += 1;
                }
                return Ok(Opened::Directory(dir));
            }
            // A symlink that was followed may end with a slash, too.
            _ if slash && options.create => return Err(Errno::Isdir),
            _ if slash || options.directory => return Err(Errno::Notdir),
            entry => entry,
        };
        if self.link(&entry).is_some() {
            return Err(Errno::Loop);
        }
        match entry {
            Entry::Directory(_) => Err(Errno::Isdir),
            Entry::Device(device) => Ok(Opened::Device(device)),
            Entry::Node(id) => self.open_node(id, options),
            Entry::Lower(file) => self.open_lower(file, options).map(Opened::File),
        }
    }

    fn open_node(&mut self, id: NodeId, options: OpenOptions) -> Result<Opened, Errno> {
        match &self.upper.node(id).body {
            Body::Device(device) => return Ok(Opened::Device(*device)),
            Body::File(_) => {}
            _ => return Err(Errno::Acces),
        }
        if options.truncate {
            self.set_node_length(id, 0)?;
        }
        self.upper.node_mut(id).handles += 1;
        Ok(Opened::File(File::Node(id)))
    }

    fn open_lower(&mut self, file: LowerFile, options: OpenOptions) -> Result<File, Errno> {
        if file.probe.metadata.kind != Kind::RegularFile {
            return Err(Errno::Acces);
        }
        let change = options.write || options.truncate;
        let access = self.tree(file.tree).access;
        match access {
            Access::ReadOnly if change => Err(Errno::Rofs),
            Access::ReadWrite => {
                let flags = direct_flags(options);
                let root = &self.tree(file.tree).root;
                let fd = root.open_data(&file.path, &file.probe, flags)?;
                if options.truncate {
                    rustix::fs::ftruncate(&fd, 0)?;
                }
                Ok(File::Direct(fd))
            }
            Access::CopyOnWrite if options.truncate => {
                let id = self.file_node(file)?;
                self.set_node_length(id, 0)?;
                self.upper.node_mut(id).handles += 1;
                Ok(File::Node(id))
            }
            Access::ReadOnly | Access::CopyOnWrite => {
                let root = &self.tree(file.tree).root;
                let fd = root.open_data(&file.path, &file.probe, OFlags::RDONLY)?;
                let key = file.key();
                self.upper.open_lower(key);
                Ok(File::Lower {
                    tree: file.tree,
                    fd,
                    key,
                })
            }
        }
    }

    fn create_file(
        &mut self,
        parent: &Dir,
        name: &[u8],
        options: OpenOptions,
    ) -> Result<File, Errno> {
        if self.writable(parent.tree)? == Access::ReadWrite {
            return self.create_direct(parent, name, options).map(File::Direct);
        }
        let id = self.add_node(parent, name, Body::File(Content::default()))?;
        self.upper.node_mut(id).handles += 1;
        Ok(File::Node(id))
    }

    /// Makes a node under a name that is free.
    pub(crate) fn add_node(
        &mut self,
        parent: &Dir,
        name: &[u8],
        body: Body,
    ) -> Result<NodeId, Errno> {
        if !self.is_linked(parent) {
            return Err(Errno::Noent);
        }
        let above = self.directory_node(parent)?;
        let body = match body {
            Body::Directory(directory) => Body::Directory(Directory {
                parent: Some(above),
                ..directory
            }),
            body => body,
        };
        let id = self.upper.create(body)?;
        if let Err(errno) = self.upper.set_name(above, name, Slot::Node(id)) {
            self.upper.unlink(id);
            return Err(errno);
        }
        self.upper.touch(above);
        Ok(id)
    }

    /// Gives a file back.
    pub(crate) fn close(&mut self, file: File) {
        match file {
            File::Lower { key, .. } => self.upper.close_lower(&key),
            File::Node(id) => self.upper.close(id),
            File::Direct(_) => {}
        }
    }

    /// Gives a directory back.
    pub(crate) fn close_directory(&mut self, dir: Dir) {
        if let At::Upper(id) = dir.at {
            self.upper.close(id);
        }
    }

    /// The node that has a file's data, if it is not the host's file itself.
    fn data_node(&self, file: &File) -> Option<NodeId> {
        match file {
            File::Lower { key, .. } => self.upper.replacement(key),
            File::Node(id) => Some(*id),
            File::Direct(_) => None,
        }
    }

    fn content(&self, id: NodeId) -> Result<&Content, Errno> {
        match &self.upper.node(id).body {
            Body::File(content) => Ok(content),
            _ => Err(Errno::Io),
        }
    }

    /// Reads at `offset`; short only at the end of the file.
    pub(crate) fn read_at(
        &self,
        file: &File,
        buffer: &mut [u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        if offset > i64::MAX as u64 {
            return Err(Errno::Inval);
        }
        if let Some(id) = self.data_node(file) {
            return self.content(id)?.read_at(buffer, offset);
        }
        match file {
            File::Lower { fd, .. } | File::Direct(fd) => loop {
                match rustix::io::pread(fd, &mut *buffer, offset) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => return Ok(result?),
                }
            },
            File::Node(_) => Err(Errno::Io),
        }
    }

    /// Writes at `offset`; short if space ends in the middle.
    pub(crate) fn write_at(
        &mut self,
        file: &mut File,
        bytes: &[u8],
        offset: u64,
    ) -> Result<usize, Errno> {
        if offset > i64::MAX as u64 {
            return Err(Errno::Inval);
        }
        if let File::Direct(fd) = file {
            loop {
                match rustix::io::pwrite(&*fd, bytes, offset) {
                    Err(rustix::io::Errno::INTR) => {}
                    result => return Ok(result?),
                }
            }
        }
        let id = self.change_node(file)?;
        let (content, budget) = self.upper.content_mut(id).ok_or(Errno::Io)?;
        let count = content.write_at(bytes, offset, budget)?;
        if count > 0 {
            self.upper.touch(id);
        }
        Ok(count)
    }

    /// The node into which changes of an open file go.
    fn change_node(&mut self, file: &mut File) -> Result<NodeId, Errno> {
        let (tree, fd, key) = match file {
            File::Node(id) => return Ok(*id),
            File::Direct(_) => return Err(Errno::Io),
            File::Lower { tree, fd, key } => (*tree, fd, *key),
        };
        self.writable(tree)?;
        let id = match self.upper.replacement(&key) {
            Some(id) => id,
            None => {
                let lower = Metadata::from(&rustix::fs::fstat(&*fd)?);
                let origin = rustix::io::fcntl_dupfd_cloexec(&*fd, 0)?;
                let body = Body::File(Content::over(origin, lower.size));
                self.upper.replace(key, body, lower, None)?
            }
        };
        self.upper.node_mut(id).handles += 1;
        let before = std::mem::replace(file, File::Node(id));
        self.close(before);
        Ok(id)
    }

    pub(crate) fn file_metadata(&self, file: &File) -> Result<Metadata, Errno> {
        if let Some(id) = self.data_node(file) {
            return Ok(self.upper.node(id).metadata());
        }
        match file {
            File::Lower { fd, .. } | File::Direct(fd) => {
                Ok(Metadata::from(&rustix::fs::fstat(fd)?))
            }
            File::Node(_) => Err(Errno::Io),
        }
    }

    /// Cuts a file off or extends it by a hole.
    pub(crate) fn set_length(&mut self, file: &mut File, length: u64) -> Result<(), Errno> {
        if length > i64::MAX as u64 {
            return Err(Errno::Inval);
        }
        if let File::Direct(fd) = file {
            return Ok(rustix::fs::ftruncate(&*fd, length)?);
        }
        let id = self.change_node(file)?;
        self.set_node_length(id, length)
    }

    fn set_node_length(&mut self, id: NodeId, length: u64) -> Result<(), Errno> {
        let (content, budget) = self.upper.content_mut(id).ok_or(Errno::Io)?;
        content.set_length(length, budget)?;
        self.upper.touch(id);
        Ok(())
    }

    /// Makes sure that a range can be written.
    pub(crate) fn allocate(
        &mut self,
        file: &mut File,
        offset: u64,
        length: u64,
    ) -> Result<(), Errno> {
        let end = offset.checked_add(length).ok_or(Errno::Fbig)?;
        if length == 0 {
            return Err(Errno::Inval);
        }
        if end > i64::MAX as u64 {
            return Err(Errno::Fbig);
        }
        if let File::Direct(fd) = file {
            let flags = rustix::fs::FallocateFlags::empty();
            return Ok(rustix::fs::fallocate(&*fd, flags, offset, length)?);
        }
        let id = self.change_node(file)?;
        let (content, budget) = self.upper.content_mut(id).ok_or(Errno::Io)?;
        content.allocate(end, budget)?;
        self.upper.node_mut(id).times.changed = now();
        Ok(())
    }

    pub(crate) fn set_file_times(
        &mut self,
        file: &mut File,
        accessed: NewTime,
        modified: NewTime,
    ) -> Result<(), Errno> {
        if let File::Direct(fd) = file {
            let times = timestamps(accessed, modified);
            return Ok(rustix::fs::futimens(&*fd, &times)?);
        }
        let id = self.change_node(file)?;
        self.set_node_times(id, accessed, modified);
        Ok(())
    }

    /// Makes sure that data is on the disk, where there is one.
    pub(crate) fn sync(&self, file: &File, data_only: bool) -> Result<(), Errno> {
        match file {
            File::Direct(fd) if data_only => Ok(rustix::fs::fdatasync(fd)?),
            File::Direct(fd) => Ok(rustix::fs::fsync(fd)?),
            File::Lower { .. } | File::Node(_) => Ok(()),
        }
    }

    /// Sets whether writes go to the end, for files that others write too.
    pub(crate) fn set_append(&self, file: &File, append: bool) -> Result<(), Errno> {
        if let File::Direct(fd) = file {
            let mut flags = rustix::fs::fcntl_getfl(fd)?;
            flags.set(OFlags::APPEND, append);
            rustix::fs::fcntl_setfl(fd, flags)?;
        }
        Ok(())
    }
}

/// How a file of a tree that writes through is opened.
pub(crate) fn direct_flags(options: OpenOptions) -> OFlags {
    match (options.read, options.write || options.truncate) {
        (_, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
    }
}
