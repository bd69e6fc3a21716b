//! Types and state spaces.

/// The interpretation of a value's bits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Unsigned,
    Signed,
    Bits,
    Float,
    Predicate,
}

/// A fundamental type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Type {
    pub(crate) kind: Kind,
    pub(crate) bits: u32,
}

impl Type {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        if text == "pred" {
            return Some(Self {
                kind: Kind::Predicate,
                bits: 1,
            });
        }
        let kind = match text.chars().next()? {
            'u' => Kind::Unsigned,
            's' => Kind::Signed,
            'b' => Kind::Bits,
            'f' => Kind::Float,
            _ => return None,
        };
        let bits = match &text[1..] {
            "8" => 8,
            "16" => 16,
            "32" => 32,
            "64" => 64,
            _ => return None,
        };
        // Half precision is not supported.
        let known = kind != Kind::Float || bits >= 32;
        known.then_some(Self { kind, bits })
    }

    pub(crate) fn bytes(self) -> usize {
        self.bits.div_ceil(8) as usize
    }

    pub(crate) fn mask(self) -> u64 {
        mask(self.bits)
    }

    /// The bits of a float with this type's size.
    pub(crate) fn float_bits(self, value: f64) -> u64 {
        if self.bits == 32 {
            u64::from((value as f32).to_bits())
        } else {
            value.to_bits()
        }
    }

    pub(crate) fn is_float(self) -> bool {
        self.kind == Kind::Float
    }

    pub(crate) fn is_signed(self) -> bool {
        self.kind == Kind::Signed
    }

    /// The same kind with another size.
    pub(crate) fn with_bits(self, bits: u32) -> Self {
        Self { bits, ..self }
    }
}

/// The lowest `bits` bits.
pub(crate) fn mask(bits: u32) -> u64 {
    if bits >= 64 {
        u64::MAX
    } else {
        (1 << bits) - 1
    }
}

/// A state space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Space {
    Generic,
    Global,
    Constant,
    Shared,
    Local,
    Parameter,
}

impl Space {
    pub(crate) fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "global" => Self::Global,
            "const" => Self::Constant,
            "shared" => Self::Shared,
            "local" => Self::Local,
            "param" => Self::Parameter,
            _ => return None,
        })
    }
}
