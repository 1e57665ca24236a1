//! `ergodic bench tables`: measures how long a large sweep's table, curves, verdicts on claims and dataset take. It
//! fills a store with made-up results through the store's writer, and queries a coordinator process
//! on it as users do. It also renders a large grid.

use std::path::{Path, PathBuf};
use std::time::Instant;

use clap::Args;
use ergodic_common::ids::{SweepNumber, WeightsDigest};
use ergodic_common::random_streams::fixed_stream;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::MetricCurve;
use ergodic_common::{ErrorCode, TrialKey, TrialResult};
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use super::overhead::{query_info, start_coordinator, stop_process};
use crate::app::{CommandOutcome, print_output};
use crate::client::Client;
use crate::client::export::command::DatasetArgs;
use crate::client::export::export_sweep;
use crate::client::query::{query_curves, query_table};
use crate::client::render::{DocumentFormat, TableLayout, render_pivot};
use crate::process_stats;
use crate::records::{DataPin, SweepRow, SweepState, SweepTallies};
use crate::server::store_error;
use crate::store::location::StoreLocation;
use crate::store::{InsertSweep, RestoreRows, SetSweepState, Store, StoreWriter, StoredTrial};

/// Number of cells of the made-up sweep.
const CELLS: u32 = 250;
const METRICS: [&str; 10] = [
    "train_loss",
    "train_acc",
    "test_loss",
    "test_acc",
    "weight_norm",
    "weight_norm_sq",
    "effective_lr",
    "grad_norm",
    "update_norm",
    "angular_update",
];
/// Number of trials stored per transaction.
const TRIALS_PER_COMMIT: u32 = 1000;
/// Id of the made-up sweep.
const SWEEP_ID: &str = "benchmrk";
/// Claims of each form that a sweep without predictions can have.
const CLAIMS: &str = include_str!("claims.toml");
/// Number of rows, and of columns, of the made-up grid.
const GRID_SIDE: u32 = 200;
/// Number of queries of table and curves, of which the median is printed.
const REPETITIONS: usize = 3;

/// `ergodic bench tables`
#[derive(Debug, Args)]
pub struct BenchTablesArgs {
    /// Trials of the sweep, a multiple of 250
    #[arg(long, default_value_t = 120_000, value_name = "N", value_parser = clap::value_parser!(u32).range(250..=10_000_000))]
    pub trials: u32,
    /// Points of each trial's curve, of ten metrics each
    #[arg(long, default_value_t = 100, value_name = "N", value_parser = clap::value_parser!(u32).range(1..=10_000))]
    pub points: u32,
    /// Keep the store here, and use it again [default: a temporary directory, removed at the end]
    #[arg(long, value_name = "DIR")]
    pub dir: Option<PathBuf>,
    /// Output format
    #[arg(long, value_enum, default_value_t)]
    pub format: DocumentFormat,
}

/// Runs the measurement and prints it.
///
/// # Errors
/// The store cannot be filled, or a process cannot be started.
pub async fn run_tables_bench(args: BenchTablesArgs) -> Result<CommandOutcome, UserError> {
    if !args.trials.is_multiple_of(CELLS) {
        let message =
            format!("--trials: expected a multiple of {CELLS}, which is the number of cells");
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    let (dir, keep) = match &args.dir {
        Some(dir) => (dir.clone(), true),
        None => (
            std::env::temp_dir().join(format!("ergodic-tables-{}", std::process::id())),
            false,
        ),
    };
    let result = measure_tables(&args, &dir).await;

    if !keep {
        let _ = std::fs::remove_dir_all(&dir);
    }

    print_output(render_tables(&result?, args.format))
}

struct TablesMeasurement {
    trials: u32,
    points: u32,
    timings: [(&'static str, QueryTiming); 4],
    /// Seconds that the text of a grid takes, without a query.
    grid_seconds: f64,
    peak_rss: u64,
    /// Peak memory of this process, which writes the dataset, in bytes.
    export_rss: u64,
}

/// The time that the coordinator took for a query.
struct QueryTiming {
    /// Seconds from the query to its answer.
    seconds: f64,
    /// CPU time of the coordinator, in seconds.
    cpu_seconds: f64,
}

async fn measure_tables(
    args: &BenchTablesArgs,
    dir: &Path,
) -> Result<TablesMeasurement, UserError> {
    tokio::task::block_in_place(|| fill_store(args, dir))?;
    let (coordinator, url) = start_coordinator(dir, &[]).await?;
    let mut client = Client::connect(&url, &ClientAuth::default()).await?;
    let table = time_query(&mut client, REPETITIONS, query_bench_table).await?;
    let curves = time_query(&mut client, REPETITIONS, query_bench_curves).await?;
    let claims = time_query(&mut client, 1, query_bench_claims).await?;
    let dataset = DatasetArgs {
        rewrite: true,
        ..DatasetArgs::once(dir.join("dataset").display().to_string())
    };
    let export = time_query(&mut client, 1, async |client: &mut Client| {
        export_sweep(client, SWEEP_ID, &dataset).await.map(|_| ())
    })
    .await?;

    let peak_rss = query_info(&mut client).await?.peak_rss_bytes;
    stop_process(coordinator).await;
    Ok(TablesMeasurement {
        trials: args.trials,
        points: args.points,
        timings: [
            ("table", table),
            ("curves", curves),
            ("claims", claims),
            ("export", export),
        ],
        grid_seconds: tokio::task::block_in_place(time_grid),
        peak_rss,
        export_rss: process_stats::peak_rss_bytes(),
    })
}

/// Measures how long it takes to render a grid of made-up cells, none of which is the best: whoever
/// looked for it at each cell would look at all rows each time.
fn time_grid() -> f64 {
    let number = |x: u32| v1::AxisValue {
        kind: Some(v1::axis_value::Kind::Number(f64::from(x) / 1000.0)),
    };
    let mut noise = fixed_stream("grid", 0);
    let places = (0..GRID_SIDE).flat_map(|row| (0..GRID_SIDE).map(move |column| [row, column]));
    let rows = places.map(|place| {
        let mean = noise.next_uniform();
        let summary = v1::Summary {
            n: 3,
            mean: Some(mean),
            ci95_high: Some(mean + 0.01),
            ..v1::Summary::default()
        };
        v1::TableRow {
            values: place.map(number).to_vec(),
            summary: Some(summary),
            ..v1::TableRow::default()
        }
    });
    let table = v1::TableResponse {
        axes: vec!["lr".to_owned(), "wd".to_owned()],
        rows: rows.collect(),
        ..v1::TableResponse::default()
    };

    let start = Instant::now();
    std::hint::black_box(render_pivot(&table, TableLayout::PLAIN));
    start.elapsed().as_secs_f64()
}

async fn query_bench_table(client: &mut Client) -> Result<(), UserError> {
    let request = v1::TableRequest {
        sweep: SWEEP_ID.to_owned(),
        ..v1::TableRequest::default()
    };
    query_table(client, request).await.map(|_| ())
}

async fn query_bench_curves(client: &mut Client) -> Result<(), UserError> {
    let request = v1::CurvesRequest {
        sweep: SWEEP_ID.to_owned(),
        ..v1::CurvesRequest::default()
    };
    query_curves(client, request).await.map(|_| ())
}

async fn query_bench_claims(client: &mut Client) -> Result<(), UserError> {
    let request = v1::VerdictRequest {
        sweep: SWEEP_ID.to_owned(),
        file: "claims".to_owned(),
        claims: CLAIMS.to_owned(),
    };
    client
        .call(async |client| client.sweeps.verdict(request).await)
        .await
        .map(|_| ())
}

/// Sends a query several times; returns the median of the times, and the mean of the CPU times.
async fn time_query(
    client: &mut Client,
    times: usize,
    query: impl AsyncFn(&mut Client) -> Result<(), UserError>,
) -> Result<QueryTiming, UserError> {
    let mut seconds = Vec::new();
    let before = query_info(client).await?.cpu_seconds;

    for _ in 0..times {
        let start = Instant::now();
        query(client).await?;
        seconds.push(start.elapsed().as_secs_f64());
    }

    let cpu = query_info(client).await?.cpu_seconds - before;
    seconds.sort_by(f64::total_cmp);
    Ok(QueryTiming {
        seconds: seconds[times / 2],
        cpu_seconds: cpu / times as f64,
    })
}

fn build_bench_source(args: &BenchTablesArgs) -> SpecSource {
    let text = format!(
        "name = \"tables\"\nrepeats = {}\n[model]\nkind = \"empty\"\n[train]\nsteps = {}\n[grid]\n\
         lr = {{ log = [0.001, 1.0], points = 10 }}\nwd = {{ log = [1e-6, 1e-1], points = 25 }}\n\
         [measure]\nevery = \"10 steps\"\nmetrics = {METRICS:?}\n",
        args.trials / CELLS,
        10 * args.points
    );
    SpecSource {
        file: "tables".into(),
        text,
        ..SpecSource::default()
    }
}

/// Fills a store, unless it has the same sweep already.
fn fill_store(args: &BenchTablesArgs, dir: &Path) -> Result<(), UserError> {
    let store = StoreLocation::Directory(dir.to_owned())
        .open()
        .map_err(store_error)?;
    let source = build_bench_source(args);
    if is_store_filled(store.as_ref(), &source)? {
        return Ok(());
    }

    let leader = store
        .acquire_leadership("a benchmark")
        .map_err(store_error)?;
    let mut writer = store.open_writer(leader.epoch).map_err(store_error)?;
    let sweep = insert_bench_sweep(writer.as_mut(), source)?;

    for from in (0..args.trials).step_by(TRIALS_PER_COMMIT as usize) {
        let to = (from + TRIALS_PER_COMMIT).min(args.trials);
        let rows = (from..to).map(|n| make_trial(n, args.points)).collect();
        let write = RestoreRows {
            sweep,
            rows,
            attempts: Vec::new(),
        };
        writer.commit(write).map_err(store_error)?;
    }

    let state = SweepState::Completed;
    writer
        .commit(SetSweepState { sweep, state })
        .map_err(store_error)
}

fn is_store_filled(store: &dyn Store, source: &SpecSource) -> Result<bool, UserError> {
    let sweeps = store
        .open_reader()
        .and_then(|reader| reader.read_sweeps())
        .map_err(store_error)?;
    match sweeps.last() {
        None => Ok(false),
        // A coordinator that served the store has noted the fingerprint of the cells in it.
        Some(row) if row.source.text == source.text && row.state == SweepState::Completed => {
            Ok(true)
        }
        Some(_) => {
            let message =
                "--dir: the directory holds a store with other sweeps: name a new directory";
            Err(UserError::new(ErrorCode::Refused, message))
        }
    }
}

/// Stores the sweep without trials; returns its number.
fn insert_bench_sweep(
    writer: &mut dyn StoreWriter,
    source: SpecSource,
) -> Result<SweepNumber, UserError> {
    let row = SweepRow {
        number: SweepNumber::UNSTORED,
        id: SWEEP_ID.into(),
        source,
        data: DataPin {
            hash: None,
            train: 0,
            provenance: "made up".into(),
        },
        state: SweepState::Cancelled,
        share: Share::default(),
        launched_at: 0.0,
        launched_by: String::new(),
        tallies: SweepTallies::default(),
    };

    writer.commit(InsertSweep(row)).map_err(store_error)
}

/// Makes the `n`-th trial to end. Repeats are outermost, as in a real run.
fn make_trial(n: u32, points: u32) -> StoredTrial {
    let key = TrialKey::new(u64::from(n % CELLS), n / CELLS);
    let mut noise = fixed_stream("benchmark", u64::from(n));
    let values: Vec<f64> = (0..points as usize * METRICS.len())
        .map(|_| noise.next_uniform())
        .collect();
    let result = TrialResult {
        steps: u64::from(10 * points),
        seconds: noise.next_uniform(),
        metrics: values[values.len() - METRICS.len()..].to_vec(),
        digest: WeightsDigest(std::array::from_fn(|_| {
            (256.0 * noise.next_uniform()) as u8
        })),
        curve: MetricCurve {
            steps: (1..=u64::from(points)).map(|point| 10 * point).collect(),
            values,
        },
        isa: "avx512".into(),
        ..TrialResult::completed(key)
    };

    StoredTrial {
        result,
        worker: format!("worker-{}", n % 8),
    }
}

fn render_tables(m: &TablesMeasurement, format: DocumentFormat) -> String {
    if format == DocumentFormat::Json {
        let mut object = json!({
            "trials": m.trials, "points": m.points, "metrics": METRICS.len(),
            "grid_cells": GRID_SIDE * GRID_SIDE, "grid_seconds": m.grid_seconds,
            "coordinator_peak_rss_mib": to_mib(m.peak_rss), "export_peak_rss_mib": to_mib(m.export_rss),
        });

        for (name, timing) in &m.timings {
            object[format!("{name}_seconds")] = json!(timing.seconds);
            object[format!("{name}_coordinator_cpu_seconds")] = json!(timing.cpu_seconds);
        }

        return format!("{object}\n");
    }

    let metrics = METRICS.len();
    let mut text = format!(
        "{} trials in {CELLS} cells, {} points of {metrics} metrics each\n",
        m.trials, m.points
    );

    for (name, timing) in &m.timings {
        text += &format!(
            "{name:7} {:6.2} s, {:.2} s of the coordinator's CPU\n",
            timing.seconds, timing.cpu_seconds
        );
    }

    text += &format!(
        "grid    {:6.2} s for the text of {GRID_SIDE} × {GRID_SIDE} cells\n",
        m.grid_seconds
    );
    text + &format!(
        "at its peak: coordinator {:.0} MiB, export {:.0} MiB\n",
        to_mib(m.peak_rss),
        to_mib(m.export_rss)
    )
}

fn to_mib(bytes: u64) -> f64 {
    bytes as f64 / 1_048_576.0
}
