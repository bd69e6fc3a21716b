//! Starts children and, as PID 1, reaps the orphans that the kernel hands us.
//!
//! The runtime waits for each child of its own by its process number. An orphan must be reaped without taking one of
//! those exit statuses away, so the numbers of our own children are known here, and starting one and reaping exclude
//! each other.

use std::collections::HashSet;
use std::io;
use std::ops::{Deref, DerefMut};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, WaitOptions};
use tokio::process::Command;
use tokio::signal::unix::{SignalKind, signal};

use crate::descriptors::InheritedLimit;

/// How long after a child's end to look for orphans: by then the runtime has waited for its own.
const REAP_DELAY: Duration = Duration::from_millis(100);

/// The children that were started here.
#[derive(Clone, Debug, Default)]
pub struct Children {
    pids: Arc<Mutex<HashSet<i32>>>,
    descriptors: InheritedLimit,
}

/// A child process. Dropping it neither kills nor waits for it.
#[derive(Debug)]
pub struct Child {
    inner: tokio::process::Child,
    pid: Option<i32>,
    children: Children,
}

impl Children {
    /// No children yet; those that are started will have this limit of open files.
    #[must_use]
    pub fn new(descriptors: InheritedLimit) -> Self {
        Self {
            pids: Arc::default(),
            descriptors,
        }
    }

    /// Starts a child.
    ///
    /// # Errors
    /// What the kernel says.
    pub fn spawn(&self, command: &mut Command) -> io::Result<Child> {
        self.descriptors.apply_to(command);
        let mut pids = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        let inner = command.spawn()?;
        let pid = inner.id().and_then(|pid| i32::try_from(pid).ok());
        pids.extend(pid);
        Ok(Child {
            inner,
            pid,
            children: self.clone(),
        })
    }

    /// Reaps orphans for ever if this is PID 1; returns at once otherwise.
    pub async fn reap_orphans(self) {
        if std::process::id() != 1 {
            return;
        }
        let Ok(mut child_ended) = signal(SignalKind::child()) else {
            return;
        };
        while child_ended.recv().await.is_some() {
            tokio::time::sleep(REAP_DELAY).await;
            self.reap_ended();
        }
    }

    /// Reaps every ended process that is our child but was not started here.
    fn reap_ended(&self) {
        let ours = self.pids.lock().unwrap_or_else(PoisonError::into_inner);
        for pid in ended_children(std::process::id()) {
            if let Some(pid) = Pid::from_raw(pid).filter(|_| !ours.contains(&pid)) {
                // Nobody wants to know how an orphan ended.
                let _ = rustix::process::waitpid(Some(pid), WaitOptions::NOHANG);
            }
        }
    }
}

/// The process numbers of the zombies among the children of `parent`.
fn ended_children(parent: u32) -> Vec<i32> {
    let Ok(processes) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    processes
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.parse::<i32>().ok())
        .filter(|pid| {
            std::fs::read_to_string(format!("/proc/{pid}/stat"))
                .is_ok_and(|stat| is_ended_child(&stat, parent))
        })
        .collect()
}

/// Whether a line of `/proc/PID/stat` is that of a zombie with this parent. The name in parentheses may hold anything.
fn is_ended_child(stat: &str, parent: u32) -> bool {
    let Some(end_of_name) = stat.rfind(')') else {
        return false;
    };
    let mut fields = stat[end_of_name + 1..].split_ascii_whitespace();
    fields.next() == Some("Z") && fields.next().and_then(|field| field.parse().ok()) == Some(parent)
}

impl Deref for Child {
    type Target = tokio::process::Child;

    fn deref(&self) -> &Self::Target {
        &self.inner
    }
}

impl DerefMut for Child {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.inner
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(pid) = self.pid {
            self.children
                .pids
                .lock()
                .unwrap_or_else(PoisonError::into_inner)
                .remove(&pid);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_state_and_parent_behind_a_hostile_name() {
        for (stat, ended) in [
            ("7 (a) Z 1 7", true),
            ("7 (a) Z 12) S 1 7", false),
            ("7 (a) S 1) Z 1 7", true),
            ("7 (a) Z 2 7", false),
            ("7 (a", false),
            ("", false),
        ] {
            assert_eq!(is_ended_child(stat, 1), ended, "{stat}");
        }
    }

    #[tokio::test]
    async fn leaves_its_own_children_to_the_runtime() {
        let children = Children::default();
        let mut own = children
            .spawn(Command::new("sh").args(["-c", "exit 7"]))
            .expect("sh starts");
        let mut stranger = std::process::Command::new("true")
            .spawn()
            .expect("true starts");
        let stranger_pid = i32::try_from(stranger.id()).expect("a process number");
        while ended_children(std::process::id()).len() < 2 {
            std::thread::yield_now();
        }
        children.reap_ended();
        assert!(
            !ended_children(std::process::id()).contains(&stranger_pid),
            "reaped"
        );
        assert!(stranger.wait().is_err(), "already reaped");
        assert_eq!(own.wait().await.expect("not reaped by us").code(), Some(7));
    }
}
