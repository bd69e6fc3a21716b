//! Several directories of the host in one tree.

use std::fs as host_fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Barrier};

use super::{CREATE, READ, WRITE, names, open, read, snapshot, write};
use crate::errno::Errno;
use crate::fs::entry::Dir;
use crate::fs::namespace::{Access, Namespace};
use crate::fs::open::{OpenOptions, Opened};
use crate::fs::tree::FileSystem;
use crate::fs::{Mount, MountProblem, Root};

/// A root with `etc/conf`, and three more directories with a `file` each.
fn host() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::create_dir_all(tmp.path().join("root/etc")).unwrap();
    host_fs::write(tmp.path().join("root/etc/conf"), "root").unwrap();
    symlink("run", tmp.path().join("root/var")).unwrap();
    host_fs::create_dir(tmp.path().join("root/run")).unwrap();
    for name in ["ro", "cow", "rw"] {
        host_fs::create_dir_all(tmp.path().join(name).join("sub")).unwrap();
        host_fs::write(tmp.path().join(name).join("file"), name).unwrap();
    }
    tmp
}

/// Mounts from entries `GUEST=HOST[:cow|:rw]`, joined by commas.
fn mounts(list: &str) -> Vec<Mount> {
    let entries = list.split(',').map(|entry| {
        let (guest, host) = entry.split_once('=').unwrap();
        let (host, access) = match host.rsplit_once(':') {
            Some((host, "cow")) => (host, Access::CopyOnWrite),
            Some((host, "rw")) => (host, Access::ReadWrite),
            _ => (host, Access::ReadOnly),
        };
        Mount {
            guest: guest.to_owned(),
            host: host.into(),
            access,
        }
    });
    entries.collect()
}

fn mounted(host: &Path, list: &str) -> FileSystem {
    let list = list.replace('@', host.to_str().unwrap());
    let root = Root::open(host.join("root")).unwrap();
    let namespace = Namespace::new(root, Access::CopyOnWrite)
        .with_mounts(&mounts(&list))
        .unwrap();
    FileSystem::new(Arc::new(namespace), 1 << 20)
}

#[test]
fn mounts_appear_in_the_tree_whatever_the_lower_layer_has() {
    let host = host();
    let list = "/etc=@/ro,/new/deep/point=@/cow:cow,/new/deep/point/sub=@/rw:rw,/var/x=@/ro";
    let mut fs = mounted(host.path(), list);
    assert_eq!(
        names(&mut fs, ".").unwrap(),
        ["dev", "etc", "new", "run", "var"]
    );
    assert_eq!(names(&mut fs, "etc").unwrap(), ["file", "sub"]);
    assert_eq!(names(&mut fs, "new").unwrap(), ["deep"]);
    assert_eq!(names(&mut fs, "new/deep/point").unwrap(), ["file", "sub"]);
    assert_eq!(
        names(&mut fs, "run").unwrap(),
        ["x"],
        "the point was made through a symlink"
    );
    assert_eq!(read(&mut fs, "new/deep/point/file").unwrap(), b"cow");
    assert_eq!(read(&mut fs, "new/deep/point/sub/file").unwrap(), b"rw");
    assert_eq!(read(&mut fs, "var/x/file").unwrap(), b"ro");
    assert_eq!(read(&mut fs, "new/deep/point/sub/../file").unwrap(), b"cow");
    assert_eq!(read(&mut fs, "etc/../new/deep/point/file").unwrap(), b"cow");
    assert_eq!(
        read(&mut fs, "etc/conf").unwrap_err(),
        Errno::Noent,
        "it is hidden"
    );
}

#[test]
fn each_mount_has_its_own_access() {
    let host = host();
    let mut fs = mounted(host.path(), "/ro=@/ro,/cow=@/cow:cow,/rw=@/rw:rw");
    let before = snapshot(&host.path().join("cow"));
    assert_eq!(open(&mut fs, "ro/file", WRITE).unwrap_err(), Errno::Rofs);
    write(&mut fs, "cow/file", b"changed").unwrap();
    write(&mut fs, "rw/file", b"changed").unwrap();
    write(&mut fs, "rw/sub/new", b"shared").unwrap();
    write(&mut fs, "file", b"in the root").unwrap();

    let mut other = mounted(host.path(), "/ro=@/ro,/cow=@/cow:cow,/rw=@/rw:rw");
    assert_eq!(read(&mut other, "cow/file").unwrap(), b"cow");
    assert_eq!(read(&mut other, "rw/file").unwrap(), b"changed");
    assert_eq!(
        host_fs::read(host.path().join("rw/sub/new")).unwrap(),
        b"shared"
    );
    assert_eq!(snapshot(&host.path().join("cow")), before);
    assert!(!host.path().join("root/file").exists());
}

#[test]
fn changes_do_not_cross_mounts_and_points_stay() {
    let host = host();
    let mut fs = mounted(host.path(), "/a/ro=@/ro,/cow=@/cow:cow,/rw=@/rw:rw");
    let root = &Dir::ROOT;
    let file = (root, &b"etc/conf"[..], false);
    for to in [&b"cow/x"[..], b"rw/x", b"a/ro/x"] {
        assert_eq!(fs.rename((root, b"etc/conf"), (root, to)), Err(Errno::Xdev));
        assert_eq!(fs.hard_link(file, (root, to)), Err(Errno::Xdev));
    }
    for point in [&b"cow"[..], b"rw", b"a", b"a/ro"] {
        assert_eq!(fs.remove_directory(root, point), Err(Errno::Busy));
        assert_eq!(fs.rename((root, point), (root, b"moved")), Err(Errno::Busy));
        assert_eq!(fs.create_directory(root, point), Err(Errno::Exist));
    }
    assert_eq!(fs.unlink(root, b"a/ro/file"), Err(Errno::Rofs));
}

#[test]
fn a_mount_that_writes_through_does_all_of_it_on_the_host() {
    let host = host();
    let rw = host.path().join("rw");
    let mut fs = mounted(host.path(), "/rw=@/rw:rw");
    let root = &Dir::ROOT;
    fs.create_directory(root, b"rw/dir").unwrap();
    write(&mut fs, "rw/dir/one", b"1").unwrap();
    fs.hard_link((root, b"rw/dir/one", false), (root, b"rw/dir/two"))
        .unwrap();
    fs.symlink(b"one", root, b"rw/dir/link").unwrap();
    assert_eq!(fs.read_link(root, b"rw/dir/link").unwrap(), b"one");
    assert_eq!(read(&mut fs, "rw/dir/link").unwrap(), b"1");
    let moved = fs
        .rename((root, b"rw/dir"), (root, b"rw/sub/dir"))
        .unwrap()
        .unwrap();
    assert_eq!(
        (moved.from, moved.to),
        (b"dir".to_vec(), b"sub/dir".to_vec())
    );
    fs.unlink(root, b"rw/sub/dir/one").unwrap();
    assert_eq!(host_fs::read(rw.join("sub/dir/two")).unwrap(), b"1");
    assert_eq!(
        fs.remove_directory(root, b"rw/sub/dir"),
        Err(Errno::Notempty)
    );
    let mut file = open(&mut fs, "rw/sub/dir/two", WRITE).unwrap();
    fs.set_length(&mut file, 5).unwrap();
    fs.allocate(&mut file, 0, 10).unwrap();
    fs.sync(&file, false).unwrap();
    assert_eq!(host_fs::metadata(rw.join("sub/dir/two")).unwrap().len(), 10);
    assert_eq!(open(&mut fs, "rw/sub/dir/link", CREATE).map(drop), Ok(()));
    assert!(rw.join("sub/dir/one").exists(), "made through the symlink");
    assert_eq!(
        fs.upper.budget.left(),
        1 << 20,
        "nothing of it is kept in memory"
    );
}

#[test]
fn a_mount_that_writes_through_is_confined_too() {
    let host = host();
    let rw = host.path().join("rw");
    host_fs::create_dir(host.path().join("outside")).unwrap();
    symlink("../outside", rw.join("up")).unwrap();
    symlink(host.path().join("outside"), rw.join("absolute")).unwrap();
    let mut fs = mounted(host.path(), "/rw=@/rw:rw");
    for path in ["rw/up/x", "rw/absolute/x"] {
        assert_eq!(
            write(&mut fs, path, b"x").unwrap_err(),
            Errno::Noent,
            "{path}"
        );
        assert_eq!(
            fs.create_directory(&Dir::ROOT, path.as_bytes()),
            Err(Errno::Noent),
            "{path}"
        );
    }
    let absolute = fs.symlink(b"/etc/passwd", &Dir::ROOT, b"rw/link");
    assert_eq!(absolute, Err(Errno::Perm));
    assert!(
        host_fs::read_dir(host.path().join("outside"))
            .unwrap()
            .next()
            .is_none()
    );
    // Up from a mount is the tree that it is mounted in.
    fs.create_directory(&Dir::ROOT, b"outside").unwrap();
    write(&mut fs, "rw/up/x", b"x").unwrap();
    assert_eq!(read(&mut fs, "outside/x").unwrap(), b"x");
    assert!(
        host_fs::read_dir(host.path().join("outside"))
            .unwrap()
            .next()
            .is_none()
    );
}

#[test]
fn a_mount_below_a_file_is_refused() {
    let host = host();
    let root = Root::open(host.path().join("root")).unwrap();
    let list = format!("/etc/conf/x={}", host.path().display());
    let mounts = mounts(&list);
    let error = Namespace::new(root, Access::CopyOnWrite)
        .with_mounts(&mounts)
        .unwrap_err();
    assert!(
        matches!(error.problem, MountProblem::NotADirectory),
        "{error}"
    );
    assert!(error.to_string().contains("/etc/conf/x="), "{error}");
}

#[test]
fn malformed_guest_paths_are_refused() {
    for guest in ["data", "/", "/a/../b", "/./a", "/nul\0"] {
        let root = Root::open("/").unwrap();
        let error = Namespace::new(root, Access::CopyOnWrite)
            .with_mounts(&mounts(&format!("{guest}=/srv")))
            .unwrap_err();
        assert!(matches!(error.problem, MountProblem::GuestPath), "{error}");
    }
}

#[test]
fn two_names_of_one_point_are_refused() {
    let host = host();
    let root = Root::open(host.path().join("root")).unwrap();
    let list = format!("/run/x={0},/var/x={0}", host.path().display());
    let mounts = mounts(&list);
    let error = Namespace::new(root, Access::CopyOnWrite)
        .with_mounts(&mounts)
        .unwrap_err();
    assert!(matches!(error.problem, MountProblem::Twice), "{error}");
}

#[test]
fn an_open_directory_outlives_its_name() {
    let host = host();
    let mut fs = mounted(host.path(), "/cow=@/cow:cow");
    let options = OpenOptions {
        directory: true,
        ..READ
    };
    for path in ["cow/sub", "etc"] {
        let Ok(Opened::Directory(dir)) = fs.open(&Dir::ROOT, path.as_bytes(), options) else {
            panic!("{path} is a directory");
        };
        let _ = fs.unlink(&Dir::ROOT, b"etc/conf");
        fs.remove_directory(&Dir::ROOT, path.as_bytes()).unwrap();
        assert_eq!(fs.list(&dir), Err(Errno::Noent), "{path}");
        assert_eq!(fs.create_directory(&dir, b"x"), Err(Errno::Noent), "{path}");
        fs.create_directory(&Dir::ROOT, path.as_bytes()).unwrap();
        assert!(
            names(&mut fs, path).unwrap().is_empty(),
            "a new one shows nothing of the old"
        );
    }
}

#[test]
fn a_missing_host_directory_is_shown() {
    let root = Root::open("/").unwrap();
    let mounts = mounts("/data=/nonexistent/x");
    let error = Namespace::new(root, Access::CopyOnWrite)
        .with_mounts(&mounts)
        .unwrap_err();
    assert_eq!(error.entry, "/data=/nonexistent/x");
    assert!(error.to_string().contains("No such file"), "{error}");
}

/// O_CREAT without O_EXCL opens what somebody else makes at the same time.
#[test]
fn those_who_make_a_file_at_once_all_get_it() {
    const ROUNDS: usize = 500;
    let host = host();
    let barrier = Barrier::new(2);
    let make_all = || {
        let mut fs = mounted(host.path(), "/rw=@/rw:rw");
        let mut make = |round| {
            barrier.wait();
            open(&mut fs, &format!("rw/new{round}"), CREATE).err()
        };
        // All of them, as the other one waits for each.
        (0..ROUNDS).map(&mut make).collect::<Vec<_>>()
    };
    std::thread::scope(|scope| {
        for errors in [scope.spawn(make_all), scope.spawn(make_all)] {
            assert_eq!(errors.join().unwrap(), [None; ROUNDS]);
        }
    });
}

/// A file that is replaced by renaming another over it can be opened at any time.
#[test]
fn a_file_that_is_replaced_meanwhile_is_opened() {
    let host = host();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (spare, file) = (host.path().join("rw/spare"), host.path().join("rw/file"));
            while !is_over.load(Relaxed) {
                host_fs::write(&spare, "rw").unwrap();
                host_fs::rename(&spare, &file).unwrap();
            }
        });
        let mut found = Vec::new();
        for mount in ["/m=@/rw", "/m=@/rw:cow", "/m=@/rw:rw"] {
            let mut fs = mounted(host.path(), mount);
            found.extend((0..3000).map(|_| read(&mut fs, "m/file")));
        }
        is_over.store(true, Relaxed);
        let found = found.into_iter().find(|read| read.as_deref() != Ok(b"rw"));
        assert_eq!(found, None);
    });
}
