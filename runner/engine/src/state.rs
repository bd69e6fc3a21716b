//! The state of an instance except for the contents of its memories: the data of library calls, and
//! everything that a run can change.
//!
//! ```text
//! changed by a run        restored by
//! mutable globals         their initial values
//! elements of tables      the initial elements, unless compiled code cannot change the table
//! passive data segments   their initial lengths: the bytes are in the artifact
//! size of a memory        `slot.rs`, and `publish` in `instance.rs`
//! size of a table         a new instance
//! element segments        a new instance
//! exceptions              a new instance
//! ```
//!
//! An instance whose run did none of the last three can be reused for the next run. That copies a few
//! words and saves about ten allocations ([`InitialState`]).
//!
//! Unsafe code here assumes that the definitions and records that [`State`] points to are in the context
//! of an instance or belong to it, and that only the thread that runs the instance uses `State`, no
//! longer than the instance exists.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use wasmer_types::{ModuleInfo, Mutability, TagIndex, Type};
use wasmer_vm::{
    VMCallerCheckedAnyfunc, VMGlobalDefinition, VMMemoryDefinition, VMTableDefinition,
};

use crate::fault_injection::{self, Fault};
use crate::signal;

/// Approximate host memory of an exception without parameters (measured: 244 bytes).
const EXCEPTION_BYTES: u64 = 256;
/// Additional bytes for each parameter of its tag, of any type (`wasmer_types::RawValue`).
const PARAMETER_BYTES: u64 = 16;

/// A passive segment of one instance.
#[derive(Debug)]
pub(crate) struct PassiveSegment {
    pub(crate) index: u32,
    /// First byte in the artifact's mapping. Unused for element segments.
    pub(crate) bytes: *const u8,
    /// Initial number of bytes or elements.
    pub(crate) whole: usize,
    /// Current number: `whole`, or 0 after the segment was dropped.
    pub(crate) length: Cell<usize>,
}

/// A table of an instance.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) definition: NonNull<VMTableDefinition>,
    /// Copies of the function records, through which compiled code calls. Only function tables that
    /// cannot grow have them.
    pub(crate) records: Option<NonNull<VMCallerCheckedAnyfunc>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) memories: Box<[NonNull<VMMemoryDefinition>]>,
    /// The module that declares the memories, tables and globals.
    pub(crate) info: Arc<ModuleInfo>,
    pub(crate) tables: Box<[Table]>,
    pub(crate) globals: Box<[NonNull<VMGlobalDefinition>]>,
    pub(crate) data: Box<[PassiveSegment]>,
    pub(crate) elements: Box<[PassiveSegment]>,
    /// Maximum number of elements of all tables together.
    pub(crate) table_limit: u32,
    /// Whether this limit has prevented a growth.
    pub(crate) table_limited: Cell<bool>,
    /// Bytes of host memory that the run may still use for exceptions. Exceptions live until the run ends,
    /// so a guest that throws endlessly would exhaust the host's memory. The limit of linear memory
    /// bounds them, too.
    pub(crate) exception_bytes_left: Cell<u64>,
}

impl State {
    /// A memory's current base and length.
    pub(crate) fn memory(&self, index: u32) -> Option<(*mut u8, u64)> {
        let definition = self.memories.get(index as usize)?;
        // SAFETY: definitions are in the instance's context, and nothing writes them while the guest
        // is in a library call.
        let definition = unsafe { definition.as_ref() };
        Some((definition.base, definition.current_length as u64))
    }

    /// As [`memory`](State::memory), after making the given range of the memory writable. A range
    /// outside the memory is left to the caller's bounds check.
    pub(crate) fn memory_to_write(
        &self,
        index: u32,
        to: u32,
        length: u32,
    ) -> Option<(*mut u8, u64)> {
        self.memory(index).filter(|(base, size)| {
            let end = u64::from(to) + u64::from(length);
            let first = base.wrapping_add(to as usize);
            end > *size || signal::allow_write(first, length as usize)
        })
    }

    /// Whether a memory is declared as shared.
    pub(crate) fn is_shared(&self, index: u32) -> bool {
        let mut memories = self.info.memories.values();
        memories.nth(index as usize).is_some_and(|ty| ty.shared)
    }

    /// Whether a table holds function references.
    pub(crate) fn is_function_table(&self, index: u32) -> bool {
        let mut tables = self.info.tables.values();
        tables
            .nth(index as usize)
            .is_some_and(|table| table.ty == Type::FuncRef)
    }

    /// A table's current elements and their number.
    pub(crate) fn table(&self, index: u32) -> Option<(*mut usize, u64)> {
        self.tables.get(index as usize).map(Table::elements)
    }

    /// The current number of elements of all tables.
    pub(crate) fn table_elements(&self) -> u64 {
        self.tables.iter().map(|table| table.elements().1).sum()
    }

    /// Charges an exception of this tag to the limit. Returns `false` if the limit is exhausted.
    pub(crate) fn count_exception(&self, tag: u32) -> bool {
        let signature = self.info.tags.get(TagIndex::from_u32(tag));
        let signature = signature.and_then(|ty| self.info.signatures.get(*ty));
        let parameters = signature.map_or(0, |ty| ty.params().len());
        let bytes = EXCEPTION_BYTES + PARAMETER_BYTES * parameters as u64;
        let left = self.exception_bytes_left.get().checked_sub(bytes);
        left.is_some_and(|left| {
            self.exception_bytes_left.set(left);
            true
        })
    }

    /// Must be called after a library call has written elements of a table.
    pub(crate) fn table_written(&self, index: u32, start: usize, length: usize) {
        if let Some(table) = self.tables.get(index as usize) {
            table.update_records(start, length);
        }
    }
}

impl Table {
    fn elements(&self) -> (*mut usize, u64) {
        // SAFETY: as in `State::memory`. Elements are pointers (`wasmer_vm::RawTableElement`).
        let definition = unsafe { self.definition.as_ref() };
        let size = u64::from(definition.current_elements);
        (definition.base.cast(), size)
    }

    fn update_records(&self, start: usize, length: usize) {
        let Some(records) = self.records else { return };
        let (elements, size) = self.elements();
        let end = start.saturating_add(length).min(size as usize);
        for index in start..end {
            // SAFETY: the index is inside the table, and there are as many records as elements.
            // Elements of a function table are null or point to records of the instance's functions.
            unsafe {
                let element = *elements.add(index).cast::<*const VMCallerCheckedAnyfunc>();
                let record = element.as_ref().copied();
                let record = record.unwrap_or_else(VMCallerCheckedAnyfunc::null);
                records.as_ptr().add(index).write(record);
            }
        }
    }
}

/// The initial values of everything that a run can change and a reset can restore.
#[derive(Debug)]
pub(crate) struct InitialState {
    globals: Box<[(NonNull<VMGlobalDefinition>, VMGlobalDefinition)]>,
    /// By table; empty for tables that cannot change.
    tables: Box<[Box<[usize]>]>,
}

impl InitialState {
    /// Records the state of an instance that has not run yet. Returns `None` if instances of this module
    /// cannot be restored.
    pub(crate) fn of(state: &State, info: &ModuleInfo) -> Option<Self> {
        // Exceptions live in the store, which frees them only when it is dropped.
        if !info.tags.is_empty() {
            return None;
        }
        let globals = state.globals.iter().zip(info.globals.values());
        let globals = globals.filter(|(_, ty)| ty.mutability == Mutability::Var);
        // SAFETY: definitions are in the instance's context and were initialized with it.
        let globals = globals.map(|(place, _)| (*place, unsafe { place.as_ref() }.clone()));
        let tables = state.tables.iter().zip(info.tables.values());
        let tables = tables.map(|(table, ty)| match ty.readonly {
            true => Box::default(),
            false => {
                let (elements, size) = table.elements();
                if size == 0 {
                    return Box::default();
                }
                // SAFETY: a table has `size` initialized words as elements.
                unsafe { std::slice::from_raw_parts(elements, size as usize) }.into()
            }
        });
        Some(Self {
            globals: globals.collect(),
            tables: tables.collect(),
        })
    }

    /// Restores the state. Returns `false` if that is impossible and a new instance is needed.
    pub(crate) fn restore(&self, state: &State, info: &ModuleInfo) -> bool {
        let tables = || state.tables.iter().zip(info.tables.values());
        let same_sizes = tables().all(|(table, ty)| table.elements().1 == u64::from(ty.minimum));
        let dropped = |segment: &PassiveSegment| segment.length.get() != segment.whole;
        if !same_sizes || state.elements.iter().any(dropped) {
            return false;
        }
        for (place, value) in &self.globals {
            // SAFETY: the place is in the context of the instance, whose guest has ended.
            unsafe { place.as_ptr().write(value.clone()) };
        }
        let skipped = usize::from(fault_injection::is(Fault::TableEntry));
        for (table, first) in state.tables.iter().zip(&self.tables) {
            if let Some(first) = first.get(skipped..).filter(|first| !first.is_empty()) {
                // SAFETY: the table has as many elements as initially (`same_sizes`), and nothing
                // else refers to them.
                unsafe {
                    let elements = table.elements().0.add(skipped);
                    ptr::copy_nonoverlapping(first.as_ptr(), elements, first.len());
                }
                table.update_records(skipped, first.len());
            }
        }
        for segment in &state.data {
            segment.length.set(segment.whole);
        }
        state.table_limited.set(false);
        true
    }
}
