//! Container images: ours, and those that the templates make. `make test-image` runs these with a
//! container engine; nothing here is compiled for other tests.
//!
//! Images are built from the templates as a user has them, with `templates/stand-in` in the place of
//! faas-cli, on base images that the Makefile made. They stay in the engine, so that a further run is
//! quick; containers are removed.

mod c_wasm;
mod classic;
mod container;
mod cuda;
mod engine;
mod examples;
mod languages;
mod own_images;
mod swap;
mod variants;
