//! A real third-party module with 20 MB of WebAssembly: the request is TypeScript, the response JavaScript.

use faas_wasm_tests::{Backend, Guest, Outcome, Work, esbuild, skip, tool};

const TYPESCRIPT: &str = "\
interface Person { name: string }
export const greet = (person: Person): string => `Hello, ${person.name}!`;
enum Color { Red, Green }
console.log(Color.Green as number);
";

#[test]
fn typescript_becomes_javascript() {
    let Some(module) = esbuild() else {
        skip(
            "typescript_becomes_javascript",
            "there is no esbuild.wasm; `make esbuild` gets it by npm",
        );
        return;
    };
    let guest = Guest::compiled(&module, Backend::Cranelift);
    Outcome::of(tool().arg("verify").arg(guest.artifact())).success();

    let root = Work::new();
    let runner = guest
        .serve_with(&["--loader=ts", "--format=esm"])
        .env("wasm_root", root.path())
        .env("content_type", "text/javascript")
        .start();
    for _ in 0..5 {
        let response = runner.post("/", TYPESCRIPT);
        assert_eq!(response.status, 200, "{}", runner.log());
        assert_eq!(response.header("Content-Type"), Some("text/javascript"));
        let text = response.text();
        assert!(
            text.contains("const greet = (person) => `Hello, ${person.name}!`;"),
            "{text}"
        );
        assert!(!text.contains("interface"), "{text}");
    }
    let mut runner = runner;
    let response = runner.post("/", "const = ;");
    assert_eq!(response.status, 500, "{}", response.text());
    runner.wait_for_log("Expected identifier");

    // A program of several files, which the guest reads from its root.
    root.write("a.ts", "import { b } from './b'; console.log(b as number);");
    root.write("b.ts", "export const b: number = 42;");
    let runner = guest
        .serve_with(&["a.ts", "--bundle"])
        .env("wasm_root", root.path())
        .start();
    let text = runner.get("/").text();
    assert!(
        text.contains("var b = 42;") && text.contains("console.log(b);"),
        "{text}"
    );
    runner.stop();
}
