//! Lets a backend compile some functions of a module as if they were its first ones.
//!
//! The backends' interface takes the bodies of all functions, numbered from the first on. To compile
//! a few, those get the first numbers and the others the ones behind; calls are changed on the way
//! into the compiler, the bodies stay as they are.

use std::sync::{Arc, OnceLock};

use wasmer_compiler::{FunctionMiddleware, MiddlewareReaderState, ModuleMiddleware};
use wasmer_types::entity::EntityRef as _;
use wasmer_types::{ExportIndex, FunctionIndex, LocalFunctionIndex, MiddlewareError, ModuleInfo};

/// Both numbers of each defined function.
#[derive(Debug, Clone)]
pub(super) struct Numbers {
    imported: u32,
    new: Vec<u32>,
    old: Vec<u32>,
}

impl Numbers {
    /// Gives the first numbers to the functions in `first`.
    pub(super) fn new(module: &ModuleInfo, first: &[u32]) -> Self {
        let imported = module.num_imported_functions as u32;
        let count = module.functions.len() as u32 - imported;
        let mut old = first.to_vec();
        let mut taken = vec![false; count as usize];
        for function in first {
            taken[*function as usize] = true;
        }
        old.extend((0..count).filter(|function| !taken[*function as usize]));
        let mut new = vec![0; count as usize];
        for (number, function) in (0..).zip(&old) {
            new[*function as usize] = number;
        }
        Self { imported, new, old }
    }

    /// The old number of a defined function.
    pub(super) fn old(&self, new: u32) -> Option<u32> {
        self.old.get(new as usize).copied()
    }

    /// The new number of a function; imported ones keep theirs.
    fn function(&self, function: u32) -> u32 {
        let local = function.checked_sub(self.imported);
        match local.and_then(|local| self.new.get(local as usize)) {
            Some(new) => self.imported + new,
            None => function,
        }
    }

    /// The module with the new numbers, as far as compilers look at them. Tables and references name
    /// functions as values, which compiled code gets by their true numbers.
    pub(super) fn apply(&self, module: &ModuleInfo) -> ModuleInfo {
        let mut renumbered = module.clone();
        for (number, old) in self.old.iter().enumerate() {
            let new = FunctionIndex::new(self.imported as usize + number);
            let old = FunctionIndex::from_u32(self.imported + old);
            renumbered.functions[new] = module.functions[old];
        }
        let names = module.function_names.iter().map(|(function, name)| {
            let function = FunctionIndex::from_u32(self.function(function.as_u32()));
            (function, name.clone())
        });
        renumbered.function_names = names.collect();
        for export in renumbered.exports.values_mut() {
            if let ExportIndex::Function(function) = export {
                *function = FunctionIndex::from_u32(self.function(function.as_u32()));
            }
        }
        renumbered
    }
}

/// Changes calls while a compiler reads them.
#[derive(Debug, Default)]
pub(super) struct Renumber(OnceLock<Arc<Numbers>>);

impl Renumber {
    /// From now on calls are changed. One compilation has one numbering.
    pub(super) fn set(&self, numbers: Arc<Numbers>) {
        // A second one would be ignored; compile_module is called once for a configuration.
        let _ = self.0.set(numbers);
    }
}

impl ModuleMiddleware for Renumber {
    fn generate_function_middleware<'a>(
        &self,
        _: LocalFunctionIndex,
    ) -> Box<dyn FunctionMiddleware<'a> + 'a> {
        Box::new(RenumberFunction(self.0.get().cloned()))
    }
}

#[derive(Debug)]
struct RenumberFunction(Option<Arc<Numbers>>);

impl<'a> FunctionMiddleware<'a> for RenumberFunction {
    fn feed(
        &mut self,
        mut operator: Operator<'a>,
        state: &mut MiddlewareReaderState<'a>,
    ) -> Result<(), MiddlewareError> {
        if let Some(numbers) = &self.0
            && let Operator::Call { function_index } | Operator::ReturnCall { function_index } =
                &mut operator
        {
            *function_index = numbers.function(*function_index);
        }
        state.push_operator(operator);
        Ok(())
    }
}

use wasmer_compiler::wasmparser::Operator;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_functions_come_first_and_the_rest_keeps_its_order() {
        let mut module = ModuleInfo {
            num_imported_functions: 2,
            ..ModuleInfo::default()
        };
        for ty in [7, 7, 0, 1, 2, 3] {
            module
                .functions
                .push(wasmer_types::SignatureIndex::from_u32(ty));
        }
        let start = ExportIndex::Function(FunctionIndex::from_u32(3));
        module.exports.insert("start".into(), start);
        let numbers = Numbers::new(&module, &[3, 1]);
        let old: Vec<_> = (0..5).map(|new| numbers.old(new)).collect();
        assert_eq!(old, [Some(3), Some(1), Some(0), Some(2), None]);
        let new: Vec<_> = (0..6).map(|function| numbers.function(function)).collect();
        assert_eq!(new, [0, 1, 4, 3, 5, 2]);
        let renumbered = numbers.apply(&module);
        let types: Vec<_> = renumbered
            .functions
            .values()
            .map(|ty| ty.as_u32())
            .collect();
        assert_eq!(types, [7, 7, 3, 1, 0, 2]);
        let export = renumbered.exports.get("start");
        assert_eq!(
            export,
            Some(&ExportIndex::Function(FunctionIndex::from_u32(3)))
        );
    }
}
