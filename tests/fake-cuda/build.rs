//! Link options of the library. Sets the name under which programs load the driver. Keeps the library in memory after
//! it is unloaded, because its threads may still run. Binds its references to itself at link time, so that a renamed
//! function is missing only for programs.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1,-z,nodelete,-Bsymbolic");
}
