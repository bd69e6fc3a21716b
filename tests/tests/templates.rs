//! Checks of the templates and manifests that need only their text, not a container engine. `make test-image` builds
//! and runs them.

use std::collections::BTreeSet;
use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use faas_wasm_tests::{Outcome, Work, skip};
use serde_json::{Value, json};

/// Environment variable with the directory of the Python packages kubernetes-validate and PyYAML.
const KUBERNETES_VALIDATE: &str = "FAAS_WASM_KUBERNETES_VALIDATE";

/// The keys of a function in a stack file that the templates use.
const FUNCTION_KEYS: [&str; 14] = [
    "annotations",
    "build_args",
    "build_options",
    "environment",
    "fprocess",
    "handler",
    "image",
    "labels",
    "lang",
    "limits",
    "platforms",
    "readonly_root_filesystem",
    "requests",
    "secrets",
];

fn root(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path)
}

fn read(path: &Path) -> String {
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The directories of all templates.
fn templates() -> Vec<PathBuf> {
    let entries = fs::read_dir(root("templates/template")).expect("the templates are there");
    let mut found: Vec<_> = entries
        .map(|entry| entry.expect("it can be listed").path())
        .collect();
    found.sort();
    assert!(!found.is_empty(), "there are templates");
    found
}

fn name(template: &Path) -> &str {
    let name = template.file_name().and_then(|name| name.to_str());
    name.expect("names of templates are ASCII")
}

/// The runner's variables, from its documentation.
fn documented_variables() -> BTreeSet<String> {
    let text = read(&root("runner/CONFIGURATION.md"));
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `"));
    let names = rows.filter_map(|row| row.split_once(" |").map(|(names, _)| names));
    let names = names.flat_map(|names| names.split(", "));
    let found: BTreeSet<_> = names.map(|name| name.replace('`', "")).collect();
    assert!(found.contains("fprocess"), "{found:?}");
    found
}

#[track_caller]
fn is_documented(variable: &str, place: &Path) {
    // Belongs to the NVIDIA container runtime.
    if !variable.starts_with("NVIDIA_") {
        assert!(
            documented_variables().contains(variable),
            "{}: the runner has no variable {variable}",
            place.display()
        );
    }
}

/// The instructions of a Dockerfile, one line each.
fn instructions(text: &str) -> Vec<String> {
    let lines = text
        .lines()
        .filter(|line| !line.trim_start().starts_with('#'));
    let text = lines.collect::<Vec<_>>().join("\n");
    let whole = text.replace("\\\n", " ");
    let lines = whole.lines().map(|line| line.trim().to_owned());
    lines.filter(|line| !line.is_empty()).collect()
}

#[test]
fn templates_are_complete() {
    for template in templates() {
        let description = read(&template.join("template.yml"));
        let language = format!("language: {}\n", name(&template));
        assert!(description.starts_with(&language), "{description}");
        assert!(description.contains("\nhandler_folder: function\n"));
        assert!(description.contains("\nwelcome_message: |\n"));
        for file in [
            "Dockerfile",
            "Dockerfile.buildkit",
            "README.md",
            "stack.yaml",
            "function",
        ] {
            let file = template.join(file);
            assert!(file.exists(), "{} is missing", file.display());
        }
    }
}

/// faas-cli copies only the template's own folder, so two templates that share a file each have a copy.
#[test]
fn copies_are_equal() {
    let template = |path: &str| root("templates/template").join(path);
    for (original, copy) in [
        (template("c-wasm/faas.h"), template("cuda-wasm/faas.h")),
        (template("c-wasm/faas.c"), template("cuda-wasm/faas.c")),
        (
            root("runner/cuda/include/faas_cuda.h"),
            template("cuda-wasm/faas_cuda.h"),
        ),
    ] {
        assert!(
            read(&original) == read(&copy),
            "{} is not {}",
            copy.display(),
            original.display()
        );
    }
}

/// Arguments that name mirrors. They have no default, so that the registry's client uses its own unless one is given.
const MIRRORS: [&str; 4] = [
    "GOPROXY",
    "NPM_CONFIG_REGISTRY",
    "PIP_INDEX_URL",
    "RUSTUP_DIST_SERVER",
];

/// An engine without BuildKit supports no mounts, here-documents or other frontends.
#[test]
fn dockerfiles_work_with_the_classic_builder() {
    for template in templates() {
        let path = template.join("Dockerfile");
        let text = read(&path);
        for absent in ["--mount", "<<", "syntax="] {
            assert!(!text.contains(absent), "{}: {absent}", path.display());
        }
        for instruction in instructions(&text) {
            let Some(argument) = instruction.strip_prefix("ARG ") else {
                continue;
            };
            // BuildKit sets this argument. A default would override it, so each use has a fallback instead.
            if argument == "TARGETARCH" {
                assert!(text.contains("${TARGETARCH:-amd64}"), "{}", path.display());
                assert!(!text.contains("${TARGETARCH}"), "{}", path.display());
            } else if !MIRRORS.contains(&argument) {
                assert!(argument.contains('='), "{}: {argument}", path.display());
            }
        }
    }
}

#[test]
fn dockerfiles_differ_only_by_cache_mounts() {
    for template in templates() {
        let with = read(&template.join("Dockerfile.buildkit"));
        let mut without = String::new();
        // A mount ends its line with a backslash, and the next line starts with the indentation.
        let mut rest = with.as_str();
        while let Some((before, after)) = rest.split_once("--mount=") {
            without += before;
            let (mount, after) = after
                .split_once(" \\\n    ")
                .expect("a mount has its own line");
            assert!(mount.starts_with("type=cache,"), "{mount}");
            rest = after;
        }
        without += rest;
        assert_eq!(
            read(&template.join("Dockerfile")),
            without,
            "{}",
            name(&template)
        );
    }
}

/// Users without access to public registries must be able to name other images.
#[test]
fn build_arguments_can_replace_every_image() {
    let files = templates().into_iter().flat_map(|template| {
        [
            template.join("Dockerfile"),
            template.join("Dockerfile.buildkit"),
        ]
    });
    let ours = [root("runner/Dockerfile"), root("compiler/Dockerfile")];
    for path in files.chain(ours) {
        let instructions = instructions(&read(&path));
        let mut stages = BTreeSet::new();
        let mut platforms = 0;
        for instruction in &instructions {
            let Some(from) = instruction.strip_prefix("FROM ") else {
                continue;
            };
            let words: Vec<_> = from.split_whitespace().collect();
            assert!(words[0].starts_with("--platform=${"), "{from}");
            platforms += 1;
            let image = words[1];
            let argument = image
                .strip_prefix("${")
                .and_then(|rest| rest.strip_suffix('}'));
            match argument {
                Some(argument) => {
                    let set = format!("ARG {argument}=");
                    let default = instructions.iter().find_map(|line| line.strip_prefix(&set));
                    let default = default.unwrap_or_else(|| panic!("{}: {set}", path.display()));
                    if default.starts_with("faas-wasm") {
                        let version = format!(":{}", env!("CARGO_PKG_VERSION"));
                        assert!(default.ends_with(&version), "{default}");
                    }
                }
                None => assert!(
                    image == "scratch" || stages.contains(image),
                    "{}: {image}",
                    path.display()
                ),
            }
            if let Some(at) = words.iter().position(|word| *word == "AS") {
                stages.insert(words[at + 1].to_owned());
            }
        }
        assert!(platforms > 0, "{} has stages", path.display());
    }
}

#[test]
fn images_set_only_variables_of_the_runner() {
    for template in templates() {
        let path = template.join("Dockerfile");
        let mut count = 0;
        for instruction in instructions(&read(&path)) {
            let Some(settings) = instruction.strip_prefix("ENV ") else {
                continue;
            };
            // Values with spaces are in quotation marks.
            let mut quoted = false;
            let words = settings.split(|c: char| {
                quoted ^= c == '"';
                c.is_whitespace() && !quoted
            });
            for word in words.filter(|word| !word.is_empty()) {
                let (variable, _) = word.split_once('=').expect("NAME=VALUE");
                is_documented(variable, &path);
                count += 1;
            }
        }
        assert!(count > 0, "{} sets variables", path.display());
    }
}

/// Runs the stand-in for faas-cli in a directory, with a client that only prints its arguments.
fn stand_in(work: &Work, arguments: &[&str]) -> Outcome {
    let mut command = Command::new(root("templates/stand-in"));
    command
        .args(arguments)
        .current_dir(work.path())
        .env("DOCKER", "echo");
    Outcome::of(&mut command)
}

#[test]
fn the_stand_in_lays_the_handler_over_the_template() {
    let work = Work::new();
    stand_in(&work, &["new", "bash-streaming", "hello"]).success();
    let stack = read(&work.join("hello.yml"));
    assert!(stack.contains("    lang: bash-streaming\n"), "{stack}");
    work.write("hello/more.sh", "echo more\n");
    fs::remove_file(work.join("hello/test.sh")).expect("the template has it");
    let context = stand_in(
        &work,
        &["build", "bash-streaming", "hello", "image", "--shrinkwrap"],
    );
    assert_eq!(context.success(), "build/hello\n");
    // A deleted file is replaced by the template's, as with faas-cli.
    for file in [
        "Dockerfile",
        "function/handler.sh",
        "function/more.sh",
        "function/test.sh",
    ] {
        assert!(work.join("build/hello").join(file).exists(), "{file}");
    }
    let again = stand_in(&work, &["new", "bash-streaming", "hello"]);
    again.fails(1, &["exists already"]);
    let misnamed = stand_in(&work, &["new", "bash-streaming", "Hello_"]);
    misnamed.fails(1, &["is no name for a function"]);
}

#[test]
fn the_stand_in_passes_packages_and_arguments_to_the_build() {
    let work = Work::new();
    stand_in(&work, &["new", "bash-streaming", "hello"]).success();
    let build = ["build", "bash-streaming", "hello", "image"];
    let told = |options: &[&str]| stand_in(&work, &[&build, options].concat());
    assert_eq!(
        told(&["--build-option", "web", "--build-arg", "A=b"]).success(),
        "build --build-arg A=b --build-arg ADDITIONAL_PACKAGE=ca-certificates curl jq -t image build/hello\n"
    );
    assert_eq!(
        told(&["--buildkit"]).success(),
        "build -t image -f build/hello/Dockerfile.buildkit build/hello\n"
    );
    told(&["--build-option", "none"]).fails(1, &["no build option none", "its options are: web"]);
}

/// Python with packages that read YAML and know Kubernetes. Without them, records the test as skipped and returns
/// `None`.
fn python(test: &str) -> Option<Command> {
    let Some(packages) = env::var_os(KUBERNETES_VALIDATE) else {
        skip(test, "kubernetes-validate is not there");
        return None;
    };
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages);
    Some(command)
}

/// The documents in a YAML file.
fn yaml(mut python: Command, path: &Path) -> Vec<Value> {
    python
        .args(["-c", "import json, sys, yaml; print(json.dumps(list(yaml.safe_load_all(open(sys.argv[1])))))"])
        .arg(path);
    let text = Outcome::of(&mut python).success();
    serde_json::from_str(&text).expect("it is JSON")
}

fn keys(value: &Value) -> Vec<&str> {
    let object = value.as_object().expect("it is a mapping");
    object.keys().map(String::as_str).collect()
}

#[test]
fn stack_files_use_only_keys_of_openfaas() {
    for template in templates() {
        let path = template.join("stack.yaml");
        let Some(python) = python("stack_files_use_only_keys_of_openfaas") else {
            return;
        };
        let stack = yaml(python, &path).remove(0);
        assert_eq!(keys(&stack), ["functions", "provider", "version"]);
        assert_eq!(stack["provider"]["name"], "openfaas");
        for (function, settings) in stack["functions"].as_object().expect("a mapping") {
            assert!(function.len() <= 63, "{function}");
            assert_eq!(settings["lang"], name(&template));
            for key in keys(settings) {
                assert!(FUNCTION_KEYS.contains(&key), "{}: {key}", path.display());
            }
            for variable in keys(&settings["environment"]) {
                is_documented(variable, &path);
            }
            for texts in ["environment", "labels", "annotations"] {
                for (key, value) in settings[texts].as_object().expect("a mapping") {
                    assert!(value.is_string(), "{}: {key}: {value}", path.display());
                }
            }
            assert_eq!(settings["readonly_root_filesystem"], true);
            for label in ["com.openfaas.scale.min", "com.openfaas.scale.max"] {
                let count: u32 = settings["labels"][label]
                    .as_str()
                    .and_then(|count| count.parse().ok())
                    .expect("a number");
                assert!(count >= 1);
            }
            for probe in ["health", "ready"] {
                assert_eq!(
                    settings["annotations"][format!("com.openfaas.{probe}.http.path")],
                    format!("/_/{probe}")
                );
            }
        }
    }
}

#[track_caller]
fn is_valid_kubernetes(mut python: Command, path: &Path) {
    python
        .args(["-m", "kubernetes_validate", "--strict"])
        .arg(path);
    let outcome = Outcome::of(&mut python);
    assert_eq!(outcome.code(), 0, "{}{}", outcome.text(), outcome.stderr);
}

#[test]
fn deployments_match_kubernetes_schemas() {
    for file in ["deployment.yaml", "deployment-gpu.yaml"] {
        let path = root("templates/kubernetes").join(file);
        let test = "deployments_match_kubernetes_schemas";
        let (Some(validate), Some(parse)) = (python(test), python(test)) else {
            return;
        };
        is_valid_kubernetes(validate, &path);
        for document in yaml(parse, &path) {
            let Some(containers) = document["spec"]["template"]["spec"]["containers"].as_array()
            else {
                continue;
            };
            for variable in containers.iter().flat_map(|c| c["env"].as_array().unwrap()) {
                is_documented(variable["name"].as_str().unwrap(), &path);
            }
        }
    }
}

/// Shows that the check works: a schema that accepts everything would also accept the manifests.
#[test]
fn schema_validation_rejects_mistakes() {
    let test = "schema_validation_rejects_mistakes";
    let work = Work::new();
    let text = read(&root("templates/kubernetes/deployment.yaml"));
    for (right, wrong) in [
        ("containerPort: 8080", "containerPort: http"),
        ("replicas: 2", "replica: 2"),
    ] {
        let Some(mut python) = python(test) else {
            return;
        };
        let path = work.path().join("wrong.yaml");
        assert!(text.contains(right));
        fs::write(&path, text.replace(right, wrong)).expect("it can be written");
        python
            .args(["-m", "kubernetes_validate", "--strict"])
            .arg(&path);
        assert_ne!(Outcome::of(&mut python).code(), 0, "{wrong}");
    }
}

/// OpenFaaS copies a Profile's fields into the pod, so they must be fields of a pod.
#[test]
fn the_gpu_profile_makes_a_valid_pod() {
    let test = "the_gpu_profile_makes_a_valid_pod";
    let (Some(parse), Some(validate)) = (python(test), python(test)) else {
        return;
    };
    let profile = yaml(parse, &root("templates/kubernetes/gpu-profile.yaml")).remove(0);
    assert_eq!(profile["apiVersion"], "openfaas.com/v1");
    assert_eq!(profile["kind"], "Profile");
    let mut spec = profile["spec"].clone();
    spec["containers"] = json!([{ "name": "function", "image": "function" }]);
    let pod = json!({
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": { "name": "function" },
        "spec": spec,
    });
    let work = Work::new();
    let path = work.path().join("pod.yaml");
    fs::write(&path, pod.to_string()).expect("it can be written");
    is_valid_kubernetes(validate, &path);
}

/// Packages come from the sources that this machine or the image is configured with. A host in a file would bypass
/// mirrors and proxies.
#[test]
fn no_file_names_a_host_to_download_from() {
    let mut files = vec![root("Makefile"), root("runner"), root("compiler")];
    files.extend([".ci", "templates", "tests/images"].map(root));
    let mut looked_at = 0;
    while let Some(path) = files.pop() {
        if path.is_dir() {
            let entries = fs::read_dir(&path).expect("it can be listed");
            files.extend(entries.map(|entry| entry.expect("it can be listed").path()));
            continue;
        }
        let text = String::from_utf8_lossy(&fs::read(&path).expect("it can be read")).into_owned();
        let is_run = text.starts_with("#!")
            || path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name == "Makefile" || name.contains("Dockerfile"));
        if !is_run {
            continue;
        }
        looked_at += 1;
        for line in text.lines() {
            // A hint in an error downloads nothing.
            let hosts = line
                .split("://")
                .skip(1)
                .filter(|_| !line.contains("fail \""));
            for host in hosts {
                let name = host.split(['/', ':', '"', '\'', ' ', '`']).next();
                let name = name.unwrap_or_default();
                assert!(
                    !name.contains('.') || name == "127.0.0.1",
                    "{}: {line}",
                    path.display()
                );
            }
        }
    }
    assert!(looked_at > 20, "{looked_at}");
}
