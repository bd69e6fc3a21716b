//! Flat arrays of little-endian `u32`: what is too large to decode at every load.
//!
//! ```text
//! code         [local functions]     address of each defined function
//! trampolines  [types]               address of each type's call trampoline
//! signatures   [all functions]       type index of each function, imported ones first
//! elements     [sum of segments]     functions of the active, then the passive element segments;
//!                                    NULL_FUNCTION for a null reference
//! ```

use crate::module::ModuleMetadata;

/// The element that stands for `ref.null`.
pub const NULL_FUNCTION: u32 = u32::MAX;

/// The arrays of a module, borrowed from the file.
#[derive(Debug, Clone, Copy)]
pub struct Tables<'a> {
    code: &'a [u8],
    trampolines: &'a [u8],
    signatures: &'a [u8],
    elements: &'a [u8],
}

impl<'a> Tables<'a> {
    /// Cuts `bytes` into the arrays that `module` describes; `None` if the sizes do not agree.
    pub(crate) fn new(bytes: &'a [u8], module: &ModuleMetadata) -> Option<Self> {
        let functions = module
            .imported_functions
            .checked_add(module.local_functions)?;
        let (code, rest) = split(bytes, u64::from(module.local_functions))?;
        let (trampolines, rest) = split(rest, module.types.len() as u64)?;
        let (signatures, rest) = split(rest, u64::from(functions))?;
        let active = module.elements.iter().map(|segment| segment.length);
        let passive = module.passive_elements.iter().map(|segment| segment.length);
        let (elements, rest) = split(rest, active.chain(passive).map(u64::from).sum())?;
        rest.is_empty().then_some(Self {
            code,
            trampolines,
            signatures,
            elements,
        })
    }

    /// Addresses of the defined functions, counted from the load address.
    pub fn code(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        numbers(self.code)
    }

    /// Addresses of the call trampolines, one a type.
    pub fn trampolines(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        numbers(self.trampolines)
    }

    /// Type index of every function.
    pub fn signatures(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        numbers(self.signatures)
    }

    /// Functions of the element segments, see the module's documentation.
    pub fn elements(&self) -> impl ExactSizeIterator<Item = u32> + 'a {
        numbers(self.elements)
    }
}

fn split(bytes: &[u8], count: u64) -> Option<(&[u8], &[u8])> {
    let length = usize::try_from(count.checked_mul(4)?).ok()?;
    bytes.split_at_checked(length)
}

fn numbers(bytes: &[u8]) -> impl ExactSizeIterator<Item = u32> {
    let (words, _) = bytes.as_chunks::<4>();
    words.iter().map(|word| u32::from_le_bytes(*word))
}

/// Collects the arrays in the order of the format.
#[derive(Debug, Clone, Default)]
pub struct TablesBuilder {
    /// See [`Tables::code`].
    pub code: Vec<u32>,
    /// See [`Tables::trampolines`].
    pub trampolines: Vec<u32>,
    /// See [`Tables::signatures`].
    pub signatures: Vec<u32>,
    /// See [`Tables::elements`].
    pub elements: Vec<u32>,
}

#[cfg(feature = "build")]
impl TablesBuilder {
    pub(crate) fn encode(&self) -> Vec<u8> {
        [
            &self.code,
            &self.trampolines,
            &self.signatures,
            &self.elements,
        ]
        .into_iter()
        .flatten()
        .flat_map(|number| number.to_le_bytes())
        .collect()
    }
}
