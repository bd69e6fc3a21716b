//! Arguments that no honest guest gives: an error number or the end of the run, never a panic.

use proptest::prelude::*;

use super::*;
use crate::calls::{clock, poll};

/// Every function, by number, with the arguments that it takes of `a`.
fn any_call(call: &mut Call, function: u8, a: [u64; 9]) -> Outcome {
    let n = a.map(|argument| argument as u32);
    match function {
        0 => process::args_get(call, n[0], n[1]),
        1 => process::args_sizes_get(call, n[0], n[1]),
        2 => process::environ_get(call, n[0], n[1]),
        3 => process::environ_sizes_get(call, n[0], n[1]),
        4 => clock::clock_res_get(call, n[0], n[1]),
        5 => clock::clock_time_get(call, n[0], a[1], n[2]),
        6 => fd::fd_advise(call, n[0], a[1], a[2], n[3]),
        7 => fd::fd_allocate(call, n[0], a[1], a[2]),
        8 => fd::fd_close(call, n[0]),
        9 => fd::fd_datasync(call, n[0]),
        10 => fd::fd_fdstat_get(call, n[0], n[1]),
        11 => fd::fd_fdstat_set_flags(call, n[0], n[1]),
        12 => fd::fd_fdstat_set_rights(call, n[0], a[1], a[2]),
        13 => fd::fd_filestat_get(call, n[0], n[1]),
        14 => fd::fd_filestat_set_size(call, n[0], a[1]),
        15 => fd::fd_filestat_set_times(call, n[0], a[1], a[2], n[3]),
        16 => transfer::fd_pread(call, n[0], n[1], n[2], a[3], n[4]),
        17 => fd::fd_prestat_dir_name(call, n[0], n[1], n[2]),
        18 => fd::fd_prestat_get(call, n[0], n[1]),
        19 => transfer::fd_pwrite(call, n[0], n[1], n[2], a[3], n[4]),
        20 => transfer::fd_read(call, n[0], n[1], n[2], n[3]),
        21 => fd::fd_readdir(call, n[0], n[1], n[2], a[3], n[4]),
        22 => fd::fd_renumber(call, n[0], n[1]),
        23 => fd::fd_seek(call, n[0], a[1] as i64, n[2], n[3]),
        24 => fd::fd_sync(call, n[0]),
        25 => fd::fd_tell(call, n[0], n[1]),
        26 => transfer::fd_write(call, n[0], n[1], n[2], n[3]),
        27 => path::path_create_directory(call, n[0], n[1], n[2]),
        28 => path::path_filestat_get(call, n[0], n[1], n[2], n[3], n[4]),
        29 => path::path_filestat_set_times(call, n[0], n[1], n[2], n[3], a[4], a[5], n[6]),
        30 => path::path_link(call, n[0], n[1], n[2], n[3], n[4], n[5], n[6]),
        31 => path::path_open(call, n[0], n[1], n[2], n[3], n[4], a[5], a[6], n[7], n[8]),
        32 => path::path_readlink(call, n[0], n[1], n[2], n[3], n[4], n[5]),
        33 => path::path_remove_directory(call, n[0], n[1], n[2]),
        34 => path::path_rename(call, n[0], n[1], n[2], n[3], n[4], n[5]),
        35 => path::path_symlink(call, n[0], n[1], n[2], n[3], n[4]),
        36 => path::path_unlink_file(call, n[0], n[1], n[2]),
        37 => poll::poll_oneoff(call, n[0], n[1], n[2], n[3]),
        38 => process::proc_raise(call, n[0]),
        39 => transfer::random_get(call, n[0], n[1]),
        40 => process::sched_yield(call),
        41 => process::sock_accept(call, n[0], n[1], n[2]),
        42 => process::sock_recv(call, n[0], n[1], n[2], n[3], n[4], n[5]),
        43 => process::sock_send(call, n[0], n[1], n[2], n[3], n[4]),
        _ => process::sock_shutdown(call, n[0], n[1]),
    }
}

const FUNCTIONS: u8 = 45;

/// A number that is a descriptor, a flag, a length, a pointer, or nothing of the kind.
fn argument() -> impl Strategy<Value = u64> {
    prop_oneof![
        4 => 0..8u64,
        3 => 0..64u64,
        4 => 0..MEMORY as u64,
        1 => (MEMORY as u64 - 16)..(MEMORY as u64 + 16),
        1 => (u64::from(u32::MAX) - 8)..=u64::from(u32::MAX),
        1 => (i64::MAX as u64 - 2)..=(i64::MAX as u64 + 2),
        1 => Just(u64::MAX),
        1 => any::<u64>(),
    ]
}

/// Memory in which small numbers, names and pointers are likely.
fn memory() -> impl Strategy<Value = Vec<u8>> {
    let word = prop_oneof![
        Just(*b"a\0\0\0"),
        Just(*b"b/a\0"),
        Just(*b"../a"),
        Just(*b"a/.."),
        Just(*b"\xff\xfe/a"),
        (0..9u32).prop_map(u32::to_le_bytes),
        (0..MEMORY as u32).prop_map(u32::to_le_bytes),
        any::<u32>().prop_map(u32::to_le_bytes),
    ];
    proptest::collection::vec(word, 256).prop_map(|words| {
        let pattern = words.concat();
        pattern.iter().copied().cycle().take(MEMORY).collect()
    })
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_arguments_make_a_call_panic(
        memory in memory(),
        unstable in any::<bool>(),
        calls in proptest::collection::vec((0..FUNCTIONS, any::<bool>(), proptest::array::uniform9(argument())), 1..60),
    ) {
        let tmp = tempfile::tempdir().unwrap();
        std::fs::create_dir(tmp.path().join("b")).unwrap();
        std::fs::write(tmp.path().join("a"), "lower").unwrap();
        std::fs::write(tmp.path().join("b/a"), "lower").unwrap();
        let mut guest = Guest::new(builder(tmp.path()).quota(1 << 20).descriptors(8));
        guest.memory = memory;
        if unstable {
            guest.abi = Abi::Unstable;
        }
        for (function, honest, mut arguments) in calls {
            if honest {
                // A descriptor and a short path or list, so that more than the checks is reached.
                arguments[0] = 3 + arguments[0] % 4;
                arguments[2] %= 8;
                arguments[3] = if function == 31 { 1 + arguments[3] % 4 } else { arguments[3] };
            }
            guest.deadline = Some(Instant::now() + Duration::from_millis(2));
            match guest.call(|call| any_call(call, function, arguments)) {
                Ok(errno) => prop_assert!((0..=76).contains(&errno), "{function}: {errno}"),
                Err(stop) => prop_assert_eq!(stop, Stop::DEADLINE, "{}", function),
            }
        }
        let below: Vec<_> = std::fs::read_dir(tmp.path()).unwrap().collect();
        prop_assert_eq!(below.len(), 2);
        prop_assert_eq!(std::fs::read(tmp.path().join("a")).unwrap(), b"lower");
    }
}

#[test]
fn wrong_pointers_are_faults() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    let end = MEMORY as u32;
    let fault = Err(number(Errno::Fault));
    guest.one_buffer(end - 4, 8);
    assert_eq!(
        guest.ask(|call| transfer::fd_write(call, 1, LIST, 1, RESULT)),
        fault
    );
    guest.one_buffer(DATA, 4);
    for (list, count) in [(end - 4, 1), (LIST, u32::MAX / 8), (u32::MAX, 1)] {
        let written = guest.ask(|call| transfer::fd_write(call, 1, list, count, RESULT));
        assert_eq!(written, fault, "{list:#x} {count}");
    }
    assert_eq!(
        guest.ask(|call| transfer::fd_write(call, 1, LIST, 1, end - 3)),
        fault
    );
    assert_eq!(
        guest.ask(|call| fd::fd_filestat_get(call, ROOT, end - 63)),
        fault
    );
    assert_eq!(
        guest.ask(|call| transfer::random_get(call, 1, u32::MAX)),
        fault
    );
    let opened =
        guest.ask(|call| path::path_open(call, ROOT, 0, end - 2, 4, CREATE, WRITE, 0, 0, RESULT));
    assert_eq!(opened, fault);

    // A wrong place for the answer must not leave a file behind.
    let length = guest.put(PATH, b"new");
    let opened = guest
        .ask(|call| path::path_open(call, ROOT, 0, PATH, length, CREATE, WRITE, 0, 0, end - 1));
    assert_eq!(opened, fault);
    assert_eq!(guest.open("new", 0, READ), Err(number(Errno::Noent)));
    guest.put(PATH, b"\xff\xff");
    let made = guest.ask(|call| path::path_create_directory(call, ROOT, PATH, 2));
    assert_eq!(made, Err(number(Errno::Ilseq)));
}

#[test]
fn buffers_whose_sum_overflows_are_refused() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    // More buffers than are looked at: a short transfer.
    for index in 0..2000 {
        guest.put(0x4000 + 8 * index, &DATA.to_le_bytes());
        guest.put(0x4004 + 8 * index, &1u32.to_le_bytes());
    }
    let written = guest.ask(|call| transfer::fd_write(call, 1, 0x4000, 2000, RESULT));
    assert_eq!(written, Ok(1024));
}
