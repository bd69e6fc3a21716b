//! The other ways to build an image: without the LLVM backend, and with BuildKit.

use faas_wasm_tests::Outcome;

use crate::container::Container;
use crate::engine::{Builder, FunctionImage, docker, inspect, run};
use crate::own_images::tool_image;

/// Whoever must not have the backend under BUSL-1.1 can have an image without it.
#[test]
fn the_second_tag_is_without_the_llvm_backend() {
    let image = format!("{}-cranelift", tool_image());
    let version = run(&["run", "--rm", &image, "--version", "--verbose"]);
    assert!(version.contains("cranelift"), "{version}");
    assert!(version.contains("llvm not part of this build"), "{version}");
    let built = [
        "run",
        "--rm",
        &image,
        "build",
        "--backend",
        "llvm",
        "x.wasm",
    ];
    Outcome::of(docker().args(built)).fails(2, &["llvm"]);
    assert_eq!(
        inspect(
            &image,
            "{{index .Config.Labels \"org.opencontainers.image.licenses\"}}"
        ),
        "Apache-2.0"
    );
}

#[test]
fn c_wasm_is_built_with_buildkit() {
    let image = FunctionImage::new("c-wasm", "c-wasm")
        .builder(Builder::BuildKit)
        .build();
    let container = Container::start(&image);
    assert_eq!(
        container.post("/", "").text(),
        "Hello from C, stranger! You sent 0 bytes.\n"
    );
    container.is_confined_and_healthy();
    container.ends_well();
}
