//! Gives the library the name under which programs ask for the driver; keeps it in memory once it is
//! loaded, since threads of it may run; and binds its references to itself when it is linked, so that
//! a function whose name has been changed is gone for programs alone.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libcuda.so.1,-z,nodelete,-Bsymbolic");
}
