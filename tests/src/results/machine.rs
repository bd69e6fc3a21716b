//! Description of the machine and the date, without the machine's name.

use std::fs;
use std::io;
use std::process::Command;

/// One line that says where and when the numbers were measured.
pub(super) fn describe() -> io::Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = value_of(&cpu, "model name").unwrap_or("unknown CPU");
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = value_of(&memory, "MemTotal")
        .and_then(|value| value.split(' ').next()?.parse().ok())
        .unwrap_or_default();
    let cores = std::thread::available_parallelism()?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    let kernel: Vec<_> = kernel.trim().split(['.', '-']).take(2).collect();
    let virtual_machine = if cpu.contains(" hypervisor ") {
        ", a virtual machine"
    } else {
        ""
    };
    // The load average of the last five minutes: other work on the machine affects the numbers.
    let load = fs::read_to_string("/proc/loadavg")?;
    let load = load.split(' ').nth(1).unwrap_or_default().to_owned();
    let today = Command::new("date").args(["-u", "+%F"]).output()?;
    let today = String::from_utf8_lossy(&today.stdout).trim().to_owned();
    Ok(format!(
        "{today}, {cores} cores of an {model}, {} GiB{virtual_machine}, Linux {}, load average {load} at the end",
        kib.div_ceil(1 << 20),
        kernel.join(".")
    ))
}

/// The value after the first `name   : `.
fn value_of<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim())
}
