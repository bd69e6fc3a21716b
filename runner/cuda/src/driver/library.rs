//! The shared library of the driver, opened by name at run time.
//!
//! The unsafe code assumes that the operator who sets `cuda_driver_library` trusts the library as much as the runner.
//! The library stays open until the process ends, as threads of the driver cannot be stopped.

use std::ffi::{CStr, CString, c_void};
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use super::table::SymbolSource;

/// An open library.
#[derive(Debug)]
pub(crate) struct Library(*mut c_void);

// SAFETY: the handle is only passed to `dlsym`, which any thread may call.
unsafe impl Send for Library {}
// SAFETY: as above.
unsafe impl Sync for Library {}

impl Library {
    /// Opens the library.
    ///
    /// # Errors
    ///
    /// The message of the dynamic loader.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        // A statically linked runner would load a second C library.
        if cfg!(target_feature = "crt-static") {
            return Err("this runner is statically linked and cannot open libraries".to_owned());
        }
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| "the path contains a NUL".to_owned())?;
        // SAFETY: the name is a C string. The operator trusts the initializers that this runs.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure it returns null or a C string that lives until the next call on this thread.
            let message = unsafe { libc::dlerror() };
            if message.is_null() {
                return Err("the dynamic loader returned no message".to_owned());
            }
            // SAFETY: as above, and not null.
            return Err(unsafe { CStr::from_ptr(message) }
                .to_string_lossy()
                .into_owned());
        }
        Ok(Self(handle))
    }
}

impl SymbolSource for Library {
    fn symbol(&self, name: &CStr) -> *mut c_void {
        // SAFETY: the handle is open, the name is a C string.
        unsafe { libc::dlsym(self.0, name.as_ptr()) }
    }
}
