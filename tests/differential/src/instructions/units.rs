//! The evaluations: each case with operands as parameters, as constants, and mixed.
//!
//! A unit becomes one function. An evaluation that traps is a separate unit, because it ends a run.

use std::collections::BTreeSet;

use anyhow::{Context as _, Result};
use wasm_encoder::{ExportKind, Function, Instruction, ValType};

use super::operands::{self, Tuple};
use super::operators::Case;
use crate::oracle::{Oracle, Probe};
use crate::run::TrapKind;
use crate::sections::{Sections, value_type};

/// Number of tested traps of one kind for each way to pass operands. Each is a separate run of a program. Accesses
/// get fewer, because there are many of them and they all trap in the same way.
const TRAPS_OF_A_KIND: usize = 3;
const TRAPS_OF_AN_ACCESS: usize = 1;
/// Number of constants for an operand while others are parameters.
const CONSTANTS: usize = 12;
/// Number of operands that such a constant is combined with.
const PARTNERS: usize = 24;

/// The source of an operand.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operand {
    /// This element of the tuple.
    Parameter(usize),
    Constant(u128),
}

/// One use of the instruction in a unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Evaluation {
    pub(crate) operands: Vec<Operand>,
    /// Whether the instruction is in a separate function that is called, so that its operands are in registers.
    pub(crate) called: bool,
}

/// A function of the module.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Unit {
    /// Index of its case.
    pub(crate) case: usize,
    pub(crate) evaluations: Vec<Evaluation>,
    /// The tuples that the function is called with, one after the other.
    pub(crate) tuples: Vec<Tuple>,
    /// The trap that ends its only evaluation.
    pub(crate) trap: Option<TrapKind>,
}

impl Unit {
    /// The operands of an evaluation with a tuple.
    pub(crate) fn operands(&self, evaluation: usize, tuple: usize) -> Tuple {
        let tuple = &self.tuples[tuple];
        let value = |operand: &Operand| match operand {
            Operand::Parameter(index) => tuple[*index],
            Operand::Constant(value) => *value,
        };
        self.evaluations[evaluation]
            .operands
            .iter()
            .map(value)
            .collect()
    }
}

/// The units of all cases.
///
/// # Errors
///
/// wasmtime fails.
pub(crate) fn all(oracle: &Oracle, cases: &[Case]) -> Result<Vec<Unit>> {
    let wasm = probe_module(cases)?;
    let compiled = oracle.compile(&wasm)?;
    let mut probe = compiled.probe()?;
    let mut units = Vec::new();
    for (index, case) in cases.iter().enumerate() {
        let mut planner = Planner {
            index,
            case,
            probe: &mut probe,
            units: &mut units,
        };
        planner.parameters()?;
        planner.constants()?;
        if case.params.len() > 1 {
            for position in 0..case.params.len() {
                planner.mixed(position)?;
            }
        }
    }
    Ok(units)
}

/// A module that exports a function for each case, to determine which operands trap.
fn probe_module(cases: &[Case]) -> Result<Vec<u8>> {
    let mut sections = Sections::default();
    sections.add_memory(1);
    for (index, case) in cases.iter().enumerate() {
        let function = instruction_function(&mut sections, case)?;
        sections
            .exports
            .export(&index.to_string(), ExportKind::Func, function);
    }
    Ok(sections.finish())
}

/// Adds a function that contains only the instruction.
///
/// # Errors
///
/// Never, because cases have operands of number and vector types.
pub(crate) fn instruction_function(sections: &mut Sections, case: &Case) -> Result<u32> {
    let types = |types: &[wasmparser::ValType]| {
        types
            .iter()
            .map(|ty| value_type(*ty))
            .collect::<Result<Vec<ValType>>>()
    };
    let ty = sections.add_type(&types(&case.params)?, &types(&case.results)?);
    let mut body = Function::new([]);
    for local in 0..case.params.len() as u32 {
        body.instruction(&Instruction::LocalGet(local));
    }
    body.instruction(&instruction(case)?)
        .instruction(&Instruction::End);
    Ok(sections.add_function(ty, &body))
}

/// The instruction of a case, in wasm-encoder's form.
///
/// # Errors
///
/// The encoder does not support it.
pub(crate) fn instruction(case: &Case) -> Result<Instruction<'static>> {
    let instruction = Instruction::try_from(case.operator.clone());
    instruction
        .ok()
        .with_context(|| format!("wasm-encoder does not know {}", case.label()))
}

struct Planner<'a> {
    index: usize,
    case: &'a Case,
    probe: &'a mut Probe,
    units: &'a mut Vec<Unit>,
}

impl Planner<'_> {
    fn traps(&mut self, operands: &[u128]) -> Result<Option<TrapKind>> {
        self.probe
            .traps(&self.index.to_string(), &self.case.params, operands)
    }

    fn push(&mut self, evaluations: Vec<Evaluation>, tuples: Vec<Tuple>) {
        if !evaluations.is_empty() && !tuples.is_empty() {
            self.units.push(Unit {
                case: self.index,
                evaluations,
                tuples,
                trap: None,
            });
        }
    }

    /// Adds units for combinations that trap, up to a few per kind.
    fn push_traps(&mut self, traps: Vec<(TrapKind, Evaluation, Tuple)>) {
        let mut seen: Vec<TrapKind> = Vec::new();
        let most = match (self.case.accesses, self.case.is_typical) {
            (false, _) => TRAPS_OF_A_KIND,
            (true, true) => TRAPS_OF_AN_ACCESS,
            (true, false) => 0,
        };
        for (kind, evaluation, tuple) in traps {
            if seen.iter().filter(|other| **other == kind).count() < most {
                seen.push(kind);
                let (evaluations, tuples) = (vec![evaluation], vec![tuple]);
                self.units.push(Unit {
                    case: self.index,
                    evaluations,
                    tuples,
                    trap: Some(kind),
                });
            }
        }
    }

    /// All operands are parameters.
    fn parameters(&mut self) -> Result<()> {
        let operands: Vec<_> = (0..self.case.params.len())
            .map(Operand::Parameter)
            .collect();
        let evaluation = |called| Evaluation {
            operands: operands.clone(),
            called,
        };
        let (mut good, mut traps) = (Vec::new(), Vec::new());
        for tuple in operands::many(self.case) {
            match self.traps(&tuple)? {
                None => good.push(tuple),
                Some(kind) => traps.push((kind, evaluation(false), tuple)),
            }
        }
        self.push(vec![evaluation(false), evaluation(true)], good);
        self.push_traps(spread(traps));
        Ok(())
    }

    /// All operands are constants.
    fn constants(&mut self) -> Result<()> {
        let (mut good, mut traps) = (Vec::new(), Vec::new());
        for tuple in operands::few(self.case) {
            let operands = tuple
                .iter()
                .map(|value| Operand::Constant(*value))
                .collect();
            let evaluation = Evaluation {
                operands,
                called: false,
            };
            match self.traps(&tuple)? {
                None => good.push(evaluation),
                Some(kind) => traps.push((kind, evaluation, Vec::new())),
            }
        }
        self.push(good, vec![Vec::new()]);
        self.push_traps(spread(traps));
        Ok(())
    }

    /// One operand is a constant.
    fn mixed(&mut self, position: usize) -> Result<()> {
        let few = operands::few(self.case);
        let constants: BTreeSet<_> = few.iter().map(|tuple| tuple[position]).collect();
        let constants = thinned(constants.into_iter().collect(), CONSTANTS);
        let without = |tuple: &Tuple| {
            let mut tuple = tuple.clone();
            tuple[position] = 0;
            tuple
        };
        let partners: BTreeSet<_> = few.iter().map(without).collect();
        let partners = thinned(partners.into_iter().collect(), PARTNERS);
        let (mut quiet, mut traps) = (Vec::new(), Vec::new());
        for constant in constants {
            let operand = |index| {
                if index == position {
                    Operand::Constant(constant)
                } else {
                    Operand::Parameter(index)
                }
            };
            let operands = (0..self.case.params.len()).map(operand).collect();
            let evaluation = Evaluation {
                operands,
                called: false,
            };
            let mut good = Vec::new();
            for partner in &partners {
                let mut operands = partner.clone();
                operands[position] = constant;
                match self.traps(&operands)? {
                    None => good.push(partner.clone()),
                    Some(kind) => traps.push((kind, evaluation.clone(), partner.clone())),
                }
            }
            if good.len() == partners.len() {
                quiet.push(evaluation);
            } else {
                self.push(vec![evaluation], good);
            }
        }
        self.push(quiet, partners);
        self.push_traps(spread(traps));
        Ok(())
    }
}

/// Every n-th element, so that about `count` remain.
fn thinned<T>(all: Vec<T>, count: usize) -> Vec<T> {
    let step = all.len().div_ceil(count).max(1);
    all.into_iter().step_by(step).collect()
}

/// The same elements in an order in which the first few come from all parts.
fn spread<T>(all: Vec<T>) -> Vec<T> {
    let half = all.len() / 2;
    let mut all: Vec<_> = all.into_iter().map(Some).collect();
    let order = (0..all.len())
        .step_by(2)
        .rev()
        .chain(0..all.len())
        .map(|index| (index + half) % all.len().max(1));
    order
        .collect::<Vec<_>>()
        .into_iter()
        .filter_map(|index| all[index].take())
        .collect()
}
