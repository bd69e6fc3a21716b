//! The virtual devices in the guest's `/dev`.

/// A device that exists without a file of the host behind it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Null,
    Zero,
    Urandom,
    Stdin,
    Stdout,
    Stderr,
}

impl Device {
    /// Name and device, in the order of names.
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("null", Self::Null),
        ("stderr", Self::Stderr),
        ("stdin", Self::Stdin),
        ("stdout", Self::Stdout),
        ("urandom", Self::Urandom),
        ("zero", Self::Zero),
    ];

    pub(crate) fn named(name: &[u8]) -> Option<Self> {
        Self::ALL
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, device)| *device)
    }
}
