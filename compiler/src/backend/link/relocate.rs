//! Relocations of the three architectures: what each refers to, and how it is written.
//!
//! Kinds and formulas are those of the architectures' ELF supplements (x86-64 psABI, ELF for the Arm
//! 64-bit architecture, RISC-V ELF psABI). Only what LLVM and Cranelift use for position-independent
//! code of the small or medium model is here; anything else is refused.

use object::elf::{self, Machine};

/// What a relocation needs to know.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Need {
    /// The target's address.
    Address,
    /// An address that can be called: the target's, or that of a stub.
    Call,
    /// The address of a word that holds the target's.
    Word,
    /// Nothing: the place itself is a word that loading fills in.
    Load,
    /// What the relocation at the target, the upper part of the same address, was given.
    Upper,
    /// The place's old value too.
    Change,
    /// It is a remark for a linker that shortens code.
    Nothing,
}

/// Why a relocation cannot be applied.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refusal {
    Unknown,
    TooFar,
}

/// What a relocation of this kind needs.
pub(super) fn need(machine: Machine, kind: u32) -> Result<Need, Refusal> {
    let is = |kinds: &[elf::RelocationType]| kinds.iter().any(|known| known.0 == kind);
    match machine {
        elf::EM_X86_64 => {
            if is(&[elf::R_X86_64_64]) {
                return Ok(Need::Load);
            }
            if is(&[elf::R_X86_64_PC32, elf::R_X86_64_PLT32]) {
                return Ok(Need::Call);
            }
            if is(&[elf::R_X86_64_PC64]) {
                return Ok(Need::Address);
            }
            let words = [
                elf::R_X86_64_GOTPCREL,
                elf::R_X86_64_GOTPCRELX,
                elf::R_X86_64_REX_GOTPCRELX,
            ];
            if is(&words) {
                return Ok(Need::Word);
            }
        }
        elf::EM_AARCH64 => {
            if is(&[elf::R_AARCH64_ABS64]) {
                return Ok(Need::Load);
            }
            if is(&[elf::R_AARCH64_CALL26, elf::R_AARCH64_JUMP26]) {
                return Ok(Need::Call);
            }
            if is(&[elf::R_AARCH64_ADR_GOT_PAGE, elf::R_AARCH64_LD64_GOT_LO12_NC]) {
                return Ok(Need::Word);
            }
            let addresses = [
                elf::R_AARCH64_PREL32,
                elf::R_AARCH64_PREL64,
                elf::R_AARCH64_ADR_PREL_LO21,
                elf::R_AARCH64_ADR_PREL_PG_HI21,
                elf::R_AARCH64_ADD_ABS_LO12_NC,
                elf::R_AARCH64_LDST8_ABS_LO12_NC,
                elf::R_AARCH64_LDST16_ABS_LO12_NC,
                elf::R_AARCH64_LDST32_ABS_LO12_NC,
                elf::R_AARCH64_LDST64_ABS_LO12_NC,
                elf::R_AARCH64_LDST128_ABS_LO12_NC,
            ];
            if is(&addresses) {
                return Ok(Need::Address);
            }
        }
        elf::EM_RISCV => {
            if is(&[elf::R_RISCV_64]) {
                return Ok(Need::Load);
            }
            if is(&[elf::R_RISCV_CALL, elf::R_RISCV_CALL_PLT]) {
                return Ok(Need::Call);
            }
            if is(&[elf::R_RISCV_GOT_HI20]) {
                return Ok(Need::Word);
            }
            if is(&[elf::R_RISCV_PCREL_LO12_I, elf::R_RISCV_PCREL_LO12_S]) {
                return Ok(Need::Upper);
            }
            if is(&[elf::R_RISCV_RELAX]) {
                return Ok(Need::Nothing);
            }
            if is(&[
                elf::R_RISCV_PCREL_HI20,
                elf::R_RISCV_32_PCREL,
                elf::R_RISCV_BRANCH,
                elf::R_RISCV_JAL,
                elf::R_RISCV_RVC_BRANCH,
                elf::R_RISCV_RVC_JUMP,
            ]) {
                return Ok(Need::Address);
            }
            let changes = [
                elf::R_RISCV_ADD8,
                elf::R_RISCV_ADD16,
                elf::R_RISCV_ADD32,
                elf::R_RISCV_ADD64,
                elf::R_RISCV_SUB6,
                elf::R_RISCV_SUB8,
                elf::R_RISCV_SUB16,
                elf::R_RISCV_SUB32,
                elf::R_RISCV_SUB64,
                elf::R_RISCV_SET6,
                elf::R_RISCV_SET8,
                elf::R_RISCV_SET16,
                elf::R_RISCV_SET32,
            ];
            if is(&changes) {
                return Ok(Need::Change);
            }
        }
        _ => {}
    }
    Err(Refusal::Unknown)
}

/// Writes a relocation: `value` is what it needs plus its addend, `place` where it lies, `bytes`
/// what lies there and behind it.
pub(super) fn apply(
    machine: Machine,
    kind: u32,
    value: u64,
    place: u64,
    bytes: &mut [u8],
) -> Result<(), Refusal> {
    match machine {
        elf::EM_X86_64 => x86_64(kind, value, place, bytes),
        elf::EM_AARCH64 => aarch64(kind, value, place, bytes),
        elf::EM_RISCV => riscv(kind, value, place, bytes),
        _ => Err(Refusal::Unknown),
    }
}

/// Size of an address or offset in DWARF, whose relocations are plain numbers.
pub(super) fn debug_size(machine: Machine, kind: u32) -> Result<usize, Refusal> {
    let (four, eight) = match machine {
        elf::EM_X86_64 => (elf::R_X86_64_32, elf::R_X86_64_64),
        elf::EM_AARCH64 => (elf::R_AARCH64_ABS32, elf::R_AARCH64_ABS64),
        elf::EM_RISCV => (elf::R_RISCV_32, elf::R_RISCV_64),
        _ => return Err(Refusal::Unknown),
    };
    match kind {
        kind if kind == four.0 => Ok(4),
        kind if kind == eight.0 => Ok(8),
        _ => Err(Refusal::Unknown),
    }
}

/// A signed distance that must fit into so many bits.
fn distance(value: u64, place: u64, bits: u32) -> Result<i64, Refusal> {
    signed(value.wrapping_sub(place) as i64, bits)
}

fn signed(value: i64, bits: u32) -> Result<i64, Refusal> {
    let unused = 64 - bits;
    if (value << unused) >> unused == value {
        Ok(value)
    } else {
        Err(Refusal::TooFar)
    }
}

fn put<const N: usize>(bytes: &mut [u8], value: [u8; N]) -> Result<(), Refusal> {
    let place = bytes.first_chunk_mut::<N>().ok_or(Refusal::TooFar)?;
    *place = value;
    Ok(())
}

fn get<const N: usize>(bytes: &[u8]) -> Result<[u8; N], Refusal> {
    bytes.first_chunk::<N>().copied().ok_or(Refusal::TooFar)
}

/// Changes the bits of an instruction that are set in `mask`.
fn instruction(bytes: &mut [u8], mask: u32, value: u32) -> Result<(), Refusal> {
    let old = u32::from_le_bytes(get(bytes)?);
    put(bytes, (old & !mask | value & mask).to_le_bytes())
}

/// The same of a compressed one.
fn short_instruction(bytes: &mut [u8], mask: u16, value: u16) -> Result<(), Refusal> {
    let old = u16::from_le_bytes(get(bytes)?);
    put(bytes, (old & !mask | value & mask).to_le_bytes())
}

fn x86_64(kind: u32, value: u64, place: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
    if kind == elf::R_X86_64_PC64.0 {
        return put(bytes, value.wrapping_sub(place).to_le_bytes());
    }
    put(bytes, (distance(value, place, 32)? as i32).to_le_bytes())
}

fn aarch64(kind: u32, value: u64, place: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
    const IMMEDIATE_12: u32 = 0xfff << 10;
    let address = |pages: i64| {
        // Two bits at 29, nineteen at 5.
        ((pages as u32 & 3) << 29) | (((pages >> 2) as u32 & 0x7_ffff) << 5)
    };
    const ADDRESS: u32 = (3 << 29) | (0x7_ffff << 5);
    let low = |shift: u32| (((value & 0xfff) >> shift) as u32) << 10;
    match elf::RelocationType(kind) {
        elf::R_AARCH64_PREL64 => put(bytes, value.wrapping_sub(place).to_le_bytes()),
        elf::R_AARCH64_PREL32 => put(bytes, (distance(value, place, 32)? as i32).to_le_bytes()),
        elf::R_AARCH64_CALL26 | elf::R_AARCH64_JUMP26 => {
            let words = distance(value, place, 28)? >> 2;
            instruction(bytes, 0x3ff_ffff, words as u32)
        }
        elf::R_AARCH64_ADR_PREL_LO21 => {
            instruction(bytes, ADDRESS, address(distance(value, place, 21)?))
        }
        elf::R_AARCH64_ADR_PREL_PG_HI21 | elf::R_AARCH64_ADR_GOT_PAGE => {
            let pages = distance(value & !0xfff, place & !0xfff, 33)? >> 12;
            instruction(bytes, ADDRESS, address(pages))
        }
        elf::R_AARCH64_ADD_ABS_LO12_NC | elf::R_AARCH64_LDST8_ABS_LO12_NC => {
            instruction(bytes, IMMEDIATE_12, low(0))
        }
        elf::R_AARCH64_LDST16_ABS_LO12_NC => instruction(bytes, IMMEDIATE_12, low(1)),
        elf::R_AARCH64_LDST32_ABS_LO12_NC => instruction(bytes, IMMEDIATE_12, low(2)),
        elf::R_AARCH64_LDST64_ABS_LO12_NC | elf::R_AARCH64_LD64_GOT_LO12_NC => {
            instruction(bytes, IMMEDIATE_12, low(3))
        }
        elf::R_AARCH64_LDST128_ABS_LO12_NC => instruction(bytes, IMMEDIATE_12, low(4)),
        _ => Err(Refusal::Unknown),
    }
}

/// The upper 20 bits of a distance whose lower 12 are added with their sign.
fn upper(distance: i64) -> Result<u32, Refusal> {
    Ok(signed(distance.wrapping_add(0x800), 32)? as u32 & 0xffff_f000)
}

fn riscv(kind: u32, value: u64, place: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
    let far = value.wrapping_sub(place) as i64;
    let bit = |from: u32, to: u32| ((far >> from) as u32 & 1) << to;
    let bits = |from: u32, count: u32, to: u32| ((far >> from) as u32 & ((1 << count) - 1)) << to;
    const UPPER: u32 = 0xffff_f000;
    match elf::RelocationType(kind) {
        elf::R_RISCV_CALL | elf::R_RISCV_CALL_PLT => {
            instruction(bytes, UPPER, upper(far)?)?;
            let second = bytes.get_mut(4..).ok_or(Refusal::TooFar)?;
            instruction(second, 0xfff << 20, (far as u32 & 0xfff) << 20)
        }
        elf::R_RISCV_PCREL_HI20 | elf::R_RISCV_GOT_HI20 => instruction(bytes, UPPER, upper(far)?),
        // Here the place is that of the instruction with the upper part.
        elf::R_RISCV_PCREL_LO12_I => instruction(bytes, 0xfff << 20, (far as u32 & 0xfff) << 20),
        elf::R_RISCV_PCREL_LO12_S => {
            instruction(bytes, 0xfe00_0f80, bits(5, 7, 25) | bits(0, 5, 7))
        }
        elf::R_RISCV_BRANCH => {
            signed(far, 13)?;
            let value = bit(12, 31) | bits(5, 6, 25) | bits(1, 4, 8) | bit(11, 7);
            instruction(bytes, 0xfe00_0f80, value)
        }
        elf::R_RISCV_JAL => {
            signed(far, 21)?;
            let value = bit(20, 31) | bits(1, 10, 21) | bit(11, 20) | bits(12, 8, 12);
            instruction(bytes, UPPER, value)
        }
        elf::R_RISCV_RVC_BRANCH => {
            signed(far, 9)?;
            let value = bit(8, 12) | bits(3, 2, 10) | bits(6, 2, 5) | bits(1, 2, 3) | bit(5, 2);
            short_instruction(bytes, 0x1c7c, value as u16)
        }
        elf::R_RISCV_RVC_JUMP => {
            signed(far, 12)?;
            let value = bit(11, 12)
                | bit(4, 11)
                | bits(8, 2, 9)
                | bit(10, 8)
                | bit(6, 7)
                | bit(7, 6)
                | bits(1, 3, 3)
                | bit(5, 2);
            short_instruction(bytes, 0x1ffc, value as u16)
        }
        elf::R_RISCV_32_PCREL => put(bytes, (signed(far, 32)? as i32).to_le_bytes()),
        _ => riscv_change(kind, value, bytes),
    }
}

/// Relocations that add to what is there, in pairs: one adds the end, another takes the start away.
fn riscv_change(kind: u32, value: u64, bytes: &mut [u8]) -> Result<(), Refusal> {
    let (size, sign) = match elf::RelocationType(kind) {
        elf::R_RISCV_ADD8 => (1, Some(1)),
        elf::R_RISCV_ADD16 => (2, Some(1)),
        elf::R_RISCV_ADD32 => (4, Some(1)),
        elf::R_RISCV_ADD64 => (8, Some(1)),
        elf::R_RISCV_SUB8 => (1, Some(-1)),
        elf::R_RISCV_SUB16 => (2, Some(-1)),
        elf::R_RISCV_SUB32 => (4, Some(-1)),
        elf::R_RISCV_SUB64 => (8, Some(-1)),
        elf::R_RISCV_SET8 => (1, None),
        elf::R_RISCV_SET16 => (2, None),
        elf::R_RISCV_SET32 => (4, None),
        elf::R_RISCV_SUB6 | elf::R_RISCV_SET6 => {
            // Six bits of a byte; the upper two are an opcode.
            let [old] = get::<1>(bytes)?;
            let new = if kind == elf::R_RISCV_SET6.0 {
                value as u8
            } else {
                old.wrapping_sub(value as u8)
            };
            return put(bytes, [old & 0xc0 | new & 0x3f]);
        }
        _ => return Err(Refusal::Unknown),
    };
    let place = bytes.get_mut(..size).ok_or(Refusal::TooFar)?;
    let mut word = [0; 8];
    word[..size].copy_from_slice(place);
    let old = u64::from_le_bytes(word);
    let new = match sign {
        None => value,
        Some(1) => old.wrapping_add(value),
        Some(_) => old.wrapping_sub(value),
    };
    place.copy_from_slice(&new.to_le_bytes()[..size]);
    Ok(())
}

/// Size of [`stub`] in bytes, and its alignment.
pub(super) const STUB_SIZE: u64 = 16;

/// Code at `place` that jumps to the address in the word at `word`.
pub(super) fn stub(machine: Machine, word: u64, place: u64) -> Result<[u8; 16], Refusal> {
    let mut code = [0; 16];
    let instructions: [u32; 4] = match machine {
        elf::EM_X86_64 => {
            code.fill(0xcc);
            // jmp *word(%rip)
            code[..2].copy_from_slice(&[0xff, 0x25]);
            let target = distance(word, place + 6, 32)? as i32;
            code[2..6].copy_from_slice(&target.to_le_bytes());
            return Ok(code);
        }
        // adrp x16, word; ldr x16, [x16, :lo12:word]; br x16; brk
        elf::EM_AARCH64 => [0x9000_0010, 0xf940_0210, 0xd61f_0200, 0xd420_0000],
        // auipc t3, word; ld t3, word(t3); jr t3; ebreak
        elf::EM_RISCV => [0x0000_0e17, 0x000e_3e03, 0x000e_0067, 0x0010_0073],
        _ => return Err(Refusal::Unknown),
    };
    for (bytes, instruction) in code.chunks_exact_mut(4).zip(instructions) {
        bytes.copy_from_slice(&instruction.to_le_bytes());
    }
    let (first, second) = code.split_at_mut(4);
    if machine == elf::EM_AARCH64 {
        aarch64(elf::R_AARCH64_ADR_GOT_PAGE.0, word, place, first)?;
        aarch64(elf::R_AARCH64_LD64_GOT_LO12_NC.0, word, place + 4, second)?;
    } else {
        riscv(elf::R_RISCV_GOT_HI20.0, word, place, first)?;
        riscv(elf::R_RISCV_PCREL_LO12_I.0, word, place, second)?;
    }
    Ok(code)
}

/// Dynamic relocations: the load address plus the addend, and a symbol's address plus the addend.
pub(super) fn dynamic_kinds(machine: Machine) -> (u32, u32) {
    match machine {
        elf::EM_AARCH64 => (elf::R_AARCH64_RELATIVE.0, elf::R_AARCH64_ABS64.0),
        elf::EM_RISCV => (elf::R_RISCV_RELATIVE.0, elf::R_RISCV_64.0),
        _ => (elf::R_X86_64_RELATIVE.0, elf::R_X86_64_64.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    // Checked with the assemblers and disassemblers of LLVM.
    #[test]
    fn instructions_get_their_distances() {
        for (machine, kind, value, before, after) in [
            (elf::EM_X86_64, elf::R_X86_64_PLT32, 0x10ff, 0_u32, 0xff_u32),
            (elf::EM_X86_64, elf::R_X86_64_PC32, 0xfff, 0, 0xffff_ffff),
            // bl #-8; adrp x0, #0x5000 onwards; ldr q0, [x0, #0x10]
            (
                elf::EM_AARCH64,
                elf::R_AARCH64_CALL26,
                0xff8,
                0x9400_0000,
                0x97ff_fffe,
            ),
            (
                elf::EM_AARCH64,
                elf::R_AARCH64_ADR_PREL_PG_HI21,
                0x6123,
                0x9000_0000,
                0xb000_0020,
            ),
            (
                elf::EM_AARCH64,
                elf::R_AARCH64_LDST128_ABS_LO12_NC,
                0x6010,
                0x3dc0_0000,
                0x3dc0_0400,
            ),
            // auipc a0, 1 for a distance of 0x800; jal 16; beqz a0, -4
            (
                elf::EM_RISCV,
                elf::R_RISCV_PCREL_HI20,
                0x1800,
                0x0000_0517,
                0x0000_1517,
            ),
            (
                elf::EM_RISCV,
                elf::R_RISCV_JAL,
                0x1010,
                0x0000_00ef,
                0x0100_00ef,
            ),
            (
                elf::EM_RISCV,
                elf::R_RISCV_BRANCH,
                0xffc,
                0x0005_0063,
                0xfe05_0ee3,
            ),
        ] {
            let mut bytes = before.to_le_bytes();
            let result = apply(machine, kind.0, value, 0x1000, &mut bytes);
            assert_eq!(result, Ok(()), "{kind:?}");
            assert_eq!(u32::from_le_bytes(bytes), after, "{kind:?}");
        }
    }

    #[test]
    fn targets_out_of_reach_are_refused() {
        for (machine, kind, reach) in [
            (elf::EM_X86_64, elf::R_X86_64_PC32, 1_u64 << 31),
            (elf::EM_AARCH64, elf::R_AARCH64_CALL26, 1 << 27),
            (elf::EM_AARCH64, elf::R_AARCH64_ADR_PREL_PG_HI21, 1 << 32),
            (elf::EM_RISCV, elf::R_RISCV_BRANCH, 1 << 12),
            (elf::EM_RISCV, elf::R_RISCV_CALL_PLT, (1 << 31) - 0x800),
        ] {
            let mut bytes = [0; 8];
            let place = 1 << 33;
            let near = apply(machine, kind.0, place + reach - 4, place, &mut bytes);
            assert_eq!(near, Ok(()), "{kind:?}");
            let far = apply(machine, kind.0, place + reach, place, &mut bytes);
            assert_eq!(far, Err(Refusal::TooFar), "{kind:?}");
            let back = apply(machine, kind.0, place - reach - 0x2000, place, &mut bytes);
            assert_eq!(back, Err(Refusal::TooFar), "{kind:?}");
        }
        assert_eq!(
            need(elf::EM_X86_64, elf::R_X86_64_32.0),
            Err(Refusal::Unknown)
        );
    }
}
