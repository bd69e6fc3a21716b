//! Histograms that are kept apart by thread and put together at a scrape.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use prometheus::proto::{Bucket, Histogram as Exposed};

/// How a histogram is exposed: the upper bounds of its buckets, in the whole units that are observed, and how many of
/// them are one of the metric's unit.
#[derive(Debug)]
pub struct Scale<const N: usize> {
    /// Ascending.
    pub bounds: [u64; N],
    /// 1e9 for a metric in seconds that is observed in nanoseconds.
    pub per_unit: f64,
}

/// A time as histograms in seconds observe it.
#[must_use]
pub fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// One thread's part of a histogram.
#[derive(Debug)]
pub struct Histogram<const N: usize> {
    /// By bucket, without those of the buckets before.
    counts: [AtomicU64; N],
    above: AtomicU64,
    sum: AtomicU64,
}

impl<const N: usize> Default for Histogram<N> {
    fn default() -> Self {
        Self {
            counts: std::array::from_fn(|_| AtomicU64::default()),
            above: AtomicU64::default(),
            sum: AtomicU64::default(),
        }
    }
}

impl<const N: usize> Histogram<N> {
    /// Counts a value.
    pub fn observe(&self, scale: &Scale<N>, value: u64) {
        let bucket = scale.bounds.iter().position(|bound| value <= *bound);
        let count = bucket.map_or(&self.above, |bucket| &self.counts[bucket]);
        count.fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(value, Ordering::Relaxed);
    }

    /// How many values there were.
    #[must_use]
    pub fn count(&self) -> u64 {
        let counts = self.counts.iter().chain([&self.above]);
        counts.map(|count| count.load(Ordering::Relaxed)).sum()
    }
}

impl<const N: usize> Scale<N> {
    /// Puts the parts of a histogram together.
    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating point by format"
    )]
    pub fn expose<'a>(&self, parts: impl Iterator<Item = &'a Histogram<N>> + Clone) -> Exposed {
        let total = |of: &dyn Fn(&Histogram<N>) -> u64| parts.clone().map(of).sum::<u64>();
        let mut below = 0;
        let buckets = self.bounds.iter().enumerate().map(|(index, bound)| {
            below += total(&|part| part.counts[index].load(Ordering::Relaxed));
            let mut bucket = Bucket::default();
            bucket.set_upper_bound(*bound as f64 / self.per_unit);
            bucket.set_cumulative_count(below);
            bucket
        });
        let mut exposed = Exposed::default();
        exposed.set_bucket(buckets.collect());
        // What is counted meanwhile must not make the last bucket smaller than one before it.
        exposed.set_sample_count(below + total(&|part| part.above.load(Ordering::Relaxed)));
        let sum = total(&|part| part.sum.load(Ordering::Relaxed));
        exposed.set_sample_sum(sum as f64 / self.per_unit);
        exposed
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_add_up() {
        let scale = Scale {
            bounds: [10, 1000],
            per_unit: 1000.0,
        };
        let parts = [Histogram::default(), Histogram::default()];
        for (part, value) in [(0, 0), (0, 10), (1, 11), (1, 1000), (1, 5000)] {
            parts[part].observe(&scale, value);
        }
        let exposed = scale.expose(parts.iter());
        let buckets: Vec<_> = exposed
            .get_bucket()
            .iter()
            .map(|bucket| (bucket.upper_bound(), bucket.cumulative_count()))
            .collect();
        assert_eq!(buckets, [(0.01, 2), (1.0, 4)]);
        assert_eq!(exposed.get_sample_count(), 5);
        assert_eq!(parts[0].count() + parts[1].count(), 5);
        assert!((exposed.get_sample_sum() - 6.021).abs() < 1e-9);
    }
}
