//! A function's body: declarations, labels and instructions.

use std::collections::HashMap;

use super::lexer::Token;
use super::module::{Declared, Global, Parser};
use super::op::{Address, Base, Compare, Inst, Op, Reg, Source, Special};
use super::operand::{Modifiers, Operand, unfit};
use super::types::{Kind, Type, mask};
use super::{Error, Function, Reason, Result};

/// More registers than any program uses.
const MOST_REGISTERS: usize = 60_000;
const MOST_INSTRUCTIONS: usize = 1 << 20;

/// A name in a function's scope.
#[derive(Debug, Clone, Copy)]
pub(super) enum Named {
    Register(Reg, Type),
    Shared(u64),
    Local(u64),
    /// Offset and size in the parameter space.
    Parameter(usize, usize),
}

pub(super) struct Body<'p> {
    pub(super) parser: &'p mut Parser,
    pub(super) function: &'p mut Function,
    scopes: Vec<HashMap<String, Named>>,
    labels: HashMap<String, usize>,
    /// Branches to labels that are not defined yet.
    branches: Vec<(usize, String)>,
}

impl Parser {
    pub(super) fn body(&mut self, function: &mut Function) -> Result<()> {
        let mut names = HashMap::new();
        let mut end = 0usize;
        for parameter in &function.parameters {
            names.insert(
                parameter.name.clone(),
                Named::Parameter(parameter.offset, parameter.size),
            );
            end = end.max(parameter.offset + parameter.size);
        }
        // Results follow the parameters.
        let start = end.next_multiple_of(16);
        for result in &mut function.returns {
            result.offset += start;
            names.insert(
                result.name.clone(),
                Named::Parameter(result.offset, result.size),
            );
            end = end.max(result.offset + result.size);
        }
        function.parameter_space = end;
        let mut body = Body {
            parser: self,
            function,
            scopes: vec![names],
            labels: HashMap::new(),
            branches: Vec::new(),
        };
        while !body.scopes.is_empty() {
            body.statement()?;
        }
        body.finish()
    }
}

impl Body<'_> {
    pub(super) fn error(&self, reason: Reason) -> Error {
        self.parser.error(reason)
    }

    /// Resolves the labels of branches, and adds a return at the end.
    fn finish(self) -> Result<()> {
        for (index, label) in &self.branches {
            let target = self.labels.get(label).copied();
            let inst = &mut self.function.code[*index];
            let undeclared = Error {
                line: inst.line,
                reason: Reason::Undeclared(label.clone()),
            };
            inst.op = Op::Branch {
                target: target.ok_or(undeclared)?,
            };
        }
        let line = self.parser.line();
        self.function.code.push(Inst {
            guard: None,
            op: Op::Return,
            line,
        });
        Ok(())
    }

    fn statement(&mut self) -> Result<()> {
        let parser = &mut *self.parser;
        if parser.take_symbol('{') {
            if self.scopes.len() > 64 {
                return parser.expected("fewer nested blocks");
            }
            self.scopes.push(HashMap::new());
            return Ok(());
        }
        if parser.take_symbol('}') {
            self.scopes.pop();
            return Ok(());
        }
        if parser.take_symbol(';') {
            return Ok(());
        }
        match parser.peek() {
            Some(Token::Dot(_)) => self.declaration(),
            Some(Token::Word(_)) if parser.peek_second() == Some(&Token::Symbol(':')) => {
                let name = parser.word()?;
                parser.take();
                let target = self.function.code.len();
                match self.labels.insert(name.clone(), target) {
                    Some(_) => Err(self.error(Reason::Twice(name))),
                    None => Ok(()),
                }
            }
            Some(Token::Word(_) | Token::Symbol('@')) => self.instruction(),
            _ => parser.expected("an instruction or `}`"),
        }
    }

    fn declaration(&mut self) -> Result<()> {
        let name = self.parser.dot()?;
        match name.as_str() {
            "reg" => return self.registers(),
            "loc" | "file" => {
                self.parser.skip_line();
                return Ok(());
            }
            "pragma" => {
                self.parser.take();
                return self.parser.symbol(';', "`;`");
            }
            _ => {}
        }
        let declared = self.parser.declared()?;
        let local = match name.as_str() {
            "shared" => {
                self.function.shared_size += declared.size;
                Named::Shared(self.parser.place_shared(&declared)?)
            }
            "local" => Named::Local(place(&mut self.function.local_size, &declared) as u64),
            "param" => {
                let offset = place(&mut self.function.parameter_space, &declared);
                Named::Parameter(offset, declared.size)
            }
            _ => return Err(self.error(Reason::Directive(name))),
        };
        if self.function.local_size > 1 << 20 || self.function.parameter_space > 1 << 20 {
            return self.parser.expected("less local memory");
        }
        self.name(declared.name, local)?;
        self.parser.symbol(';', "`;`")
    }

    fn name(&mut self, name: String, local: Named) -> Result<()> {
        let scope = self.scopes.last_mut();
        let before = scope.and_then(|scope| scope.insert(name.clone(), local));
        match before {
            Some(_) => Err(self.error(Reason::Twice(name))),
            None => Ok(()),
        }
    }

    /// `.reg .b32 %r<9>, %x;`
    fn registers(&mut self) -> Result<()> {
        let kind = self.parser.dot()?;
        let kind = Type::parse(&kind).ok_or(self.error(Reason::Directive(kind)))?;
        loop {
            let name = self.parser.word()?;
            if self.parser.take_symbol('<') {
                let count = self.parser.integer()?;
                self.parser.symbol('>', "`>`")?;
                for number in 0..count {
                    self.register_of(format!("{name}{number}"), kind)?;
                }
            } else {
                self.register_of(name, kind)?;
            }
            if self.parser.take_symbol(';') {
                return Ok(());
            }
            self.parser.symbol(',', "`,` or `;`")?;
        }
    }

    fn register_of(&mut self, name: String, kind: Type) -> Result<()> {
        let number = self.function.masks.len();
        if number >= MOST_REGISTERS {
            return self.parser.expected("fewer registers");
        }
        self.function.masks.push(mask(kind.bits));
        self.name(name, Named::Register(number as Reg, kind))
    }

    fn instruction(&mut self) -> Result<()> {
        let line = self.parser.line();
        let mut guard = None;
        if self.parser.take_symbol('@') {
            let wanted = !self.parser.take_symbol('!');
            let name = self.parser.word()?;
            guard = Some((self.predicate(&name)?, wanted));
        }
        let name = self.parser.word()?;
        let mut modifiers = Vec::new();
        while let Some(Token::Dot(_)) = self.parser.peek() {
            modifiers.push(self.parser.dot()?);
        }
        let shown = std::iter::once(&name)
            .chain(&modifiers)
            .map(String::as_str)
            .collect::<Vec<_>>()
            .join(".");
        let operands = self.parser.operands()?;
        if self.function.code.len() >= MOST_INSTRUCTIONS {
            return self.parser.expected("fewer instructions");
        }
        let at = |reason| Error { line, reason };
        let op = if name == "bra" {
            let [Operand::Name(label)] = operands.as_slice() else {
                return Err(at(unfit(&shown)));
            };
            self.branches
                .push((self.function.code.len(), label.clone()));
            Op::Nothing
        } else {
            let mut modifiers = Modifiers::new(modifiers);
            let op = self
                .decode(&name, &mut modifiers, &operands)
                .map_err(|reason| at(reason.unwrap_or_else(|| unfit(&shown))))?;
            if !modifiers.is_empty() {
                return Err(at(unfit(&shown)));
            }
            op
        };
        self.function.code.push(Inst { guard, op, line });
        Ok(())
    }

    pub(super) fn local(&self, name: &str) -> Option<Named> {
        self.scopes
            .iter()
            .rev()
            .find_map(|scope| scope.get(name).copied())
    }

    /// A predicate register.
    fn predicate(&mut self, name: &str) -> Result<Reg> {
        match self.local(name) {
            Some(Named::Register(number, kind)) if kind.kind == Kind::Predicate => Ok(number),
            Some(_) => self.parser.expected("a predicate"),
            None => Err(self.error(Reason::Undeclared(name.to_owned()))),
        }
    }

    /// The base of an address.
    pub(super) fn base(&self, name: &str) -> std::result::Result<Base, Reason> {
        match self.local(name) {
            Some(Named::Register(number, kind)) if kind.bits >= 32 => Ok(Base::Reg(number)),
            Some(Named::Register(..)) => Err(unfit(name)),
            Some(Named::Shared(offset)) => Ok(Base::Shared(offset)),
            Some(Named::Local(offset)) => Ok(Base::Local(offset)),
            Some(Named::Parameter(offset, _)) => Ok(Base::Parameter(offset as u64)),
            None => match self.parser.globals.get(name) {
                Some(Global::Variable(index)) => Ok(Base::Variable(*index)),
                Some(Global::Shared(offset)) => Ok(Base::Shared(*offset)),
                Some(Global::DynamicShared) => Ok(Base::DynamicShared),
                Some(Global::Function(_)) | None => Err(Reason::Undeclared(name.to_owned())),
            },
        }
    }

    pub(super) fn address(&self, operand: &Operand) -> std::result::Result<Address, Reason> {
        match operand {
            Operand::Address { base, offset } => Ok(Address {
                base: match base {
                    Some(name) => self.base(name)?,
                    None => Base::Nothing,
                },
                offset: *offset,
            }),
            _ => Err(unfit("address")),
        }
    }

    /// A value of a type, or raw bits if the type does not matter.
    pub(super) fn source(
        &self,
        operand: &Operand,
        kind: Type,
    ) -> std::result::Result<Source, Reason> {
        match operand {
            Operand::Bits(bits) if kind.is_float() => {
                // An integer literal where a float is expected.
                Ok(Source::Bits(kind.float_bits(*bits as i64 as f64)))
            }
            Operand::Bits(bits) => Ok(Source::Bits(bits & kind.mask())),
            Operand::Single(bits) if kind.bits == 32 => Ok(Source::Bits(u64::from(*bits))),
            Operand::Single(bits) => Ok(Source::Bits(f64::from(f32::from_bits(*bits)).to_bits())),
            Operand::Double(value) => Ok(Source::Bits(kind.float_bits(*value))),
            Operand::Name(name) => match self.local(name) {
                Some(Named::Register(number, _)) => Ok(Source::Reg(number)),
                _ => match special(name) {
                    Some(special) => Ok(Source::Special(special)),
                    None if name == "WARP_SZ" => Ok(Source::Bits(32)),
                    None => self.base(name).map(Source::Address),
                },
            },
            _ => Err(unfit("value")),
        }
    }

    pub(super) fn register(&self, operand: &Operand) -> std::result::Result<Reg, Reason> {
        match operand {
            Operand::Name(name) => match self.local(name) {
                Some(Named::Register(number, _)) => Ok(number),
                Some(_) => Err(unfit(name)),
                None => Err(Reason::Undeclared(name.clone())),
            },
            _ => Err(unfit("result")),
        }
    }

    /// A result register, or `None` for `_`.
    pub(super) fn sink(&self, operand: &Operand) -> std::result::Result<Option<Reg>, Reason> {
        match operand {
            Operand::Name(name) if name == "_" => Ok(None),
            other => self.register(other).map(Some),
        }
    }

    /// Offset and size of a call's parameter.
    pub(super) fn parameter(
        &self,
        operand: &Operand,
    ) -> std::result::Result<(usize, usize), Reason> {
        match operand {
            Operand::Name(name) => match self.local(name) {
                Some(Named::Parameter(offset, size)) => Ok((offset, size)),
                _ => Err(Reason::Undeclared(name.clone())),
            },
            _ => Err(Reason::Unsupported(
                "arguments of calls are parameters here",
            )),
        }
    }
}

/// Reserves space for a declaration at the end of a space.
fn place(end: &mut usize, declared: &Declared) -> usize {
    let start = end.next_multiple_of(declared.align);
    *end = start + declared.size;
    start
}

fn special(name: &str) -> Option<Special> {
    let (base, component) = name.split_once('.').unwrap_or((name, ""));
    let dimension = match component {
        "x" => Some(0),
        "y" => Some(1),
        "z" => Some(2),
        _ => None,
    };
    Some(match (base, dimension) {
        ("%tid", Some(dimension)) => Special::Thread(dimension),
        ("%ntid", Some(dimension)) => Special::BlockSize(dimension),
        ("%ctaid", Some(dimension)) => Special::Block(dimension),
        ("%nctaid", Some(dimension)) => Special::GridSize(dimension),
        ("%laneid", None) => Special::Lane,
        ("%warpid", None) => Special::Warp,
        ("%nwarpid", None) => Special::WarpCount,
        ("%lanemask_eq", None) => Special::LaneMask(Compare::Eq),
        ("%lanemask_lt", None) => Special::LaneMask(Compare::Lt),
        ("%lanemask_le", None) => Special::LaneMask(Compare::Le),
        ("%lanemask_gt", None) => Special::LaneMask(Compare::Gt),
        ("%lanemask_ge", None) => Special::LaneMask(Compare::Ge),
        ("%smid", None) => Special::Multiprocessor,
        ("%nsmid", None) => Special::MultiprocessorCount,
        ("%gridid", None) => Special::Grid,
        ("%clock" | "%clock64" | "%globaltimer", None) => Special::Clock,
        ("%dynamic_smem_size", None) => Special::DynamicShared,
        ("%total_smem_size", None) => Special::TotalShared,
        _ => return None,
    })
}
