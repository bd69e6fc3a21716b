//! Operands and modifiers of one instruction, before they are interpreted.

use super::lexer::Token;
use super::module::Parser;
use super::types::Type;
use super::{Reason, Result};

#[derive(Debug, Clone, PartialEq)]
pub(super) enum Operand {
    /// A register, a special register with its component, a variable, a label, `_`.
    Name(String),
    Bits(u64),
    Single(u32),
    Double(f64),
    Address {
        base: Option<String>,
        offset: i64,
    },
    /// `{a, b}`.
    Vector(Vec<Operand>),
    /// `(a, b)` in a call.
    List(Vec<Operand>),
    /// `p|q`.
    Pair(String, String),
    /// `!p`.
    Not(String),
}

impl Parser {
    /// Operands up to the semicolon.
    pub(super) fn operands(&mut self) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        while !self.take_symbol(';') {
            operands.push(self.operand()?);
            if !self.take_symbol(',') && self.peek() != Some(&Token::Symbol(';')) {
                return self.expected("`,` or `;`");
            }
        }
        Ok(operands)
    }

    fn operand(&mut self) -> Result<Operand> {
        if self.take_symbol('{') {
            return Ok(Operand::Vector(self.several('}')?));
        }
        if self.take_symbol('(') {
            return Ok(Operand::List(self.several(')')?));
        }
        if self.take_symbol('[') {
            return self.address();
        }
        if self.take_symbol('!') {
            return Ok(Operand::Not(self.word()?));
        }
        if self.take_symbol('-') {
            return match self.take() {
                Some(Token::Integer(value)) => Ok(Operand::Bits(value.wrapping_neg())),
                Some(Token::Double(value)) => Ok(Operand::Double(-value)),
                _ => self.expected("a number"),
            };
        }
        match self.take() {
            Some(Token::Integer(value)) => Ok(Operand::Bits(value)),
            Some(Token::Single(bits)) => Ok(Operand::Single(bits)),
            Some(Token::Double(value)) => Ok(Operand::Double(value)),
            Some(Token::Word(name)) => self.named(name),
            _ => self.expected("an operand"),
        }
    }

    fn named(&mut self, name: String) -> Result<Operand> {
        if self.take_symbol('|') {
            return Ok(Operand::Pair(name, self.word()?));
        }
        if let Some(Token::Dot(component)) = self.peek() {
            let name = format!("{name}.{component}");
            self.take();
            return Ok(Operand::Name(name));
        }
        // The address of a variable plus an offset, as an operand of `mov`.
        if self.peek() == Some(&Token::Symbol('+')) {
            self.take();
            let offset = self.signed()?;
            return Ok(Operand::Address {
                base: Some(name),
                offset,
            });
        }
        Ok(Operand::Name(name))
    }

    fn several(&mut self, end: char) -> Result<Vec<Operand>> {
        let mut operands = Vec::new();
        while !self.take_symbol(end) {
            match self.peek() {
                // Operands do not nest, so that no input can recurse deeply.
                Some(Token::Symbol('{' | '(' | '[')) => return self.expected("an operand"),
                _ => operands.push(self.operand()?),
            }
            if !self.take_symbol(',') && self.peek() != Some(&Token::Symbol(end)) {
                return self.expected("`,` or the end of the list");
            }
        }
        Ok(operands)
    }

    fn signed(&mut self) -> Result<i64> {
        let negative = self.take_symbol('-');
        let value = self.integer()? as i64;
        Ok(if negative {
            value.wrapping_neg()
        } else {
            value
        })
    }

    fn address(&mut self) -> Result<Operand> {
        let operand = match self.peek() {
            Some(Token::Word(name)) => {
                let base = Some(name.clone());
                self.take();
                let offset = if self.take_symbol('+') || self.peek() == Some(&Token::Symbol('-')) {
                    self.signed()?
                } else {
                    0
                };
                Operand::Address { base, offset }
            }
            _ => Operand::Address {
                base: None,
                offset: self.signed()?,
            },
        };
        self.symbol(']', "`]`")?;
        Ok(operand)
    }
}

/// The modifiers of an instruction. Each is taken once; a modifier that is left at the end is an error.
pub(super) struct Modifiers {
    left: Vec<String>,
}

impl Modifiers {
    pub(super) fn new(all: Vec<String>) -> Self {
        Self { left: all }
    }

    pub(super) fn take(&mut self, name: &str) -> bool {
        let found = self.left.iter().position(|modifier| modifier == name);
        found.map(|index| self.left.remove(index)).is_some()
    }

    /// Takes the first of these modifiers that is present.
    pub(super) fn take_any<T: Copy>(&mut self, known: &[(&str, T)]) -> Option<T> {
        let (index, value) = self.left.iter().enumerate().find_map(|(index, modifier)| {
            let entry = known.iter().find(|(name, _)| name == modifier);
            entry.map(|(_, value)| (index, *value))
        })?;
        self.left.remove(index);
        Some(value)
    }

    /// Takes those of these modifiers that make no difference here.
    pub(super) fn ignore(&mut self, names: &[&str]) {
        self.left
            .retain(|modifier| !names.contains(&modifier.as_str()));
    }

    /// Takes the first type.
    pub(super) fn kind(&mut self) -> Option<Type> {
        let index = self
            .left
            .iter()
            .position(|modifier| Type::parse(modifier).is_some())?;
        Type::parse(&self.left.remove(index))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }
}

/// The error for an instruction whose parts do not fit.
pub(super) fn unfit(name: &str) -> Reason {
    Reason::Operands(name.to_owned())
}
