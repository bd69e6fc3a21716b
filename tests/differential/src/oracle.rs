//! wasmtime as the oracle, which defines the expected behavior of a module.

use anyhow::{Context as _, Result};
use wasmtime::{
    Caller, Config, Engine, Extern, Instance, Linker, Memory, Module, OptLevel, Store,
    ThrownException, Trap, Val,
};

use crate::run::{Ending, Run, TrapKind};

/// Stack size of a guest, as in the runner. It is part of the thread's stack, which has 2 MiB.
const STACK: usize = 1 << 20;
/// Maximum number of instructions of a bounded run. The driver's hashes use most of them.
const FUEL: u64 = 100_000_000;

/// An engine that compiles without optimization, so that it shares as little as possible with the tested programs.
pub(crate) struct Oracle {
    engine: Engine,
    /// Maximum number of instructions of a run, if it is bounded.
    fuel: Option<u64>,
}

/// The state that a guest can access.
#[derive(Default)]
struct Host {
    input: Vec<u8>,
    output: Vec<u8>,
}

impl Oracle {
    /// An oracle for modules that are known to terminate.
    ///
    /// # Errors
    ///
    /// wasmtime does not support this machine.
    pub(crate) fn new() -> Result<Self> {
        Self::with_fuel(None)
    }

    /// An oracle that fails on a module that runs long.
    ///
    /// # Errors
    ///
    /// wasmtime does not support this machine.
    pub(crate) fn bounded() -> Result<Self> {
        Self::with_fuel(Some(FUEL))
    }

    fn with_fuel(fuel: Option<u64>) -> Result<Self> {
        let mut config = Config::new();
        config
            .cranelift_opt_level(OptLevel::None)
            .relaxed_simd_deterministic(true)
            .consume_fuel(fuel.is_some())
            .max_wasm_stack(STACK)
            .wasm_exceptions(true)
            .wasm_multi_memory(true)
            .wasm_tail_call(true)
            .wasm_threads(true)
            .wasm_wide_arithmetic(true)
            // Every run makes a new instance, and small mappings are cheaper.
            .memory_reservation(1 << 20)
            .memory_guard_size(1 << 16)
            .memory_may_move(true);
        Ok(Self {
            engine: Engine::new(&config)?,
            fuel,
        })
    }

    /// Compiles a module.
    ///
    /// # Errors
    ///
    /// The module is not valid.
    pub(crate) fn compile(&self, wasm: &[u8]) -> Result<Compiled<'_>> {
        let module = Module::new(&self.engine, wasm)?;
        let mut linker = Linker::new(&self.engine);
        linker.func_wrap("wasi_snapshot_preview1", "fd_read", fd_read)?;
        linker.func_wrap("wasi_snapshot_preview1", "fd_write", fd_write)?;
        Ok(Compiled {
            oracle: self,
            module,
            linker,
        })
    }
}

/// A module that wasmtime has compiled.
pub(crate) struct Compiled<'a> {
    oracle: &'a Oracle,
    module: Module,
    linker: Linker<Host>,
}

impl Compiled<'_> {
    /// Runs `_start` in a fresh instance, with standard input.
    ///
    /// # Errors
    ///
    /// The module has no `_start`, or wasmtime fails for a reason that a guest cannot cause.
    pub(crate) fn run(&self, input: &[u8]) -> Result<Run> {
        let host = Host {
            input: input.into(),
            output: Vec::new(),
        };
        let mut store = Store::new(&self.oracle.engine, host);
        if let Some(fuel) = self.oracle.fuel {
            store.set_fuel(fuel)?;
        }
        let called = self
            .linker
            .instantiate(&mut store, &self.module)
            .and_then(|instance| {
                let start = instance.get_typed_func::<(), ()>(&mut store, "_start")?;
                start.call(&mut store, ())
            });
        let ending = match called {
            Ok(()) => Ending::Returned,
            Err(error) => Ending::Trapped(trap_kind(&error)?),
        };
        Ok(Run {
            output: store.into_data().output,
            ending,
        })
    }
}

fn trap_kind(error: &wasmtime::Error) -> Result<TrapKind> {
    if error.is::<ThrownException>() {
        return Ok(TrapKind::UncaughtException);
    }
    let trap = error.downcast_ref::<Trap>();
    let kind = trap.and_then(|trap| {
        Some(match trap {
            Trap::StackOverflow => TrapKind::StackOverflow,
            Trap::MemoryOutOfBounds => TrapKind::MemoryOutOfBounds,
            Trap::HeapMisaligned => TrapKind::UnalignedAtomic,
            Trap::AtomicWaitNonSharedMemory => TrapKind::WaitOnUnshared,
            Trap::TableOutOfBounds => TrapKind::TableOutOfBounds,
            Trap::IndirectCallToNull => TrapKind::IndirectCallToNull,
            Trap::BadSignature => TrapKind::BadSignature,
            Trap::IntegerOverflow => TrapKind::IntegerOverflow,
            Trap::IntegerDivisionByZero => TrapKind::IntegerDivisionByZero,
            Trap::BadConversionToInteger => TrapKind::BadConversionToInteger,
            Trap::UnreachableCodeReached => TrapKind::Unreachable,
            Trap::NullReference => TrapKind::NullReference,
            _ => return None,
        })
    });
    kind.with_context(|| format!("wasmtime failed: {error:?}"))
}

fn memory(caller: &mut Caller<'_, Host>) -> Option<Memory> {
    caller.get_export("memory").and_then(Extern::into_memory)
}

/// Error numbers of WASI.
const SUCCESS: i32 = 0;
const FAULT: i32 = 21;

/// `fd_read` of one buffer from standard input.
fn fd_read(mut caller: Caller<'_, Host>, _file: i32, buffers: i32, _count: i32, read: i32) -> i32 {
    let Some(memory) = memory(&mut caller) else {
        return FAULT;
    };
    let (data, host) = memory.data_and_store_mut(&mut caller);
    let copied = (|| {
        let (start, length) = buffer(data, buffers)?;
        let length = length.min(host.input.len());
        let bytes = host.input.drain(..length);
        data.get_mut(start..start + length)?
            .copy_from_slice(bytes.as_slice());
        drop(bytes);
        put(data, read, length as u32)
    })();
    if copied.is_some() { SUCCESS } else { FAULT }
}

/// `fd_write` of one buffer to standard output.
fn fd_write(
    mut caller: Caller<'_, Host>,
    _file: i32,
    buffers: i32,
    _count: i32,
    written: i32,
) -> i32 {
    let Some(memory) = memory(&mut caller) else {
        return FAULT;
    };
    let (data, host) = memory.data_and_store_mut(&mut caller);
    let copied = (|| {
        let (start, length) = buffer(data, buffers)?;
        host.output
            .extend_from_slice(data.get(start..start + length)?);
        put(data, written, length as u32)
    })();
    if copied.is_some() { SUCCESS } else { FAULT }
}

/// Address and length of a descriptor's buffer.
fn buffer(data: &[u8], descriptor: i32) -> Option<(usize, usize)> {
    let word = |at: usize| Some(u32::from_le_bytes(*data.get(at..)?.first_chunk()?) as usize);
    let descriptor = descriptor as u32 as usize;
    Some((word(descriptor)?, word(descriptor + 4)?))
}

fn put(data: &mut [u8], at: i32, value: u32) -> Option<()> {
    let target = data.get_mut(at as u32 as usize..)?.first_chunk_mut::<4>()?;
    *target = value.to_le_bytes();
    Some(())
}

/// An instance whose functions can be called individually.
pub(crate) struct Probe {
    store: Store<Host>,
    instance: Instance,
}

impl Compiled<'_> {
    /// An instance whose exports can be called.
    ///
    /// # Errors
    ///
    /// The module cannot be instantiated.
    pub(crate) fn probe(&self) -> Result<Probe> {
        let mut store = Store::new(&self.oracle.engine, Host::default());
        let instance = self.linker.instantiate(&mut store, &self.module)?;
        Ok(Probe { store, instance })
    }
}

impl Probe {
    /// The trap that ends an exported function, if any.
    ///
    /// # Errors
    ///
    /// There is no such function.
    pub(crate) fn traps(
        &mut self,
        name: &str,
        types: &[wasmparser::ValType],
        operands: &[u128],
    ) -> Result<Option<TrapKind>> {
        let function = self
            .instance
            .get_func(&mut self.store, name)
            .context("no such export")?;
        let value = |(ty, bits): (&wasmparser::ValType, &u128)| match ty {
            wasmparser::ValType::I32 => Val::I32(*bits as i32),
            wasmparser::ValType::I64 => Val::I64(*bits as i64),
            wasmparser::ValType::F32 => Val::F32(*bits as u32),
            wasmparser::ValType::F64 => Val::F64(*bits as u64),
            _ => Val::V128((*bits).into()),
        };
        let arguments: Vec<_> = types.iter().zip(operands).map(value).collect();
        let mut results = vec![Val::I32(0); function.ty(&self.store).results().len()];
        match function.call(&mut self.store, &arguments, &mut results) {
            Ok(()) => Ok(None),
            Err(error) => trap_kind(&error).map(Some),
        }
    }
}
