//! Histories: what is written, in any order, to a model and to both stores.

use std::sync::Arc;

use ergodic::core::MetricPositions;
use ergodic::interval_set::IntervalSet;
use ergodic::records::{
    DataPin, EndedLease, Finding, LeaseRow, SweepRow, SweepState, SweepTallies,
};
use ergodic::result_batch::{ResultBatch, ResultComparison};
use ergodic::store::{
    Attempt, Audit, CheckWritable, ClearRows, EndLeases, ExtendSweep, FindUnreferenced,
    GiveUpAudit, GiveUpTrial, InsertLease, InsertReusing, InsertSuccessor, InsertSweep, RedoTrials,
    RemoveSweep, RestoreAudits, RestoreOutputs, RestoreRows, RetryFailed, ReuseSource, ReusedCell,
    ReusingSweep, RevertGiveUp, SetCellsDigest, SetRowsAside, SetShare, SetSweepState, ShrinkLease,
    StoreError, StoreResults, StoreTransaction, StoreWrite, StoredOutput, StoredTrial,
    SuccessorSweep, Twin,
};
use ergodic_common::ids::{
    CellHash, CellIndex, CellsFingerprint, DatasetHash, Epoch, Fence, FileHash, LeaseId,
    ShapeClass, SweepNumber, WeightsDigest,
};
use ergodic_common::program::output::PackedOutput;
use ergodic_common::spec::SpecSource;
use ergodic_common::spec::scheduling::Share;
use ergodic_common::trial::{MetricCurve, Predictions};
use ergodic_common::{Outcome, Spec, TrialKey, TrialResult};
use proptest::prelude::*;

/// Declares a write of any of these kinds. Its output is that of the write, in words: in numbers, NaN is not equal to itself.
macro_rules! any_write {
    ($($kind:ident),* $(,)?) => {
        /// A write of whatever kind.
        #[derive(Debug, Clone)]
        pub(crate) enum AnyWrite {
            $($kind($kind)),*
        }

        $(impl From<$kind> for AnyWrite {
            fn from(write: $kind) -> Self {
                Self::$kind(write)
            }
        })*

        impl StoreWrite for AnyWrite {
            type Output = String;

            fn apply(&self, sql: &StoreTransaction<'_>) -> Result<String, StoreError> {
                match self {
                    $(Self::$kind(write) => write.apply(sql).map(|output| format!("{output:?}"))),*
                }
            }
        }
    };
}

any_write!(
    CheckWritable,
    ClearRows,
    EndLeases,
    ExtendSweep,
    FindUnreferenced,
    GiveUpAudit,
    GiveUpTrial,
    InsertLease,
    InsertReusing,
    InsertSuccessor,
    InsertSweep,
    SetRowsAside,
    RedoTrials,
    RemoveSweep,
    RestoreAudits,
    RestoreOutputs,
    RestoreRows,
    RetryFailed,
    RevertGiveUp,
    SetCellsDigest,
    SetShare,
    SetSweepState,
    ShrinkLease,
    StoreResults,
);

/// A step of a history.
#[derive(Debug, Clone)]
pub(crate) enum Step {
    /// One more sweep.
    Launch,
    /// One more, with the rows of this one, whose cells are so much further on in it.
    Inherit(SweepNumber, u64),
    /// One more, with copies of rows of this one, whose cells are so much further on in it.
    Gather(SweepNumber, u64),
    /// Writes of one transaction.
    Commit(Vec<AnyWrite>),
    /// The store is closed and opened again, by a coordinator that leads from then on.
    Reopen,
}

/// Sweeps are numbered 1 to 3, leases 1 to 6; of either, some are not there.
pub(crate) fn steps() -> BoxedStrategy<Step> {
    prop_oneof![
        1 => Just(Step::Launch),
        1 => (sweep_numbers(), 0..3_u64).prop_map(|(from, shift)| Step::Inherit(from, shift)),
        1 => (sweep_numbers(), 0..3_u64).prop_map(|(from, shift)| Step::Gather(from, shift)),
        1 => Just(Step::Reopen),
        12 => proptest::collection::vec(write(), 1..4).prop_map(Step::Commit),
    ]
    .boxed()
}

fn sweep_numbers() -> impl Strategy<Value = SweepNumber> {
    (1..4_i64).prop_map(SweepNumber)
}

fn write() -> impl Strategy<Value = AnyWrite> {
    let fence = || {
        (1..7_u64, 1..3_u64).prop_map(|(lease, epoch)| Fence {
            lease: LeaseId(lease),
            epoch: Epoch(epoch),
        })
    };
    let sweeps = sweep_numbers;
    let results = || {
        proptest::collection::vec(
            (0..8_u32, 0..5_u8, 0..3_u8).prop_map(|(n, kind, printed)| TrialResult {
                output: (printed > 0).then(|| output(printed)),
                ..result(n, kind)
            }),
            0..8,
        )
    };

    let state = proptest::sample::select(SweepState::ALL.to_vec());
    let lease = move |len: u64| {
        (fence(), sweeps()).prop_map(move |(fence, sweep)| {
            let trials = IntervalSet::from_range(fence.lease.0, fence.lease.0 + len);
            let audits = (fence.lease.0 % 2 == 0).then(|| "v".into());
            LeaseRow {
                fence,
                sweep,
                class: ShapeClass(1),
                worker: "w".into(),
                trials,
                audits,
            }
        })
    };

    prop_oneof![
        8 => lease(10).prop_map(InsertLease).prop_map_into(),
        2 => lease(5).prop_map(ShrinkLease).prop_map_into(),
        2 => (sweeps(), -3..4_i32).prop_map(|(sweep, priority)| SetShare { sweep, share: Share { priority, weight: 0.5 } }).prop_map_into(),
        4 => proptest::collection::vec((fence(), any::<bool>()).prop_map(|(fence, lost)| EndedLease { fence, lost }), 0..3)
            .prop_map(EndLeases).prop_map_into(),
        2 => (sweeps(), state).prop_map(|(sweep, state)| SetSweepState { sweep, state }).prop_map_into(),
        16 => (sweeps(), fence(), results(), 0..6_u8, "[vw]").prop_map(|(sweep, fence, results, how, process)| {
            // The first repeats are.
            let chosen = results.iter().map(|result| result.key).filter(|key| key.repeat.0 == 0).collect();
            let (compare_only, audit, worker) = (how == 0, how == 1, format!("{process}1"));
            let process = process.into();
            let batch = ResultBatch { sweep, fence, process, results, positions: MetricPositions::default(), comparison: ResultComparison::default() };
            StoreResults { batch, worker, compare_only, audit, chosen_for_audit: chosen }
        }).prop_map_into(),
        2 => (sweeps(), 0..8_u32).prop_map(|(sweep, n)| GiveUpAudit { sweep, key: key(n), cause: "it kills".into() }).prop_map_into(),
        1 => (sweeps(), proptest::collection::vec(0..8_u32, 0..3)).prop_map(|(sweep, trials)| {
            RestoreAudits { sweep, audits: trials.into_iter().map(audit).collect() }
        }).prop_map_into(),
        2 => (sweeps(), 0..8_u32).prop_map(|(sweep, n)| GiveUpTrial { sweep, result: TrialResult::failed(key(n), "it kills".into(), 2) }).prop_map_into(),
        2 => (sweeps(), 0..8_u32, any::<bool>()).prop_map(|(sweep, n, audit)| RevertGiveUp { sweep, key: key(n), is_audit: audit }).prop_map_into(),
        2 => sweeps().prop_map(RetryFailed).prop_map_into(),
        1 => (sweeps(), proptest::collection::vec(0..8_u32, 0..3))
            .prop_map(|(sweep, trials)| SetRowsAside { sweep, keys: trials.into_iter().map(key).collect() }).prop_map_into(),
        1 => sweeps().prop_map(RemoveSweep).prop_map_into(),
        2 => sweeps().prop_map(ClearRows).prop_map_into(),
        1 => (sweeps(), proptest::collection::btree_set((0..8_u32, 0..3_u32), 0..4)).prop_map(|(sweep, places)| {
            let stored = |(n, attempt)| StoredOutput { key: key(n), attempt, output: output(9) };
            RestoreOutputs { sweep, outputs: places.into_iter().map(stored).collect() }
        }).prop_map_into(),
        1 => (sweeps(), results(), proptest::collection::vec(0..8_u32, 0..3)).prop_map(|(sweep, results, trials)| {
            let rows = results.into_iter().enumerate();
            let rows = rows.map(|(at, result)| StoredTrial { result: TrialResult { output: None, ..result }, worker: format!("w{}", at % 2) });
            let attempt = |n| (key(n), Attempt { cause: "it broke".into(), worker: "w".into(), seconds: 0.5 });
            RestoreRows { sweep, rows: rows.collect(), attempts: trials.into_iter().map(attempt).collect() }
        }).prop_map_into(),
        2 => (sweeps(), 0..3_usize, 0..3_usize).prop_map(|(sweep, from, to)| ExtendSweep { sweep, from: source(from), to: source(to) }).prop_map_into(),
        1 => (sweeps(), 0..2_u8).prop_map(|(sweep, n)| SetCellsDigest { sweep, cells: CellsFingerprint([n; 32]) }).prop_map_into(),
        1 => (sweeps(), proptest::collection::vec(0..8_u32, 0..3))
            .prop_map(|(sweep, trials)| RedoTrials { sweep, keys: trials.into_iter().map(key).collect() }).prop_map_into(),
        1 => (0..9_u8).prop_map(|n| FindUnreferenced(vec![FileHash([n; 32])])).prop_map_into(),
        1 => Just(CheckWritable).prop_map_into(),
    ]
}

fn audit(n: u32) -> Audit {
    Audit {
        key: key(n),
        process: "v".into(),
        finding: n.is_multiple_of(2).then_some(Finding::Different),
        auditor: "w1".into(),
        auditor_process: "w".into(),
        why: "digest".into(),
    }
}

/// What a program printed; the store does not look into it.
fn output(kind: u8) -> PackedOutput {
    PackedOutput {
        printed: 1 << (4 * kind),
        packed: vec![0, kind, 0xff],
    }
}

pub(crate) fn key(n: u32) -> TrialKey {
    TrialKey::new(u64::from(n / 2), n % 2)
}

pub(crate) fn result(n: u32, kind: u8) -> TrialResult {
    let metric = if kind == 1 { f64::NAN } else { f64::from(kind) };
    let plain = TrialResult {
        steps: 10,
        seconds: 0.25,
        metrics: vec![metric, -0.0],
        digest: WeightsDigest([n as u8; 32]),
        curve: MetricCurve {
            steps: vec![5, 10],
            values: vec![1.0, f64::NAN, metric, -0.0],
        },
        isa: "avx2".into(),
        ..TrialResult::completed(key(n))
    };

    match kind {
        2 => TrialResult {
            outcome: Outcome::Diverged { step: 4 },
            ..plain
        },
        3 => TrialResult {
            predictions: Predictions {
                steps: vec![5],
                classes: vec![1, 2],
            },
            weights_hash: Some(FileHash([7; 32])),
            ..plain
        },
        4 => TrialResult {
            outcome: Outcome::Failed {
                cause: "a b".into(),
            },
            ..plain
        },
        _ => plain,
    }
}

/// Sweeps have the first of these at their launch.
fn source(n: usize) -> SpecSource {
    let settings = (0..n)
        .map(|n| format!("repeats={n}"))
        .chain(["a=\"1\"".into()])
        .collect();
    SpecSource {
        file: "f".into(),
        text: "t".into(),
        settings,
        ..SpecSource::default()
    }
}

/// Of the four cells, the last one is left out.
pub(crate) fn inheritance(row: SweepRow, from: SweepNumber, shift: u64) -> SuccessorSweep {
    SuccessorSweep {
        row,
        predecessor: from,
        cell_map: (0..3)
            .map(|cell| (CellIndex(cell), CellIndex(cell + shift)))
            .collect(),
    }
}

/// Of three cells the first repeats, without what they keep; the last cell is run again and compared.
pub(crate) fn gathering(row: SweepRow, from: SweepNumber, shift: u64) -> ReusingSweep {
    let text = "name = 'a'\n[data]\ndataset = 'glyphs'\n[model]\nkind = 'mlp'\n[train]\nsteps = 9\nbatch_size = 32\nlr = 0.1\n[measure]\n\
                metrics = ['test_acc', 'train_loss']\n";
    let source = SpecSource {
        file: "f".into(),
        text: text.into(),
        ..SpecSource::default()
    };
    let spec = Spec::read_stored(&source).expect("a sweep file");
    let select = spec
        .measure
        .selection_for(
            &spec.measure,
            &spec.grid.resolve_config(CellIndex(0)).expect("a cell"),
        )
        .expect("itself");
    let select = Arc::new(select);
    let cell = |cell| ReusedCell {
        source_cell: CellIndex(cell),
        new_cell: CellIndex(cell + shift),
        repeat_limit: 1,
        identity: CellHash([0; 32]),
        selection: select.clone(),
    };
    let sources = vec![ReuseSource {
        sweep: from,
        cells: (0..3).map(cell).collect(),
    }];

    let twins = vec![Twin {
        cell: CellIndex(3),
        other_sweep: from,
        other_cell: CellIndex(3),
    }];
    ReusingSweep {
        row,
        seed: 1,
        audit_share: 1.0,
        sources,
        twins,
    }
}

pub(crate) fn sweep(id: &str) -> SweepRow {
    SweepRow {
        number: SweepNumber::UNSTORED,
        id: id.into(),
        source: source(0),
        data: DataPin {
            hash: (id == "abc").then_some(DatasetHash([7; 32])),
            train: 5,
            provenance: "five".into(),
        },
        state: SweepState::Running,
        launched_at: 1.5,
        launched_by: "anna@lab".into(),
        tallies: SweepTallies::default(),
        share: Share::default(),
    }
}

pub(crate) fn lease(number: u64, sweep: SweepNumber) -> LeaseRow {
    let fence = Fence {
        lease: LeaseId(number),
        epoch: Epoch(1),
    };
    LeaseRow {
        fence,
        sweep,
        class: ShapeClass(0),
        worker: "w".into(),
        trials: IntervalSet::from_range(0, 10),
        audits: None,
    }
}

/// A batch under a lease of [`lease`].
pub(crate) fn results_of(
    sweep: SweepNumber,
    lease: u64,
    results: Vec<TrialResult>,
) -> StoreResults {
    StoreResults {
        batch: ResultBatch {
            sweep,
            fence: Fence {
                lease: LeaseId(lease),
                epoch: Epoch(1),
            },
            process: "w".into(),
            results,
            positions: MetricPositions::default(),
            comparison: ResultComparison::default(),
        },
        worker: "w".into(),
        compare_only: false,
        audit: false,
        chosen_for_audit: Vec::new(),
    }
}
