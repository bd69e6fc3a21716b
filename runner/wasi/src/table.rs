//! The descriptors of one instance.

use crate::errno::Errno;
use crate::fs::{Device, Dir, File, Listing};
use crate::rights::{self, FdFlags, Rights};

/// A descriptor: its target and its rights.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) object: Object,
    pub(crate) rights: Rights,
    pub(crate) inheriting: Rights,
    pub(crate) flags: FdFlags,
}

/// The target of a descriptor.
#[derive(Debug)]
pub(crate) enum Object {
    Stdin,
    Stdout,
    Stderr,
    Device(Device),
    File(OpenFile),
    Directory(OpenDirectory),
}

/// An open regular file.
#[derive(Debug)]
pub(crate) struct OpenFile {
    pub(crate) file: File,
    pub(crate) position: u64,
    /// How the file was opened. A violation gives EBADF, unlike one of the rights.
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) dir: Dir,
    /// Which of the namespace's preopens it is.
    pub(crate) preopen: Option<usize>,
    pub(crate) listing: Option<Listing>,
}

impl Descriptor {
    /// A standard stream.
    pub(crate) fn stream(object: Object) -> Self {
        let transfer = match object {
            Object::Stdin => rights::FD_READ,
            _ => rights::FD_WRITE,
        };
        let rights = rights::STREAM | transfer;
        Self {
            object,
            rights,
            inheriting: rights,
            flags: 0,
        }
    }

    /// A directory with all rights, the namespace's preopen of this index.
    pub(crate) fn preopened(preopen: usize, dir: Dir) -> Self {
        Self {
            object: Object::Directory(OpenDirectory {
                dir,
                preopen: Some(preopen),
                listing: None,
            }),
            rights: rights::DIRECTORY,
            inheriting: rights::DIRECTORY | rights::FILE,
            flags: 0,
        }
    }

    /// Fails unless the descriptor has these rights.
    pub(crate) fn require(&self, rights: Rights) -> Result<(), Errno> {
        match self.rights & rights == rights {
            true => Ok(()),
            false => Err(Errno::Notcapable),
        }
    }

    /// The directory, if it is one with these rights.
    pub(crate) fn directory(&self, rights: Rights) -> Result<&OpenDirectory, Errno> {
        let Object::Directory(directory) = &self.object else {
            return Err(Errno::Badf);
        };
        self.require(rights)?;
        Ok(directory)
    }

    pub(crate) fn is_directory(&self) -> bool {
        matches!(self.object, Object::Directory(_))
    }

    /// The file, if it is one with these rights.
    pub(crate) fn file(&mut self, rights: Rights) -> Result<&mut OpenFile, Errno> {
        if !matches!(self.object, Object::File(_)) {
            return Err(Errno::Badf);
        }
        self.require(rights)?;
        match &mut self.object {
            Object::File(file) => Ok(file),
            _ => Err(Errno::Badf),
        }
    }
}

/// First number after stdin, stdout and stderr.
const STANDARD_STREAMS: u32 = 3;

/// Descriptors by number.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Option<Descriptor>>,
    limit: usize,
    /// Whether the limit refused a descriptor.
    refused: bool,
}

impl Table {
    /// Creates a table with the descriptors of `first` as the numbers from 0 on.
    pub(crate) fn new(first: impl IntoIterator<Item = Descriptor>, limit: usize) -> Self {
        let mut slots = Vec::with_capacity(8);
        slots.extend(first.into_iter().map(Some));
        Self {
            slots,
            limit,
            refused: false,
        }
    }

    pub(crate) fn get(&self, fd: u32) -> Result<&Descriptor, Errno> {
        let slot = self.slots.get(fd as usize);
        slot.and_then(Option::as_ref).ok_or(Errno::Badf)
    }

    pub(crate) fn get_mut(&mut self, fd: u32) -> Result<&mut Descriptor, Errno> {
        let slot = self.slots.get_mut(fd as usize);
        slot.and_then(Option::as_mut).ok_or(Errno::Badf)
    }

    /// Whether another descriptor fits. Records a refusal.
    pub(crate) fn make_room(&mut self) -> bool {
        let room = self.slots.len() < self.limit || self.slots.iter().any(Option::is_none);
        self.refused |= !room;
        room
    }

    /// Whether the limit has refused a descriptor.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }

    /// Inserts a descriptor at the lowest free number.
    pub(crate) fn insert(&mut self, descriptor: Descriptor) -> Result<u32, Descriptor> {
        let free = self.slots.iter().position(Option::is_none);
        let index = match free {
            Some(index) => {
                self.slots[index] = Some(descriptor);
                index
            }
            None if self.slots.len() < self.limit => {
                self.slots.push(Some(descriptor));
                self.slots.len() - 1
            }
            None => return Err(descriptor),
        };
        // The limit of descriptors is far below 2^32.
        Ok(index as u32)
    }

    /// Removes a descriptor.
    pub(crate) fn remove(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        let slot = self.slots.get_mut(fd as usize);
        slot.and_then(Option::take).ok_or(Errno::Badf)
    }

    /// Moves a descriptor to another number and returns the descriptor that was there.
    ///
    /// The target number must be in use, as the specification says, or that of a standard stream: a
    /// program that redirects its stdout moves it away and then moves another descriptor to its number.
    pub(crate) fn renumber(&mut self, from: u32, to: u32) -> Result<Option<Descriptor>, Errno> {
        self.get(from)?;
        if to >= STANDARD_STREAMS {
            self.get(to)?;
        }
        if from == to {
            return Ok(None);
        }
        let moved = self.slots[from as usize].take();
        Ok(std::mem::replace(&mut self.slots[to as usize], moved))
    }

    pub(crate) fn iter_mut(&mut self) -> impl Iterator<Item = &mut Descriptor> {
        self.slots.iter_mut().flatten()
    }
}
