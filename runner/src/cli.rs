//! The command line, in the syntax of Go's `flag` package: one or two dashes, `-flag`, `-flag=true`.

/// What the command line asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Invocation {
    /// Serve requests.
    Serve,
    /// Print the version.
    Version,
    /// Look for the lock file.
    HealthCheck,
    /// Print the usage.
    Help,
}

/// A command line that is not understood; the text is Go's.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UsageError {
    /// Not a flag of ours.
    #[error("flag provided but not defined: -{0}")]
    Unknown(String),
    /// A dash or an equals sign in the wrong place.
    #[error("bad flag syntax: {0}")]
    Syntax(String),
    /// A value that is not a boolean.
    #[error("invalid boolean value {value} for -{flag}: parse error", value = crate::gotext::quote(value))]
    Value {
        /// The flag.
        flag: &'static str,
        /// What was given.
        value: String,
    },
}

/// The usage text.
pub const USAGE: &str = "\
Usage of fwatchdog:
  -run-healthcheck
    \tLook for the lock file and exit: 0 if it is there, 1 if not
  -version
    \tPrint the version and exit
";

/// Understands the arguments after the program's name. Arguments that are not flags end the flags and are ignored.
///
/// # Errors
/// See [`UsageError`].
pub fn parse(arguments: impl IntoIterator<Item = String>) -> Result<Invocation, UsageError> {
    let (mut version, mut health_check) = (false, false);
    for argument in arguments {
        let Some(flag) = argument.strip_prefix('-').filter(|flag| !flag.is_empty()) else {
            break;
        };
        if flag == "-" {
            break;
        }
        let flag = flag.strip_prefix('-').unwrap_or(flag);
        if flag.is_empty() || flag.starts_with(['-', '=']) {
            return Err(UsageError::Syntax(argument));
        }
        let (name, value) = flag
            .split_once('=')
            .map_or((flag, None), |(name, value)| (name, Some(value)));
        let (target, name): (&mut bool, &'static str) = match name {
            "version" => (&mut version, "version"),
            "run-healthcheck" => (&mut health_check, "run-healthcheck"),
            "h" | "help" => return Ok(Invocation::Help),
            unknown => return Err(UsageError::Unknown(unknown.to_owned())),
        };
        *target = match value {
            None => true,
            Some(value) => crate::gotext::parse_bool(value).ok_or_else(|| UsageError::Value {
                flag: name,
                value: value.to_owned(),
            })?,
        };
    }
    Ok(match (version, health_check) {
        (true, _) => Invocation::Version,
        (false, true) => Invocation::HealthCheck,
        (false, false) => Invocation::Serve,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn understands_go_flags() {
        for (arguments, expected) in [
            (&[][..], Ok(Invocation::Serve)),
            (&["serve", "--version"], Ok(Invocation::Serve)),
            (&["--", "--version"], Ok(Invocation::Serve)),
            (&["-"], Ok(Invocation::Serve)),
            (&["--version"], Ok(Invocation::Version)),
            (&["-version=T"], Ok(Invocation::Version)),
            (&["-version=false"], Ok(Invocation::Serve)),
            (&["-run-healthcheck"], Ok(Invocation::HealthCheck)),
            (&["-h"], Ok(Invocation::Help)),
            (&["--help"], Ok(Invocation::Help)),
            (&["-x"], Err(UsageError::Unknown("x".to_owned()))),
            (&["---x"], Err(UsageError::Syntax("---x".to_owned()))),
            (&["-=x"], Err(UsageError::Syntax("-=x".to_owned()))),
            (
                &["-version=2"],
                Err(UsageError::Value {
                    flag: "version",
                    value: "2".to_owned(),
                }),
            ),
        ] {
            assert_eq!(
                parse(arguments.iter().map(|text| (*text).to_owned())),
                expected,
                "{arguments:?}"
            );
        }
    }
}
