//! Every environment variable of the runner, in the order of the documentation.
//!
//! The parsers take a variable's default from here and `CONFIGURATION.md` is generated from here, so a default is
//! written once. Defaults that depend on another variable or on the machine are described in words.

/// Who decides how junk is treated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rules {
    /// A variable of of-watchdog: junk falls back and is logged.
    Lenient,
    /// A variable of our own: junk stops the start.
    Strict,
}

/// A chapter of the documentation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Group {
    /// Of-watchdog's variables.
    Watchdog,
    /// Our own variables that apply in every mode.
    AllModes,
    /// Wasm mode.
    Wasm,
    /// The CUDA imports of wasm mode.
    Cuda,
    /// Read by the build tool, accepted and ignored by the runner.
    Build,
}

impl Group {
    /// The groups in the order of the documentation.
    pub const ALL: [Self; 5] = [
        Self::Watchdog,
        Self::AllModes,
        Self::Wasm,
        Self::Cuda,
        Self::Build,
    ];

    /// Whether junk in a variable of this group stops the start.
    #[must_use]
    pub fn rules(self) -> Rules {
        match self {
            Self::Watchdog => Rules::Lenient,
            Self::AllModes | Self::Wasm | Self::Cuda | Self::Build => Rules::Strict,
        }
    }
}

/// One environment variable.
#[derive(Debug)]
pub struct Variable {
    /// Its exact name.
    pub name: &'static str,
    /// Another name with the same meaning that wins when it is present.
    pub overridden_by: Option<&'static str>,
    /// The chapter it belongs to.
    pub group: Group,
    /// Its type, as the documentation names it.
    pub kind: &'static str,
    /// The default in the variable's own grammar; empty for none.
    pub default: &'static str,
    /// The default in words, where it cannot be written in the variable's grammar.
    pub default_note: &'static str,
    /// What it does.
    pub meaning: &'static str,
}

macro_rules! variables {
    ($($group:ident {
        $($id:ident = $name:literal $(| $winner:literal)?, $kind:literal, $default:literal $(($note:literal))?, $meaning:literal;)*
    })*) => {
        $($(
            #[doc = $meaning]
            pub const $id: Variable = Variable {
                name: $name,
                overridden_by: variables!(@winner $($winner)?),
                group: Group::$group,
                kind: $kind,
                default: $default,
                default_note: concat!($($note)?),
                meaning: $meaning,
            };
        )*)*
        /// All variables.
        pub const TABLE: &[&Variable] = &[$($(&$id,)*)*];
    };
    (@winner) => { None };
    (@winner $winner:literal) => { Some($winner) };
}

variables! {
    Watchdog {
        FPROCESS = "fprocess" | "function_process", "command", "",
            "The function: a command split at every single space, or in wasm mode the artifact and its arguments. `function_process` wins whenever it is present, even empty. Required except in static mode. Without `mode`, a first word that ends in `.so` or `.wasm` must exist.";
        MODE = "mode", "name", "" ("`wasm` if the first word of the command names an artifact, else `streaming`"),
            "`streaming`, `serializing`, `http`, `static` or `wasm`. `inproc` and `afterburn` are refused.";
        PORT = "port", "integer", "8080",
            "Port of the function server, on IPv4 and IPv6. Junk and `0` let the kernel pick one.";
        READ_TIMEOUT = "read_timeout", "duration", "30s",
            "From the first byte of a request to the end of its body; also how long an idle kept-alive connection stays open.";
        WRITE_TIMEOUT = "write_timeout", "duration", "30s",
            "From the end of a request's head to the last byte of its response; also how long a drain may take. Exactly zero is an error.";
        EXEC_TIMEOUT = "exec_timeout", "duration", "30s",
            "How long the function may take for one request. Zero or negative: no limit.";
        HEALTHCHECK_INTERVAL = "healthcheck_interval", "duration", "" ("`write_timeout`"),
            "How long requests are still served after SIGTERM, with the probes already failing.";
        UPSTREAM_URL = "upstream_url" | "http_upstream_url", "URL", "",
            "Where http mode sends requests. `http_upstream_url` wins whenever it is present, even empty.";
        CONTENT_TYPE = "content_type", "string", "application/octet-stream",
            "Content-Type of the response in streaming, serializing and wasm mode. Present but empty is taken as empty.";
        STATIC_PATH = "static_path", "path", "/home/app/public",
            "Directory that static mode serves.";
        SUPPRESS_LOCK = "suppress_lock", "bool A", "false",
            "Write no lock file. The probes then fail unless something else creates it.";
        BUFFER_HTTP = "buffer_http", "bool A", "false",
            "Another name of `http_buffer_req_body`; either of them turns it on.";
        HTTP_BUFFER_REQ_BODY = "http_buffer_req_body", "bool A", "false",
            "Http mode: read the whole request body first and send it with a Content-Length.";
        MAX_INFLIGHT = "max_inflight", "integer", "0",
            "Most requests in the function at a time; one more gets 429. Zero, negative and junk: no limit.";
        PREFIX_LOGS = "prefix_logs", "bool B", "true",
            "Put time and stream before the function's log lines.";
        LOG_BUFFER_SIZE = "log_buffer_size", "integer", "65536",
            "Longest log line of the function in bytes, newline included. Negative: unlimited, in wasm mode 1 MiB. Junk is an error.";
        READY_PATH = "ready_path", "path", "",
            "The function's own path that `/_/ready` asks.";
        LOG_CALLID = "log_callid", "bool B", "false",
            "Http mode: end the access line with the request's `X-Call-Id`.";
        JWT_AUTH = "jwt_auth", "bool A", "false",
            "Require a token of the OpenFaaS gateway.";
        JWT_AUTH_DEBUG = "jwt_auth_debug", "bool A", "false",
            "Log the keys and the token's audience and issuer.";
        JWT_AUTH_LOCAL = "jwt_auth_local", "bool A", "false",
            "Ask the issuer at `http://127.0.0.1:8000` instead of the gateway's.";
        OPENFAAS_NAME = "OPENFAAS_NAME", "string", "",
            "Name of the function, matched against the permissions of a token.";
        OPENFAAS_NAMESPACE = "OPENFAAS_NAMESPACE", "string", "" ("the service account's namespace file"),
            "Namespace of the function, likewise.";
        TMPDIR = "TMPDIR", "path", "/tmp",
            "Directory of the lock file `.lock`.";
    }
    AllModes {
        LOG_FORMAT = "log_format", "`text` or `json`", "text",
            "`json`: one object a line.";
        METRICS_PORT = "metrics_port", "port", "8081",
            "Port of `/metrics`. `0` lets the kernel pick one.";
        MAX_CONNECTIONS = "max_connections", "integer", "10000",
            "Open client connections; beyond it new ones wait in the backlog.";
    }
    Wasm {
        WASM_ROOT = "wasm_root", "path", "/",
            "Lower layer of the guest's `/`.";
        WASM_ROOT_READONLY = "wasm_root_readonly", "bool", "false",
            "EROFS instead of an upper layer.";
        WASM_MOUNTS = "wasm_mounts", "list of `GUEST=HOST[:ro|:cow|:rw]`", "",
            "Further directories of the guest; read-only unless said otherwise.";
        WASM_FS_QUOTA = "wasm_fs_quota", "size", "64Mi",
            "Upper layer of one instance, bytes and nodes.";
        WASM_ENV = "wasm_env", "list of names, or `*`", "",
            "The runner's variables that the guest sees.";
        MIN_SCALE = "min_scale", "integer", "1",
            "Replicas kept ready always.";
        MAX_SCALE = "max_scale", "integer", "" ("number of CPU cores"),
            "Most replicas, so most guests running at once.";
        WASM_IDLE_TIMEOUT = "wasm_idle_timeout", "duration", "30s",
            "A replica above the floor that has been idle so long ends.";
        WASM_QUEUE_LIMIT = "wasm_queue_limit", "integer", "1024",
            "Requests waiting for a replica; one more gets 429.";
        WASM_MEMORY_LIMIT = "wasm_memory_limit", "size", "4Gi",
            "Linear memory of one instance, all its memories together: `memory.grow` beyond it gives -1, a larger initial memory is refused at start.";
        WASM_TABLE_LIMIT = "wasm_table_limit", "integer", "1000000",
            "Elements in the tables of one instance, likewise.";
        WASM_STACK_SIZE = "wasm_stack_size", "size", "1Mi",
            "Stack of the guest.";
        WASM_FD_LIMIT = "wasm_fd_limit", "integer", "256",
            "Open descriptors of one instance.";
        WASM_OUTPUT_LIMIT = "wasm_output_limit", "size", "" ("unlimited"),
            "Longest response body.";
        WASM_CPU_TIMEOUT = "wasm_cpu_timeout", "duration", "" ("none"),
            "CPU time of one request.";
        WASM_CPU_SHARE = "wasm_cpu_share", "fraction", "" ("none"),
            "Share of one core per running instance, by a threaded cgroup v2 subtree; the start fails where none can be made.";
        WASM_OUTPUT_HOLD_BYTES = "wasm_output_hold_bytes", "size", "64Ki",
            "Output is held back until so much of it is there, until `wasm_output_hold_time` has passed, or until the guest ends.";
        WASM_OUTPUT_HOLD_TIME = "wasm_output_hold_time", "duration", "50ms",
            "See `wasm_output_hold_bytes`.";
        WASM_RESPONSE = "wasm_response", "`raw` or `cgi`", "raw",
            "`cgi`: the guest's output begins with a CGI head. With either, lines `Status: 404` and `Name: value` written to `/dev/faas/response` (`FAAS_RESPONSE`) before there is output set status and headers.";
        WASM_PERF_MAP = "wasm_perf_map", "bool", "false",
            "Write `/tmp/perf-PID.map`, from which `perf` has the names of the guest's functions.";
    }
    Cuda {
        USE_CUDA = "use_cuda", "`true`, `false` or `required`", "false",
            "Give the guest the CUDA driver API. `true`: without a driver its calls fail. `required`: without a driver the runner does not start.";
        CUDA_DEVICES = "cuda_devices", "list of ordinals", "" ("all visible"),
            "Devices of the guest, in its own numbering.";
        CUDA_MEM_LIMIT = "cuda_mem_limit", "size", "1Gi",
            "Device memory of one instance.";
        CUDA_MAX_ALLOCATIONS = "cuda_max_allocations", "integer", "65536",
            "Live device allocations of one instance.";
        CUDA_MAX_STREAMS = "cuda_max_streams", "integer", "64",
            "Live streams of one instance.";
        CUDA_MAX_EVENTS = "cuda_max_events", "integer", "4096",
            "Live events of one instance.";
        CUDA_MAX_MODULES = "cuda_max_modules", "integer", "64",
            "Loaded modules of one instance.";
        CUDA_MAX_GRAPHS = "cuda_max_graphs", "integer", "64",
            "Live graphs of one instance.";
        CUDA_MAX_CONTEXTS = "cuda_max_contexts", "integer", "4",
            "Live contexts of one instance.";
        CUDA_MAX_MODULE_SIZE = "cuda_max_module_size", "size", "64Mi",
            "Largest module image.";
        CUDA_KERNEL_TIMEOUT = "cuda_kernel_timeout", "duration", "" ("`exec_timeout`"),
            "Longest wait for the device.";
        CUDA_SM_LIMIT = "cuda_sm_limit", "integer", "" ("none"),
            "Refused: this runner cannot limit streaming multiprocessors yet.";
        CUDA_ISOLATION = "cuda_isolation", "`context` or `shared`", "context",
            "Whether instances share a CUDA context.";
        CUDA_WARM_CONTEXTS = "cuda_warm_contexts", "integer", "1",
            "Contexts made ahead.";
        CUDA_MODULE_CACHE = "cuda_module_cache", "path", "" ("none"),
            "Directory for device code compiled from PTX.";
        CUDA_STRICT_PARAMS = "cuda_strict_params", "bool", "false",
            "Refuse kernel launches whose parameter layout is not known for certain.";
        CUDA_DRIVER_LIBRARY = "cuda_driver_library", "path", "libcuda.so.1",
            "The driver's library.";
    }
    Build {
        WASM_C_TARGET = "wasm_c_target", "triple", "",
            "Target of `faas-wasm build`.";
        WASM_C_CPU_FEATURES = "wasm_c_cpu_features", "list", "",
            "CPU features of `faas-wasm build`.";
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_are_unique_and_explained() {
        let mut seen = BTreeSet::new();
        for variable in TABLE {
            assert!(seen.insert(variable.name), "{} twice", variable.name);
            assert!(variable.meaning.ends_with('.'), "{}", variable.name);
        }
    }
    /// A variable that is only listed would be documented, accepted, and ignored.
    #[test]
    fn every_variable_is_read() {
        let (load, _) = include_str!("load.rs")
            .split_once("mod tests")
            .expect("code and tests");
        let is_part = |c: char| c.is_ascii_alphanumeric() || c == '_';
        let read: BTreeSet<_> = load
            .split("table::")
            .filter_map(|rest| rest.split(|c| !is_part(c)).next())
            .collect();
        for variable in TABLE.iter().filter(|v| v.group != Group::Build) {
            let constant = variable.name.to_uppercase();
            assert!(read.contains(&*constant), "{} is not read", variable.name);
        }
    }
}
