//! The HTTP port: whether the coordinator lives, whether it can serve, and what there is to count. Only numbers are told, and
//! nobody is asked who they are.

use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use tokio::net::TcpListener;
use tokio::sync::{Mutex, oneshot};

use super::Shared;
use super::engine::Event;
use super::metrics::Snapshot;

/// A store that has not answered after this time is not ready.
const READY_WITHIN: Duration = Duration::from_secs(1);
/// An answer about the store is good for this long, however often it is asked for.
const GOOD_FOR: Duration = Duration::from_millis(500);

struct Http {
    shared: Arc<Shared>,
    ready: Mutex<Option<(Instant, Result<(), String>)>>,
}

/// Serves until the coordinator stops.
pub(super) async fn serve(listener: TcpListener, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut stopping = shared.stopping.clone();
    let http = Arc::new(Http { shared, ready: Mutex::new(None) });
    let router = Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(readyz))
        .route("/metrics", get(metrics))
        .with_state(http);
    let stopped = async move {
        let _ = stopping.wait_for(|stop| *stop).await;
    };
    axum::serve(listener, router).with_graceful_shutdown(stopped).await
}

async fn readyz(State(http): State<Arc<Http>>) -> (StatusCode, String) {
    let mut known = http.ready.lock().await;
    let fresh = known.take_if(|(asked, _)| asked.elapsed() >= GOOD_FOR).is_none() && known.is_some();
    if !fresh {
        *known = Some((Instant::now(), can_serve(&http.shared).await));
    }
    match known.as_ref().map(|(_, answer)| answer.clone()) {
        Some(Err(why)) => (StatusCode::SERVICE_UNAVAILABLE, format!("{why}\n")),
        _ => (StatusCode::OK, "ready\n".to_owned()),
    }
}

/// Whether the store takes results, as far as is known, and a write, which is tried.
async fn can_serve(shared: &Shared) -> Result<(), String> {
    if let Some(why) = shared.metrics.trouble() {
        return Err(why);
    }
    let (reply, answered) = oneshot::channel();
    shared.engine.tell(Event::Probe(reply));
    match tokio::time::timeout(READY_WITHIN, answered).await {
        Ok(Ok(written)) => written.map_err(|e| e.to_string()),
        Ok(Err(_)) => Err("the coordinator is stopping".to_owned()),
        Err(_) => Err("the store has not answered within a second".to_owned()),
    }
}

async fn metrics(State(http): State<Arc<Http>>) -> Response {
    match http.shared.engine.ask(Snapshot::of).await {
        Ok(snapshot) => {
            let kind = [(header::CONTENT_TYPE, "application/openmetrics-text; version=1.0.0; charset=utf-8")];
            (kind, http.shared.metrics.text(&snapshot)).into_response()
        }
        Err(stopped) => (StatusCode::SERVICE_UNAVAILABLE, format!("{stopped}\n")).into_response(),
    }
}
