//! What is usual: whether a function's runs are short, and how many requests come at once.

use std::time::Duration;

/// What a run may take on average to be short, in nanoseconds: what giving it to a replica takes of both threads'
/// time (measured, see docs/decisions/033-short-runs-inline.md).
const SHORT: u64 = 5_000;
/// A run counts as no longer than this, in nanoseconds, so that a single one changes little: any thread may lose its core
/// for a moment.
const LONGEST: u64 = 50_000;
/// Share of the last run in the average.
const WEIGHT: u64 = 16;
/// Runs that are left to replicas after a trial that failed, at first.
const FIRST_PAUSE: u32 = 64;
/// The same where it happens again and again.
const LONGEST_PAUSE: u32 = 1 << 16;
/// Half of that is forgotten after this many times as many runs without.
const FORGIVES: u32 = 16;

/// The runs that an I/O thread knows of.
#[derive(Debug)]
pub(super) struct Habit {
    /// Average of the last runs, in nanoseconds.
    average: u64,
    /// Runs that are still left to replicas.
    pause: u32,
    /// How many they were after the last trial that failed.
    last_pause: u32,
    /// Runs since then.
    since: u32,
}

impl Default for Habit {
    fn default() -> Self {
        Self {
            average: LONGEST,
            pause: 0,
            last_pause: 0,
            since: 0,
        }
    }
}

impl Habit {
    /// Whether the next run will be short, as far as one can tell.
    pub(super) fn is_short(&self) -> bool {
        self.pause == 0 && self.average <= SHORT
    }

    /// A run has ended after this time, or has not within the time that output is held.
    pub(super) fn note(&mut self, run: Option<Duration>) {
        let run = run.map_or(LONGEST, |run| {
            u64::try_from(run.as_nanos()).map_or(LONGEST, |run| run.min(LONGEST))
        });
        self.average = (self.average * (WEIGHT - 1) + run) / WEIGHT;
        self.pause = self.pause.saturating_sub(1);
        self.since = self.since.saturating_add(1);
        if self.last_pause > 0 && self.since / FORGIVES >= self.last_pause {
            self.last_pause /= 2;
            self.since = 0;
        }
    }

    /// A trial has failed.
    pub(super) fn fail(&mut self) {
        self.last_pause = (self.last_pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
        self.pause = self.last_pause;
        self.since = 0;
    }
}

/// Requests that a thread reads before it waits again, on average, from which on there are many. Found by measuring, see
/// docs/decisions/033-short-runs-inline.md.
const MANY: u32 = 8;
/// How many are few again, when replicas run their guests. Then there are fewer in a turn, as others are waited for.
const FEW: u32 = 4;
/// The average has so many parts of a request.
const PARTS: u32 = 256;
/// Share of the last turn in the average.
const TURNS: u32 = 16;

/// How many requests an I/O thread reads in a turn, before it waits for the next ones.
#[derive(Debug, Default)]
pub(super) struct Crowd {
    requests: u32,
    /// Of the last turns, in [`PARTS`].
    average: u32,
    is_crowded: bool,
}

impl Crowd {
    /// A request was read.
    pub(super) fn add(&mut self) {
        self.requests += 1;
    }

    /// The thread is about to wait.
    pub(super) fn end_turn(&mut self) {
        // Of more than that nobody has to know how many.
        let requests = std::mem::take(&mut self.requests).min(PARTS);
        self.average = (self.average * (TURNS - 1) + requests * PARTS) / TURNS;
        let limit = if self.is_crowded { FEW } else { MANY };
        self.is_crowded = self.average > limit * PARTS;
    }

    /// Whether there are many requests at once.
    pub(super) fn is_crowded(&self) -> bool {
        self.is_crowded
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn many_requests_at_once_are_a_crowd_until_there_are_few() {
        let mut crowd = Crowd::default();
        let mut turns = |requests: u32| {
            for _ in 0..100 {
                (0..requests).for_each(|_| crowd.add());
                crowd.end_turn();
            }
            crowd.is_crowded()
        };
        assert!(!turns(6));
        assert!(turns(10));
        assert!(turns(6), "fewer, as they wait for replicas");
        assert!(!turns(2));
        assert!(!turns(6));
        assert!(turns(u32::from(u16::MAX)));
    }

    const US: Duration = Duration::from_micros(1);

    /// Runs until the next one is taken to be short.
    fn runs_until_short(habit: &mut Habit) -> u32 {
        let mut runs = 0;
        while !habit.is_short() {
            habit.note(Some(US));
            runs += 1;
        }
        runs
    }

    #[test]
    fn short_runs_are_expected_after_short_runs_only() {
        let mut habit = Habit::default();
        assert!(!habit.is_short(), "nothing is known yet");
        assert!((10..100).contains(&runs_until_short(&mut habit)));
        // Runs of which the output does not wait for the end are long.
        habit.note(None);
        habit.note(None);
        assert!(!habit.is_short());
        assert!((1..100).contains(&runs_until_short(&mut habit)));
        for _ in 0..100 {
            habit.note(Some(20 * US));
        }
        assert!(!habit.is_short());
    }

    #[test]
    fn trials_that_fail_again_and_again_are_given_up_for_longer_each_time() {
        let mut habit = Habit::default();
        let mut pauses = Vec::new();
        for _ in 0..20 {
            runs_until_short(&mut habit);
            habit.fail();
            pauses.push(runs_until_short(&mut habit));
        }
        assert_eq!(pauses[..3], [64, 128, 256]);
        assert_eq!(pauses[19], LONGEST_PAUSE);
        // And trusts again after many that were short.
        for _ in 0..LONGEST_PAUSE * FORGIVES * 3 {
            habit.note(Some(US));
        }
        habit.fail();
        assert!(runs_until_short(&mut habit) < LONGEST_PAUSE);
    }
}
