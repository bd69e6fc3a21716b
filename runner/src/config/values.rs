//! Typed parsers of our own, strict variables. Each says in its error what it expected.

use std::path::PathBuf;
use std::time::Duration;

use super::{Mount, MountAccess};
use crate::gotext::{self, GoDuration};

/// What was expected instead of the text that was found.
pub(super) type Expected = &'static str;

pub(super) fn boolean(text: &str) -> Result<bool, Expected> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err("true, false, 1 or 0"),
    }
}

/// A number without sign.
pub(super) fn count(text: &str) -> Result<u64, Expected> {
    const EXPECTED: Expected = "a whole number, 0 or more";
    if text.is_empty() || !text.bytes().all(|b| b.is_ascii_digit()) {
        return Err(EXPECTED);
    }
    text.parse().map_err(|_| "a whole number below 2^64")
}

pub(super) fn count32(text: &str) -> Result<u32, Expected> {
    u32::try_from(count(text)?).map_err(|_| "a whole number below 2^32")
}

pub(super) fn positive32(text: &str) -> Result<u32, Expected> {
    count32(text)?
        .checked_sub(1)
        .map(|n| n + 1)
        .ok_or("a whole number, 1 or more")
}

pub(super) fn port(text: &str) -> Result<u16, Expected> {
    const EXPECTED: Expected = "a port number, 0 to 65535";
    u16::try_from(count(text).map_err(|_| EXPECTED)?).map_err(|_| EXPECTED)
}

/// Bytes, or a number of binary units.
pub(super) fn size(text: &str) -> Result<u64, Expected> {
    const EXPECTED: Expected = "a size: bytes, or a number with Ki, Mi or Gi";
    let (digits, shift) = [("Ki", 10), ("Mi", 20), ("Gi", 30)]
        .into_iter()
        .find_map(|(suffix, shift)| Some((text.strip_suffix(suffix)?, shift)))
        .unwrap_or((text, 0));
    let number = count(digits).map_err(|_| EXPECTED)?;
    number
        .checked_mul(1 << shift)
        .ok_or("a size below 2^64 bytes")
}

/// A duration that is not negative; bare integers are seconds.
pub(super) fn duration(text: &str) -> Result<Duration, Expected> {
    const EXPECTED: Expected = "a duration such as 5, 50ms or 1m30s";
    let duration = match gotext::atoi(text) {
        Ok(seconds) if seconds >= 0 => GoDuration::from_secs(seconds),
        Ok(_) => return Err(EXPECTED),
        Err(_) => GoDuration::parse(text).ok_or(EXPECTED)?,
    };
    if duration.is_zero() {
        return Ok(Duration::ZERO);
    }
    duration.limit().ok_or("a duration that is not negative")
}

pub(super) fn positive_duration(text: &str) -> Result<Duration, Expected> {
    duration(text).and_then(|d| {
        if d.is_zero() {
            Err("a duration above zero")
        } else {
            Ok(d)
        }
    })
}

/// A share of one core in (0, 1].
pub(super) fn fraction(text: &str) -> Result<f64, Expected> {
    const EXPECTED: Expected = "a fraction above 0 and at most 1, such as 0.5";
    text.parse::<f64>()
        .ok()
        .filter(|f| *f > 0.0 && *f <= 1.0)
        .ok_or(EXPECTED)
}

pub(super) fn names(text: &str) -> Result<Vec<String>, Expected> {
    text.split(',')
        .map(|name| {
            if name.is_empty() || name.contains('=') {
                Err("names separated by commas, or *")
            } else {
                Ok(name.to_owned())
            }
        })
        .collect()
}

pub(super) fn ordinals(text: &str) -> Result<Vec<u32>, Expected> {
    text.split(',')
        .map(|n| count32(n).map_err(|_| "device ordinals separated by commas"))
        .collect()
}

/// Mounts as `GUEST=HOST[:ro|:cow|:rw]`; the offending entry is in the error.
pub(super) fn mounts(text: &str) -> Result<Vec<Mount>, String> {
    let mut mounts: Vec<Mount> = Vec::new();
    for entry in text.split(',') {
        let expected = |what: &str| format!("GUEST=HOST[:ro|:cow|:rw], but in \"{entry}\" {what}");
        let (guest, host) = entry
            .split_once('=')
            .ok_or_else(|| expected("there is no ="))?;
        if !guest.starts_with('/') {
            return Err(expected("the guest path is not absolute"));
        }
        if guest.split('/').any(|part| part == ".." || part == ".") {
            return Err(expected("the guest path has . or .. in it"));
        }
        let (host, access) = match host.rsplit_once(':') {
            None => (host, MountAccess::ReadOnly),
            Some((host, "ro")) => (host, MountAccess::ReadOnly),
            Some((host, "cow")) => (host, MountAccess::CopyOnWrite),
            Some((host, "rw")) => (host, MountAccess::ReadWrite),
            Some((_, access)) => {
                return Err(expected(&format!("the access \"{access}\" is unknown")));
            }
        };
        if host.is_empty() {
            return Err(expected("the host path is empty"));
        }
        let guest = if guest == "/" {
            guest
        } else {
            guest.trim_end_matches('/')
        };
        if guest.is_empty() || guest == "/" {
            return Err(expected(
                "the guest path is the root; set wasm_root instead",
            ));
        }
        if mounts.iter().any(|mount| mount.guest == guest) {
            return Err(expected("the guest path is there a second time"));
        }
        mounts.push(Mount {
            guest: guest.to_owned(),
            host: PathBuf::from(host),
            access,
        });
    }
    Ok(mounts)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("100", 100),
            ("64Ki", 65_536),
            ("4Gi", 4 << 30),
            ("1Mi", 1 << 20),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "",
            "Ki",
            "64K",
            "64 Ki",
            "-1",
            "1.5Gi",
            "64kI",
            "99999999999Gi",
        ] {
            assert!(size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_strict_durations() {
        assert_eq!(duration("5"), Ok(Duration::from_secs(5)));
        assert_eq!(duration("50ms"), Ok(Duration::from_millis(50)));
        assert_eq!(duration("0"), Ok(Duration::ZERO));
        for text in ["", "-5", "-5s", "abc", "1.5"] {
            assert!(duration(text).is_err(), "{text}");
        }
        assert!(positive_duration("0s").is_err());
    }

    #[test]
    fn reads_fractions() {
        assert_eq!(fraction("0.5"), Ok(0.5));
        for text in ["", "0", "-1", "1.1", "NaN", "inf", "half"] {
            assert!(fraction(text).is_err(), "{text}");
        }
    }

    #[test]
    fn reads_mounts() {
        let mount = |guest: &str, host: &str, access| Mount {
            guest: guest.into(),
            host: host.into(),
            access,
        };
        assert_eq!(
            mounts("/data=/srv/data,/tmp=/var/tmp:rw,/cfg/=/etc/app:cow"),
            Ok(vec![
                mount("/data", "/srv/data", MountAccess::ReadOnly),
                mount("/tmp", "/var/tmp", MountAccess::ReadWrite),
                mount("/cfg", "/etc/app", MountAccess::CopyOnWrite),
            ])
        );
        for (text, part) in [
            ("/data", "there is no ="),
            ("data=/srv", "not absolute"),
            ("/a/../b=/srv", ".."),
            ("/data=", "host path is empty"),
            ("/data=/srv:rx", "\"rx\" is unknown"),
            ("/=/srv", "wasm_root"),
            ("/a=/x,/a/=/y", "second time"),
            ("/a=/x,", "there is no ="),
        ] {
            let message = mounts(text).expect_err(text);
            assert!(message.contains(part), "{text}: {message}");
        }
    }
}
