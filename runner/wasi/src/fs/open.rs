//! Opening files, and the data of open ones.

use std::os::fd::OwnedFd;

use rustix::fs::OFlags;

use super::content::Content;
use super::device::Device;
use super::entry::{At, Dir, Entry, LowerFile};
use super::metadata::{Kind, Metadata, NewTime, now, timestamps};
use super::namespace::Access;
use super::path::TreeId;
use super::tree::FileSystem;
use super::upper::{Body, Directory, Key, NodeId, Slot};
use super::walk::Target;
use crate::errno::Errno;

/// Maximum number of attempts to open a file that changes between its inspection and its opening.
const MOST_ATTEMPTS: usize = 16;

/// Options for opening a path.
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

/// The result of opening a path.
#[derive(Debug)]
pub(crate) enum Opened {
    Directory(Dir),
    File(File),
    Device(Device),
}

/// An open regular file. Must be released with [`FileSystem::close`].
#[derive(Debug)]
pub(crate) enum File {
    /// An unchanged lower file. If it has changed since, its node has the data.
    Lower { tree: TreeId, fd: OwnedFd, key: Key },
    /// A file of the upper layer.
    Node(NodeId),
    /// A file of a tree that writes through.
    Direct(OwnedFd),
}

impl FileSystem {
    /// Opens `path` relative to `base`. O_CREAT and similar flags work as in POSIX.
    pub(crate) fn open(
        &mut self,
        base: &Dir,
        path: &[u8],
        options: OpenOptions,
    ) -> Result<Opened, Errno> {
        // The host or another instance may create, replace or remove the file between its inspection and its
        // opening, which is not the guest's error. A storm of changes must not hold the guest forever.
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
            // This call never creates a directory. Errors of the walk take precedence.
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
                // A file that may not be inspected may not be opened either.
                self.directory_metadata(&dir)?;
                if let At::Upper(id) = dir.at {
                    self.upper.node_mut(id).handles += 1;
                }
                return Ok(Opened::Directory(dir));
            }
            // A followed symlink may end with a slash, too.
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

    /// Creates a node under a free name.
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

    /// Releases a file.
    pub(crate) fn close(&mut self, file: File) {
        match file {
            File::Lower { key, .. } => self.upper.close_lower(&key),
            File::Node(id) => self.upper.close(id),
            File::Direct(_) => {}
        }
    }

    /// Releases a directory.
    pub(crate) fn close_directory(&mut self, dir: Dir) {
        if let At::Upper(id) = dir.at {
            self.upper.close(id);
        }
    }

    /// The node that has a file's data, unless the host's file has it.
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

    /// Reads at `offset`. The read is short only at the end of the file.
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

    /// Writes at `offset`. The write is short if space ends in the middle.
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

    /// The node that receives changes of an open file.
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

    /// Truncates a file or extends it by a hole.
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

    /// Reserves space for writing a range.
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

    /// Flushes data to the disk, if the file has one.
    pub(crate) fn sync(&self, file: &File, data_only: bool) -> Result<(), Errno> {
        match file {
            File::Direct(fd) if data_only => Ok(rustix::fs::fdatasync(fd)?),
            File::Direct(fd) => Ok(rustix::fs::fsync(fd)?),
            File::Lower { .. } | File::Node(_) => Ok(()),
        }
    }

    /// Sets whether writes append, for files that other programs write, too.
    pub(crate) fn set_append(&self, file: &File, append: bool) -> Result<(), Errno> {
        if let File::Direct(fd) = file {
            let mut flags = rustix::fs::fcntl_getfl(fd)?;
            flags.set(OFlags::APPEND, append);
            rustix::fs::fcntl_setfl(fd, flags)?;
        }
        Ok(())
    }
}

/// Flags with which a file of a tree that writes through is opened.
pub(crate) fn direct_flags(options: OpenOptions) -> OFlags {
    match (options.read, options.write || options.truncate) {
        (_, false) => OFlags::RDONLY,
        (false, true) => OFlags::WRONLY,
        (true, true) => OFlags::RDWR,
    }
}
