//! Structures of the C API in guest memory: consecutive fields, each aligned to its width.

use crate::arguments::{Kind, Pointer};
use crate::call::Call;
use crate::outcome::CallResult;

/// Reads a structure's fields in order.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Fields {
    base: Pointer,
    offset: u64,
}

impl Fields {
    /// The fields of the structure at an address.
    pub(crate) fn of(base: Pointer) -> Self {
        Self { base, offset: 0 }
    }

    /// The address of the next field, given its kind.
    pub(crate) fn place(&mut self, call: &Call<'_>, kind: Kind) -> Pointer {
        let width = u64::from(kind.width(call.abi).bytes());
        let at = self.offset.next_multiple_of(width);
        self.offset = at + width;
        self.base.plus(at)
    }

    /// Reads the next field.
    pub(crate) fn next(&mut self, call: &Call<'_>, kind: Kind) -> CallResult<u64> {
        let place = self.place(call, kind);
        call.load(place, kind)
    }

    /// Reads the next three `unsigned int`.
    pub(crate) fn three(&mut self, call: &Call<'_>) -> CallResult<[u32; 3]> {
        let mut values = [0; 3];
        for value in &mut values {
            *value = self.next(call, Kind::Int)? as u32;
        }
        Ok(values)
    }
}
