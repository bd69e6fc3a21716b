//! How many cores there are for threads, and what threads change all the time, kept apart by thread.
//!
//! A word that two cores write by turns moves from one to the other each time, which takes some 70 ns (measured on the
//! machine of BENCHMARKS.md); a request to a small function that counted, logged and timed itself in such words spent
//! a quarter of its time on that.

use std::sync::atomic::{AtomicU64, Ordering};

/// Copies of what is kept apart: more threads than this share one, which is correct and slower.
const SHARDS: usize = 16;

/// Cores that the process may use, at least one.
#[must_use]
pub fn cores() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// A small number of the calling thread, its own as long as the process lives.
fn number() -> u64 {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    thread_local! {
        static NUMBER: u64 = NEXT.fetch_add(1, Ordering::Relaxed);
    }
    NUMBER.with(|number| *number)
}

/// A copy for each thread.
#[derive(Debug)]
pub struct PerThread<T>(Box<[Apart<T>]>);

/// As large as what cores move between them: two lines, since they fetch the neighbor too.
#[derive(Debug)]
#[repr(align(128))]
struct Apart<T>(T);

impl<T> PerThread<T> {
    /// Makes the copies.
    #[must_use]
    pub fn new(make: impl FnMut() -> T) -> Self {
        let copies = std::iter::repeat_with(make).take(SHARDS);
        Self(copies.map(Apart).collect())
    }

    /// The calling thread's copy. Others may use it too.
    #[must_use]
    pub fn own(&self) -> &T {
        // What is left is less than their number, whatever the size of a pointer.
        #[expect(clippy::cast_possible_truncation, reason = "only the last bits count")]
        &self.0[number() as usize % SHARDS].0
    }

    /// All copies.
    pub fn all(&self) -> impl Iterator<Item = &T> + Clone {
        self.0.iter().map(|apart| &apart.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn threads_have_copies_of_their_own() {
        let counts = PerThread::new(AtomicU64::default);
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    for _ in 0..1000 {
                        counts.own().fetch_add(1, Ordering::Relaxed);
                    }
                });
            }
        });
        let counts: Vec<_> = counts
            .all()
            .map(|count| count.load(Ordering::Relaxed))
            .collect();
        assert_eq!(counts.iter().sum::<u64>(), 4000);
        assert!(counts.iter().all(|count| count % 1000 == 0));
    }
}
