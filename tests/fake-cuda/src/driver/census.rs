//! The census that tests read: live objects, counters and violations, in one JSON file. Every call that changed
//! something replaces the whole file afterwards.

use std::collections::{BTreeMap, HashMap};
use std::fs;

use serde::Serialize;

use super::{Driver, SHARED};
use crate::device::Purpose;

/// Maximum number of recorded violations; the first ones matter most.
const MOST_VIOLATIONS: usize = 64;

/// Counters of all events so far.
#[derive(Debug, Default)]
pub(crate) struct Records {
    calls: HashMap<&'static str, u64>,
    violations: Vec<String>,
    violation_count: u64,
    pub(crate) kernels: Kernels,
    pub(crate) left_to_context: u64,
    publish_failed: bool,
}

#[derive(Debug, Default, Clone, Serialize)]
pub(crate) struct Kernels {
    pub(crate) launched: u64,
    pub(crate) finished: u64,
    pub(crate) faulted: u64,
    pub(crate) cancelled: u64,
    pub(crate) instructions: u64,
    pub(crate) last_fault: Option<String>,
}

/// The contents of the file.
#[derive(Debug, Serialize)]
struct Census {
    process: u32,
    live: BTreeMap<&'static str, usize>,
    created: BTreeMap<&'static str, u64>,
    device_bytes: Vec<u64>,
    left_to_context: u64,
    dead: Option<i32>,
    poisoned_contexts: usize,
    kernels: Kernels,
    calls: BTreeMap<&'static str, u64>,
    violation_count: u64,
    violations: Vec<String>,
}

impl Records {
    /// Counts a call and returns the new count.
    pub(crate) fn count(&mut self, function: &'static str) -> u64 {
        let count = self.calls.entry(function).or_default();
        *count += 1;
        *count
    }

    pub(crate) fn violation(&mut self, text: String) {
        self.violation_count += 1;
        if self.violations.len() < MOST_VIOLATIONS {
            self.violations.push(text);
        }
    }
}

impl Driver {
    fn census(&self) -> Census {
        let memory = SHARED.memory.lock();
        let modules = self
            .modules
            .iter()
            .filter(|(_, module)| module.library.is_none())
            .count();
        let threads = self
            .current
            .values()
            .filter(|stack| !stack.is_empty())
            .count();
        let work: usize = self.lanes.values().map(|lane| lane.pending()).sum();
        let owned = self
            .pinned
            .values()
            .filter(|region| region.bytes.is_some())
            .count();
        let primaries = self.devices.iter().map(|device| device.primary_users).sum();
        let live = [
            ("contexts", self.contexts.len() - self.primary_contexts()),
            ("primary_retains", primaries),
            (
                "allocations",
                memory.count(|one| one.purpose == Purpose::Linear),
            ),
            (
                "pool_allocations",
                memory.count(|one| matches!(one.purpose, Purpose::Pooled(_))),
            ),
            (
                "module_globals",
                memory.count(|one| one.purpose == Purpose::Global),
            ),
            ("streams", self.streams.len()),
            ("events", self.events.len()),
            ("modules", modules),
            ("libraries", self.libraries.len()),
            ("pools", self.pools.len() - self.devices.len()),
            (
                "graphs",
                self.graphs
                    .iter()
                    .filter(|(_, graph)| !graph.capturing)
                    .count(),
            ),
            ("graph_execs", self.execs.len()),
            ("links", self.links.len()),
            ("pinned", owned),
            ("registered", self.pinned.len() - owned),
            ("threads_with_context", threads),
            ("pending_work", work),
        ];
        let created = [
            ("contexts", self.contexts.created()),
            ("allocations", memory.created()),
            ("streams", self.streams.created()),
            ("events", self.events.created()),
            ("modules", self.modules.created()),
            ("graph_execs", self.execs.created()),
        ];
        let poisoned = self
            .contexts
            .iter()
            .filter(|(_, context)| context.sticky.is_some());
        Census {
            process: std::process::id(),
            live: live.into_iter().collect(),
            created: created.into_iter().collect(),
            device_bytes: (0..self.devices.len())
                .map(|device| memory.used(device))
                .collect(),
            left_to_context: self.records.left_to_context,
            dead: self.dead.map(|code| code.0),
            poisoned_contexts: poisoned.count(),
            kernels: self.records.kernels.clone(),
            calls: self
                .records
                .calls
                .iter()
                .map(|(name, count)| (*name, *count))
                .collect(),
            violation_count: self.records.violation_count,
            violations: self.records.violations.clone(),
        }
    }

    fn primary_contexts(&self) -> usize {
        self.contexts
            .iter()
            .filter(|(_, context)| context.primary)
            .count()
    }

    /// The census as JSON.
    pub(crate) fn census_text(&self) -> String {
        serde_json::to_string_pretty(&self.census()).unwrap_or_default()
    }

    /// Writes the census to the file that the test named. A reader sees either the complete old file or the complete
    /// new one.
    pub(crate) fn publish(&mut self) {
        let Some(path) = &self.source.census else {
            return;
        };
        let beside = path.with_extension(format!("new-{}", std::process::id()));
        let written = fs::write(&beside, self.census_text());
        let failure = written.and_then(|()| fs::rename(&beside, path)).err();
        if let Some(error) = failure
            && !self.records.publish_failed
        {
            self.records.publish_failed = true;
            let text = format!("{}: {error}", path.display());
            self.violation(text);
        }
    }
}
