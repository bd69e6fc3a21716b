//! The other ways to build an image: without the LLVM backend, with BuildKit, for another architecture.

use std::env::consts::ARCH;

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

/// BuildKit sets TARGETARCH by `--platform`, with any other builder it is an argument. What the build
/// stages compile is for that architecture; only the runner's image must be one for it, too.
#[test]
fn c_wasm_is_compiled_for_the_target_architecture() {
    let (argument, foreign) = match ARCH {
        "aarch64" => ("TARGETARCH=amd64", "x86_64"),
        _ => ("TARGETARCH=arm64", "aarch64"),
    };
    let image = FunctionImage::new("c-wasm", "foreign")
        .argument(argument)
        .argument("BUILD_FLAGS=--backend cranelift")
        .build();
    // The runner of this machine refuses it, which shows what is in the image.
    let outcome = Outcome::of(docker().args(["run", "--rm", &image]));
    assert_ne!(outcome.code(), 0);
    let said = format!("the artifact is for {foreign}-unknown-linux-gnu, this host is {ARCH}");
    assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
}
