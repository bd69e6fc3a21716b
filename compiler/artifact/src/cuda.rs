//! The data model of a guest that uses CUDA: how wide the types of `cuda.h` are in its imports and in its memory.
//!
//! The types of the imports alone do not tell: most functions have the same WebAssembly type whether a device pointer
//! has four bytes or eight, as they only take addresses of such pointers. So the build derives the widths once, from
//! those imports that do tell, and writes them into the manifest.

use serde::{Deserialize, Serialize};

/// How many bytes a type of the C API has in the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Width {
    /// Four bytes, an `i32`.
    Four,
    /// Eight bytes, an `i64`.
    Eight,
}

impl Width {
    /// The number of bytes.
    #[must_use]
    pub fn bytes(self) -> u32 {
        match self {
            Self::Four => 4,
            Self::Eight => 8,
        }
    }

    /// The largest value that fits.
    #[must_use]
    pub fn max(self) -> u64 {
        match self {
            Self::Four => u64::from(u32::MAX),
            Self::Eight => u64::MAX,
        }
    }
}

/// What the runner has to know of a guest that uses CUDA.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cuda {
    /// The data model.
    pub abi: CudaAbi,
    /// What the module says of its kernels' parameters.
    pub parameters: Vec<KernelParameters>,
}

/// Which parameters of a kernel are device pointers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct KernelParameters {
    /// The kernel's name.
    pub kernel: String,
    /// A letter for each parameter, `p` for device pointers.
    pub kinds: String,
}

/// The widths of the types whose width differs between guests.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct CudaAbi {
    /// Pointers into the guest's memory.
    pub pointer: Width,
    /// `size_t`.
    pub size: Width,
    /// `CUcontext`, `CUstream` and the other handles.
    pub handle: Width,
    /// `CUdeviceptr`.
    pub device_pointer: Width,
}

impl CudaAbi {
    /// What `cuda.h` gives on wasm32: everything has four bytes.
    pub const W32: Self = Self {
        pointer: Width::Four,
        size: Width::Four,
        handle: Width::Four,
        device_pointer: Width::Four,
    };
    /// wasm32 with device pointers of eight bytes.
    pub const W32P64: Self = Self {
        device_pointer: Width::Eight,
        ..Self::W32
    };
    /// What `cuda.h` gives on wasm64: everything has eight bytes.
    pub const W64: Self = Self {
        pointer: Width::Eight,
        size: Width::Eight,
        handle: Width::Eight,
        device_pointer: Width::Eight,
    };

    /// The model's name in `--cuda-abi` and in the custom section `faas.cuda`, if it has one.
    #[must_use]
    pub fn name(self) -> Option<&'static str> {
        [
            ("w32", Self::W32),
            ("w32p64", Self::W32P64),
            ("w64", Self::W64),
        ]
        .into_iter()
        .find(|(_, abi)| *abi == self)
        .map(|(name, _)| name)
    }

    /// The model of that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "w32" => Some(Self::W32),
            "w32p64" => Some(Self::W32P64),
            "w64" => Some(Self::W64),
            _ => None,
        }
    }
}

impl std::fmt::Display for CudaAbi {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if let Some(name) = self.name() {
            write!(f, "{name}, ")?;
        }
        write!(
            f,
            "device pointers of {} bytes, handles of {}, sizes of {}",
            self.device_pointer.bytes(),
            self.handle.bytes(),
            self.size.bytes()
        )
    }
}
