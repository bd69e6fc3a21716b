//! Decodes one instruction: its name, modifiers and operands become an `Op`.

use super::body::Body;
use super::module::Global;
use super::op::{
    AtomOp, BinaryOp, BoolOp, Compare, MulPart, Op, Rounding, ShuffleMode, UnaryOp, VoteMode,
};
use super::operand::{Modifiers, Operand};
use super::types::{Kind, Space, Type};
use super::{Reason, op::Source};

/// The error `None` means that the parts do not fit; the caller supplies the message.
type Decoded<T = Op> = Result<T, Option<Reason>>;

const SPACES: [(&str, Space); 8] = [
    ("global", Space::Global),
    ("const", Space::Constant),
    ("shared", Space::Shared),
    ("shared::cta", Space::Shared),
    ("local", Space::Local),
    ("param", Space::Parameter),
    ("param::entry", Space::Parameter),
    ("param::func", Space::Parameter),
];
const ROUNDINGS: [(&str, Rounding); 4] = [
    ("rn", Rounding::Nearest),
    ("rz", Rounding::Zero),
    ("rm", Rounding::Down),
    ("rp", Rounding::Up),
];
const INTEGER_ROUNDINGS: [(&str, Rounding); 4] = [
    ("rni", Rounding::Nearest),
    ("rzi", Rounding::Zero),
    ("rmi", Rounding::Down),
    ("rpi", Rounding::Up),
];
const COMPARES: [(&str, Compare); 18] = [
    ("eq", Compare::Eq),
    ("ne", Compare::Ne),
    ("lt", Compare::Lt),
    ("le", Compare::Le),
    ("gt", Compare::Gt),
    ("ge", Compare::Ge),
    ("lo", Compare::Lt),
    ("ls", Compare::Le),
    ("hi", Compare::Gt),
    ("hs", Compare::Ge),
    ("equ", Compare::Equ),
    ("neu", Compare::Neu),
    ("ltu", Compare::Ltu),
    ("leu", Compare::Leu),
    ("gtu", Compare::Gtu),
    ("geu", Compare::Geu),
    ("num", Compare::Num),
    ("nan", Compare::Nan),
];
const BOOLS: [(&str, BoolOp); 3] = [
    ("and", BoolOp::And),
    ("or", BoolOp::Or),
    ("xor", BoolOp::Xor),
];
/// Cache and memory-order modifiers. They have no effect here, because there is only one memory and one order.
const CACHES: [&str; 16] = [
    "volatile", "relaxed", "acquire", "release", "acq_rel", "weak", "sys", "gpu", "cta", "cluster",
    "nc", "ca", "cg", "cs", "lu", "cv",
];
const B32: Type = Type {
    kind: Kind::Bits,
    bits: 32,
};
const B64: Type = Type {
    kind: Kind::Bits,
    bits: 64,
};
const PREDICATE: Type = Type {
    kind: Kind::Predicate,
    bits: 1,
};

fn need<T>(value: Option<T>) -> Decoded<T> {
    value.ok_or(None)
}

fn fits(condition: bool) -> Decoded<()> {
    if condition { Ok(()) } else { Err(None) }
}

fn integer(kind: Type) -> Decoded<Type> {
    let integer = matches!(kind.kind, Kind::Unsigned | Kind::Signed | Kind::Bits);
    fits(integer).map(|()| kind)
}

/// The operands, if there are exactly `N`.
fn exactly<const N: usize>(operands: &[Operand]) -> Decoded<&[Operand; N]> {
    need(operands.try_into().ok())
}

impl Body<'_> {
    pub(super) fn decode(
        &mut self,
        name: &str,
        modifiers: &mut Modifiers,
        operands: &[Operand],
    ) -> Decoded {
        match name {
            "mov" => self.mov(modifiers, operands),
            "ld" | "ldu" => self.load(modifiers, operands),
            "st" => self.store(modifiers, operands),
            "cvta" => self.cvta(modifiers, operands),
            "isspacep" => {
                let [to, from] = exactly(operands)?;
                Ok(Op::IsInSpace {
                    space: need(modifiers.take_any(&SPACES))?,
                    to: self.reg(to)?,
                    from: self.src(from, B64)?,
                })
            }
            "add" | "sub" | "min" | "max" | "div" | "rem" | "copysign" => {
                self.arithmetic(name, modifiers, operands)
            }
            "and" | "or" | "xor" | "shl" | "shr" => self.bits(name, modifiers, operands),
            "neg" | "abs" | "not" | "cnot" | "popc" | "clz" | "brev" | "bfind" | "sqrt"
            | "rsqrt" | "rcp" | "sin" | "cos" | "ex2" | "lg2" | "tanh" => {
                self.unary(name, modifiers, operands)
            }
            "mul" | "mul24" => self.mul(modifiers, operands),
            "mad" | "fma" | "mad24" => self.mad(modifiers, operands),
            "setp" => self.setp(modifiers, operands),
            "set" => self.set(modifiers, operands),
            "selp" => {
                let [to, a, b, predicate] = exactly(operands)?;
                let kind = need(modifiers.kind())?;
                Ok(Op::Select {
                    to: self.reg(to)?,
                    a: self.src(a, kind)?,
                    b: self.src(b, kind)?,
                    predicate: self.src(predicate, PREDICATE)?,
                })
            }
            "cvt" => self.cvt(modifiers, operands),
            "bfe" | "bfi" | "prmt" | "lop3" | "shf" => self.fields(name, modifiers, operands),
            "call" => self.call(modifiers, operands),
            "ret" => {
                modifiers.take("uni");
                exactly::<0>(operands).map(|_| Op::Return)
            }
            "exit" => exactly::<0>(operands).map(|_| Op::Exit),
            "trap" | "brkpt" => exactly::<0>(operands).map(|_| Op::Trap),
            "bar" | "barrier" => self.barrier(modifiers, operands),
            "membar" | "fence" | "nanosleep" | "griddepcontrol" | "prefetch" | "prefetchu"
            | "discard" => {
                modifiers.ignore(&CACHES);
                modifiers.ignore(&[
                    "gl",
                    "sc",
                    "proxy",
                    "alias",
                    "async",
                    "u32",
                    "launch_dependents",
                    "wait",
                    "global",
                    "local",
                    "L1",
                    "L2",
                ]);
                Ok(Op::Nothing)
            }
            "atom" | "red" => self.atomic(name == "atom", modifiers, operands),
            "shfl" => self.shuffle(modifiers, operands),
            "vote" => self.vote(modifiers, operands),
            "activemask" => {
                let [to] = exactly(operands)?;
                fits(modifiers.take("b32"))?;
                Ok(Op::ActiveMask { to: self.reg(to)? })
            }
            _ => Err(Some(Reason::Instruction(name.to_owned()))),
        }
    }

    fn reg(&self, operand: &Operand) -> Decoded<u16> {
        self.register(operand).map_err(Some)
    }

    fn src(&self, operand: &Operand, kind: Type) -> Decoded<Source> {
        self.source(operand, kind).map_err(Some)
    }

    fn mov(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, from] = exactly(operands)?;
        let kind = need(modifiers.kind())?;
        match (to, from) {
            (to, Operand::Vector(parts)) => {
                fits(matches!(parts.len(), 2 | 4))?;
                let bits = kind.bits / parts.len() as u32;
                let part = integer(kind.with_bits(bits))?;
                let parts = parts.iter().map(|operand| self.src(operand, part));
                Ok(Op::Pack {
                    to: self.reg(to)?,
                    parts: parts.collect::<Decoded<_>>()?,
                    bits,
                })
            }
            (Operand::Vector(parts), from) => {
                fits(matches!(parts.len(), 2 | 4))?;
                let bits = kind.bits / parts.len() as u32;
                let to = parts.iter().map(|operand| self.sink(operand).map_err(Some));
                Ok(Op::Unpack {
                    to: to.collect::<Decoded<_>>()?,
                    from: self.src(from, kind)?,
                    bits,
                })
            }
            (
                to,
                Operand::Address {
                    base: Some(name),
                    offset,
                },
            ) => {
                // The address of a variable plus an offset is an addition.
                let base = self.base(name).map_err(Some)?;
                Ok(Op::Binary {
                    op: BinaryOp::Add,
                    kind: integer(kind)?,
                    flush: false,
                    saturate: false,
                    to: self.reg(to)?,
                    a: Source::Address(base),
                    b: Source::Bits(*offset as u64),
                })
            }
            (to, from) => Ok(Op::Move {
                to: self.reg(to)?,
                from: self.src(from, kind)?,
            }),
        }
    }

    fn vector(&self, modifiers: &mut Modifiers) -> usize {
        modifiers.take_any(&[("v2", 2), ("v4", 4)]).unwrap_or(1)
    }

    fn load(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, address] = exactly(operands)?;
        modifiers.ignore(&CACHES);
        let count = self.vector(modifiers);
        let to = match (to, count) {
            (Operand::Vector(parts), 2 | 4) => {
                fits(parts.len() == count)?;
                let to = parts.iter().map(|operand| self.sink(operand).map_err(Some));
                to.collect::<Decoded<_>>()?
            }
            (to, 1) => vec![Some(self.reg(to)?)],
            _ => return Err(None),
        };
        Ok(Op::Load {
            space: modifiers.take_any(&SPACES).unwrap_or(Space::Generic),
            kind: need(modifiers.kind())?,
            to,
            address: self.address(address).map_err(Some)?,
        })
    }

    fn store(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [address, from] = exactly(operands)?;
        modifiers.ignore(&CACHES);
        modifiers.ignore(&["wb", "wt"]);
        let count = self.vector(modifiers);
        let space = modifiers.take_any(&SPACES).unwrap_or(Space::Generic);
        fits(space != Space::Constant)?;
        let kind = need(modifiers.kind())?;
        let from = match (from, count) {
            (Operand::Vector(parts), 2 | 4) => {
                fits(parts.len() == count)?;
                let from = parts.iter().map(|operand| self.src(operand, kind));
                from.collect::<Decoded<_>>()?
            }
            (from, 1) => vec![self.src(from, kind)?],
            _ => return Err(None),
        };
        Ok(Op::Store {
            space,
            kind,
            from,
            address: self.address(address).map_err(Some)?,
        })
    }

    fn cvta(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, from] = exactly(operands)?;
        let away = modifiers.take("to");
        let space = need(modifiers.take_any(&SPACES))?;
        let kind = need(modifiers.kind())?;
        fits(kind.bits == 64)?;
        let (to, from) = (self.reg(to)?, self.src(from, kind)?);
        Ok(if away {
            Op::FromGeneric { space, to, from }
        } else {
            Op::ToGeneric { space, to, from }
        })
    }

    fn arithmetic(&self, name: &str, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a, b] = exactly(operands)?;
        let kind = need(modifiers.kind())?;
        fits(kind.kind != Kind::Predicate && kind.bits >= 16)?;
        let op = match name {
            "add" => BinaryOp::Add,
            "sub" => BinaryOp::Sub,
            "min" => BinaryOp::Min,
            "max" => BinaryOp::Max,
            "div" => BinaryOp::Div,
            "rem" => BinaryOp::Rem,
            _ => BinaryOp::CopySign,
        };
        fits(kind.is_float() || op != BinaryOp::CopySign)?;
        fits(!kind.is_float() || op != BinaryOp::Rem)?;
        if kind.is_float() {
            modifiers.ignore(&["rn", "approx", "full"]);
        }
        Ok(Op::Binary {
            op,
            kind,
            flush: modifiers.take("ftz"),
            saturate: modifiers.take("sat"),
            to: self.reg(to)?,
            a: self.src(a, kind)?,
            b: self.src(b, kind)?,
        })
    }

    fn bits(&self, name: &str, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a, b] = exactly(operands)?;
        let kind = need(modifiers.kind())?;
        fits(!kind.is_float())?;
        let op = match name {
            "and" => BinaryOp::And,
            "or" => BinaryOp::Or,
            "xor" => BinaryOp::Xor,
            "shl" => BinaryOp::Shl,
            _ => BinaryOp::Shr,
        };
        let shift = matches!(op, BinaryOp::Shl | BinaryOp::Shr);
        Ok(Op::Binary {
            op,
            kind,
            flush: false,
            saturate: false,
            to: self.reg(to)?,
            a: self.src(a, kind)?,
            // The shift amount has 32 bits for every type.
            b: self.src(b, if shift { B32 } else { kind })?,
        })
    }

    fn unary(&self, name: &str, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a] = exactly(operands)?;
        let kind = need(modifiers.kind())?;
        let op = match name {
            "neg" => UnaryOp::Neg,
            "abs" => UnaryOp::Abs,
            "not" => UnaryOp::Not,
            "cnot" => UnaryOp::CNot,
            "popc" => UnaryOp::Popc,
            "clz" => UnaryOp::Clz,
            "brev" => UnaryOp::Brev,
            "bfind" => UnaryOp::BFind,
            "sqrt" => UnaryOp::Sqrt,
            "rsqrt" => UnaryOp::RSqrt,
            "rcp" => UnaryOp::Rcp,
            "sin" => UnaryOp::Sin,
            "cos" => UnaryOp::Cos,
            "ex2" => UnaryOp::Ex2,
            "lg2" => UnaryOp::Lg2,
            _ => UnaryOp::Tanh,
        };
        let of_floats = matches!(
            op,
            UnaryOp::Sqrt
                | UnaryOp::RSqrt
                | UnaryOp::Rcp
                | UnaryOp::Sin
                | UnaryOp::Cos
                | UnaryOp::Ex2
                | UnaryOp::Lg2
                | UnaryOp::Tanh
        );
        let of_both = matches!(op, UnaryOp::Neg | UnaryOp::Abs);
        fits(of_both || of_floats == kind.is_float())?;
        if of_floats {
            modifiers.ignore(&["rn", "approx"]);
        }
        Ok(Op::Unary {
            op,
            kind,
            flush: modifiers.take("ftz"),
            to: self.reg(to)?,
            a: self.src(a, kind)?,
        })
    }

    fn part(&self, modifiers: &mut Modifiers) -> Option<MulPart> {
        modifiers.take_any(&[
            ("lo", MulPart::Low),
            ("hi", MulPart::High),
            ("wide", MulPart::Wide),
        ])
    }

    fn mul(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a, b] = exactly(operands)?;
        let kind = need(modifiers.kind())?;
        let (to, a, b) = (self.reg(to)?, self.src(a, kind)?, self.src(b, kind)?);
        if kind.is_float() {
            modifiers.ignore(&["rn"]);
            let (flush, saturate) = (modifiers.take("ftz"), modifiers.take("sat"));
            return Ok(Op::FloatMul {
                kind,
                flush,
                saturate,
                to,
                a,
                b,
            });
        }
        let part = need(self.part(modifiers))?;
        fits(part != MulPart::Wide || kind.bits <= 32)?;
        Ok(Op::Mul {
            part,
            kind: integer(kind)?,
            to,
            a,
            b,
        })
    }

    fn mad(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a, b, c] = exactly(operands)?;
        let kind = need(modifiers.kind())?;
        let (to, a, b) = (self.reg(to)?, self.src(a, kind)?, self.src(b, kind)?);
        if kind.is_float() {
            modifiers.ignore(&["rn"]);
            let (flush, saturate) = (modifiers.take("ftz"), modifiers.take("sat"));
            let c = self.src(c, kind)?;
            return Ok(Op::Fma {
                kind,
                flush,
                saturate,
                to,
                a,
                b,
                c,
            });
        }
        let part = need(self.part(modifiers))?;
        fits(part != MulPart::Wide || kind.bits <= 32)?;
        let sum = match part {
            MulPart::Wide => kind.with_bits(kind.bits * 2),
            MulPart::Low | MulPart::High => kind,
        };
        let c = self.src(c, sum)?;
        Ok(Op::Mad {
            part,
            kind: integer(kind)?,
            to,
            a,
            b,
            c,
        })
    }

    fn setp(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        modifiers.take("ftz");
        let compare = need(modifiers.take_any(&COMPARES))?;
        let combine = modifiers.take_any(&BOOLS);
        let kind = need(modifiers.kind())?;
        let (to, a, b, rest) = match operands {
            [to, a, b, rest @ ..] => (to, a, b, rest),
            _ => return Err(None),
        };
        let (to, other) = match to {
            Operand::Pair(first, second) => (
                self.sink(&Operand::Name(first.clone())).map_err(Some)?,
                self.sink(&Operand::Name(second.clone())).map_err(Some)?,
            ),
            to => (Some(self.reg(to)?), None),
        };
        let combine = match (combine, rest) {
            (None, []) => None,
            (Some(op), [Operand::Not(name)]) => {
                let predicate = self.src(&Operand::Name(name.clone()), PREDICATE)?;
                Some((op, predicate, true))
            }
            (Some(op), [predicate]) => Some((op, self.src(predicate, PREDICATE)?, false)),
            _ => return Err(None),
        };
        let (a, b) = (self.src(a, kind)?, self.src(b, kind)?);
        Ok(Op::SetPredicate {
            compare,
            combine,
            kind,
            to,
            other,
            a,
            b,
        })
    }

    fn set(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a, b] = exactly(operands)?;
        modifiers.take("ftz");
        let compare = need(modifiers.take_any(&COMPARES))?;
        let result = need(modifiers.kind())?;
        let kind = need(modifiers.kind())?;
        let (to, a, b) = (self.reg(to)?, self.src(a, kind)?, self.src(b, kind)?);
        Ok(Op::Set {
            compare,
            result,
            kind,
            to,
            a,
            b,
        })
    }

    fn cvt(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a] = exactly(operands)?;
        let whole = modifiers.take_any(&INTEGER_ROUNDINGS);
        let nearest = modifiers.take_any(&ROUNDINGS);
        let saturate = modifiers.take("sat");
        let flush = modifiers.take("ftz");
        let result = need(modifiers.kind())?;
        let kind = need(modifiers.kind())?;
        fits(result.kind != Kind::Predicate && kind.kind != Kind::Predicate)?;
        // Of these, only rounding to nearest is supported.
        fits(matches!(nearest, None | Some(Rounding::Nearest)))?;
        fits(whole.is_none() || kind.is_float())?;
        fits(whole.is_some() || !kind.is_float() || result.is_float())?;
        Ok(Op::Convert {
            result,
            kind,
            rounding: whole,
            saturate,
            flush,
            to: self.reg(to)?,
            a: self.src(a, kind)?,
        })
    }

    fn fields(&self, name: &str, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        if name == "bfi" {
            let [to, a, b, position, length] = exactly(operands)?;
            let kind = integer(need(modifiers.kind())?)?;
            return Ok(Op::BitInsert {
                kind,
                to: self.reg(to)?,
                a: self.src(a, kind)?,
                b: self.src(b, kind)?,
                position: self.src(position, B32)?,
                length: self.src(length, B32)?,
            });
        }
        if name == "lop3" {
            let [to, a, b, c, Operand::Bits(table)] = exactly(operands)? else {
                return Err(None);
            };
            fits(modifiers.take("b32") && *table < 256)?;
            return Ok(Op::Logic3 {
                to: self.reg(to)?,
                a: self.src(a, B32)?,
                b: self.src(b, B32)?,
                c: self.src(c, B32)?,
                table: *table as u8,
            });
        }
        let [to, a, b, c] = exactly(operands)?;
        let kind = match name {
            "bfe" => integer(need(modifiers.kind())?)?,
            _ => {
                fits(modifiers.take("b32"))?;
                B32
            }
        };
        let (to, a) = (self.reg(to)?, self.src(a, kind)?);
        let (b, c) = (self.src(b, B32)?, self.src(c, B32)?);
        Ok(match name {
            "bfe" => Op::BitExtract {
                kind,
                to,
                a,
                position: b,
                length: c,
            },
            "prmt" => Op::Permute {
                to,
                a,
                b,
                selector: c,
            },
            _ => Op::Funnel {
                left: need(modifiers.take_any(&[("l", true), ("r", false)]))?,
                wrap: need(modifiers.take_any(&[("wrap", true), ("clamp", false)]))?,
                to,
                low: a,
                high: b,
                amount: c,
            },
        })
    }

    /// `call (results), function, (arguments);`, where either list may be missing.
    fn call(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        modifiers.take("uni");
        let (results, name, arguments): (&[Operand], _, &[Operand]) = match operands {
            [
                Operand::List(results),
                Operand::Name(name),
                Operand::List(arguments),
            ] => (results, name, arguments),
            [Operand::List(results), Operand::Name(name)] => (results, name, &[]),
            [Operand::Name(name), Operand::List(arguments)] => (&[], name, arguments),
            [Operand::Name(name)] => (&[], name, &[]),
            _ => return Err(Some(Reason::Unsupported("calls through registers"))),
        };
        let Some(Global::Function(function)) = self.parser.globals.get(name) else {
            return Err(Some(Reason::Undeclared(name.clone())));
        };
        let callee = &self.parser.program.functions[*function];
        fits(callee.parameters.len() == arguments.len() && callee.returns.len() == results.len())?;
        let place = |operand| self.parameter(operand).map_err(Some);
        let arguments = arguments.iter().map(place).collect::<Decoded<Vec<_>>>()?;
        let results = results.iter().map(place).collect::<Decoded<Vec<_>>>()?;
        let sizes = arguments.iter().zip(&callee.parameters);
        fits(
            sizes
                .into_iter()
                .all(|((_, size), wanted)| *size == wanted.size),
        )?;
        let sizes = results.iter().zip(&callee.returns);
        fits(
            sizes
                .into_iter()
                .all(|((_, size), wanted)| *size == wanted.size),
        )?;
        Ok(Op::Call {
            function: *function,
            arguments,
            results,
        })
    }

    fn barrier(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        modifiers.ignore(&["cta", "aligned"]);
        if modifiers.take("warp") {
            let [members] = exactly(operands)?;
            fits(modifiers.take("sync"))?;
            return Ok(Op::WarpBarrier {
                members: self.src(members, B32)?,
            });
        }
        let waits = need(modifiers.take_any(&[("sync", true), ("arrive", false)]))?;
        let (id, threads) = match operands {
            [id] => (id, None),
            [id, threads] => (id, Some(self.src(threads, B32)?)),
            _ => return Err(None),
        };
        fits(waits || threads.is_some())?;
        Ok(Op::Barrier {
            id: self.src(id, B32)?,
            threads,
            waits,
        })
    }

    fn atomic(&self, result: bool, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        modifiers.ignore(&CACHES);
        modifiers.take("noftz");
        let space = modifiers.take_any(&SPACES).unwrap_or(Space::Generic);
        let op = need(modifiers.take_any(&[
            ("add", AtomOp::Add),
            ("min", AtomOp::Min),
            ("max", AtomOp::Max),
            ("and", AtomOp::And),
            ("or", AtomOp::Or),
            ("xor", AtomOp::Xor),
            ("exch", AtomOp::Exchange),
            ("cas", AtomOp::CompareSwap),
            ("inc", AtomOp::Increment),
            ("dec", AtomOp::Decrement),
        ]))?;
        let kind = need(modifiers.kind())?;
        fits(kind.bits >= 16 && matches!(space, Space::Generic | Space::Global | Space::Shared))?;
        let (to, rest) = match operands {
            [to, rest @ ..] if result => (self.sink(to).map_err(Some)?, rest),
            rest => (None, rest),
        };
        let (address, b, c) = match rest {
            [address, b] => (address, b, None),
            [address, b, c] => (address, b, Some(self.src(c, kind)?)),
            _ => return Err(None),
        };
        fits(c.is_some() == (op == AtomOp::CompareSwap))?;
        Ok(Op::Atomic {
            op,
            space,
            kind,
            to,
            address: self.address(address).map_err(Some)?,
            b: self.src(b, kind)?,
            c,
        })
    }

    fn shuffle(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, a, b, c, members] = exactly(operands)?;
        fits(modifiers.take("sync") && modifiers.take("b32"))?;
        let mode = need(modifiers.take_any(&[
            ("up", ShuffleMode::Up),
            ("down", ShuffleMode::Down),
            ("bfly", ShuffleMode::Butterfly),
            ("idx", ShuffleMode::Index),
        ]))?;
        let (to, within) = match to {
            Operand::Pair(to, within) => (
                self.reg(&Operand::Name(to.clone()))?,
                self.sink(&Operand::Name(within.clone())).map_err(Some)?,
            ),
            to => (self.reg(to)?, None),
        };
        Ok(Op::Shuffle {
            mode,
            to,
            within,
            a: self.src(a, B32)?,
            b: self.src(b, B32)?,
            c: self.src(c, B32)?,
            members: self.src(members, B32)?,
        })
    }

    fn vote(&self, modifiers: &mut Modifiers, operands: &[Operand]) -> Decoded {
        let [to, predicate, members] = exactly(operands)?;
        let mode = need(modifiers.take_any(&[
            ("all", VoteMode::All),
            ("any", VoteMode::Any),
            ("uni", VoteMode::Uniform),
            ("ballot", VoteMode::Ballot),
        ]))?;
        fits(modifiers.take("sync"))?;
        let kind = need(modifiers.kind())?;
        fits((mode == VoteMode::Ballot) == (kind.kind != Kind::Predicate))?;
        let (predicate, negated) = match predicate {
            Operand::Not(name) => (self.src(&Operand::Name(name.clone()), PREDICATE)?, true),
            predicate => (self.src(predicate, PREDICATE)?, false),
        };
        Ok(Op::Vote {
            mode,
            to: self.reg(to)?,
            predicate,
            negated,
            members: self.src(members, B32)?,
        })
    }
}
