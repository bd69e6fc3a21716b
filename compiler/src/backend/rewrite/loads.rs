//! Finds the loads that LLVM could leave out, so that a trap would not happen.
//!
//! To LLVM a guest's load is a plain load, which has no effect but its value: it may be removed where nothing needs the
//! value, moved down to the branch that does, or made shorter where a part of the value is enough. The alternative,
//! volatile accesses, costs a sixth of the speed. So the loads are found here that could be lost in this way, and
//! [`super`] puts an access before each of them that LLVM keeps.
//!
//! A load is *kept* by what uses its value: a store, a call, a condition, a result, the address of another access.
//! From those, demand goes backward through operators, locals and blocks:
//!
//! ```text
//! local.set $x (i32.load ...)        all: $x is alive on all ways from here
//! br_if 0 (i32.eqz (local.get $x))   all: a condition
//! local.set $y (i32.load ...)        some: $y is alive in one of the two ways, the load could move there
//! br_if 1 (local.get $c)
//! call $f (local.get $y)
//! ```
//!
//! *Some* is enough where a store or a call follows before the branch, since a load cannot move behind these. Demand
//! has the bits that are needed, see [`super::demand`].
//!
//! Variables are alive from below: the analysis begins with none and adds those with an effect. If it has to stop
//! early, fewer are alive, and more loads are checked than need be.

use std::collections::{HashMap, HashSet};

use wasmer_compiler::wasmparser::{MemArg, Operator};

use super::demand::{self, ALL, Operand, Value};
use super::flow::{Edge, Effect, Flow};

/// Words of sets of variables, for all blocks together, that the analysis may take: 64 MiB.
const WORDS: usize = 8 << 20;
/// How often it may go over a body. Nested loops take one pass for each level.
const PASSES: usize = 24;
/// The longest piece of code whose effects are looked for, in operators.
const SKIPPED: u32 = 64;

/// The operators that are loads which could be lost.
pub(super) fn unobserved(flow: &Flow<'_>) -> Vec<u32> {
    let mut search = Search::new(flow);
    if search.words * flow.blocks.len() <= WORDS {
        for _ in 0..PASSES {
            search.changed = false;
            for block in (0..flow.blocks.len()).rev() {
                search.block(block);
            }
            if !search.changed {
                break;
            }
        }
    }
    search.found = Some(Vec::new());
    for block in (0..flow.blocks.len()).rev() {
        search.block(block);
    }
    let mut found = search.found.unwrap_or_default();
    found.sort_unstable();
    found
}

/// On which ways a value is needed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Default)]
enum Ways {
    #[default]
    None,
    Some,
    All,
}

#[derive(Debug, Clone, Copy, Default)]
struct Demand {
    ways: Ways,
    bits: u64,
    /// Barriers that come behind its use.
    barriers: u32,
}

impl Demand {
    const NONE: Self = Self {
        ways: Ways::None,
        bits: 0,
        barriers: 0,
    };
}

/// Where an access goes, as far as two can be seen to go to one place.
type Place = (u32, u32, u64, u32);

struct Search<'f, 'a> {
    flow: &'f Flow<'a>,
    /// Words in a set of variables.
    words: usize,
    /// The variables that are alive where each block begins.
    alive: Vec<u64>,
    /// The bits of each variable that anything needs, wherever.
    bits: Vec<u64>,
    changed: bool,
    /// Where values were loaded from.
    loaded: HashMap<u32, Place>,
    /// Loads that could be lost, once the rest is known.
    found: Option<Vec<u32>>,
    // Where the search is in a block.
    some: Vec<u64>,
    all: Vec<u64>,
    demands: Vec<Demand>,
    barriers: u32,
    /// Places that are stored to before anything can look at them.
    overwritten: HashSet<Place>,
}

fn has(set: &[u64], variable: usize) -> bool {
    set[variable / 64] >> (variable % 64) & 1 != 0
}

fn put(set: &mut [u64], variable: usize, value: bool) {
    let bit = 1 << (variable % 64);
    if value {
        set[variable / 64] |= bit;
    } else {
        set[variable / 64] &= !bit;
    }
}

impl<'f, 'a> Search<'f, 'a> {
    fn new(flow: &'f Flow<'a>) -> Self {
        let words = (flow.variables as usize).div_ceil(64);
        // Without room nothing is alive at the end of any block.
        let room = words.saturating_mul(flow.blocks.len());
        let nodes = flow.nodes.iter().enumerate();
        let loaded = nodes.filter_map(|(index, node)| {
            let load = demand::load(&node.operator)?;
            let place = place(&node.operator, &flow.operands(index)[0], load.bytes)?;
            Some((node.number, place))
        });
        Self {
            flow,
            words,
            loaded: loaded.collect(),
            alive: vec![0; if room <= WORDS { room } else { 0 }],
            bits: vec![0; flow.variables as usize],
            changed: false,
            found: None,
            some: vec![0; words],
            all: vec![0; words],
            demands: vec![Demand::NONE; flow.nodes.len()],
            barriers: 0,
            overwritten: HashSet::new(),
        }
    }

    /// Goes through a block from its end to its beginning.
    fn block(&mut self, index: usize) {
        let flow = self.flow;
        let block = &flow.blocks[index];
        self.leave(&block.edges);
        self.barriers = 0;
        self.overwritten.clear();
        self.demands[block.nodes.clone()].fill(Demand::NONE);
        for (height, node) in &block.leaves {
            let variable = flow.slot(*height);
            let demand = self.variable(variable);
            put(&mut self.some, variable, false);
            put(&mut self.all, variable, false);
            self.demand(Value::Node(*node), demand);
        }
        for node in block.nodes.clone().rev() {
            self.node(node);
        }
        let before = index * self.words..(index + 1) * self.words;
        if let Some(before) = self.alive.get_mut(before)
            && *before != self.some[..]
        {
            before.copy_from_slice(&self.some);
            self.changed = true;
        }
    }

    /// What is alive behind a block.
    fn leave(&mut self, edges: &[Edge]) {
        self.some.fill(0);
        self.all.fill(if edges.is_empty() { 0 } else { ALL });
        if self.alive.is_empty() {
            self.all.fill(0);
            return;
        }
        let mut behind = vec![0; self.words];
        for edge in edges {
            let to = edge.to as usize * self.words;
            behind.copy_from_slice(&self.alive[to..to + self.words]);
            let target = |index: u32| self.flow.slot(edge.base + index);
            let values: Vec<bool> = (0..edge.count)
                .map(|index| has(&behind, target(index)))
                .collect();
            for index in 0..edge.count {
                put(&mut behind, target(index), false);
            }
            if let Some(from) = edge.from {
                for (index, value) in (0..).zip(values) {
                    let source = self.flow.slot(from + index);
                    put(&mut behind, source, value);
                    self.bits[source] |= self.bits[target(index)];
                }
            }
            for ((some, all), word) in self.some.iter_mut().zip(&mut self.all).zip(&behind) {
                *some |= word;
                *all &= word;
            }
        }
    }

    fn variable(&self, variable: usize) -> Demand {
        let ways = if has(&self.all, variable) {
            Ways::All
        } else if has(&self.some, variable) {
            Ways::Some
        } else {
            return Demand::NONE;
        };
        Demand {
            ways,
            bits: self.bits[variable],
            barriers: self.barriers,
        }
    }

    fn use_variable(&mut self, variable: usize, demand: Demand) {
        if demand.ways == Ways::None || demand.bits == 0 {
            return;
        }
        put(&mut self.some, variable, true);
        if demand.ways == Ways::All {
            put(&mut self.all, variable, true);
        }
        if self.bits[variable] | demand.bits != self.bits[variable] {
            self.bits[variable] |= demand.bits;
            self.changed = true;
        }
    }

    fn demand(&mut self, value: Value, demand: Demand) {
        match value {
            Value::Slot(height) => self.use_variable(self.flow.slot(height), demand),
            Value::Node(node) => {
                let known = &mut self.demands[node as usize];
                known.bits |= demand.bits;
                if demand.ways > known.ways {
                    known.ways = demand.ways;
                    known.barriers = demand.barriers;
                }
            }
        }
    }

    fn need(&mut self, operands: &[Operand], ways: Ways, bits: u64) {
        for operand in operands {
            let demand = Demand {
                ways,
                bits,
                barriers: self.barriers,
            };
            self.demand(operand.value, demand);
        }
    }

    fn barrier(&mut self) {
        self.barriers += 1;
        for (all, some) in self.all.iter_mut().zip(&self.some) {
            *all |= some;
        }
    }

    fn node(&mut self, index: usize) {
        use Operator as O;
        let flow = self.flow;
        let node = &flow.nodes[index];
        let operands = flow.operands(index);
        let mut demand = self.demands[index];
        if demand.ways == Ways::Some && self.barriers > demand.barriers {
            demand.ways = Ways::All;
        }
        if demand.bits == 0 {
            demand = Demand::NONE;
        }
        demand.barriers = self.barriers;
        match &node.operator {
            O::LocalGet { local_index } => self.use_variable(*local_index as usize, demand),
            O::LocalSet { local_index } => {
                let variable = *local_index as usize;
                let stored = self.variable(variable);
                self.forget(variable);
                self.demand(operands[0].value, stored);
            }
            O::LocalTee { local_index } => {
                let variable = *local_index as usize;
                let stored = self.variable(variable);
                self.forget(variable);
                self.demand(operands[0].value, stored);
                self.demand(operands[0].value, demand);
            }
            O::Drop => {}
            O::Select | O::TypedSelect { .. } => self.select(operands, demand),
            O::BrIf { .. } | O::If { .. } | O::BrTable { .. } => {
                let ways = if self.decides(node.skips) {
                    Ways::All
                } else {
                    Ways::None
                };
                self.need(&operands[operands.len() - 1..], ways, ALL);
            }
            operator if demand::is_division(operator) => {
                let divisor = &operands[1..];
                let signed = matches!(operator, O::I32DivS | O::I64DivS);
                let constant = operands[1].constant;
                if constant.is_none() {
                    self.need(divisor, Ways::All, ALL);
                }
                if signed && constant.is_none() {
                    self.need(&operands[..1], Ways::All, ALL);
                } else if demand.ways > Ways::None {
                    self.need(&operands[..1], demand.ways, ALL);
                }
            }
            operator if demand::is_pure(operator) => {
                for (position, operand) in operands.iter().enumerate() {
                    let bits =
                        demand::operand_bits(operator, node.lane, operands, position, demand.bits);
                    self.demand(operand.value, Demand { bits, ..demand });
                }
            }
            operator => self.effect(operator, node.at, operands, demand),
        }
    }

    fn forget(&mut self, variable: usize) {
        put(&mut self.some, variable, false);
        put(&mut self.all, variable, false);
    }

    /// The operand that is not chosen may stay unread: it may become a branch, or a load of the chosen address.
    fn select(&mut self, operands: &[Operand], demand: Demand) {
        let [left, right, condition] = operands else {
            return;
        };
        if left.number == right.number {
            return self.demand(left.value, demand);
        }
        let some = Demand {
            ways: demand.ways.min(Ways::Some),
            ..demand
        };
        self.demand(left.value, some);
        self.demand(right.value, some);
        if demand.ways > Ways::None {
            self.need(std::slice::from_ref(condition), demand.ways, ALL);
        }
    }

    fn effect(&mut self, operator: &Operator<'_>, at: u32, operands: &[Operand], demand: Demand) {
        if let Some(load) = demand::load(operator) {
            let kept = demand.ways == Ways::All && load.is_whole(operator, demand.bits);
            if !kept && let Some(found) = &mut self.found {
                found.push(at);
                // The access before it.
                self.barrier();
            }
            self.need(&operands[..1], Ways::All, ALL);
            if let Some(vector) = operands.get(1) {
                let bits = demand.bits & !self.loaded_lane(operator);
                self.demand(vector.value, Demand { bits, ..demand });
            }
            return;
        }
        if let Some(size) = demand::stored(operator)
            && let [address, value] = operands
        {
            self.barrier();
            self.need(std::slice::from_ref(address), Ways::All, ALL);
            let place = place(operator, address, size);
            let lost = place.is_some_and(|place| !self.overwritten.insert(place));
            if !lost && !self.unchanged(value, place) {
                let bits = if size < 8 { (1 << (size * 8)) - 1 } else { ALL };
                let bits = match operator {
                    Operator::I32Store { .. }
                    | Operator::I32Store8 { .. }
                    | Operator::I32Store16 { .. }
                    | Operator::I64Store8 { .. }
                    | Operator::I64Store16 { .. }
                    | Operator::I64Store32 { .. } => bits,
                    Operator::V128Store8Lane { lane, .. } => 1 << lane,
                    Operator::V128Store16Lane { lane, .. } => 0b11 << (lane * 2),
                    Operator::V128Store32Lane { lane, .. } => 0xf << (lane * 4),
                    Operator::V128Store64Lane { lane, .. } => 0xff << (lane * 8),
                    _ => ALL,
                };
                self.need(std::slice::from_ref(value), Ways::All, bits);
            }
            return;
        }
        if demand::is_barrier(operator) {
            self.barrier();
            self.overwritten.clear();
        }
        self.need(operands, Ways::All, ALL);
    }

    /// Whether a store puts back what a load took from the same place, so that it is of no use.
    fn unchanged(&self, value: &Operand, place: Option<Place>) -> bool {
        place.is_some() && self.loaded.get(&value.number) == place.as_ref()
    }

    fn loaded_lane(&self, operator: &Operator<'_>) -> u64 {
        match operator {
            Operator::V128Load8Lane { lane, .. } => 1 << lane,
            Operator::V128Load16Lane { lane, .. } => 0b11 << (lane * 2),
            Operator::V128Load32Lane { lane, .. } => 0xf << (lane * 4),
            Operator::V128Load64Lane { lane, .. } => 0xff << (lane * 8),
            _ => 0,
        }
    }

    /// Whether it matters if a branch skips these operators.
    fn decides(&self, skips: Option<(u32, u32)>) -> bool {
        let Some((first, end)) = skips else {
            return true;
        };
        if end - first > SKIPPED {
            return true;
        }
        let skipped = &self.flow.effects[first as usize..end as usize];
        skipped.iter().any(|effect| match effect {
            Effect::Nothing => false,
            Effect::Sets(local) => self.bits[*local as usize] != 0,
            Effect::Something => true,
        })
    }
}

fn place(operator: &Operator<'_>, address: &Operand, size: u32) -> Option<Place> {
    let memarg = memarg(operator)?;
    Some((memarg.memory, address.number, memarg.offset, size))
}

/// What says where an access goes, beside its address.
pub(super) fn memarg(operator: &Operator<'_>) -> Option<MemArg> {
    use Operator as O;
    Some(match operator {
        O::I32Load { memarg }
        | O::I64Load { memarg }
        | O::F32Load { memarg }
        | O::F64Load { memarg }
        | O::I32Load8S { memarg }
        | O::I32Load8U { memarg }
        | O::I32Load16S { memarg }
        | O::I32Load16U { memarg }
        | O::I64Load8S { memarg }
        | O::I64Load8U { memarg }
        | O::I64Load16S { memarg }
        | O::I64Load16U { memarg }
        | O::I64Load32S { memarg }
        | O::I64Load32U { memarg }
        | O::V128Load { memarg }
        | O::V128Load8x8S { memarg }
        | O::V128Load8x8U { memarg }
        | O::V128Load16x4S { memarg }
        | O::V128Load16x4U { memarg }
        | O::V128Load32x2S { memarg }
        | O::V128Load32x2U { memarg }
        | O::V128Load8Splat { memarg }
        | O::V128Load16Splat { memarg }
        | O::V128Load32Splat { memarg }
        | O::V128Load64Splat { memarg }
        | O::V128Load32Zero { memarg }
        | O::V128Load64Zero { memarg }
        | O::V128Load8Lane { memarg, .. }
        | O::V128Load16Lane { memarg, .. }
        | O::V128Load32Lane { memarg, .. }
        | O::V128Load64Lane { memarg, .. }
        | O::I32Store { memarg }
        | O::I64Store { memarg }
        | O::F32Store { memarg }
        | O::F64Store { memarg }
        | O::I32Store8 { memarg }
        | O::I32Store16 { memarg }
        | O::I64Store8 { memarg }
        | O::I64Store16 { memarg }
        | O::I64Store32 { memarg }
        | O::V128Store { memarg } => *memarg,
        _ => return None,
    })
}
