//! `ergodic bench fleet`: measures what the sessions of many workers cost the coordinator.

use std::path::PathBuf;
use std::time::{Duration, Instant};

use clap::Args;
use ergodic_common::ErrorCode;
use ergodic_common::duration::parse_duration;
use ergodic_common::spec::SpecSource;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use serde_json::json;

use super::overhead::{start_coordinator, stop_process};
use super::pretend_fleet::PretendFleet;
use crate::app::{CommandOutcome, print_output, wait_for_interrupt};
use crate::client::Client;
use crate::client::commands::launch::{LaunchMode, launch_sweep};
use crate::client::render::DocumentFormat;
use crate::client::sweep_file::SweepFile;
use crate::process_stats;
use crate::server::raise_file_limit;
use crate::server::services::session::heartbeat_interval;

/// Maximum number of sessions over one connection. A coordinator takes 256 streams.
const MAX_SESSIONS_PER_CONNECTION: u32 = 200;
/// Usual number of sessions over one connection.
const SESSIONS_PER_CONNECTION: u32 = 100;
/// Number of connections and files that the processes need besides the connections of workers.
const OTHER_FILES: u32 = 32;
/// Time to live of leases in the measured coordinator: nothing ends while something else is measured.
const LEASE_TTL: &str = "1h";
/// The usual time to live of leases, which is the default of `ergodic serve`.
const USUAL_LEASE_TTL: Duration = Duration::from_secs(30);
/// Made-up duration of a trial, in seconds: so long that a lease has one.
const TRIAL_SECONDS: f64 = 60.0;
/// Maximum time for which the coordinator is measured at rest.
const MAX_REST: Duration = Duration::from_secs(2);

/// `ergodic bench fleet`
#[derive(Debug, Args)]
pub struct BenchFleetArgs {
    /// Workers in session, with one slot each
    #[arg(long, default_value_t = 1000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub workers: u32,
    /// Workers that hold a lease; the others ask for work in vain [default: half]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub busy: Option<u32>,
    /// Heartbeats, and requests for work in vain, to send at least, as fast as they are answered
    #[arg(long, default_value_t = 20_000, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000_000))]
    pub events: u32,
    /// Connections that the sessions share [default: one for 100 workers]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=20_000))]
    pub connections: Option<u32>,
    /// Time for which heartbeats are sent at their usual interval
    #[arg(long, default_value = "15s", value_parser = parse_duration, value_name = "TIME")]
    pub beat_for: Duration,
    /// Keep the store and the log here [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: DocumentFormat,
}

/// The numbers of a fleet, which fit each other.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct FleetSize {
    workers: u32,
    busy: u32,
    connections: u32,
}

impl BenchFleetArgs {
    /// Checks the numbers of a fleet whose processes may open this many files each.
    fn resolve_size(&self, files: u64) -> Result<FleetSize, UserError> {
        let workers = self.workers;
        let busy = self.busy.unwrap_or(workers.div_ceil(2));
        if busy > workers {
            return Err(bad_number("--busy", busy, 1, workers, "--workers"));
        }

        let usual = workers.div_ceil(SESSIONS_PER_CONNECTION);
        let connections = self.connections.unwrap_or(usual);
        let fewest = workers.div_ceil(MAX_SESSIONS_PER_CONNECTION);
        if !(fewest..=workers).contains(&connections) {
            let why = "as many as --workers, and one for 200 of them";
            return Err(bad_number(
                "--connections",
                connections,
                fewest,
                workers,
                why,
            ));
        }

        let possible = u32::try_from(files / 2).unwrap_or(u32::MAX);
        if connections > possible.saturating_sub(OTHER_FILES) {
            let why = "half of the files that a process may open here, see `ulimit -Hn`";
            let most = possible.saturating_sub(OTHER_FILES);
            return Err(bad_number("--connections", connections, fewest, most, why));
        }

        Ok(FleetSize {
            workers,
            busy,
            connections,
        })
    }
}

fn bad_number(option: &str, number: u32, least: u32, most: u32, why: &str) -> UserError {
    let message = format!("{option} {number}: expected {least} to {most} ({why})");
    UserError::new(ErrorCode::BadInput, message)
}

/// Runs the measurement and prints it. Nothing is left behind, also if it is interrupted.
///
/// # Errors
/// A number is out of its range, the coordinator could not be started, or a session ended.
pub async fn run_fleet_bench(args: BenchFleetArgs) -> Result<CommandOutcome, UserError> {
    let size = args.resolve_size(raise_file_limit())?;
    let temporary = tempfile::Builder::new().prefix("ergodic-fleet-").tempdir();
    let temporary = temporary.map_err(|error| {
        let message = format!("cannot make a temporary directory: {error}; name one with --dir");
        UserError::new(ErrorCode::BadInput, message)
    })?;
    let dir = args.dir.as_deref().unwrap_or(temporary.path());

    // Listens for signals before there is anything to leave behind.
    let interrupted = tokio::spawn(wait_for_interrupt());
    let connections = (size.connections + OTHER_FILES).to_string();
    let sessions = size.workers.to_string();
    let options = [
        ["--lease-ttl", LEASE_TTL],
        ["--max-sessions", &sessions],
        ["--max-connections", &connections],
        ["--max-connections-per-address", &connections],
    ];
    let (coordinator, url) = start_coordinator(dir, options.as_flattened()).await?;
    let process = coordinator.id().unwrap_or_default();
    let measured = tokio::select! {
        measured = measure_fleet(&args, size, &url, process) => Some(measured),
        _ = interrupted => None,
    };
    stop_process(coordinator).await;

    match measured {
        Some(measured) => print_output(render_fleet(&measured?, args.format)),
        None => Ok(CommandOutcome::Interrupted),
    }
}

/// The measured costs of a fleet.
struct FleetMeasurement {
    size: FleetSize,
    join: EventCost,
    /// Memory of the coordinator per session, in bytes.
    session_bytes: f64,
    answered_request: EventCost,
    /// The cost of a request that is not answered, if there are idle workers.
    unanswered_request: Option<EventCost>,
    heartbeat: EventCost,
    paced_heartbeats: EventCost,
    rest: EventCost,
}

/// What events cost the coordinator.
#[derive(Debug, Clone, Copy)]
struct EventCost {
    events: u64,
    /// CPU time of the process, in seconds.
    cpu_seconds: f64,
    /// Seconds from the first event to the last answer.
    seconds: f64,
}

impl EventCost {
    fn cpu_us_per_event(&self) -> f64 {
        self.cpu_seconds * 1e6 / self.events.max(1) as f64
    }

    /// The part of a core that was busy, in per cent.
    fn core_percent(&self) -> f64 {
        self.cpu_seconds * 100.0 / self.seconds
    }
}

/// CPU and wall time since a moment.
struct CpuWatch {
    process: u32,
    cpu_before: f64,
    started: Instant,
}

impl CpuWatch {
    fn start(process: u32) -> Self {
        Self {
            process,
            cpu_before: process_stats::cpu_seconds_of(process),
            started: Instant::now(),
        }
    }

    fn stop(self, events: u64) -> EventCost {
        EventCost {
            events,
            cpu_seconds: process_stats::cpu_seconds_of(self.process) - self.cpu_before,
            seconds: self.started.elapsed().as_secs_f64(),
        }
    }
}

async fn measure_fleet(
    args: &BenchFleetArgs,
    size: FleetSize,
    url: &str,
    process: u32,
) -> Result<FleetMeasurement, UserError> {
    let memory_before = process_stats::rss_bytes_of(process);
    let watch = CpuWatch::start(process);
    let fleet = PretendFleet::join(url, size.workers as usize, size.connections as usize).await?;
    let join = watch.stop(size.workers.into());
    let memory = process_stats::rss_bytes_of(process).saturating_sub(memory_before);

    let answered_request = measure_answered_requests(&fleet, url, size, process).await?;
    let heartbeat = measure_heartbeats(&fleet, size, args.events, process).await?;
    let unanswered_request = match size.busy == size.workers {
        true => None,
        false => {
            Some(measure_unanswered_requests(&fleet, size, args.events, &heartbeat, process).await?)
        }
    };

    let watch = CpuWatch::start(process);
    let interval = heartbeat_interval(USUAL_LEASE_TTL);
    let beats = fleet.keep_beating(interval, args.beat_for).await?;
    let paced_heartbeats = watch.stop(beats);

    let watch = CpuWatch::start(process);
    tokio::time::sleep(args.beat_for.min(MAX_REST)).await;
    let rest = watch.stop(0);

    Ok(FleetMeasurement {
        size,
        join,
        session_bytes: memory as f64 / f64::from(size.workers),
        answered_request,
        unanswered_request,
        heartbeat,
        paced_heartbeats,
        rest,
    })
}

/// Launches a sweep with a trial for each busy worker and one more, whose result makes the duration of trials known; then has
/// them request work.
async fn measure_answered_requests(
    fleet: &PretendFleet,
    url: &str,
    size: FleetSize,
    process: u32,
) -> Result<EventCost, UserError> {
    let mut client = Client::connect(url, &ClientAuth::default()).await?;
    launch_sweep(&mut client, &build_sweep(size.busy + 1), LaunchMode::All).await?;
    fleet.request_work(0..1).await?;
    fleet
        .wait_for("requests for work", |counts| counts.grants == 1)
        .await?;
    fleet.deliver_result(0, TRIAL_SECONDS).await?;

    let watch = CpuWatch::start(process);
    let busy = u64::from(size.busy);
    fleet.request_work(0..size.busy as usize).await?;
    fleet
        .wait_for("requests for work", |counts| counts.grants == 1 + busy)
        .await?;
    Ok(watch.stop(busy))
}

/// A sweep of one cell with this many trials.
fn build_sweep(trials: u32) -> SweepFile {
    let text = format!(
        "name = \"fleet\"\nrepeats = {trials}\n[model]\nkind = \"empty\"\n[train]\nsteps = 1\n\
         [measure]\nmetrics = [\"test_acc\"]\n"
    );
    SweepFile {
        source: SpecSource {
            file: "fleet".into(),
            text,
            ..SpecSource::default()
        },
        contents: Vec::new(),
    }
}

/// Heartbeats of all workers, in rounds whose answers are waited for.
async fn measure_heartbeats(
    fleet: &PretendFleet,
    size: FleetSize,
    events: u32,
    process: u32,
) -> Result<EventCost, UserError> {
    let before = fleet.counts().renewals;
    let watch = CpuWatch::start(process);
    let mut sent = 0;

    while sent < u64::from(events) {
        fleet.send_heartbeats(0..size.workers as usize).await?;
        sent += u64::from(size.workers);
        fleet
            .wait_for("heartbeats", |counts| counts.renewals >= before + sent)
            .await?;
    }

    Ok(watch.stop(sent))
}

/// Requests of all idle workers, again and again. A heartbeat of each at the end is answered when all its requests have been
/// handled; the cost of these heartbeats is taken off.
async fn measure_unanswered_requests(
    fleet: &PretendFleet,
    size: FleetSize,
    events: u32,
    heartbeat: &EventCost,
    process: u32,
) -> Result<EventCost, UserError> {
    let idle = size.busy as usize..size.workers as usize;
    let beats = idle.len() as u64;
    let before = fleet.counts().renewals;
    let watch = CpuWatch::start(process);
    let mut sent = 0;

    while sent < u64::from(events) {
        fleet.request_work(idle.clone()).await?;
        sent += beats;
    }
    fleet.send_heartbeats(idle).await?;
    fleet
        .wait_for("requests for work", |counts| {
            counts.renewals >= before + beats
        })
        .await?;

    let mut cost = watch.stop(sent);
    let for_beats = heartbeat.cpu_us_per_event() * beats as f64 / 1e6;
    cost.cpu_seconds = (cost.cpu_seconds - for_beats).max(0.0);
    Ok(cost)
}

fn render_fleet(m: &FleetMeasurement, format: DocumentFormat) -> String {
    match format {
        DocumentFormat::Json => render_json(m),
        DocumentFormat::Table => render_text(m),
    }
}

fn render_json(m: &FleetMeasurement) -> String {
    let request = m.unanswered_request;
    let document = json!({
        "workers": m.size.workers,
        "busy": m.size.busy,
        "connections": m.size.connections,
        "join_seconds": m.join.seconds,
        "cpu_us_per_join": m.join.cpu_us_per_event(),
        "bytes_per_session": m.session_bytes,
        "answered_requests": m.answered_request.events,
        "cpu_us_per_answered_request": m.answered_request.cpu_us_per_event(),
        "unanswered_requests": request.map_or(0, |request| request.events),
        "cpu_us_per_unanswered_request": request.map(|request| request.cpu_us_per_event()),
        "heartbeats": m.heartbeat.events,
        "cpu_us_per_heartbeat": m.heartbeat.cpu_us_per_event(),
        "paced_heartbeats": m.paced_heartbeats.events,
        "cpu_us_per_paced_heartbeat": m.paced_heartbeats.cpu_us_per_event(),
        "core_percent_of_heartbeats": m.paced_heartbeats.core_percent(),
        "core_percent_at_rest": m.rest.core_percent(),
    });
    format!("{document}\n")
}

fn render_text(m: &FleetMeasurement) -> String {
    let FleetSize {
        workers,
        busy,
        connections,
    } = m.size;
    let request = m.unanswered_request.map_or_else(
        || "no worker is idle".to_owned(),
        |request| describe_cost(&request),
    );
    let interval = heartbeat_interval(USUAL_LEASE_TTL).as_secs_f64();

    format!(
        "{workers} workers, {busy} of them busy, over {connections} connections\n\
         join:                     {:.2} s, {:.0} µs of CPU and {:.1} KiB per session\n\
         request that is answered: {}\n\
         request in vain:          {request}\n\
         heartbeat:                {}\n\
         heartbeats every {interval} s:   {:.2} % of a core, {:.0} µs of CPU each ({} in {:.1} s)\n\
         at rest:                  {:.2} % of a core\n",
        m.join.seconds,
        m.join.cpu_us_per_event(),
        m.session_bytes / 1024.0,
        describe_cost(&m.answered_request),
        describe_cost(&m.heartbeat),
        m.paced_heartbeats.core_percent(),
        m.paced_heartbeats.cpu_us_per_event(),
        m.paced_heartbeats.events,
        m.paced_heartbeats.seconds,
        m.rest.core_percent(),
    )
}

fn describe_cost(cost: &EventCost) -> String {
    format!(
        "{:.0} µs of CPU each ({} in {:.2} s)",
        cost.cpu_us_per_event(),
        cost.events,
        cost.seconds
    )
}

#[cfg(test)]
mod tests {
    use crate::bench::fleet::*;

    fn asked(workers: u32, busy: Option<u32>, connections: Option<u32>) -> BenchFleetArgs {
        BenchFleetArgs {
            workers,
            busy,
            events: 1,
            connections,
            beat_for: Duration::ZERO,
            dir: None,
            format: DocumentFormat::Table,
        }
    }

    #[test]
    fn numbers_of_a_fleet_fit_each_other_and_the_files() {
        let files = 20_000;
        for (args, busy, connections) in [
            (asked(1, None, None), 1, 1),
            (asked(1000, None, None), 500, 10),
            (asked(10_000, Some(10_000), Some(50)), 10_000, 50),
            (asked(9000, Some(1), Some(9000)), 1, 9000),
        ] {
            let expected = FleetSize {
                workers: args.workers,
                busy,
                connections,
            };
            assert_eq!(args.resolve_size(files).expect("a fleet"), expected);
        }
    }

    #[test]
    fn numbers_that_fit_nothing_are_refused_by_the_name_of_the_option() {
        for (args, words) in [
            (asked(10, Some(11), None), "--busy 11: expected 1 to 10 "),
            (
                asked(1000, None, Some(4)),
                "--connections 4: expected 5 to 1000 ",
            ),
            (
                asked(10, None, Some(11)),
                "--connections 11: expected 1 to 10 ",
            ),
            (
                asked(10_000, None, Some(10_000)),
                "--connections 10000: expected 50 to 9968 ",
            ),
        ] {
            let message = args.resolve_size(20_000).expect_err(words).message;
            assert!(message.starts_with(words), "{message}");
        }
    }
}
