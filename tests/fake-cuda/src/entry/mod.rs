//! The exported functions by topic. Each checks its arguments, updates the state, and queues or awaits work.
//! `driver::enter` does the work that all calls share.

mod context;
mod copy;
mod device;
mod event;
mod fill;
mod function;
mod graph;
mod graph_exec;
mod launch;
mod library;
mod memory;
mod module;
mod occupancy;
mod pinned;
mod pool;
mod primary;
mod process;
mod stream;

/// Exports functions under their C names, with the variants (`_ptsz`, `_ptds`) in which stream 0 is the per-thread
/// default, and lists them for `cuGetProcAddress`.
macro_rules! entries {
    ($(
        $(#[$attribute:meta])*
        fn $name:ident $(/ $alias:ident)? ($($argument:ident: $kind:ty),* $(,)?)
            |$call:ident| $body:block
    )*) => {
        $(
            $(#[$attribute])*
            #[unsafe(no_mangle)]
            extern "C" fn $name($($argument: $kind),*) -> i32 {
                let arguments = || {
                    let arguments: &[String] = &[$(format!("{:?}", $argument)),*];
                    arguments.join(", ")
                };
                $crate::driver::enter(
                    stringify!($name),
                    arguments,
                    |$call: &mut $crate::driver::Call<'_>| -> $crate::abi::Result { $body },
                )
            }
            $crate::entry::alias! { [$($alias)?] $name($($argument: $kind),*) }
        )*

        /// Names and addresses of this file's functions.
        pub(super) fn exported() -> Vec<(&'static str, usize)> {
            vec![$(
                (stringify!($name), $name as *const () as usize),
                $((stringify!($alias), $alias as *const () as usize),)?
            )*]
        }
    };
}

macro_rules! alias {
    ([] $($rest:tt)*) => {};
    ([$alias:ident] $name:ident($($argument:ident: $kind:ty),*)) => {
        #[unsafe(no_mangle)]
        extern "C" fn $alias($($argument: $kind),*) -> i32 {
            use $crate::abi::PerThread as _;
            $name($($argument.per_thread()),*)
        }
    };
}

pub(crate) use {alias, entries};

/// All exported functions of the driver.
fn exported() -> Vec<(&'static str, usize)> {
    [
        context::exported,
        copy::exported,
        device::exported,
        event::exported,
        fill::exported,
        function::exported,
        graph::exported,
        graph_exec::exported,
        launch::exported,
        library::exported,
        memory::exported,
        module::exported,
        occupancy::exported,
        pinned::exported,
        pool::exported,
        primary::exported,
        process::exported,
        stream::exported,
    ]
    .into_iter()
    .flat_map(|exported| exported())
    .collect()
}
