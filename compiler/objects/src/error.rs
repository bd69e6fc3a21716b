//! The error of everything here: a message.

use std::fmt;

/// The result of everything here.
pub type Result<T = (), E = Error> = std::result::Result<T, E>;

/// What went wrong.
#[derive(Debug)]
pub struct Error(String);

impl Error {
    /// An error with this message.
    pub fn with_message(message: impl Into<String>) -> Self {
        Self(message.into())
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

impl From<String> for Error {
    fn from(message: String) -> Self {
        Self(message)
    }
}

/// An [`Error`] with a message as of [`format!`].
#[macro_export]
macro_rules! error {
    ($($message:tt)*) => {
        $crate::error::Error::with_message(format!($($message)*))
    };
}
