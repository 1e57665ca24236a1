//! Metrics of a coordinator in the text format of Prometheus. No label names a trial or a worker,
//! because there is no limit on their number.

use std::sync::Arc;
use std::task::{Context, Poll};

use ergodic_common::ids::Epoch;
use ergodic_common::{BUILD, Outcome};
use ergodic_proto::rpc::RpcMethod;
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
use crate::core::{Core, StoredRow, Sweep};
use crate::process_stats;
use crate::records::{SweepState, SweepTallies};
use crate::store::writer::WriterMetrics;

/// Metrics that are counted where events happen.
#[derive(Clone)]
pub(crate) struct Metrics {
    requests: Family<CallLabels, Counter>,
    trial_seconds: Family<OutcomeLabels, Histogram>,
    writer_metrics: Arc<WriterMetrics>,
    is_leader: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct CallLabels {
    method: &'static str,
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

/// Numbers from the core at one moment.
#[derive(Debug, Default)]
pub(crate) struct CoreSnapshot {
    epoch: Epoch,
    sweeps: [(&'static str, u64); 4],
    /// Numbers of trials in open sweeps.
    trials: [(&'static str, u64); 5],
    workers: [(&'static str, u64); 2],
    slots: u64,
    leases: u64,
    tallies: SweepTallies,
    /// Numbers of audits in all sweeps.
    audits: AuditCounts,
    /// Number of remaining audits in open sweeps.
    audits_left: u64,
}

impl Metrics {
    /// Creates the metrics of a leader or a standby, with those of the store's writer.
    pub(crate) fn new(writer_metrics: Arc<WriterMetrics>, is_leader: bool) -> Self {
        Self {
            requests: Family::default(),
            trial_seconds: Family::new_with_constructor(duration_histogram),
            writer_metrics,
            is_leader,
        }
    }

    /// Counts trials whose rows were stored.
    pub(crate) fn count_stored_trials(&self, rows: &[StoredRow]) {
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

    /// The reason why the store accepts nothing at the moment, if so.
    pub(crate) fn storage_trouble(&self) -> Option<String> {
        self.writer_metrics.recent_failure()
    }

    /// Renders all metrics in the text format of Prometheus.
    pub(crate) fn render_text(&self, now: &CoreSnapshot) -> String {
        let mut registry = Registry::with_prefix("ergodic");
        registry.register("build", "The program", Info::new([("version", BUILD)]));
        let requests = self.requests.clone();
        registry.register(
            "grpc_requests",
            "Requests by method and gRPC code of the first answer",
            requests,
        );

        let seconds = self.trial_seconds.clone();
        registry.register_with_unit(
            "trial",
            "Durations of trials whose rows this coordinator stored",
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
    /// Counts the core's sweeps, trials and workers.
    pub(crate) fn from_core(core: &Core) -> Self {
        let mut snapshot = Self {
            epoch: core.epoch(),
            leases: core.lease_count() as u64,
            sweeps: count_sweeps(core),
            trials: count_open_trials(core),
            ..Self::default()
        };

        for sweep in core.sweeps() {
            snapshot.add_tallies(sweep);
        }
        snapshot.add_workers(core);

        snapshot
    }

    fn add_tallies(&mut self, sweep: &Sweep) {
        self.tallies.lost_leases += sweep.tallies.lost_leases;
        self.tallies.duplicates += sweep.tallies.duplicates;
        if sweep.spec.must_repeat_exactly() {
            self.tallies.mismatches += sweep.tallies.mismatches;
        }
        self.tallies.fenced += sweep.tallies.fenced;
        self.audits.merge(sweep.audits.counts);

        if sweep.state.is_open() {
            self.audits_left += sweep.audits.counts.remaining();
        }
    }

    fn add_workers(&mut self, core: &Core) {
        let connected = core.workers().filter(|(_, worker)| worker.connected);
        let mut joined = 0;
        for (_, worker) in connected {
            joined += 1;
            self.slots += u64::from(worker.slots);
        }

        let away = core.workers().count() as u64 - joined;
        self.workers = [("joined", joined), ("away", away)];
    }

    fn register_metrics(&self, registry: &mut Registry) {
        registry.register(
            "epoch",
            "Epoch of the leadership, which grows by one with every new leader or restart",
            gauge_of(self.epoch.0),
        );
        registry.register("sweeps", "Sweeps by state", gauges_by_state(&self.sweeps));
        registry.register(
            "trials",
            "Trials of open sweeps by state",
            gauges_by_state(&self.trials),
        );
        registry.register(
            "workers",
            "Workers by state",
            gauges_by_state(&self.workers),
        );
        registry.register("slots", "Slots of joined workers", gauge_of(self.slots));
        registry.register("leases", "Leases in force", gauge_of(self.leases));

        self.register_tallies(registry);
        self.register_audits(registry);
    }

    fn register_tallies(&self, registry: &mut Registry) {
        registry.register(
            "leases_lost",
            "Leases that ended with trials left, of all sweeps",
            counter_of(self.tallies.lost_leases),
        );
        registry.register(
            "duplicate_results",
            "Results that were delivered again, of all sweeps",
            counter_of(self.tallies.duplicates),
        );
        registry.register(
            "mismatched_results",
            "Results that differed from their row: an alarm",
            counter_of(self.tallies.mismatches),
        );
        registry.register(
            "fenced_batches",
            "Batches delivered under an ended lease, of all sweeps",
            counter_of(self.tallies.fenced),
        );
    }

    fn register_audits(&self, registry: &mut Registry) {
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
            "Audits of open sweeps that have not been run yet",
            gauge_of(self.audits_left),
        );
    }
}

/// A histogram with buckets from a millisecond to three hours.
fn duration_histogram() -> Histogram {
    Histogram::new(exponential_buckets(0.001, 4.0, 12))
}

fn count_sweeps(core: &Core) -> [(&'static str, u64); 4] {
    [
        ("running", SweepState::Running),
        ("paused", SweepState::Paused),
        ("completed", SweepState::Completed),
        ("cancelled", SweepState::Cancelled),
    ]
    .map(|(name, state)| {
        let sweeps = core.sweeps().filter(|sweep| sweep.state == state);
        (name, sweeps.count() as u64)
    })
}

fn count_open_trials(core: &Core) -> [(&'static str, u64); 5] {
    let mut waiting = 0;
    let mut leased = 0;
    let mut completed = 0;
    let mut diverged = 0;
    let mut failed = 0;

    for sweep in core.sweeps().filter(|sweep| sweep.state.is_open()) {
        waiting += sweep.total_trials() - sweep.counts.done() - sweep.leased_count();
        leased += sweep.leased_count();
        completed += sweep.counts.completed;
        diverged += sweep.counts.diverged;
        failed += sweep.counts.failed;
    }

    [
        ("waiting", waiting),
        ("leased", leased),
        ("completed", completed),
        ("diverged", diverged),
        ("failed", failed),
    ]
}

fn gauge_of(value: u64) -> Gauge<i64> {
    let gauge = Gauge::<i64>::default();
    gauge.set(value as i64);
    gauge
}

fn counter_of(value: u64) -> Counter<u64> {
    let counter = Counter::<u64>::default();
    counter.inc_by(value);
    counter
}

fn gauges_by_state(values: &[(&'static str, u64)]) -> Family<StateLabels, Gauge> {
    let family = Family::<StateLabels, Gauge>::default();
    for (state, value) in values {
        family
            .get_or_create(&StateLabels { state })
            .set(*value as i64);
    }

    family
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

impl<S> tower::Layer<S> for Metrics {
    type Service = CountingService<S>;

    fn layer(&self, inner: S) -> CountingService<S> {
        CountingService {
            requests: self.requests.clone(),
            inner,
        }
    }
}

/// A service that counts its requests.
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
        // Clients can invent any number of methods, which would make as many time series.
        let method = RpcMethod::find(request.uri().path()).map_or("unknown", RpcMethod::name);
        let requests = self.requests.clone();
        let answer = self.inner.call(request);
        Box::pin(async move {
            let answer = answer.await?;
            let code = answer
                .headers()
                .get("grpc-status")
                .and_then(|code| code.to_str().ok()?.parse().ok())
                .unwrap_or(0);

            requests.get_or_create(&CallLabels { method, code }).inc();

            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use tonic::Status;
    use tower::{Layer as _, service_fn};

    use crate::server::metrics::*;

    #[tokio::test]
    async fn requests_for_methods_that_do_not_exist_are_counted_together() {
        let metrics = Metrics::new(Arc::new(WriterMetrics::new()), true);
        let mut service = metrics.layer(service_fn(|_: Request<Body>| async {
            Ok::<_, Infallible>(Status::resource_exhausted("busy").into_http())
        }));
        for path in ["/ergodic.v1.SweepService/List", "/ergodic.v1.A/List", "/B"] {
            let request = Request::builder().uri(path).body(Body::empty());
            service
                .call(request.expect("a request"))
                .await
                .expect("an answer");
        }

        let text = metrics.render_text(&CoreSnapshot::default());
        for (method, count) in [("List", 1), ("unknown", 2)] {
            let line =
                format!("ergodic_grpc_requests_total{{method=\"{method}\",code=\"8\"}} {count}\n");
            assert!(text.contains(&line), "{text}");
        }
    }
}
