//! The HTTP server below every sandbox.

use std::time::Duration;

use axum::Router;
use axum::response::Response;
use axum::serve::ListenerExt as _;
use http::StatusCode;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::JoinHandle;

use crate::answer::text_answer;

/// How long requests that are under way may go on when a sandbox is stopped.
const STOP_WITHIN: Duration = Duration::from_secs(5);

/// How long a request that is never answered is held. Real gateways give up after about as long.
const HELD_FOR: Duration = Duration::from_secs(60);

/// Serves `router` until `stopping` turns true. Has to be called within a Tokio runtime.
pub(super) fn start(listener: TcpListener, router: Router, stopping: &watch::Sender<bool>) -> JoinHandle<()> {
    let mut stopping = stopping.subscribe();
    let stop = async move {
        // An error means that nobody is left who could say so.
        let _ = stopping.wait_for(|stopping| *stopping).await;
    };
    let listener = listener.tap_io(|stream| {
        // Small answers are not held back; a connection that refuses the option is only slower.
        let _ = stream.set_nodelay(true);
    });
    tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).with_graceful_shutdown(stop).await {
            tracing::error!(%error, "a sandbox stopped");
        }
    })
}

/// Waits until what is under way is answered, and breaks off what takes too long.
pub(super) async fn finish(server: &mut JoinHandle<()>) {
    if tokio::time::timeout(STOP_WITHIN, &mut *server).await.is_err() {
        server.abort();
    }
}

/// Holds a request until its sender gives up, the sandbox stops, or a gateway would have cut it off.
pub(super) async fn never(stopping: &watch::Sender<bool>) -> Response {
    let mut stopping = stopping.subscribe();
    tokio::select! {
        _ = stopping.wait_for(|stopping| *stopping) => {}
        () = tokio::time::sleep(HELD_FOR) => {}
    }
    text_answer(StatusCode::GATEWAY_TIMEOUT, "text/plain", String::new())
}
