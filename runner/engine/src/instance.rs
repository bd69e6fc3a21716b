//! Instances: one request's globals, tables and memories, over the shared code of a module.
//!
//! This file creates wasmer-vm's instances with our memories and host functions and calls into compiled
//! code. Its unsafe code maintains and relies on these invariants:
//!
//! - `StoreObjects`, `HostEnv` and `Slot` are boxed and do not move while the instance exists, which
//!   holds raw pointers to them. `vm` is dropped before them.
//! - A host function is bound only after its signature was compared with that of the import.
//! - No guest code runs before [`Instance::run`], which runs start functions, too.

use std::cell::{Cell, UnsafeCell};
use std::ptr::NonNull;
use std::sync::Arc;

use wasmer_types::entity::{EntityRef, PrimaryMap};
use wasmer_types::{
    LocalGlobalIndex, LocalMemoryIndex, LocalTableIndex, MemoryError, MemoryStyle, MemoryType,
    Pages, TableStyle, TagIndex, TagKind,
};
use wasmer_vm::{
    Imports, InstanceAllocator, InternalStoreHandle, LinearMemory, MaybeInstanceOwned,
    StoreObjects, Trap as VmTrap, VMCallerCheckedAnyfunc, VMConfig, VMFunction, VMFunctionContext,
    VMFunctionImport, VMFunctionKind, VMGlobal, VMInstance, VMMemory, VMMemoryDefinition, VMTable,
    VMTag, catch_traps,
};

use crate::deadline::{RunLimits, Watched};
use crate::host::HostEnv;
use crate::libcalls;
use crate::link::Linked;
use crate::module::Module;
use crate::signal::{RED_ZONE, RunGuard};
use crate::slot::{self, Slot, SlotError, WASM_PAGE};
use crate::state::{InitialState, PassiveSegment, State, Table};
use crate::stop::{Stop, TrapKind};

/// Resources that a run used, and the [`Limits`](crate::link::Limits) that it reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Maximum size of its linear memories in bytes.
    pub memory: u64,
    /// `memory.grow` was refused because of [`Limits::memory`](crate::link::Limits::memory).
    pub memory_limited: bool,
    /// `table.grow` was refused because of [`Limits::table`](crate::link::Limits::table).
    pub table_limited: bool,
}

/// Why an instance could not be created.
#[derive(Debug, thiserror::Error)]
pub enum InstanceError {
    /// The system refused memory.
    #[error(transparent)]
    Slot(#[from] SlotError),
    /// An element segment does not fit its table, so that instantiation traps. The build refuses such modules.
    #[error(
        "wasm trap: {}: an element segment does not fit its table",
        TrapKind::TableOutOfBounds
    )]
    Elements,
    /// The system refused a stack.
    #[error("the system refused a guest's stack of {size} bytes (wasm_stack_size): {source}")]
    Stack {
        /// The size in bytes, including the red zone.
        size: usize,
        /// The error of the system.
        source: rustix::io::Errno,
    },
    /// wasmer-vm refused.
    #[error("could not make an instance: {0}")]
    Vm(String),
    /// The system refused the monitor's thread.
    #[error("could not start the thread that watches deadlines: {0}")]
    Monitor(std::io::Error),
}

/// The linear memories of an instance that is in use or ready.
pub(crate) type Slots = Box<[Slot]>;

/// Reserves the slots for instances of a module.
pub(crate) fn reserve(module: &Module) -> Result<Slots, SlotError> {
    let slots: Result<Slots, _> = module.images.iter().map(Slot::new).collect();
    let mut slots = slots?;
    // The signal handler knows the write protection of one memory, the first.
    if let Some(first) = slots.first_mut() {
        first.allow_write_protection();
    }
    Ok(slots)
}

/// Ensures that this thread has a stack for guests. The thread keeps the stack.
///
/// # Errors
///
/// [`InstanceError::Stack`].
pub(crate) fn reserve_stack<T>(linked: &Linked<T>) -> Result<(), InstanceError> {
    let size = linked.limits.stack + RED_ZONE;
    let refused = |source| InstanceError::Stack { size, source };
    // wasmer-vm panics if it gets no stack, so check first whether the system grants the memory.
    slot::try_reserve(size + WASM_PAGE).map_err(refused)?;
    let config = VMConfig {
        wasm_stack_size: Some(size),
    };
    // SAFETY: the closure does nothing, so it cannot trap.
    let entered = std::panic::catch_unwind(|| unsafe { catch_traps(None, &config, || ()) });
    match entered {
        Ok(Ok(())) => Ok(()),
        _ => Err(refused(rustix::io::Errno::NOMEM)),
    }
}

/// One instance. It is created before its run and runs once. Then it is reset ([`renew`]) or dropped.
///
/// [`renew`]: Instance::renew
pub(crate) struct Instance<T> {
    // Dropped in this order: `vm` points into all fields that follow.
    vm: VMInstance,
    store: Box<StoreObjects>,
    env: Box<HostEnv<T>>,
    state: State,
    initial: Option<InitialState>,
    /// Whether the instance has not run yet, or its guest has returned or exited.
    in_order: bool,
    slots: Slots,
    linked: Arc<Linked<T>>,
}

impl<T: 'static> Instance<T> {
    /// Creates an instance over `slots`, which must be in their initial state. No guest code runs yet.
    ///
    /// # Errors
    ///
    /// [`InstanceError`].
    pub(crate) fn new(linked: &Arc<Linked<T>>, mut slots: Slots) -> Result<Self, InstanceError> {
        let module = &linked.module;
        let info = &module.info;
        let mut store = Box::<StoreObjects>::default();
        let mut env = Box::new(HostEnv::<T> {
            data: std::ptr::null_mut(),
            memory: std::ptr::null(),
            context: std::ptr::null_mut(),
            deadline: None,
        });
        let host_env = VMFunctionContext {
            host_env: std::ptr::from_mut(&mut *env).cast(),
        };
        let mut functions = PrimaryMap::with_capacity(linked.imports.len());
        for entry in &linked.imports {
            let signature = info.functions[functions.next_key()];
            let function = VMFunction {
                anyfunc: MaybeInstanceOwned::Host(Box::new(UnsafeCell::new(
                    VMCallerCheckedAnyfunc {
                        func_ptr: entry.body,
                        type_signature_hash: module.signatures[signature],
                        vmctx: host_env,
                        call_trampoline: module.trampolines[signature],
                    },
                ))),
                // wasmer-vm reads it only when a function is exported to another instance.
                signature: wasmer_types::FunctionType::new(vec![], vec![]),
                kind: VMFunctionKind::Static,
                host_data: Box::new(()),
            };
            functions.push(VMFunctionImport {
                body: entry.body,
                environment: host_env,
                handle: InternalStoreHandle::new(&mut store, function),
                // Host functions take no hidden pointer to memory 0.
                include_m0_param: false,
            });
        }
        let imports = Imports::new(
            functions,
            PrimaryMap::new(),
            PrimaryMap::new(),
            PrimaryMap::new(),
        );

        let (allocator, memory_places, table_places, global_places) =
            InstanceAllocator::new_with_offsets(module.offsets.clone(), info);
        let mut memories = PrimaryMap::<LocalMemoryIndex, _>::new();
        let all = NonNull::from(&mut *slots);
        for (place, (index, ty)) in memory_places.iter().zip(info.memories.iter()) {
            let memory = SlotMemory {
                slots: all,
                index: index.index(),
                definition: *place,
                ty: *ty,
                limit: linked.limits.memory as usize,
            };
            memory.publish();
            let memory = VMMemory(Box::new(memory));
            memories.push(InternalStoreHandle::new(&mut store, memory));
        }
        let mut tables = PrimaryMap::<LocalTableIndex, _>::new();
        for (place, ty) in table_places.iter().zip(info.tables.values()) {
            // SAFETY: the allocator reserved this place for a table definition.
            let table =
                unsafe { VMTable::from_definition(ty, &TableStyle::CallerChecksSignature, *place) };
            let table = table.map_err(InstanceError::Vm)?;
            tables.push(InternalStoreHandle::new(&mut store, table));
        }
        let mut globals = PrimaryMap::<LocalGlobalIndex, _>::new();
        for (place, ty) in global_places.iter().zip(info.globals.values()) {
            // SAFETY: the allocator reserved this place for a global definition.
            let global = unsafe { VMGlobal::new_instance(*ty, *place) };
            globals.push(InternalStoreHandle::new(&mut store, global));
        }
        let tags: PrimaryMap<TagIndex, _> = info
            .tags
            .values()
            .map(|ty| {
                let tag = VMTag::new(TagKind::Exception, info.signatures[*ty].clone());
                InternalStoreHandle::new(&mut store, tag)
            })
            .collect();

        env.memory = memory_places
            .get(module.host_memory())
            .map_or(std::ptr::null(), |place| place.as_ptr().cast_const());
        // SAFETY: all definitions were written above, the offsets are those of this module, and the
        // boxed store lives as long as the instance.
        let mut vm = unsafe {
            VMInstance::new(
                allocator,
                Arc::clone(info),
                &mut store,
                module.functions.clone(),
                module.trampolines.clone(),
                memories.into_boxed_slice(),
                tables.into_boxed_slice(),
                globals.into_boxed_slice(),
                tags.into_boxed_slice(),
                imports,
                module.signatures.clone(),
            )
        }
        .map_err(|trap| InstanceError::Vm(trap.to_string()))?;
        for (index, address) in libcalls::builtins() {
            let offset = module.offsets.vmctx_builtin_function(index) as usize;
            // SAFETY: the context has a word for each built-in function at this offset.
            unsafe {
                let word = vm.vmctx_ptr().cast::<u8>().add(offset).cast::<usize>();
                word.write(address);
            }
        }
        // SAFETY: called once, directly after `new`. `info` has no start function, so no guest code
        // runs.
        unsafe {
            vm.finish_instantiation(
                &VMConfig {
                    wasm_stack_size: None,
                },
                None,
                &[],
            )
        }
        .map_err(|_| InstanceError::Elements)?;

        env.context = vm.vmctx_ptr();
        let tables = table_places.into_iter().enumerate().map(|(index, place)| {
            let index = LocalTableIndex::new(index);
            let offset = module.offsets.vmctx_fixed_funcref_table_anyfuncs(index);
            // SAFETY: the offset is inside the instance's context.
            let records = offset
                .map(|offset| unsafe { vm.vmctx_ptr().cast::<u8>().add(offset as usize).cast() });
            Table {
                definition: place,
                records: records.and_then(NonNull::new),
            }
        });
        let state = State {
            memories: memory_places.into(),
            info: Arc::clone(info),
            tables: tables.collect(),
            globals: global_places.into(),
            data: passive_data(module),
            elements: passive_elements(module),
            table_limit: linked.limits.table,
            table_limited: Cell::new(false),
            exception_bytes_left: Cell::new(linked.limits.memory),
        };
        let initial = InitialState::of(&state, info);
        Ok(Self {
            vm,
            store,
            env,
            state,
            initial,
            in_order: true,
            slots,
            linked: Arc::clone(linked),
        })
    }

    /// Runs the module's start function and entry on this thread.
    ///
    /// # Errors
    ///
    /// The reason why the guest did not return.
    pub(crate) fn run(
        &mut self,
        watched: &Watched,
        number: u64,
        data: &mut T,
        limits: RunLimits,
    ) -> Result<(), Stop> {
        let module = &self.linked.module;
        self.env.data = data;
        self.env.deadline = limits.deadline;
        let stack_size = self.linked.limits.stack + RED_ZONE;
        let config = VMConfig {
            wasm_stack_size: Some(stack_size),
        };
        let context = VMFunctionContext {
            vmctx: self.vm.vmctx_ptr(),
        };
        let protection = self.slots.first().and_then(Slot::protection);
        let code = module.code.clone();
        let guard = RunGuard::new(&watched.thread, number, code, protection);
        watched.set_limits(limits);
        let thread = std::ptr::from_ref(&watched.thread);
        let result = libcalls::with_active(&self.state, || {
            for function in &self.linked.calls {
                let Some(local) = module.info.local_func_index(*function) else {
                    continue; // `link` has checked that the function is local.
                };
                let body = module.functions[local].0;
                let trampoline = module.trampolines[module.info.functions[*function]];
                // SAFETY: the trampoline is that of the function's type, which has neither
                // parameters nor results, so it does not access the value array. The context is
                // that of this instance and complete. No value in the closure has a destructor
                // that a trap would skip. `thread` outlives the call.
                unsafe {
                    catch_traps(None, &config, move || {
                        (*thread).enter_stack(stack_size);
                        trampoline(context.vmctx, body, std::ptr::null_mut());
                    })?;
                }
            }
            Ok(())
        });
        drop(guard);
        watched.clear_limits();
        self.env.data = std::ptr::null_mut();
        let result = result.map_err(stop);
        self.in_order = matches!(result, Ok(()) | Err(Stop::Exit(_)));
        result
    }

    /// Whether an address is inside the reservation of one of the memories.
    pub(crate) fn owns(&self, address: usize) -> bool {
        self.slots.iter().any(|slot| slot.contains(address))
    }

    /// Resources that the run used, and the limits that it reached.
    pub(crate) fn usage(&self) -> Usage {
        Usage {
            memory: self.slots.iter().map(|slot| slot.size() as u64).sum(),
            memory_limited: self.slots.iter().any(Slot::was_limited),
            table_limited: self.state.table_limited.get(),
        }
    }

    /// Resets the instance, or drops it and returns its slots in their initial state.
    ///
    /// # Errors
    ///
    /// [`SlotError`] if the slots cannot be reset. They are unmapped then.
    pub(crate) fn renew(mut self) -> Result<Renewed<T>, SlotError> {
        let initial = self.initial.as_ref().filter(|_| self.in_order);
        if initial.is_none_or(|initial| !initial.restore(&self.state, &self.linked.module.info)) {
            return self.recycle().map(Renewed::Slots);
        }
        self.slots.iter_mut().try_for_each(Slot::reset)?;
        for (slot, place) in self.slots.iter().zip(&self.state.memories) {
            publish(slot, *place);
        }
        Ok(Renewed::Instance(self))
    }

    fn recycle(self) -> Result<Slots, SlotError> {
        let Self {
            vm,
            store,
            mut slots,
            ..
        } = self;
        drop(vm);
        drop(store);
        slots.iter_mut().try_for_each(Slot::reset)?;
        Ok(slots)
    }
}

/// The reusable part of an instance.
pub(crate) enum Renewed<T> {
    /// The whole instance.
    Instance(Instance<T>),
    /// Only its memories.
    Slots(Slots),
}

fn passive_data(module: &Module) -> Box<[PassiveSegment]> {
    let file = module.file();
    let segments = module.metadata.passive_data.iter().map(|data| {
        // The range is inside the file (`Artifact::parse`).
        let bytes = data
            .bytes
            .within(file.len())
            .map_or(&file[..0], |range| &file[range]);
        PassiveSegment {
            index: data.segment,
            bytes: bytes.as_ptr(),
            whole: bytes.len(),
            length: Cell::new(bytes.len()),
        }
    });
    segments.collect()
}

fn passive_elements(module: &Module) -> Box<[PassiveSegment]> {
    let segments = module.metadata.passive_elements.iter();
    let segments = segments.map(|segment| PassiveSegment {
        index: segment.segment,
        bytes: std::ptr::null(),
        whole: segment.length as usize,
        length: Cell::new(segment.length as usize),
    });
    segments.collect()
}

/// Writes a memory's base and length to where compiled code reads them.
fn publish(slot: &Slot, place: NonNull<VMMemoryDefinition>) {
    let definition = VMMemoryDefinition {
        base: slot.base(),
        current_length: slot.size(),
    };
    // SAFETY: the place is that of this memory in the context of its instance, and no guest runs.
    unsafe { place.as_ptr().write(definition) };
}

/// Translates wasmer-vm's reason for the end of a run.
fn stop(trap: VmTrap) -> Stop {
    match trap {
        VmTrap::User(error) => match error.downcast::<Stop>() {
            Ok(stop) => *stop,
            Err(_) => Stop::Trap(TrapKind::Unknown),
        },
        VmTrap::Lib { trap_code, .. } => Stop::Trap(libcalls::trap_kind(trap_code as u32)),
        VmTrap::UncaughtException { .. } => Stop::Trap(TrapKind::UncaughtException),
        VmTrap::OOM { .. } => Stop::Trap(TrapKind::OutOfMemory),
        VmTrap::Wasm { .. } => Stop::Trap(TrapKind::Unknown),
    }
}

/// Adapts a slot to wasmer-vm's interface of a memory.
#[derive(Debug)]
struct SlotMemory {
    /// The slots of all memories of the instance, which share one limit.
    slots: NonNull<[Slot]>,
    index: usize,
    definition: NonNull<VMMemoryDefinition>,
    ty: MemoryType,
    limit: usize,
}

// SAFETY: only the thread that runs the instance uses it, although wasmer-vm requires `Send`.
unsafe impl Send for SlotMemory {}
// SAFETY: as above.
unsafe impl Sync for SlotMemory {}

impl SlotMemory {
    fn slots(&self) -> &[Slot] {
        // SAFETY: the instance boxes the slots and outlives its memories. No other reference to the
        // slots exists meanwhile.
        unsafe { self.slots.as_ref() }
    }

    fn slot(&self) -> &Slot {
        &self.slots()[self.index]
    }

    fn publish(&self) {
        publish(self.slot(), self.definition);
    }
}

impl LinearMemory for SlotMemory {
    fn ty(&self) -> MemoryType {
        let mut ty = self.ty;
        ty.minimum = self.size();
        ty
    }

    fn size(&self) -> Pages {
        Pages((self.slot().size() / WASM_PAGE) as u32)
    }

    fn style(&self) -> MemoryStyle {
        MemoryStyle::Static
    }

    fn grow(&mut self, delta: Pages) -> Result<Pages, MemoryError> {
        let current = self.size();
        let maximum = self
            .ty
            .maximum
            .map_or(usize::MAX, |maximum| maximum.0 as usize * WASM_PAGE);
        let all: usize = self.slots().iter().map(Slot::size).sum();
        let others = all - self.slot().size();
        let allowed = self.limit.saturating_sub(others);
        // SAFETY: as in `slots`. The guest is suspended in this call.
        let slot = &mut unsafe { self.slots.as_mut() }[self.index];
        let additional = delta.0 as usize * WASM_PAGE;
        if !slot.grow(additional, allowed.min(maximum)) {
            let wanted = slot.size().saturating_add(additional);
            if allowed < wanted && wanted <= maximum {
                slot.note_limited();
            }
            return Err(MemoryError::CouldNotGrow {
                current,
                attempted_delta: delta,
            });
        }
        self.publish();
        Ok(current)
    }

    fn vmmemory(&self) -> NonNull<VMMemoryDefinition> {
        self.definition
    }

    fn try_clone(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::MemoryNotShared)
    }

    fn copy(&self) -> Result<Box<dyn LinearMemory + Send + Sync>, MemoryError> {
        Err(MemoryError::MemoryNotShared)
    }
}
