//! `Launch`: a sweep file is read, checked and stored.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use ergodic_common::spec::SpecSource;
use ergodic_common::spec::misleading::settings_for_new_sweep;
use ergodic_common::trial::CUDA_F32;
use ergodic_common::{ErrorCode, Spec, SpecError};
use ergodic_proto::status::UserError;
use tonic::Status;

use crate::core::Sweep;
use crate::records::{SweepRow, SweepState, SweepTallies};
use crate::server::limits::Permit;
use crate::server::services::access::SweepApi;

/// A new sweep that can be stored.
pub(crate) struct PreparedSweep {
    pub(crate) row: SweepRow,
    pub(crate) spec: Spec,
    /// What its data look like, in words.
    pub(crate) data_description: String,
}

/// Reads the file of a new sweep for as long as somebody waits for it.
pub(crate) fn read_new_spec(
    source: &SpecSource,
    asked: &impl Fn() -> bool,
) -> Result<Spec, SpecError> {
    let spec = Spec::read_new_while_wanted(source, asked);
    if spec.is_err() && !asked() {
        tracing::debug!("nobody waits for this launch any more");
    }
    spec
}

/// Somebody who waits as long as the first half is there, which the second one tells: work on another thread ends with its request.
pub(crate) fn track_requester() -> (Arc<()>, impl Fn() -> bool) {
    let asker = Arc::new(());
    let waits = Arc::downgrade(&asker);
    (asker, move || waits.strong_count() > 0)
}

/// Eight letters and digits that no earlier sweep has.
pub(crate) fn generate_sweep_id(source: &SpecSource, launched_at: f64) -> String {
    const ALPHABET: &[u8; 32] = b"abcdefghijkmnpqrstuvwxyz23456789";
    let mut hasher = blake3::Hasher::new_derive_key("ergodic 2026 sweep id v1");
    hasher
        .update(source.text.as_bytes())
        .update(&launched_at.to_le_bytes());
    hasher.update(&std::process::id().to_le_bytes());

    hasher.finalize().as_bytes()[..8]
        .iter()
        .map(|b| ALPHABET[(*b % 32) as usize] as char)
        .collect()
}

impl SweepApi {
    /// An unfinished sweep of the same content, the latest if there are several.
    pub(crate) async fn find_unfinished(&self, source: &SpecSource) -> Result<Option<i64>, Status> {
        let source = source.clone();
        self.query_core(move |core| {
            let same = |sweep: &&Sweep| {
                let old = &sweep.record.source;
                sweep.state.is_open()
                    && sweep.withheld.is_none()
                    && old.grammar == source.grammar
                    && (&old.text, &old.settings, &old.files)
                        == (&source.text, &source.settings, &source.files)
            };

            core.sweeps().filter(same).last().map(|sweep| sweep.number)
        })
        .await
    }

    /// Pins a sweep to its numerics class in full, by a setting: a later version of this program must not take it for its own.
    pub(crate) async fn pin_numerics_class(
        &self,
        mut source: SpecSource,
        place: Arc<Permit>,
    ) -> Result<SpecSource, Status> {
        let read = source.clone();
        let (_asker, asked) = track_requester();
        let spec = tokio::task::spawn_blocking(move || {
            let _held = place;
            read_new_spec(&read, &asked)
        });
        let spec = spec.await;

        // What is wrong with it is told later.
        let Ok(Ok(spec)) = spec else {
            return Ok(source);
        };

        // Older programs work on it where they can.
        source.grammar = spec.min_grammar();
        source.settings.extend(settings_for_new_sweep(&spec));
        let numerics = spec.numerics;
        let class = if numerics == CUDA_F32 {
            self.find_cuda_class().await?
        } else {
            numerics
        };
        source.settings.push(format!("numerics=\"{class}\""));

        Ok(source)
    }

    /// The class that joined workers compute on CUDA: it depends on their devices.
    pub(crate) async fn find_cuda_class(&self) -> Result<String, Status> {
        let offered = self.query_core(|core| {
            let all = core
                .workers()
                .filter(|(_, w)| w.connected)
                .flat_map(|(_, w)| w.numerics.clone());
            all.filter(|class| class.starts_with("cuda-f32/"))
                .collect::<BTreeSet<String>>()
        });
        let offered = Vec::from_iter(offered.await?);
        if offered.len() != 1 {
            let message = if offered.is_empty() {
                "numerics: no joined worker computes on CUDA: start one with --device cuda:0 first, or name the class in \
                 full, as in \"cuda-f32/2/sm90/cublas13.1\""
                    .to_owned()
            } else {
                format!(
                    "numerics: joined workers compute in several classes, which do not mix: name one of {}",
                    offered.join(", ")
                )
            };

            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }

        Ok(offered.concat())
    }

    /// Reads the sweep file and pins the dataset: everything that can be wrong is found here, before anything is stored.
    ///
    /// `refuse` says what is asked of it beyond that it can be read.
    pub(crate) async fn prepare_sweep(
        &self,
        source: SpecSource,
        launched_by: String,
        place: Arc<Permit>,
        refuse: impl FnOnce(&Spec) -> Result<(), SpecError> + Send + 'static,
    ) -> Result<PreparedSweep, Status> {
        let catalog = self.0.catalog.clone();
        let (_asker, asked) = track_requester();
        let task = tokio::task::spawn_blocking(move || {
            let _held = place;
            let bad = |message: String| UserError::new(ErrorCode::BadInput, message);
            let mut source = source;
            let spec = read_new_spec(&source, &asked).map_err(|e| bad(e.to_string()))?;
            refuse(&spec).map_err(|e| bad(e.with_file(&source.file).to_string()))?;
            source.grammar = spec.min_grammar();

            source.cells_fingerprint = Some(spec.compute_cells_fingerprint());
            let (data, looks) = catalog
                .pin_dataset(&spec, &source.files)
                .map_err(|e| bad(e.to_string()))?;
            let launched_at = SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0.0, |d| d.as_secs_f64());
            let id = generate_sweep_id(&source, launched_at);

            let state = SweepState::Running;
            let tallies = SweepTallies::default();
            let share = spec.scheduling.share;
            let row = SweepRow {
                number: 0,
                id,
                source,
                data,
                state,
                share,
                launched_at,
                launched_by,
                tallies,
            };

            Ok(PreparedSweep {
                row,
                spec,
                data_description: looks,
            })
        });
        let prepared: Result<_, UserError> =
            task.await.map_err(|e| Status::internal(e.to_string()))?;

        prepared.map_err(Into::into)
    }
}
