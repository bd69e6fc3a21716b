//! Which of two ways serves a crowd faster, found by trying both in turns.
//!
//! Where many requests come at once, replicas take over the work of guests from the thread that reads requests, if there
//! are cores for them. Whether that is more than what handing over costs is not to be seen from here: it depends on the
//! function, on the machine, and on what else runs on its cores, a proxy or the load's own source. So now and then
//! each way serves some requests, and the one that took less time for them serves the next ones.

use std::time::{Duration, Instant};

/// Requests that one way serves in a row while they are compared: some milliseconds, as other threads may have the core for
/// a few in between.
const WINDOW: u32 = 2048;
/// Each way has its turn so often before they are compared.
const TURNS: u32 = 2;
/// Requests until they are compared again.
const SPELL: u32 = 64 * WINDOW;

/// Where guests of a crowd run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Way {
    /// On the thread that has read their requests.
    Here,
    Replicas,
}

impl Way {
    fn other(self) -> Self {
        match self {
            Self::Here => Self::Replicas,
            Self::Replicas => Self::Here,
        }
    }
}

/// See the module's documentation.
#[derive(Debug)]
pub(super) struct Contest {
    /// What has served faster, and serves but for the other's turns.
    best: Way,
    stage: Stage,
    /// Requests that are left of the stage.
    left: u32,
}

#[derive(Debug)]
enum Stage {
    Spell,
    Turn {
        way: Way,
        /// Turns of both that are over.
        number: u32,
        began: Instant,
        /// What the turns of `best` and of the other took.
        took: [Duration; 2],
    },
}

impl Default for Contest {
    fn default() -> Self {
        Self {
            best: Way::Replicas,
            stage: Stage::Spell,
            left: WINDOW,
        }
    }
}

impl Contest {
    /// The way for the next request of a crowd. The clock is looked at where a turn ends.
    pub(super) fn next(&mut self, clock: impl FnOnce() -> Instant) -> Way {
        if self.left == 0 {
            self.next_stage(clock());
        }
        self.left -= 1;
        match self.stage {
            Stage::Spell => self.best,
            Stage::Turn { way, .. } => way,
        }
    }

    /// There is no crowd any more: turns cannot be compared across that.
    pub(super) fn interrupt(&mut self) {
        if matches!(self.stage, Stage::Turn { .. }) {
            self.stage = Stage::Spell;
            self.left = WINDOW;
        }
    }

    fn next_stage(&mut self, now: Instant) {
        self.left = WINDOW;
        self.stage = match self.stage {
            Stage::Spell => Stage::Turn {
                way: self.best,
                number: 0,
                began: now,
                took: [Duration::ZERO; 2],
            },
            Stage::Turn {
                way,
                number,
                began,
                mut took,
            } => {
                took[usize::from(way != self.best)] += now - began;
                if number + 1 == 2 * TURNS {
                    if took[1] < took[0] {
                        self.best = self.best.other();
                    }
                    self.left = SPELL;
                    Stage::Spell
                } else {
                    Stage::Turn {
                        way: way.other(),
                        number: number + 1,
                        began: now,
                        took,
                    }
                }
            }
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Serves so many requests, each of which takes so long where it runs, and counts those that ran here.
    fn serve(
        contest: &mut Contest,
        now: &mut Instant,
        requests: u32,
        [here, replicas]: [u64; 2],
    ) -> u32 {
        let mut count = 0;
        for _ in 0..requests {
            let way = contest.next(|| *now);
            let took = if way == Way::Here { here } else { replicas };
            *now += Duration::from_nanos(took);
            count += u32::from(way == Way::Here);
        }
        count
    }

    #[test]
    fn the_faster_way_serves_most_requests() {
        let mut contest = Contest::default();
        let mut now = Instant::now();
        let many = 10 * SPELL;
        let comparisons = many.div_ceil(SPELL + 2 * TURNS * WINDOW);
        for [here, replicas] in [[8000, 9000], [9000, 8000], [8000, 9000]] {
            // It takes a spell to see that something has changed.
            serve(&mut contest, &mut now, 2 * SPELL, [here, replicas]);
            let count = serve(&mut contest, &mut now, many, [here, replicas]);
            let slower = if here < replicas { many - count } else { count };
            assert!(
                (1..=comparisons * TURNS * WINDOW).contains(&slower),
                "{slower} of {many} for {here} and {replicas}"
            );
        }
    }

    #[test]
    fn turns_are_not_compared_across_an_interruption() {
        let mut contest = Contest::default();
        let mut now = Instant::now();
        for _ in 0..100 {
            // The other way would win.
            serve(&mut contest, &mut now, 4 * WINDOW, [1000, 9000]);
            contest.interrupt();
        }
        assert_eq!(contest.best, Way::Replicas);
        serve(&mut contest, &mut now, 5 * WINDOW + 1, [1000, 9000]);
        assert_eq!(contest.best, Way::Here);
    }
}
