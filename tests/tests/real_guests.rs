//! Real third-party guests from package registries: each writes files, reads them back and leaves nothing behind.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use faas_wasm_tests::{Backend, Guest, Runner, RunnerCommand, Work, guests, skip};

/// Compiles a guest, or records that the test is skipped.
fn guest(test: &str, name: &str) -> Option<Guest> {
    let Some(directory) = guests() else {
        skip(
            test,
            "the modules of others are not there; `make guests` gets them by npm and pip",
        );
        return None;
    };
    let module = directory.join(format!("{name}.wasm"));
    Some(Guest::compiled(&module, Backend::Cranelift))
}

/// All files below a directory, with their contents.
fn files(directory: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(directory).expect("it can be listed") {
        let path = entry.expect("it can be listed").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else {
            let content = fs::read(&path).expect("it can be read");
            found.insert(path.display().to_string(), content);
        }
    }
    found
}

/// Starts a guest with `root` as its `/` and posts `body` twice. Asserts that both responses contain each string in
/// `expected` and that the root is unchanged.
#[track_caller]
fn answers(command: RunnerCommand, root: &Work, body: &str, expected: &[&str]) {
    let before = files(root.path());
    let runner: Runner = command
        .env("wasm_root", root.path())
        .env("exec_timeout", "120s")
        .start();
    for _ in 0..2 {
        let response = runner.post("/path", body);
        let text = response.text();
        assert_eq!(response.status, 200, "{text}\n{}", runner.log());
        for part in expected {
            assert!(
                text.contains(part),
                "no {part:?} in {text:?}\n{}",
                runner.log()
            );
        }
    }
    assert_eq!(files(root.path()), before, "the host's files have changed");
    runner.stop();
}

#[test]
fn python_writes_and_reads_back() {
    let Some(guest) = guest("python_writes_and_reads_back", "python") else {
        return;
    };
    let root = Work::new();
    let script = "\
import os, sys
assert not os.path.exists('/note.txt')
with open('/note.txt', 'w') as note:
    note.write('written ')
with open('/note.txt', 'a') as note:
    note.write(sys.stdin.read())
os.mkdir('/made')
os.rename('/note.txt', '/made/note.txt')
print(open('/made/note.txt').read(), os.listdir('/made'), os.environ['Http_Path'])
";
    root.write("script.py", script);
    let command = guest.serve_with(&["/script.py"]);
    answers(
        command,
        &root,
        "by python",
        &["written by python ['note.txt'] /path"],
    );
}

#[test]
fn ruby_writes_and_reads_back() {
    let Some(guest) = guest("ruby_writes_and_reads_back", "ruby") else {
        return;
    };
    let root = Work::new();
    let script = "\
raise 'seen before' if File.exist?('/note.txt')
File.write('/note.txt', \"written #{STDIN.read}\")
puts File.read('/note.txt'), ENV['Http_Method']
";
    root.write("script.rb", script);
    let command = guest.serve_with(&["/script.rb"]);
    answers(command, &root, "by ruby", &["written by ruby\nPOST"]);
}

#[test]
fn php_writes_and_reads_back() {
    let Some(guest) = guest("php_writes_and_reads_back", "php-cgi") else {
        return;
    };
    let root = Work::new();
    let script = "<?php
if (file_exists('/note.txt')) { exit(1); }
file_put_contents('/note.txt', 'written ');
file_put_contents('/note.txt', 'by php', FILE_APPEND);
echo file_get_contents('/note.txt');
";
    root.write("script.php", script);
    let command = guest.serve_with(&["-q", "/script.php"]);
    answers(command, &root, "", &["written by php"]);
}

#[test]
fn sqlite_keeps_a_database_for_a_request() {
    let Some(guest) = guest("sqlite_keeps_a_database_for_a_request", "sqlite") else {
        return;
    };
    let root = Work::new();
    // `create table` fails if the file of an earlier request still exists.
    let statements = "\
create table numbers(value);
insert into numbers values (41), (42);
select sum(value), count(*) from numbers;
";
    let command = guest.serve_with(&["/database"]);
    answers(command, &root, statements, &["83|2"]);
}

#[test]
fn yosys_synthesizes_files_and_reads_them_back() {
    let Some(guest) = guest("yosys_synthesizes_files_and_reads_them_back", "yosys") else {
        return;
    };
    let root = Work::new();
    // abc writes its files there.
    fs::create_dir(root.join("tmp")).expect("a directory");
    root.write(
        "design.v",
        "module adder(input [3:0] a, b, output [4:0] sum); assign sum = a + b; endmodule",
    );
    let script = "\
read_verilog /design.v
synth -top adder
write_json /netlist.json
design -reset
read_json /netlist.json
stat
";
    root.write("script.ys", script);
    let share = guests().expect("the guest is there").join("share");
    let command = guest
        .serve_with(&["/script.ys"])
        .env("wasm_mounts", format!("/share={}", share.display()));
    let expected = ["Executing JSON frontend", "adder", "End of script"];
    answers(command, &root, "", &expected);
}
