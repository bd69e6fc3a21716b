//! Wasm mode: each request runs the artifact in a fresh instance, with the body on stdin and the response on stdout.
//!
//! ```text
//! handle      collects the first part of the body, queues a job, answers with what comes out   (tokio)
//! exchange    what both sides share of a request                                               (both)
//! trials      short runs on the thread that has read the request                               (tokio)
//! pool, job   replicas: threads that run guests                                                (threads)
//! world       what guests see besides their requests                                           (both)
//! ```
//!
//! A request takes a replica only when its head and the first part of its body are here, and gives it back when the
//! guest has ended, so that slow clients hold none.

mod contest;
mod cpu_share;
mod cuda;
mod exchange;
#[cfg(feature = "fuzzing")]
pub(super) mod fuzzing;
mod habit;
mod head;
mod job;
mod limits;
mod metrics;
mod perf_map;
mod pool;
mod scale;
mod streams;
mod trials;
mod world;

use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use faas_wasm_engine::Limits;
use http::header::CONTENT_TYPE;
use http::{HeaderValue, Method, StatusCode};
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
use self::trials::Trials;
pub(crate) use self::trials::before_waiting;
use self::world::World;
use super::access::{self, Answer};
use super::{BoxFuture, Mode, StartError, duration_value};
use crate::config::{Config, ModeName, UseCuda, WasmSettings};
use crate::gotext::GoDuration;
use crate::guest::{self, Loaded};
use crate::log::Logger;
use crate::metrics::Metrics;
use crate::request::{BodyError, Request, RequestBody, RequestHead};
use crate::response::{
    self, Response, ResponseBody, ResponseError, X_DURATION_SECONDS, X_OPENFAAS_INTERNAL,
};
use crate::server::{ConnectionState, LazyTimer};
use crate::threads::{self, PerThread};

/// What the client sees of a failure; the log has the cause.
const FAILED: &str = "the function failed\n";
/// What the client sees of a run that took too long.
const TIMED_OUT: &str = "the function timed out\n";
/// What a client sees that closes its sending side within a request.
const CUT_OFF: &str = "the request ended before its body did\n";

/// Threads of the runtime, which do I/O: one for every two cores, as most guests have threads of their own. Each more must
/// be woken by another when there is work for it, which costs more than what it takes over.
pub(super) fn io_threads() -> usize {
    (threads::cores() / 2).max(1)
}

/// Wasm mode.
#[derive(Debug)]
pub(super) struct Wasm {
    pool: &'static Pool,
    trials: Option<Trials>,
    cuda: GuestCuda,
    content_type: HeaderValue,
    exec_timeout: GoDuration,
    settings: Arc<WasmSettings>,
    metrics: WasmMetrics,
    logger: Logger,
    invocations: PerThread<AtomicU64>,
}

impl Wasm {
    /// Loads the artifact, opens what the guest sees of the host, and makes the first replicas.
    pub(super) fn start(
        config: &Config,
        artifact: &std::path::Path,
        logger: &Logger,
        metrics: Metrics,
        failures: UnboundedSender<String>,
    ) -> Result<Self, StartError> {
        let settings = Arc::new(config.wasm.clone());
        let metrics = WasmMetrics::new(metrics.registry())
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
        let use_cuda = settings.use_cuda != UseCuda::Off;
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
        let cuda = GuestCuda::start(config, artifact, cuda, logger, &metrics, failures)?;
        let world = World::new(config, &settings, *logger, cuda.provider.clone())?;
        let pool = Pool::new(guest, scale, shares, world, metrics.clone(), *logger);
        pool.start().map_err(StartError::new)?;
        Ok(Self {
            pool,
            trials: Trials::new(&settings, pool, *logger),
            cuda,
            content_type: HeaderValue::from_str(&config.content_type)
                .map_err(|_| StartError::new("content_type is not a header value"))?,
            exec_timeout: config.exec_timeout,
            settings,
            metrics,
            logger: *logger,
            invocations: PerThread::new(AtomicU64::default),
        })
    }

    async fn serve(&'static self, request: Request) -> Response {
        let Request {
            head,
            mut body,
            ticket,
            connection,
            ..
        } = request;
        self.invocations.own().fetch_add(1, Ordering::Relaxed);
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
            pool: self.pool,
            feeder: None,
        };
        match preload(&exchange, &mut body).await {
            Ok(true) => {}
            Ok(false) => client.feeder = Some(Feeder::start(&exchange, body)),
            Err(error @ BodyError::Malformed) => {
                self.logger.error(&error.to_string());
                self.log_unserved(&head, StatusCode::BAD_REQUEST);
                return malformed();
            }
            // The rest of the request will never come, so that there is nothing to run.
            Err(BodyError::CutOff) => {
                self.log_unserved(&head, StatusCode::GATEWAY_TIMEOUT);
                return response::text(StatusCode::GATEWAY_TIMEOUT, CUT_OFF);
            }
            Err(BodyError::Timeout { .. }) => exchange.end_input(true),
        }
        let time = TimeLimit::of(&head, self.exec_timeout);
        let job = Job {
            head: Arc::clone(&head),
            exchange: Arc::clone(&exchange),
            time,
            ticket,
        };
        let attempted = match &self.trials {
            Some(trials) if client.feeder.is_none() => trials.attempt(job),
            _ => Err(job),
        };
        if let Err(job) = attempted
            && !self.pool.submit(job)
        {
            return self.queue_full();
        }
        let first = match exchange.take_complete() {
            Some(complete) => Some(complete),
            None => first_output(&exchange, time, connection.as_deref()).await,
        };
        let first = match first {
            Some(first) => first,
            None => {
                self.limit_reached(Limit::QueueWait, time);
                self.log_unserved(&head, StatusCode::GATEWAY_TIMEOUT);
                Held::Complete(Bytes::new(), Outcome::Timeout)
            }
        };
        let ran = exchange.ran();
        if let Some(trials) = &self.trials {
            trials.note(ran.map(|ran| ran.length));
        }
        let answered = ran.map_or_else(Instant::now, |ran| ran.end);
        let seconds = (answered - head.received).as_secs_f64();
        let mut response = match first {
            Held::Complete(output, Outcome::Success) => {
                self.success(&exchange, output.into(), true)
            }
            Held::Complete(_, Outcome::Timeout) if client.has_sent_malformed() => malformed(),
            Held::Complete(_, outcome) => {
                let text = match outcome {
                    Outcome::Timeout => TIMED_OUT,
                    _ => FAILED,
                };
                response::text(outcome.status(), text)
            }
            Held::Released | Held::Wait(_) => {
                let output = Output {
                    exchange: Arc::clone(&exchange),
                    client: None,
                };
                let mut response = self.success(&exchange, ResponseBody::stream(output), false);
                if head.method == Method::HEAD || has_no_body(response.status()) {
                    // That nobody takes the output is no reason to end the run.
                    tokio::spawn(discard(client));
                } else {
                    *response.body_mut() = ResponseBody::stream(Output {
                        exchange,
                        client: Some(client),
                    });
                }
                response
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
        if has_no_body(status) {
            // Nor has it a type.
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
        if complete && length > response::MAX_AUTOMATIC_LENGTH as u64 {
            response::set_content_length(&mut response, length);
        }
        response
    }

    /// Counts and logs that a request met a limit before it had a replica.
    fn limit_reached(&self, limit: Limit, time: Option<TimeLimit>) {
        self.metrics.limit_reached(limit);
        self.logger.error(&limit.describe(&self.settings, time));
    }

    /// Logs the answer to a request that no guest has run for.
    fn log_unserved(&self, head: &RequestHead, status: StatusCode) {
        let answer = Answer {
            status: status.as_u16(),
            status_text: None,
            bytes: Some(0),
            seconds: head.received.elapsed().as_secs_f64(),
            suffix: "",
        };
        access::log(&self.logger, head, &answer);
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
}

/// Whether responses of this status have no body.
fn has_no_body(status: StatusCode) -> bool {
    matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
}

/// The answer to a body that is not HTTP.
fn malformed() -> Response {
    response::text(
        StatusCode::BAD_REQUEST,
        format!("{}\n", BodyError::Malformed),
    )
}

/// Reads what a request must bring before it takes a replica; says whether that was all of it.
async fn preload(exchange: &Exchange, body: &mut RequestBody) -> Result<bool, BodyError> {
    while let Some(data) = body.data().await {
        if exchange.preload(data?) >= INPUT_BUFFER {
            return Ok(false);
        }
    }
    exchange.end_input(false);
    Ok(true)
}

/// Passes on the rest of a body as the guest reads it.
async fn feed(exchange: Arc<Exchange>, mut body: RequestBody, is_malformed: Arc<AtomicBool>) {
    while poll_fn(|context| exchange.poll_room(context)).await.is_ok() {
        match body.data().await {
            Some(Ok(data)) => exchange.feed(data),
            end => {
                let is_error = matches!(end, Some(Err(BodyError::Malformed)));
                is_malformed.store(is_error, Ordering::Relaxed);
                exchange.end_input(end.is_some());
                if let Some(Err(BodyError::CutOff)) = end {
                    // Also a guest that does not read for a while must not go on for a client that is gone.
                    exchange.abandon();
                }
                return;
            }
        }
    }
}

/// Takes the output of a run to its end.
async fn discard(client: Client) {
    while let Some(Ok(_)) = poll_fn(|context| client.exchange.poll_output(context)).await {}
}

/// Waits until the output is complete or released. `None` if the job has waited in the queue for as long as it might run.
async fn first_output(
    exchange: &Exchange,
    time: Option<TimeLimit>,
    connection: Option<&ConnectionState>,
) -> Option<Held> {
    let began = Instant::now();
    // Nothing is due before then, so that a short run wakes its reader once: at its end.
    let first_look = began + exchange.hold_time();
    let give_up = time.map(|time| began + time.length);
    let mut own_timer = LazyTimer::default();
    let mut now = began;
    poll_fn(move |context| {
        loop {
            let is_late = now >= first_look;
            let due = match exchange.poll_held(context, now, is_late) {
                Held::Wait(due) if is_late => due,
                Held::Wait(_) => Some(first_look),
                held => return Poll::Ready(Some(held)),
            };
            let give_up = match give_up {
                Some(at) if at > now => Some(at),
                Some(_) if !exchange.has_begun() => return Poll::Ready(None),
                _ => None,
            };
            let Some(next) = due.into_iter().chain(give_up).min() else {
                return Poll::Pending;
            };
            ready!(match connection {
                Some(connection) => connection.poll_timer(next, context),
                None => own_timer.poll(next, context),
            });
            now = Instant::now();
        }
    })
    .await
}

/// The client's side of an exchange. Dropping it ends the run.
#[derive(Debug)]
struct Client {
    exchange: Arc<Exchange>,
    pool: &'static Pool,
    feeder: Option<Feeder>,
}

impl Client {
    /// Whether the run ended because the body is not HTTP.
    fn has_sent_malformed(&self) -> bool {
        let feeder = self.feeder.as_ref();
        feeder.is_some_and(|feeder| feeder.is_malformed.load(Ordering::Relaxed))
    }
}

/// The task that [feeds](feed) a guest.
#[derive(Debug)]
struct Feeder {
    task: AbortHandle,
    /// Set before the input ends with that.
    is_malformed: Arc<AtomicBool>,
}

impl Feeder {
    fn start(exchange: &Arc<Exchange>, body: RequestBody) -> Self {
        let is_malformed = Arc::<AtomicBool>::default();
        let feed = feed(Arc::clone(exchange), body, Arc::clone(&is_malformed));
        let task = tokio::spawn(feed).abort_handle();
        Self { task, is_malformed }
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        if !self.exchange.abandon() {
            self.pool.withdraw(&self.exchange);
        }
        if let Some(feeder) = &self.feeder {
            feeder.task.abort();
        }
    }
}

/// Output that comes piece by piece.
struct Output {
    exchange: Arc<Exchange>,
    /// Who is to take it, unless nobody is.
    #[expect(dead_code, reason = "ends the run when it is dropped")]
    client: Option<Client>,
}

impl Body for Output {
    type Data = Bytes;
    type Error = ResponseError;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, ResponseError>>> {
        let output = self.exchange.poll_output(context);
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

    fn handle(&'static self, request: Request) -> BoxFuture<Response> {
        match self.cuda.refusal() {
            Some(refusal) => Box::pin(std::future::ready(refusal)),
            None => Box::pin(self.serve(request)),
        }
    }

    fn owns_path(&self, path: &str) -> bool {
        path == scale::READER || path == scale::UPDATER
    }

    fn handle_own(&'static self, request: Request) -> BoxFuture<Response> {
        Box::pin(async move {
            if request.head.path == scale::READER {
                scale::read(self.pool, &self.invocations)
            } else {
                scale::update(self.pool, self.logger, request).await
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

    fn drain(&'static self) -> BoxFuture<()> {
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
