//! What is done with bytes from outside, one function per kind: each must come to an end without a panic, whatever the bytes.
//!
//! libFuzzer calls these (`tests/fuzz`), and so do the ordinary tests, with the committed corpus and mutations of it.

use std::path::Path;
use std::sync::{Arc, LazyLock, OnceLock};
use std::time::Duration;

use ergodic::analysis::{RowSource, TableParams, TableQuery};
use ergodic::client::commands::plan::{ClassCosts, NamedFiles, render_plan};
use ergodic::client::render::DocumentFormat;
use ergodic::core::{
    Admission, CommitOutcome, Core, CoreTime, Effect, MetricPositions, SessionEnd, StoredRow,
    Sweep, Timing,
};
use ergodic::interval_set::IntervalSet;
use ergodic::records::{DataPin, LeaseRow, SweepRow, SweepState, SweepTallies};
use ergodic::result_batch::{ResultBatch, ResultComparison};
use ergodic::server::engine::WorkerMessage;
use ergodic::server::recover_core;
use ergodic::server::services::{session, workers};
use ergodic::store::location::StoreLocation;
use ergodic::store::sqlite::SqliteStore;
use ergodic::store::{
    InsertLease, InsertSweep, ReadableStore as _, Store, StoreError, StoreReader, StoreResults,
    TrialRange, encoding,
};
use ergodic_common::config::{ModelConfig, TrialConfig};
use ergodic_common::dataset::Dataset;
use ergodic_common::duration::parse_duration;
use ergodic_common::ids::{
    CellIndex, DatasetHash, Epoch, Fence, LeaseId, Repeat, ShapeClass, SweepNumber,
};
use ergodic_common::net::{ActivationShape, Net};
use ergodic_common::pinned_file::FilePin;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::{CPU_F32, MetricCurve, Predictions};
use ergodic_common::weights::Weights;
use ergodic_common::{Spec, TrialKey, TrialResult};
use ergodic_proto::channel::connect::connect_lazily;
use ergodic_proto::channel::credentials::ClientAuth;
use ergodic_proto::channel::transport::is_loopback;
use ergodic_proto::checksum::Checksummed as _;
use ergodic_proto::token::Token;
use ergodic_proto::v1::session_request::Message as Request;
use ergodic_proto::{PROTOCOL_VERSION, v1};
use prost::Message;

/// A kind of bytes from outside.
pub struct Target {
    /// The name of the kind, which is that of its folder in the corpus too.
    pub name: &'static str,
    /// What is done with them.
    pub run: fn(&[u8]),
}

/// All of them.
pub const TARGETS: [Target; 6] = [
    Target {
        name: "sweep",
        run: sweep,
    },
    Target {
        name: "wire",
        run: wire,
    },
    Target {
        name: "rows",
        run: stored_bytes,
    },
    Target {
        name: "store",
        run: store,
    },
    Target {
        name: "address",
        run: address,
    },
    Target {
        name: "file",
        run: file,
    },
];

/// Longest sweep file that is tried: longer ones say nothing new.
const LONGEST: usize = 64 << 10;
/// Cells of a grid that are looked at.
const LOOKED_AT: usize = 32;

/// A sweep file, followed by settings, each after a zero byte: read, planned, and its grid walked.
///
/// # Panics
/// The grid contradicts itself.
pub fn sweep(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if text.len() > LONGEST {
        return;
    }

    let mut parts = text.split('\0').map(str::to_owned);
    let text = parts.next().unwrap_or_default();
    let source = SpecSource {
        file: "f".into(),
        text,
        settings: parts.collect(),
        ..SpecSource::default()
    };
    source.named_files();
    let source = source.with_settings_of_axes();
    if let Err(mistakes) = Spec::read_new_naming_mistakes(&source) {
        assert!(!mistakes.as_slice().is_empty(), "an error has a reason");
        assert!(mistakes.to_string().lines().count() > 0);
    }

    let Ok(spec) = Spec::read_stored(&source) else {
        return;
    };

    for format in [DocumentFormat::Json, DocumentFormat::Table] {
        render_plan(
            &spec,
            &NamedFiles::default(),
            &ClassCosts::default(),
            format,
        );
    }

    assert!(spec.grid.cell_count() > 0, "a sweep has cells");
    for cell in spec.grid.iter().take(LOOKED_AT) {
        let config = spec
            .grid
            .resolve_config(cell)
            .expect("every cell of a grid that was read resolves");
        spec.compute_cell_hash(&config, DatasetHash::NONE);
        assert_eq!(spec.grid.axis_values(cell).len(), spec.grid.axes().len());

        spec.grid.derived_values_in(cell);
        let key = TrialKey {
            cell,
            repeat: Repeat(spec.repeats - 1),
        };
        let index = spec.grid.locate_trial(key);
        assert_eq!(spec.grid.trial_at(index), key, "a trial is where it stands");

        assert!(index.number < spec.class_trial_count(index.class) && spec.has_trial(key));
    }
}

/// A message that a peer can send: the first byte says which, the rest is its encoding. It is decoded, converted, checked,
/// and told to a core that has a sweep, a worker and a lease.
///
/// # Panics
/// The core's books do not add up afterwards.
pub fn wire(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 8 {
        0 => with(bytes, |request: v1::SessionRequest| say(&[request])),
        1 => with(bytes, commit),
        2 => with(bytes, launch),
        3 => with(bytes, |request: v1::TableRequest| {
            let v1::TableRequest {
                by,
                metric,
                at,
                stats,
                cell_condition,
                ..
            } = &request;
            _ = TableQuery::new(
                &empty_sweep().spec,
                &TableParams {
                    by,
                    metric,
                    at,
                    stats,
                    cell_condition,
                    ..TableParams::default()
                },
            );
        }),
        4 => with(bytes, |answer: v1::GetSweepResponse| {
            let mut answer = answer;
            answer.verify_checksum();
            _ = answer.source.map(SpecSource::try_from);
        }),
        5 => {
            let status =
                tonic::Status::with_details(tonic::Code::Internal, "", bytes.to_vec().into());
            _ = ergodic_proto::status::UserError::from(&status);
        }
        // Several things said in one session.
        6 => {
            let mut rest = bytes;
            let next = || v1::SessionRequest::decode_length_delimited(&mut rest).ok();
            say(&std::iter::from_fn(next).take(64).collect::<Vec<_>>());
        }
        _ => with(bytes, |pin: v1::FilePin| {
            if let Ok(pin) = FilePin::try_from(pin) {
                assert_eq!(FilePin::try_from(v1::FilePin::from(&pin)), Ok(pin));
            }
        }),
    }
}

fn with<M: Message + Default>(bytes: &[u8], act: impl FnOnce(M)) {
    if let Ok(message) = M::decode(bytes) {
        act(message);
    }
}

/// Says these in a session of the worker that holds the lease.
fn say(requests: &[v1::SessionRequest]) {
    let mut core = busy_core();
    for (at, request) in requests.iter().cloned().enumerate() {
        let now = CoreTime::from_millis(at as u64);
        let Some(message) = request.message else {
            continue;
        };
        if let Request::Hello(hello) = message {
            if let Ok(joining) = session::parse_hello(hello) {
                core.on_worker_joined(joining, now);
            }
            continue;
        }

        match session::parse_message(message) {
            Some(WorkerMessage::Heartbeat {
                running,
                queued,
                held,
            }) => core.on_heartbeat(&WORKER.into(), running, queued, &held, now),
            Some(WorkerMessage::RequestWork { idle_slots }) => {
                _ = core.on_work_requested(&WORKER.into(), idle_slots, now)
            }
            Some(WorkerMessage::Release { fence, why }) => {
                _ = core.on_lease_released(&WORKER.into(), fence, why, now)
            }
            Some(WorkerMessage::Retracted { fence, keys }) => {
                _ = core.on_trials_retracted(&WORKER.into(), fence, &keys, now)
            }
            // The core knows nothing of it.
            Some(WorkerMessage::Output(_)) => {}
            Some(WorkerMessage::Goodbye) => _ = core.on_worker_left(&WORKER.into(), now),
            None => return,
        }

        core.check_invariants().expect("the books add up");
    }

    // What it said may count when it dies.
    core.on_session_ended(&WORKER.into(), SessionEnd::ByPeer, CoreTime::from_secs(1));
    core.on_tick(CoreTime::from_secs(2));
    core.on_tick(CoreTime::from_secs(100));
    core.check_invariants().expect("the books add up");
    core.sweeps()
        .for_each(|sweep| _ = core.explain_sweep(sweep));
}

/// A sweep that measures one thing.
static ONE_METRIC: LazyLock<Spec> = LazyLock::new(|| {
    spec("name = \"t\"\n[model]\nkind = \"empty\"\n[measure]\nmetrics = [\"test_acc\"]\n")
});

fn commit(mut request: v1::CommitResultsRequest) {
    request.verify_checksum();
    let Ok(delivery) = workers::read_result_batch(request, SweepNumber(1), &ONE_METRIC) else {
        return;
    };
    for result in &delivery.results {
        let again = TrialResult::try_from(v1::TrialResult::from(result.clone()))
            .expect("what was taken is taken again");
        assert!(encoding::differing_fields(&again, result, delivery.comparison).is_empty());
        bytes_of(result);
    }

    let mut core = busy_core();
    let keys = delivery.trial_keys();
    if let Ok(Admission::Store { sweep }) =
        core.admit_batch(&delivery.process, delivery.fence, &keys)
    {
        // As the store does, which takes the first result of a trial only.
        let mut stored: Vec<StoredRow> = Vec::new();
        for result in &delivery.results {
            let row = delivery.positions.build_row_from_result(result);
            if stored.iter().all(|known| known.key != row.key) {
                stored.push(row);
            }
        }

        let committed = CommitOutcome {
            stored,
            ..CommitOutcome::default()
        };
        core.on_batch_committed(
            &delivery.process,
            delivery.fence,
            sweep,
            &committed,
            CoreTime::from_secs(1),
        );

        core.check_invariants().expect("the books add up");
    }
}

fn launch(mut request: v1::LaunchRequest) {
    request.verify_checksum();
    let Some(Ok(source)) = request.source.map(SpecSource::try_from) else {
        return;
    };
    if source.text.len() <= LONGEST && Spec::read_stored(&source).is_ok() {
        assert!(SpecSource::try_from(v1::SpecSource::from(&source)).is_ok());
    }
}

/// What a store keeps as bytes: the first byte says what they are to be. What can be read is written as it was.
///
/// # Panics
/// Something that can be read is written otherwise.
pub fn stored_bytes(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    match kind % 6 {
        0 => {
            if let Some(curve) = encoding::decode_curve(bytes) {
                let len = 4 + 8 * (curve.steps.len() + curve.values.len());
                assert_eq!(encoding::encode_curve(&curve), bytes[..len]);
            }
        }
        1 => {
            if let Some(predictions) = encoding::decode_predictions(bytes) {
                assert_eq!(encoding::encode_predictions(&predictions), bytes);
            }
        }
        2 => {
            let values = encoding::decode_f64s(bytes);
            assert_eq!(encoding::encode_f64s(&values), bytes[..8 * values.len()]);
        }
        3 => {
            if let Some(files) = encoding::decode_files(bytes) {
                assert_eq!(
                    encoding::decode_files(&encoding::encode_files(&files)),
                    Some(files)
                );
            }
        }
        4 => {
            let set = encoding::decode_intervals(bytes);
            assert_eq!(
                encoding::decode_intervals(&encoding::encode_intervals(&set)),
                set
            );
        }
        _ => {
            if let Some(result) = ergodic_proto::result_from_bytes(bytes) {
                bytes_of(&result);
            }
        }
    }
}

/// A result's curve and predictions as they are stored, and back.
fn bytes_of(result: &TrialResult) {
    let curve = encoding::decode_curve(&encoding::encode_curve(&result.curve)).expect("a curve");
    assert_eq!(curve.steps, result.curve.steps);
    assert_eq!(
        encoding::decode_predictions(&encoding::encode_predictions(&result.predictions)),
        Some(result.predictions.clone())
    );
}

/// A whole database. Where the first byte is odd, the rest is the database; otherwise it is a list of edits to a good one,
/// four bytes each: where, and what is put there.
///
/// # Panics
/// Bytes that were read are other than sound, and were not refused.
pub fn store(bytes: &[u8]) {
    let Some((kind, bytes)) = bytes.split_first() else {
        return;
    };
    let database = if kind % 2 == 1 {
        bytes.to_vec()
    } else {
        edited(good_database(), bytes)
    };

    let dir = tempfile::tempdir_in(memory()).expect("a temporary directory");
    std::fs::write(dir.path().join("ergodic.sqlite"), database).expect("a file can be written");
    let Ok(store) = SqliteStore::open(dir.path()) else {
        return;
    };
    let Ok(leader) = store.acquire_leadership("") else {
        return;
    };
    let Ok(mut writer) = store.open_writer(leader.epoch) else {
        return;
    };
    let Ok((mut core, _)) = recover_core(&store, Some(writer.as_mut()), leader.epoch, TTL, true)
    else {
        return;
    };
    core.check_invariants().expect("the books add up");

    core.on_tick(CoreTime::from_secs(1000));
    core.check_invariants().expect("the books add up");

    if let (Ok(reader), Ok(readers)) = (store.open_reader(), store.open_readers(2)) {
        let numbers: Vec<SweepNumber> = core.sweeps().map(|sweep| sweep.number).collect();
        numbers
            .iter()
            .for_each(|number| _ = read_all(reader.as_ref(), *number));

        for sweep in core.sweeps() {
            if let Ok(query) = TableQuery::new(&sweep.spec, &TableParams::default()) {
                let data = sweep.record.data.hash.unwrap_or(DatasetHash::NONE);
                let rows = RowSource {
                    spec: &sweep.spec,
                    sweep: sweep.number,
                    readers: &readers,
                    dataset_hash: data,
                };
                _ = query.compute_table(rows);

                _ = query.compute_curves(rows);
            }
        }
    }
}

fn read_all(reader: &dyn StoreReader, sweep: SweepNumber) -> Result<(), StoreError> {
    let mut keys = Vec::new();
    reader.read_trials(sweep, &mut |trial| {
        keys.push(trial.result.key);
        keys.len() < LOOKED_AT
    })?;

    for key in keys {
        reader.read_trial(sweep, key)?;
        reader.read_attempts(sweep, key)?;
    }

    reader.read_ended_trials(sweep, TrialRange::ALL, &mut |_| {})?;
    reader.read_curves(sweep, TrialRange::ALL, &mut |trial| {
        drop(trial.curve.to_curve())
    })?;
    reader.read_predictions(sweep, &mut |_, _| true)
}

fn edited(database: &[u8], edits: &[u8]) -> Vec<u8> {
    let mut database = database.to_vec();
    for [a, b, c, byte] in edits.as_chunks::<4>().0 {
        let at = u32::from_le_bytes([*a, *b, *c, 0]) as usize % database.len();
        database[at] = *byte;
    }
    database
}

/// What a user passes as an address, a token, a store or a time.
///
/// # Panics
/// A token is not written as it was read, or is shown.
pub fn address(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    let token = text.parse::<Token>().ok();
    if let Some(token) = &token {
        assert_eq!(token.reveal_text().parse::<Token>().as_ref(), Ok(token));
        assert!(!format!("{token:?}").contains(&token.reveal_text()));
    }

    is_loopback(text);
    _ = parse_duration(text);
    let shown = format!("{:?}", StoreLocation::parse(Path::new(text)));
    assert!(!text.starts_with("postgres://") || shown == "Database");
    let _runtime = runtime().enter();

    for token in [None, token] {
        _ = connect_lazily(
            text,
            &ClientAuth {
                token,
                ..ClientAuth::default()
            },
        );
    }
}

/// Connecting needs a runtime to be there, and runs nothing on it before it is used.
fn runtime() -> &'static tokio::runtime::Runtime {
    static RUNTIME: OnceLock<tokio::runtime::Runtime> = OnceLock::new();
    RUNTIME.get_or_init(|| {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .expect("a runtime")
    })
}

/// A file that somebody put into the store: a dataset, or weights for a network.
///
/// # Panics
/// What was read is not written as it was.
pub fn file(bytes: &[u8]) {
    if let Ok(dataset) = Dataset::decode(bytes) {
        assert!(dataset.train.len() + dataset.test.len() <= bytes.len());
    }

    _ = FilePin::from_bytes("f.safetensors", bytes);
    let net = small_net();
    if let Ok(weights) = Weights::from_safetensors(bytes, net) {
        assert_eq!(
            Weights::from_safetensors(&weights.to_safetensors(net, None), net)
                .map_err(|e| e.to_string()),
            Ok(weights)
        );
    }
}

fn small_net() -> &'static Net {
    static NET: OnceLock<Net> = OnceLock::new();
    NET.get_or_init(|| {
        let text = "name = \"t\"\n[data]\ndataset = \"glyphs\"\n[model]\nkind = \"mlp\"\nhidden = [2]\naffine = true\n[train]\n\
                    steps = 1\nbatch_size = 2\nlr = 0.1\n";
        let config: TrialConfig = spec(text).grid.resolve_config(CellIndex(0)).expect("the only cell");
        let model: &ModelConfig = &config.model;
        Net::from_model(model, ActivationShape { height: 1, width: 2, channels: 1 }, 2).expect("a network")
    })
}

// --- a core with something to lose, and a store with something in it ---

const TTL: Duration = Duration::from_secs(30);
const WORKER: &str = "0123456789abcdef0123456789abcdef";

fn spec(text: &str) -> Spec {
    let source = SpecSource {
        file: "f".into(),
        text: text.into(),
        ..SpecSource::default()
    };
    Spec::read_stored(&source).expect("a valid sweep")
}

fn empty_row() -> SweepRow {
    let text = "name = \"t\"\nrepeats = 4\n[data]\ntrain = 64\n[model]\nkind = \"empty\"\n[grid]\nlr = [0.1, 0.2, 0.3]\n\
                batch_size = [8, 16]\n[where]\nkeep = \"lr * batch_size < 4\"\n";
    SweepRow {
        number: SweepNumber(1),
        id: "0".repeat(12).into(),
        source: SpecSource {
            file: "f".into(),
            text: text.into(),
            ..SpecSource::default()
        },
        data: DataPin::default(),
        state: SweepState::Running,
        share: Share::default(),
        launched_at: 0.0,
        launched_by: String::new(),
        tallies: SweepTallies::default(),
    }
}

fn empty_sweep() -> Sweep {
    let row = empty_row();
    let spec = Arc::new(spec(&row.source.text));
    Sweep::new(Arc::new(row), spec)
}

/// One sweep, one worker, which holds lease 1 of epoch 1.
fn busy_core() -> Core {
    let mut core = Core::new(Timing { lease_ttl: TTL }, Epoch(1), LeaseId(1));
    core.on_sweep_added(empty_sweep(), [], CoreTime::ZERO);
    let hello = v1::Hello {
        protocol: PROTOCOL_VERSION,
        worker: WORKER.into(),
        name: "w".into(),
        slots: 2,
        numerics: vec![CPU_F32.into()],
        ..v1::Hello::default()
    };
    core.on_worker_joined(
        session::parse_hello(hello).expect("a good hello"),
        CoreTime::ZERO,
    );

    let granted = core.on_work_requested(&WORKER.into(), 2, CoreTime::ZERO);
    assert!(
        matches!(&granted[..], [Effect::Grant { lease, .. }] if lease.fence == Fence { lease: LeaseId(1), epoch: Epoch(1) })
    );
    core
}

/// The bytes of a store in which a sweep is half done.
fn good_database() -> &'static [u8] {
    static DATABASE: OnceLock<Vec<u8>> = OnceLock::new();
    DATABASE.get_or_init(|| {
        let dir = tempfile::tempdir_in(memory()).expect("a temporary directory");
        let store = SqliteStore::open(dir.path()).expect("a new store");
        let fence = Fence {
            lease: LeaseId(1),
            epoch: Epoch(1),
        };
        let trials = IntervalSet::from_range(0, 8);
        let lease = LeaseRow {
            fence,
            sweep: SweepNumber(1),
            class: ShapeClass(0),
            worker: WORKER.into(),
            trials,
            audits: None,
        };

        let results = (0..2).map(|repeat| TrialResult {
            metrics: vec![0.5],
            curve: MetricCurve {
                steps: vec![1, 2],
                values: vec![0.25, 0.5],
            },
            predictions: Predictions {
                steps: vec![2],
                classes: vec![1, 0],
            },
            ..TrialResult::completed(TrialKey::new(0, repeat))
        });
        let results = StoreResults {
            batch: ResultBatch {
                sweep: SweepNumber(1),
                fence,
                process: "w".into(),
                results: results.collect(),
                positions: MetricPositions::default(),
                comparison: ResultComparison::default(),
            },
            worker: "w".into(),
            compare_only: false,
            audit: false,
            chosen_for_audit: Vec::new(),
        };

        let mut writer = store.open_writer(Epoch(1)).expect("its writer");
        writer
            .commit((InsertSweep(empty_row()), InsertLease(lease)))
            .expect("a good write");
        writer.commit(results).expect("a good write");

        drop((writer, store));
        std::fs::read(dir.path().join("ergodic.sqlite")).expect("the database")
    })
}

/// Where small files cost nothing.
fn memory() -> &'static Path {
    static PLACE: OnceLock<std::path::PathBuf> = OnceLock::new();
    PLACE.get_or_init(|| {
        let shared = Path::new("/dev/shm");
        if shared.is_dir() {
            shared.to_owned()
        } else {
            std::env::temp_dir()
        }
    })
}
