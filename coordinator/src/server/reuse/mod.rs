//! Launches only what is missing. Trials are identified by what they resolve to: if another sweep
//! in the store has the result of a trial, its row is copied instead. A file that asks for exactly
//! what a stored sweep has refers to that sweep.
//!
//! Cells are compared by their identities, which are computed here and not in the event loop: those
//! of the new sweep's cells, and those of stored cells with rows under the same seed, streams, data
//! and numerics class.

mod candidate;
mod search;

use std::collections::HashSet;
use std::sync::Arc;

use candidate::LaunchCandidate;
use ergodic_common::ids::{CellIndex, FileHash, SweepId, SweepNumber};
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use search::{ReusableRows, ReuseDecision};
use tokio::sync::oneshot;
use tonic::Status;

use super::engine::events::UserEvent;
use super::limits::Permit;
use super::services::access::SweepApi;
use super::sweep_changes::stopping_status;
use super::{lost_blobs, store_error};
use crate::core::reuse::ComparableSweep;
use crate::core::{Core, Steering};
use crate::records::{SweepRow, SweepState};
use crate::store::ReusingSweep;

impl SweepApi {
    /// Launches a sweep without the trials whose results other sweeps have.
    pub(super) async fn launch_missing_trials(
        &self,
        row: SweepRow,
        spec: Arc<Spec>,
        resume: bool,
        permit: Arc<Permit>,
    ) -> Result<v1::LaunchResponse, Status> {
        let wanted = Arc::new(LaunchCandidate::new(row, spec));
        // The slow search runs before the lock is taken, and again under the lock only if other
        // sweeps have changed by then.
        let before = self.find_reusable(&wanted, &permit, None).await?;

        // In a task of its own, so that it completes even if the client disconnects.
        let api = Self(self.0.clone());
        let task = tokio::spawn(async move {
            let _lock = api.0.launch_state.launch_lock.clone().lock_owned().await;
            let compared = api.find_reusable(&wanted, &permit, Some(before)).await?;
            match compared.decision {
                ReuseDecision::Same(same) => {
                    let other_claims = api.has_other_claims(same.number, &wanted.row).await?;
                    let launched = api.reuse_sweep(*same, resume).await?;
                    Ok(v1::LaunchResponse {
                        other_claims,
                        ..launched
                    })
                }
                ReuseDecision::Parts(parts) => api.launch_with_rows(&wanted, parts).await,
            }
        });

        task.await.map_err(|e| Status::internal(e.to_string()))?
    }

    /// Whether a sweep was launched with other quantities or claims than a new row of the same sweep has.
    async fn has_other_claims(&self, number: SweepNumber, row: &SweepRow) -> Result<bool, Status> {
        let find_source =
            move |core: &Core| core.sweep(number).map(|sweep| sweep.record.source.clone());
        let stored = self.query_core(find_source).await?;

        Ok(stored
            .is_some_and(|stored| stored.compute_claims_hash() != row.source.compute_claims_hash()))
    }

    /// Answers with a sweep that exists already. Its failed trials run again, as do trials whose
    /// weights are lost.
    async fn reuse_sweep(
        &self,
        same: ComparableSweep,
        resume: bool,
    ) -> Result<v1::LaunchResponse, Status> {
        let number = same.number;
        let again = match same.state {
            SweepState::Completed if !same.spec.measure.save.is_empty() => {
                same.failed + lost_blobs::count_missing_weights(&self.0, number).await?
            }
            SweepState::Completed => same.failed,
            _ => 0,
        };
        let (status, retried) = match same.state {
            SweepState::Paused if resume => (self.steer_sweep(number, Steering::Resume).await?, 0),
            SweepState::Completed if again > 0 => match self.retry_sweep(number).await {
                // Nothing failed, so only missing files asked for the retry. They have arrived by
                // now or cannot be checked.
                Err(_) if same.failed == 0 => (self.query_status(number).await?, 0),
                retried => (retried?, again),
            },
            _ => (self.query_status(number).await?, 0),
        };

        Ok(v1::LaunchResponse {
            status,
            found: true,
            retried,
            ..Default::default()
        })
    }

    async fn launch_with_rows(
        &self,
        wanted: &LaunchCandidate,
        parts: ReusableRows,
    ) -> Result<v1::LaunchResponse, Status> {
        if let Some((id, trials)) = &parts.under_way {
            return Err(under_way_error(id, *trials).into());
        }

        let compared: HashSet<CellIndex> = parts.twins.iter().map(|twin| twin.cell).collect();
        let files: Vec<FileHash> = wanted.row.named_files().collect();
        let row = wanted.row.clone();
        let spec = wanted.spec.clone();
        let (number, copied) = if parts.sources.is_empty() && parts.twins.is_empty() {
            (self.store_new_sweep(row, spec).await?, 0)
        } else {
            let reusing = ReusingSweep {
                row,
                seed: spec.seed,
                audit_share: spec.scheduling.audit_share,
                sources: parts.sources,
                twins: parts.twins,
            };
            self.store_reusing_sweep(reusing, spec).await?
        };

        self.0.catalog.blobs.release(&files);
        let status = self.query_status(number).await?;
        let from = if copied > 0 {
            parts.source_ids.into_iter().map(String::from).collect()
        } else {
            Vec::new()
        };
        Ok(v1::LaunchResponse {
            status,
            copied,
            from,
            compared: compared.len() as u64,
            unread: parts.uncompared_ids.into_iter().map(String::from).collect(),
            ..Default::default()
        })
    }

    /// Stores a sweep without rows, and adds it to the engine.
    pub(super) async fn store_new_sweep(
        &self,
        row: SweepRow,
        spec: Arc<Spec>,
    ) -> Result<SweepNumber, Status> {
        let (reply, stored) = oneshot::channel();
        self.0.engine.send_event(UserEvent::Launch {
            row: Box::new(row),
            spec,
            reply,
        });
        stored
            .await
            .map_err(|_| stopping_status())?
            .map_err(|e| Status::from(store_error(e)))
    }

    async fn store_reusing_sweep(
        &self,
        reusing: ReusingSweep,
        spec: Arc<Spec>,
    ) -> Result<(SweepNumber, u64), Status> {
        let (reply, stored) = oneshot::channel();
        let row = reusing.row.clone();
        self.0.engine.send_event(UserEvent::InsertReusing {
            reusing: Box::new(reusing),
            reply,
        });
        let stored = stored.await.map_err(|_| stopping_status())?;
        let (number, copied) = stored.map_err(|e| Status::from(store_error(e)))?;
        self.add_stored_sweep(SweepRow { number, ..row }, spec)
            .await?;

        Ok((number, copied))
    }
}

fn under_way_error(id: &SweepId, trials: u64) -> UserError {
    let message = format!(
        "{trials} of these trials are being run for the sweep {id}: wait for its end (`ergodic watch {id}`) and launch this \
         file again, or add what {id} lacks with `ergodic extend {id} SPEC`, or use --again to run them twice"
    );
    UserError::new(ErrorCode::Refused, message)
}
