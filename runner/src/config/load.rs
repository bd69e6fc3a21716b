//! Applies the two rule sets to a map of variables: of-watchdog's lenient one, whose fallbacks are warnings, and our
//! strict one, whose errors are collected and reported together.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::path::PathBuf;

use faas_wasm_cuda::Isolation;

use super::table::{self, TABLE, Variable};
use super::values::{self, Expected};
use super::{
    Config, ConfigError, EnvironmentFilter, JwtSettings, LogFormat, ModeName, RejectedMode,
    ResponseFormat, UseCuda, WasmSettings,
};
use crate::gotext::{self, GoDuration};

/// A configuration and what should be said about it.
#[derive(Debug)]
pub struct Loaded {
    /// The validated configuration.
    pub config: Config,
    /// One line each: fallbacks of lenient variables and names nobody reads.
    pub warnings: Vec<String>,
}

/// Builds the configuration from the environment.
///
/// # Errors
/// The first of of-watchdog's own errors in its order, else all errors of strict variables together.
pub fn load(environment: &BTreeMap<String, String>) -> Result<Loaded, ConfigError> {
    let mut source = Source {
        environment,
        warnings: Vec::new(),
        errors: Vec::new(),
    };

    let log_buffer_size = source.text(&table::LOG_BUFFER_SIZE);
    let log_buffer_size =
        gotext::atoi(&log_buffer_size).map_err(|cause| ConfigError::LogBufferSize {
            text: log_buffer_size,
            cause,
        })?;
    let write_timeout = source.go_duration(&table::WRITE_TIMEOUT, GoDuration::default());
    if write_timeout.is_zero() {
        return Err(ConfigError::WriteTimeout);
    }
    let fprocess = source.text(&table::FPROCESS);
    let (mode, rejected_mode) = mode(&source.text(&table::MODE));
    if fprocess.is_empty()
        && mode != Some(ModeName::Static)
        && rejected_mode != Some(RejectedMode::InProcess)
    {
        return Err(ConfigError::MissingCommand);
    }

    let config = Config {
        fprocess,
        mode,
        port: source.lenient_integer(&table::PORT),
        read_timeout: source.go_duration(&table::READ_TIMEOUT, GoDuration::default()),
        write_timeout,
        exec_timeout: source.go_duration(&table::EXEC_TIMEOUT, GoDuration::default()),
        healthcheck_interval: source.go_duration(&table::HEALTHCHECK_INTERVAL, write_timeout),
        upstream_url: source.text(&table::UPSTREAM_URL),
        content_type: source.text(&table::CONTENT_TYPE),
        static_path: source.text(&table::STATIC_PATH),
        suppress_lock: source.bool_a(&table::SUPPRESS_LOCK),
        buffer_request_body: source.bool_a(&table::HTTP_BUFFER_REQ_BODY)
            | source.bool_a(&table::BUFFER_HTTP),
        max_inflight: usize::try_from(source.lenient_integer(&table::MAX_INFLIGHT))
            .ok()
            .filter(|n| *n > 0),
        prefix_logs: source.bool_b(&table::PREFIX_LOGS),
        log_buffer_size,
        ready_path: source.text(&table::READY_PATH),
        log_call_id: source.bool_b(&table::LOG_CALLID),
        jwt: jwt(&mut source),
        lock_file: PathBuf::from(source.text_or_default(&table::TMPDIR)).join(".lock"),
        log_format: source.strict(
            &table::LOG_FORMAT,
            |text| match text {
                "text" => Ok(LogFormat::Text),
                "json" => Ok(LogFormat::Json),
                _ => Err("text or json"),
            },
            LogFormat::Text,
        ),
        metrics_port: source.strict(&table::METRICS_PORT, values::port, 0),
        max_connections: source.strict(&table::MAX_CONNECTIONS, values::positive32, 1) as usize,
        wasm: wasm(&mut source),
        rejected_mode,
    };
    source.report_unknown_names();
    if source.errors.is_empty() {
        Ok(Loaded {
            config,
            warnings: source.warnings,
        })
    } else {
        Err(ConfigError::Invalid(source.errors))
    }
}

fn mode(text: &str) -> (Option<ModeName>, Option<RejectedMode>) {
    match text {
        "" => (None, None),
        "streaming" => (Some(ModeName::Streaming), None),
        "serializing" => (Some(ModeName::Serializing), None),
        "http" => (Some(ModeName::Http), None),
        "static" => (Some(ModeName::Static), None),
        "wasm" => (Some(ModeName::Wasm), None),
        "inproc" => (None, Some(RejectedMode::InProcess)),
        "afterburn" => (None, Some(RejectedMode::Afterburn)),
        other => (None, Some(RejectedMode::Unknown(other.to_owned()))),
    }
}

fn jwt(source: &mut Source<'_>) -> Option<JwtSettings> {
    let (enabled, debug) = (
        source.bool_a(&table::JWT_AUTH),
        source.bool_a(&table::JWT_AUTH_DEBUG),
    );
    let local = source.bool_a(&table::JWT_AUTH_LOCAL);
    enabled.then(|| JwtSettings {
        debug,
        local,
        function_name: source.text(&table::OPENFAAS_NAME),
        namespace: source
            .environment
            .get(table::OPENFAAS_NAMESPACE.name)
            .cloned(),
    })
}

fn wasm(source: &mut Source<'_>) -> WasmSettings {
    let min_scale = source.strict(&table::MIN_SCALE, values::count32, 1);
    let max_scale = source.strict_optional(&table::MAX_SCALE, values::positive32);
    if let Some(max_scale) = max_scale.filter(|max_scale| *max_scale < min_scale) {
        source.errors.push(format!(
            "min_scale={min_scale} is above max_scale={max_scale}"
        ));
    }
    WasmSettings {
        root: PathBuf::from(source.text_or_default(&table::WASM_ROOT)),
        perf_map: source.strict(&table::WASM_PERF_MAP, values::boolean, false),
        root_readonly: source.strict(&table::WASM_ROOT_READONLY, values::boolean, false),
        mounts: source
            .strict_optional(&table::WASM_MOUNTS, values::mounts)
            .unwrap_or_default(),
        fs_quota: source.strict(&table::WASM_FS_QUOTA, values::size, 0),
        env: source
            .strict_optional(&table::WASM_ENV, |text| match text {
                "*" => Ok(EnvironmentFilter::All),
                list => values::names(list).map(EnvironmentFilter::Names),
            })
            .unwrap_or(EnvironmentFilter::Names(Vec::new())),
        min_scale,
        max_scale,
        idle_timeout: source.strict(
            &table::WASM_IDLE_TIMEOUT,
            values::duration,
            Default::default(),
        ),
        queue_limit: source.strict(&table::WASM_QUEUE_LIMIT, values::count32, 0),
        memory_limit: source.strict(&table::WASM_MEMORY_LIMIT, values::size, 0),
        table_limit: source.strict(&table::WASM_TABLE_LIMIT, values::count32, 0),
        stack_size: source.strict(&table::WASM_STACK_SIZE, values::size, 0),
        fd_limit: source.strict(&table::WASM_FD_LIMIT, values::count32, 0),
        output_limit: source.strict_optional(&table::WASM_OUTPUT_LIMIT, values::size),
        cpu_timeout: source.strict_optional(&table::WASM_CPU_TIMEOUT, values::positive_duration),
        cpu_share: source.strict_optional(&table::WASM_CPU_SHARE, values::fraction),
        output_hold_bytes: source.strict(&table::WASM_OUTPUT_HOLD_BYTES, values::size, 0),
        output_hold_time: source.strict(
            &table::WASM_OUTPUT_HOLD_TIME,
            values::duration,
            Default::default(),
        ),
        response: source.strict(
            &table::WASM_RESPONSE,
            |text| match text {
                "raw" => Ok(ResponseFormat::Raw),
                "cgi" => Ok(ResponseFormat::Cgi),
                _ => Err("raw or cgi"),
            },
            ResponseFormat::Raw,
        ),
        use_cuda: use_cuda(source),
        cuda: cuda(source),
    }
}

/// `use_cuda` and `cuda_*` alone, for runs outside a server.
///
/// # Errors
/// [`ConfigError::Invalid`].
pub fn load_cuda(
    environment: &BTreeMap<String, String>,
) -> Result<(UseCuda, faas_wasm_cuda::Settings), ConfigError> {
    let mut source = Source {
        environment,
        warnings: Vec::new(),
        errors: Vec::new(),
    };
    let settings = (use_cuda(&mut source), cuda(&mut source));
    if source.errors.is_empty() {
        Ok(settings)
    } else {
        Err(ConfigError::Invalid(source.errors))
    }
}

fn use_cuda(source: &mut Source<'_>) -> UseCuda {
    source.strict(
        &table::USE_CUDA,
        |text| match text {
            "true" | "1" => Ok(UseCuda::On),
            "false" | "0" => Ok(UseCuda::Off),
            "required" => Ok(UseCuda::Required),
            _ => Err("true, false or required"),
        },
        UseCuda::Off,
    )
}

fn cuda(source: &mut Source<'_>) -> faas_wasm_cuda::Settings {
    // Known, so that nobody takes it for one that has an effect.
    source.strict_optional(&table::CUDA_SM_LIMIT, |text| {
        values::positive32(text).and(Err::<(), _>(
            "nothing, as this runner cannot limit multiprocessors yet",
        ))
    });
    faas_wasm_cuda::Settings {
        devices: source.strict_optional(&table::CUDA_DEVICES, values::ordinals),
        mem_limit: source.strict(&table::CUDA_MEM_LIMIT, values::size, 0),
        max_allocations: source.strict(&table::CUDA_MAX_ALLOCATIONS, values::count32, 0),
        max_streams: source.strict(&table::CUDA_MAX_STREAMS, values::count32, 0),
        max_events: source.strict(&table::CUDA_MAX_EVENTS, values::count32, 0),
        max_modules: source.strict(&table::CUDA_MAX_MODULES, values::count32, 0),
        max_graphs: source.strict(&table::CUDA_MAX_GRAPHS, values::count32, 0),
        max_contexts: source.strict(&table::CUDA_MAX_CONTEXTS, values::count32, 0),
        max_module_size: source.strict(&table::CUDA_MAX_MODULE_SIZE, values::size, 0),
        kernel_timeout: source
            .strict_optional(&table::CUDA_KERNEL_TIMEOUT, values::positive_duration),
        isolation: source.strict(
            &table::CUDA_ISOLATION,
            |text| match text {
                "context" => Ok(Isolation::Context),
                "shared" => Ok(Isolation::Shared),
                _ => Err("context or shared"),
            },
            Isolation::Context,
        ),
        warm_contexts: source.strict(&table::CUDA_WARM_CONTEXTS, values::count32, 0),
        module_cache: source.strict_optional(&table::CUDA_MODULE_CACHE, |text| {
            Ok::<_, Expected>(PathBuf::from(text))
        }),
        strict_params: source.strict(&table::CUDA_STRICT_PARAMS, values::boolean, false),
        driver_library: PathBuf::from(source.text_or_default(&table::CUDA_DRIVER_LIBRARY)),
    }
}

struct Source<'a> {
    environment: &'a BTreeMap<String, String>,
    warnings: Vec<String>,
    errors: Vec<String>,
}

impl Source<'_> {
    /// The variable's text with its name: the overriding name wins when present; an absent one has the default.
    fn lookup<'s>(&'s self, variable: &'s Variable) -> (&'s str, &'s str) {
        [variable.overridden_by, Some(variable.name)]
            .into_iter()
            .flatten()
            .find_map(|name| Some((name, self.environment.get(name)?.as_str())))
            .unwrap_or((variable.name, variable.default))
    }

    /// A string of of-watchdog, where present but empty means empty.
    fn text(&self, variable: &Variable) -> String {
        self.lookup(variable).1.to_owned()
    }

    fn text_or_default(&self, variable: &Variable) -> String {
        let (_, text) = self.lookup(variable);
        if text.is_empty() {
            variable.default.to_owned()
        } else {
            text.to_owned()
        }
    }

    fn fell_back(&mut self, variable: &Variable, used: &dyn Display) {
        let (name, text) = self.lookup(variable);
        self.warnings.push(format!(
            "Warning: {name}={} is not a valid {}, using {used}",
            gotext::quote(text),
            variable.kind
        ));
    }

    /// A duration of of-watchdog; `fallback` applies where the table has no default.
    fn go_duration(&mut self, variable: &Variable, fallback: GoDuration) -> GoDuration {
        let default = parse_go_duration(variable.default).unwrap_or(fallback);
        if !self.environment.contains_key(variable.name) {
            return default;
        }
        parse_go_duration(self.lookup(variable).1).unwrap_or_else(|| {
            self.fell_back(variable, &default);
            default
        })
    }

    /// An integer of of-watchdog: junk is 0, not the default, and so is what is present but empty.
    fn lenient_integer(&mut self, variable: &Variable) -> i64 {
        let (_, text) = self.lookup(variable);
        gotext::atoi(text).unwrap_or_else(|_| {
            self.fell_back(variable, &0);
            0
        })
    }

    fn bool_a(&mut self, variable: &Variable) -> bool {
        let (_, text) = self.lookup(variable);
        match text {
            "true" | "1" => true,
            "" | "false" | "0" => false,
            _ => {
                self.fell_back(variable, &false);
                false
            }
        }
    }

    fn bool_b(&mut self, variable: &Variable) -> bool {
        let default = variable.default == "true";
        let (_, text) = self.lookup(variable);
        if text.is_empty() {
            return default;
        }
        gotext::parse_bool(text).unwrap_or_else(|| {
            self.fell_back(variable, &default);
            default
        })
    }

    /// A strict variable with a default in the table; `on_error` only stands in until the errors are reported.
    fn strict<T, E: Display>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Result<T, E>,
        on_error: T,
    ) -> T {
        let text = self.text_or_default(variable);
        self.checked(variable, &text, parse).unwrap_or(on_error)
    }

    /// A strict variable that is off when absent or empty.
    fn strict_optional<T, E: Display>(
        &mut self,
        variable: &Variable,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        let text = self.text(variable);
        if text.is_empty() {
            None
        } else {
            self.checked(variable, &text, parse)
        }
    }

    fn checked<T, E: Display>(
        &mut self,
        variable: &Variable,
        text: &str,
        parse: impl FnOnce(&str) -> Result<T, E>,
    ) -> Option<T> {
        match parse(text) {
            Ok(value) => Some(value),
            Err(expected) => {
                self.errors.push(format!(
                    "{}={}: expected {expected}",
                    variable.name,
                    gotext::quote(text)
                ));
                None
            }
        }
    }

    fn report_unknown_names(&mut self) {
        const PREFIXES: [&str; 3] = ["wasm_", "cuda_", "faas_"];
        for name in self.environment.keys() {
            let known = TABLE
                .iter()
                .any(|variable| variable.name == name || variable.overridden_by == Some(name));
            // Every variable of the build tool is accepted, also those of a newer one.
            if known
                || name.starts_with("wasm_c_")
                || !PREFIXES.iter().any(|prefix| name.starts_with(prefix))
            {
                continue;
            }
            let nearest = TABLE
                .iter()
                .map(|variable| variable.name)
                .min_by_key(|known| edit_distance(name, known))
                .unwrap_or_default();
            self.warnings.push(format!(
                "Warning: unknown variable {name}, did you mean {nearest}?"
            ));
        }
    }
}

/// A bare integer counts seconds; anything else must be a Go duration.
fn parse_go_duration(text: &str) -> Option<GoDuration> {
    match gotext::atoi(text) {
        Ok(seconds) if seconds >= 0 => Some(GoDuration::from_secs(seconds)),
        _ => GoDuration::parse(text),
    }
}

/// Levenshtein's distance.
fn edit_distance(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.bytes().enumerate() {
            let substituted = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = substituted.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> BTreeMap<String, String> {
        let mut all = BTreeMap::from([("fprocess".to_owned(), "cat".to_owned())]);
        all.extend(
            pairs
                .iter()
                .map(|(name, value)| ((*name).to_owned(), (*value).to_owned())),
        );
        all
    }

    fn loaded(pairs: &[(&str, &str)]) -> Loaded {
        load(&environment(pairs)).expect("a valid configuration")
    }

    fn errors(pairs: &[(&str, &str)]) -> Vec<String> {
        match load(&environment(pairs)) {
            Err(ConfigError::Invalid(errors)) => errors,
            other => panic!("expected strict errors, got {other:?}"),
        }
    }

    #[test]
    fn defaults_are_those_of_the_table() {
        let Loaded { config, warnings } = loaded(&[]);
        assert_eq!(warnings, Vec::<String>::new());
        assert_eq!(config.mode, None);
        assert_eq!(
            (config.port, config.metrics_port, config.max_connections),
            (8080, 8081, 10_000)
        );
        for duration in [
            config.read_timeout,
            config.write_timeout,
            config.exec_timeout,
            config.healthcheck_interval,
        ] {
            assert_eq!(duration, GoDuration::from_secs(30));
        }
        assert_eq!(config.content_type, "application/octet-stream");
        assert_eq!(config.static_path, "/home/app/public");
        assert_eq!(config.lock_file, PathBuf::from("/tmp/.lock"));
        let empty = loaded(&[("TMPDIR", "")]).config;
        assert_eq!(empty.lock_file, config.lock_file);
        assert_eq!(
            (
                config.max_inflight,
                config.prefix_logs,
                config.log_buffer_size
            ),
            (None, true, 65_536)
        );
        let wasm = config.wasm;
        assert_eq!(
            (wasm.min_scale, wasm.max_scale, wasm.queue_limit),
            (1, None, 1024)
        );
        assert_eq!(
            (wasm.fs_quota, wasm.memory_limit, wasm.stack_size),
            (64 << 20, 4 << 30, 1 << 20)
        );
        assert_eq!(wasm.output_hold_time, Duration::from_millis(50));
        assert_eq!(wasm.cuda.driver_library, PathBuf::from("libcuda.so.1"));
    }

    #[test]
    fn overriding_names_win_when_present() {
        let both = [("upstream_url", "http://a"), ("http_upstream_url", "")];
        assert_eq!(loaded(&both).config.upstream_url, "");
        assert_eq!(loaded(&both[..1]).config.upstream_url, "http://a");
        assert_eq!(
            loaded(&[("function_process", "wc -c")]).config.fprocess,
            "wc -c"
        );
        assert_eq!(
            load(&environment(&[("function_process", "")])).expect_err("no command"),
            ConfigError::MissingCommand
        );
    }

    #[test]
    fn lenient_junk_falls_back_with_a_warning() {
        type Get = fn(&Config) -> String;
        let cases: [(&str, &str, Get, &str); 10] = [
            ("exec_timeout", "abc", |c| c.exec_timeout.to_string(), "30s"),
            ("exec_timeout", "-5", |c| c.exec_timeout.to_string(), "30s"),
            ("exec_timeout", "", |c| c.exec_timeout.to_string(), "30s"),
            ("port", "abc", |c| c.port.to_string(), "0"),
            ("port", "", |c| c.port.to_string(), "0"),
            (
                "max_inflight",
                "many",
                |c| format!("{:?}", c.max_inflight),
                "None",
            ),
            (
                "prefix_logs",
                "maybe",
                |c| c.prefix_logs.to_string(),
                "true",
            ),
            (
                "log_callid",
                "maybe",
                |c| c.log_call_id.to_string(),
                "false",
            ),
            (
                "suppress_lock",
                "TRUE",
                |c| c.suppress_lock.to_string(),
                "false",
            ),
            ("jwt_auth", "yes", |c| c.jwt.is_some().to_string(), "false"),
        ];
        for (name, value, get, expected) in cases {
            let Loaded { config, warnings } = loaded(&[(name, value)]);
            assert_eq!(get(&config), expected, "{name}={value}");
            assert_eq!(warnings.len(), 1, "{name}={value}: {warnings:?}");
            assert!(
                warnings[0].contains(name) && warnings[0].contains(&gotext::quote(value)),
                "{}",
                warnings[0]
            );
        }
        let fallback = loaded(&[("write_timeout", "7s"), ("healthcheck_interval", "junk")]).config;
        assert_eq!(fallback.healthcheck_interval, GoDuration::from_secs(7));
    }

    #[test]
    fn durations_accept_seconds_and_go_text() {
        for (text, printed) in [
            ("5", "5s"),
            ("+5", "5s"),
            ("1h30m", "1h30m0s"),
            ("-5s", "-5s"),
            ("0", "0s"),
        ] {
            assert_eq!(
                loaded(&[("exec_timeout", text)])
                    .config
                    .exec_timeout
                    .to_string(),
                printed,
                "{text}"
            );
        }
    }

    #[test]
    fn errors_come_in_the_original_order() {
        let mut all = environment(&[("log_buffer_size", "x"), ("write_timeout", "0")]);
        all.remove("fprocess");
        let message =
            "invalid log_buffer_size value: x, error: strconv.Atoi: parsing \"x\": invalid syntax";
        assert_eq!(load(&all).expect_err("junk").to_string(), message);
        for (text, cause) in [
            ("", "invalid syntax"),
            ("9223372036854775808", "value out of range"),
        ] {
            all.insert("log_buffer_size".to_owned(), text.to_owned());
            let message = load(&all).expect_err("junk").to_string();
            assert!(message.ends_with(cause), "{text}: {message}");
        }
        all.remove("log_buffer_size");
        assert_eq!(load(&all).expect_err("zero"), ConfigError::WriteTimeout);
        all.remove("write_timeout");
        assert_eq!(
            load(&all).expect_err("no command"),
            ConfigError::MissingCommand
        );
        all.insert("mode".to_owned(), "static".to_owned());
        load(&all).expect("static mode needs no command");
    }

    #[test]
    fn modes_are_exact() {
        assert_eq!(
            loaded(&[("mode", "http")]).config.mode,
            Some(ModeName::Http)
        );
        for mode in ["HTTP", "afterburn", "inproc", " http"] {
            assert!(
                loaded(&[("mode", mode)]).config.rejected_mode.is_some(),
                "{mode}"
            );
        }
    }

    #[test]
    fn strict_errors_are_reported_together() {
        let found = errors(&[
            ("wasm_fs_quota", "lots"),
            ("wasm_mounts", "data=/srv"),
            ("min_scale", "5"),
            ("max_scale", "2"),
            ("use_cuda", "yes"),
            ("metrics_port", "70000"),
        ]);
        for part in [
            "metrics_port=\"70000\"",
            "min_scale=5",
            "wasm_mounts=",
            "data=/srv",
            "wasm_fs_quota=",
            "use_cuda=",
        ] {
            assert!(
                found.iter().any(|error| error.contains(part)),
                "{part} in {found:?}"
            );
        }
        assert_eq!(found.len(), 5, "{found:?}");
    }

    #[test]
    fn unknown_names_of_ours_are_warned_about() {
        let found = loaded(&[
            ("wasm_rot", "/"),
            ("cuda_mem_limits", "1Gi"),
            ("wasm_c_opt", "1"),
            ("other", "x"),
        ])
        .warnings;
        assert_eq!(
            found,
            [
                "Warning: unknown variable cuda_mem_limits, did you mean cuda_mem_limit?",
                "Warning: unknown variable wasm_rot, did you mean wasm_root?",
            ]
        );
    }
}
