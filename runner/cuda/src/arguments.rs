//! The types of the C API's parameters, and how they come out of the integers of a call.

use faas_wasm_artifact::{CudaAbi, ValueType, Width};

use crate::handles::Handle;

/// What a parameter is, which decides its WebAssembly type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// `int`, `unsigned int`, enumerations, `CUdevice`.
    Int,
    /// `unsigned long long`, `cuuint64_t`.
    Long,
    /// A pointer into the guest's memory.
    Pointer,
    /// `size_t`.
    Size,
    /// A handle.
    Handle,
    /// `CUdeviceptr`.
    Device,
}

impl Kind {
    /// Its width in a guest.
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

    /// Its type in a guest.
    pub(crate) fn value_type(self, abi: CudaAbi) -> ValueType {
        match self.width(abi) {
            Width::Four => ValueType::I32,
            Width::Eight => ValueType::I64,
        }
    }
}

/// A parameter of a function that guests call.
pub(crate) trait Argument {
    /// What it is.
    const KIND: Kind;
    /// Takes it out of a register whose upper half is undefined if the type has four bytes.
    fn from_register(register: u64, abi: CudaAbi) -> Self;
}

/// The bits of a register that count.
fn bits<A: Argument>(register: u64, abi: CudaAbi) -> u64 {
    register & A::KIND.width(abi).max()
}

/// An address in the guest's memory; 0 is NULL.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pointer(pub(crate) u64);

impl Pointer {
    pub(crate) fn is_null(self) -> bool {
        self.0 == 0
    }

    /// The address so many bytes further; one that overflows is as far out as the last.
    pub(crate) fn plus(self, bytes: u64) -> Self {
        Self(self.0.saturating_add(bytes))
    }
}

/// A `size_t`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Size(pub(crate) u64);

/// A `CUdeviceptr` as the guest has it.
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
