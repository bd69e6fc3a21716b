//! A test bench for the interpreter: runs kernels and evaluates single instructions.

mod instructions;
mod threads;

use std::sync::Arc;

use super::{Fault, Launch, Loaded, Progress, Run};
use crate::abi::Code;
use crate::device::{Memory, Purpose};
use crate::ptx;

const CONTEXT: u64 = 1;
const HEAD: &str = ".version 8.0\n.target sm_80\n.address_size 64\n";

struct Bench {
    memory: Memory,
}

impl Bench {
    fn new() -> Self {
        Self {
            memory: Memory::new(),
        }
    }

    fn allocate(&mut self, size: usize) -> u64 {
        let address = self
            .memory
            .allocate(CONTEXT, 0, size, 1 << 30, Purpose::Linear)
            .unwrap();
        self.memory
            .bytes_mut(CONTEXT, address, size)
            .unwrap()
            .fill(0);
        address
    }

    fn words(&self, address: u64, count: usize) -> Vec<u32> {
        let bytes = self.memory.bytes(CONTEXT, address, count * 4).unwrap();
        bytes
            .chunks_exact(4)
            .map(|word| u32::from_le_bytes(word.try_into().unwrap()))
            .collect()
    }

    fn launch(&mut self, text: &str, (grid, block): (u32, u32), parameters: &[u64]) -> Run {
        let program = ptx::parse(&format!("{HEAD}{text}")).unwrap();
        let code = Loaded::new(Arc::new(program), &mut self.memory, (CONTEXT, 0), 1 << 30);
        let code = Arc::new(code.unwrap());
        let entry = code.entry("k").unwrap();
        let parameters = parameters
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        Run::new(&Launch {
            code,
            entry,
            context: CONTEXT,
            grid: [grid, 1, 1],
            block: [block, 1, 1],
            shared: 64,
            parameters,
        })
    }

    /// Runs a kernel to its end.
    fn run(&mut self, text: &str, shape: (u32, u32), parameters: &[u64]) -> Result<(), Fault> {
        let mut run = self.launch(text, shape, parameters);
        while run.advance(1000, &mut self.memory)? == Progress::Running {}
        Ok(())
    }

    /// The value of a register after some instructions. They get three numbers in `%h1..3` (16 bits), `%r1..3`, and
    /// `%d1..3`, and in `%p1..3` whether the numbers are odd.
    fn evaluate(&mut self, instructions: &str, result: &str, inputs: [u64; 3]) -> u64 {
        let out = self.allocate(8);
        let loads: String = (1..=3)
            .map(|index| {
                format!(
                    "ld.param.b64 %d{index}, [in{index}]; cvt.u32.u64 %r{index}, %d{index};
                     cvt.u16.u64 %h{index}, %d{index}; and.b64 %d9, %d{index}, 1;
                     setp.eq.b64 %p{index}, %d9, 1;"
                )
            })
            .collect();
        let store = match &result[..2] {
            "%h" => format!("st.global.b16 [%d8], {result};"),
            "%r" => format!("st.global.b32 [%d8], {result};"),
            "%d" => format!("st.global.b64 [%d8], {result};"),
            _ => format!("selp.b32 %r9, 1, 0, {result}; st.global.b32 [%d8], %r9;"),
        };
        let text = format!(
            ".visible .entry k(.param .u64 out, .param .u64 in1, .param .u64 in2, .param .u64 in3) {{
             .reg .pred %p<4>; .reg .b16 %h<5>; .reg .b32 %r<10>; .reg .b64 %d<10>;
             ld.param.u64 %d8, [out]; {loads} {instructions} {store} ret; }}"
        );
        let [a, b, c] = inputs;
        self.run(&text, (1, 1), &[out, a, b, c]).unwrap();
        let bytes = self.memory.bytes(CONTEXT, out, 8).unwrap();
        let bits = match &result[..2] {
            "%h" => 16,
            "%d" => 64,
            _ => 32,
        };
        u64::from_le_bytes(bytes.try_into().unwrap()) & ptx::mask(bits)
    }
}

fn check(cases: &[(&str, &str, [u64; 3], u64)]) {
    let mut bench = Bench::new();
    for (instructions, result, inputs, expected) in cases {
        let found = bench.evaluate(instructions, result, *inputs);
        assert_eq!(
            found, *expected,
            "{instructions} with {inputs:x?}: {found:#x}"
        );
    }
}

/// Bits of floats.
fn f(value: f32) -> u64 {
    u64::from(value.to_bits())
}
fn d(value: f64) -> u64 {
    value.to_bits()
}

const M1: u64 = 0xffff_ffff;
