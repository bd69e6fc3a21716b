//! What one instance does, and who sees it: nobody else, and not for free.

use std::fs as host_fs;
use std::sync::Arc;

use super::{CREATE, READ, WRITE, names, open, read, snapshot, view, write};
use crate::errno::Errno;
use crate::fs::content::CHUNK;
use crate::fs::entry::Dir;
use crate::fs::metadata::NewTime;
use crate::fs::namespace::{Access, Namespace};
use crate::fs::open::{OpenOptions, Opened};
use crate::fs::tree::FileSystem;
use crate::fs::{Kind, Root};

#[test]
fn two_instances_see_their_own_bytes_only() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::create_dir(tmp.path().join("dir")).unwrap();
    host_fs::write(tmp.path().join("dir/file"), "lower").unwrap();
    let before = snapshot(tmp.path());
    let root = Root::open(tmp.path()).unwrap();
    let namespace = Arc::new(Namespace::new(root, Access::CopyOnWrite));
    let mut one = FileSystem::new(Arc::clone(&namespace), 1 << 20);
    let mut two = FileSystem::new(Arc::clone(&namespace), 1 << 20);

    write(&mut one, "dir/file", b"one").unwrap();
    write(&mut two, "dir/file", b"two, longer").unwrap();
    write(&mut one, "dir/new", b"").unwrap();
    two.unlink(&Dir::ROOT, b"dir/file").unwrap();
    assert_eq!(read(&mut one, "dir/file").unwrap(), b"one");
    assert_eq!(read(&mut two, "dir/file").unwrap_err(), Errno::Noent);
    assert_eq!(names(&mut one, "dir").unwrap(), ["file", "new"]);
    assert!(names(&mut two, "dir").unwrap().is_empty());
    drop((one, two));

    let mut next = FileSystem::new(namespace, 1 << 20);
    assert_eq!(read(&mut next, "dir/file").unwrap(), b"lower");
    assert_eq!(snapshot(tmp.path()), before);
}

#[test]
fn descriptors_opened_before_a_change_see_it() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("file"), "lower").unwrap();
    let mut fs = view(tmp.path());
    let reader = open(&mut fs, "file", READ).unwrap();
    let mut writer = open(&mut fs, "file", WRITE).unwrap();
    fs.write_at(&mut writer, b"upper", 2).unwrap();
    let mut bytes = [0; 16];
    let count = fs.read_at(&reader, &mut bytes, 0).unwrap();
    assert_eq!(&bytes[..count], b"loupper");

    fs.unlink(&Dir::ROOT, b"file").unwrap();
    fs.close(writer);
    assert_eq!(
        fs.read_at(&reader, &mut bytes, 0).unwrap(),
        7,
        "it lives while it is open"
    );
    assert_eq!(fs.file_metadata(&reader).unwrap().links, 0);
    let used = fs.upper.budget.left();
    fs.close(reader);
    assert!(fs.upper.budget.left() > used, "and is given back then");
}

#[test]
fn what_is_removed_is_given_back() {
    let tmp = tempfile::tempdir().unwrap();
    let mut fs = view(tmp.path());
    write(&mut fs, "first", b"x").unwrap();
    let before = fs.upper.budget.left();
    for round in 0..3 {
        fs.create_directory(&Dir::ROOT, b"dir").unwrap();
        write(&mut fs, "dir/file", &vec![1; 5 * CHUNK]).unwrap();
        fs.symlink(b"file", &Dir::ROOT, b"dir/link").unwrap();
        let from: (_, &[u8], _) = (&Dir::ROOT, b"dir/file", false);
        fs.hard_link(from, (&Dir::ROOT, b"dir/file2")).unwrap();
        for name in ["dir/file", "dir/link", "dir/file2"] {
            fs.unlink(&Dir::ROOT, name.as_bytes()).unwrap();
        }
        fs.remove_directory(&Dir::ROOT, b"dir").unwrap();
        assert_eq!(fs.upper.budget.left(), before, "round {round}");
    }
}

#[test]
fn the_quota_bounds_data_nodes_and_names() {
    let tmp = tempfile::tempdir().unwrap();
    let root = Root::open(tmp.path()).unwrap();
    let namespace = Arc::new(Namespace::new(root, Access::CopyOnWrite));
    let mut fs = FileSystem::new(Arc::clone(&namespace), 256 * 1024);
    let mut file = open(&mut fs, "data", CREATE).unwrap();
    let mut at = 0;
    let errno = loop {
        match fs.write_at(&mut file, &[7; 10_000], at) {
            Ok(count) => at += count as u64,
            Err(errno) => break errno,
        }
    };
    assert_eq!(errno, Errno::Nospc);
    assert!((128 * 1024..=256 * 1024).contains(&at), "{at}");
    fs.set_length(&mut file, 0).unwrap();
    assert_eq!(fs.allocate(&mut file, 0, 1 << 30), Err(Errno::Nospc));
    fs.allocate(&mut file, 0, 4096).unwrap();
    fs.set_length(&mut file, 1 << 40).unwrap();

    for what in ["directory", "file", "symlink"] {
        let mut fs = FileSystem::new(Arc::clone(&namespace), 256 * 1024);
        let mut made = 0;
        let errno = loop {
            let name = format!("{what}{made}");
            let result = match what {
                "directory" => fs.create_directory(&Dir::ROOT, name.as_bytes()),
                "file" => open(&mut fs, &name, CREATE).map(|file| fs.close(file)),
                _ => fs.symlink(b"x", &Dir::ROOT, name.as_bytes()),
            };
            match result {
                Ok(()) => made += 1,
                Err(errno) => break errno,
            }
            assert!(made < 4096, "{what}s are not charged");
        };
        assert_eq!(errno, Errno::Nospc, "{what}");
        let last = format!("{what}{made}");
        let found = fs.walk(&Dir::ROOT, last.as_bytes(), false).unwrap();
        assert!(found.entry.is_none(), "what failed leaves nothing behind");
    }
}

#[test]
fn a_large_lower_file_is_not_copied() {
    let tmp = tempfile::tempdir().unwrap();
    let file = host_fs::File::create(tmp.path().join("large")).unwrap();
    file.set_len(1 << 30).unwrap();
    let mut fs = view(tmp.path());
    let before = fs.upper.budget.left();
    let mut file = open(&mut fs, "large", WRITE).unwrap();
    assert_eq!(fs.upper.budget.left(), before, "opening copies nothing");
    fs.write_at(&mut file, b"x", 500 << 20).unwrap();
    assert!(before - fs.upper.budget.left() <= CHUNK as u64 + 1024);
    fs.rename((&Dir::ROOT, b"large"), (&Dir::ROOT, b"moved"))
        .unwrap();
    let mut bytes = [9; 3];
    fs.read_at(&file, &mut bytes, (500 << 20) - 1).unwrap();
    assert_eq!(bytes, [0, b'x', 0]);
}

#[test]
fn a_read_only_root_refuses_every_change() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::create_dir(tmp.path().join("dir")).unwrap();
    host_fs::write(tmp.path().join("file"), "lower").unwrap();
    let root = Root::open(tmp.path()).unwrap();
    let mut fs = FileSystem::new(Arc::new(Namespace::new(root, Access::ReadOnly)), 1 << 20);
    let root = &Dir::ROOT;
    let truncate = OpenOptions {
        truncate: true,
        ..READ
    };
    assert_eq!(open(&mut fs, "file", WRITE).unwrap_err(), Errno::Rofs);
    assert_eq!(open(&mut fs, "file", truncate).unwrap_err(), Errno::Rofs);
    assert_eq!(open(&mut fs, "new", CREATE).unwrap_err(), Errno::Rofs);
    assert_eq!(fs.create_directory(root, b"new"), Err(Errno::Rofs));
    assert_eq!(fs.create_directory(root, b"dir"), Err(Errno::Exist));
    assert_eq!(fs.remove_directory(root, b"dir"), Err(Errno::Rofs));
    assert_eq!(fs.unlink(root, b"file"), Err(Errno::Rofs));
    assert_eq!(fs.unlink(root, b"missing"), Err(Errno::Noent));
    assert_eq!(fs.symlink(b"x", root, b"new"), Err(Errno::Rofs));
    assert_eq!(fs.rename((root, b"file"), (root, b"new")), Err(Errno::Rofs));
    assert_eq!(
        fs.hard_link((root, b"file", false), (root, b"new")),
        Err(Errno::Rofs)
    );
    let entry = fs.walk(root, b"file", true).unwrap().found().unwrap();
    let set = fs.set_entry_times(entry, NewTime::Now, NewTime::Now);
    assert_eq!(set, Err(Errno::Rofs));
    assert_eq!(read(&mut fs, "file").unwrap(), b"lower");
    let null = fs.open(root, b"dev/null", WRITE);
    assert!(matches!(null, Ok(Opened::Device(_))), "{null:?}");
}

#[test]
fn times_follow_what_happens() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::create_dir(tmp.path().join("dir")).unwrap();
    host_fs::write(tmp.path().join("dir/file"), "lower").unwrap();
    let mut fs = view(tmp.path());
    let modified = |fs: &mut FileSystem, path: &[u8]| {
        let entry = fs.walk(&Dir::ROOT, path, false).unwrap().found().unwrap();
        fs.metadata(&entry).unwrap().times.modified
    };
    for path in [&b"dir"[..], b"dir/file"] {
        let entry = fs.walk(&Dir::ROOT, path, false).unwrap().found().unwrap();
        fs.set_entry_times(entry, NewTime::At(5), NewTime::At(7))
            .unwrap();
        assert_eq!(modified(&mut fs, path), 7);
    }
    let file = open(&mut fs, "dir/file", WRITE).unwrap();
    fs.close(file);
    assert_eq!(modified(&mut fs, b"dir/file"), 7, "opening changes nothing");
    write(&mut fs, "dir/file", b"x").unwrap();
    assert!(modified(&mut fs, b"dir/file") > 1 << 60);
    assert_eq!(modified(&mut fs, b"dir"), 7, "no name in it changed");
    write(&mut fs, "dir/new", b"x").unwrap();
    assert!(modified(&mut fs, b"dir") > 1 << 60);
}

#[test]
fn devices_can_be_hidden_and_moved_in_the_upper_layer() {
    let tmp = tempfile::tempdir().unwrap();
    let mut fs = view(tmp.path());
    assert_eq!(names(&mut fs, ".").unwrap(), ["dev"]);
    let all = [
        "faas", "null", "stderr", "stdin", "stdout", "urandom", "zero",
    ];
    assert_eq!(names(&mut fs, "dev").unwrap(), all);
    fs.unlink(&Dir::ROOT, b"dev/null").unwrap();
    assert_eq!(open(&mut fs, "dev/null", READ).unwrap_err(), Errno::Noent);
    fs.rename((&Dir::ROOT, b"dev/zero"), (&Dir::ROOT, b"zero"))
        .unwrap();
    assert!(matches!(
        fs.open(&Dir::ROOT, b"zero", READ),
        Ok(Opened::Device(_))
    ));
    assert_eq!(
        names(&mut fs, "dev").unwrap(),
        ["faas", "stderr", "stdin", "stdout", "urandom"]
    );
    write(&mut fs, "dev/null", b"a file now").unwrap();
    assert_eq!(read(&mut fs, "dev/null").unwrap(), b"a file now");
    let moved = fs.rename((&Dir::ROOT, b"dev"), (&Dir::ROOT, b"other"));
    assert_eq!(moved, Err(Errno::Busy));
    assert_eq!(fs.remove_directory(&Dir::ROOT, b"dev"), Err(Errno::Busy));
    let entry = fs
        .walk(&Dir::ROOT, b"zero", false)
        .unwrap()
        .found()
        .unwrap();
    assert_eq!(fs.metadata(&entry).unwrap().kind, Kind::CharacterDevice);
}

#[test]
fn names_that_the_host_adds_meanwhile_do_no_harm() {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("file"), "lower").unwrap();
    let mut fs = view(tmp.path());
    fs.rename((&Dir::ROOT, b"file"), (&Dir::ROOT, b"moved"))
        .unwrap();
    for name in ["one", "two"] {
        host_fs::hard_link(tmp.path().join("file"), tmp.path().join(name)).unwrap();
        fs.unlink(&Dir::ROOT, name.as_bytes()).unwrap();
    }
    assert_eq!(read(&mut fs, "moved").unwrap(), b"lower");
    fs.unlink(&Dir::ROOT, b"moved").unwrap();
    assert_eq!(names(&mut fs, ".").unwrap(), ["dev"]);
}

#[test]
fn a_removed_directory_has_nothing_above_it() {
    let tmp = tempfile::tempdir().unwrap();
    let mut fs = view(tmp.path());
    write(&mut fs, "file", b"x").unwrap();
    fs.create_directory(&Dir::ROOT, b"a").unwrap();
    fs.create_directory(&Dir::ROOT, b"a/b").unwrap();
    fs.create_directory(&Dir::ROOT, b"c").unwrap();
    let options = OpenOptions {
        directory: true,
        ..READ
    };
    let Ok(Opened::Directory(dir)) = fs.open(&Dir::ROOT, b"a/b", options) else {
        panic!("a/b is a directory");
    };
    fs.remove_directory(&Dir::ROOT, b"a/b").unwrap();
    fs.remove_directory(&Dir::ROOT, b"a").unwrap();
    // Another node takes the place of the freed one.
    write(&mut fs, "other", b"x").unwrap();
    let root = &Dir::ROOT;
    assert_eq!(fs.rename((root, b"c"), (&dir, b"x")), Err(Errno::Noent));
    assert_eq!(fs.rename((root, b"file"), (&dir, b"x")), Err(Errno::Noent));
    assert_eq!(fs.rename((&dir, b"x"), (root, b"y")), Err(Errno::Noent));
    assert_eq!(fs.symlink(b"x", &dir, b"x"), Err(Errno::Noent));
    assert_eq!(open(&mut fs, "a/b", READ).unwrap_err(), Errno::Noent);
    let above = fs.parent_of(&dir);
    fs.directory_metadata(&above).unwrap();
    fs.close_directory(dir);
}
