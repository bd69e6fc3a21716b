//! Reduces a module that shows a difference.
//!
//! First, the calls that lead to the difference become one function without parameters, which is the only export.
//! Then the reducer replaces bodies with `unreachable`, and omits ranges of instructions or replaces them with a
//! constant, as long as the module stays valid and the kind of difference stays the same.

use std::path::Path;

use anyhow::{Context as _, Result};
use wasm_encoder::reencode::{self, Reencode};
use wasm_encoder::{CodeSection, Elements, Encode as _, ExportKind, Function, Instruction};
use wasmparser::{Parser, Payload, Validator, WasmFeatures};

use crate::compare::{self, Difference, DifferenceKind, Verdict};
use crate::driver;
use crate::generate::Generated;
use crate::oracle::Oracle;
use crate::sections::{Sections, value_type};
use crate::subject::Programs;

/// Maximum number of builds and runs in a reduction.
const MOST_TRIES: usize = 1500;

/// Reduces modules by trial and error.
pub(crate) struct Reducer<'a> {
    programs: Programs,
    directory: &'a Path,
    oracle: Oracle,
}

/// A reduced module.
pub(crate) struct Reduced {
    pub(crate) wasm: Vec<u8>,
    /// Whether it shows the difference without the other calls.
    pub(crate) alone: bool,
}

impl<'a> Reducer<'a> {
    /// # Errors
    ///
    /// wasmtime does not support this machine.
    pub(crate) fn new(programs: &Programs, directory: &'a Path) -> Result<Self> {
        Ok(Self {
            programs: programs.hurried(),
            directory,
            oracle: Oracle::bounded()?,
        })
    }

    /// Returns the smallest module that was found.
    ///
    /// # Errors
    ///
    /// Programs cannot be started, or files not written.
    pub(crate) fn reduce(
        &self,
        generated: &Generated,
        seed: u64,
        difference: &Difference,
    ) -> Result<Reduced> {
        let whole = || Reduced {
            wasm: generated.wasm.clone(),
            alone: false,
        };
        for first in [difference.call, difference.first_call] {
            let baked = bake(generated, seed, first, difference.call)?;
            if self.shows(&baked, difference)? {
                return Ok(Reduced {
                    wasm: self.shrink(baked, difference)?,
                    alone: true,
                });
            }
        }
        Ok(whole())
    }

    /// Whether a module shows the difference when its exported functions are called.
    fn shows(&self, wasm: &[u8], difference: &Difference) -> Result<bool> {
        let Ok(driven) = driver::add(wasm, None, 0) else {
            return Ok(false);
        };
        let Ok(expected) = compare::expected(&self.oracle, &driven) else {
            return Ok(false);
        };
        let verdict = compare::verdict(
            &self.programs,
            difference.backend,
            &driven,
            &expected,
            self.directory,
        )?;
        Ok(match verdict {
            Verdict::Different(found) => {
                found.kind.resembles(&difference.kind) && !is_nan(&found.kind)
            }
            _ => false,
        })
    }

    fn shrink(&self, wasm: Vec<u8>, difference: &Difference) -> Result<Vec<u8>> {
        let mut best = Bodies::parse(&wasm)?;
        let mut tries = 0;
        let mut attempt = |candidate: Bodies, best: &mut Bodies| -> Result<bool> {
            let Some(wasm) = candidate.encode(&wasm)? else {
                return Ok(false);
            };
            if tries >= MOST_TRIES {
                return Ok(false);
            }
            tries += 1;
            let shown = self.shows(&wasm, difference)?;
            if shown {
                *best = candidate;
            }
            Ok(shown)
        };
        for function in 0..best.0.len() {
            let mut candidate = best.clone();
            candidate.0[function].operators = vec![
                encoded(&Instruction::Unreachable),
                encoded(&Instruction::End),
            ];
            attempt(candidate, &mut best)?;
        }
        loop {
            let before = best.size();
            for function in 0..best.0.len() {
                let mut chunk = best.0[function].operators.len().next_power_of_two();
                while chunk > 0 {
                    let mut at = 0;
                    while at < best.0[function].operators.len() {
                        let candidates = best.without(function, at, chunk);
                        let mut shorter = false;
                        for candidate in candidates {
                            if attempt(candidate, &mut best)? {
                                shorter = true;
                                break;
                            }
                        }
                        if !shorter {
                            at += chunk;
                        }
                    }
                    chunk /= 2;
                }
            }
            if best.size() == before {
                break;
            }
        }
        best.encode(&wasm)?
            .context("the last module that was tried is valid")
    }
}

/// Whether a difference is in a NaN. A smaller module may lack the code that makes NaNs canonical.
fn is_nan(kind: &DifferenceKind) -> bool {
    let DifferenceKind::Value { expected, found } = kind else {
        return false;
    };
    let nan = |value: u64| {
        let halves = [value as u32, (value >> 32) as u32];
        f64::from_bits(value).is_nan() || halves.iter().any(|half| f32::from_bits(*half).is_nan())
    };
    nan(expected.value) && nan(found.value)
}

/// A module in which one exported function makes the calls from `first` to `last`.
fn bake(generated: &Generated, seed: u64, first: u32, last: u32) -> Result<Vec<u8>> {
    let calls = driver::add(&generated.wasm, Some(generated.fuel), seed)?.calls;
    let mut sections = Sections::parse(&generated.wasm, &mut WithoutExports)?;
    let known = sections.known.clone();
    let mut instructions = Vec::new();
    let mut results = Vec::new();
    for call in first..=last {
        let function = calls[call as usize];
        let ty = known.function(function)?;
        instructions.extend(driver::prepare(ty, Some(generated.fuel), call, seed)?);
        instructions.push(Instruction::Call(function));
        if call == last {
            results = ty
                .results()
                .iter()
                .map(|ty| value_type(*ty))
                .collect::<Result<_>>()?;
        } else {
            instructions.extend(ty.results().iter().map(|_| Instruction::Drop));
        }
    }
    let mut body = Function::new([]);
    for instruction in &instructions {
        body.instruction(instruction);
    }
    body.instruction(&Instruction::End);
    let ty = sections.add_type(&[], &results);
    let main = sections.add_function(ty, &body);
    sections.exports.export("main", ExportKind::Func, main);
    // Functions that `ref.func` names were exported before.
    let functions: Vec<_> = (0..main).collect();
    sections
        .elements
        .declared(Elements::Functions(functions.into()));
    Ok(sections.finish())
}

struct WithoutExports;

impl Reencode for WithoutExports {
    type Error = std::convert::Infallible;

    fn parse_export(
        &mut self,
        _exports: &mut wasm_encoder::ExportSection,
        _export: wasmparser::Export<'_>,
    ) -> Result<(), reencode::Error<Self::Error>> {
        Ok(())
    }
}

/// The bodies of a module's functions, instruction by instruction.
#[derive(Debug, Clone)]
struct Bodies(Vec<Body>);

#[derive(Debug, Clone)]
struct Body {
    locals: Vec<u8>,
    operators: Vec<Vec<u8>>,
}

impl Bodies {
    fn parse(wasm: &[u8]) -> Result<Self> {
        let mut bodies = Vec::new();
        for payload in Parser::new(0).parse_all(wasm) {
            let Payload::CodeSectionEntry(body) = payload? else {
                continue;
            };
            let mut reader = body.get_operators_reader()?;
            let bytes = |from: u64, to: u64| wasm[from as usize..to as usize].to_vec();
            let locals = bytes(body.range().start, reader.original_position());
            let mut operators = Vec::new();
            while !reader.eof() {
                let from = reader.original_position();
                reader.read()?;
                operators.push(bytes(from, reader.original_position()));
            }
            bodies.push(Body { locals, operators });
        }
        Ok(Self(bodies))
    }

    /// The size that a reduction must lower: the number of instructions, and then of those that compute.
    fn size(&self) -> usize {
        let operators = self.0.iter().flat_map(|body| &body.operators);
        operators
            .map(|operator| 1 + usize::from(!is_simple(operator)))
            .sum()
    }

    /// The module with these bodies, if it is valid.
    fn encode(&self, wasm: &[u8]) -> Result<Option<Vec<u8>>> {
        let mut code = CodeSection::new();
        for body in &self.0 {
            let mut bytes = body.locals.clone();
            body.operators
                .iter()
                .for_each(|operator| bytes.extend(operator));
            code.raw(&bytes);
        }
        let mut module = wasm_encoder::Module::new();
        for payload in Parser::new(0).parse_all(wasm) {
            let payload = payload?;
            match &payload {
                Payload::CodeSectionStart { .. } => _ = module.section(&code),
                payload => {
                    if let Some((id, range)) = payload.as_section() {
                        let data = &wasm[range.start as usize..range.end as usize];
                        module.section(&wasm_encoder::RawSection { id, data });
                    }
                }
            }
        }
        let wasm = module.finish();
        let valid = Validator::new_with_features(WasmFeatures::all()).validate_all(&wasm);
        Ok(valid.is_ok().then_some(wasm))
    }

    /// Smaller candidates: a range of a body is omitted, or replaced by something that fits.
    fn without(&self, function: usize, at: usize, count: usize) -> Vec<Self> {
        use Instruction as I;
        let replacements: &[&[Instruction<'_>]] = &[
            &[],
            &[I::Drop],
            &[I::Drop, I::Drop],
            &[I::I32Const(0)],
            &[I::I64Const(0)],
            &[I::F32Const(wasm_encoder::Ieee32::new(0))],
            &[I::F64Const(wasm_encoder::Ieee64::new(0))],
            &[I::V128Const(0)],
            &[I::Unreachable],
        ];
        let operators = &self.0[function].operators;
        let end = (at + count).min(operators.len());
        let computes = operators[at..end]
            .iter()
            .any(|operator| !is_simple(operator));
        let most = end - at - usize::from(!computes);
        replacements
            .iter()
            .filter(|replacement| replacement.len() <= most)
            .map(|replacement| {
                let mut candidate = self.clone();
                let replacement = replacement.iter().map(encoded);
                candidate.0[function].operators.splice(at..end, replacement);
                candidate
            })
            .collect()
    }
}

/// Whether an instruction is a replacement for others, or the end of a block.
fn is_simple(operator: &[u8]) -> bool {
    /// Opcodes of `unreachable`, `end`, `drop`, and the constants, followed by the vector prefix with `v128.const`.
    const SIMPLE: [u8; 7] = [0x00, 0x0b, 0x1a, 0x41, 0x42, 0x43, 0x44];
    SIMPLE.contains(&operator[0]) || operator.starts_with(&[0xfd, 0x0c])
}

fn encoded(instruction: &Instruction<'_>) -> Vec<u8> {
    let mut bytes = Vec::new();
    instruction.encode(&mut bytes);
    bytes
}
