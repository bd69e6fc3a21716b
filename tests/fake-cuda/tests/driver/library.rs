//! The library as a program loads it, with its functions looked up by name.
//!
//! All unsafe code of these tests is here: calls of C functions whose types the tests spell out.

use std::path::{Path, PathBuf};

use libloading::{Library, Symbol};
use serde_json::Value;

/// The loaded driver. nextest runs each test in a separate process, so each test has a separate driver.
pub(crate) struct Driver {
    library: Library,
}

/// The path where cargo has put it, in the parent directory of the test program's.
pub(crate) fn built() -> PathBuf {
    let program = std::env::current_exe().unwrap();
    let directory = program.parent().unwrap();
    let found = [directory, directory.parent().unwrap()]
        .map(|directory| directory.join("libfake_cuda.so"))
        .into_iter()
        .find(|path| path.exists());
    found.expect("cargo builds the library for its tests")
}

impl Driver {
    /// Loads a driver that is configured by these variables.
    pub(crate) fn load(settings: &[(&str, &str)]) -> Self {
        Self::open(&built(), settings)
    }

    pub(crate) fn open(path: &Path, settings: &[(&str, &str)]) -> Self {
        for (key, value) in settings {
            // SAFETY: the test has no other thread yet.
            unsafe { std::env::set_var(format!("FAKE_CUDA_{key}"), value) };
        }
        // SAFETY: the library runs no code when it is loaded.
        let library = unsafe { Library::new(path) }.unwrap();
        Self { library }
    }

    /// Loads and initializes it, with a context.
    pub(crate) fn with_context(settings: &[(&str, &str)]) -> (Self, u64) {
        let driver = Self::load(settings);
        assert_eq!(call!(driver, "cuInit", 0u32), 0);
        let mut context = 0u64;
        assert_eq!(
            call!(driver, "cuCtxCreate_v2", &mut context => *mut u64, 0u32, 0i32),
            0
        );
        (driver, context)
    }

    pub(crate) fn symbol<T>(&self, name: &str) -> Symbol<'_, T> {
        // SAFETY: `call!` makes the type from the arguments that the test writes down.
        unsafe { self.library.get(name) }.unwrap()
    }

    pub(crate) fn has(&self, name: &str) -> bool {
        // SAFETY: the symbol is only looked up, never called.
        unsafe { self.library.get::<*const ()>(name) }.is_ok()
    }

    pub(crate) fn census(&self) -> Value {
        let census = self.symbol::<extern "C" fn(*mut u8, usize) -> usize>("fakecuda_census");
        let mut text = vec![0; 1 << 20];
        let length = census(text.as_mut_ptr(), text.len());
        serde_json::from_slice(&text[..length]).unwrap()
    }

    /// Live objects of a kind.
    pub(crate) fn live(&self, kind: &str) -> u64 {
        self.census()["live"][kind].as_u64().unwrap()
    }

    pub(crate) fn violations(&self) -> Vec<String> {
        serde_json::from_value(self.census()["violations"].clone()).unwrap()
    }

    /// Asserts at the end of a test that no object is left and that there were no violations.
    pub(crate) fn assert_empty(&self) {
        let census = self.census();
        let left: Vec<_> = census["live"].as_object().unwrap().iter().collect();
        assert!(
            left.iter().all(|(_, count)| count.as_u64() == Some(0)),
            "{left:?}"
        );
        assert_eq!(self.violations(), [""; 0]);
    }

    /// Allocates device memory with these bytes.
    pub(crate) fn upload(&self, bytes: &[u8]) -> u64 {
        let mut address = 0u64;
        assert_eq!(
            call!(self, "cuMemAlloc_v2", &mut address => *mut u64, bytes.len()),
            0
        );
        let copied = call!(
            self,
            "cuMemcpyHtoD_v2",
            address,
            bytes.as_ptr(),
            bytes.len()
        );
        assert_eq!(copied, 0);
        address
    }

    pub(crate) fn download(&self, address: u64, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        let copied = call!(self, "cuMemcpyDtoH_v2", bytes.as_mut_ptr(), address, length);
        assert_eq!(copied, 0);
        bytes
    }

    /// Loads a module from PTX text. Returns the module and a kernel of it.
    pub(crate) fn kernel(&self, text: &str, name: &str) -> (u64, u64) {
        let text = std::ffi::CString::new(text).unwrap();
        let name = std::ffi::CString::new(name).unwrap();
        let (mut module, mut function) = (0u64, 0u64);
        let loaded = call!(self, "cuModuleLoadData", &mut module => *mut u64, text.as_ptr());
        assert_eq!(loaded, 0);
        let found = call!(
            self,
            "cuModuleGetFunction",
            &mut function => *mut u64,
            module,
            name.as_ptr()
        );
        assert_eq!(found, 0);
        (module, function)
    }

    /// Launches a kernel with an array of parameter pointers.
    pub(crate) fn launch(
        &self,
        function: u64,
        grid: u32,
        block: u32,
        stream: u64,
        parameters: &[u64],
    ) -> i32 {
        let pointers: Vec<_> = parameters.iter().map(|value| value as *const u64).collect();
        let nothing = std::ptr::null::<u8>();
        let shape = (grid, block);
        call!(
            self,
            "cuLaunchKernel",
            function,
            shape.0,
            1u32,
            1u32,
            shape.1,
            1u32,
            1u32,
            0u32,
            stream,
            pointers.as_ptr(),
            nothing
        )
    }
}

/// Calls a function of the driver with arguments of the given types: `value`, or `value => type` where the type is
/// not obvious.
macro_rules! call {
    ($driver:expr, $name:literal $(, $argument:expr $(=> $kind:ty)?)* $(,)?) => {{
        $crate::library::invoke!(@go $driver, $name, [$($argument $(=> $kind)?),*] [])
    }};
}

macro_rules! invoke {
    (@go $driver:expr, $name:literal, [$($argument:expr $(=> $kind:ty)?),*] []) => {{
        let function = $driver.symbol::<*const ()>($name);
        $crate::library::apply(*function, ($($crate::library::typed!($argument $(=> $kind)?),)*))
    }};
}

macro_rules! typed {
    ($argument:expr) => {
        $argument
    };
    ($argument:expr => $kind:ty) => {
        $argument as $kind
    };
}

pub(crate) use {call, invoke, typed};

/// Arguments of a call, as a tuple.
pub(crate) trait Arguments {
    fn apply(self, function: *const ()) -> i32;
}

pub(crate) fn apply(function: *const (), arguments: impl Arguments) -> i32 {
    arguments.apply(function)
}

macro_rules! arguments {
    ($($name:ident: $kind:ident),*) => {
        impl<$($kind),*> Arguments for ($($kind,)*) {
            fn apply(self, function: *const ()) -> i32 {
                let ($($name,)*) = self;
                // SAFETY: the symbol is a function of the driver's interface, with the argument types that the test
                // has written down and a 32-bit result.
                let function = unsafe {
                    std::mem::transmute::<*const (), extern "C" fn($($kind),*) -> i32>(function)
                };
                function($($name),*)
            }
        }
    };
}

arguments!();
arguments!(a: A);
arguments!(a: A, b: B);
arguments!(a: A, b: B, c: C);
arguments!(a: A, b: B, c: C, d: D);
arguments!(a: A, b: B, c: C, d: D, e: E);
arguments!(a: A, b: B, c: C, d: D, e: E, f: F);
arguments!(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H);
arguments!(a: A, b: B, c: C, d: D, e: E, f: F, g: G, h: H, i: I, j: J, k: K);
