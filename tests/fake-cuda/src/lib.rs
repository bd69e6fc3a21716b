//! A stand-in for `libcuda.so.1` with the driver's 64-bit ABI, for tests without a GPU.
//!
//! It tracks state like a driver (contexts, memory, streams, events, modules, graphs) and runs real PTX
//! on the CPU. It fails, hangs and delays calls on request. It also checks its caller: an unallocated
//! device address, a destroyed handle or an object of another context is a *violation*, and a test
//! that finds one in the census fails. `README.md` in this crate documents the settings and the census.
//!
//! ```text
//! entry/*   the exported functions: check arguments, update the state, queue work
//!   driver/*  the state: one lock, tables of live objects, settings, census, work around every call
//!   device/*  memory (bytes behind addresses that the host cannot touch) and streams (threads)
//!     exec/*  PTX threads, blocks and grids as state machines
//!       ptx/* text to instructions
//! abi/*     codes, structures and pointers of the C interface
//! ```
//!
//! It deliberately does not support execution of SASS (it knows only the functions of a cubin and their
//! parameters), textures, surfaces, peer access, and IPC.
//!
//! Locks are taken in the order driver, device memory.

mod abi;
mod device;
mod driver;
mod entry;
mod exec;
mod image;
mod ptx;
mod settings;
