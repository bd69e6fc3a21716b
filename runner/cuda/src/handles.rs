//! The handles of guests, which are never handles of the driver.
//!
//! ```text
//! 31    28 27        18 17                0
//! | kind  | generation |      index        |
//! ```
//!
//! The kind is never 0, so that no handle equals 0 (no object), 1, or 2 (the default streams). The generation
//! distinguishes an object from an earlier one at the same index. Tables belong to one instance, so a forged handle can
//! refer only to objects of that instance. In guests with 8-byte handles the upper half is 0.

/// The kind of object that a handle refers to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub(crate) enum Kind {
    Context = 1,
    Module = 2,
    Function = 3,
    Stream = 4,
    Event = 5,
    Graph = 6,
    Node = 7,
    GraphExec = 8,
    Pool = 9,
    Library = 10,
    Kernel = 11,
}

const INDEX_BITS: u32 = 18;
const GENERATIONS: u32 = 1 << 10;
/// Most objects of one kind.
pub(crate) const MOST_OBJECTS: usize = 1 << INDEX_BITS;

/// A handle in the guest's representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct Handle(pub(crate) u64);

impl Handle {
    /// No object.
    pub(crate) const NULL: Self = Self(0);
}

#[derive(Debug)]
struct Place<T> {
    generation: u32,
    object: Option<T>,
}

/// The objects of one kind.
#[derive(Debug)]
pub(crate) struct Table<T> {
    kind: Kind,
    places: Vec<Place<T>>,
    /// Free indices. The one that was freed first is reused first.
    free: std::collections::VecDeque<u32>,
    live: usize,
    limit: usize,
}

impl<T> Table<T> {
    /// An empty table for at most `limit` objects.
    pub(crate) fn new(kind: Kind, limit: usize) -> Self {
        Self {
            kind,
            places: Vec::new(),
            free: std::collections::VecDeque::new(),
            live: 0,
            limit: limit.min(MOST_OBJECTS),
        }
    }

    /// Whether there is space for one more object.
    pub(crate) fn has_room(&self) -> bool {
        self.live < self.limit
    }

    /// Adds an object. Returns the object as an error if the table is full.
    pub(crate) fn insert(&mut self, object: T) -> Result<Handle, T> {
        if !self.has_room() {
            return Err(object);
        }
        let index = match self.free.pop_front() {
            Some(index) => index,
            None => {
                self.places.push(Place {
                    generation: 0,
                    object: None,
                });
                // At most `MOST_OBJECTS`, the limit of live objects.
                self.places.len() as u32 - 1
            }
        };
        let place = &mut self.places[index as usize];
        place.object = Some(object);
        self.live += 1;
        Ok(self.handle(index))
    }

    fn handle(&self, index: u32) -> Handle {
        let generation = self.places[index as usize].generation;
        Handle(u64::from(
            (self.kind as u32) << 28 | generation << INDEX_BITS | index,
        ))
    }

    fn index(&self, handle: Handle) -> Option<usize> {
        let raw = u32::try_from(handle.0).ok()?;
        let index = (raw & (MOST_OBJECTS as u32 - 1)) as usize;
        let place = self.places.get(index)?;
        let matches =
            raw >> 28 == self.kind as u32 && (raw >> INDEX_BITS) % GENERATIONS == place.generation;
        (matches && place.object.is_some()).then_some(index)
    }

    /// The object of a handle.
    pub(crate) fn get(&self, handle: Handle) -> Option<&T> {
        self.places[self.index(handle)?].object.as_ref()
    }

    /// The object of a handle.
    pub(crate) fn get_mut(&mut self, handle: Handle) -> Option<&mut T> {
        let index = self.index(handle)?;
        self.places[index].object.as_mut()
    }

    /// Removes an object. Its handle becomes invalid.
    pub(crate) fn remove(&mut self, handle: Handle) -> Option<T> {
        let index = self.index(handle)?;
        let place = &mut self.places[index];
        place.generation = (place.generation + 1) % GENERATIONS;
        self.free.push_back(index as u32);
        self.live -= 1;
        place.object.take()
    }

    /// All objects with their handles.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (Handle, &T)> {
        let objects = self.places.iter().enumerate();
        objects
            .filter_map(|(index, place)| Some((self.handle(index as u32), place.object.as_ref()?)))
    }

    /// Removes all objects for which `chosen` returns true.
    pub(crate) fn take_if(&mut self, chosen: impl Fn(&T) -> bool) -> Vec<T> {
        let handles: Vec<_> = self
            .iter()
            .filter(|(_, object)| chosen(object))
            .map(|(handle, _)| handle)
            .collect();
        handles
            .into_iter()
            .filter_map(|handle| self.remove(handle))
            .collect()
    }

    /// Number of objects.
    pub(crate) fn len(&self) -> usize {
        self.live
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stale_and_forged_handles_name_nothing() {
        let mut table = Table::new(Kind::Event, 4);
        let first = table.insert('a').unwrap();
        assert_eq!(first.0 >> 28, Kind::Event as u64);
        assert_eq!(table.remove(first), Some('a'));
        let second = table.insert('b').unwrap();
        assert_ne!(first, second);
        assert_eq!(table.get(first), None, "stale");
        assert_eq!(table.get(second), Some(&'b'));
        for forged in [
            0,
            1,
            2,
            second.0 + 1,
            second.0 ^ 1 << 28,
            second.0 | 1 << 32,
            u64::MAX,
        ] {
            assert_eq!(table.get(Handle(forged)), None, "{forged:#x}");
        }
    }

    #[test]
    fn the_limit_counts_live_objects() {
        let mut table = Table::new(Kind::Stream, 2);
        let handles: Vec<_> = (0..2).map(|n| table.insert(n).unwrap()).collect();
        assert_eq!(table.insert(9), Err(9));
        table.remove(handles[0]).unwrap();
        assert!(table.insert(9).is_ok());
        assert_eq!(table.take_if(|n| *n == 9), [9]);
        assert_eq!(table.len(), 1);
    }
}
