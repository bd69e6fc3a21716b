//! The overlay against a plain directory of the host: the same operations on both, everything that
//! they answer compared, and both trees at the end.

use std::fs as host_fs;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::Arc;

use proptest::prelude::*;
use proptest::sample::select;
use rustix::fs::{AtFlags, Mode, OFlags, Timespec, Timestamps};

use super::snapshot;
use crate::errno::Errno;
use crate::fs::Root;
use crate::fs::content::CHUNK;
use crate::fs::entry::Dir;
use crate::fs::metadata::{Kind, Metadata, NewTime};
use crate::fs::namespace::{Access, Namespace};
use crate::fs::open::{File, OpenOptions, Opened};
use crate::fs::tree::FileSystem;

/// A few names, so that operations meet.
const NAMES: [&str; 4] = ["a", "b", "c", "d"];
const SLOTS: usize = 3;

#[derive(Debug, Clone)]
enum Step {
    Open(usize, From, OpenOptions),
    Close(usize),
    Read(usize, u64),
    Write(usize, u64, u8, usize),
    SetLength(usize, u64),
    Describe(usize),
    Stat(From, bool),
    List(usize),
    CreateDirectory(From),
    RemoveDirectory(From),
    Unlink(From),
    Rename(From, From),
    Link(From, From),
    Symlink(&'static str, From),
    ReadLink(From),
    SetTimes(From, u64),
}

/// A path and the open directory that it begins at, or the root.
#[derive(Debug, Clone)]
struct From {
    slot: Option<usize>,
    path: String,
}

fn from() -> impl Strategy<Value = From> {
    let count = prop_oneof![4 => Just(1usize), 4 => Just(2), 1 => Just(3)];
    let names = count.prop_flat_map(|count| proptest::collection::vec(select(&NAMES[..]), count));
    let slot = prop_oneof![4 => Just(None), 1 => (0..SLOTS).prop_map(Some)];
    (slot, names, 0..20).prop_map(|(slot, names, style)| {
        let mut path = names.join("/");
        match style {
            0 => path.push('/'),
            1 => path = format!("./{path}"),
            2 => path = path.replacen('/', "/../", 1),
            3 => path = path.replace('/', "//"),
            4 => path.push_str("/."),
            _ => {}
        }
        From { slot, path }
    })
}

fn options() -> impl Strategy<Value = OpenOptions> {
    let flag = || prop::bool::weighted(0.3);
    let options = (
        prop::bool::weighted(0.8),
        flag(),
        flag(),
        flag(),
        flag(),
        any::<bool>(),
    );
    options.prop_map(|(follow, create, exclusive, truncate, directory, write)| {
        let directory = directory && !create && !exclusive && !truncate && !write;
        OpenOptions {
            follow,
            create,
            exclusive: create && exclusive,
            truncate,
            directory,
            read: true,
            write,
        }
    })
}

fn step() -> impl Strategy<Value = Step> {
    let slot = || 0..SLOTS;
    let offset = || prop_oneof![0..40u64, 0..3 * CHUNK as u64];
    let length = prop_oneof![0..20usize, 0..2 * CHUNK];
    let targets = select(vec![
        "a", "b", "c", "d", "a/b", "./c", "b/../a", "../a", "../c/d", "a/",
    ]);
    prop_oneof![
        6 => (slot(), from(), options()).prop_map(|(slot, from, options)| Step::Open(slot, from, options)),
        1 => slot().prop_map(Step::Close),
        3 => (slot(), offset()).prop_map(|(slot, at)| Step::Read(slot, at)),
        4 => (slot(), offset(), any::<u8>(), length).prop_map(|(slot, at, byte, count)| Step::Write(slot, at, byte, count)),
        2 => (slot(), offset()).prop_map(|(slot, length)| Step::SetLength(slot, length)),
        1 => slot().prop_map(Step::Describe),
        3 => (from(), any::<bool>()).prop_map(|(from, follow)| Step::Stat(from, follow)),
        2 => slot().prop_map(Step::List),
        3 => from().prop_map(Step::CreateDirectory),
        2 => from().prop_map(Step::RemoveDirectory),
        3 => from().prop_map(Step::Unlink),
        6 => (from(), from()).prop_map(|(from, to)| Step::Rename(from, to)),
        3 => (from(), from()).prop_map(|(from, to)| Step::Link(from, to)),
        2 => (targets, from()).prop_map(|(target, from)| Step::Symlink(target, from)),
        1 => from().prop_map(Step::ReadLink),
        1 => (from(), 1..1_000_000_000_000u64).prop_map(|(from, at)| Step::SetTimes(from, at)),
    ]
}

/// The step from the root on: in a tree that writes through, a descriptor of a directory that is
/// gone is not what it is on the host.
fn by_root(mut step: Step) -> Step {
    match &mut step {
        Step::Open(_, from, options) => {
            from.slot = None;
            options.directory = false;
        }
        Step::Stat(from, _)
        | Step::CreateDirectory(from)
        | Step::RemoveDirectory(from)
        | Step::Unlink(from)
        | Step::Symlink(_, from)
        | Step::ReadLink(from)
        | Step::SetTimes(from, _) => from.slot = None,
        Step::Rename(from, to) | Step::Link(from, to) => {
            from.slot = None;
            to.slot = None;
        }
        Step::List(slot) => step = Step::Close(*slot),
        Step::Describe(slot) => step = Step::Read(*slot, 0),
        Step::Close(_) | Step::Read(..) | Step::Write(..) | Step::SetLength(..) => {}
    }
    step
}

/// What an operation answers, as far as both sides must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Answer {
    Nothing,
    Bytes(Vec<u8>),
    Count(usize),
    Names(Vec<(String, u8)>),
    /// Kind, size and links; for a directory the kind alone.
    Stat(u8, u64, u64),
}

fn stat_answer(metadata: &Metadata) -> Answer {
    match metadata.kind {
        Kind::Directory => Answer::Stat(Kind::Directory as u8, 0, 0),
        kind => Answer::Stat(kind as u8, metadata.size, metadata.links),
    }
}

/// The overlay's side.
struct Ours {
    fs: FileSystem,
    slots: [Option<Opened>; SLOTS],
}

impl Ours {
    fn base(&self, from: &From) -> Option<Dir> {
        match from.slot {
            None => Some(Dir::ROOT),
            Some(slot) => match &self.slots[slot] {
                Some(Opened::Directory(dir)) => Some(dir.clone()),
                _ => None,
            },
        }
    }

    fn file(&mut self, slot: usize) -> Option<(&mut FileSystem, &mut File)> {
        match &mut self.slots[slot] {
            Some(Opened::File(file)) => Some((&mut self.fs, file)),
            _ => None,
        }
    }

    fn close(&mut self, slot: usize) {
        match self.slots[slot].take() {
            Some(Opened::File(file)) => self.fs.close(file),
            Some(Opened::Directory(dir)) => self.fs.close_directory(dir),
            _ => {}
        }
    }

    /// None if the operation does not apply, as its slot holds nothing suitable.
    fn apply(&mut self, step: &Step) -> Option<Result<Answer, Errno>> {
        let nothing = |()| Answer::Nothing;
        Some(match step {
            Step::Open(slot, from, options) => {
                let base = self.base(from)?;
                let opened = self.fs.open(&base, from.path.as_bytes(), *options);
                opened.map(|opened| {
                    self.close(*slot);
                    self.slots[*slot] = Some(opened);
                    Answer::Nothing
                })
            }
            Step::Close(slot) => {
                self.close(*slot);
                Ok(Answer::Nothing)
            }
            Step::Read(slot, at) => {
                let (fs, file) = self.file(*slot)?;
                let mut bytes = vec![0xee; 2 * CHUNK];
                fs.read_at(file, &mut bytes, *at).map(|count| {
                    bytes.truncate(count);
                    Answer::Bytes(bytes)
                })
            }
            Step::Write(slot, at, byte, count) => {
                let (fs, file) = self.file(*slot)?;
                fs.write_at(file, &vec![*byte; *count], *at)
                    .map(Answer::Count)
            }
            Step::SetLength(slot, length) => {
                let (fs, file) = self.file(*slot)?;
                fs.set_length(file, *length).map(nothing)
            }
            Step::Describe(slot) => match self.slots[*slot].as_ref()? {
                Opened::File(file) => self.fs.file_metadata(file).map(|m| stat_answer(&m)),
                Opened::Directory(dir) => self.fs.directory_metadata(dir).map(|m| stat_answer(&m)),
                Opened::Device(_) => return None,
            },
            Step::Stat(from, follow) => {
                let base = self.base(from)?;
                let found = self.fs.walk(&base, from.path.as_bytes(), *follow);
                let entry = found.and_then(|target| target.found());
                entry
                    .and_then(|entry| self.fs.metadata(&entry))
                    .map(|m| stat_answer(&m))
            }
            Step::List(slot) => match self.slots[*slot].as_ref()? {
                Opened::Directory(dir) => self.fs.list(dir).map(|names| {
                    let names = names.into_iter().filter(|name| name.name != b"dev");
                    let named = |name: crate::fs::Name| {
                        (String::from_utf8(name.name).unwrap(), name.kind as u8)
                    };
                    Answer::Names(names.map(named).collect())
                }),
                _ => return None,
            },
            Step::CreateDirectory(from) => {
                let base = self.base(from)?;
                self.fs
                    .create_directory(&base, from.path.as_bytes())
                    .map(nothing)
            }
            Step::RemoveDirectory(from) => {
                let base = self.base(from)?;
                self.fs
                    .remove_directory(&base, from.path.as_bytes())
                    .map(nothing)
            }
            Step::Unlink(from) => {
                let base = self.base(from)?;
                self.fs.unlink(&base, from.path.as_bytes()).map(nothing)
            }
            Step::Rename(from, to) => {
                let (base, new_base) = (self.base(from)?, self.base(to)?);
                let from = (&base, from.path.as_bytes());
                let moved = self.fs.rename(from, (&new_base, to.path.as_bytes()));
                moved.map(|_| Answer::Nothing)
            }
            Step::Link(from, to) => {
                let (base, new_base) = (self.base(from)?, self.base(to)?);
                let from = (&base, from.path.as_bytes(), false);
                self.fs
                    .hard_link(from, (&new_base, to.path.as_bytes()))
                    .map(nothing)
            }
            Step::Symlink(target, from) => {
                let base = self.base(from)?;
                self.fs
                    .symlink(target.as_bytes(), &base, from.path.as_bytes())
                    .map(nothing)
            }
            Step::ReadLink(from) => {
                let base = self.base(from)?;
                self.fs
                    .read_link(&base, from.path.as_bytes())
                    .map(Answer::Bytes)
            }
            Step::SetTimes(from, at) => {
                let base = self.base(from)?;
                let found = self.fs.walk(&base, from.path.as_bytes(), false);
                let entry = found.and_then(|target| target.found());
                let set = entry.and_then(|entry| {
                    self.fs
                        .set_entry_times(entry, NewTime::Keep, NewTime::At(*at))
                });
                let found = set.and_then(|()| self.fs.walk(&base, from.path.as_bytes(), false));
                let entry = found.and_then(|target| target.found());
                let metadata = entry.and_then(|entry| self.fs.metadata(&entry));
                metadata.map(|m| Answer::Count(m.times.modified as usize))
            }
        })
    }
}

/// The host's side.
struct Host {
    root: OwnedFd,
    slots: [Option<(OwnedFd, bool)>; SLOTS],
}

impl Host {
    fn base(&self, from: &From) -> BorrowedFd<'_> {
        match from.slot {
            None => self.root.as_fd(),
            Some(slot) => self.slots[slot].as_ref().unwrap().0.as_fd(),
        }
    }

    fn slot(&self, slot: usize) -> &OwnedFd {
        &self.slots[slot].as_ref().unwrap().0
    }

    /// Called only if the overlay found the operation to apply.
    fn apply(&mut self, step: &Step) -> rustix::io::Result<Answer> {
        let nothing = |()| Answer::Nothing;
        let nofollow = AtFlags::SYMLINK_NOFOLLOW;
        match step {
            Step::Open(slot, from, options) => {
                let mut flags = match options.write {
                    true => OFlags::RDWR,
                    false => OFlags::RDONLY,
                };
                flags.set(OFlags::CREATE, options.create);
                flags.set(OFlags::EXCL, options.exclusive);
                flags.set(OFlags::TRUNC, options.truncate);
                flags.set(OFlags::DIRECTORY, options.directory);
                flags.set(OFlags::NOFOLLOW, !options.follow);
                let mode = Mode::from_raw_mode(0o644);
                let fd = rustix::fs::openat(self.base(from), &*from.path, flags, mode)?;
                let kind = Metadata::from(&rustix::fs::fstat(&fd)?).kind;
                self.slots[*slot] = Some((fd, kind == Kind::Directory));
                Ok(Answer::Nothing)
            }
            Step::Close(slot) => {
                self.slots[*slot] = None;
                Ok(Answer::Nothing)
            }
            Step::Read(slot, at) => {
                let mut bytes = vec![0; 2 * CHUNK];
                let count = rustix::io::pread(self.slot(*slot), &mut bytes, *at)?;
                bytes.truncate(count);
                Ok(Answer::Bytes(bytes))
            }
            Step::Write(slot, at, byte, count) => {
                let bytes = vec![*byte; *count];
                rustix::io::pwrite(self.slot(*slot), &bytes, *at).map(Answer::Count)
            }
            Step::SetLength(slot, length) => {
                rustix::fs::ftruncate(self.slot(*slot), *length).map(nothing)
            }
            Step::Describe(slot) => {
                let stat = rustix::fs::fstat(self.slot(*slot))?;
                Ok(stat_answer(&Metadata::from(&stat)))
            }
            Step::Stat(from, follow) => {
                let flags = if *follow { AtFlags::empty() } else { nofollow };
                let stat = rustix::fs::statat(self.base(from), &*from.path, flags)?;
                Ok(stat_answer(&Metadata::from(&stat)))
            }
            Step::List(slot) => {
                let mut names = Vec::new();
                for entry in rustix::fs::Dir::read_from(self.slot(*slot))? {
                    let entry = entry?;
                    let name = entry.file_name().to_str().unwrap().to_owned();
                    if !matches!(&*name, "." | "..") {
                        names.push((name, Kind::from(entry.file_type()) as u8));
                    }
                }
                names.sort();
                Ok(Answer::Names(names))
            }
            Step::CreateDirectory(from) => {
                let mode = Mode::from_raw_mode(0o755);
                rustix::fs::mkdirat(self.base(from), &*from.path, mode).map(nothing)
            }
            Step::RemoveDirectory(from) => {
                rustix::fs::unlinkat(self.base(from), &*from.path, AtFlags::REMOVEDIR).map(nothing)
            }
            Step::Unlink(from) => {
                rustix::fs::unlinkat(self.base(from), &*from.path, AtFlags::empty()).map(nothing)
            }
            Step::Rename(from, to) => {
                let (old, new) = (self.base(from), self.base(to));
                rustix::fs::renameat(old, &*from.path, new, &*to.path).map(nothing)
            }
            Step::Link(from, to) => {
                let (old, new) = (self.base(from), self.base(to));
                let flags = AtFlags::empty();
                rustix::fs::linkat(old, &*from.path, new, &*to.path, flags).map(nothing)
            }
            Step::Symlink(target, from) => {
                if from.path.ends_with('/') {
                    // As wasmtime does; see `symlink`.
                    rustix::fs::statat(self.base(from), &*from.path, AtFlags::empty())?;
                }
                rustix::fs::symlinkat(*target, self.base(from), &*from.path).map(nothing)
            }
            Step::ReadLink(from) => {
                let target = rustix::fs::readlinkat(self.base(from), &*from.path, Vec::new())?;
                Ok(Answer::Bytes(target.into_bytes()))
            }
            Step::SetTimes(from, at) => {
                let times = Timestamps {
                    last_access: Timespec {
                        tv_sec: 0,
                        tv_nsec: rustix::fs::UTIME_OMIT as _,
                    },
                    last_modification: Timespec {
                        tv_sec: (*at / 1_000_000_000) as i64,
                        tv_nsec: (*at % 1_000_000_000) as _,
                    },
                };
                rustix::fs::utimensat(self.base(from), &*from.path, &times, nofollow)?;
                let stat = rustix::fs::statat(self.base(from), &*from.path, nofollow)?;
                Ok(Answer::Count(Metadata::from(&stat).times.modified as usize))
            }
        }
    }
}

/// What both sides begin with: files of more than a chunk, hard links, symlinks of all sorts.
fn populate(root: &Path) {
    let bytes: Vec<u8> = (0..2 * CHUNK + 100).map(|i| (i % 251) as u8).collect();
    host_fs::create_dir_all(root.join("a/b")).unwrap();
    host_fs::create_dir_all(root.join("c")).unwrap();
    host_fs::write(root.join("b"), &bytes).unwrap();
    host_fs::write(root.join("a/a"), &bytes[..50]).unwrap();
    host_fs::write(root.join("a/b/c"), b"deep").unwrap();
    host_fs::write(root.join("c/a"), b"").unwrap();
    host_fs::hard_link(root.join("b"), root.join("c/b")).unwrap();
    symlink("../a", root.join("c/d")).unwrap();
    symlink("a/b", root.join("d")).unwrap();
    symlink("c", root.join("a/b/d")).unwrap();
    symlink("missing", root.join("a/d")).unwrap();
}

/// The whole tree as the overlay shows it.
fn ours_tree(fs: &mut FileSystem, path: &str, tree: &mut Vec<(String, Vec<u8>)>) {
    for name in super::names(fs, path).unwrap() {
        if path == "." && name == "dev" {
            continue;
        }
        let inner = format!("{path}/{name}");
        let entry = fs
            .walk(&Dir::ROOT, inner.as_bytes(), false)
            .unwrap()
            .found()
            .unwrap();
        match fs.metadata(&entry).unwrap().kind {
            Kind::Directory => {
                tree.push((inner.clone(), b"directory".to_vec()));
                ours_tree(fs, &inner, tree);
            }
            Kind::SymbolicLink => {
                let target = fs.read_link(&Dir::ROOT, inner.as_bytes()).unwrap();
                tree.push((inner, target));
            }
            _ => {
                let bytes = super::read(fs, &inner).unwrap();
                tree.push((inner, bytes));
            }
        }
    }
}

fn host_tree(root: &Path, path: &str, tree: &mut Vec<(String, Vec<u8>)>) {
    let mut names: Vec<_> = host_fs::read_dir(root.join(path))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    for name in names {
        let inner = format!("{path}/{name}");
        let kind = host_fs::symlink_metadata(root.join(&inner))
            .unwrap()
            .file_type();
        if kind.is_dir() {
            tree.push((inner.clone(), b"directory".to_vec()));
            host_tree(root, &inner, tree);
        } else if kind.is_symlink() {
            let target = host_fs::read_link(root.join(&inner)).unwrap();
            tree.push((inner, target.into_os_string().into_encoded_bytes()));
        } else {
            tree.push((inner.clone(), host_fs::read(root.join(&inner)).unwrap()));
        }
    }
}

/// How the overlay's side is set up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Setup {
    CopyOnWrite,
    WithoutOpenat2,
    /// All changes go to the host at once.
    ReadWrite,
}

fn run(steps: &[Step], setup: Setup) -> Result<(), TestCaseError> {
    let tmp = tempfile::tempdir().unwrap();
    let (lower, plain) = (tmp.path().join("lower"), tmp.path().join("plain"));
    for root in [&lower, &plain] {
        host_fs::create_dir(root).unwrap();
        populate(root);
    }
    // In the overlay `..` ends at the root; a plain directory has something above it. These make
    // what a symlink finds there the same.
    for name in NAMES {
        symlink(format!("plain/{name}"), tmp.path().join(name)).unwrap();
    }
    let before = snapshot(&lower);

    let root = match setup {
        Setup::WithoutOpenat2 => Root::open_stepwise(&lower).unwrap(),
        _ => Root::open(&lower).unwrap(),
    };
    let access = match setup {
        Setup::ReadWrite => Access::ReadWrite,
        _ => Access::CopyOnWrite,
    };
    let namespace = Arc::new(Namespace::new(root, access));
    let mut ours = Ours {
        fs: FileSystem::new(namespace, 1 << 30),
        slots: Default::default(),
    };
    let flags = OFlags::PATH | OFlags::DIRECTORY;
    let mut host = Host {
        root: rustix::fs::open(&plain, flags, Mode::empty()).unwrap(),
        slots: Default::default(),
    };
    for (index, step) in steps.iter().enumerate() {
        let writes = match step {
            Step::Write(slot, ..) | Step::SetLength(slot, _) => Some(*slot),
            _ => None,
        };
        // The file system leaves it to the descriptor whether a file may be written.
        if let Some(slot) = writes
            && let Some((fd, _)) = &host.slots[slot]
            && !rustix::fs::fcntl_getfl(fd).unwrap().contains(OFlags::RDWR)
        {
            continue;
        }
        let Some(found) = ours.apply(step) else {
            continue;
        };
        let expected = host.apply(step).map_err(Errno::from);
        prop_assert_eq!(found, expected, "step {}: {:?}", index, step);
    }

    let (mut found, mut expected) = (Vec::new(), Vec::new());
    ours_tree(&mut ours.fs, ".", &mut found);
    host_tree(&plain, ".", &mut expected);
    prop_assert_eq!(&found, &expected);
    for slot in 0..SLOTS {
        ours.close(slot);
    }
    if setup == Setup::ReadWrite {
        let mut written = Vec::new();
        host_tree(&lower, ".", &mut written);
        prop_assert_eq!(written, expected);
        return Ok(());
    }
    prop_assert!(snapshot(&lower) == before, "the lower layer has changed");
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig {
        max_shrink_iters: 4000,
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn answers_as_a_plain_directory(steps in proptest::collection::vec(step(), 1..60)) {
        run(&steps, Setup::CopyOnWrite)?;
    }

    #[test]
    fn answers_as_a_plain_directory_without_openat2(
        steps in proptest::collection::vec(step(), 1..40),
    ) {
        run(&steps, Setup::WithoutOpenat2)?;
    }

    #[test]
    fn writing_through_answers_as_a_plain_directory(
        steps in proptest::collection::vec(step().prop_map(by_root), 1..40),
    ) {
        run(&steps, Setup::ReadWrite)?;
    }
}
