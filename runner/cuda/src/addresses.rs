//! The device memory of one instance, and the translation of the guest's device addresses.
//!
//! ```text
//! 4-byte device pointers: a separate address space per instance
//! 0        1000_0000                 8000_0000                 FF00_0000
//! |  unused  |  second, if the upper  |  first, upward          |  unused  |
//! |          |  part is full          |                         |          |
//! ```
//!
//! Low and very high addresses are unused, so that small positive or negative integers are never valid pointers. Gaps
//! between ranges ensure that the end of one range is never the start of another. Freed addresses are reused as late as
//! possible, so that a use after free is usually an error. With 8-byte device pointers, the same map holds the
//! addresses of the device.

use std::collections::{BTreeMap, VecDeque};

use faas_wasm_artifact::Width;

use crate::handles::Handle;

const HIGH: (u64, u64) = (0x8000_0000, 0xFF00_0000);
const LOW: (u64, u64) = (0x1000_0000, 0x8000_0000);
/// Unused addresses after each range.
const GAP: u64 = 4096;
const SMALLEST_ALIGNMENT: u64 = 512;
const LARGEST_ALIGNMENT: u64 = 64 << 10;

/// The origin of a range, which decides how it is freed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Origin {
    /// `cuMemAlloc`, `cuMemAllocPitch`.
    Allocation,
    /// Stream-ordered allocation from a pool.
    Pool,
    /// A variable of a module, freed with the module.
    Global(Handle),
}

/// A range of device memory.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Range {
    pub(crate) size: u64,
    /// The device address of the first byte.
    pub(crate) real: u64,
    /// The guest's context to which it belongs.
    pub(crate) context: Handle,
    pub(crate) origin: Origin,
    /// Sequence number of the allocation.
    pub(crate) number: u64,
}

/// The ranges of an instance, keyed by the guest's addresses.
#[derive(Debug)]
pub(crate) struct Addresses {
    width: Width,
    ranges: BTreeMap<u64, Range>,
    next: [u64; 2],
    /// Start and end of freed address ranges, the oldest first.
    freed: VecDeque<(u64, u64)>,
    count: u64,
}

impl Addresses {
    pub(crate) fn new(width: Width) -> Self {
        Self {
            width,
            ranges: BTreeMap::new(),
            next: [HIGH.0, LOW.0],
            freed: VecDeque::new(),
            count: 0,
        }
    }

    /// Number of ranges.
    pub(crate) fn len(&self) -> usize {
        self.ranges.len()
    }

    /// Adds a range and returns its address in the guest; `None` if the address space is full.
    pub(crate) fn insert(
        &mut self,
        real: u64,
        size: u64,
        context: Handle,
        origin: Origin,
    ) -> Option<u64> {
        let base = match self.width {
            Width::Eight => real,
            Width::Four => {
                let alignment = 1 << real.trailing_zeros().min(16);
                self.place(
                    size,
                    u64::clamp(alignment, SMALLEST_ALIGNMENT, LARGEST_ALIGNMENT),
                )?
            }
        };
        self.count += 1;
        let number = self.count;
        let range = Range {
            size,
            real,
            context,
            origin,
            number,
        };
        self.ranges.insert(base, range);
        Some(base)
    }

    fn place(&mut self, size: u64, alignment: u64) -> Option<u64> {
        let needed = size.checked_add(GAP)?;
        for (next, (_, end)) in self.next.iter_mut().zip([HIGH, LOW]) {
            let base = next.next_multiple_of(alignment);
            if let Some(after) = base.checked_add(needed).filter(|after| *after <= end) {
                *next = after;
                return Some(base);
            }
        }
        self.place_again(needed, alignment)
    }

    /// Finds space among freed ranges: the oldest one that is large enough, or else one after merging neighbors.
    fn place_again(&mut self, needed: u64, alignment: u64) -> Option<u64> {
        for joined in [false, true] {
            if joined {
                self.join_freed();
            }
            let fits =
                |(begin, end): &(u64, u64)| begin.next_multiple_of(alignment) + needed <= *end;
            if let Some(at) = self.freed.iter().position(fits) {
                let (begin, end) = self.freed.remove(at)?;
                let base = begin.next_multiple_of(alignment);
                if base + needed < end {
                    self.freed.push_front((base + needed, end));
                }
                return Some(base);
            }
        }
        None
    }

    fn join_freed(&mut self) {
        let mut sorted: Vec<_> = self.freed.drain(..).collect();
        sorted.sort_unstable();
        for (begin, end) in sorted {
            match self.freed.back_mut() {
                // Padding between two ranges belongs to neither, so such ranges are not merged.
                Some(last) if last.1 == begin => last.1 = end,
                _ => self.freed.push_back((begin, end)),
            }
        }
    }

    /// The range that starts at an address.
    pub(crate) fn at(&self, base: u64) -> Option<&Range> {
        self.ranges.get(&base)
    }

    /// Removes a range.
    pub(crate) fn remove(&mut self, base: u64) -> Option<Range> {
        let range = self.ranges.remove(&base)?;
        if self.width == Width::Four {
            self.freed.push_back((base, base + range.size + GAP));
        }
        Some(range)
    }

    /// Removes all ranges for which `chosen` returns true.
    pub(crate) fn take_if(&mut self, chosen: impl Fn(&Range) -> bool) -> Vec<Range> {
        let chosen = self.ranges.iter().filter(|(_, range)| chosen(range));
        let bases: Vec<_> = chosen.map(|(base, _)| *base).collect();
        bases
            .into_iter()
            .filter_map(|base| self.remove(base))
            .collect()
    }

    /// The range that contains an address or ends at it, with its base.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, &Range)> {
        let (base, range) = self.ranges.range(..=address).next_back()?;
        (address - base <= range.size).then_some((*base, range))
    }

    /// Translates an address of the guest. All `length` bytes must lie in one range.
    pub(crate) fn translate(&self, address: u64, length: u64) -> Option<u64> {
        let (base, range) = self.find(address)?;
        let offset = address - base;
        (offset.checked_add(length)? <= range.size).then(|| range.real + offset)
    }

    /// Translates a pointer argument of a kernel, which must be null, in a range, or at the end of one.
    pub(crate) fn translate_pointer(&self, address: u64) -> Option<u64> {
        if address == 0 {
            return Some(0);
        }
        let (base, range) = self.find(address)?;
        Some(range.real + (address - base))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn four() -> Addresses {
        Addresses::new(Width::Four)
    }

    fn insert(map: &mut Addresses, real: u64, size: u64) -> Option<u64> {
        map.insert(real, size, Handle::NULL, Origin::Allocation)
    }

    #[test]
    fn ranges_are_apart_and_translate_as_a_whole() {
        let mut map = four();
        let a = insert(&mut map, 0x7f00_0000_0000, 1000).unwrap();
        let b = insert(&mut map, 0x7f00_0020_0000, 64).unwrap();
        assert_eq!(a, 0x8000_0000);
        assert!(b > a + 1000);
        assert_eq!(map.translate(a + 10, 990), Some(0x7f00_0000_000a));
        assert_eq!(map.translate(a + 10, 991), None);
        assert_eq!(map.translate(a, u64::MAX), None);
        assert_eq!(map.translate(a - 1, 1), None);
        assert_eq!(
            map.translate_pointer(a + 1000),
            Some(0x7f00_0000_03e8),
            "the end"
        );
        assert_eq!(map.translate_pointer(a + 1001), None);
        assert_eq!(map.translate_pointer(0), Some(0));
        assert_eq!(map.remove(a).unwrap().real, 0x7f00_0000_0000);
        assert_eq!(map.translate(a, 1), None, "use after free");
    }

    #[test]
    fn freed_addresses_come_back_last() {
        let mut map = four();
        let half = 1u64 << 30;
        let first = insert(&mut map, 1 << 40, half).unwrap();
        let second = insert(&mut map, 1 << 41, half - (17 << 20)).unwrap();
        map.remove(first);
        let third = insert(&mut map, 1 << 42, half).unwrap();
        assert_eq!(third, LOW.0, "the lower half before what was freed");
        assert_eq!(insert(&mut map, 1 << 43, half - GAP), Some(first));
        map.remove(second);
        assert_eq!(insert(&mut map, 1 << 44, 1 << 33), None, "never");
    }

    proptest! {
        #[test]
        fn live_ranges_never_touch(steps in prop::collection::vec((any::<bool>(), 1u64..1 << 28, 0usize..64), 1..200)) {
            let mut map = four();
            let mut live: Vec<(u64, u64)> = Vec::new();
            let mut real = 1 << 40;
            for (free, size, which) in steps {
                if free && !live.is_empty() {
                    let (base, _) = live.swap_remove(which % live.len());
                    prop_assert!(map.remove(base).is_some());
                } else if let Some(base) = insert(&mut map, real, size) {
                    real += size + 512;
                    prop_assert!(base >= LOW.0 && base + size < HIGH.1);
                    for (other, length) in &live {
                        prop_assert!(base > other + length || base + size < *other);
                    }
                    live.push((base, size));
                }
            }
        }
    }
}
