//! Templates without WebAssembly, in which the runner replaces of-watchdog.

use faas_wasm_tests::http::Request;

use crate::container::{Container, wait_for};
use crate::engine::{Builder, FunctionImage, own, toolchain_image};

const BUILDERS: [Builder; 2] = [Builder::Classic, Builder::BuildKit];

#[test]
fn bash_streaming() {
    for builder in BUILDERS {
        let image = FunctionImage::new("bash-streaming", "bash-streaming")
            .builder(builder)
            .build();
        let container = Container::start(&image);
        let answer = container.post("/there", "a\nb\n");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (
                200,
                "Hello from bash! You asked for /there.\nLines sent: 2\n"
            )
        );
        container.is_confined_and_healthy();
        container.ends_well();
    }
}

/// A container's first process inherits the orphans of functions and must reap them.
#[test]
fn orphans_are_reaped() {
    let image = FunctionImage::new("bash-streaming", "orphan")
        .handler(own("functions/orphan"))
        .build();
    let container = Container::start(&image);
    let orphan = container.get("/").text();
    let orphan = orphan.trim();
    let child_of_ours = container.exec(&["grep", "^PPid:", &format!("/proc/{orphan}/status")]);
    assert_eq!(child_of_ours.success().split_whitespace().nth(1), Some("1"));
    container
        .exec(&["bash", "-c", &format!("kill {orphan}")])
        .success();
    wait_for("the orphan is gone from the table of processes", || {
        let look = container.exec(&["test", "-e", &format!("/proc/{orphan}")]);
        (look.code() != 0).then_some(())
    });
    container.ends_well();
}

#[test]
fn python_http() {
    let Some(python) = toolchain_image("python", "python-http") else {
        return;
    };
    for builder in BUILDERS {
        let image = FunctionImage::new("python-http", "python-http")
            .builder(builder)
            .argument(format!("BASE_IMAGE={python}"))
            .build();
        let container = Container::start_with(&image, &["--env=ready_path=/"]);
        let answer = container.post("/", "hello");
        assert_eq!(
            (answer.status, answer.text().as_str()),
            (200, "Hello from Python! You sent 5 bytes.\n")
        );
        assert_eq!(answer.header("X-Body-Size"), Some("5"));
        let chunks = Request::post_chunks("/", vec![b"ab".to_vec(), b"c".to_vec()]);
        assert_eq!(
            container.send(&chunks).text(),
            "Hello from Python! You sent 3 bytes.\n"
        );
        assert_eq!(container.get("/elsewhere").status, 404);
        container.is_confined_and_healthy();
        container.ends_well();
    }
}

#[test]
fn static_site() {
    for builder in BUILDERS {
        let image = FunctionImage::new("static-site", "static-site")
            .builder(builder)
            .build();
        let container = Container::start(&image);
        let page = container.get("/");
        assert_eq!(page.status, 200);
        assert!(page.text().contains("Hello from a static site"));
        let style = container.get("/style.css");
        assert_eq!(
            (style.status, style.header("Content-Type")),
            (200, Some("text/css; charset=utf-8"))
        );
        assert_eq!(container.get("/none").status, 404);
        container.is_confined_and_healthy();
        container.ends_well();
    }
}

#[test]
fn a_broken_link_fails_the_build() {
    let image = FunctionImage::new("static-site", "broken").handler(own("functions/broken-site"));
    let (_, outcome) = image.try_build();
    assert_ne!(outcome.code(), 0, "{}", outcome.text());
    let said = outcome.text() + &outcome.stderr;
    assert!(
        said.contains("FAIL index.html: there is no gone.html"),
        "{said}"
    );
}
