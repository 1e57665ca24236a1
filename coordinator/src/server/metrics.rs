//! What can be counted about a coordinator, in the text form that Prometheus reads. No label names a trial or a worker: those
//! come and go without bound.

use std::sync::Arc;
use std::task::{Context, Poll};

use ergodic_common::{BUILD, Outcome};
use http::{Request, Response};
use prometheus_client::encoding::{EncodeLabelSet, text};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use tonic::body::Body;
use tonic::codegen::Service;

use crate::core::audits::AuditCounts;
use crate::core::{Core, StoredRow};
use crate::process_stats;
use crate::records::{SweepState, SweepTallies};
use crate::store::writer::WriterMetrics;

/// What is counted where it happens.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<CallLabels, Counter>,
    trial_seconds: Family<OutcomeLabels, Histogram>,
    writer_metrics: Arc<WriterMetrics>,
    is_leader: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: String,
    code: i32,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FindingLabels {
    finding: &'static str,
}

/// The core's numbers at one moment.
#[derive(Debug, Default)]
pub(crate) struct CoreSnapshot {
    epoch: u64,
    sweeps: [(&'static str, u64); 4],
    /// Of open sweeps.
    trials: [(&'static str, u64); 5],
    workers: [(&'static str, u64); 2],
    slots: u64,
    leases: u64,
    tallies: SweepTallies,
    /// Of all sweeps.
    audits: AuditCounts,
    /// Of open sweeps.
    audits_left: u64,
}

impl Metrics {
    /// Beside what the store's writer counts, of a coordinator that leads or stands by.
    pub(crate) fn new(writer_metrics: Arc<WriterMetrics>, is_leader: bool) -> Self {
        // From a millisecond to three hours.
        let histogram = || Histogram::new(exponential_buckets(0.001, 4.0, 12));
        Self {
            requests: Family::default(),
            trial_seconds: Family::new_with_constructor(histogram),
            writer_metrics,
            is_leader,
        }
    }

    /// Trials have got their rows.
    pub(crate) fn count_stored_trials<'a>(&self, rows: impl Iterator<Item = &'a StoredRow>) {
        for row in rows {
            let outcome = match row.outcome {
                Outcome::Completed => "completed",
                Outcome::Diverged { .. } => "diverged",
                Outcome::Failed { .. } => "failed",
            };
            self.trial_seconds
                .get_or_create(&OutcomeLabels { outcome })
                .observe(row.seconds);
        }
    }

    /// Why the store takes nothing at the moment, if so.
    pub(crate) fn storage_trouble(&self) -> Option<String> {
        self.writer_metrics.recent_failure()
    }

    /// Everything as text.
    pub(crate) fn render_text(&self, now: &CoreSnapshot) -> String {
        let mut registry = Registry::with_prefix("ergodic");
        registry.register("build", "The program", Info::new([("version", BUILD)]));
        let requests = self.requests.clone();
        registry.register(
            "grpc_requests",
            "Requests by method and gRPC code as they were first answered",
            requests,
        );

        let seconds = self.trial_seconds.clone();
        registry.register_with_unit(
            "trial",
            "Durations of trials that got their row here",
            Unit::Seconds,
            seconds,
        );

        self.writer_metrics.register_metrics(&mut registry);
        let leads = Gauge::<i64>::default();
        leads.set(self.is_leader.into());
        registry.register(
            "leads",
            "1 if this coordinator leads, 0 if it stands by",
            leads,
        );

        now.register_metrics(&mut registry);
        register_process(&mut registry);
        let mut out = String::new();
        match text::encode(&mut out, &registry) {
            Ok(()) => out,
            Err(_) => unreachable!("a string takes all that is written to it"),
        }
    }
}

impl CoreSnapshot {
    /// Of this core.
    pub(crate) fn from_core(core: &Core) -> Self {
        let mut all = Self {
            epoch: core.epoch(),
            leases: core.lease_count() as u64,
            ..Self::default()
        };

        let state =
            |state: SweepState| core.sweeps().filter(|sweep| sweep.state == state).count() as u64;
        all.sweeps = [
            ("running", state(SweepState::Running)),
            ("paused", state(SweepState::Paused)),
            ("completed", state(SweepState::Completed)),
            ("cancelled", state(SweepState::Cancelled)),
        ];

        let mut waiting = 0;
        let mut leased = 0;
        let mut completed = 0;
        let mut diverged = 0;
        let mut failed = 0;

        for sweep in core.sweeps() {
            let SweepTallies {
                releases,
                duplicates,
                mismatches,
                fenced,
            } = sweep.tallies;
            all.tallies.releases += releases;

            all.tallies.duplicates += duplicates;
            all.tallies.mismatches += mismatches;
            all.tallies.fenced += fenced;
            all.audits.merge(sweep.audits.counts);

            if sweep.state.is_open() {
                all.audits_left += sweep.audits.counts.remaining();
                waiting += sweep.total_trials() - sweep.counts.done() - sweep.leased_count();
                leased += sweep.leased_count();
                completed += sweep.counts.completed;
                diverged += sweep.counts.diverged;

                failed += sweep.counts.failed;
            }
        }

        all.trials = [
            ("waiting", waiting),
            ("leased", leased),
            ("completed", completed),
            ("diverged", diverged),
            ("failed", failed),
        ];

        let connected = core
            .workers()
            .filter(|(_, worker)| worker.connected)
            .count() as u64;
        all.workers = [
            ("joined", connected),
            ("away", core.workers().count() as u64 - connected),
        ];

        all.slots = core
            .workers()
            .filter(|(_, w)| w.connected)
            .map(|(_, w)| u64::from(w.slots))
            .sum();

        all
    }

    fn register_metrics(&self, registry: &mut Registry) {
        let gauge = |value: u64| {
            let gauge = Gauge::<i64>::default();
            gauge.set(value as i64);
            gauge
        };

        let by_state = |values: &[(&'static str, u64)]| {
            let family = Family::<StateLabels, Gauge>::default();
            values.iter().for_each(|(state, value)| {
                _ = family
                    .get_or_create(&StateLabels { state })
                    .set(*value as i64)
            });

            family
        };

        let counter = |value: u64| {
            let counter = Counter::<u64>::default();
            counter.inc_by(value);
            counter
        };

        registry.register(
            "epoch",
            "How often a coordinator was started on the store",
            gauge(self.epoch),
        );
        registry.register("sweeps", "Sweeps by state", by_state(&self.sweeps));

        registry.register(
            "trials",
            "Trials of open sweeps by state",
            by_state(&self.trials),
        );
        registry.register("workers", "Workers by state", by_state(&self.workers));

        registry.register("slots", "Slots of joined workers", gauge(self.slots));
        registry.register("leases", "Leases in force", gauge(self.leases));
        let SweepTallies {
            releases,
            duplicates,
            mismatches,
            fenced,
        } = self.tallies;
        registry.register(
            "leases_lost",
            "Leases that ended with trials left, of all sweeps",
            counter(releases),
        );

        registry.register(
            "duplicate_results",
            "Results that came again, of all sweeps",
            counter(duplicates),
        );
        registry.register(
            "mismatched_results",
            "Results that differed from their row: an alarm",
            counter(mismatches),
        );

        registry.register(
            "fenced_batches",
            "Batches under a lease that was over, of all sweeps",
            counter(fenced),
        );
        let AuditCounts {
            same,
            different,
            failed,
            ..
        } = self.audits;

        let audits = Family::<FindingLabels, Counter>::default();
        for (finding, count) in [("same", same), ("different", different), ("failed", failed)] {
            audits
                .get_or_create(&FindingLabels { finding })
                .inc_by(count);
        }

        registry.register(
            "audits",
            "Trials run again by another worker process, of all sweeps, by finding",
            audits,
        );

        registry.register(
            "audits_left",
            "Audits of open sweeps that are still to come",
            gauge(self.audits_left),
        );
    }
}

fn register_process(registry: &mut Registry) {
    let registry = registry.sub_registry_with_prefix("process");
    let cpu = Gauge::<f64, std::sync::atomic::AtomicU64>::default();
    cpu.set(process_stats::cpu_seconds());
    registry.register_with_unit("cpu", "User and system CPU time", Unit::Seconds, cpu);
    let memory = Gauge::<i64>::default();
    memory.set(process_stats::rss_bytes() as i64);

    registry.register_with_unit("resident_memory", "Memory held now", Unit::Bytes, memory);
    let files = Gauge::<i64>::default();
    files.set(process_stats::open_files() as i64);
    registry.register("open_files", "Files and connections open now", files);
}

impl<S> tower_layer::Layer<S> for Metrics {
    type Service = CountingService<S>;

    fn layer(&self, inner: S) -> CountingService<S> {
        CountingService {
            requests: self.requests.clone(),
            inner,
        }
    }
}

/// A service whose requests are counted.
#[derive(Clone)]
pub(crate) struct CountingService<S> {
    requests: Family<CallLabels, Counter>,
    inner: S,
}

impl<S> Service<Request<Body>> for CountingService<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
    S::Future: Send + 'static,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = std::pin::Pin<Box<dyn Future<Output = Result<Response<Body>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        let path = request.uri().path().to_owned();
        let requests = self.requests.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let code = answer
                .headers()
                .get("grpc-status")
                .and_then(|code| code.to_str().ok()?.parse().ok())
                .unwrap_or(0);

            // Of what there is none, there could be any number of names.
            let known = code != tonic::Code::Unimplemented as i32;
            let method = path
                .rsplit('/')
                .next()
                .filter(|_| known)
                .unwrap_or("unknown")
                .to_owned();
            requests.get_or_create(&CallLabels { method, code }).inc();

            Ok(answer)
        })
    }
}
