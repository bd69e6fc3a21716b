//! Lists of mounts, as they are configured: `GUEST=HOST[:ro|:cow|:rw]`.

use std::path::PathBuf;

use super::lower::RootError;
use super::namespace::Access;

/// A directory of the host to be shown somewhere below the guest's `/`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Mount {
    /// Absolute path for the guest.
    pub guest: String,
    /// Path on the host.
    pub host: PathBuf,
    /// What the guest may do there.
    pub access: Access,
}

/// An entry of a list of mounts that cannot be used.
#[derive(Debug, thiserror::Error)]
#[error("mount {entry:?}: {problem}")]
pub struct MountError {
    /// The entry as it was written.
    pub entry: String,
    /// What is wrong with it.
    #[source]
    pub problem: MountProblem,
}

/// What is wrong with a mount.
#[derive(Debug, thiserror::Error)]
pub enum MountProblem {
    /// There is no `=`, or nothing on one side of it.
    #[error("expected GUEST=HOST, GUEST=HOST:ro, GUEST=HOST:cow or GUEST=HOST:rw")]
    Shape,
    /// The part after the last colon is none of the three.
    #[error("unknown access {0:?}, expected ro, cow or rw")]
    UnknownAccess(String),
    /// The guest's side is relative, or has `.`, `..` or a NUL in it, or is `/` itself.
    #[error("the guest's path must be absolute, without . and .., and below /")]
    GuestPath,
    /// Two mounts are at the same place.
    #[error("something else is mounted there already")]
    Twice,
    /// On the way to the point lies something that is no directory, or that cannot be read.
    #[error("the guest's path leads through something that is not a directory")]
    NotADirectory,
    /// The host's side cannot be opened.
    #[error(transparent)]
    Host(#[from] RootError),
}

/// Reads a comma-separated list of `GUEST=HOST[:ro|:cow|:rw]`; `ro` is the default.
///
/// # Errors
///
/// The first entry that is malformed; whether the directories exist is not looked at.
pub fn parse_mounts(list: &str) -> Result<Vec<Mount>, MountError> {
    let mut mounts: Vec<Mount> = Vec::new();
    for entry in list
        .split(',')
        .map(str::trim)
        .filter(|entry| !entry.is_empty())
    {
        let fail = |problem| MountError {
            entry: entry.to_owned(),
            problem,
        };
        let mount = parse_mount(entry).map_err(fail)?;
        let point = components(&mount.guest).map_err(fail)?;
        if mounts
            .iter()
            .any(|other| components(&other.guest).is_ok_and(|other| other == point))
        {
            return Err(fail(MountProblem::Twice));
        }
        mounts.push(mount);
    }
    Ok(mounts)
}

fn parse_mount(entry: &str) -> Result<Mount, MountProblem> {
    let (guest, host) = entry.split_once('=').ok_or(MountProblem::Shape)?;
    let (host, access) = match host.rsplit_once(':') {
        Some((host, "ro")) => (host, Access::ReadOnly),
        Some((host, "cow")) => (host, Access::CopyOnWrite),
        Some((host, "rw")) => (host, Access::ReadWrite),
        Some((_, other)) if !other.contains('/') => {
            return Err(MountProblem::UnknownAccess(other.to_owned()));
        }
        _ => (host, Access::ReadOnly),
    };
    if guest.is_empty() || host.is_empty() || host.contains('\0') {
        return Err(MountProblem::Shape);
    }
    Ok(Mount {
        guest: guest.to_owned(),
        host: host.into(),
        access,
    })
}

/// The components of a guest's mount path.
pub(super) fn components(guest: &str) -> Result<Vec<&str>, MountProblem> {
    let relative = guest.strip_prefix('/').ok_or(MountProblem::GuestPath)?;
    let components: Vec<_> = relative
        .split('/')
        .filter(|name| !name.is_empty())
        .collect();
    if components.is_empty()
        || guest.contains('\0')
        || components.iter().any(|name| matches!(*name, "." | ".."))
    {
        return Err(MountProblem::GuestPath);
    }
    Ok(components)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mounts_are_read_as_documented() {
        let mounts =
            parse_mounts("/data=/srv/data, /tmp=/var/tmp:rw,/c=/with:colon/x:cow,").unwrap();
        let expected = [
            ("/data", "/srv/data", Access::ReadOnly),
            ("/tmp", "/var/tmp", Access::ReadWrite),
            ("/c", "/with:colon/x", Access::CopyOnWrite),
        ];
        let found: Vec<_> = mounts
            .iter()
            .map(|mount| {
                (
                    mount.guest.as_str(),
                    mount.host.to_str().unwrap(),
                    mount.access,
                )
            })
            .collect();
        assert_eq!(found, expected);
        assert!(parse_mounts("").unwrap().is_empty());
    }

    #[test]
    fn a_malformed_mount_is_shown() {
        for (entry, message) in [
            ("data", "expected GUEST=HOST"),
            ("=/srv", "expected GUEST=HOST"),
            ("/data=", "expected GUEST=HOST"),
            ("/data=:ro", "expected GUEST=HOST"),
            ("/data=/srv:rx", "unknown access \"rx\""),
            ("/data=/srv:", "unknown access \"\""),
            ("data=/srv", "must be absolute"),
            ("/=/srv", "must be absolute"),
            ("/a/../b=/srv", "must be absolute"),
            ("//data/=/other", "mounted there already"),
        ] {
            let error = parse_mounts(&format!("/data=/srv,{entry}")).unwrap_err();
            let text = error.to_string();
            assert!(text.contains(&format!("{entry:?}")), "{text}");
            assert!(text.contains(message), "{entry}: {text}");
        }
    }
}
