//! The descriptors of one instance.

use crate::errno::Errno;
use crate::fs::{Device, Dir, File, Listing};
use crate::rights::{self, FdFlags, Rights};

/// What a descriptor refers to, and what may be done with it.
#[derive(Debug)]
pub(crate) struct Descriptor {
    pub(crate) object: Object,
    pub(crate) rights: Rights,
    pub(crate) inheriting: Rights,
    pub(crate) flags: FdFlags,
}

/// What a descriptor refers to.
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
    /// As it was opened; unlike rights, this gives EBADF.
    pub(crate) read: bool,
    pub(crate) write: bool,
}

/// An open directory.
#[derive(Debug)]
pub(crate) struct OpenDirectory {
    pub(crate) dir: Dir,
    pub(crate) preopened: bool,
    pub(crate) listing: Option<Listing>,
}

impl Descriptor {
    /// One of the standard streams.
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

    /// A directory with all rights.
    pub(crate) fn preopened(dir: Dir) -> Self {
        Self {
            object: Object::Directory(OpenDirectory {
                dir,
                preopened: true,
                listing: None,
            }),
            rights: rights::DIRECTORY,
            inheriting: rights::DIRECTORY | rights::FILE,
            flags: 0,
        }
    }

    /// Refuses what the descriptor has no right to.
    pub(crate) fn require(&self, rights: Rights) -> Result<(), Errno> {
        match self.rights & rights == rights {
            true => Ok(()),
            false => Err(Errno::Notcapable),
        }
    }

    /// The directory, which must have `rights`.
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

    /// The file, which must have `rights`.
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

/// Stdin, stdout and stderr have the numbers below this one.
const STANDARD_STREAMS: u32 = 3;

/// Descriptors by number.
#[derive(Debug)]
pub(crate) struct Table {
    slots: Vec<Option<Descriptor>>,
    limit: usize,
    /// Whether one did not fit.
    refused: bool,
}

impl Table {
    /// A table with `first` as the numbers from 0 on.
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

    /// Whether one more fits; if not, it is remembered that one was asked for.
    pub(crate) fn make_room(&mut self) -> bool {
        let room = self.slots.len() < self.limit || self.slots.iter().any(Option::is_none);
        self.refused |= !room;
        room
    }

    /// Whether one more was asked for than fit.
    pub(crate) fn has_refused(&self) -> bool {
        self.refused
    }

    /// Takes the lowest number that is free.
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

    /// Frees a number.
    pub(crate) fn remove(&mut self, fd: u32) -> Result<Descriptor, Errno> {
        let slot = self.slots.get_mut(fd as usize);
        slot.and_then(Option::take).ok_or(Errno::Badf)
    }

    /// Moves a descriptor to another number; gives back what is there.
    ///
    /// A number that is free is none, as the specification has it, but for those of the standard
    /// streams: programs that redirect their stdout move it away, and then another descriptor to its
    /// number.
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
