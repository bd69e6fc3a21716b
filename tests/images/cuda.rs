//! The template cuda-wasm, with the stand-in driver at the path where the NVIDIA container runtime puts the real one.

use std::env::consts::ARCH;

use faas_wasm_tests::fake_cuda;
use faas_wasm_tests::http::Request;

use crate::container::Container;
use crate::engine::{Builder, FunctionImage};

fn image(builder: Builder) -> String {
    FunctionImage::new("cuda-wasm", "cuda-wasm")
        .builder(builder)
        .argument("BUILD_FLAGS=--backend cranelift")
        .build()
}

fn bytes(numbers: &[f32]) -> Vec<u8> {
    numbers
        .iter()
        .flat_map(|number| number.to_le_bytes())
        .collect()
}

/// A request with x = 0, 1, 2... and y = 1000 everywhere.
fn vectors(count: u16) -> Request {
    let x: Vec<f32> = (0..count).map(f32::from).collect();
    let y = vec![1000.0; count.into()];
    Request::post("/?a=2", [bytes(&x), bytes(&y)].concat())
}

#[test]
fn a_function_computes_on_the_device_of_a_mounted_driver() {
    let mount = format!(
        "--volume={}:/usr/lib/{ARCH}-linux-gnu/libcuda.so.1:ro",
        fake_cuda().display()
    );
    for builder in [Builder::Classic, Builder::BuildKit] {
        let image = image(builder);
        let container = Container::start_with(&image, &[&mount, "--env=use_cuda=required"]);
        let answer = container.send(&vectors(1000));
        assert_eq!(
            answer.status,
            200,
            "{}\n{}",
            answer.text(),
            container.logs()
        );
        let expected: Vec<f32> = (0..1000_u16).map(|x| 2.0 * f32::from(x) + 1000.0).collect();
        assert_eq!(answer.body, bytes(&expected));
        assert_eq!(container.get("/").status, 405);
        container.is_confined_and_healthy();
        container.ends_well();
    }
}

#[test]
fn the_same_image_starts_without_a_driver() {
    let container = Container::start(&image(Builder::Classic));
    let answer = container.send(&vectors(10));
    assert_eq!(answer.status, 503, "{}", container.logs());
    assert_eq!(
        answer.text(),
        "the GPU cannot be used: CUDA_ERROR_NO_DEVICE\n"
    );
    container.ends_well();
}
