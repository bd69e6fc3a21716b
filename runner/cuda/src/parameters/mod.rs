//! The parameters of kernels: their layout, and which of them are device pointers.
//!
//! Offsets and sizes come from the driver, or else from the image. No source says for certain which 8-byte parameters
//! are pointers, so the best evidence decides: the guest's declaration, then the image (`ptx`, `cubin`), and otherwise
//! the value at the launch (`launch.rs`). For guests with 8-byte device pointers this does not matter: their parameters
//! are copied unchanged.

mod cubin;
mod ptx;

use crate::code::Code;
use crate::driver::{EntryPoints, Function};
use crate::image::{self, Format};

/// Most bytes of parameters of a kernel: the limit of CUDA 12.1, rounded up.
const LONGEST: usize = 32 << 10;
/// Most parameters of a kernel, above what any kernel can have.
const MOST: usize = 4096;

/// Whether a parameter is a device pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// An 8-byte pointer.
    Pointer,
    /// Not a pointer.
    Value,
    /// An 8-byte parameter of unknown kind. Its value at the launch decides.
    Unknown,
}

/// One parameter of a kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Parameter {
    pub(crate) offset: usize,
    pub(crate) size: usize,
    pub(crate) role: Role,
}

/// All parameters of a kernel.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Layout {
    pub(crate) parameters: Vec<Parameter>,
    /// Size of the parameter buffer in bytes.
    pub(crate) size: usize,
}

impl Layout {
    /// Checks offsets and sizes. Returns `None` if they are invalid.
    fn new(parameters: Vec<Parameter>) -> Option<Self> {
        let mut size = 0;
        for parameter in &parameters {
            let end = parameter.offset.checked_add(parameter.size)?;
            if parameter.size == 0 || end > LONGEST {
                return None;
            }
            size = size.max(end);
        }
        Some(Self { parameters, size })
    }

    /// Whether the kind of some parameter is unknown.
    pub(crate) fn is_uncertain(&self) -> bool {
        self.parameters
            .iter()
            .any(|parameter| parameter.role == Role::Unknown)
    }
}

/// Finds the layout of a kernel.
///
/// # Errors
///
/// [`Code::NOT_SUPPORTED`] if neither the driver nor the image has the layout.
pub(crate) fn resolve(
    driver: &EntryPoints,
    function: Function,
    image: &[u8],
    name: &str,
    declared: Option<&[bool]>,
) -> Result<Layout, Code> {
    let told = from_image(image, name);
    let mut layout = match from_driver(driver, function) {
        // Old drivers lack the function.
        Err(Code::NOT_SUPPORTED) => told.clone().ok_or(Code::NOT_SUPPORTED)?,
        layout => layout?,
    };
    let matching = told.filter(|told| told.parameters.len() == layout.parameters.len());
    for (index, parameter) in layout.parameters.iter_mut().enumerate() {
        if parameter.size != 8 {
            parameter.role = Role::Value;
            continue;
        }
        if let Some(is_pointer) = declared.and_then(|declared| declared.get(index)) {
            parameter.role = if *is_pointer {
                Role::Pointer
            } else {
                Role::Value
            };
        } else if let Some(told) = &matching {
            let told = told.parameters[index];
            if told.offset == parameter.offset && told.size == parameter.size {
                parameter.role = told.role;
            }
        }
    }
    Ok(layout)
}

fn from_driver(driver: &EntryPoints, function: Function) -> Result<Layout, Code> {
    let mut parameters = Vec::new();
    while let Some((offset, size)) = driver.function_parameter(function, parameters.len())? {
        if parameters.len() == MOST {
            return Err(Code::NOT_SUPPORTED);
        }
        parameters.push(Parameter {
            offset,
            size,
            role: Role::Unknown,
        });
    }
    Layout::new(parameters).ok_or(Code::NOT_SUPPORTED)
}

/// The layout of a kernel according to the image.
pub(crate) fn from_image(image: &[u8], name: &str) -> Option<Layout> {
    match image::format(image) {
        Format::Text => ptx::layout(&String::from_utf8_lossy(image), name),
        Format::Elf => cubin::layout(image, name),
        // The driver may load any of the parts, so they must agree.
        Format::Fatbin => {
            let mut found: Option<Layout> = None;
            for part in image::fatbin_parts(image) {
                let Some(layout) = from_image(part, name) else {
                    continue;
                };
                found = Some(match found {
                    None => layout,
                    Some(before) => agreed(before, &layout)?,
                });
            }
            found
        }
        Format::Wrapper => None,
    }
}

/// Checks what launches rely on, for the fuzz targets.
#[cfg(feature = "fuzzing")]
pub(crate) fn check(layout: &Layout) {
    assert!(layout.parameters.len() <= MOST);
    let mut size = 0;
    for Parameter {
        offset,
        size: own,
        role,
    } in &layout.parameters
    {
        assert!(*own > 0 && offset + own <= LONGEST, "{layout:?}");
        assert!(*role == Role::Value || *own == 8, "{layout:?}");
        size = size.max(offset + own);
    }
    assert_eq!(layout.size, size);
}

/// Merges the layouts of a kernel in two parts. A kind that both contradict is unknown.
fn agreed(mut first: Layout, second: &Layout) -> Option<Layout> {
    if first.parameters.len() != second.parameters.len() {
        return None;
    }
    for (one, other) in first.parameters.iter_mut().zip(&second.parameters) {
        if (one.offset, one.size) != (other.offset, other.size) {
            return None;
        }
        one.role = match (one.role, other.role) {
            (Role::Unknown, role) | (role, Role::Unknown) => role,
            (one, other) if one == other => one,
            _ => Role::Unknown,
        };
    }
    Some(first)
}
