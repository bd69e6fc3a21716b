//! The other ways to build an image: without the LLVM backend, with BuildKit, for another architecture.

use std::env::consts::ARCH;

use faas_wasm_tests::Outcome;

use crate::container::Container;
use crate::engine::{Builder, FunctionImage, docker, inspect, run};
use crate::own_images::tool_image;

/// Users who cannot accept BUSL-1.1 can build an image without the backend that is under it.
#[test]
fn the_cranelift_tag_has_no_llvm_backend() {
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

/// BuildKit sets TARGETARCH from `--platform`; other builders take it as an argument. The build stages compile for
/// that architecture, and only the runner's image must itself be for it.
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
    // This machine's runner refuses the artifact, which shows its architecture.
    let outcome = Outcome::of(docker().args(["run", "--rm", &image]));
    assert_ne!(outcome.code(), 0);
    let said = format!("the artifact is for {foreign}-unknown-linux-gnu, this host is {ARCH}");
    assert!(outcome.stderr.contains(&said), "{}", outcome.stderr);
}
