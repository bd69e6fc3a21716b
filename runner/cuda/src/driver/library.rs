//! The driver's shared library, opened by name when it is first needed.
//!
//! What the unsafe code relies on: whoever names the library (`cuda_driver_library`) trusts it as the runner's own code.
//! It stays open for the life of the process, as a driver's threads cannot be stopped.

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
    /// Opens it.
    ///
    /// # Errors
    ///
    /// What the dynamic loader says.
    pub(crate) fn open(path: &Path) -> Result<Self, String> {
        // It would bring a second C library into the process.
        if cfg!(target_feature = "crt-static") {
            return Err("this runner is linked statically and opens no library".to_owned());
        }
        let name = CString::new(path.as_os_str().as_bytes())
            .map_err(|_| "the path contains a NUL".to_owned())?;
        // SAFETY: the name is a C string; running the library's initialisers is what its owner asked for.
        let handle = unsafe { libc::dlopen(name.as_ptr(), libc::RTLD_NOW | libc::RTLD_LOCAL) };
        if handle.is_null() {
            // SAFETY: after a failure it gives a C string that lives until the next call on this thread, or null.
            let message = unsafe { libc::dlerror() };
            if message.is_null() {
                return Err("the dynamic loader gives no reason".to_owned());
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
