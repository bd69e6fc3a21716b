//! The parameter types of the C API, and their decoding from the integers of a call.

use faas_wasm_artifact::{CudaAbi, ValueType, Width};

use crate::handles::Handle;

/// The kind of a parameter, which decides its WebAssembly type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `int`, `unsigned int`, enumerations, `CUdevice`.
    Int,
    /// `unsigned long long`, `cuuint64_t`.
    Long,
    /// A pointer into guest memory.
    Pointer,
    /// `size_t`.
    Size,
    /// A handle.
    Handle,
    /// `CUdeviceptr`.
    Device,
}

impl Kind {
    /// Its width in the guest's data model.
    pub(crate) fn width(self, abi: CudaAbi) -> Width {
        match self {
            Self::Int => Width::Four,
            Self::Long => Width::Eight,
            Self::Pointer => abi.pointer,
            Self::Size => abi.size,
            Self::Handle => abi.handle,
            Self::Device => abi.device_pointer,
        }
    }

    /// Its WebAssembly type in the guest's data model.
    pub(crate) fn value_type(self, abi: CudaAbi) -> ValueType {
        match self.width(abi) {
            Width::Four => ValueType::I32,
            Width::Eight => ValueType::I64,
        }
    }
}

/// A parameter of a function that guests call.
pub(crate) trait Argument {
    /// Its kind.
    const KIND: Kind;
    /// Decodes it from a register, whose upper half is undefined if the type has four bytes.
    fn from_register(register: u64, abi: CudaAbi) -> Self;
}

/// The significant bits of a register.
fn bits<A: Argument>(register: u64, abi: CudaAbi) -> u64 {
    register & A::KIND.width(abi).max()
}

/// An address in guest memory; 0 is NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) u64);

impl Pointer {
    pub(crate) fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address plus `bytes`, saturating.
    pub(crate) fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

/// A `size_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A `CUdeviceptr` in the guest's representation.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Device(pub(crate) u64);

macro_rules! arguments {
    ($($ty:ty, $kind:ident, $make:expr;)*) => {$(
        impl Argument for $ty {
            const KIND: Kind = Kind::$kind;
            fn from_register(register: u64, abi: CudaAbi) -> Self {
                $make(bits::<Self>(register, abi))
            }
        }
    )*};
}
arguments! {
    u32, Int, |bits| bits as u32;
    i32, Int, |bits| bits as u32 as i32;
    u64, Long, |bits| bits;
    Pointer, Pointer, Pointer;
    Size, Size, Size;
    Handle, Handle, Handle;
    Device, Device, Device;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn undefined_halves_are_ignored() {
        let register = 0xdead_beef_8000_0001;
        assert_eq!(
            Device::from_register(register, CudaAbi::W32),
            Device(0x8000_0001)
        );
        assert_eq!(
            Device::from_register(register, CudaAbi::W32P64),
            Device(register)
        );
        assert_eq!(i32::from_register(register, CudaAbi::W64), i32::MIN + 1);
    }
}
