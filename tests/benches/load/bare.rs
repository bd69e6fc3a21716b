//! The bare server, which measures the cost of hyper and the kernel alone. Also the upstream of http mode.

use std::convert::Infallible;
use std::net::Ipv4Addr;

use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use rustix::process::{Signal, set_parent_process_death_signal};
use tokio::net::TcpListener;

/// The argument that selects this role in a child process; the port follows.
pub(crate) const FLAG: &str = "--bare";

/// The response to every request without a body.
pub(crate) const GREETING: &str = "hello, world\n";

/// Serves until the process is killed or its parent has ended. Without the second condition, an upstream would
/// outlive a watchdog that was killed.
pub(crate) fn serve(port: u16) {
    set_parent_process_death_signal(Some(Signal::KILL)).expect("it is a known signal");
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build();
    let runtime = runtime.expect("threads can be started");
    runtime.block_on(async {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.expect("the parent has picked a free port");
        loop {
            let Ok((stream, _)) = listener.accept().await else {
                continue;
            };
            tokio::spawn(async move {
                let _ = stream.set_nodelay(true);
                let connection = http1::Builder::new()
                    .serve_connection(TokioIo::new(stream), service_fn(respond))
                    .await;
                // The load generator cuts its connections when its time is over.
                drop(connection);
            });
        }
    });
}

async fn respond(request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    // If the body breaks off, the client is gone and no response is needed.
    let body = request.into_body().collect().await.unwrap_or_default();
    let body = match body.to_bytes() {
        empty if empty.is_empty() => Bytes::from_static(GREETING.as_bytes()),
        body => body,
    };
    let mut response = Response::new(Full::new(body));
    response.headers_mut().insert(
        hyper::header::CONTENT_TYPE,
        hyper::header::HeaderValue::from_static("application/octet-stream"),
    );
    Ok(response)
}
