//! Values of constant expressions, as far as they are known before a module runs.

use wasmparser::{ConstExpr, Operator};

use crate::module::Module;

/// The immutable i32 globals of a module, by index: the values that are known.
#[derive(Debug)]
pub(crate) struct Constants(Vec<Option<i32>>);

impl Constants {
    pub(crate) fn of(module: &Module<'_>) -> Self {
        let mut known = Self(Vec::with_capacity(module.globals.len()));
        for global in &module.globals {
            // A global refers to earlier ones only.
            let value = global
                .as_ref()
                .filter(|global| !global.ty.mutable)
                .and_then(|global| known.evaluate(&global.init_expr));
            known.0.push(value);
        }
        known
    }

    /// The offset of an active segment in a 32-bit memory or table. `None` if it depends on an imported global.
    pub(crate) fn offset(&self, expression: &ConstExpr<'_>) -> Option<u64> {
        self.evaluate(expression)
            .map(|value| u64::from(value as u32))
    }

    /// Value of an expression of type i32. Those of other types cannot occur in an offset.
    fn evaluate(&self, expression: &ConstExpr<'_>) -> Option<i32> {
        let mut stack: Vec<i32> = Vec::new();
        for operator in expression.get_operators_reader() {
            let value = match operator.ok()? {
                Operator::I32Const { value } => value,
                Operator::GlobalGet { global_index } => (*self.0.get(global_index as usize)?)?,
                Operator::I32Add => binary(&mut stack, i32::wrapping_add)?,
                Operator::I32Sub => binary(&mut stack, i32::wrapping_sub)?,
                Operator::I32Mul => binary(&mut stack, i32::wrapping_mul)?,
                Operator::End => break,
                _ => return None,
            };
            stack.push(value);
        }
        stack.pop()
    }
}

fn binary(stack: &mut Vec<i32>, operation: fn(i32, i32) -> i32) -> Option<i32> {
    let (right, left) = (stack.pop()?, stack.pop()?);
    Some(operation(left, right))
}
