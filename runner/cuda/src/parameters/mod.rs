//! The parameters of kernels: where they lie, and which of them are device pointers.
//!
//! The driver tells offsets and sizes, or else the image does. Which parameters of eight bytes are pointers nobody tells
//! for certain; the best evidence there is decides: what the guest has declared, then what the image says (`ptx`,
//! `cubin`), and for what is still unknown its value at the launch (`launch.rs`). Guests with eight-byte device pointers
//! need none of that: their parameters are copied as they are.

mod cubin;
mod ptx;

use crate::code::Code;
use crate::driver::{EntryPoints, Function};
use crate::image::{self, Format};

/// The longest parameters of a kernel, all together: what CUDA 12.1 allows, rounded up.
const LONGEST: usize = 32 << 10;
/// More parameters than a kernel can have.
const MOST: usize = 4096;

/// Whether a parameter is a device pointer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// It is, and has eight bytes.
    Pointer,
    /// It is not.
    Value,
    /// It has eight bytes, and its value will have to tell.
    Unknown,
}

/// One parameter in the kernel's layout.
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
    /// Bytes of the buffer that holds them.
    pub(crate) size: usize,
}

impl Layout {
    /// Takes offsets and sizes if they make sense.
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

    /// Whether a value will have to tell of some parameter.
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
/// [`Code::NOT_SUPPORTED`] if neither driver nor image tells it.
pub(crate) fn resolve(
    driver: &EntryPoints,
    function: Function,
    image: &[u8],
    name: &str,
    declared: Option<&[bool]>,
) -> Result<Layout, Code> {
    let told = from_image(image, name);
    let mut layout = match from_driver(driver, function) {
        // An old driver does not tell.
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

/// What an image says of a kernel.
fn from_image(image: &[u8], name: &str) -> Option<Layout> {
    match image::format(image) {
        Format::Text => ptx::layout(&String::from_utf8_lossy(image), name),
        Format::Elf => cubin::layout(image, name),
        // What the parts say must agree, as any of them may be the one that is loaded.
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

/// Two parts' views of the same kernel; certain is what one of them knows and the other does not contradict.
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
