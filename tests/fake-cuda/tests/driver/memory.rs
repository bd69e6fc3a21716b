//! Memory: its owner, its contents, and leaks.

use crate::library::{Driver, call};

#[test]
fn copies_round_trip() {
    let (driver, context) = Driver::with_context(&[]);
    let bytes: Vec<_> = (0..1000).map(|index| index as u8).collect();
    let address = driver.upload(&bytes);
    assert_eq!(driver.download(address, 1000), bytes);
    assert_eq!(
        call!(driver, "cuMemsetD16_v2", address + 10, 0x1234u16, 2usize),
        0
    );
    assert_eq!(
        driver.download(address + 8, 8),
        [8, 9, 0x34, 0x12, 0x34, 0x12, 14, 15]
    );
    assert_eq!(driver.live("allocations"), 1);
    assert_eq!(call!(driver, "cuMemFree_v2", address), 0);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    driver.assert_empty();
}

#[test]
fn every_misuse_of_an_address_is_a_violation() {
    let (driver, first) = Driver::with_context(&[]);
    let address = driver.upload(&[1; 100]);
    let mut bytes = [0u8; 200];
    let into = bytes.as_mut_ptr();
    let expected = [
        (
            call!(driver, "cuMemcpyDtoH_v2", into, address, 101usize),
            "reaches beyond",
        ),
        (
            call!(driver, "cuMemcpyDtoH_v2", into, 0x1000u64, 1usize),
            "no allocation holds",
        ),
        (
            call!(driver, "cuMemFree_v2", address + 16),
            "is no address to free",
        ),
    ];
    let mut second = 0u64;
    assert_eq!(
        call!(driver, "cuCtxCreate_v2", &mut second => *mut u64, 0u32, 0i32),
        0
    );
    let foreign = call!(driver, "cuMemcpyDtoH_v2", into, address, 1usize);
    assert_eq!(call!(driver, "cuCtxSetCurrent", first), 0);
    assert_eq!(call!(driver, "cuMemFree_v2", address), 0);
    let freed = call!(driver, "cuMemFree_v2", address);
    let more = [(foreign, "another context"), (freed, "has been freed")];
    let violations = driver.violations();
    assert_eq!(violations.len(), 5, "{violations:?}");
    for ((code, text), violation) in expected.iter().chain(&more).zip(violations) {
        assert_eq!(*code, 1);
        assert!(violation.contains(text), "{violation} for {text}");
    }
}

#[test]
fn objects_left_in_a_context_are_counted() {
    let (driver, context) = Driver::with_context(&[]);
    driver.upload(&[1; 100]);
    let mut stream = 0u64;
    assert_eq!(
        call!(driver, "cuStreamCreate", &mut stream => *mut u64, 1u32),
        0
    );
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    driver.assert_empty();
    assert_eq!(driver.census()["left_to_context"], 2);
}

#[test]
fn memory_of_pools_outlives_the_context() {
    let (driver, context) = Driver::with_context(&[]);
    let mut address = 0u64;
    let allocated = call!(driver, "cuMemAllocAsync", &mut address => *mut u64, 64usize, 0u64);
    assert_eq!(allocated, 0);
    assert_eq!(call!(driver, "cuCtxDestroy_v2", context), 0);
    assert_eq!(driver.live("pool_allocations"), 1);
}

#[test]
fn freed_memory_is_reused_without_scrubbing() {
    let (driver, _) = Driver::with_context(&[]);
    let address = driver.upload(&[0x5a; 300]);
    assert_eq!(call!(driver, "cuMemFree_v2", address), 0);
    let mut again = 0u64;
    assert_eq!(
        call!(driver, "cuMemAlloc_v2", &mut again => *mut u64, 300usize),
        0
    );
    assert_eq!(driver.download(again, 300), [0x5a; 300]);
}

#[test]
fn device_memory_is_limited() {
    let (driver, _) = Driver::with_context(&[("MEMORY", "1Mi")]);
    let mut address = 0u64;
    let mut allocate = |size: usize| call!(driver, "cuMemAlloc_v2", &mut address => *mut u64, size);
    assert_eq!(allocate(usize::MAX), 2);
    assert_eq!(allocate(0), 1);
    assert_eq!(allocate(1 << 20), 0);
    assert_eq!(allocate(1), 2);
    assert_eq!(driver.violations(), [""; 0]);
}

#[test]
fn pitched_copies_move_rectangles() {
    let (driver, _) = Driver::with_context(&[]);
    let bytes: Vec<_> = (0..64).collect();
    let address = driver.upload(&bytes);
    let mut out = [0u8; 12];
    // Three rows of four bytes, from column 2 and row 1 of rows of eight.
    let shape: [usize; 16] = [
        2,
        1,
        2,
        0,
        address as usize,
        0,
        8,
        0,
        0,
        1,
        out.as_mut_ptr() as usize,
        0,
        0,
        4,
        4,
        3,
    ];
    assert_eq!(call!(driver, "cuMemcpy2D_v2", shape.as_ptr()), 0);
    assert_eq!(out, [10, 11, 12, 13, 18, 19, 20, 21, 26, 27, 28, 29]);
}
