//! A block: its threads, its shared memory, and the threads' waits for each other.

use std::collections::BTreeMap;

use super::step::Stepped;
use super::{Broken, Fault, Launch};
use crate::device::Memory;

/// Number of instructions that a thread runs before the next one gets its turn.
const TURN: u64 = 2_000;

/// One call of a function.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) function: usize,
    pub(super) next: usize,
    pub(super) registers: Vec<u64>,
    pub(super) parameters: Vec<u8>,
    /// Start of the frame's part of local memory.
    pub(super) local: usize,
    /// Copies from this frame's parameter space to the caller's: offset, offset, size.
    pub(super) results: Vec<(usize, usize, usize)>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum State {
    Ready,
    /// At a barrier that this many threads must reach, or all threads.
    Barrier {
        id: u64,
        threads: Option<u64>,
    },
    /// At an instruction that the members of a warp execute together.
    Together {
        members: u32,
    },
    Ended,
}

#[derive(Debug)]
pub(super) struct Thread {
    pub(super) index: [u32; 3],
    pub(super) number: u32,
    pub(super) frames: Vec<Frame>,
    pub(super) local: Vec<u8>,
    pub(super) state: State,
}

#[derive(Debug)]
pub(super) struct Block {
    pub(super) index: [u32; 3],
    pub(super) shared: Vec<u8>,
    pub(super) threads: Vec<Thread>,
    /// Number of threads that have arrived at a barrier without waiting there.
    pub(super) arrived: BTreeMap<u64, u64>,
    /// The thread whose turn it is.
    turn: usize,
}

impl Frame {
    pub(super) fn new(launch: &Launch, function: usize, local: usize) -> Self {
        let code = &launch.code.program.functions[function];
        Self {
            function,
            next: 0,
            registers: vec![0; code.masks.len()],
            parameters: vec![0; code.parameter_space],
            local,
            results: Vec::new(),
        }
    }
}

impl Block {
    pub(super) fn new(launch: &Launch, index: [u32; 3]) -> Self {
        let [x, y, z] = launch.block;
        let function = launch.function();
        let threads = (0..x * y * z).map(|number| {
            let mut frame = Frame::new(launch, launch.entry, 0);
            frame.parameters[..launch.parameters.len()].copy_from_slice(&launch.parameters);
            Thread {
                index: [number % x, number / x % y, number / x / y],
                number,
                frames: vec![frame],
                local: vec![0; function.local_size],
                state: State::Ready,
            }
        });
        let shared = launch.code.program.shared_size.next_multiple_of(16) + launch.shared as usize;
        Self {
            index,
            shared: vec![0; shared],
            threads: threads.collect(),
            arrived: BTreeMap::new(),
            turn: 0,
        }
    }

    /// Runs until all threads have ended, which returns `true`, or the budget is used up.
    pub(super) fn advance(
        &mut self,
        launch: &Launch,
        budget: &mut u64,
        memory: &mut Memory,
    ) -> Result<bool, Fault> {
        loop {
            let mut ready = false;
            for _ in 0..self.threads.len() {
                if *budget == 0 {
                    return Ok(false);
                }
                let turn = self.turn;
                self.turn = (turn + 1) % self.threads.len();
                if self.threads[turn].state == State::Ready {
                    ready = true;
                    self.run(turn, launch, budget, memory)
                        .map_err(|(broken, line)| self.fault(turn, broken, line))?;
                }
            }
            if self
                .threads
                .iter()
                .all(|thread| thread.state == State::Ended)
            {
                return Ok(true);
            }
            let released = self.release_barriers();
            let together = self
                .release_warps(launch)
                .map_err(|(turn, broken)| self.fault(turn, broken, 0))?;
            if !ready && !released && !together {
                // No thread can ever continue. As on a device, this is an endless wait that only the end of the
                // context ends.
                *budget = 0;
                return Ok(false);
            }
        }
    }

    fn fault(&self, thread: usize, broken: Broken, line: u32) -> Fault {
        Fault {
            code: broken.code,
            text: broken.text,
            line,
            block: self.index,
            thread: self.threads[thread].index,
        }
    }

    /// Runs a thread for one turn.
    fn run(
        &mut self,
        number: usize,
        launch: &Launch,
        budget: &mut u64,
        memory: &mut Memory,
    ) -> Result<(), (Broken, u32)> {
        let turn = TURN.min(*budget);
        for done in 0..turn {
            match self.step(number, launch, memory)? {
                Stepped::On => {}
                Stepped::Waits(state) => {
                    self.threads[number].state = state;
                    *budget -= done + 1;
                    return Ok(());
                }
            }
        }
        *budget -= turn;
        Ok(())
    }

    /// Releases the threads at a barrier where all threads have arrived. Threads that have ended count as arrived.
    fn release_barriers(&mut self) -> bool {
        let mut waiting = BTreeMap::<u64, (u64, Option<u64>)>::new();
        let mut alive = 0;
        for thread in &self.threads {
            alive += u64::from(thread.state != State::Ended);
            if let State::Barrier { id, threads } = thread.state {
                let (count, wanted) = waiting.entry(id).or_insert((0, threads));
                *count += 1;
                *wanted = wanted.or(threads);
            }
        }
        let mut released = false;
        for (id, (count, wanted)) in waiting {
            let there = count + self.arrived.get(&id).copied().unwrap_or(0);
            if there < wanted.unwrap_or(alive).min(alive) {
                continue;
            }
            self.arrived.remove(&id);
            released = true;
            for thread in &mut self.threads {
                if matches!(thread.state, State::Barrier { id: other, .. } if other == id) {
                    thread.state = State::Ready;
                }
            }
        }
        released
    }
}
