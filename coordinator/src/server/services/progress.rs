//! `List`, `Status`, `Watch` and `Workers`: the progress of sweeps and workers.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ids::{SweepId, SweepNumber};
use ergodic_proto::v1;
use tokio::sync::oneshot;
use tonic::Status;

use crate::core::Core;
use crate::core::queries::SweepMatch;
use crate::server::ServerContext;
use crate::server::auth::Principal;
use crate::server::engine::UserEvent;
use crate::server::limits::{PageSender, ResponseStream};
use crate::server::services::access::SweepApi;
use crate::server::status::{
    all_statuses, list_statuses_from, sweep_status, unreadable_status, worker_statuses,
};
use crate::server::watch_grid::build_watch_grid;

/// Number of sweeps per page of `ListPages`.
const SWEEPS_PER_PAGE: usize = 500;
/// Minimum time between two messages of `Watch`.
const WATCH_INTERVAL: Duration = Duration::from_millis(250);
/// Maximum time between two messages of `Watch`, because rates fade even if nothing happens.
const MAX_WATCH_INTERVAL: Duration = Duration::from_secs(2);

impl SweepApi {
    /// The body of `List`.
    pub(crate) async fn list_sweeps(&self) -> Result<v1::ListResponse, Status> {
        let sweeps = self.query_core(all_statuses).await?;
        Ok(v1::ListResponse { sweeps })
    }

    /// The body of `ListPages`.
    pub(crate) fn stream_statuses(&self) -> Result<ResponseStream<v1::ListResponse>, Status> {
        let (pages, stream) = PageSender::new(self.0.limits.readers.try_acquire()?);
        let api = Self(self.0.clone());
        tokio::spawn(async move { api.send_status_pages(&pages).await });

        Ok(stream)
    }

    async fn send_status_pages(&self, pages: &PageSender<v1::ListResponse>) {
        let mut from = SweepNumber::UNSTORED;
        loop {
            let page = self
                .query_core(move |core| list_statuses_from(core, from, SWEEPS_PER_PAGE))
                .await;
            let next = page
                .as_ref()
                .ok()
                .filter(|page| page.len() == SWEEPS_PER_PAGE)
                .and_then(|page| page.last())
                .map(|(number, _)| SweepNumber(number.0 + 1));

            let sweeps = page.map(|page| page.into_iter().map(|(_, status)| status).collect());
            let is_sent = pages
                .send_page(sweeps.map(|sweeps| v1::ListResponse { sweeps }))
                .await;

            match next {
                Some(next) if is_sent => from = next,
                _ => return,
            }
        }
    }

    /// The body of `Status`.
    pub(crate) async fn answer_status(&self, word: &str) -> Result<v1::StatusResponse, Status> {
        let status = self
            .with_any_sweep(word, |core, sweep| match sweep {
                SweepMatch::Readable(sweep) => sweep_status(core, sweep),
                SweepMatch::Unreadable(sweep) => unreadable_status(sweep),
            })
            .await?;

        Ok(v1::StatusResponse {
            status: Some(add_server_state(&self.0, status)),
        })
    }

    /// The body of `Watch`. The stream ends with the sweep, or when the principal's token is revoked.
    pub(crate) async fn watch_sweep(
        &self,
        word: &str,
        principal: Option<Principal>,
    ) -> Result<ResponseStream<v1::WatchResponse>, Status> {
        let permit = self.0.limits.watchers.try_acquire()?;
        let id = self.with_sweep(word, |_, sweep| sweep.id.clone()).await?;
        let (messages, stream) = PageSender::new(permit);

        let context = self.0.clone();
        tokio::spawn(async move {
            tokio::select! {
                () = send_watch_updates(context.clone(), id, messages) => {}
                () = context.wait_until_revoked(principal) => {}
            }
        });

        Ok(stream)
    }

    /// The body of `Workers`.
    pub(crate) async fn list_workers(&self) -> Result<v1::WorkersResponse, Status> {
        let workers = self
            .query_core(|core| worker_statuses(core, core_seconds(core)))
            .await?;
        Ok(v1::WorkersResponse { workers })
    }

    /// The body of `DrainWorkers`: the workers that were asked to leave.
    pub(crate) async fn drain_workers_of(
        &self,
        request: v1::DrainWorkersRequest,
    ) -> Result<Vec<v1::WorkerStatus>, Status> {
        let names = request.workers;
        if names.is_empty() {
            return Err(Status::invalid_argument(
                "expected the name or id of a worker",
            ));
        }

        let (reply, answered) = oneshot::channel();
        let event = UserEvent::DrainWorkers { names, reply };
        self.0.engine.send_event(event);
        let asked = answered.await.map_err(|_| self.0.unanswered_status())?;
        Ok(asked?)
    }
}

fn core_seconds(core: &Core) -> f64 {
    core.latest_time().as_secs_f64()
}

/// Adds what the core does not know: trouble with the store, and the leader.
fn add_server_state(context: &ServerContext, status: v1::SweepStatus) -> v1::SweepStatus {
    let leader = context.leadership.other_leader().unwrap_or_default();
    v1::SweepStatus {
        trouble: context.storage_trouble().unwrap_or_default(),
        leader,
        ..status
    }
}

async fn send_watch_updates(
    context: Arc<ServerContext>,
    id: SweepId,
    messages: PageSender<v1::WatchResponse>,
) {
    let mut changes = context.engine.subscribe_changes();
    let mut stopping = context.stopping.clone();

    while let Some(update) = query_watch_update(&context, id.clone()).await {
        let is_last = update.status.as_ref().is_none_or(has_ended);
        // Each watcher has a task of its own, so a slow reader blocks no other.
        if !messages.send_page(Ok(update)).await || is_last {
            return;
        }

        tokio::select! {
            _ = async { tokio::time::sleep(WATCH_INTERVAL).await; changes.changed().await } => {}
            () = tokio::time::sleep(MAX_WATCH_INTERVAL) => {}
            _ = stopping.wait_for(|stopping| *stopping) => return,
            () = messages.wait_closed() => return,
        }
    }
}

/// Queries an update for `Watch`; `None` if the sweep was removed, or the coordinator is stopping.
async fn query_watch_update(context: &ServerContext, id: SweepId) -> Option<v1::WatchResponse> {
    let answer = context
        .engine
        .query_core(move |core| {
            let sweep = core.find_sweep(&id)?;
            Some((sweep_status(core, sweep), build_watch_grid(sweep)))
        })
        .await;
    let (status, grid) = answer.ok()??;

    Some(v1::WatchResponse {
        status: Some(add_server_state(context, status)),
        grid,
    })
}

/// Whether a sweep will not change by itself any more.
fn has_ended(status: &v1::SweepStatus) -> bool {
    let is_open = matches!(
        status.state(),
        v1::SweepState::Running | v1::SweepState::Paused
    );
    !is_open || !status.withheld.is_empty()
}
