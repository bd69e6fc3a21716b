//! Holds back the beginning of a response of unknown length, so that a short one gets its Content-Length and one
//! without a type can be sniffed.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::response::MAX_AUTOMATIC_LENGTH;

/// How long to hold back; a child that writes more slowly is passed on as it writes.
const HOLD_TIME: Duration = Duration::from_millis(50);

/// The beginning of a body.
pub(super) struct Beginning {
    /// What was read.
    pub(super) data: Bytes,
    /// Whether that is all of it, or why the rest cannot be read.
    pub(super) end: Option<Result<(), hyper::Error>>,
}

/// Reads until the body is known to be long or has ended, or the time is over; at least one piece, if there is one.
pub(super) async fn beginning(body: &mut Incoming) -> Beginning {
    let mut collected = BytesMut::new();
    let time = tokio::time::sleep(HOLD_TIME);
    tokio::pin!(time);
    let end = loop {
        let frame = tokio::select! {
            frame = body.frame() => frame,
            () = &mut time, if !collected.is_empty() => break None,
        };
        match frame {
            None => break Some(Ok(())),
            Some(Err(cause)) => break Some(Err(cause)),
            Some(Ok(frame)) => {
                // Trailers are dropped.
                if let Ok(data) = frame.into_data() {
                    collected.extend_from_slice(&data);
                }
            }
        }
        if collected.len() > MAX_AUTOMATIC_LENGTH {
            break None;
        }
    };
    Beginning {
        data: collected.freeze(),
        end,
    }
}
