//! Device memory: allocations at addresses that the host cannot touch.
//!
//! ```text
//! address space of the process      range without access      a device pointer that the host
//!                                   [ guard | a | guard | b ] dereferences by mistake faults
//! bytes of a, b                     vectors beside it
//! ```
//!
//! An access must lie within one allocation of the context that makes it. Freed memory is reused with its old
//! content, as a driver may do, so a host that promises scrubbed memory must scrub it.

use std::collections::BTreeMap;

use super::range;

/// Alignment of allocations.
pub(crate) const ALIGNMENT: u64 = 512;
/// Minimum number of unallocated bytes between two allocations.
const GUARD: u64 = 4096;
/// Maximum amount of freed memory that is kept for reuse.
const KEPT: usize = 64 << 20;
/// Fresh memory up to this size is filled with a pattern, so that no caller relies on zeros.
const PATTERN_LIMIT: usize = 1 << 20;
const PATTERN: u8 = 0xa5;

/// The origin of an allocation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Purpose {
    Linear,
    /// From a pool, in stream order.
    Pooled(u64),
    /// A variable of a module.
    Global,
}

#[derive(Debug)]
pub(crate) struct Allocation {
    pub(crate) size: usize,
    pub(crate) context: u64,
    pub(crate) device: usize,
    pub(crate) purpose: Purpose,
    /// `cuMemFreeAsync` has been called, and the work that frees the memory is queued.
    pub(crate) leaving: bool,
    id: u64,
    bytes: Vec<u8>,
}

#[derive(Debug)]
struct Freed {
    base: u64,
    device: usize,
    bytes: Vec<u8>,
}

/// Why an address range cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Misuse {
    #[error("no allocation holds {address:#x}+{length:#x}")]
    Unowned { address: u64, length: usize },
    #[error("{address:#x} has been freed")]
    Freed { address: u64 },
    #[error("{address:#x}+{length:#x} reaches beyond its allocation {base:#x}+{size:#x}")]
    Beyond {
        address: u64,
        length: usize,
        base: u64,
        size: usize,
    },
    #[error("{address:#x} belongs to another context")]
    Foreign { address: u64 },
}

#[derive(Debug)]
pub(crate) struct Memory {
    live: BTreeMap<u64, Allocation>,
    freed: Vec<Freed>,
    first: u64,
    next: u64,
    created: u64,
}

impl Memory {
    pub(crate) fn new() -> Self {
        let first = range::reserve();
        Self {
            live: BTreeMap::new(),
            freed: Vec::new(),
            first,
            next: first,
            created: 0,
        }
    }

    /// Whether an address is in the range of device addresses.
    pub(crate) fn is_device(&self, address: u64) -> bool {
        (self.first..self.next).contains(&address)
    }

    /// Allocates memory, if the device has enough left.
    pub(crate) fn allocate(
        &mut self,
        context: u64,
        device: usize,
        size: usize,
        total: u64,
        purpose: Purpose,
    ) -> Option<u64> {
        if size as u64 > total.saturating_sub(self.used(device)) {
            return None;
        }
        let rounded = size.checked_next_multiple_of(ALIGNMENT as usize)?;
        let kept = self
            .freed
            .iter()
            .rposition(|freed| freed.device == device && freed.bytes.len() == rounded);
        let (base, bytes) = match kept {
            Some(index) => {
                let freed = self.freed.remove(index);
                (freed.base, freed.bytes)
            }
            None => {
                let base = self.next;
                let end = base.checked_add(rounded as u64 + GUARD)?;
                self.next = end.next_multiple_of(ALIGNMENT);
                let fill = if rounded <= PATTERN_LIMIT { PATTERN } else { 0 };
                (base, vec![fill; rounded])
            }
        };
        self.created += 1;
        self.live.insert(
            base,
            Allocation {
                size,
                context,
                device,
                purpose,
                leaving: false,
                id: self.created,
                bytes,
            },
        );
        Some(base)
    }

    pub(crate) fn free(&mut self, base: u64) -> Option<Allocation> {
        let mut allocation = self.live.remove(&base)?;
        let bytes = std::mem::take(&mut allocation.bytes);
        self.freed.push(Freed {
            base,
            device: allocation.device,
            bytes,
        });
        let mut kept: usize = self.freed.iter().map(|freed| freed.bytes.len()).sum();
        while kept > KEPT {
            kept -= self.freed.remove(0).bytes.len();
        }
        Some(allocation)
    }

    /// Frees the allocations for which `pick` returns true, and returns their number.
    pub(crate) fn free_where(&mut self, mut pick: impl FnMut(&Allocation) -> bool) -> usize {
        let bases: Vec<_> = self
            .live
            .iter()
            .filter(|(_, allocation)| pick(allocation))
            .map(|(base, _)| *base)
            .collect();
        for base in &bases {
            self.free(*base);
        }
        bases.len()
    }

    pub(crate) fn used(&self, device: usize) -> u64 {
        self.bytes_where(|allocation| allocation.device == device)
    }

    pub(crate) fn bytes_where(&self, pick: impl Fn(&Allocation) -> bool) -> u64 {
        let picked = self.live.values().filter(|allocation| pick(allocation));
        picked.map(|allocation| allocation.bytes.len() as u64).sum()
    }

    pub(crate) fn count(&self, pick: impl Fn(&Allocation) -> bool) -> usize {
        self.live
            .values()
            .filter(|allocation| pick(allocation))
            .count()
    }

    pub(crate) fn created(&self) -> u64 {
        self.created
    }

    /// The allocation that contains an address, with its base.
    pub(crate) fn find(&self, address: u64) -> Option<(u64, &Allocation)> {
        let (base, allocation) = self.live.range(..=address).next_back()?;
        let within = address - base < allocation.size.max(1) as u64;
        within.then_some((*base, allocation))
    }

    pub(crate) fn get_mut(&mut self, base: u64) -> Option<&mut Allocation> {
        self.live.get_mut(&base)
    }

    /// A unique number of the allocation: `CU_POINTER_ATTRIBUTE_BUFFER_ID`.
    pub(crate) fn id(&self, base: u64) -> Option<u64> {
        self.live.get(&base).map(|allocation| allocation.id)
    }

    /// Checks that the context may use an address range.
    pub(crate) fn check(&self, context: u64, address: u64, length: usize) -> Result<(), Misuse> {
        let Some((base, allocation)) = self.find(address) else {
            let freed = self.freed.iter().any(|freed| {
                (freed.base..freed.base + freed.bytes.len() as u64).contains(&address)
            });
            return Err(if freed {
                Misuse::Freed { address }
            } else {
                Misuse::Unowned { address, length }
            });
        };
        // Pools belong to the device, so all of its contexts may use their memory.
        if allocation.context != context && !matches!(allocation.purpose, Purpose::Pooled(_)) {
            return Err(Misuse::Foreign { address });
        }
        let offset = (address - base) as usize;
        if allocation.size - offset < length {
            return Err(Misuse::Beyond {
                address,
                length,
                base,
                size: allocation.size,
            });
        }
        Ok(())
    }

    pub(crate) fn bytes(&self, context: u64, address: u64, length: usize) -> Result<&[u8], Misuse> {
        self.check(context, address, length)?;
        let unowned = Misuse::Unowned { address, length };
        let (base, allocation) = self.find(address).ok_or(unowned)?;
        let offset = (address - base) as usize;
        Ok(&allocation.bytes[offset..offset + length])
    }

    pub(crate) fn bytes_mut(
        &mut self,
        context: u64,
        address: u64,
        length: usize,
    ) -> Result<&mut [u8], Misuse> {
        self.check(context, address, length)?;
        let unowned = Misuse::Unowned { address, length };
        let (base, allocation) = self.live.range_mut(..=address).next_back().ok_or(unowned)?;
        let offset = (address - base) as usize;
        Ok(&mut allocation.bytes[offset..offset + length])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allocate(memory: &mut Memory, context: u64, size: usize) -> u64 {
        memory
            .allocate(context, 0, size, 1 << 30, Purpose::Linear)
            .unwrap()
    }

    #[test]
    fn ranges_stay_within_one_allocation_of_the_context() {
        let mut memory = Memory::new();
        let a = allocate(&mut memory, 1, 100);
        let b = allocate(&mut memory, 1, 100);
        assert!(memory.bytes_mut(1, a + 50, 50).is_ok());
        let beyond = memory.check(1, a + 50, 51);
        assert!(
            matches!(beyond, Err(Misuse::Beyond { size: 100, .. })),
            "{beyond:?}"
        );
        let between = memory.check(1, a + 600, 1);
        assert!(
            matches!(between, Err(Misuse::Unowned { .. })),
            "{between:?}"
        );
        assert_eq!(memory.check(2, b, 1), Err(Misuse::Foreign { address: b }));
        memory.free(b);
        assert_eq!(memory.check(1, b, 1), Err(Misuse::Freed { address: b }));
    }

    #[test]
    fn freed_memory_is_reused_with_its_content() {
        let mut memory = Memory::new();
        let first = allocate(&mut memory, 1, 16);
        memory.bytes_mut(1, first, 16).unwrap().fill(7);
        memory.free(first);
        let second = allocate(&mut memory, 2, 20);
        assert_eq!(memory.bytes(2, second, 16).unwrap(), [7; 16]);
    }

    #[test]
    fn device_is_finite() {
        let mut memory = Memory::new();
        assert!(memory.allocate(1, 0, 1025, 1024, Purpose::Linear).is_none());
        assert!(memory.allocate(1, 0, 1024, 1024, Purpose::Linear).is_some());
        assert!(memory.allocate(1, 0, 1, 1024, Purpose::Linear).is_none());
        assert!(memory.allocate(1, 1, 1, 1024, Purpose::Linear).is_some());
    }
}
