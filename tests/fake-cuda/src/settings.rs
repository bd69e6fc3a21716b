//! The stand-in's settings: `FAKE_CUDA_*` variables at load, and the same keys, one `key = value` per line, in the
//! file that `FAKE_CUDA_CONTROL` names, which may change at any time. README.md documents each key.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use crate::abi::Code;

const PREFIX: &str = "FAKE_CUDA_";

#[derive(Debug, thiserror::Error)]
#[error("setting `{key}`: `{value}` is not {expected}")]
pub(crate) struct SettingError {
    key: String,
    value: String,
    expected: &'static str,
}

/// Selects the calls of a function that fail.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Which {
    Every,
    Only(u64),
    From(u64),
}

/// `cuMemAlloc_v2#3=2`: the third call returns 2 and does nothing.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Injection {
    function: String,
    which: Which,
    code: i32,
}

/// The scope of a kernel's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reach {
    /// The context fails.
    Context,
    /// Every context of the process fails, including new ones.
    Process,
}

#[derive(Debug, Clone)]
pub(crate) struct Settings {
    pub(crate) devices: u32,
    pub(crate) memory: u64,
    pub(crate) driver_version: i32,
    pub(crate) capability: (i32, i32),
    injections: Vec<Injection>,
    latency: Vec<(String, Duration)>,
    forbidden: Vec<String>,
    hang: Vec<String>,
    faults: Vec<(String, i32)>,
    pub(crate) reach: Reach,
    pub(crate) work_delay: Duration,
    pub(crate) launch_timeout: Option<Duration>,
    pub(crate) destroy_waits: bool,
    /// The capacity of a stream. A launch into a full stream waits.
    pub(crate) queue: usize,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            devices: 1,
            memory: 16 << 30,
            driver_version: 13000,
            capability: (9, 0),
            injections: Vec::new(),
            latency: Vec::new(),
            forbidden: Vec::new(),
            hang: Vec::new(),
            faults: Vec::new(),
            reach: Reach::Context,
            work_delay: Duration::ZERO,
            launch_timeout: None,
            destroy_waits: false,
            queue: usize::MAX,
        }
    }
}

impl Settings {
    /// The injected result of the `count`th call of a function, if any.
    pub(crate) fn injected(&self, function: &str, count: u64) -> Option<Code> {
        let injection = self.injections.iter().find(|injection| {
            injection.function == function
                && match injection.which {
                    Which::Every => true,
                    Which::Only(call) => call == count,
                    Which::From(call) => call <= count,
                }
        });
        injection.map(|injection| Code(injection.code))
    }

    /// The injected delay of a call, if any.
    pub(crate) fn latency(&self, function: &str) -> Option<Duration> {
        find(&self.latency, function).copied()
    }

    pub(crate) fn is_forbidden(&self, function: &str) -> bool {
        self.forbidden.iter().any(|name| name == function)
    }

    pub(crate) fn hangs(&self, kernel: &str) -> bool {
        self.hang.iter().any(|name| name == kernel || name == "*")
    }

    pub(crate) fn fault(&self, kernel: &str) -> Option<Code> {
        find(&self.faults, kernel).map(|code| Code(*code))
    }

    /// Sets one key.
    fn set(&mut self, key: &str, value: &str) -> Result<(), SettingError> {
        let wrong = |expected| SettingError {
            key: key.to_owned(),
            value: value.to_owned(),
            expected,
        };
        match key {
            "devices" => self.devices = value.parse().or(Err(wrong("a number of devices")))?,
            "memory" => self.memory = size(value).ok_or(wrong("a size such as 512Mi"))?,
            "driver_version" => {
                self.driver_version = value.parse().or(Err(wrong("a version such as 12020")))?;
            }
            "capability" => {
                let parts = value
                    .split_once('.')
                    .and_then(|(major, minor)| Some((major.parse().ok()?, minor.parse().ok()?)));
                self.capability = parts.ok_or(wrong("a capability such as 9.0"))?;
            }
            "inject" => {
                let expected = "a list of FUNCTION=CODE, FUNCTION#CALL=CODE, FUNCTION#CALL+=CODE";
                self.injections = list(value, injection).ok_or(wrong(expected))?;
            }
            "latency" => {
                let parse = |name: &str, text: &str| Some((name.to_owned(), duration(text)?));
                let expected = "a list of FUNCTION=DURATION";
                self.latency = list(value, parse).ok_or(wrong(expected))?;
            }
            "forbid" => self.forbidden = names(value),
            "hang" => self.hang = names(value),
            "fault" => {
                let parse = |name: &str, text: &str| Some((name.to_owned(), text.parse().ok()?));
                self.faults = list(value, parse).ok_or(wrong("a list of KERNEL=CODE"))?;
            }
            "sticky" => {
                self.reach = match value {
                    "context" => Reach::Context,
                    "process" => Reach::Process,
                    _ => return Err(wrong("`context` or `process`")),
                };
            }
            "work_delay" => self.work_delay = duration(value).ok_or(wrong("a duration"))?,
            "launch_timeout" => {
                self.launch_timeout = Some(duration(value).ok_or(wrong("a duration"))?);
            }
            "destroy_waits" => {
                self.destroy_waits = value.parse().or(Err(wrong("`true` or `false`")))?;
            }
            "queue" => self.queue = value.parse().or(Err(wrong("a number of steps")))?,
            _ => return Err(wrong("a setting that the fake driver knows")),
        }
        Ok(())
    }
}

fn find<'a, T>(list: &'a [(String, T)], name: &str) -> Option<&'a T> {
    let entry = list.iter().find(|(key, _)| key == name || key == "*");
    entry.map(|(_, value)| value)
}

fn names(value: &str) -> Vec<String> {
    let names = value.split(',').map(str::trim);
    names
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect()
}

/// A list of `NAME=VALUE`. The last `=` separates the parts, so that `F#3+=2` means `F#3+` and `2`.
fn list<T>(value: &str, parse: impl Fn(&str, &str) -> Option<T>) -> Option<Vec<T>> {
    let entries = names(value);
    let entries = entries.iter().map(|entry| {
        let (name, value) = entry.rsplit_once('=')?;
        parse(name.trim(), value.trim())
    });
    entries.collect()
}

fn injection(name: &str, code: &str) -> Option<Injection> {
    let code = code.parse().ok()?;
    let (function, which) = match name.split_once('#') {
        None => (name, Which::Every),
        Some((function, calls)) => match calls.strip_suffix('+') {
            Some(call) => (function, Which::From(call.parse().ok()?)),
            None => (function, Which::Only(calls.parse().ok()?)),
        },
    };
    Some(Injection {
        function: function.to_owned(),
        which,
        code,
    })
}

fn size(value: &str) -> Option<u64> {
    let units = [("Ki", 10), ("Mi", 20), ("Gi", 30)];
    for (unit, shift) in units {
        if let Some(number) = value.strip_suffix(unit) {
            return number.parse::<u64>().ok()?.checked_shl(shift);
        }
    }
    value.parse().ok()
}

fn duration(value: &str) -> Option<Duration> {
    let units = [("us", 1), ("ms", 1_000), ("s", 1_000_000)];
    let (unit, micros) = units.iter().find(|(unit, _)| value.ends_with(unit))?;
    let number: u64 = value.strip_suffix(unit)?.parse().ok()?;
    number.checked_mul(*micros).map(Duration::from_micros)
}

/// The sources of settings, the destinations of results, and when the control file was last read.
#[derive(Debug, Default)]
pub(crate) struct Source {
    control: Option<PathBuf>,
    seen: Option<(SystemTime, u64)>,
    environment: Vec<(String, String)>,
    pub(crate) census: Option<PathBuf>,
    pub(crate) trace: Option<PathBuf>,
}

impl Source {
    pub(crate) fn from_environment() -> Self {
        let mut source = Self::default();
        for (name, value) in std::env::vars() {
            let Some(key) = name.strip_prefix(PREFIX) else {
                continue;
            };
            match key {
                "CONTROL" => source.control = Some(value.into()),
                "CENSUS" => source.census = Some(value.into()),
                "TRACE" => source.trace = Some(value.into()),
                _ => source.environment.push((key.to_lowercase(), value)),
            }
        }
        source
    }

    /// The settings with their errors, if they may have changed since the last call.
    pub(crate) fn refresh(&mut self, first: bool) -> Option<(Settings, Vec<SettingError>)> {
        let stamp = self.control.as_ref().and_then(|path| {
            let metadata = path.metadata().ok()?;
            Some((metadata.modified().ok()?, metadata.len()))
        });
        if !first && stamp == self.seen {
            return None;
        }
        self.seen = stamp;
        let text = self
            .control
            .as_ref()
            .and_then(|path| std::fs::read_to_string(path).ok());
        Some(settings(&self.environment, &text.unwrap_or_default()))
    }

    /// Whether there is a control file to check before every call.
    pub(crate) fn may_change(&self) -> bool {
        self.control.is_some()
    }
}

/// The environment's settings, overridden by those of the control file.
fn settings(environment: &[(String, String)], control: &str) -> (Settings, Vec<SettingError>) {
    let mut settings = Settings::default();
    let mut errors = Vec::new();
    for (key, value) in environment {
        errors.extend(settings.set(key, value).err());
    }
    for line in control.lines().map(str::trim) {
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        errors.extend(settings.set(key.trim(), value.trim()).err());
    }
    (settings, errors)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(control: &str) -> Settings {
        let (settings, errors) = settings(&[], control);
        assert!(errors.is_empty(), "{errors:?}");
        settings
    }

    #[test]
    fn injection_names_every_one_or_later_calls() {
        let settings = parsed("inject = cuInit=100, cuMemAlloc_v2#3=2,cuMemFree_v2#2+=1");
        assert_eq!(settings.injected("cuInit", 1), Some(Code(100)));
        assert_eq!(settings.injected("cuMemAlloc_v2", 2), None);
        assert_eq!(settings.injected("cuMemAlloc_v2", 3), Some(Code(2)));
        assert_eq!(settings.injected("cuMemAlloc_v2", 4), None);
        assert_eq!(settings.injected("cuMemFree_v2", 1), None);
        assert_eq!(settings.injected("cuMemFree_v2", 9), Some(Code(1)));
    }

    #[test]
    fn control_file_overrides_the_environment() {
        let environment = [("devices".to_owned(), "2".to_owned())];
        let (settings, errors) = settings(&environment, "# three\ndevices = 3\nmemory=4Mi\n");
        assert!(errors.is_empty());
        assert_eq!((settings.devices, settings.memory), (3, 4 << 20));
    }

    #[test]
    fn patterns_match_names_and_stars() {
        let settings = parsed("hang=spin\nfault=*=719\nlatency=cuInit=5ms\nsticky=process");
        assert!(settings.hangs("spin") && !settings.hangs("vecadd"));
        assert_eq!(settings.fault("any"), Some(Code(719)));
        assert_eq!(settings.latency("cuInit"), Some(Duration::from_millis(5)));
        assert_eq!(settings.latency("cuDeviceGet"), None);
        assert_eq!(settings.reach, Reach::Process);
    }

    #[test]
    fn junk_is_an_error_that_names_it() {
        for line in [
            "devices=many",
            "inject=cuInit",
            "sticky=all",
            "colour=red",
            "memory=5Xi",
        ] {
            let (_, errors) = settings(&[], line);
            assert_eq!(errors.len(), 1, "{line}");
            assert!(
                errors[0]
                    .to_string()
                    .contains(line.split('=').next().unwrap())
            );
        }
    }
}
