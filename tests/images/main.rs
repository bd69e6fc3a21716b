//! Tests of container images: this project's own, and those that the templates build. `make test-image` runs them
//! with a container engine; other test targets do not compile them.
//!
//! The tests build images from the templates as a user does, with `templates/stand-in` in place of faas-cli, on base
//! images that the Makefile has built. They leave the images in the engine, so that the next run is fast, and remove
//! the containers.

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
