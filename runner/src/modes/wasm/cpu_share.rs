//! `wasm_cpu_share`: each replica's thread in a control group of its own, with a share of one core.
//!
//! ```text
//! the process's own group (cgroup v2)      becomes a threaded domain, with the controller cpu
//! +-- faas-wasm.PID.0                      cgroup.type threaded, cpu.max QUOTA PERIOD
//! +-- faas-wasm.PID.1                      one thread each
//! ```
//!
//! A replica runs one guest at a time, so its share is the guest's. Everything else of the process stays where it is:
//! a thread inherits the group of the one that starts it, so a thread with a share must start none.
//! The period is short: a thread that has used up its share may hold a lock that others need, and they wait with it
//! until the next period begins.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Usual length of a period in microseconds.
const PERIOD: f64 = 10_000.0;
/// The kernel's least quota and longest period in microseconds (Documentation/admin-guide/cgroup-v2.rst, cpu.max).
const LEAST_QUOTA: f64 = 1_000.0;
const LONGEST_PERIOD: f64 = 1_000_000.0;

const PREFIX: &str = "faas-wasm.";

/// Why shares cannot be had.
#[derive(Debug, thiserror::Error)]
pub(super) enum CpuShareError {
    /// The share is below what the kernel can do.
    #[error("{0} is less than the kernel can give; the least is 0.001")]
    TooSmall(f64),
    /// There is no cgroup v2 in which this process is.
    #[error("this process is in no cgroup v2 that is mounted here: {0}")]
    NoHierarchy(&'static str),
    /// The controller belongs to somebody else.
    #[error(
        "the controller cpu is not available in {directory} (there is \"{available}\"): an older hierarchy or the parent group has it"
    )]
    NoController {
        /// The process's group.
        directory: String,
        /// The controllers that there are.
        available: String,
    },
    /// The kernel refused.
    #[error(
        "cannot {what} {}: {cause}{hint}",
        path.display(),
        hint = hint(cause)
    )]
    Refused {
        /// What was tried.
        what: &'static str,
        /// With which file.
        path: PathBuf,
        /// Why not.
        #[source]
        cause: io::Error,
    },
}

fn hint(cause: &io::Error) -> &'static str {
    match cause.kind() {
        io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => {
            "\nhint: delegate the group to the runner's user and mount /sys/fs/cgroup writable, or limit the whole container instead"
        }
        _ => "",
    }
}

/// Gives out shares.
#[derive(Debug)]
pub(super) struct CpuShares {
    /// The process's own group.
    group: PathBuf,
    /// What `cpu.max` gets.
    limit: String,
    made: AtomicU32,
}

/// A share, for as long as the thread that has it keeps it.
#[derive(Debug)]
pub(super) struct CpuShare {
    group: PathBuf,
    parent: PathBuf,
}

impl CpuShares {
    /// Prepares the process's group, and tries with this thread whether shares can be had.
    ///
    /// # Errors
    /// [`CpuShareError`].
    pub(super) fn new(share: f64) -> Result<Self, CpuShareError> {
        let shares = Self {
            limit: limit(share).ok_or(CpuShareError::TooSmall(share))?,
            group: own_group()?,
            made: AtomicU32::new(0),
        };
        let controllers = shares.group.join("cgroup.controllers");
        let available = fs::read_to_string(&controllers).map_err(|cause| {
            let path = controllers.clone();
            CpuShareError::Refused {
                what: "read",
                path,
                cause,
            }
        })?;
        if !has_word(&available, "cpu") {
            return Err(CpuShareError::NoController {
                directory: shares.group.display().to_string(),
                available: available.trim().to_owned(),
            });
        }
        remove_stale(&shares.group);
        drop(shares.enter()?);
        Ok(shares)
    }

    /// Puts the calling thread into a group of its own.
    ///
    /// # Errors
    /// [`CpuShareError`].
    pub(super) fn enter(&self) -> Result<CpuShare, CpuShareError> {
        let number = self.made.fetch_add(1, Ordering::Relaxed);
        let group = self
            .group
            .join(format!("{PREFIX}{}.{number}", std::process::id()));
        fs::create_dir(&group).map_err(|cause| {
            let path = group.clone();
            CpuShareError::Refused {
                what: "make",
                path,
                cause,
            }
        })?;
        // From here on dropping it takes the group away again.
        let share = CpuShare {
            group,
            parent: self.group.clone(),
        };
        write(&share.group, "cgroup.type", "threaded")?;
        // The files of a controller are there once the parent passes it on; that it does already is fine.
        write(&self.group, "cgroup.subtree_control", "+cpu")?;
        write(&share.group, "cpu.max", &self.limit)?;
        write(&share.group, "cgroup.threads", &own_thread())?;
        Ok(share)
    }
}

impl Drop for CpuShare {
    fn drop(&mut self) {
        // Before the thread is in the group there is nothing to take back; and what cannot be removed now is found by
        // the next start.
        let _ = write(&self.parent, "cgroup.threads", &own_thread());
        let _ = fs::remove_dir(&self.group);
    }
}

fn own_thread() -> String {
    rustix::thread::gettid().as_raw_nonzero().to_string()
}

fn write(group: &Path, file: &'static str, text: &str) -> Result<(), CpuShareError> {
    let path = group.join(file);
    fs::write(&path, text).map_err(|cause| CpuShareError::Refused {
        what: "write to",
        path,
        cause,
    })
}

/// The text of `cpu.max` for a share of one core.
fn limit(share: f64) -> Option<String> {
    let period = PERIOD.max((LEAST_QUOTA / share).ceil());
    (period <= LONGEST_PERIOD).then(|| format!("{:.0} {period:.0}", share * period))
}

fn has_word(text: &str, word: &str) -> bool {
    text.split_whitespace().any(|found| found == word)
}

/// The directory of the group that this process is in.
fn own_group() -> Result<PathBuf, CpuShareError> {
    let read = |path| {
        fs::read_to_string(path).map_err(|_| CpuShareError::NoHierarchy("/proc cannot be read"))
    };
    let (groups, mounts) = (read("/proc/self/cgroup")?, read("/proc/self/mountinfo")?);
    group_directory(&groups, &mounts)
        .ok_or(CpuShareError::NoHierarchy("/proc/self/mountinfo has none"))
}

/// Where the group of `/proc/self/cgroup` lies among the mounts of `/proc/self/mountinfo`.
fn group_directory(groups: &str, mounts: &str) -> Option<PathBuf> {
    let group = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    mounts.lines().find_map(|line| {
        // Before the dash: number, parent, device, root, mount point, and more; after it the type.
        let (place, kind) = line.split_once(" - ")?;
        if kind.split(' ').next() != Some("cgroup2") {
            return None;
        }
        let mut fields = place.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        let inside = Path::new(group).strip_prefix(root).ok()?;
        let visible = !inside.components().any(|part| part.as_os_str() == "..");
        visible.then(|| Path::new(point).join(inside))
    })
}

/// Removes the groups of runners that ended without removing them. The kernel keeps those that are in use.
fn remove_stale(group: &Path) {
    let entries = fs::read_dir(group).into_iter().flatten().flatten();
    for entry in entries {
        let name = entry.file_name();
        let is_ours = name.to_str().is_some_and(|name| name.starts_with(PREFIX));
        if is_ours {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_become_quotas() {
        for (share, expected) in [
            (1.0, Some("10000 10000")),
            (0.5, Some("5000 10000")),
            (0.1, Some("1000 10000")),
            (0.05, Some("1000 20000")),
            (0.001, Some("1000 1000000")),
            (0.0005, None),
        ] {
            assert_eq!(limit(share).as_deref(), expected, "{share}");
        }
    }

    #[test]
    fn finds_the_group() {
        let unified = "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw\n";
        let hybrid = "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n\
                      33 23 0:29 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let container = "40 23 0:26 /docker/7 /sys/fs/cgroup ro - cgroup2 cgroup rw\n";
        for (groups, mounts, expected) in [
            ("0::/a.slice/b\n", unified, Some("/sys/fs/cgroup/a.slice/b")),
            ("0::/\n", unified, Some("/sys/fs/cgroup/")),
            (
                "4:cpu:/x\n0::/y\n",
                hybrid,
                Some("/sys/fs/cgroup/unified/y"),
            ),
            (
                "0::/docker/7/inner\n",
                container,
                Some("/sys/fs/cgroup/inner"),
            ),
            ("0::/docker/8\n", container, None),
            ("0::/../other\n", unified, None),
            ("4:cpu:/x\n", hybrid, None),
            ("0::/\n", "", None),
        ] {
            let found = group_directory(groups, mounts);
            assert_eq!(
                found.as_deref(),
                expected.map(Path::new),
                "{groups}{mounts}"
            );
        }
    }

    #[test]
    fn controllers_are_whole_words() {
        assert!(has_word("cpuset cpu io\n", "cpu"));
        assert!(!has_word("cpuset io\n", "cpu"));
    }
}
