//! A stand-in for `libcuda.so.1` with the driver's 64-bit ABI, for tests without a GPU.
//!
//! It keeps books like a driver (contexts, memory, streams, events, modules, graphs), runs real PTX
//! on the CPU, fails, hangs and lags when told to, and watches its caller: a device address that
//! nobody owns, a destroyed handle or an object of another context is a *violation*, which fails the
//! test that finds it in the census. How to steer and read it is in `README.md` beside this crate.
//!
//! ```text
//! entry/*   the exported functions: check arguments, change the books, queue work
//!   driver/*  the books: one lock, tables of live objects, settings, census, what a call does around
//!   device/*  memory (bytes behind addresses that the host cannot touch) and streams (threads)
//!     exec/*  PTX threads, blocks and grids as state machines
//!       ptx/* text to instructions
//! abi/*     codes, structures and pointers of the C interface
//! ```
//!
//! What it deliberately does not do: execute SASS (of a cubin it knows the functions and their
//! parameters), textures, surfaces, peers, IPC.
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
