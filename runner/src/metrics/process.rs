//! `process_*`, with the names and meanings of Prometheus' own client libraries.

use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge};
use rustix::process::{Resource, getrlimit};

/// Reads `/proc/self` at each scrape.
#[derive(Debug)]
pub(super) struct ProcessCollector {
    cpu_seconds: Counter,
    open_fds: Gauge,
    max_fds: Gauge,
    virtual_memory: Gauge,
    virtual_memory_max: Gauge,
    resident_memory: Gauge,
    start_time: Gauge,
}

impl ProcessCollector {
    pub(super) fn new() -> Result<Self, prometheus::Error> {
        Ok(Self {
            cpu_seconds: Counter::new(
                "process_cpu_seconds_total",
                "Total user and system CPU time spent in seconds.",
            )?,
            open_fds: Gauge::new("process_open_fds", "Number of open file descriptors.")?,
            max_fds: Gauge::new(
                "process_max_fds",
                "Maximum number of open file descriptors.",
            )?,
            virtual_memory: Gauge::new(
                "process_virtual_memory_bytes",
                "Virtual memory size in bytes.",
            )?,
            virtual_memory_max: Gauge::new(
                "process_virtual_memory_max_bytes",
                "Maximum amount of virtual memory available in bytes.",
            )?,
            resident_memory: Gauge::new(
                "process_resident_memory_bytes",
                "Resident memory size in bytes.",
            )?,
            start_time: Gauge::new(
                "process_start_time_seconds",
                "Start time of the process since unix epoch in seconds.",
            )?,
        })
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating point by format"
    )]
    fn refresh(&self) {
        if let Some(stat) = Stat::read() {
            let ticks = rustix::param::clock_ticks_per_second() as f64;
            let cpu_seconds = stat.cpu_ticks as f64 / ticks;
            // A counter only grows; so does the time that the kernel reports.
            self.cpu_seconds
                .inc_by((cpu_seconds - self.cpu_seconds.get()).max(0.0));
            self.virtual_memory.set(stat.virtual_bytes as f64);
            self.resident_memory
                .set(stat.resident_pages as f64 * rustix::param::page_size() as f64);
            if let Some(boot) = boot_time() {
                self.start_time
                    .set(boot as f64 + stat.start_ticks as f64 / ticks);
            }
        }
        if let Ok(entries) = std::fs::read_dir("/proc/self/fd") {
            // The directory itself is open while it is counted.
            self.open_fds.set(entries.count().saturating_sub(1) as f64);
        }
        let limit = |resource| {
            getrlimit(resource)
                .current
                .map_or(-1.0, |limit| limit as f64)
        };
        self.max_fds.set(limit(Resource::Nofile));
        self.virtual_memory_max.set(limit(Resource::As));
    }
}

impl Collector for ProcessCollector {
    fn desc(&self) -> Vec<&Desc> {
        let gauges = [
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.virtual_memory_max,
            &self.resident_memory,
            &self.start_time,
        ];
        self.cpu_seconds
            .desc()
            .into_iter()
            .chain(gauges.into_iter().flat_map(|gauge| gauge.desc()))
            .collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        self.refresh();
        let gauges = [
            &self.open_fds,
            &self.max_fds,
            &self.virtual_memory,
            &self.virtual_memory_max,
            &self.resident_memory,
            &self.start_time,
        ];
        self.cpu_seconds
            .collect()
            .into_iter()
            .chain(gauges.into_iter().flat_map(|gauge| gauge.collect()))
            .collect()
    }
}

/// The fields of `/proc/self/stat` that are used, see proc_pid_stat(5).
struct Stat {
    cpu_ticks: u64,
    start_ticks: u64,
    virtual_bytes: u64,
    resident_pages: u64,
}

impl Stat {
    fn read() -> Option<Self> {
        Self::parse(&std::fs::read_to_string("/proc/self/stat").ok()?)
    }

    fn parse(text: &str) -> Option<Self> {
        // The second field is the program's name in parentheses and may hold anything; fields[0] is the third.
        let fields: Vec<&str> = text[text.rfind(')')? + 1..]
            .split_ascii_whitespace()
            .collect();
        let number = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
        Some(Self {
            cpu_ticks: number(14)? + number(15)?,
            start_ticks: number(22)?,
            virtual_bytes: number(23)?,
            resident_pages: number(24)?,
        })
    }
}

/// When the machine started, in seconds since the epoch.
fn boot_time() -> Option<u64> {
    let stat = std::fs::read_to_string("/proc/stat").ok()?;
    stat.lines()
        .find_map(|line| line.strip_prefix("btime "))?
        .trim()
        .parse()
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_stat_behind_a_hostile_name() {
        let text = "7 (a ) b) S 1 7 7 0 -1 4194560 100 0 0 0 11 22 0 0 20 0 4 0 333 4096000 50 18446744073709551615";
        let stat = Stat::parse(text).expect("a stat line");
        assert_eq!(
            (
                stat.cpu_ticks,
                stat.start_ticks,
                stat.virtual_bytes,
                stat.resident_pages
            ),
            (33, 333, 4_096_000, 50)
        );
        assert!(Stat::parse("7 (a) S 1").is_none());
    }
}
