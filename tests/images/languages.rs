//! The templates for languages that compile to WebAssembly, each with both builders.

use faas_wasm_tests::http::Request;

use crate::container::Container;
use crate::engine::{Builder, FunctionImage, toolchain_image};

/// Expectations for a new function from a template.
struct Expected<'a> {
    template: &'a str,
    /// Build arguments that name images of the toolchain, and the local replacements.
    toolchain: &'a [(&'a str, &'a str)],
    /// Target of a POST request with a body of five bytes, and the response body.
    greeting: (&'a str, &'a str),
}

fn check(expected: &Expected<'_>) {
    let template = expected.template;
    let mut images = Vec::new();
    for (argument, stand_in) in expected.toolchain {
        let Some(image) = toolchain_image(stand_in, template) else {
            return;
        };
        images.push(format!("{argument}={image}"));
    }
    for builder in [Builder::Classic, Builder::BuildKit] {
        let image = FunctionImage::new(template, template)
            .builder(builder)
            // Cranelift saves time; c-wasm covers the default.
            .argument("BUILD_FLAGS=--backend cranelift");
        let image = images
            .iter()
            .fold(image, |image, argument| image.argument(argument))
            .build();
        let container = Container::start(&image);
        let (target, body) = expected.greeting;
        let request = Request::post(target, "hello").header("Content-Type", "text/plain");
        let greeting = container.send(&request);
        assert_eq!((greeting.status, greeting.text().as_str()), (200, body));
        assert_eq!(
            greeting.header("Content-Type"),
            Some("text/plain; charset=utf-8")
        );
        assert_eq!(container.get("/else%20where").status, 404);
        container.is_confined_and_healthy();
        container.ends_well();
    }
}

#[test]
fn rust() {
    check(&Expected {
        template: "rust-wasm",
        toolchain: &[("TOOLCHAIN_IMAGE", "rust")],
        greeting: ("/", "Hello from Rust! olleh\n"),
    });
}

#[test]
fn go() {
    check(&Expected {
        template: "go-wasm",
        toolchain: &[("TOOLCHAIN_IMAGE", "go")],
        greeting: ("/?name=Ada", "Hello from Go, Ada! You sent 5 bytes.\n"),
    });
}

#[test]
fn assemblyscript() {
    check(&Expected {
        template: "assemblyscript-wasm",
        toolchain: &[("TOOLCHAIN_IMAGE", "node")],
        greeting: ("/", "Hello from AssemblyScript! You sent 5 bytes.\n"),
    });
}

#[test]
fn python() {
    check(&Expected {
        template: "python-wasm",
        toolchain: &[("TOOLCHAIN_IMAGE", "python"), ("NPM_IMAGE", "node")],
        greeting: ("/", "Hello from Python! You sent 5 bytes.\n"),
    });
}
