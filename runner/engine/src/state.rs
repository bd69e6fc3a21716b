//! The state of an instance besides the contents of its memories: what library calls work on, and
//! what a run can change.
//!
//! ```text
//! changed by a run        made new again by
//! mutable globals         their first values
//! elements of tables      the first elements, unless compiled code cannot change the table
//! passive data segments   their first lengths: the bytes lie in the artifact
//! size of a memory        `slot.rs`, and `publish` in `instance.rs`
//! size of a table         a new instance
//! element segments        a new instance
//! exceptions              a new instance
//! ```
//!
//! So an instance whose run did nothing of the last three can be used for the next run, at the cost
//! of a few words instead of some ten allocations ([`InitialState`]).
//!
//! Unsafe here assumes that the definitions and records that [`State`] points to lie in the context
//! of an instance, or belong to it, and that `State` is used no longer than the instance lives and
//! by no other thread than the one that runs it.

use std::cell::Cell;
use std::ptr::{self, NonNull};
use std::sync::Arc;

use wasmer_types::{ModuleInfo, Mutability, TagIndex};
use wasmer_vm::{
    VMCallerCheckedAnyfunc, VMGlobalDefinition, VMMemoryDefinition, VMTableDefinition,
};

use crate::fault_injection::{self, Fault};
use crate::signal;

/// About what an exception without parameters costs the host (measured: 244 bytes).
const EXCEPTION_BYTES: u64 = 256;
/// What each parameter of its tag adds, whatever its type (`wasmer_types::RawValue`).
const PARAMETER_BYTES: u64 = 16;

/// A passive segment of one instance.
#[derive(Debug)]
pub(crate) struct PassiveSegment {
    pub(crate) index: u32,
    /// First byte in the artifact's mapping; unused for element segments.
    pub(crate) bytes: *const u8,
    /// Bytes or elements.
    pub(crate) whole: usize,
    /// The same, or 0 once dropped.
    pub(crate) length: Cell<usize>,
}

/// A table of an instance.
#[derive(Debug)]
pub(crate) struct Table {
    pub(crate) definition: NonNull<VMTableDefinition>,
    /// The records that compiled code calls through, where it does not follow the elements: of
    /// function tables that cannot grow.
    pub(crate) records: Option<NonNull<VMCallerCheckedAnyfunc>>,
}

/// See the module's documentation.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) memories: Box<[NonNull<VMMemoryDefinition>]>,
    /// The module that the memories, tables and globals are declared in.
    pub(crate) info: Arc<ModuleInfo>,
    pub(crate) tables: Box<[Table]>,
    pub(crate) globals: Box<[NonNull<VMGlobalDefinition>]>,
    pub(crate) data: Box<[PassiveSegment]>,
    pub(crate) elements: Box<[PassiveSegment]>,
    /// Largest number of elements of all tables together.
    pub(crate) table_limit: u32,
    /// Whether that has kept a table from growing.
    pub(crate) table_limited: Cell<bool>,
    /// Bytes of the host that the run may still use up by exceptions. Each is kept until the run ends, so
    /// that a guest which throws without end would use up the host's memory: the limit of linear memory
    /// bounds that, too.
    pub(crate) exception_bytes_left: Cell<u64>,
}

impl State {
    /// A memory's base and length as they are now.
    pub(crate) fn memory(&self, index: u32) -> Option<(*mut u8, u64)> {
        let definition = self.memories.get(index as usize)?;
        // SAFETY: definitions live in the instance's context; nobody writes them while the guest
        // is in a library call.
        let definition = unsafe { definition.as_ref() };
        Some((definition.base, definition.current_length as u64))
    }

    /// The same, where these bytes of it, as far as they lie in it, can be written now.
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

    /// Whether a memory is declared for several threads.
    pub(crate) fn is_shared(&self, index: u32) -> bool {
        let mut memories = self.info.memories.values();
        memories.nth(index as usize).is_some_and(|ty| ty.shared)
    }

    /// A table's elements and their number as they are now.
    pub(crate) fn table(&self, index: u32) -> Option<(*mut usize, u64)> {
        self.tables.get(index as usize).map(Table::elements)
    }

    /// The number of elements of all tables as it is now.
    pub(crate) fn table_elements(&self) -> u64 {
        self.tables.iter().map(|table| table.elements().1).sum()
    }

    /// Notes that one more exception of this tag is made; `false` if it must not be.
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

    /// To be called when library calls have written elements of a table.
    pub(crate) fn table_written(&self, index: u32, start: usize, length: usize) {
        if let Some(table) = self.tables.get(index as usize) {
            table.update_records(start, length);
        }
    }
}

impl Table {
    fn elements(&self) -> (*mut usize, u64) {
        // SAFETY: as for memories. Elements are pointers (`wasmer_vm::RawTableElement`).
        let definition = unsafe { self.definition.as_ref() };
        let size = u64::from(definition.current_elements);
        (definition.base.cast(), size)
    }

    fn update_records(&self, start: usize, length: usize) {
        let Some(records) = self.records else { return };
        let (elements, size) = self.elements();
        let end = start.saturating_add(length).min(size as usize);
        for index in start..end {
            // SAFETY: inside of the table, and there are as many records as elements. Elements of
            // a function table are null or point to records of the instance's functions.
            unsafe {
                let element = *elements.add(index).cast::<*const VMCallerCheckedAnyfunc>();
                let record = element.as_ref().copied();
                let record = record.unwrap_or_else(VMCallerCheckedAnyfunc::null);
                records.as_ptr().add(index).write(record);
            }
        }
    }
}

/// What an instance began with, of what its run can change and what can be put back.
#[derive(Debug)]
pub(crate) struct InitialState {
    globals: Box<[(NonNull<VMGlobalDefinition>, VMGlobalDefinition)]>,
    /// By table; nothing for those that cannot change.
    tables: Box<[Box<[usize]>]>,
}

impl InitialState {
    /// Notes the state of an instance that has not run yet. `None` if instances of this module
    /// cannot be made new again.
    pub(crate) fn of(state: &State, info: &ModuleInfo) -> Option<Self> {
        // Exceptions live in the store, which has no end of them but its own.
        if !info.tags.is_empty() {
            return None;
        }
        let globals = state.globals.iter().zip(info.globals.values());
        let globals = globals.filter(|(_, ty)| ty.mutability == Mutability::Var);
        // SAFETY: definitions live in the instance's context and were initialized with it.
        let globals = globals.map(|(place, _)| (*place, unsafe { place.as_ref() }.clone()));
        let tables = state.tables.iter().zip(info.tables.values());
        let tables = tables.map(|(table, ty)| match ty.readonly {
            true => Box::default(),
            false => {
                let (elements, size) = table.elements();
                if size == 0 {
                    return Box::default();
                }
                // SAFETY: a table's elements are so many initialized words.
                unsafe { std::slice::from_raw_parts(elements, size as usize) }.into()
            }
        });
        Some(Self {
            globals: globals.collect(),
            tables: tables.collect(),
        })
    }

    /// Puts the state back; `false` if that cannot be, and a new instance is needed.
    pub(crate) fn restore(&self, state: &State, info: &ModuleInfo) -> bool {
        let tables = || state.tables.iter().zip(info.tables.values());
        let same_sizes = tables().all(|(table, ty)| table.elements().1 == u64::from(ty.minimum));
        let dropped = |segment: &PassiveSegment| segment.length.get() != segment.whole;
        if !same_sizes || state.elements.iter().any(dropped) {
            return false;
        }
        for (place, value) in &self.globals {
            // SAFETY: the place is in the instance's context, whose guest has ended.
            unsafe { place.as_ptr().write(value.clone()) };
        }
        let skipped = usize::from(fault_injection::is(Fault::TableEntry));
        for (table, first) in state.tables.iter().zip(&self.tables) {
            if let Some(first) = first.get(skipped..).filter(|first| !first.is_empty()) {
                // SAFETY: the table has as many elements as at the beginning (`same_sizes`), and
                // they are its own.
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
