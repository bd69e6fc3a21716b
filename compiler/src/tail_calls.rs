//! Refuses tail calls for which LLVM's code would take stack, so that a chain of them would end in a trap.
//!
//! LLVM makes a jump of a tail call between functions of one type, except on riscv64, and of any other whose results and
//! arguments all go into registers, or on aarch64 into the stack that the calling function's own arguments came in. Of
//! the rest it makes calls without a word. What is said here of the calling conventions is a bound: a call that it lets pass
//! was seen to be a jump, see `tests/tests/tail_calls.rs`.
//!
//! Imported functions are not meant: they do not call back by a tail call, so that a call and a return do.

use std::fmt;

use target_lexicon::Architecture;
use wasmer_compiler::abi::{
    ReturnAbi, classify_return_type_aarch64, classify_return_type_riscv64,
    classify_return_type_x86_64,
};
use wasmer_types::Type;
use wasmparser::{BinaryReader, FuncType, FunctionBody, Operator, ValType};

use crate::module::{Module, describe_function};

/// An export whose function LLVM's compiler does not optimize, so that it has no jumps but between equal types.
const UNOPTIMIZED_EXPORT: &str = "__wasm_apply_data_relocs";

/// A tail call that would take stack.
#[derive(Debug, thiserror::Error)]
#[error("at offset {offset:#x}: {caller} calls {callee}")]
pub(crate) struct TailCall {
    offset: u64,
    caller: String,
    callee: String,
}

/// Whether any function has a tail call.
pub(crate) fn any(module: &Module<'_>) -> bool {
    let found = find(module, &mut |_, _, _| true);
    matches!(found, Ok(Some(_)))
}

/// A function with a tail call that would take stack, and for which architecture.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) function: u32,
    pub(crate) architecture: Architecture,
    /// Registers for integers.
    pub(crate) integers: u32,
    pub(crate) call: TailCall,
}

/// The first tail call of a valid module that is refused for one of these architectures.
///
/// # Errors
///
/// None if the module is valid.
pub(crate) fn refused(
    module: &Module<'_>,
    architectures: impl IntoIterator<Item = Architecture>,
) -> wasmparser::Result<Option<Refused>> {
    let mut exports = module.exports.iter();
    let unoptimized = exports.find(|(name, ..)| *name == UNOPTIMIZED_EXPORT);
    let unoptimized = unoptimized.map(|(_, _, function)| *function);
    for architecture in architectures {
        let convention = Convention {
            architecture,
            has_memory: !module.memories.is_empty(),
        };
        let found = find(module, &mut |function, caller, callee| {
            let jumps = convention.jumps(caller, callee);
            !jumps || unoptimized == Some(function) && caller != callee
        })?;
        if let Some((function, call)) = found {
            return Ok(Some(Refused {
                function,
                architecture,
                integers: convention.integers(&[]),
                call,
            }));
        }
    }
    Ok(None)
}

/// The first tail call that is refused, and its function.
fn find(
    module: &Module<'_>,
    refused: &mut dyn FnMut(u32, &FuncType, &FuncType) -> bool,
) -> wasmparser::Result<Option<(u32, TailCall)>> {
    let imported = module.functions.len() - module.names.offsets.len();
    let ty = |index: u32| module.function_type(index);
    let type_of = |function: u32| ty(*module.functions.get(function as usize)?);
    for (function, body) in (imported as u32..).zip(module.code()) {
        let Some(caller) = type_of(function) else {
            continue;
        };
        let (body, start) = body?;
        let mut operators =
            FunctionBody::new(BinaryReader::new(body, start)).get_operators_reader()?;
        while !operators.eof() {
            let (operator, offset) = operators.read_with_offset()?;
            let callee = match operator {
                Operator::ReturnCall { function_index } if function_index >= imported as u32 => {
                    type_of(function_index)
                }
                Operator::ReturnCallIndirect { type_index, .. }
                | Operator::ReturnCallRef { type_index } => ty(type_index),
                _ => continue,
            };
            if let Some(callee) = callee
                && refused(function, caller, callee)
            {
                let call = TailCall {
                    offset,
                    caller: describe_function(caller),
                    callee: describe_function(callee),
                };
                return Ok(Some((function, call)));
            }
        }
    }
    Ok(None)
}

/// Where arguments go.
#[derive(Debug, Clone, Copy)]
struct Convention {
    architecture: Architecture,
    /// Whether the base of memory 0 is an argument.
    has_memory: bool,
}

/// Registers for floats in all conventions.
const FLOATS: u32 = 8;

impl Convention {
    /// Whether a tail call becomes a jump.
    fn jumps(self, caller: &FuncType, callee: &FuncType) -> bool {
        let on_stack = self.on_stack(callee);
        let room = match self.architecture {
            Architecture::Aarch64(_) => self.on_stack(caller),
            _ => 0,
        };
        let is_riscv = matches!(self.architecture, Architecture::Riscv64(_));
        // LLVM joins the returns of a function whose results are in memory, and a tail call is none before a join.
        let moves = on_stack <= room && !self.returns_by_pointer(callee.results());
        moves || !is_riscv && caller == callee
    }

    /// Registers for integers that are left for parameters.
    fn integers(self, results: &[ValType]) -> u32 {
        let all = match self.architecture {
            Architecture::X86_64 => 6,
            _ => 8,
        };
        // On aarch64 the pointer to results has one of its own.
        let by_pointer = self.returns_by_pointer(results)
            && !matches!(self.architecture, Architecture::Aarch64(_));
        all - 1 - u32::from(self.has_memory) - u32::from(by_pointer)
    }

    fn returns_by_pointer(self, results: &[ValType]) -> bool {
        let results: Vec<Type> = results.iter().map(|ty| engine_type(*ty)).collect();
        let abi = match self.architecture {
            Architecture::X86_64 => classify_return_type_x86_64(&results),
            Architecture::Aarch64(_) => classify_return_type_aarch64(&results),
            _ => classify_return_type_riscv64(&results),
        };
        matches!(abi, ReturnAbi::Sret(_))
    }

    /// Bytes of the stack that arguments take. A vector is two integers.
    fn on_stack(self, ty: &FuncType) -> u32 {
        let (mut integers, mut floats) = (self.integers(ty.results()), FLOATS);
        let is_aarch64 = matches!(self.architecture, Architecture::Aarch64(_));
        let is_riscv = matches!(self.architecture, Architecture::Riscv64(_));
        let mut bytes = 0;
        for parameter in ty.params() {
            match parameter {
                ValType::F32 | ValType::F64 if floats > 0 => floats -= 1,
                // Behind the registers for floats come those for integers.
                ValType::F32 | ValType::F64 if is_riscv && integers > 0 => integers -= 1,
                ValType::V128 => {
                    if is_aarch64 {
                        // It begins in an even register, or at a multiple of 16 bytes.
                        integers -= integers % 2;
                    }
                    if integers >= 2 {
                        integers -= 2;
                    } else {
                        integers = 0;
                        bytes = u32::next_multiple_of(bytes, 16) + 16;
                    }
                }
                ValType::F32 | ValType::F64 => bytes += 8,
                _ if integers > 0 => integers -= 1,
                _ => bytes += 8,
            }
        }
        bytes
    }
}

fn engine_type(ty: ValType) -> Type {
    match ty {
        ValType::I32 => Type::I32,
        ValType::I64 => Type::I64,
        ValType::F32 => Type::F32,
        ValType::F64 => Type::F64,
        ValType::V128 => Type::V128,
        ValType::Ref(ty) if ty.is_func_ref() => Type::FuncRef,
        ValType::Ref(ty) if ty.is_extern_ref() => Type::ExternRef,
        ValType::Ref(_) => Type::ExceptionRef,
    }
}

/// What works instead.
pub(crate) struct Advice {
    pub(crate) architecture: Architecture,
    /// Registers for integers.
    pub(crate) integers: u32,
}

impl fmt::Display for Advice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !matches!(self.architecture, Architecture::Riscv64(_)) {
            write!(f, "give both functions one type, or ")?;
        }
        write!(
            f,
            "give the called one results that fit into registers and at most {} parameters of integers or references (a \
             v128 counts as two) and {FLOATS} of floats, or build the module without tail calls (clang: `-mno-tail-call`)",
            self.integers
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X86_64: Architecture = Architecture::X86_64;
    const AARCH64: Architecture =
        Architecture::Aarch64(target_lexicon::Aarch64Architecture::Aarch64);
    const RISCV64: Architecture =
        Architecture::Riscv64(target_lexicon::Riscv64Architecture::Riscv64gc);

    /// `2i1f1v`: two integers, a float and a vector.
    fn ty(parameters: &str, results: &str) -> FuncType {
        let types = |text: &str| {
            let pairs = text.as_bytes().chunks(2);
            pairs
                .flat_map(|pair| {
                    let ty = match pair[1] {
                        b'i' => ValType::I64,
                        b'f' => ValType::F64,
                        _ => ValType::V128,
                    };
                    vec![ty; usize::from(pair[0] - b'0')]
                })
                .collect::<Vec<_>>()
        };
        FuncType::new(types(parameters), types(results))
    }

    /// As LLVM 22 was seen to compile them.
    #[test]
    fn tells_jumps_from_calls() {
        for (caller, callee, results, x86, aarch64, riscv) in [
            ("1i", "4i", "1i", true, true, true),
            ("1i", "5i", "1i", false, true, true),
            ("1i", "6i", "1i", false, true, true),
            ("1i", "7i", "1i", false, false, false),
            ("6i", "6i", "1i", true, true, true),
            ("7i", "7i", "1i", true, true, false),
            ("8i", "7i", "1i", false, true, false),
            ("8i", "9i", "1i", false, false, false),
            ("1i", "8f", "1i", true, true, true),
            ("1i", "9f", "1i", false, false, true),
            ("8i", "9f", "1i", false, true, true),
            ("1i", "2v", "1i", true, true, true),
            ("1i", "3v", "1i", false, true, true),
            ("1i", "4v", "1i", false, false, false),
            ("1i", "1i1v2i", "1i", false, true, true),
            ("1i", "3i", "3i", false, false, false),
            ("1i", "1i", "3i", true, true, false),
        ] {
            for (architecture, expected) in [(X86_64, x86), (AARCH64, aarch64), (RISCV64, riscv)] {
                let convention = Convention {
                    architecture,
                    has_memory: true,
                };
                let jumps = convention.jumps(&ty(caller, results), &ty(callee, results));
                assert_eq!(
                    jumps, expected,
                    "{caller} to {callee} with {results} on {architecture}"
                );
            }
        }
    }
}
