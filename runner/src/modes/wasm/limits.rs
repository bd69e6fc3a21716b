//! What a run may use, and what is told when it meets one of the limits: a count under the limit's name and one line of
//! the log.

use std::time::Duration;

use crate::config::WasmSettings;
use crate::gotext::GoDuration;
use crate::request::RequestHead;

/// A limit that a request in wasm mode can meet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Limit {
    ExecTimeout,
    XTimeout,
    CpuTimeout,
    QueueWait,
    Queue,
    MaxInflight,
    Memory,
    Table,
    Stack,
    Descriptors,
    Overlay,
    Output,
}

impl Limit {
    pub(super) const ALL: [Self; 12] = [
        Self::ExecTimeout,
        Self::XTimeout,
        Self::CpuTimeout,
        Self::QueueWait,
        Self::Queue,
        Self::MaxInflight,
        Self::Memory,
        Self::Table,
        Self::Stack,
        Self::Descriptors,
        Self::Overlay,
        Self::Output,
    ];

    /// Its name in the metrics: the setting's where it has one, without the prefix `wasm_`.
    pub(super) fn label(self) -> &'static str {
        match self {
            Self::ExecTimeout => "exec_timeout",
            Self::XTimeout => "x_timeout",
            Self::CpuTimeout => "cpu_timeout",
            Self::QueueWait => "queue_wait",
            Self::Queue => "queue_limit",
            Self::MaxInflight => "max_inflight",
            Self::Memory => "memory_limit",
            Self::Table => "table_limit",
            Self::Stack => "stack_size",
            Self::Descriptors => "fd_limit",
            Self::Overlay => "fs_quota",
            Self::Output => "output_limit",
        }
    }

    /// What the log says of a request that met it; `time` is the limit of time that applied to it.
    pub(super) fn describe(self, settings: &WasmSettings, time: Option<TimeLimit>) -> String {
        let time = GoDuration::from(time.map(|time| time.length).unwrap_or_default());
        match self {
            Self::ExecTimeout => {
                format!("function stopped at its time limit of {time} (exec_timeout)")
            }
            Self::XTimeout => {
                format!("function stopped at its time limit of {time} (X-Timeout)")
            }
            Self::CpuTimeout => {
                let limit = GoDuration::from(settings.cpu_timeout.unwrap_or_default());
                format!("function stopped at its CPU time limit of {limit} (wasm_cpu_timeout)")
            }
            Self::QueueWait => format!(
                "request given up: no replica was free within its time limit of {time} (exec_timeout, max_scale)"
            ),
            Self::Queue => format!(
                "request refused: {} requests wait for a replica already (wasm_queue_limit)",
                settings.queue_limit
            ),
            Self::MaxInflight => {
                "request refused: as many requests as allowed are in flight (max_inflight)"
                    .to_owned()
            }
            Self::Memory => format!(
                "memory.grow refused: the limit is {} bytes (wasm_memory_limit)",
                settings.memory_limit
            ),
            Self::Table => format!(
                "table.grow refused: the limit is {} elements (wasm_table_limit)",
                settings.table_limit
            ),
            Self::Stack => format!(
                "wasm trap: call stack exhausted: the limit is {} bytes (wasm_stack_size)",
                settings.stack_size
            ),
            Self::Descriptors => format!(
                "descriptor refused: the limit is {} (wasm_fd_limit)",
                settings.fd_limit
            ),
            Self::Overlay => format!(
                "change of files refused: the limit is {} bytes (wasm_fs_quota)",
                settings.fs_quota
            ),
            Self::Output => format!(
                "function stopped: its output is longer than {} bytes (wasm_output_limit)",
                settings.output_limit.unwrap_or_default()
            ),
        }
    }
}

/// How long a request may take, and who says so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimeLimit {
    pub length: Duration,
    /// [`Limit::ExecTimeout`] or [`Limit::XTimeout`].
    pub limit: Limit,
}

impl TimeLimit {
    /// That of a request; `None` if there is none.
    pub(super) fn of(head: &RequestHead, exec_timeout: GoDuration) -> Option<Self> {
        let length = head.execution_limit(exec_timeout)?;
        let limit = if exec_timeout.limit() == Some(length) {
            Limit::ExecTimeout
        } else {
            Limit::XTimeout
        };
        Some(Self { length, limit })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::request::tests::head;

    #[test]
    fn every_limit_has_its_own_name() {
        let labels: HashSet<_> = Limit::ALL.map(Limit::label).into();
        assert_eq!(labels.len(), Limit::ALL.len());
    }

    #[test]
    fn tells_who_limits_the_time() {
        let exec = GoDuration::from_secs(2);
        let of = |header: &str| TimeLimit::of(&head("/", &[("x-timeout", header)]), exec);
        assert_eq!(
            of("1s").map(|time| time.limit),
            Some(Limit::XTimeout),
            "shorter"
        );
        for other in ["2s", "3s", "junk"] {
            assert_eq!(
                of(other).map(|time| time.limit),
                Some(Limit::ExecTimeout),
                "{other}"
            );
        }
        let none = GoDuration::from_secs(0);
        assert_eq!(TimeLimit::of(&head("/", &[]), none), None);
    }
}
