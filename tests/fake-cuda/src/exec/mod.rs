//! Execution of kernels: the blocks of a grid run one after the other, and the threads of a block are state machines
//! that stop at barriers and continue when all have arrived.
//!
//! A thread runs until it waits, ends, or has used up its turn; then the next one runs. So programs in which threads
//! wait for each other work, whatever they wait with. Device memory is locked for one slice of instructions at a
//! time, so that other streams can run between slices.

mod access;
mod alu;
mod block;
mod convert;
mod step;
#[cfg(test)]
mod tests;
mod warp;

use std::collections::HashMap;
use std::sync::Arc;

use block::Block;

use crate::abi::Code;
use crate::device::{Memory, Misuse, Purpose};
use crate::ptx::{Function, Program};

/// A program loaded into a context, with addresses for its variables.
#[derive(Debug)]
pub(crate) struct Loaded {
    pub(crate) program: Arc<Program>,
    /// Address of each variable, in program order.
    addresses: Vec<u64>,
    pub(crate) variables: HashMap<String, (u64, usize)>,
}

impl Loaded {
    /// Allocates the variables of a program. Returns `None` if the device does not have enough memory.
    pub(crate) fn new(
        program: Arc<Program>,
        memory: &mut Memory,
        (context, device): (u64, usize),
        total: u64,
    ) -> Option<Self> {
        let mut addresses = Vec::new();
        for variable in &program.variables {
            let size = variable.size.max(1);
            let address = memory.allocate(context, device, size, total, Purpose::Global);
            let Some(address) = address else {
                for address in addresses {
                    memory.free(address);
                }
                return None;
            };
            addresses.push(address);
        }
        for (variable, address) in program.variables.iter().zip(&addresses) {
            let mut bytes = variable.initial.clone();
            bytes.resize(variable.size, 0);
            for (offset, other) in &variable.addresses {
                let word = &mut bytes[*offset..*offset + 8];
                let mut base = [0; 8];
                base.copy_from_slice(word);
                let value = u64::from_le_bytes(base).wrapping_add(addresses[*other]);
                word.copy_from_slice(&value.to_le_bytes());
            }
            if let Ok(place) = memory.bytes_mut(context, *address, bytes.len()) {
                place.copy_from_slice(&bytes);
            }
        }
        let named = program.variables.iter().zip(&addresses);
        let variables = named
            .map(|(variable, address)| (variable.name.clone(), (*address, variable.size)))
            .collect();
        Some(Self {
            program,
            addresses,
            variables,
        })
    }

    pub(crate) fn free(&self, memory: &mut Memory) {
        for address in &self.addresses {
            memory.free(*address);
        }
    }

    /// Index of a kernel.
    pub(crate) fn entry(&self, name: &str) -> Option<usize> {
        let mut entries = self.program.entries();
        entries
            .find(|(_, function)| function.name == name)
            .map(|(number, _)| number)
    }
}

/// Everything that a kernel needs to run.
#[derive(Debug, Clone)]
pub(crate) struct Launch {
    pub(crate) code: Arc<Loaded>,
    pub(crate) entry: usize,
    pub(crate) context: u64,
    pub(crate) grid: [u32; 3],
    pub(crate) block: [u32; 3],
    /// Shared memory beyond what the program declares.
    pub(crate) shared: u32,
    pub(crate) parameters: Arc<[u8]>,
}

impl Launch {
    fn function(&self) -> &Function {
        &self.code.program.functions[self.entry]
    }

    pub(crate) fn name(&self) -> &str {
        &self.function().name
    }
}

/// A kernel's fault, which makes its context fail.
#[derive(Debug, thiserror::Error)]
#[error("line {line}, block {block:?}, thread {thread:?}: {text}")]
pub(crate) struct Fault {
    pub(crate) code: Code,
    text: String,
    line: u32,
    block: [u32; 3],
    thread: [u32; 3],
}

/// The fault of a single instruction.
#[derive(Debug)]
struct Broken {
    code: Code,
    text: String,
}

impl Broken {
    fn new(code: Code, text: impl Into<String>) -> Self {
        Self {
            code,
            text: text.into(),
        }
    }
}

impl From<Misuse> for Broken {
    fn from(misuse: Misuse) -> Self {
        Self::new(Code::ILLEGAL_ADDRESS, misuse.to_string())
    }
}

#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Progress {
    Running,
    Finished,
}

/// A running kernel.
pub(crate) struct Run {
    launch: Launch,
    /// Index of the block, with x varying fastest.
    number: u64,
    block: Option<Block>,
    count: u64,
}

impl Run {
    pub(crate) fn new(launch: &Launch) -> Self {
        Self {
            launch: launch.clone(),
            number: 0,
            block: None,
            count: 0,
        }
    }

    /// Number of instructions since the last call.
    pub(crate) fn take_count(&mut self) -> u64 {
        std::mem::take(&mut self.count)
    }

    /// Runs about `budget` instructions.
    pub(crate) fn advance(&mut self, budget: u64, memory: &mut Memory) -> Result<Progress, Fault> {
        let [x, y, z] = self.launch.grid.map(u64::from);
        let mut left = budget;
        while self.number < x * y * z {
            let index = [self.number % x, self.number / x % y, self.number / x / y];
            let block = self
                .block
                .get_or_insert_with(|| Block::new(&self.launch, index.map(|index| index as u32)));
            let before = left;
            let done = block.advance(&self.launch, &mut left, memory);
            self.count += before - left;
            if !done? {
                return Ok(Progress::Running);
            }
            self.block = None;
            self.number += 1;
        }
        Ok(Progress::Finished)
    }
}

/// Runs all kernels of a program for a while, with arbitrary parameters.
#[cfg(test)]
pub(crate) fn fuzz(program: Program) {
    static MEMORY: std::sync::LazyLock<parking_lot::Mutex<Memory>> =
        std::sync::LazyLock::new(|| parking_lot::Mutex::new(Memory::new()));
    let mut memory = MEMORY.lock();
    let address = memory
        .allocate(1, 0, 4096, 1 << 40, Purpose::Linear)
        .unwrap();
    let code = Arc::new(Loaded::new(Arc::new(program), &mut memory, (1, 0), 1 << 40).unwrap());
    for (entry, function) in code.program.entries() {
        let size = function
            .parameters
            .iter()
            .map(|one| one.offset + one.size)
            .max();
        let parameters = address
            .to_le_bytes()
            .into_iter()
            .cycle()
            .take(size.unwrap_or(0));
        let mut run = Run::new(&Launch {
            code: Arc::clone(&code),
            entry,
            context: 1,
            grid: [2, 1, 1],
            block: [33, 1, 1],
            shared: 128,
            parameters: parameters.collect(),
        });
        let _ = run.advance(20_000, &mut memory);
    }
    code.free(&mut memory);
    memory.free(address);
}
