//! Files and directories through descriptors.

use std::collections::BTreeSet;
use std::fs as host_fs;

use super::*;
use crate::calls::layout::DIRENT;

#[test]
fn a_file_is_written_and_read_back() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    let file = guest.open("file", CREATE, READ | WRITE).unwrap();
    assert_eq!(file, 4);
    assert_eq!(guest.write(file, b"hello world"), Ok(11));
    let seek = |guest: &mut Guest, offset, whence| {
        guest.ask(|call| fd::fd_seek(call, file, offset, whence, RESULT))
    };
    assert_eq!(seek(&mut guest, 6, 0), Ok(6));
    assert_eq!(guest.read(file, 100).unwrap(), b"world");
    assert_eq!(guest.read(file, 100).unwrap(), b"");
    assert_eq!(seek(&mut guest, -11, 2), Ok(0));
    assert_eq!(seek(&mut guest, 3, 1), Ok(3));
    assert_eq!(seek(&mut guest, -4, 1), Err(number(Errno::Inval)));
    assert_eq!(seek(&mut guest, i64::MAX, 1), Err(number(Errno::Inval)));
    assert_eq!(seek(&mut guest, 0, 3), Err(number(Errno::Inval)));
    assert_eq!(guest.ask(|call| fd::fd_tell(call, file, RESULT)), Ok(3));

    // Two buffers, one of them empty, at a place of their own.
    guest.put(LIST, &DATA.to_le_bytes());
    guest.put(LIST + 4, &0u32.to_le_bytes());
    guest.put(LIST + 8, &DATA.to_le_bytes());
    guest.put(LIST + 12, &4u32.to_le_bytes());
    let count = guest.ask(|call| transfer::fd_pread(call, file, LIST, 2, 1, RESULT));
    assert_eq!((count, guest.bytes(DATA, 4)), (Ok(4), &b"ello"[..]));
    assert_eq!(
        guest.ask(|call| fd::fd_tell(call, file, RESULT)),
        Ok(3),
        "pread moves nothing"
    );
    assert_eq!(
        guest.ask(|call| fd::fd_close(call, file)),
        Ok(0).map(|_: u32| 3)
    );
    assert_eq!(guest.read(file, 1), Err(number(Errno::Badf)));
    assert!(!tmp.path().join("file").exists());
}

#[test]
fn appending_goes_to_the_end_whatever_the_position() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("log"), "one\n").unwrap();
    let mut guest = Guest::at(tmp.path());
    let append = u32::from(rights::APPEND);
    let file = guest
        .open_with(ROOT, "log", 0, READ | WRITE, append)
        .unwrap();
    let other = guest.open("log", 0, READ | WRITE).unwrap();
    assert_eq!(guest.write(file, b"two\n"), Ok(4));
    assert_eq!(guest.write(other, b"ONE"), Ok(3));
    assert_eq!(guest.write(file, b"three\n"), Ok(6));
    guest
        .ask(|call| fd::fd_fdstat_set_flags(call, file, 0))
        .unwrap();
    guest
        .ask(|call| fd::fd_seek(call, file, 0, 0, RESULT))
        .unwrap();
    assert_eq!(guest.read(file, 100).unwrap(), b"ONE\ntwo\nthree\n");
}

#[test]
fn a_descriptor_does_what_it_was_opened_for() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("file"), "x").unwrap();
    let mut guest = Guest::at(tmp.path());
    let reader = guest.open("file", 0, READ).unwrap();
    let writer = guest.open("file", 0, WRITE).unwrap();
    let badf = Err(number(Errno::Badf));
    assert_eq!(guest.write(reader, b"y"), badf);
    assert_eq!(guest.read(writer, 1).map(|_| 0), badf);
    let resized = guest.ask(|call| fd::fd_filestat_set_size(call, reader, 0));
    assert_eq!(resized, Err(number(Errno::Inval)));
    assert_eq!(guest.ask(|call| fd::fd_allocate(call, reader, 0, 1)), badf);
    assert_eq!(guest.write(0, b"y"), badf);
    assert_eq!(guest.read(1, 1).map(|_| 0), badf);
    assert_eq!(guest.read(ROOT, 1).map(|_| 0), badf);
    for fd in [0, 1, 2] {
        let sought = guest.ask(|call| fd::fd_seek(call, fd, 0, 1, RESULT));
        assert_eq!(sought, Err(number(Errno::Spipe)));
    }
    let beyond = guest.open_with(reader, "x", 0, READ, 0);
    assert_eq!(
        beyond,
        Err(number(Errno::Notdir)),
        "a file is no base of a path"
    );
    let directory = guest.open(".", 0, READ | WRITE);
    assert_eq!(directory, Err(number(Errno::Isdir)));
    let exclusive_directory = guest.open("new", CREATE | DIRECTORY, READ);
    assert_eq!(exclusive_directory, Err(number(Errno::Inval)));
}

#[test]
fn rights_shrink_and_do_not_grow() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("file"), "x").unwrap();
    let mut guest = Guest::at(tmp.path());
    let file = guest.open("file", 0, READ | WRITE).unwrap();
    let notcapable = Err(number(Errno::Notcapable));
    let set = |guest: &mut Guest, fd, base, inheriting| {
        guest
            .ask(|call| fd::fd_fdstat_set_rights(call, fd, base, inheriting))
            .map(|_| ())
    };
    assert_eq!(set(&mut guest, file, ALL, 0), notcapable.map(|_: u32| ()));
    assert_eq!(set(&mut guest, file, READ, 0), Ok(()));
    assert_eq!(guest.read(file, 1).unwrap(), b"x");
    assert_eq!(guest.write(file, b"y"), notcapable);
    assert_eq!(
        guest.ask(|call| fd::fd_seek(call, file, 0, 0, RESULT)),
        notcapable
    );
    assert_eq!(
        guest.ask(|call| fd::fd_filestat_get(call, file, DATA)),
        notcapable
    );
    assert_eq!(
        set(&mut guest, file, READ | WRITE, 0),
        notcapable.map(|_: u32| ())
    );

    // What is opened through a directory has no more than it passes on.
    let base = rights::PATH_OPEN | rights::PATH_UNLINK_FILE;
    assert_eq!(set(&mut guest, ROOT, base, READ), Ok(()));
    assert_eq!(guest.open("new", CREATE, READ), notcapable);
    assert_eq!(guest.open("file", 0, WRITE), notcapable);
    let file = guest.open("file", 0, READ).unwrap();
    assert_eq!(guest.read(file, 1).unwrap(), b"x");
    assert_eq!(
        guest.ask(|call| fd::fd_tell(call, file, RESULT)),
        notcapable
    );
    let length = guest.put(PATH, b"dir");
    let made = guest.ask(|call| path::path_create_directory(call, ROOT, PATH, length));
    assert_eq!(made, notcapable);
}

#[test]
fn descriptors_are_limited_and_reused() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::new(builder(tmp.path()).descriptors(6));
    assert_eq!(guest.open("a", CREATE, WRITE), Ok(4));
    assert_eq!(guest.open("b", CREATE, WRITE), Ok(5));
    assert_eq!(guest.open("c", CREATE, WRITE), Err(number(Errno::Mfile)));
    assert_eq!(
        guest.open("c", 0, READ),
        Err(number(Errno::Mfile)),
        "nothing was made"
    );
    guest.ask(|call| fd::fd_close(call, 4)).unwrap();
    assert_eq!(guest.open("c", 0, READ), Err(number(Errno::Noent)));
    assert_eq!(guest.open("c", CREATE, WRITE), Ok(4));
    assert_eq!(
        guest.ask(|call| fd::fd_renumber(call, 5, 4)).map(|_| ()),
        Ok(())
    );
    assert_eq!(guest.write(5, b"x"), Err(number(Errno::Badf)));
    assert_eq!(guest.write(4, b"x"), Ok(1));
    for free in [5, 77] {
        assert_eq!(
            guest.ask(|call| fd::fd_renumber(call, 4, free)),
            Err(number(Errno::Badf)),
            "to {free}"
        );
    }
}

#[test]
fn stdout_is_redirected_by_renumbering() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    let file = guest.open("out", CREATE, READ | WRITE).unwrap();
    let spare = guest.open("dev/null", 0, READ).unwrap();
    for (from, to) in [(1, spare), (file, 1)] {
        let moved = guest.ask(|call| fd::fd_renumber(call, from, to));
        assert_eq!(moved.map(|_| ()), Ok(()), "{from} to {to}");
    }
    assert_eq!(guest.write(1, b"into the file"), Ok(13));
    let moved = guest.ask(|call| fd::fd_renumber(call, spare, 1));
    assert_eq!(moved.map(|_| ()), Ok(()));
    assert_eq!(guest.write(1, b"out"), Ok(3));
    let file = guest.open("out", 0, READ).unwrap();
    assert_eq!(guest.read(file, 100).unwrap(), b"into the file");
}

#[test]
fn filestat_is_laid_out_for_each_module() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("file"), "12345").unwrap();
    host_fs::hard_link(tmp.path().join("file"), tmp.path().join("link")).unwrap();
    let mut guest = Guest::at(tmp.path());
    let length = guest.put(PATH, b"file");
    let stat = |guest: &mut Guest| {
        guest.memory[DATA as usize..][..80].fill(0xaa);
        guest
            .ask(|call| path::path_filestat_get(call, ROOT, 1, PATH, length, DATA))
            .unwrap();
    };
    stat(&mut guest);
    assert_eq!(guest.bytes(DATA + 16, 1), [4], "a regular file");
    assert_eq!((guest.long(DATA + 24), guest.long(DATA + 32)), (2, 5));
    assert!(guest.long(DATA + 48) > 1 << 60, "modified some time");
    assert_eq!(guest.bytes(DATA + 64, 1), [0xaa]);
    guest.abi = Abi::Unstable;
    stat(&mut guest);
    assert_eq!(guest.bytes(DATA + 16, 1), [4]);
    assert_eq!((guest.number(DATA + 20), guest.long(DATA + 24)), (2, 5));
    assert!(guest.long(DATA + 40) > 1 << 60);
    assert_eq!(guest.bytes(DATA + 56, 1), [0xaa]);

    // The numbers of whence differ, too.
    let file = guest.open("file", 0, READ).unwrap();
    for (whence, position) in [(0, 2), (1, 7), (2, 2)] {
        guest
            .ask(|call| fd::fd_seek(call, file, 0, 2, RESULT))
            .unwrap();
        let sought = guest.ask(|call| fd::fd_seek(call, file, 2, whence, RESULT));
        assert_eq!(sought, Ok(position), "{whence}");
    }
}

/// Reads a directory with a buffer of `size` bytes; `between` runs after each call.
fn read_directory(
    guest: &mut Guest,
    dir: u32,
    size: u32,
    mut between: impl FnMut(&mut Guest),
) -> Vec<String> {
    let mut names = Vec::new();
    let mut cookie = 0;
    loop {
        let used = guest
            .ask(|call| fd::fd_readdir(call, dir, DATA, size, cookie, RESULT))
            .unwrap();
        let mut at = 0;
        while at + DIRENT as u32 <= used {
            let length = guest.number(DATA + at + 16);
            if at + DIRENT as u32 + length > used {
                break;
            }
            let name = guest.bytes(DATA + at + DIRENT as u32, length);
            names.push(String::from_utf8(name.to_vec()).unwrap());
            cookie = guest.long(DATA + at);
            at += DIRENT as u32 + length;
        }
        if used < size {
            return names;
        }
        between(guest);
    }
}

#[test]
fn a_directory_is_read_in_pieces_of_any_size() {
    let tmp = tempfile::tempdir().unwrap();
    for index in 0..40 {
        host_fs::write(tmp.path().join(format!("lower{index}")), "").unwrap();
    }
    let mut guest = Guest::at(tmp.path());
    for index in 0..40 {
        guest.open(&format!("upper{index}"), CREATE, WRITE).unwrap();
    }
    let dir = guest.open(".", DIRECTORY, READ).unwrap();
    let whole = read_directory(&mut guest, dir, 0x8000, |_| {});
    assert_eq!(whole.len(), 2 + 80 + 1, "with ., .. and dev");
    assert_eq!(whole[..2], [".", ".."]);
    for size in [40, 64, 100, 333, 4096] {
        assert_eq!(
            read_directory(&mut guest, dir, size, |_| {}),
            whole,
            "{size}"
        );
    }
    // Names that vanish meanwhile do not make others be left out or come twice.
    let mut left = 40;
    let seen = read_directory(&mut guest, dir, 200, |guest| {
        left -= 1;
        let length = guest.put(PATH, format!("lower{left}").as_bytes());
        guest
            .ask(|call| path::path_unlink_file(call, ROOT, PATH, length))
            .unwrap();
    });
    let unique: BTreeSet<_> = seen.iter().collect();
    assert_eq!(unique.len(), seen.len());
    assert!((0..40).all(|index| unique.contains(&format!("upper{index}"))));
    let after = read_directory(&mut guest, dir, 0x8000, |_| {});
    assert_eq!(after.len(), 83 - (40 - left));
}

/// What readers keep between two calls counts against the quota, as a guest can have many of them.
#[test]
fn lists_of_names_are_bounded_by_the_quota() {
    const QUOTA: u64 = 1 << 20;
    let tmp = tempfile::tempdir().unwrap();
    for index in 0..2000 {
        host_fs::write(tmp.path().join(format!("file{index}")), "").unwrap();
    }
    let mut guest = Guest::new(builder(tmp.path()).quota(QUOTA));
    let whole = read_directory(&mut guest, ROOT, 0xe000, |_| {});
    let directories: Vec<_> = (0..100)
        .map(|_| guest.open(".", DIRECTORY, READ).unwrap())
        .collect();
    let mut kept = 0;
    for dir in &directories {
        let before = guest.wasi.fs.upper.budget.left();
        guest
            .ask(|call| fd::fd_readdir(call, *dir, DATA, 100, 0, RESULT))
            .unwrap();
        kept += usize::from(guest.wasi.fs.upper.budget.left() < before);
    }
    assert!((2..20).contains(&kept), "{kept}");
    let usage = guest.wasi.usage();
    assert!(usage.overlay <= QUOTA, "{usage:?}");
    assert!(!usage.overlay_limited, "{usage:?}");
    // Who has no room reads all the same.
    let last = directories[directories.len() - 1];
    assert!(read_directory(&mut guest, last, 0x1000, |_| {}) == whole);
    for dir in directories {
        guest.call(|call| fd::fd_close(call, dir)).unwrap();
    }
    assert_eq!(guest.wasi.fs.upper.budget.left(), QUOTA);
}

#[test]
fn virtual_devices_do_what_they_are_known_for() {
    let tmp = tempfile::tempdir().unwrap();
    let mut guest = Guest::at(tmp.path());
    let null = guest.open("dev/null", 0, READ | WRITE).unwrap();
    assert_eq!(guest.write(null, b"gone"), Ok(4));
    assert_eq!(guest.read(null, 10).unwrap(), b"");
    let zero = guest.open("dev/zero", 0, READ).unwrap();
    assert_eq!(guest.read(zero, 5).unwrap(), [0; 5]);
    let random = guest.open("dev/urandom", 0, READ).unwrap();
    assert_ne!(guest.read(random, 64).unwrap(), [0; 64]);
    let stdin = guest.open("dev/stdin", 0, READ).unwrap();
    assert_eq!(guest.read(stdin, 5).unwrap(), b"", "stdin is empty here");
    let stdout = guest.open("dev/stdout", 0, WRITE).unwrap();
    assert_eq!(guest.write(stdout, b"out"), Ok(3));
    assert_eq!(guest.read(stdout, 1), Err(number(Errno::Badf)));
}

#[test]
fn times_are_set_as_the_flags_say() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("file"), "x").unwrap();
    let mut guest = Guest::at(tmp.path());
    let file = guest.open("file", 0, READ).unwrap();
    let set = |guest: &mut Guest, which| {
        let result = guest.ask(|call| fd::fd_filestat_set_times(call, file, 11, 22, which));
        guest
            .ask(|call| fd::fd_filestat_get(call, file, DATA))
            .unwrap();
        result.map(|_| (guest.long(DATA + 40), guest.long(DATA + 48)))
    };
    assert_eq!(set(&mut guest, 0b0101), Ok((11, 22)));
    let (accessed, modified) = set(&mut guest, 0b1000).unwrap();
    assert_eq!(accessed, 11);
    assert!(modified > 1 << 60);
    for which in [0b0011, 0b1100, 0b10000, u32::MAX] {
        assert_eq!(
            set(&mut guest, which),
            Err(number(Errno::Inval)),
            "{which:b}"
        );
    }
}
