//! Executes one instruction of one thread.

use super::access::{number, space_of, window};
use super::block::{Block, Frame, State};
use super::convert::{Manner, convert};
use super::warp::lane_mask;
use super::{Broken, Launch, alu};
use crate::abi::Code;
use crate::device::Memory;
use crate::ptx::{Address, AtomOp, BinaryOp, Inst, MulPart, Op, Source, Special, Type};

/// Maximum depth of calls.
const DEPTH: usize = 128;
const LOCAL_LIMIT: usize = 1 << 20;

/// The effect of an instruction on its thread.
pub(super) enum Stepped {
    On,
    Waits(State),
}

impl Block {
    pub(super) fn step(
        &mut self,
        thread: usize,
        launch: &Launch,
        memory: &mut Memory,
    ) -> Result<Stepped, (Broken, u32)> {
        let Some(frame) = self.threads[thread].frames.last_mut() else {
            return Ok(Stepped::Waits(State::Ended));
        };
        let inst: &Inst = &launch.code.program.functions[frame.function].code[frame.next];
        frame.next += 1;
        if let Some((register, wanted)) = inst.guard
            && (frame.registers[register as usize] & 1 == 1) != wanted
        {
            return Ok(Stepped::On);
        }
        self.perform(thread, &inst.op, launch, memory)
            .map_err(|broken| (broken, inst.line))
    }

    /// The value of an operand.
    pub(super) fn value(&self, thread: usize, source: Source, kind: Type, launch: &Launch) -> u64 {
        match source {
            Source::Reg(register) => {
                let frame = self.threads[thread].frames.last();
                frame.map_or(0, |frame| frame.registers[register as usize]) & kind.mask()
            }
            Source::Bits(bits) => bits,
            Source::Special(special) => self.special(thread, special, launch) & kind.mask(),
            Source::Address(base) => self.base(thread, base, launch),
        }
    }

    pub(super) fn write(&mut self, thread: usize, register: u16, value: u64, launch: &Launch) {
        if let Some(frame) = self.threads[thread].frames.last_mut() {
            let mask = launch.code.program.functions[frame.function].masks[register as usize];
            frame.registers[register as usize] = value & mask;
        }
    }

    fn special(&self, thread: usize, special: Special, launch: &Launch) -> u64 {
        let thread = &self.threads[thread];
        let lane = thread.number % 32;
        match special {
            Special::Thread(dimension) => u64::from(thread.index[dimension]),
            Special::BlockSize(dimension) => u64::from(launch.block[dimension]),
            Special::Block(dimension) => u64::from(self.index[dimension]),
            Special::GridSize(dimension) => u64::from(launch.grid[dimension]),
            Special::Lane => u64::from(lane),
            Special::Warp => u64::from(thread.number / 32),
            Special::WarpCount => self.threads.len().div_ceil(32) as u64,
            Special::LaneMask(compare) => lane_mask(compare, lane),
            Special::Multiprocessor => 0,
            Special::MultiprocessorCount => 1,
            Special::Grid => 1,
            Special::Clock => {
                let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
                now.map_or(0, |now| now.as_nanos() as u64)
            }
            Special::DynamicShared => u64::from(launch.shared),
            Special::TotalShared => self.shared.len() as u64,
        }
    }

    fn address(&self, thread: usize, address: Address, launch: &Launch) -> u64 {
        self.base(thread, address.base, launch)
            .wrapping_add(address.offset as u64)
    }

    fn perform(
        &mut self,
        thread: usize,
        op: &Op,
        launch: &Launch,
        memory: &mut Memory,
    ) -> Result<Stepped, Broken> {
        let u64_type = |bits| Type {
            kind: crate::ptx::Kind::Bits,
            bits,
        };
        let b64 = u64_type(64);
        let b32 = u64_type(32);
        let (register, value) = match op {
            Op::Nothing => return Ok(Stepped::On),
            Op::Move { to, from } => (*to, self.value(thread, *from, b64, launch)),
            Op::Pack { to, parts, bits } => {
                let parts = parts.iter().rev();
                let value = parts.fold(0, |value: u64, part| {
                    value << bits | self.value(thread, *part, u64_type(*bits), launch)
                });
                (*to, value)
            }
            Op::Unpack { to, from, bits } => {
                let value = self.value(thread, *from, b64, launch);
                for (index, to) in to.iter().enumerate() {
                    if let Some(to) = to {
                        let part = value >> (*bits * index as u32) & u64_type(*bits).mask();
                        self.write(thread, *to, part, launch);
                    }
                }
                return Ok(Stepped::On);
            }
            Op::Load {
                space,
                kind,
                to,
                address,
            } => {
                let address = self.address(thread, *address, launch);
                let bytes =
                    self.place(thread, launch, memory, (*space, address), *kind, to.len())?;
                let width = kind.bytes();
                let mut values = [0; 4];
                for (value, bytes) in values.iter_mut().zip(bytes.chunks_exact(width)) {
                    *value = number(bytes);
                    if kind.is_signed() {
                        *value = alu::signed(*value, *kind) as u64;
                    }
                }
                for (to, value) in to.iter().zip(values) {
                    if let Some(to) = to {
                        self.write(thread, *to, value, launch);
                    }
                }
                return Ok(Stepped::On);
            }
            Op::Store {
                space,
                kind,
                from,
                address,
            } => {
                let address = self.address(thread, *address, launch);
                let mut values = [0; 4];
                for (value, from) in values.iter_mut().zip(from) {
                    *value = self.value(thread, *from, *kind, launch);
                }
                let bytes =
                    self.place(thread, launch, memory, (*space, address), *kind, from.len())?;
                let width = kind.bytes();
                for (bytes, value) in bytes.chunks_exact_mut(width).zip(values) {
                    bytes.copy_from_slice(&value.to_le_bytes()[..width]);
                }
                return Ok(Stepped::On);
            }
            Op::ToGeneric { space, to, from } => (
                *to,
                self.value(thread, *from, b64, launch)
                    .wrapping_add(window(*space)),
            ),
            Op::FromGeneric { space, to, from } => (
                *to,
                self.value(thread, *from, b64, launch)
                    .wrapping_sub(window(*space)),
            ),
            Op::IsInSpace { space, to, from } => {
                let (found, _) = space_of(self.value(thread, *from, b64, launch));
                (*to, u64::from(found == *space))
            }
            Op::Unary {
                op,
                kind,
                flush,
                to,
                a,
            } => (
                *to,
                alu::unary(*op, *kind, *flush, self.value(thread, *a, *kind, launch)),
            ),
            Op::Binary {
                op,
                kind,
                flush,
                saturate,
                to,
                a,
                b,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let shift = matches!(op, BinaryOp::Shl | BinaryOp::Shr);
                let b = self.value(thread, *b, if shift { b32 } else { *kind }, launch);
                (*to, alu::binary(*op, *kind, (*flush, *saturate), a, b))
            }
            Op::Mul {
                part,
                kind,
                to,
                a,
                b,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let b = self.value(thread, *b, *kind, launch);
                (*to, alu::mul(*part, *kind, a, b))
            }
            Op::FloatMul {
                kind,
                flush,
                saturate,
                to,
                a,
                b,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let b = self.value(thread, *b, *kind, launch);
                (*to, alu::float_mul(*kind, (*flush, *saturate), a, b))
            }
            Op::Mad {
                part,
                kind,
                to,
                a,
                b,
                c,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let b = self.value(thread, *b, *kind, launch);
                let sum = match part {
                    MulPart::Wide => kind.with_bits(kind.bits * 2),
                    MulPart::Low | MulPart::High => *kind,
                };
                let c = self.value(thread, *c, sum, launch);
                (*to, alu::mul(*part, *kind, a, b).wrapping_add(c))
            }
            Op::Fma {
                kind,
                flush,
                saturate,
                to,
                a,
                b,
                c,
            } => {
                let operands = [*a, *b, *c].map(|one| self.value(thread, one, *kind, launch));
                (*to, alu::fma(*kind, (*flush, *saturate), operands))
            }
            Op::SetPredicate {
                compare,
                combine,
                kind,
                to,
                other,
                a,
                b,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let b = self.value(thread, *b, *kind, launch);
                let holds = alu::compare(*compare, *kind, a, b);
                let with = |holds: bool| match combine {
                    None => holds,
                    Some((op, predicate, negated)) => {
                        let value = self.value(thread, *predicate, b32, launch) & 1 == 1;
                        alu::combine(*op, holds, value != *negated)
                    }
                };
                let (first, second) = (with(holds), with(!holds));
                for (to, value) in [(to, first), (other, second)] {
                    if let Some(to) = to {
                        self.write(thread, *to, u64::from(value), launch);
                    }
                }
                return Ok(Stepped::On);
            }
            Op::Set {
                compare,
                result,
                kind,
                to,
                a,
                b,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let b = self.value(thread, *b, *kind, launch);
                let holds = alu::compare(*compare, *kind, a, b);
                let yes = if result.is_float() {
                    u64::from(1.0f32.to_bits())
                } else {
                    result.mask()
                };
                (*to, if holds { yes } else { 0 })
            }
            Op::Select {
                to,
                a,
                b,
                predicate,
            } => {
                let holds = self.value(thread, *predicate, b32, launch) & 1 == 1;
                (
                    *to,
                    self.value(thread, if holds { *a } else { *b }, b64, launch),
                )
            }
            Op::Convert {
                result,
                kind,
                rounding,
                saturate,
                flush,
                to,
                a,
            } => {
                let manner = Manner {
                    rounding: *rounding,
                    saturate: *saturate,
                    flush: *flush,
                };
                let value = self.value(thread, *a, *kind, launch);
                (*to, convert(*result, *kind, manner, value))
            }
            Op::BitExtract {
                kind,
                to,
                a,
                position,
                length,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let position = self.value(thread, *position, b32, launch);
                let length = self.value(thread, *length, b32, launch);
                (*to, alu::extract(*kind, a, position, length))
            }
            Op::BitInsert {
                kind,
                to,
                a,
                b,
                position,
                length,
            } => {
                let a = self.value(thread, *a, *kind, launch);
                let b = self.value(thread, *b, *kind, launch);
                let position = self.value(thread, *position, b32, launch);
                let length = self.value(thread, *length, b32, launch);
                (*to, alu::insert(*kind, a, b, position, length))
            }
            Op::Permute { to, a, b, selector } => {
                let [a, b, selector] =
                    [*a, *b, *selector].map(|one| self.value(thread, one, b32, launch));
                (*to, alu::permute(a, b, selector))
            }
            Op::Logic3 { to, a, b, c, table } => {
                let [a, b, c] = [*a, *b, *c].map(|one| self.value(thread, one, b32, launch));
                (*to, alu::logic(a, b, c, *table))
            }
            Op::Funnel {
                left,
                wrap,
                to,
                low,
                high,
                amount,
            } => {
                let [low, high, amount] =
                    [*low, *high, *amount].map(|one| self.value(thread, one, b32, launch));
                (*to, alu::funnel(*left, *wrap, low, high, amount))
            }
            Op::Branch { target } => {
                if let Some(frame) = self.threads[thread].frames.last_mut() {
                    frame.next = *target;
                }
                return Ok(Stepped::On);
            }
            Op::Call {
                function,
                arguments,
                results,
            } => {
                return self.call(thread, launch, *function, arguments, results);
            }
            Op::Return => return Ok(self.ret(thread)),
            Op::Exit => return Ok(Stepped::Waits(State::Ended)),
            Op::Trap => return Err(Broken::new(Code::LAUNCH_FAILED, "trap")),
            Op::Barrier { id, threads, waits } => {
                let id = self.value(thread, *id, b32, launch);
                if id >= 16 {
                    let text = format!("there is no barrier {id}");
                    return Err(Broken::new(Code::ILLEGAL_INSTRUCTION, text));
                }
                let threads = threads.map(|threads| self.value(thread, threads, b32, launch));
                if !waits {
                    *self.arrived.entry(id).or_default() += 1;
                    return Ok(Stepped::On);
                }
                return Ok(Stepped::Waits(State::Barrier { id, threads }));
            }
            Op::Atomic {
                op,
                space,
                kind,
                to,
                address,
                b,
                c,
            } => {
                let b = self.value(thread, *b, *kind, launch);
                let c = c.map_or(0, |c| self.value(thread, c, *kind, launch));
                let address = self.address(thread, *address, launch);
                let bytes = self.place(thread, launch, memory, (*space, address), *kind, 1)?;
                let before = number(bytes);
                let after = atomic(*op, *kind, before, b, c);
                bytes.copy_from_slice(&after.to_le_bytes()[..kind.bytes()]);
                match to {
                    Some(to) => (*to, before),
                    None => return Ok(Stepped::On),
                }
            }
            Op::Shuffle { members, .. }
            | Op::Vote { members, .. }
            | Op::WarpBarrier { members } => {
                let members = self.value(thread, *members, b32, launch) as u32;
                return Ok(Stepped::Waits(State::Together { members }));
            }
            Op::ActiveMask { to } => (*to, self.active(thread)),
        };
        self.write(thread, register, value, launch);
        Ok(Stepped::On)
    }

    fn call(
        &mut self,
        thread: usize,
        launch: &Launch,
        function: usize,
        arguments: &[(usize, usize)],
        results: &[(usize, usize)],
    ) -> Result<Stepped, Broken> {
        let callee = &launch.code.program.functions[function];
        let thread = &mut self.threads[thread];
        if callee.external {
            return match callee.name.as_str() {
                "__assertfail" => Err(Broken::new(Code::ASSERT, "an assertion failed")),
                // Printed text is discarded.
                _ => Ok(Stepped::On),
            };
        }
        let depth = thread.frames.len();
        let local = match thread.frames.last() {
            Some(caller) => {
                caller.local + launch.code.program.functions[caller.function].local_size
            }
            None => 0,
        };
        let local = local.next_multiple_of(16);
        if depth >= DEPTH || local + callee.local_size > LOCAL_LIMIT {
            return Err(Broken::new(Code::HARDWARE_STACK_ERROR, "calls too deep"));
        }
        thread
            .local
            .resize(thread.local.len().max(local + callee.local_size), 0);
        let mut frame = Frame::new(launch, function, local);
        if let Some(caller) = thread.frames.last() {
            for ((from, size), parameter) in arguments.iter().zip(&callee.parameters) {
                let argument = &caller.parameters[*from..from + size];
                frame.parameters[parameter.offset..parameter.offset + size]
                    .copy_from_slice(argument);
            }
        }
        let returns = callee.returns.iter().zip(results);
        frame.results = returns
            .map(|(from, (to, size))| (from.offset, *to, *size))
            .collect();
        thread.frames.push(frame);
        Ok(Stepped::On)
    }

    fn ret(&mut self, thread: usize) -> Stepped {
        let frames = &mut self.threads[thread].frames;
        let (Some(done), Some(caller)) = (frames.pop(), frames.last_mut()) else {
            return Stepped::Waits(State::Ended);
        };
        for (from, to, size) in done.results {
            caller.parameters[to..to + size].copy_from_slice(&done.parameters[from..from + size]);
        }
        Stepped::On
    }
}

fn atomic(op: AtomOp, kind: Type, before: u64, b: u64, c: u64) -> u64 {
    let binary = |op| alu::binary(op, kind, (false, false), before, b);
    match op {
        AtomOp::Add => binary(BinaryOp::Add),
        AtomOp::Min => binary(BinaryOp::Min),
        AtomOp::Max => binary(BinaryOp::Max),
        AtomOp::And => before & b,
        AtomOp::Or => before | b,
        AtomOp::Xor => before ^ b,
        AtomOp::Exchange => b,
        AtomOp::CompareSwap if before == b => c,
        AtomOp::CompareSwap => before,
        AtomOp::Increment if before >= b => 0,
        AtomOp::Increment => before + 1,
        AtomOp::Decrement if before == 0 || before > b => b,
        AtomOp::Decrement => before - 1,
    }
}
