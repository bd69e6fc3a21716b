//! A function body as basic blocks over variables: what the analysis of its loads works on.
//!
//! ```text
//! local.get 0            node: get local 0
//! i32.load               node: load, of the node before
//! br_if 0 (local.get 1)  node: branch     edges: to the end of the label, to the next block
//! ```
//!
//! The variables are the function's locals, and behind them one *slot* for each height of the operand stack: a value
//! that is still on the stack where a block ends is stored to the slot of its height, and the next block finds it there.
//! Code that cannot be reached has no nodes.

use std::collections::HashMap;
use std::mem::{Discriminant, discriminant};

use wasmer_compiler::wasmparser::{
    BinaryReader, BlockType, Catch, ContType, FrameKind, FuncType, FunctionBody, ModuleArity,
    Operator, RefType, Result, SubType, TryTable,
};

use super::demand::{self, Operand, Value};

/// Parameters and results of what a body names.
pub(super) trait Types {
    /// Of a type.
    fn arity(&self, ty: u32) -> (u32, u32);
    /// The type of a function.
    fn function(&self, function: u32) -> u32;
    /// The type of a tag.
    fn tag(&self, tag: u32) -> u32;
}

/// An operator that can be reached.
#[derive(Debug)]
pub(super) struct Node<'a> {
    /// Its place among all operators of the body.
    pub(super) at: u32,
    pub(super) operator: Operator<'a>,
    /// The number of its result, if it has one.
    pub(super) number: u32,
    /// The first of its operands, and how many there are.
    operands: (u32, u32),
    /// The width in bytes of the lanes that it works on one by one, or 0.
    pub(super) lane: u8,
    /// For a conditional branch: the operators that it can skip, if that is all it does.
    pub(super) skips: Option<(u32, u32)>,
}

/// A way out of a block.
#[derive(Debug, Clone, Copy)]
pub(super) struct Edge {
    pub(super) to: u32,
    /// The first slot of the label's values, and how many there are.
    pub(super) base: u32,
    pub(super) count: u32,
    /// The slot that the first one is moved from, or nothing if the edge itself makes the values.
    pub(super) from: Option<u32>,
}

#[derive(Debug, Default)]
pub(super) struct Block {
    pub(super) nodes: std::ops::Range<usize>,
    pub(super) edges: Vec<Edge>,
    /// Slots that it leaves results of its nodes in.
    pub(super) leaves: Vec<(u32, u32)>,
}

/// What an operator does beside making a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Effect {
    Nothing,
    Sets(u32),
    Something,
}

#[derive(Debug)]
pub(super) struct Flow<'a> {
    pub(super) nodes: Vec<Node<'a>>,
    operands: Vec<Operand>,
    pub(super) blocks: Vec<Block>,
    /// By operator.
    pub(super) effects: Vec<Effect>,
    pub(super) locals: u32,
    /// Locals and slots.
    pub(super) variables: u32,
}

impl<'a> Flow<'a> {
    /// Reads the body of a function with so many parameters and results.
    ///
    /// # Errors
    ///
    /// None if the module is valid.
    pub(super) fn read(
        body: &'a [u8],
        (parameters, results): (u32, u32),
        types: &dyn Types,
    ) -> Result<Self> {
        let body = FunctionBody::new(BinaryReader::new(body, 0));
        let mut locals = parameters;
        for group in body.get_locals_reader()? {
            locals = locals.saturating_add(group?.0);
        }
        let mut builder = Builder::new(types, locals, results);
        let mut operators = body.get_operators_reader()?;
        while !operators.eof() {
            builder.operator(operators.read()?);
        }
        Ok(builder.flow)
    }

    pub(super) fn operands(&self, node: usize) -> &[Operand] {
        let (first, count) = self.nodes[node].operands;
        &self.operands[first as usize..(first + count) as usize]
    }

    /// The variable of a slot.
    pub(super) fn slot(&self, height: u32) -> usize {
        (self.locals + height) as usize
    }
}

/// A label.
struct Frame {
    /// Where branches to it go.
    target: u32,
    /// Height of the stack below its parameters.
    height: u32,
    parameters: u32,
    results: u32,
    is_loop: bool,
    /// The block of an `else` that has not come yet.
    otherwise: Option<u32>,
    /// Where exceptions go in here.
    catches: Vec<Edge>,
    /// Conditional branches to its end.
    skipping: Vec<u32>,
    /// Whether what is before its end can be reached.
    entered: bool,
}

struct Builder<'a, 't> {
    flow: Flow<'a>,
    types: &'t dyn Types,
    stack: Vec<Operand>,
    frames: Vec<Frame>,
    /// The block that is being filled, if what comes next can be reached.
    current: Option<u32>,
    next_number: u32,
    /// The number of each local's value since the last place where ways meet.
    versions: HashMap<u32, u32>,
    /// Equal operations on equal operands are equal.
    known: HashMap<(Discriminant<Operator<'a>>, [u32; 2]), u32>,
    constants: HashMap<u64, u32>,
    /// The constant and the bound of a value, by its number.
    facts: HashMap<u32, (Option<u64>, u64)>,
    lanes: HashMap<Discriminant<Operator<'a>>, u8>,
}

impl<'a, 't> Builder<'a, 't> {
    fn new(types: &'t dyn Types, locals: u32, results: u32) -> Self {
        let mut builder = Self {
            flow: Flow {
                nodes: Vec::new(),
                operands: Vec::new(),
                blocks: Vec::new(),
                effects: Vec::new(),
                locals,
                variables: locals,
            },
            types,
            stack: Vec::new(),
            frames: Vec::new(),
            current: None,
            next_number: 0,
            versions: HashMap::new(),
            known: HashMap::new(),
            constants: HashMap::new(),
            facts: HashMap::new(),
            lanes: HashMap::new(),
        };
        let start = builder.block();
        let target = builder.block();
        builder.begin(start);
        builder.frames.push(Frame {
            target,
            height: 0,
            parameters: 0,
            results,
            is_loop: false,
            otherwise: None,
            catches: Vec::new(),
            skipping: Vec::new(),
            entered: true,
        });
        builder
    }

    fn block(&mut self) -> u32 {
        self.flow.blocks.push(Block::default());
        self.flow.blocks.len() as u32 - 1
    }

    fn number(&mut self) -> u32 {
        self.next_number += 1;
        self.next_number
    }

    fn begin(&mut self, block: u32) {
        let here = self.flow.nodes.len();
        self.flow.blocks[block as usize].nodes = here..here;
        self.current = Some(block);
        let height = self.stack.len() as u32;
        self.flow.variables = self.flow.variables.max(self.flow.locals + height);
        for (height, operand) in (0..).zip(&mut self.stack) {
            operand.value = Value::Slot(height);
        }
    }

    /// Ends the current block.
    fn finish(&mut self, edges: Vec<Edge>) {
        let Some(current) = self.current.take() else {
            return;
        };
        let height = self.stack.len() as u32;
        self.flow.variables = self.flow.variables.max(self.flow.locals + height);
        let block = &mut self.flow.blocks[current as usize];
        block.nodes.end = self.flow.nodes.len();
        block.edges = edges;
        block.leaves = (0..)
            .zip(&self.stack)
            .filter_map(|(height, operand)| match operand.value {
                Value::Node(node) => Some((height, node)),
                Value::Slot(_) => None,
            })
            .collect();
    }

    /// An edge that leaves everything where it is.
    fn to(&self, block: u32) -> Edge {
        Edge {
            to: block,
            base: self.stack.len() as u32,
            count: 0,
            from: None,
        }
    }

    /// The edge of a branch to a label.
    fn branch(&self, depth: u32) -> Edge {
        let frame = self.frame(depth);
        let count = if frame.is_loop {
            frame.parameters
        } else {
            frame.results
        };
        Edge {
            to: frame.target,
            base: frame.height,
            count,
            from: Some((self.stack.len() as u32).saturating_sub(count)),
        }
    }

    fn frame(&self, depth: u32) -> &Frame {
        &self.frames[self.frames.len() - 1 - depth as usize]
    }

    fn block_arity(&self, ty: BlockType) -> (u32, u32) {
        match ty {
            BlockType::Empty => (0, 0),
            BlockType::Type(_) => (0, 1),
            BlockType::FuncType(ty) => self.types.arity(ty),
        }
    }

    /// Adds a node that takes so many operands and gives so many results.
    fn node(&mut self, operator: Operator<'a>, takes: u32, gives: u32) -> u32 {
        let first = self.flow.operands.len() as u32;
        let from = self.stack.len().saturating_sub(takes as usize);
        self.flow.operands.extend(self.stack.drain(from..));
        let node = self.flow.nodes.len() as u32;
        let operands = &self.flow.operands[first as usize..];
        let constant = constant(&operator);
        let maximum = maximum(&operator, operands);
        let numbers: Vec<u32> = operands.iter().map(|operand| operand.number).collect();
        let number = self.result_number(&operator, &numbers, constant);
        // What is known of a value stays known while a local has it.
        let known = self.facts.get(&number).copied();
        let (constant, maximum) = known.unwrap_or((constant, maximum));
        if constant.is_some() || maximum != u64::MAX {
            self.facts.insert(number, (constant, maximum));
        }
        for _ in 0..gives {
            let number = if gives == 1 { number } else { self.number() };
            self.stack.push(Operand {
                value: Value::Node(node),
                number,
                constant,
                maximum,
            });
        }
        let lane = *self
            .lanes
            .entry(discriminant(&operator))
            .or_insert_with(|| lane(&operator));
        self.flow.nodes.push(Node {
            at: self.flow.effects.len() as u32 - 1,
            lane,
            operator,
            number,
            operands: (first, self.flow.operands.len() as u32 - first),
            skips: None,
        });
        node
    }

    fn result_number(
        &mut self,
        operator: &Operator<'a>,
        operands: &[u32],
        constant: Option<u64>,
    ) -> u32 {
        let fresh = self.number();
        if let Some(constant) = constant {
            return *self.constants.entry(constant).or_insert(fresh);
        }
        match (operator, operands) {
            (Operator::LocalGet { local_index }, _) => {
                *self.versions.entry(*local_index).or_insert(fresh)
            }
            (Operator::LocalSet { local_index } | Operator::LocalTee { local_index }, [value]) => {
                self.versions.insert(*local_index, *value);
                *value
            }
            (
                Operator::I32Add
                | Operator::I32Sub
                | Operator::I32Mul
                | Operator::I32And
                | Operator::I32Or
                | Operator::I32Xor
                | Operator::I32Shl,
                [left, right],
            ) => {
                let key = (discriminant(operator), [*left, *right]);
                *self.known.entry(key).or_insert(fresh)
            }
            _ => fresh,
        }
    }

    /// Begins a block where ways meet, with new values on top of the stack.
    fn join(&mut self, block: u32, height: u32, values: u32) {
        self.stack.truncate(height as usize);
        for _ in 0..values {
            let number = self.number();
            self.stack.push(Operand {
                value: Value::Slot(0),
                number,
                constant: None,
                maximum: u64::MAX,
            });
        }
        self.versions = HashMap::new();
        self.begin(block);
    }

    fn enter(&mut self, ty: BlockType, is_loop: bool, otherwise: Option<u32>) -> &mut Frame {
        let (parameters, results) = self.block_arity(ty);
        let target = self.block();
        let height = (self.stack.len() as u32).saturating_sub(parameters);
        if is_loop {
            let edge = self.to(target);
            self.finish(vec![edge]);
            self.join(target, height, parameters);
        }
        self.frames.push(Frame {
            target,
            height,
            parameters,
            results,
            is_loop,
            otherwise,
            catches: Vec::new(),
            skipping: Vec::new(),
            entered: true,
        });
        let last = self.frames.len() - 1;
        &mut self.frames[last]
    }

    fn operator(&mut self, operator: Operator<'a>) {
        self.flow.effects.push(Effect::Nothing);
        if self.current.is_none() {
            return self.unreachable(&operator);
        }
        let effect = effect(&operator);
        if let Some(last) = self.flow.effects.last_mut() {
            *last = effect;
        }
        match operator {
            Operator::Block { blockty } => {
                self.enter(blockty, false, None);
            }
            Operator::Loop { blockty } => {
                self.enter(blockty, true, None);
            }
            Operator::TryTable { ref try_table } => self.try_table(try_table),
            Operator::If { blockty } => {
                let node = self.node(operator, 1, 0);
                let (then, otherwise) = (self.block(), self.block());
                let edges = vec![self.to(then), self.to(otherwise)];
                self.finish(edges);
                self.begin(then);
                let frame = self.enter(blockty, false, Some(otherwise));
                if frame.results == 0 {
                    frame.skipping.push(node);
                }
            }
            Operator::Else => self.otherwise(),
            Operator::End => self.end(),
            Operator::Br { relative_depth } => {
                let edge = self.branch(relative_depth);
                self.finish(vec![edge]);
            }
            Operator::BrIf { relative_depth } => {
                let node = self.node(operator, 1, 0);
                self.conditional(node, relative_depth);
            }
            Operator::BrTable { ref targets } => {
                let mut depths: Vec<u32> = targets.targets().flatten().collect();
                depths.push(targets.default());
                depths.sort_unstable();
                depths.dedup();
                let node = self.node(operator, 1, 0);
                if depths.len() == 1 {
                    // It decides nothing.
                    self.flow.nodes[node as usize].skips = Some((0, 0));
                }
                let edges = depths.iter().map(|depth| self.branch(*depth)).collect();
                self.finish(edges);
            }
            Operator::Return => {
                let results = self.frames[0].results;
                self.node(operator, results, 0);
                self.finish(Vec::new());
            }
            Operator::Call { function_index } => {
                let arity = self.types.arity(self.types.function(function_index));
                self.call(operator, arity);
            }
            Operator::CallIndirect { type_index, .. } | Operator::CallRef { type_index } => {
                let (parameters, results) = self.types.arity(type_index);
                self.call(operator, (parameters + 1, results));
            }
            Operator::ReturnCall { function_index } => {
                let (parameters, _) = self.types.arity(self.types.function(function_index));
                self.node(operator, parameters, 0);
                self.finish(Vec::new());
            }
            Operator::ReturnCallIndirect { type_index, .. }
            | Operator::ReturnCallRef { type_index } => {
                let (parameters, _) = self.types.arity(type_index);
                self.node(operator, parameters + 1, 0);
                self.finish(Vec::new());
            }
            Operator::Throw { tag_index } => {
                let (parameters, _) = self.types.arity(self.types.tag(tag_index));
                self.node(operator, parameters, 0);
                let edges = self.catches();
                self.finish(edges);
            }
            Operator::ThrowRef => {
                self.node(operator, 1, 0);
                let edges = self.catches();
                self.finish(edges);
            }
            Operator::Unreachable => {
                self.node(operator, 0, 0);
                self.finish(Vec::new());
            }
            Operator::Nop => {}
            other => {
                let (takes, gives) = other.operator_arity(&Fixed).unwrap_or((0, 0));
                self.node(other, takes, gives);
            }
        }
    }

    fn conditional(&mut self, node: u32, depth: u32) {
        let next = self.block();
        let edges = vec![self.branch(depth), self.to(next)];
        self.finish(edges);
        self.begin(next);
        let at = self.frames.len() - 1 - depth as usize;
        let frame = &mut self.frames[at];
        if !frame.is_loop && frame.results == 0 {
            frame.skipping.push(node);
        }
    }

    fn call(&mut self, operator: Operator<'a>, (takes, gives): (u32, u32)) {
        self.node(operator, takes, gives);
        let mut edges = self.catches();
        if edges.is_empty() {
            return;
        }
        let next = self.block();
        edges.push(self.to(next));
        self.finish(edges);
        self.begin(next);
    }

    /// Where an exception can go from here.
    fn catches(&self) -> Vec<Edge> {
        let frames = self.frames.iter();
        frames.flat_map(|frame| frame.catches.clone()).collect()
    }

    fn try_table(&mut self, table: &TryTable) {
        let catches = table.catches.iter().map(|catch| {
            let label = match catch {
                Catch::One { label, .. }
                | Catch::OneRef { label, .. }
                | Catch::All { label }
                | Catch::AllRef { label } => *label,
            };
            Edge {
                from: None,
                ..self.branch(label)
            }
        });
        let catches = catches.collect();
        self.enter(table.ty, false, None).catches = catches;
    }

    fn otherwise(&mut self) {
        let last = self.frames.len() - 1;
        let edge = self.branch(0);
        self.finish(vec![edge]);
        let frame = &mut self.frames[last];
        let (height, parameters) = (frame.height, frame.parameters);
        if let Some(otherwise) = frame.otherwise.take() {
            self.join(otherwise, height, parameters);
        }
    }

    fn end(&mut self) {
        let last = self.frames.len() - 1;
        let after = if self.frames[last].is_loop {
            self.block()
        } else {
            self.frames[last].target
        };
        let results = self.frames[last].results;
        let edge = Edge {
            to: after,
            base: self.frames[last].height,
            count: results,
            from: Some((self.stack.len() as u32).saturating_sub(results)),
        };
        self.finish(vec![edge]);
        let Some(frame) = self.frames.pop() else {
            return;
        };
        if let Some(otherwise) = frame.otherwise {
            // An `if` without an `else` hands its parameters on.
            self.join(otherwise, frame.height, frame.parameters);
            let edge = Edge {
                to: after,
                base: frame.height,
                count: results,
                from: Some(frame.height),
            };
            self.finish(vec![edge]);
        }
        let here = self.flow.effects.len() as u32 - 1;
        for node in frame.skipping {
            let node = &mut self.flow.nodes[node as usize];
            node.skips = Some((node.at + 1, here));
        }
        self.join(after, frame.height, results);
        if self.frames.is_empty() {
            self.node(Operator::Return, results, 0);
            self.finish(Vec::new());
        }
    }

    /// Keeps account of labels only.
    fn unreachable(&mut self, operator: &Operator<'a>) {
        match operator {
            Operator::Block { .. }
            | Operator::Loop { .. }
            | Operator::If { .. }
            | Operator::TryTable { .. } => self.frames.push(Frame {
                target: 0,
                height: 0,
                parameters: 0,
                results: 0,
                is_loop: false,
                otherwise: None,
                catches: Vec::new(),
                skipping: Vec::new(),
                entered: false,
            }),
            Operator::Else if self.frames.last().is_some_and(|frame| frame.entered) => {
                self.otherwise();
            }
            Operator::End => {
                if self.frames.last().is_some_and(|frame| frame.entered) {
                    self.end();
                } else {
                    self.frames.pop();
                }
            }
            _ => {}
        }
    }
}

/// The arities of operators that do not depend on the module.
struct Fixed;

impl ModuleArity for Fixed {
    fn sub_type_at(&self, _: u32) -> Option<&SubType> {
        None
    }

    fn tag_type_arity(&self, _: u32) -> Option<(u32, u32)> {
        None
    }

    fn type_index_of_function(&self, _: u32) -> Option<u32> {
        None
    }

    fn func_type_of_cont_type(&self, _: &ContType) -> Option<&FuncType> {
        None
    }

    fn sub_type_of_ref_type(&self, _: &RefType) -> Option<&SubType> {
        None
    }

    fn control_stack_height(&self) -> u32 {
        0
    }

    fn label_block(&self, _: u32) -> Option<(BlockType, FrameKind)> {
        None
    }
}

fn constant(operator: &Operator<'_>) -> Option<u64> {
    match operator {
        Operator::I32Const { value } => Some(u64::from(*value as u32)),
        Operator::I64Const { value } => Some(*value as u64),
        _ => None,
    }
}

fn maximum(operator: &Operator<'_>, operands: &[Operand]) -> u64 {
    let operand = |index: usize| operands.get(index).map_or(u64::MAX, |it| it.maximum);
    let right = operands.get(1).and_then(|operand| operand.constant);
    match operator {
        Operator::I32Const { .. } | Operator::I64Const { .. } => {
            constant(operator).unwrap_or(u64::MAX)
        }
        Operator::I32Load8U { .. } | Operator::I64Load8U { .. } => 0xff,
        Operator::I32Load16U { .. } | Operator::I64Load16U { .. } => 0xffff,
        Operator::I64Load32U { .. } => 0xffff_ffff,
        Operator::I64ExtendI32U => operand(0).min(0xffff_ffff),
        Operator::I32And | Operator::I64And => operand(0).min(operand(1)),
        Operator::I32ShrU => operand(0).min(0xffff_ffff) >> (right.unwrap_or(0) % 32),
        Operator::I64ShrU => operand(0) >> (right.unwrap_or(0) % 64),
        Operator::LocalTee { .. } => operand(0),
        _ => u64::MAX,
    }
}

/// The width of the lanes that an operator works on each by itself: the `n`th of its result depends on the `n`th of
/// its operands only.
fn lane(operator: &Operator<'_>) -> u8 {
    const ACROSS: [&str; 13] = [
        "Narrow", "Ext", "Dot", "Swizzle", "Shuffle", "Bitmask", "AllTrue", "Splat", "Lane", "Low",
        "High", "Zero", "Demote",
    ];
    if operator.operator_arity(&Fixed).is_none() {
        return 0;
    }
    let name = format!("{operator:?}");
    let width = match name.get(..5) {
        Some("I8x16") => 1,
        Some("I16x8") => 2,
        Some("I32x4" | "F32x4") => 4,
        Some("I64x2" | "F64x2") => 8,
        _ => return 0,
    };
    if ACROSS.iter().any(|word| name.contains(word)) {
        return 0;
    }
    width
}

/// What is left if nothing uses the operator's result.
fn effect(operator: &Operator<'_>) -> Effect {
    match operator {
        Operator::LocalSet { local_index } | Operator::LocalTee { local_index } => {
            Effect::Sets(*local_index)
        }
        Operator::Block { .. }
        | Operator::If { .. }
        | Operator::Else
        | Operator::End
        | Operator::Nop
        | Operator::Drop => Effect::Nothing,
        other if demand::is_pure(other) => Effect::Nothing,
        _ => Effect::Something,
    }
}
