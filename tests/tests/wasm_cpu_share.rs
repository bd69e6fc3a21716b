//! Wasm mode: `wasm_cpu_share` where control groups can be created, and its refusal where not.

use std::fs;
use std::path::PathBuf;

use faas_wasm_tests::{Guest, skip};

/// The control group of this process, if a threaded group with a CPU limit can be created below it. The check does
/// not use the runner, so that a wrong refusal by the runner cannot skip the test.
fn delegated_group() -> Result<PathBuf, String> {
    let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
    let group = groups.lines().find_map(|line| line.strip_prefix("0::/"));
    let group = group.ok_or("this process is in no cgroup v2")?;
    let group = PathBuf::from("/sys/fs/cgroup").join(group);
    let controllers = fs::read_to_string(group.join("cgroup.controllers"));
    let controllers =
        controllers.map_err(|error| format!("no cgroup v2 at /sys/fs/cgroup: {error}"))?;
    if !controllers.split_whitespace().any(|name| name == "cpu") {
        return Err("the group has no controller cpu".into());
    }
    let child = group.join("faas-wasm-test");
    fs::create_dir(&child).map_err(|error| format!("no group can be made: {error}"))?;
    let threaded = fs::write(child.join("cgroup.type"), "threaded");
    let removed = fs::remove_dir(&child);
    threaded.map_err(|error| format!("no threaded group can be made: {error}"))?;
    removed.map_err(|error| format!("the group cannot be removed: {error}"))?;
    Ok(group)
}

fn groups_of(pid: u32, group: &PathBuf) -> usize {
    let entries = fs::read_dir(group).expect("it can be read").flatten();
    let prefix = format!("faas-wasm.{pid}.");
    entries
        .filter(|entry| entry.file_name().to_string_lossy().starts_with(&prefix))
        .count()
}

/// User and system time of a process from its stat file, whose unit is a hundredth of a second on every Linux system.
fn cpu_seconds(pid: u32) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).expect("it lives");
    let (_, fields) = stat.rsplit_once(')').expect("a name in parentheses");
    let times = fields.split_whitespace().skip(11).take(2);
    times
        .map(|time| time.parse::<f64>().expect("a number") / 100.0)
        .sum()
}

#[test]
fn a_guest_has_its_share_and_no_more() {
    let group = match delegated_group() {
        Ok(group) => group,
        Err(reason) => return skip("a_guest_has_its_share_and_no_more", &reason),
    };
    let guest = Guest::fixture("spin");
    let spin = |share: Option<&str>| {
        let command = guest
            .serve()
            .env("exec_timeout", "2s")
            .env("min_scale", "2");
        let runner = match share {
            Some(share) => command.env("wasm_cpu_share", share),
            None => command,
        }
        .start();
        let pid = runner.pid();
        let groups = if share.is_some() { 2 } else { 0 };
        assert_eq!(groups_of(pid, &group), groups, "one for each replica");
        let before = cpu_seconds(pid);
        assert_eq!(runner.get("/").status, 504);
        let spent = cpu_seconds(pid) - before;
        assert_eq!(runner.get("/_/health").status, 200);
        runner.stop();
        assert_eq!(groups_of(pid, &group), 0, "none is left behind");
        spent
    };
    // Two seconds of spinning: a tenth of a core gives 0.2 s of CPU time, a whole core 2 s.
    let (limited, free) = (spin(Some("0.1")), spin(None));
    assert!(limited < 0.8, "{limited} s of CPU time with a share of 0.1");
    assert!(free > limited, "{free} s without, {limited} s with a share");
}

#[test]
fn control_groups_of_dead_runners_are_removed() {
    let group = match delegated_group() {
        Ok(group) => group,
        Err(reason) => return skip("control_groups_of_dead_runners_are_removed", &reason),
    };
    let guest = Guest::fixture("hello");
    let first = guest.serve().env("wasm_cpu_share", "0.5").start();
    let pid = first.pid();
    assert!(groups_of(pid, &group) > 0);
    // Dropping the runner kills it.
    drop(first);
    assert!(groups_of(pid, &group) > 0);
    let second = guest.serve().env("wasm_cpu_share", "0.5").start();
    assert_eq!(groups_of(pid, &group), 0);
    assert_eq!(second.get("/").text(), "hello, world\n");
}

/// The runner refuses to start rather than run with a limit that it cannot enforce.
#[test]
fn an_unenforceable_share_is_refused() {
    let guest = Guest::fixture("hello");
    let tiny = guest.serve().env("wasm_cpu_share", "0.0001").run_to_end();
    tiny.fails(1, &["wasm_cpu_share cannot be enforced", "least is 0.001"]);
    if let Ok(group) = delegated_group() {
        let reason = format!("one can be had in {}", group.display());
        return skip("an_unenforceable_share_is_refused", &reason);
    }
    let outcome = guest.serve().env("wasm_cpu_share", "0.5").run_to_end();
    outcome.fails(1, &["wasm_cpu_share cannot be enforced"]);
}
