//! The virtual devices in the guest's `/dev`.

/// The usual directory of devices.
pub(crate) const DEVICES: &[u8] = b"dev";
/// The directory of our own devices.
pub(crate) const OWN_DEVICES: &[u8] = b"dev/faas";

/// A device without a host file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Device {
    Null,
    Zero,
    Urandom,
    Stdin,
    Stdout,
    Stderr,
    /// Accepts the response's status and headers.
    Side,
}

impl Device {
    /// Names and devices, in the order of names.
    pub(crate) const ALL: [(&'static str, Self); 6] = [
        ("null", Self::Null),
        ("stderr", Self::Stderr),
        ("stdin", Self::Stdin),
        ("stdout", Self::Stdout),
        ("urandom", Self::Urandom),
        ("zero", Self::Zero),
    ];

    /// Names and devices in our own directory.
    pub(crate) const OWN: [(&'static str, Self); 1] = [("response", Self::Side)];

    /// The devices in the directory at a canonical path.
    pub(crate) fn all_in(directory: &[u8]) -> &'static [(&'static str, Self)] {
        match directory {
            DEVICES => &Self::ALL,
            OWN_DEVICES => &Self::OWN,
            _ => &[],
        }
    }

    /// The device with this name in the directory at a canonical path.
    pub(crate) fn find(directory: &[u8], name: &[u8]) -> Option<Self> {
        Self::all_in(directory)
            .iter()
            .find(|(known, _)| known.as_bytes() == name)
            .map(|(_, device)| *device)
    }
}
