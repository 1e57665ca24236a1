//! `ergodic bench tables`: how long a large sweep's table, curves and dataset take. A store is filled with made-up results through
//! its own writer; then a coordinator process serves it, and is asked as users ask.

use std::path::Path;
use std::time::{Duration, Instant};

use ergodic_common::seed::fixed_stream;
use ergodic_common::spec::SpecSource;
use ergodic_common::terms::Share;
use ergodic_common::trial::Curve;
use ergodic_common::{ErrorCode, TrialKey, TrialResult};
use ergodic_proto::connect::ClientAuth;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::json;

use super::bench::{info, leave, start_coordinator};
use crate::cli::args::TablesArgs;
use crate::client::Client;
use crate::client::commands::{ask_curves, ask_table};
use crate::client::export::{ExportOptions, export};
use crate::client::output::Format;
use crate::core::{DataPin, SweepRow, SweepState, SweepTallies};
use crate::program::{CommandOutcome, print_output};
use crate::server::{process, store_error};
use crate::store::place::StoreLocation;
use crate::store::{StoreWrite, StoreWriter, StoredTrial, WriteOutput};

/// Cells of the sweep that is made up.
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
/// Trials stored in one transaction.
const BATCH: u32 = 1000;
/// Its id.
const SWEEP: &str = "benchmrk";
/// How often table and curves are asked for; the median is told.
const TIMES: usize = 3;

/// Runs the measurement and prints it.
///
/// # Errors
/// The store cannot be filled, or a process could not be started.
pub async fn tables(args: TablesArgs) -> Result<CommandOutcome, UserError> {
    if !args.trials.is_multiple_of(CELLS) {
        let message = format!("--trials: expected a multiple of {CELLS}, which is the number of cells");
        return Err(UserError::new(ErrorCode::BadInput, message));
    }
    let (dir, keep) = match &args.dir {
        Some(dir) => (dir.clone(), true),
        None => (std::env::temp_dir().join(format!("ergodic-tables-{}", std::process::id())), false),
    };
    let result = measure(&args, &dir).await;
    if !keep {
        let _ = std::fs::remove_dir_all(&dir);
    }
    print_output(show(&result?, args.format))
}

struct Measured {
    trials: u32,
    points: u32,
    questions: [(&'static str, Asked); 3],
    peak_rss: u64,
    /// Of this process, which writes the dataset.
    export_rss: u64,
}

/// A question, as it was answered.
struct Asked {
    /// From the question to its answer.
    seconds: f64,
    /// CPU time of the coordinator.
    cpu_seconds: f64,
}

async fn measure(args: &TablesArgs, dir: &Path) -> Result<Measured, UserError> {
    tokio::task::block_in_place(|| fill(args, dir))?;
    let (coordinator, url) = start_coordinator(dir, &[]).await?;
    let mut client = Client::connect(&url, &ClientAuth::default()).await?;
    let table = ask(&mut client, TIMES, async |client: &mut Client| {
        let request = v1::TableRequest { sweep: SWEEP.to_owned(), ..v1::TableRequest::default() };
        ask_table(client, request).await.map(|_| ())
    })
    .await?;
    let curves = ask(&mut client, TIMES, async |client: &mut Client| {
        let request = v1::CurvesRequest { sweep: SWEEP.to_owned(), ..v1::CurvesRequest::default() };
        ask_curves(client, request).await.map(|_| ())
    })
    .await?;
    let output = dir.join("dataset").display().to_string();
    let options = ExportOptions { output, follow: false, every: Duration::ZERO, anew: true };
    let whole =
        ask(&mut client, 1, async |client: &mut Client| export(client, SWEEP, &options).await.map(|_| ())).await?;
    let peak_rss = info(&mut client).await?.peak_rss_bytes;
    leave(coordinator).await;
    let questions = [("table", table), ("curves", curves), ("export", whole)];
    Ok(Measured {
        trials: args.trials,
        points: args.points,
        questions,
        peak_rss,
        export_rss: process::peak_rss_bytes(),
    })
}

/// Asks several times; the median, and the average of the CPU time.
async fn ask(
    client: &mut Client,
    times: usize,
    question: impl AsyncFn(&mut Client) -> Result<(), UserError>,
) -> Result<Asked, UserError> {
    let mut seconds = Vec::new();
    let before = info(client).await?.cpu_seconds;
    for _ in 0..times {
        let start = Instant::now();
        question(client).await?;
        seconds.push(start.elapsed().as_secs_f64());
    }
    let cpu = info(client).await?.cpu_seconds - before;
    seconds.sort_by(f64::total_cmp);
    Ok(Asked { seconds: seconds[times / 2], cpu_seconds: cpu / times as f64 })
}

fn source(args: &TablesArgs) -> SpecSource {
    let text = format!(
        "name = \"tables\"\nrepeats = {}\n[model]\nkind = \"empty\"\n[train]\nsteps = {}\n[grid]\n\
         lr = {{ log = [0.001, 1.0], points = 10 }}\nwd = {{ log = [1e-6, 1e-1], points = 25 }}\n\
         [measure]\nevery = \"10 steps\"\nmetrics = {METRICS:?}\n",
        args.trials / CELLS,
        10 * args.points
    );
    SpecSource { file: "tables".into(), text, ..SpecSource::default() }
}

/// Fills a store, unless it is full of the same already.
fn fill(args: &TablesArgs, dir: &Path) -> Result<(), UserError> {
    let store = StoreLocation::Directory(dir.to_owned()).open().map_err(store_error)?;
    let source = source(args);
    let sweeps = store.open_reader().and_then(|reader| reader.read_sweeps()).map_err(store_error)?;
    match sweeps.last() {
        None => {}
        Some(row) if row.source == source && row.state == SweepState::Completed => return Ok(()),
        Some(_) => {
            let message = "--dir: there is a store of other sweeps: name a new directory";
            return Err(UserError::new(ErrorCode::Refused, message));
        }
    }
    let leader = store.acquire_leadership("a benchmark").map_err(store_error)?;
    let mut writer = store.open_writer(leader.epoch).map_err(store_error)?;
    let row = SweepRow {
        number: 0,
        id: SWEEP.into(),
        source,
        data: DataPin { hash: None, train: 0, provenance: "made up".into() },
        state: SweepState::Cancelled,
        share: Share::default(),
        launched_at: 0.0,
        launched_by: String::new(),
        tallies: SweepTallies::default(),
    };
    let written = commit(writer.as_mut(), &StoreWrite::InsertSweep(row))?;
    let Some(WriteOutput::SweepNumber(sweep)) = written.into_iter().next() else {
        return Err(UserError::new(ErrorCode::Internal, "the store gave a sweep no number"));
    };
    for from in (0..args.trials).step_by(BATCH as usize) {
        let rows = (from..(from + BATCH).min(args.trials)).map(|n| made_up(n, args.points));
        commit(writer.as_mut(), &StoreWrite::RestoreRows(sweep, rows.collect(), Vec::new()))?;
    }
    commit(writer.as_mut(), &StoreWrite::SetSweepState(sweep, SweepState::Completed)).map(|_| ())
}

fn commit(writer: &mut dyn StoreWriter, write: &StoreWrite) -> Result<Vec<WriteOutput>, UserError> {
    writer.commit_writes(&[write]).map_err(store_error)
}

/// The `n`-th trial to end. Repeats are outermost, as they are run.
fn made_up(n: u32, points: u32) -> StoredTrial {
    let key = TrialKey { cell: u64::from(n % CELLS), repeat: n / CELLS };
    let mut noise = fixed_stream("benchmark", u64::from(n));
    let values: Vec<f64> = (0..points as usize * METRICS.len()).map(|_| noise.next_uniform()).collect();
    let result = TrialResult {
        steps: u64::from(10 * points),
        seconds: noise.next_uniform(),
        metrics: values[values.len() - METRICS.len()..].to_vec(),
        digest: std::array::from_fn(|_| (256.0 * noise.next_uniform()) as u8),
        curve: Curve { steps: (1..=u64::from(points)).map(|point| 10 * point).collect(), values },
        isa: "avx512".into(),
        ..TrialResult::completed(key)
    };
    StoredTrial { result, worker: format!("worker-{}", n % 8) }
}

fn show(m: &Measured, format: Format) -> String {
    let mib = |bytes: u64| bytes as f64 / 1_048_576.0;
    if format == Format::Json {
        let mut object = json!({
            "trials": m.trials, "points": m.points, "metrics": METRICS.len(),
            "coordinator_peak_rss_mib": mib(m.peak_rss), "export_peak_rss_mib": mib(m.export_rss),
        });
        for (name, asked) in &m.questions {
            object[format!("{name}_seconds")] = json!(asked.seconds);
            object[format!("{name}_coordinator_cpu_seconds")] = json!(asked.cpu_seconds);
        }
        return format!("{object}\n");
    }
    let metrics = METRICS.len();
    let mut text = format!("{} trials in {CELLS} cells, {} points of {metrics} metrics each\n", m.trials, m.points);
    for (name, asked) in &m.questions {
        text += &format!("{name:7} {:6.2} s, {:.2} s of the coordinator's CPU\n", asked.seconds, asked.cpu_seconds);
    }
    text + &format!("at its peak: coordinator {:.0} MiB, export {:.0} MiB\n", mib(m.peak_rss), mib(m.export_rss))
}
