//! The templates for languages that compile to WebAssembly, each with both builders.

use faas_wasm_tests::http::Request;

use crate::container::Container;
use crate::engine::{Builder, FunctionImage, toolchain_image};

/// Expectations for a new function from a template.
struct Expected<'a> {
    template: &'a str,
    /// The image that replaces the public one with the toolchain.
    toolchain: &'a str,
    /// Target of a POST request with a body of five bytes, and the response body.
    greeting: (&'a str, &'a str),
}

fn check(expected: &Expected<'_>) {
    let template = expected.template;
    let Some(toolchain) = toolchain_image(expected.toolchain, template) else {
        return;
    };
    for builder in [Builder::Classic, Builder::BuildKit] {
        let image = FunctionImage::new(template, template)
            .builder(builder)
            .argument(format!("TOOLCHAIN_IMAGE={toolchain}"))
            // Cranelift saves time; c-wasm covers the default.
            .argument("BUILD_FLAGS=--backend cranelift")
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
        toolchain: "rust",
        greeting: ("/", "Hello from Rust! olleh\n"),
    });
}

#[test]
fn go() {
    check(&Expected {
        template: "go-wasm",
        toolchain: "go",
        greeting: ("/?name=Ada", "Hello from Go, Ada! You sent 5 bytes.\n"),
    });
}

#[test]
fn assemblyscript() {
    check(&Expected {
        template: "assemblyscript-wasm",
        toolchain: "node",
        greeting: ("/", "Hello from AssemblyScript! You sent 5 bytes.\n"),
    });
}

#[test]
fn python() {
    check(&Expected {
        template: "python-wasm",
        toolchain: "python",
        greeting: ("/", "Hello from Python! You sent 5 bytes.\n"),
    });
}
