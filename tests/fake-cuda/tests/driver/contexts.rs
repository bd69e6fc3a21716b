//! Initialization, contexts, and the current context.

use crate::library::{Driver, call};

#[test]
fn nothing_works_before_init() {
    let driver = Driver::load(&[]);
    let mut count = 7i32;
    assert_eq!(call!(driver, "cuDeviceGetCount", &mut count => *mut i32), 3);
    assert_eq!(call!(driver, "cuInit", 0u32), 0);
    assert_eq!(call!(driver, "cuDeviceGetCount", &mut count => *mut i32), 0);
    assert_eq!(count, 1);
    driver.assert_empty();
}

#[test]
fn context_is_current_in_the_thread_that_made_it() {
    let (driver, context) = Driver::with_context(&[]);
    let current = |driver: &Driver| {
        let mut current = 1u64;
        assert_eq!(
            call!(driver, "cuCtxGetCurrent", &mut current => *mut u64),
            0
        );
        current
    };
    assert_eq!(current(&driver), context);
    std::thread::scope(|scope| {
        scope.spawn(|| assert_eq!(current(&driver), 0));
    });
    assert_eq!(driver.live("contexts"), 1);
    assert_eq!(driver.live("threads_with_context"), 1);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    assert_eq!(current(&driver), 0);
    driver.assert_empty();
}

#[test]
fn destroyed_and_unknown_handles_are_violations() {
    let (driver, context) = Driver::with_context(&[]);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 201);
    assert_eq!(call!(driver, "cuCtxSetCurrent", 0x1234u64), 201);
    let violations = driver.violations();
    assert!(
        violations[0].contains("a destroyed Context"),
        "{violations:?}"
    );
    assert!(violations[1].contains("no Context"), "{violations:?}");
}

#[test]
fn primary_context_lives_as_long_as_it_is_retained() {
    let driver = Driver::load(&[("DEVICES", "2")]);
    assert_eq!(call!(driver, "cuInit", 0u32), 0);
    let (mut first, mut second) = (0u64, 0u64);
    assert_eq!(
        call!(driver, "cuDevicePrimaryCtxRetain", &mut first => *mut u64, 1i32),
        0
    );
    assert_eq!(
        call!(driver, "cuDevicePrimaryCtxRetain", &mut second => *mut u64, 1i32),
        0
    );
    assert_eq!(first, second);
    assert_eq!(
        call!(driver, "cuDevicePrimaryCtxRetain", &mut second => *mut u64, 2i32),
        101
    );
    assert_eq!(call!(driver, "cuDevicePrimaryCtxRelease_v2", 1i32), 0);
    assert_eq!(driver.live("primary_retains"), 1);
    assert_eq!(call!(driver, "cuDevicePrimaryCtxRelease_v2", 1i32), 0);
    assert_eq!(call!(driver, "cuDevicePrimaryCtxRelease_v2", 1i32), 201);
    driver.assert_empty();
}

#[test]
fn addresses_of_functions_follow_the_version() {
    let driver = Driver::load(&[]);
    let find = |name: &str, version: i32, flags: u64| {
        let name = std::ffi::CString::new(name).unwrap();
        let (mut address, mut status) = (0usize, -1i32);
        let result = call!(
            driver,
            "cuGetProcAddress_v2",
            name.as_ptr(),
            &mut address => *mut usize,
            version,
            flags,
            &mut status => *mut i32
        );
        (result, address, status)
    };
    let named = |name: &str| *driver.symbol::<*const ()>(name) as usize;
    assert_eq!(find("cuMemAlloc", 12000, 0).1, named("cuMemAlloc_v2"));
    assert_eq!(find("cuCtxCreate", 13000, 0).1, named("cuCtxCreate_v4"));
    assert_eq!(find("cuCtxCreate", 11000, 0).1, named("cuCtxCreate_v2"));
    assert_eq!(
        find("cuLaunchKernel", 13000, 2).1,
        named("cuLaunchKernel_ptsz")
    );
    assert_eq!(find("cuNothing", 13000, 0), (500, 0, 1));
}
