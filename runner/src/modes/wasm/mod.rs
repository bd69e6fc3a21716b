//! Wasm mode: each request runs the artifact in a fresh instance, with the body on stdin and the response on stdout.
//!
//! ```text
//! handle      collects the first part of the body, queues a job, answers with what comes out   (tokio)
//! exchange    what both sides share of a request                                               (both)
//! pool, job   replicas: threads that run guests                                                (threads)
//! ```
//!
//! A request takes a replica only when its head and the first part of its body are here, and gives it back when the
//! guest has ended, so that slow clients hold none.

mod cpu_share;
mod cuda;
mod exchange;
mod head;
mod job;
mod limits;
mod metrics;
mod perf_map;
mod pool;
mod scale;
mod streams;

use std::collections::HashSet;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use faas_wasm_engine::Limits;
use faas_wasm_wasi::{Access, Mount, Namespace, Root, WasiContext};
use http::header::CONTENT_TYPE;
use http::{HeaderValue, StatusCode};
use http_body::{Body, Frame};
use tokio::sync::mpsc::UnboundedSender;
use tokio::task::AbortHandle;

use self::cpu_share::CpuShares;
use self::cuda::GuestCuda;
use self::exchange::{Exchange, Held, Hold, INPUT_BUFFER, Outcome};
use self::job::Job;
use self::limits::{Limit, TimeLimit};
use self::metrics::WasmMetrics;
use self::pool::{Pool, Scale};
use self::streams::{ResponseHead, Stderr, Stdin, Stdout};
use super::access::{self, Answer};
use super::{BoxFuture, Mode, StartError, duration_value};
use crate::config::{Config, EnvironmentFilter, ModeName, MountAccess, UseCuda, WasmSettings};
use crate::cuda::{Host, Provider};
use crate::gotext::GoDuration;
use crate::guest::{self, Loaded};
use crate::log::Logger;
use crate::metrics::Metrics;
use crate::request::{Request, RequestBody, RequestHead, request_environment};
use crate::response::{
    self, Response, ResponseBody, ResponseError, X_DURATION_SECONDS, X_OPENFAAS_INTERNAL,
};

/// What the client sees of a failure; the log has the cause.
const FAILED: &str = "the function failed\n";
/// What the client sees of a run that took too long.
const TIMED_OUT: &str = "the function timed out\n";

/// Wasm mode.
#[derive(Debug)]
pub(super) struct Wasm {
    pool: Arc<Pool>,
    cuda: GuestCuda,
    namespace: Arc<Namespace>,
    arguments: Arc<[Vec<u8>]>,
    environment: Arc<[Vec<u8>]>,
    content_type: HeaderValue,
    exec_timeout: GoDuration,
    log_buffer_size: i64,
    settings: Arc<WasmSettings>,
    metrics: WasmMetrics,
    logger: Logger,
    invocations: AtomicU64,
}

impl Wasm {
    /// Loads the artifact, opens what the guest sees of the host, and makes the first replicas.
    pub(super) fn start(
        config: &Config,
        artifact: &std::path::Path,
        logger: &Logger,
        metrics: &Metrics,
        failures: UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let settings = config.wasm.clone();
        let metrics = WasmMetrics::new(&metrics.registry)
            .map_err(|error| StartError::new(format!("cannot register metrics: {error}")))?;
        // What cannot be granted is told before anything is loaded.
        let shares = settings.cpu_share.map(CpuShares::new).transpose();
        let shares = shares.map_err(|error| {
            StartError::new(format!("wasm_cpu_share cannot be enforced: {error}"))
        })?;
        let limits = Limits {
            memory: settings.memory_limit,
            table: settings.table_limit,
            stack: usize::try_from(settings.stack_size).unwrap_or(usize::MAX),
        };
        let began = Instant::now();
        let use_cuda = settings.cuda.use_cuda != UseCuda::Off;
        let Loaded { guest, cuda } = guest::load(artifact, limits, use_cuda)
            .map_err(|error| StartError::new(error.to_string()))?;
        metrics.load_seconds.set(began.elapsed().as_secs_f64());
        if settings.perf_map {
            perf_map::write(guest.module()).map_err(|error| {
                StartError::new(format!("cannot write the map for wasm_perf_map: {error}"))
            })?;
        }
        let scale = Scale {
            min: settings.min_scale,
            max: settings.replicas(),
            idle_timeout: settings.idle_timeout,
            queue_limit: settings.queue_limit as usize,
        };
        let running = &metrics.running;
        let cuda = GuestCuda::start(config, artifact, cuda, logger, running, failures)?;
        let pool = Pool::new(guest, scale, shares, metrics.clone(), logger.clone());
        let namespace = namespace(&settings)?;
        pool.start().map_err(StartError::new)?;
        let arguments: Vec<_> = config
            .fprocess
            .split(' ')
            .map(|word| word.as_bytes().to_vec())
            .collect();
        Ok(Self {
            pool,
            cuda,
            namespace: Arc::new(namespace),
            arguments: arguments.into(),
            environment: inherited(&settings.env).into(),
            content_type: HeaderValue::from_str(&config.content_type)
                .map_err(|_| StartError::new("content_type is not a header value"))?,
            exec_timeout: config.exec_timeout,
            log_buffer_size: config.log_buffer_size,
            settings: Arc::new(settings),
            metrics,
            logger: logger.clone(),
            invocations: AtomicU64::new(0),
        })
    }

    async fn serve(self: Arc<Self>, request: Request) -> Response {
        let Request {
            head,
            mut body,
            ticket,
            ..
        } = request;
        self.invocations.fetch_add(1, Ordering::Relaxed);
        let exchange = Arc::new(Exchange::new(
            Hold {
                bytes: usize::try_from(self.settings.output_hold_bytes)
                    .unwrap_or(usize::MAX)
                    .min(exchange::OUTPUT_BUFFER),
                time: self.settings.output_hold_time,
            },
            self.settings.output_limit,
            self.settings.response,
        ));
        // From here on a client that leaves ends what was begun for it.
        let mut client = Client {
            exchange: Arc::clone(&exchange),
            pool: Arc::clone(&self.pool),
            feeder: None,
        };
        if !preload(&exchange, &mut body).await {
            client.feeder = Some(tokio::spawn(feed(Arc::clone(&exchange), body)).abort_handle());
        }
        let time = TimeLimit::of(&head, self.exec_timeout);
        let job = Job {
            context: self.context(&head, &exchange),
            head: Arc::clone(&head),
            exchange: Arc::clone(&exchange),
            time,
            settings: Arc::clone(&self.settings),
            ticket,
        };
        if !self.pool.submit(job) {
            return self.queue_full();
        }
        let first = tokio::select! {
            first = first_output(&exchange) => first,
            () = waited_too_long(&exchange, time) => {
                self.limit_reached(Limit::QueueWait, time);
                access::log(&self.logger, &head, &Answer {
                    status: StatusCode::GATEWAY_TIMEOUT.as_u16(),
                    status_text: None,
                    bytes: Some(0),
                    seconds: head.received.elapsed().as_secs_f64(),
                    suffix: "",
                });
                Held::Complete(Bytes::new(), Outcome::Timeout)
            }
        };
        let seconds = head.received.elapsed().as_secs_f64();
        let mut response = match first {
            Held::Complete(output, Outcome::Success) => {
                self.success(&exchange, output.into(), true)
            }
            Held::Complete(_, outcome) => {
                let text = match outcome {
                    Outcome::Timeout => TIMED_OUT,
                    _ => FAILED,
                };
                response::text(outcome.status(), text)
            }
            Held::Released | Held::Wait(_) => {
                let body = ResponseBody::stream(Output { client });
                self.success(&exchange, body, false)
            }
        };
        response
            .headers_mut()
            .insert(X_DURATION_SECONDS, duration_value(seconds));
        response
    }

    /// A response with the guest's output, all of it or the stream of it, under the head that the guest wants.
    fn success(&self, exchange: &Exchange, body: ResponseBody, complete: bool) -> Response {
        let head = exchange.take_head();
        let status = head.status.unwrap_or(StatusCode::OK);
        if matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
            // These have neither a body nor its type.
            let mut response = response::empty(status);
            *response.headers_mut() = head.headers;
            response.headers_mut().remove(CONTENT_TYPE);
            return response;
        }
        let length = match &body {
            ResponseBody::Complete(Some(bytes)) => bytes.len() as u64,
            _ => 0,
        };
        let mut response = response::with_body(status, body);
        *response.headers_mut() = head.headers;
        response
            .headers_mut()
            .entry(CONTENT_TYPE)
            .or_insert_with(|| self.content_type.clone());
        if complete {
            response::set_content_length(&mut response, length);
        }
        response
    }

    /// Counts and logs that a request met a limit before it had a replica.
    fn limit_reached(&self, limit: Limit, time: Option<TimeLimit>) {
        self.metrics.limit_reached(limit);
        self.logger.error(&limit.describe(&self.settings, time));
    }

    fn queue_full(&self) -> Response {
        self.limit_reached(Limit::Queue, None);
        let limit = self.settings.queue_limit;
        let message = format!("Too many requests are waiting. Limit: {limit}\n");
        let mut response = response::text(StatusCode::TOO_MANY_REQUESTS, message);
        response.headers_mut().insert(
            X_OPENFAAS_INTERNAL,
            HeaderValue::from_static("faas-middleware"),
        );
        response
    }

    fn context(&self, head: &RequestHead, exchange: &Arc<Exchange>) -> Host {
        let wasi = WasiContext::builder(Arc::clone(&self.namespace))
            .arguments(Arc::clone(&self.arguments))
            .environment(Arc::clone(&self.environment))
            .own_environment(own_environment(head))
            .stdin(Box::new(Stdin(Arc::clone(exchange))))
            .stdout(Box::new(Stdout(Arc::clone(exchange))))
            .stderr(Box::new(Stderr::new(&self.logger, self.log_buffer_size)))
            .side(Box::new(ResponseHead::new(exchange, &self.logger)))
            .quota(self.settings.fs_quota)
            .descriptors(self.settings.fd_limit as usize)
            .build();
        let cuda = self.cuda.provider.as_ref().map(Provider::instance);
        Host { wasi, cuda }
    }
}

/// The variables of a request; of several with one name only the last, as guests take the first that they find.
fn own_environment(head: &RequestHead) -> Vec<Vec<u8>> {
    let mut seen = HashSet::new();
    let mut variables = Vec::new();
    for (name, value) in request_environment(head).into_iter().rev() {
        if seen.insert(name.clone()) {
            let mut variable = name.into_bytes();
            variable.push(b'=');
            // In a guest's environment, too, a NUL is the end of a value.
            variable.extend(value.into_iter().take_while(|byte| *byte != 0));
            variables.push(variable);
        }
    }
    variables
}

/// What every guest sees, and the runner's variables that it shall see.
fn inherited(filter: &EnvironmentFilter) -> Vec<Vec<u8>> {
    use std::os::unix::ffi::OsStringExt as _;
    let wanted = |name: &std::ffi::OsStr| match filter {
        EnvironmentFilter::All => true,
        EnvironmentFilter::Names(names) => names.iter().any(|wanted| name == wanted.as_str()),
    };
    let own = std::env::vars_os()
        .filter(|(name, _)| name != "PWD" && name != "FAAS_RESPONSE" && wanted(name));
    let own = own.map(|(mut name, value)| {
        name.push("=");
        name.push(value);
        name.into_vec()
    });
    let always = ["PWD=/", "FAAS_RESPONSE=/dev/faas/response"];
    let always = always.map(|variable| variable.as_bytes().to_vec());
    always.into_iter().chain(own).collect()
}

fn namespace(settings: &WasmSettings) -> Result<Namespace, StartError> {
    let access = if settings.root_readonly {
        Access::ReadOnly
    } else {
        Access::CopyOnWrite
    };
    let root = Root::open(&settings.root)
        .map_err(|error| StartError::new(format!("wasm_root: {error}")))?;
    let mounts: Vec<_> = settings
        .mounts
        .iter()
        .map(|mount| Mount {
            guest: mount.guest.clone(),
            host: mount.host.clone(),
            access: match mount.access {
                MountAccess::ReadOnly => Access::ReadOnly,
                MountAccess::CopyOnWrite => Access::CopyOnWrite,
                MountAccess::ReadWrite => Access::ReadWrite,
            },
        })
        .collect();
    Namespace::new(root, access)
        .with_mounts(&mounts)
        .map_err(|error| StartError::new(format!("wasm_mounts: {error}")))
}

/// Reads what a request must bring before it takes a replica; says whether that was all of it.
async fn preload(exchange: &Exchange, body: &mut RequestBody) -> bool {
    loop {
        match body.data().await {
            Some(Ok(data)) => {
                if exchange.preload(data) >= INPUT_BUFFER {
                    return false;
                }
            }
            end => {
                exchange.end_input(end.is_some());
                return true;
            }
        }
    }
}

/// Passes on the rest of a body as the guest reads it.
async fn feed(exchange: Arc<Exchange>, mut body: RequestBody) {
    while poll_fn(|context| exchange.poll_room(context)).await.is_ok() {
        match body.data().await {
            Some(Ok(data)) => exchange.feed(data),
            end => {
                exchange.end_input(end.is_some());
                return;
            }
        }
    }
}

/// Waits until the output is complete or released.
async fn first_output(exchange: &Exchange) -> Held {
    // Nothing is due before then, so that a short run wakes its reader once: at its end.
    let mut until = Some(Instant::now() + exchange.hold_time());
    loop {
        let look =
            poll_fn(
                |context| match exchange.poll_held(context, Instant::now(), until.is_none()) {
                    Held::Wait(Some(due)) if until.is_none() => Poll::Ready(Err(due)),
                    Held::Wait(_) => Poll::Pending,
                    held => Poll::Ready(Ok(held)),
                },
            );
        let seen = match until {
            Some(until) => tokio::time::timeout_at(until.into(), look).await.ok(),
            None => Some(look.await),
        };
        match seen {
            Some(Ok(held)) => return held,
            Some(Err(due)) => until = Some(due),
            None => until = None,
        }
    }
}

/// Ends when a job has waited in the queue for as long as it might run.
async fn waited_too_long(exchange: &Exchange, time: Option<TimeLimit>) {
    let Some(time) = time else {
        return std::future::pending().await;
    };
    tokio::time::sleep(time.length).await;
    if exchange.has_begun() {
        std::future::pending().await
    }
}

/// The client's side of an exchange. Dropping it ends the run.
#[derive(Debug)]
struct Client {
    exchange: Arc<Exchange>,
    pool: Arc<Pool>,
    feeder: Option<AbortHandle>,
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.exchange.abandon() {
            self.pool.withdraw(&self.exchange);
        }
        if let Some(feeder) = &self.feeder {
            feeder.abort();
        }
    }
}

/// Output that comes piece by piece.
struct Output {
    client: Client,
}

impl Body for Output {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let output = self.client.exchange.poll_output(context);
        output.map(|piece| {
            piece.map(|piece| match piece {
                Ok(data) => Ok(Frame::data(data)),
                Err(outcome) => Err(format!("the run ended in {outcome:?}").into()),
            })
        })
    }
}

impl Mode for Wasm {
    fn name(&self) -> ModeName {
        ModeName::Wasm
    }

    fn handle(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            match self.cuda.refusal() {
                Some(refusal) => refusal,
                None => self.serve(request).await,
            }
        })
    }

    fn owns_path(&self, path: &str) -> bool {
        path == scale::READER || path == scale::UPDATER
    }

    fn handle_own(self: Arc<Self>, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            if request.head.path == scale::READER {
                scale::read(&self.pool, &self.invocations)
            } else {
                scale::update(&self.pool, &self.logger, request).await
            }
        })
    }

    fn refused(&self) {
        self.limit_reached(Limit::MaxInflight, None);
    }

    fn is_ready(&self) -> bool {
        self.pool.is_ready() && self.cuda.is_ready()
    }

    fn is_healthy(&self) -> bool {
        self.cuda.is_healthy()
    }

    fn drain(self: Arc<Self>) -> BoxFuture<()> {
        Box::pin(async move {
            // They wait, and do not panic.
            let stop = move || {
                self.pool.stop();
                self.cuda.stop();
            };
            let _ = tokio::task::spawn_blocking(stop).await;
        })
    }
}
