//! Injected failures, delays, hanging kernels, and faults.

use std::fs;

use crate::library::{Driver, call};

const SPIN: &str = ".version 7.5\n.target sm_75\n.address_size 64\n\
    .visible .entry spin() { L: bra L; }\n\
    .visible .entry nothing() { ret; }\n\
    .visible .entry poke(.param .u64 address) {\n\
    .reg .b64 %a; ld.param.u64 %a, [address]; st.global.u32 [%a], 7; ret; }";

#[test]
fn ordered_failures_happen_and_do_nothing() {
    let settings = [("INJECT", "cuMemAlloc_v2#2=2,cuCtxGetFlags=999")];
    let (driver, _) = Driver::with_context(&settings);
    let mut address = 0u64;
    let mut codes = vec![];
    for _ in 0..3 {
        codes.push(call!(driver, "cuMemAlloc_v2", &mut address => *mut u64, 4usize));
    }
    assert_eq!(codes, [0, 2, 0]);
    assert_eq!(driver.live("allocations"), 2);
    assert_eq!(
        call!(driver, "cuCtxGetFlags", std::ptr::null_mut::<u32>()),
        999
    );
    assert_eq!(driver.census()["calls"]["cuMemAlloc_v2"], 3);
}

#[test]
fn control_file_changes_settings_of_a_running_program() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    let (driver, _) = Driver::with_context(&[("CONTROL", control.to_str().unwrap())]);
    let synchronize = || call!(driver, "cuCtxSynchronize");
    assert_eq!(synchronize(), 0);
    fs::write(&control, "inject = cuCtxSynchronize=719\n").unwrap();
    assert_eq!(synchronize(), 719);
    fs::write(&control, "colour = red\n").unwrap();
    assert_eq!(synchronize(), 0);
    let violations = driver.violations();
    assert!(violations[0].contains("`colour`"), "{violations:?}");
    fs::remove_file(&control).unwrap();
    assert_eq!(synchronize(), 0);
}

#[test]
fn census_file_and_trace_tell_what_happened() {
    let directory = tempfile::tempdir().unwrap();
    let [census, trace] = ["census.json", "trace"].map(|name| directory.path().join(name));
    let settings = [
        ("CENSUS", census.to_str().unwrap()),
        ("TRACE", trace.to_str().unwrap()),
    ];
    let (driver, context) = Driver::with_context(&settings);
    let read =
        || -> serde_json::Value { serde_json::from_slice(&fs::read(&census).unwrap()).unwrap() };
    assert_eq!(read()["live"]["contexts"], 1);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    assert_eq!(read()["live"]["contexts"], 0);
    let lines = fs::read_to_string(&trace).unwrap();
    assert!(
        lines.contains("cuCtxCreate_v2(&out, 0, 0) = Ok(())"),
        "{lines}"
    );
}

#[test]
fn endless_kernel_is_busy_until_its_context_ends() {
    let (driver, context) = Driver::with_context(&[]);
    let (_, spin) = driver.kernel(SPIN, "spin");
    assert_eq!(driver.launch(spin, 1, 1, 0, &[]), 0);
    assert_eq!(call!(driver, "cuStreamQuery", 0u64), 600);
    assert_eq!(driver.live("pending_work"), 1);
    while driver.census()["kernels"]["launched"] != 1 {
        std::thread::yield_now();
    }
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    driver.assert_empty();
    assert_eq!(driver.census()["kernels"]["cancelled"], 1);
}

#[test]
fn kernel_that_runs_too_long_times_out() {
    let (driver, _) = Driver::with_context(&[("LAUNCH_TIMEOUT", "20ms")]);
    let (_, spin) = driver.kernel(SPIN, "spin");
    assert_eq!(driver.launch(spin, 1, 1, 0, &[]), 0);
    assert_eq!(call!(driver, "cuCtxSynchronize"), 702);
    assert_eq!(call!(driver, "cuCtxSynchronize"), 702);
}

#[test]
fn a_hanging_kernel_continues_when_released() {
    let directory = tempfile::tempdir().unwrap();
    let control = directory.path().join("control");
    fs::write(&control, "hang = nothing\n").unwrap();
    let (driver, _) = Driver::with_context(&[("CONTROL", control.to_str().unwrap())]);
    let (_, nothing) = driver.kernel(SPIN, "nothing");
    assert_eq!(driver.launch(nothing, 1, 1, 0, &[]), 0);
    assert_eq!(call!(driver, "cuStreamQuery", 0u64), 600);
    fs::remove_file(&control).unwrap();
    assert_eq!(call!(driver, "cuCtxSynchronize"), 0);
    assert_eq!(driver.census()["kernels"]["finished"], 1);
}

#[test]
fn fault_stays_with_its_context() {
    let (driver, first) = Driver::with_context(&[]);
    let (_, poke) = driver.kernel(SPIN, "poke");
    assert_eq!(driver.launch(poke, 1, 1, 0, &[0xdead_0000]), 0);
    assert_eq!(call!(driver, "cuCtxSynchronize"), 700);
    let mut address = 0u64;
    let mut allocate = || call!(driver, "cuMemAlloc_v2", &mut address => *mut u64, 4usize);
    assert_eq!(allocate(), 700);
    let mut second = 0u64;
    assert_eq!(
        call!(driver, "cuCtxCreate_v2", &mut second => *mut u64, 0u32, 0i32),
        0
    );
    assert_eq!(allocate(), 0);
    assert_eq!(call!(driver, "cuMemFree_v2", address), 0);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", second), 0);
    assert_eq!(call!(driver, "cuCtxSetCurrent", first), 0);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", first), 0);
    // A fault of the kernel itself is not the host's violation.
    driver.assert_empty();
    let fault = driver.census()["kernels"]["last_fault"].to_string();
    assert!(
        fault.contains("poke: line") && fault.contains("no allocation"),
        "{fault}"
    );
}

#[test]
fn fault_can_reach_the_process() {
    let settings = [("STICKY", "process"), ("FAULT", "nothing=719")];
    let (driver, context) = Driver::with_context(&settings);
    let (_, nothing) = driver.kernel(SPIN, "nothing");
    assert_eq!(driver.launch(nothing, 1, 1, 0, &[]), 0);
    assert_eq!(call!(driver, "cuCtxSynchronize"), 719);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    let mut second = 0u64;
    assert_eq!(
        call!(driver, "cuCtxCreate_v2", &mut second => *mut u64, 0u32, 0i32),
        719
    );
    assert_eq!(driver.census()["dead"], 719);
}

#[test]
fn forbidden_calls_are_violations() {
    let (driver, _) = Driver::with_context(&[("FORBID", "cuCtxSynchronize")]);
    assert_eq!(call!(driver, "cuCtxSynchronize"), 0);
    assert!(driver.violations()[0].contains("cuCtxSynchronize is forbidden"));
}

#[test]
fn older_driver_lacks_a_renamed_function() {
    let driver = Driver::load(&[]);
    assert!(driver.has("cuFuncGetParamInfo"));
    let directory = tempfile::tempdir().unwrap();
    let older = directory.path().join("libcuda.so.1");
    let mut bytes = fs::read(crate::library::built()).unwrap();
    let name = b"cuFuncGetParamInfo";
    let windows = bytes.windows(name.len()).enumerate();
    let places: Vec<_> = windows
        .filter(|(_, part)| part == name)
        .map(|(place, _)| place)
        .collect();
    for place in places {
        bytes[place] = b'x';
    }
    fs::write(&older, bytes).unwrap();
    assert!(!Driver::open(&older, &[]).has("cuFuncGetParamInfo"));
}
