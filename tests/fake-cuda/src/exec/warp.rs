//! Instructions that the threads of a warp execute together: shuffles, votes, and warp barriers. A thread waits at
//! the instruction until all threads that it names have arrived; then all of them execute it.

use super::Broken;
use super::block::{Block, State};
use super::{Launch, alu};
use crate::abi::Code;
use crate::ptx::{Kind, Op, ShuffleMode, Source, Type, VoteMode};

const WARP: usize = 32;
const B32: Type = Type {
    kind: Kind::Bits,
    bits: 32,
};

impl Block {
    /// Executes the instruction for each complete group. Returns whether there was one.
    pub(super) fn release_warps(&mut self, launch: &Launch) -> Result<bool, (usize, Broken)> {
        let mut released = false;
        for first in (0..self.threads.len()).step_by(WARP) {
            let last = (first + WARP).min(self.threads.len());
            for thread in first..last {
                let State::Together { members } = self.threads[thread].state else {
                    continue;
                };
                let lane = thread - first;
                if members >> lane & 1 == 0 {
                    let text = "a thread that is not among those it names";
                    return Err((thread, Broken::new(Code::ILLEGAL_INSTRUCTION, text)));
                }
                let named = (first..last).filter(|other| members >> (other - first) & 1 == 1);
                let group: Vec<_> = named
                    .filter(|other| self.threads[*other].state != State::Ended)
                    .collect();
                let place = |thread: usize| {
                    let frame = self.threads[thread].frames.last();
                    frame.map(|frame| (frame.function, frame.next))
                };
                let complete = group.iter().all(|other| {
                    self.threads[*other].state == State::Together { members }
                        && place(*other) == place(thread)
                });
                if complete {
                    self.together(first, &group, launch);
                    released = true;
                }
            }
        }
        Ok(released)
    }

    fn together(&mut self, first: usize, group: &[usize], launch: &Launch) {
        let Some(frame) = group
            .first()
            .and_then(|thread| self.threads[*thread].frames.last())
        else {
            return;
        };
        // The threads are already past the instruction.
        let function = &launch.code.program.functions[frame.function];
        let op = &function.code[frame.next - 1].op;
        match op {
            Op::Shuffle {
                mode,
                to,
                within,
                a,
                b,
                c,
                ..
            } => {
                self.shuffle(first, group, launch, (*mode, *to, *within), [*a, *b, *c]);
            }
            Op::Vote {
                mode,
                to,
                predicate,
                negated,
                ..
            } => {
                self.vote(first, group, launch, (*mode, *to), (*predicate, *negated));
            }
            _ => {}
        }
        for thread in group {
            self.threads[*thread].state = State::Ready;
        }
    }

    fn shuffle(
        &mut self,
        first: usize,
        group: &[usize],
        launch: &Launch,
        (mode, to, within): (ShuffleMode, u16, Option<u16>),
        [a, b, c]: [Source; 3],
    ) {
        let mut results = Vec::new();
        for thread in group {
            let lane = (thread - first) as u64;
            let b = self.value(*thread, b, B32, launch) & 31;
            let c = self.value(*thread, c, B32, launch);
            // As in the specification: a clamp, and a mask that splits the warp into segments.
            let (clamp, segment) = (c & 31, c >> 8 & 31);
            let most = (lane & segment) | (clamp & !segment);
            let least = lane & segment;
            let (from, ok) = match mode {
                ShuffleMode::Up => {
                    let from = lane as i64 - b as i64;
                    (from, from >= most as i64)
                }
                ShuffleMode::Down => ((lane + b) as i64, lane + b <= most),
                ShuffleMode::Butterfly => ((lane ^ b) as i64, lane ^ b <= most),
                ShuffleMode::Index => {
                    let from = least | (b & !segment);
                    (from as i64, from <= most)
                }
            };
            let from = if ok { from as usize } else { lane as usize };
            let other = first + from;
            // A value from a thread that does not take part is undefined.
            let value = match group.contains(&other) {
                true => self.value(other, a, B32, launch),
                false => 0,
            };
            results.push((*thread, value, ok));
        }
        for (thread, value, ok) in results {
            self.write(thread, to, value, launch);
            if let Some(within) = within {
                self.write(thread, within, u64::from(ok), launch);
            }
        }
    }

    fn vote(
        &mut self,
        first: usize,
        group: &[usize],
        launch: &Launch,
        (mode, to): (VoteMode, u16),
        (predicate, negated): (Source, bool),
    ) {
        let mut ballot = 0u64;
        for thread in group {
            let value = self.value(*thread, predicate, B32, launch) & 1 == 1;
            ballot |= u64::from(value != negated) << (thread - first);
        }
        let all = group
            .iter()
            .fold(0u64, |all, thread| all | 1 << (thread - first));
        let result = match mode {
            VoteMode::All => u64::from(ballot == all),
            VoteMode::Any => u64::from(ballot != 0),
            VoteMode::Uniform => u64::from(ballot == 0 || ballot == all),
            VoteMode::Ballot => ballot,
        };
        for thread in group {
            self.write(*thread, to, result, launch);
        }
    }

    /// Lanes of a thread's warp whose threads have not ended.
    pub(super) fn active(&self, thread: usize) -> u64 {
        let first = thread / WARP * WARP;
        let warp = self.threads.iter().skip(first).take(WARP).enumerate();
        warp.fold(0, |mask, (lane, thread)| {
            mask | u64::from(thread.state != State::Ended) << lane
        })
    }
}

/// `%lanemask_..`: the lanes whose number compares this way with this lane's.
pub(super) fn lane_mask(compare: crate::ptx::Compare, lane: u32) -> u64 {
    (0..32).fold(0, |mask, other| {
        mask | u64::from(alu::compare(compare, B32, other, u64::from(lane))) << other
    })
}
