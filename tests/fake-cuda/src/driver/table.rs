//! Tables of live objects by handle. A handle is never reused, so that the use of a destroyed one is detected.

use std::collections::BTreeMap;

/// The kind of a handle. Its number is part of the handle.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Context = 1,
    Stream,
    Event,
    Module,
    Function,
    Library,
    Kernel,
    Pool,
    Graph,
    Node,
    GraphExec,
    Link,
}

/// Handles look like addresses in a program, but are not mapped.
const BASE: u64 = 0x5c00_0000_0000;

pub(crate) trait Object {
    const KIND: Kind;
}

#[derive(Debug)]
pub(crate) struct Table<T> {
    live: BTreeMap<u64, T>,
    created: u64,
}

impl<T: Object> Table<T> {
    pub(crate) fn new() -> Self {
        Self {
            live: BTreeMap::new(),
            created: 0,
        }
    }

    pub(crate) fn insert(&mut self, object: T) -> u64 {
        self.created += 1;
        let handle = BASE | (T::KIND as u64) << 36 | self.created << 4;
        self.live.insert(handle, object);
        handle
    }

    pub(crate) fn get(&self, handle: u64) -> Option<&T> {
        self.live.get(&handle)
    }

    pub(crate) fn get_mut(&mut self, handle: u64) -> Option<&mut T> {
        self.live.get_mut(&handle)
    }

    pub(crate) fn remove(&mut self, handle: u64) -> Option<T> {
        self.live.remove(&handle)
    }

    /// Why a handle is not in the table.
    pub(crate) fn absence(&self, handle: u64) -> &'static str {
        let number = (handle & 0xf_ffff_ffff) >> 4;
        let ours = handle & !0xf_ffff_ffff == BASE | (T::KIND as u64) << 36;
        if ours && handle & 0xf == 0 && (1..=self.created).contains(&number) {
            "a destroyed"
        } else {
            "no"
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.live.len()
    }

    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = (u64, &T)> {
        self.live.iter().map(|(handle, object)| (*handle, object))
    }

    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.live.values_mut()
    }

    /// Removes the objects for which `remove` returns true, and returns their number.
    pub(crate) fn remove_where(&mut self, mut remove: impl FnMut(u64, &T) -> bool) -> usize {
        let before = self.live.len();
        self.live.retain(|handle, object| !remove(*handle, object));
        before - self.live.len()
    }
}
