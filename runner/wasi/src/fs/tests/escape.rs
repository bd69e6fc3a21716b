//! Attempts to reach what lies outside of the root, or what is not a file.

use std::fs as host_fs;
use std::os::unix::fs::symlink;
use std::os::unix::net::UnixListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use super::{CREATE, READ, open, read, snapshot, view, write};
use crate::errno::Errno;
use crate::fs::entry::Dir;
use crate::fs::namespace::{Access, Namespace};
use crate::fs::open::{OpenOptions, Opened};
use crate::fs::tree::FileSystem;
use crate::fs::{Kind, Root};

/// No thread loses its core for longer.
const PATIENCE: Duration = Duration::from_secs(60);

/// A directory with a secret beside the root and the same name inside.
fn prison() -> tempfile::TempDir {
    let tmp = tempfile::tempdir().unwrap();
    host_fs::write(tmp.path().join("secret"), "outside").unwrap();
    host_fs::create_dir_all(tmp.path().join("root/a/b")).unwrap();
    host_fs::write(tmp.path().join("root/secret"), "inside").unwrap();
    tmp
}

fn both_walks(root: &std::path::Path) -> [FileSystem; 2] {
    let stepwise = Root::open_stepwise(root).unwrap();
    let namespace = Namespace::new(stepwise, Access::CopyOnWrite);
    [view(root), FileSystem::new(Arc::new(namespace), 1 << 20)]
}

#[test]
fn dots_do_not_lead_above_the_base() {
    let tmp = prison();
    for mut fs in both_walks(&tmp.path().join("root")) {
        for path in [
            "..",
            "../secret",
            "a/../../secret",
            "./../secret",
            "a/b/../../../secret",
        ] {
            assert_eq!(
                open(&mut fs, path, READ).unwrap_err(),
                Errno::Perm,
                "{path}"
            );
            assert_eq!(
                open(&mut fs, path, CREATE).unwrap_err(),
                Errno::Perm,
                "{path}"
            );
        }
        for path in ["/secret", "/", "//secret", "/../secret"] {
            assert_eq!(
                open(&mut fs, path, READ).unwrap_err(),
                Errno::Perm,
                "{path}"
            );
        }
        assert_eq!(read(&mut fs, "a/../secret").unwrap(), b"inside");

        let options = OpenOptions {
            directory: true,
            ..READ
        };
        let Ok(Opened::Directory(dir)) = fs.open(&Dir::ROOT, b"a", options) else {
            panic!("a is a directory");
        };
        let above = fs.open(&dir, b"../secret", READ);
        assert_eq!(
            above.unwrap_err(),
            Errno::Perm,
            "a descriptor is the end of its paths"
        );
    }
}

#[test]
fn symlinks_are_resolved_inside_the_root() {
    let tmp = prison();
    let root = tmp.path().join("root");
    let outside = tmp.path().join("secret");
    for (target, name) in [
        ("../secret", "up"),
        ("../../../../../../secret", "far"),
        ("/secret", "absolute"),
        ("/../secret", "both"),
        (outside.to_str().unwrap(), "host"),
        ("..", "parent"),
        ("loop", "loop"),
    ] {
        symlink(target, root.join(name)).unwrap();
        symlink(target, root.join("a/b").join(name)).unwrap();
    }
    let before = snapshot(tmp.path());
    for mut fs in both_walks(&root) {
        for name in [
            "up",
            "far",
            "absolute",
            "both",
            "parent/secret",
            "a/b/far",
            "a/b/absolute",
        ] {
            assert_eq!(read(&mut fs, name).unwrap(), b"inside", "{name}");
        }
        for name in ["host", "a/b/up", "a/b/host", "parent/parent/root/secret"] {
            assert_eq!(read(&mut fs, name).unwrap_err(), Errno::Noent, "{name}");
        }
        assert_eq!(read(&mut fs, "loop").unwrap_err(), Errno::Loop);
        write(&mut fs, "far", b"changed").unwrap();
        assert_eq!(read(&mut fs, "secret").unwrap(), b"changed");
        let created = write(&mut fs, "host", b"changed");
        assert_eq!(
            created.unwrap_err(),
            Errno::Noent,
            "its parent does not exist inside"
        );
    }
    assert_eq!(snapshot(tmp.path()), before);
}

#[test]
fn renaming_a_parent_of_an_open_directory_does_not_open_a_way_out() {
    let tmp = prison();
    let root = tmp.path().join("root");
    symlink("../../secret", root.join("a/b/link")).unwrap();
    for mut fs in both_walks(&root) {
        let options = OpenOptions {
            directory: true,
            ..READ
        };
        let Ok(Opened::Directory(dir)) = fs.open(&Dir::ROOT, b"a/b", options) else {
            panic!("a/b is a directory");
        };
        fs.rename((&Dir::ROOT, b"a/b"), (&Dir::ROOT, b"moved"))
            .unwrap();
        let link = fs.open(&dir, b"link", READ).unwrap();
        let Opened::File(file) = link else {
            panic!("link leads to a file");
        };
        let mut bytes = [0; 16];
        let count = fs.read_at(&file, &mut bytes, 0).unwrap();
        assert_eq!(&bytes[..count], b"inside", "`..` ends at the root");
        assert_eq!(fs.open(&dir, b"../secret", READ).unwrap_err(), Errno::Perm);
    }
}

#[test]
fn a_directory_that_becomes_a_symlink_meanwhile_leads_nowhere() {
    let tmp = prison();
    let root = tmp.path().join("root");
    host_fs::create_dir(tmp.path().join("outside")).unwrap();
    host_fs::write(tmp.path().join("outside/secret"), "outside").unwrap();
    host_fs::create_dir(root.join("swap")).unwrap();
    host_fs::write(root.join("swap/secret"), "inside").unwrap();
    symlink(tmp.path().join("outside"), root.join("evil")).unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let swapper = {
        let (stop, root) = (Arc::clone(&stop), root.clone());
        std::thread::spawn(move || {
            let (swap, evil, spare) = (root.join("swap"), root.join("evil"), root.join("spare"));
            while !stop.load(Ordering::Relaxed) {
                host_fs::rename(&swap, &spare).unwrap();
                host_fs::rename(&evil, &swap).unwrap();
                host_fs::rename(&swap, &evil).unwrap();
                host_fs::rename(&spare, &swap).unwrap();
            }
        })
    };
    let mut inside = 0;
    let start = Instant::now();
    let mut round = 0;
    // The other thread may lose its core for longer than 2000 rounds take, while the directory is away.
    while round < 2000 || (inside == 0 && start.elapsed() < PATIENCE) {
        round += 1;
        for mut fs in both_walks(&root) {
            match read(&mut fs, "swap/secret") {
                Ok(bytes) => {
                    assert_eq!(bytes, b"inside", "round {round}");
                    inside += 1;
                }
                Err(Errno::Noent | Errno::Loop | Errno::Notdir | Errno::Stale | Errno::Again) => {}
                Err(errno) => panic!("round {round}: {errno:?}"),
            }
        }
    }
    stop.store(true, Ordering::Relaxed);
    swapper.join().unwrap();
    assert!(inside > 0, "the race was never won by the honest side");
}

#[test]
fn pseudo_file_systems_are_refused() {
    let mut fs = view(std::path::Path::new("/"));
    for path in [
        "proc/self/mem",
        "proc/self/environ",
        "proc/self/root/etc/passwd",
        "proc/self/cwd",
        "proc/self/fd/0",
        "proc/1/maps",
        "proc/thread-self/mem",
        "proc/version",
        "sys/kernel",
        "proc",
        "usr/../proc/self/environ",
        "sys/fs/cgroup/memory/tasks",
        "sys/fs/cgroup/cgroup.procs",
    ] {
        if !std::path::Path::new("/").join(path).exists() {
            continue;
        }
        let opened = fs.open(&Dir::ROOT, path.as_bytes(), READ);
        assert_eq!(opened.unwrap_err(), Errno::Acces, "{path}");
        let found = fs.walk(&Dir::ROOT, path.as_bytes(), true);
        assert_eq!(found.unwrap_err(), Errno::Acces, "{path}");
    }
    let tmp = tempfile::tempdir().unwrap();
    symlink("/proc/self", tmp.path().join("link")).unwrap();
    let inside = format!(
        "{}/link/environ",
        tmp.path().strip_prefix("/").unwrap().display()
    );
    assert_eq!(read(&mut fs, &inside).unwrap_err(), Errno::Acces);
}

#[test]
fn what_is_no_file_is_described_but_not_opened() {
    let tmp = tempfile::tempdir().unwrap();
    let _listener = UnixListener::bind(tmp.path().join("socket")).unwrap();
    let fifo = tmp.path().join("fifo");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        &fifo,
        rustix::fs::FileType::Fifo,
        rustix::fs::Mode::from_raw_mode(0o600),
        0,
    )
    .unwrap();
    for mut fs in both_walks(tmp.path()) {
        for (name, kind) in [("socket", Kind::SocketStream), ("fifo", Kind::Unknown)] {
            for options in [READ, CREATE] {
                assert_eq!(
                    open(&mut fs, name, options).unwrap_err(),
                    Errno::Acces,
                    "{name}"
                );
            }
            let entry = fs
                .walk(&Dir::ROOT, name.as_bytes(), true)
                .unwrap()
                .found()
                .unwrap();
            assert_eq!(fs.metadata(&entry).unwrap().kind, kind, "{name}");
            let renamed = format!("{name}2");
            fs.rename(
                (&Dir::ROOT, name.as_bytes()),
                (&Dir::ROOT, renamed.as_bytes()),
            )
            .unwrap();
            assert_eq!(
                open(&mut fs, &renamed, READ).unwrap_err(),
                Errno::Acces,
                "{renamed}"
            );
        }
    }
}

#[test]
fn devices_of_the_host_stay_closed_while_the_virtual_ones_open() {
    let mut fs = view(std::path::Path::new("/"));
    for (path, errno) in [("dev/tty", Errno::Acces), ("dev/full", Errno::Acces)] {
        if std::path::Path::new("/").join(path).exists() {
            assert_eq!(open(&mut fs, path, READ).unwrap_err(), errno, "{path}");
        }
    }
    for name in ["null", "zero", "urandom", "stdin", "stdout", "stderr"] {
        let path = format!("dev/{name}");
        let opened = fs.open(&Dir::ROOT, path.as_bytes(), READ);
        assert!(
            matches!(opened, Ok(Opened::Device(_))),
            "{path}: {opened:?}"
        );
    }
}

#[test]
fn hostile_paths_are_refused() {
    let tmp = prison();
    let long_name = "x".repeat(256);
    let long_path = "a/".repeat(2100);
    let deep = "nested/".repeat(500);
    for mut fs in both_walks(&tmp.path().join("root")) {
        for (path, errno) in [
            ("", Errno::Noent),
            ("a\0b", Errno::Inval),
            (&*long_name, Errno::Nametoolong),
            (&*long_path, Errno::Nametoolong),
            (&*deep, Errno::Noent),
            ("secret/x", Errno::Notdir),
            ("secret/", Errno::Notdir),
            ("secret/..", Errno::Notdir),
            ("missing/..", Errno::Noent),
        ] {
            assert_eq!(open(&mut fs, path, READ).unwrap_err(), errno, "{path:?}");
        }
    }
}
