//! Host functions: how crates above the engine provide a guest's imports.
//!
//! A host function is a `fn` item (it captures nothing) that takes a [`Caller`] and numbers:
//!
//! ```
//! use faas_wasm_engine::{Caller, Linker, Stop};
//!
//! struct Counter { calls: u32 }
//!
//! fn add(caller: &mut Caller<'_, Counter>, amount: u32) -> Result<u32, Stop> {
//!     caller.data.calls += amount;
//!     Ok(caller.data.calls)
//! }
//!
//! let mut linker = Linker::new();
//! linker.function("env", "add", add);
//! ```
//!
//! It runs on the host's stack, whatever the state of the guest's stack is. A panic in it ends only the
//! instance. A deadline that expires meanwhile takes effect when the function returns, so a host
//! function must not wait longer than [`Caller::deadline`].
//!
//! This file has the unsafe shims between the guest's native calling convention and such functions. They
//! assume that compiled code passes the `HostEnv` of the running instance as first argument
//! (`instance.rs` binds it), and that linking has compared the signatures.

use std::any::Any;
use std::borrow::Cow;
use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use wasmer_vm::libcalls::wasmer_vm_memory32_grow;
use wasmer_vm::{VMContext, VMFunctionBody, VMMemoryDefinition, on_host_stack};

use crate::memory::GuestMemory;
use crate::signal;
use crate::stop::Stop;
use faas_wasm_artifact::ValueType;

/// A host function's view of the instance that called it.
pub struct Caller<'a, T> {
    /// The embedder's state of this run.
    pub data: &'a mut T,
    /// The instance's linear memory. Empty if it has none.
    pub memory: GuestMemory<'a>,
    deadline: Option<Instant>,
    growth: Option<Growth>,
}

/// The handles with which the calling instance's memory is grown.
#[derive(Debug, Clone, Copy)]
struct Growth {
    context: *mut VMContext,
    memory: *const VMMemoryDefinition,
}

impl<'a, T> Caller<'a, T> {
    /// Creates a caller outside a run, for tests of host functions.
    pub fn new(data: &'a mut T, memory: GuestMemory<'a>, deadline: Option<Instant>) -> Self {
        Self {
            data,
            memory,
            deadline,
            growth: None,
        }
    }

    /// Grows the linear memory by `pages` of 64 KiB, as the guest's `memory.grow` does, and returns its
    /// old length in pages. Returns `None` if a limit or the system refuses, if the memory is imported,
    /// or outside a run.
    pub fn grow_memory(&mut self, pages: u32) -> Option<u32> {
        let Growth { context, memory } = self.growth?;
        // SAFETY: `enter` took both pointers from the environment of the calling instance, which has
        // a memory (`memory` is not null) and is suspended in this call. Views of the memory borrow
        // `self`, so none is alive. The memory never moves.
        let (old, memory) = unsafe { (wasmer_vm_memory32_grow(context, pages, 0), &*memory) };
        // SAFETY: as in `enter`, with the new length.
        self.memory = unsafe { GuestMemory::new(memory.base, memory.current_length) };
        (old != u32::MAX).then_some(old)
    }

    /// Whether the run must end. A host function that waits in steps should return between two steps
    /// then, with any result: the run ends when it returns.
    pub fn is_interrupted(&self) -> bool {
        signal::interrupted()
    }

    /// The instant at which the run is stopped. A host function must not wait beyond it and returns
    /// [`Stop::DEADLINE`] if it gives up.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }
}

/// The state to which the first argument of the shims points. One per instance, at a fixed address.
#[derive(Debug)]
pub(crate) struct HostEnv<T> {
    /// Set during a run only.
    pub(crate) data: *mut T,
    /// Memory 0 of the instance, or null.
    pub(crate) memory: *const VMMemoryDefinition,
    /// The instance's context; null until it exists.
    pub(crate) context: *mut VMContext,
    pub(crate) deadline: Option<Instant>,
}

/// A number that crosses the boundary between guest and host.
pub trait Value: Copy + 'static {
    /// The WebAssembly type.
    const TYPE: ValueType;
}
macro_rules! values {
    ($($number:ty => $value:ident),*) => {$(impl Value for $number { const TYPE: ValueType = ValueType::$value; })*};
}
values!(i32 => I32, u32 => I32, i64 => I64, u64 => I64, f32 => F32, f64 => F64);

/// The result of a host function: a number or nothing.
pub trait Returned: 'static {
    /// The types of the results in WebAssembly.
    const TYPES: &'static [ValueType];
}
impl Returned for () {
    const TYPES: &'static [ValueType] = &[];
}
macro_rules! returned {
    ($($number:ty),*) => {$(impl Returned for $number {
        const TYPES: &'static [ValueType] = &[<$number as Value>::TYPE];
    })*};
}
returned!(i32, u32, i64, u64, f32, f64);

/// A `fn` item that a guest can import. Implemented for functions of up to twelve numbers.
pub trait HostFunction<T, Arguments, R>: Copy + 'static {
    /// Parameter types in WebAssembly.
    const PARAMETERS: &'static [ValueType];
    /// Result types in WebAssembly.
    const RESULTS: &'static [ValueType];
    /// The entry point for compiled code.
    fn shim() -> *const VMFunctionBody;
}

macro_rules! host_function {
    ($($argument:ident: $ty:ident),*) => {
        impl<T, F, R, $($ty),*> HostFunction<T, ($($ty,)*), R> for F
        where
            T: 'static,
            F: Fn(&mut Caller<'_, T>, $($ty),*) -> Result<R, Stop> + Copy + 'static,
            R: Returned,
            $($ty: Value,)*
        {
            const PARAMETERS: &'static [ValueType] = &[$($ty::TYPE),*];
            const RESULTS: &'static [ValueType] = R::TYPES;

            fn shim() -> *const VMFunctionBody {
                const { assert!(size_of::<F>() == 0, "a host function captures nothing") };

                unsafe extern "C" fn shim<T, F, R, $($ty),*>(env: *mut HostEnv<T>, $($argument: $ty),*) -> R
                where
                    T: 'static,
                    F: Fn(&mut Caller<'_, T>, $($ty),*) -> Result<R, Stop> + Copy + 'static,
                    R: Returned,
                    $($ty: Value,)*
                {
                    // SAFETY: `instance.rs` binds this shim with the `HostEnv<T>` of the instance
                    // and sets `data` and `memory` for the whole run.
                    unsafe {
                        enter(env, |caller| {
                            // SAFETY: `F` has no size (asserted above), so any well-aligned
                            // pointer is a valid value of it.
                            let function = std::ptr::NonNull::<F>::dangling().read();
                            function(caller, $($argument),*)
                        })
                    }
                }
                shim::<T, F, R, $($ty),*> as *const VMFunctionBody
            }
        }
    };
}
host_function!();
host_function!(a: A);
host_function!(a: A, b: B);
host_function!(a: A, b: B, c: C);
host_function!(a: A, b: B, c: C, d: D);
host_function!(a: A, b: B, c: C, d: D, e: E);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G, g: H);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G, g: H, h: I);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G, g: H, h: I, i: J);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G, g: H, h: I, i: J, j: K);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G, g: H, h: I, i: J, j: K, k: L);
host_function!(a: A, b: B, c: C, d: D, e: E, f: G, g: H, h: I, i: J, j: K, k: L, l: M);

/// Runs `function` for a guest that has just called the host.
///
/// # Safety
///
/// `env` must be the environment of the instance that runs on this thread, with `data` and
/// `memory` valid for the run. No value with a destructor may live in the calling frame.
unsafe fn enter<T: 'static, R: Returned>(
    env: *mut HostEnv<T>,
    function: impl FnOnce(&mut Caller<'_, T>) -> Result<R, Stop>,
) -> R {
    let result = on_host_stack(|| {
        catch_unwind(AssertUnwindSafe(|| {
            // SAFETY: `env` is valid by this function's contract. The guest is suspended in this
            // call, so nothing else accesses its memory or the data until the call returns.
            let mut caller = unsafe {
                let env = &*env;
                let memory = match env.memory.as_ref() {
                    Some(memory) => GuestMemory::new(memory.base, memory.current_length),
                    None => GuestMemory::new(std::ptr::NonNull::dangling().as_ptr(), 0),
                };
                let growth = (!env.memory.is_null() && !env.context.is_null()).then_some(Growth {
                    context: env.context,
                    memory: env.memory,
                });
                Caller {
                    growth,
                    ..Caller::new(&mut *env.data, memory, env.deadline)
                }
            };
            function(&mut caller)
        }))
        .unwrap_or_else(|panic| Err(Stop::HostPanic(panic_message(&*panic).into())))
    });
    let stop = match result {
        Ok(value) => {
            signal::leave_host();
            return value;
        }
        Err(stop) => stop,
    };
    // SAFETY: the calling guest is on this stack, and `stop` is moved, so nothing is left to drop.
    unsafe { signal::raise(stop) }
}

fn panic_message(panic: &(dyn Any + Send)) -> &str {
    panic
        .downcast_ref::<&str>()
        .copied()
        .or_else(|| panic.downcast_ref::<String>().map(String::as_str))
        .unwrap_or("panic without a message")
}

/// A host function with its type erased.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub(crate) body: *const VMFunctionBody,
    /// `None` for a function that accepts any parameters and reads none of them.
    pub(crate) parameters: Option<Cow<'static, [ValueType]>>,
    pub(crate) results: &'static [ValueType],
}

/// The host functions that modules can import, by module and field name.
#[derive(Debug)]
pub struct Linker<T> {
    /// By module, then by field.
    entries: HashMap<Cow<'static, str>, HashMap<Cow<'static, str>, Entry>>,
    data: std::marker::PhantomData<fn(&mut T)>,
}

impl<T: 'static> Linker<T> {
    /// Creates a linker without functions.
    pub fn new() -> Self {
        Self {
            entries: HashMap::new(),
            data: std::marker::PhantomData,
        }
    }

    /// Provides `function` as `module.field`. A later definition replaces an earlier one.
    pub fn function<Arguments, R, F: HostFunction<T, Arguments, R>>(
        &mut self,
        module: &'static str,
        field: &'static str,
        _function: F,
    ) -> &mut Self {
        let entry = Entry {
            body: F::shim(),
            parameters: Some(F::PARAMETERS.into()),
            results: F::RESULTS,
        };
        self.insert(module.into(), field.into(), entry)
    }

    /// Provides `function`, whose parameters are all `u64`, for an import whose parameters are integers of
    /// either size. The guest's data model decides the sizes, and one function serves all models. The
    /// upper half of an argument that is `I32` in `parameters` is undefined.
    ///
    /// # Panics
    ///
    /// If `function` takes another number of parameters, or one of them is not an integer. That is a
    /// mistake in a table of functions.
    pub fn integer_function<Arguments, R, F: HostFunction<T, Arguments, R>>(
        &mut self,
        module: &'static str,
        field: String,
        parameters: Vec<ValueType>,
        _function: F,
    ) -> &mut Self {
        // The ABIs of all our targets pass integers of 32 and 64 bits in the same registers and in
        // stack slots of 64 bits.
        let integer = |ty: &ValueType| matches!(ty, ValueType::I32 | ValueType::I64);
        assert!(F::PARAMETERS.iter().all(|ty| *ty == ValueType::I64));
        assert!(parameters.len() == F::PARAMETERS.len() && parameters.iter().all(integer));
        let entry = Entry {
            body: F::shim(),
            parameters: Some(parameters.into()),
            results: F::RESULTS,
        };
        self.insert(module.into(), field.into(), entry)
    }

    /// Provides `function`, which takes no parameters, for an import with any parameters.
    pub fn any_parameters<R, F: HostFunction<T, (), R>>(
        &mut self,
        module: &'static str,
        field: String,
        _function: F,
    ) -> &mut Self {
        // In the ABIs of all our targets the caller cleans up the stack, so a function may have fewer
        // parameters than it is called with.
        let entry = Entry {
            body: F::shim(),
            parameters: None,
            results: F::RESULTS,
        };
        self.insert(module.into(), field.into(), entry)
    }

    fn insert(
        &mut self,
        module: Cow<'static, str>,
        field: Cow<'static, str>,
        entry: Entry,
    ) -> &mut Self {
        self.entries.entry(module).or_default().insert(field, entry);
        self
    }

    pub(crate) fn get(&self, module: &str, field: &str) -> Option<Entry> {
        self.entries.get(module)?.get(field).cloned()
    }
}

impl<T: 'static> Default for Linker<T> {
    fn default() -> Self {
        Self::new()
    }
}
