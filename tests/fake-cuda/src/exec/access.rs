//! Loads and stores: the bytes at an address in a state space.
//!
//! ```text
//! generic address space     0x0100_....     shared memory of the block
//!                           0x0200_....     local memory of the thread
//!                           0x0300_....     parameters of the frame
//!                           anything else   device memory
//! ```

use super::block::Block;
use super::{Broken, Launch};
use crate::abi::Code;
use crate::device::Memory;
use crate::ptx::{Base, Space, Type};

const WINDOW: u64 = 1 << 56;
const SHARED: u64 = WINDOW;
const LOCAL: u64 = 2 * WINDOW;
const PARAMETER: u64 = 3 * WINDOW;

/// The first generic address of a space.
pub(super) fn window(space: Space) -> u64 {
    match space {
        Space::Shared => SHARED,
        Space::Local => LOCAL,
        Space::Parameter => PARAMETER,
        Space::Generic | Space::Global | Space::Constant => 0,
    }
}

/// The space of a generic address, and the address within that space.
pub(super) fn space_of(address: u64) -> (Space, u64) {
    let space = match address & !(WINDOW - 1) {
        SHARED => Space::Shared,
        LOCAL => Space::Local,
        PARAMETER => Space::Parameter,
        _ => return (Space::Global, address),
    };
    (space, address & (WINDOW - 1))
}

impl Block {
    /// The address of a base within its own space.
    pub(super) fn base(&self, thread: usize, base: Base, launch: &Launch) -> u64 {
        let frame = self.threads[thread].frames.last();
        match base {
            Base::Nothing => 0,
            Base::Reg(register) => frame.map_or(0, |frame| frame.registers[register as usize]),
            Base::Variable(variable) => launch.code.addresses[variable],
            Base::Shared(offset) => offset,
            Base::DynamicShared => launch.code.program.shared_size.next_multiple_of(16) as u64,
            Base::Local(offset) => frame.map_or(0, |frame| frame.local as u64) + offset,
            Base::Parameter(offset) => offset,
        }
    }

    /// The bytes at an address.
    pub(super) fn place<'a>(
        &'a mut self,
        thread: usize,
        launch: &Launch,
        memory: &'a mut Memory,
        (space, address): (Space, u64),
        kind: Type,
        count: usize,
    ) -> Result<&'a mut [u8], Broken> {
        let (space, address) = match space {
            Space::Generic => space_of(address),
            space => (space, address),
        };
        let length = kind.bytes() * count;
        if address % length.next_power_of_two() as u64 != 0 {
            let text = format!("{address:#x} is no address of {length} bytes");
            return Err(Broken::new(Code::MISALIGNED_ADDRESS, text));
        }
        let thread = &mut self.threads[thread];
        let part = match space {
            Space::Generic | Space::Global | Space::Constant => {
                return Ok(memory.bytes_mut(launch.context, address, length)?);
            }
            Space::Shared => &mut self.shared,
            Space::Local => &mut thread.local,
            Space::Parameter => match thread.frames.last_mut() {
                Some(frame) => &mut frame.parameters,
                None => return Err(Broken::new(Code::ILLEGAL_ADDRESS, "no frame")),
            },
        };
        let size = part.len();
        usize::try_from(address)
            .ok()
            .and_then(|start| part.get_mut(start..start.checked_add(length)?))
            .ok_or_else(|| {
                let text = format!("{address:#x} is beyond the {size} bytes of {space:?} memory");
                Broken::new(Code::ILLEGAL_ADDRESS, text)
            })
    }
}

/// A little-endian number of up to eight bytes.
pub(super) fn number(bytes: &[u8]) -> u64 {
    let mut word = [0; 8];
    word[..bytes.len()].copy_from_slice(bytes);
    u64::from_le_bytes(word)
}
