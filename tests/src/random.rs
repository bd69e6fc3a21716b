//! Reproducible random numbers, and the number of rounds that randomized tests run.
//!
//! Every test run does a few rounds, and `make test-random` does many. The rounds are the same in every run unless
//! `FAAS_WASM_RANDOM_SEED` changes them. A failing test prints its seed.

fn variable(name: &str, default: u64) -> u64 {
    let text = std::env::var(name).ok();
    text.map_or(default, |text| text.parse().expect("it is a number"))
}

/// The rounds of a test, as seeds. A test must name the seed when it fails.
pub fn rounds() -> impl Iterator<Item = u64> {
    let first = variable("FAAS_WASM_RANDOM_SEED", 1);
    first..first + variable("FAAS_WASM_RANDOM_ROUNDS", 25)
}

/// A generator that only has to be reproducible, not of high quality (xorshift64*).
#[derive(Debug)]
pub struct Random(u64);

impl Random {
    /// The generator for a seed.
    pub fn new(seed: u64) -> Self {
        // Neighboring seeds must not start with similar numbers, and a state of zero would stay zero.
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    /// A number less than `limit`.
    pub fn below(&mut self, limit: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let number = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(number).expect("31 bits fit") % limit
    }

    /// Any byte.
    pub fn byte(&mut self) -> u8 {
        self.below(256).to_le_bytes()[0]
    }

    /// Changes some bytes, and sometimes moves, repeats or drops a range.
    pub fn damage(&mut self, bytes: &mut Vec<u8>) {
        for _ in 0..=self.below(8) {
            let place = self.below(bytes.len());
            match self.below(8) {
                0 => bytes.truncate(place.max(1)),
                1 => {
                    let end = (place + self.below(64)).min(bytes.len());
                    bytes.drain(place..end);
                    bytes.push(self.byte());
                }
                2 => {
                    let end = (place + self.below(64)).min(bytes.len());
                    let stretch = bytes[place..end].to_vec();
                    let at = self.below(bytes.len());
                    bytes.splice(at..at, stretch);
                }
                3 => bytes[place] = 0xff,
                4 => bytes[place] ^= 1 << self.below(8),
                _ => bytes[place] = self.byte(),
            }
        }
    }
}
