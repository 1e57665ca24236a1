//! `Compare`, `Distance`, `Effects` and `Variance`: analyses of a sweep's repeats beyond tables.

use ergodic_common::Spec;
use ergodic_common::ids::CellIndex;
use ergodic_proto::v1;
use tonic::Status;

use crate::analysis::CellSelector;
use crate::analysis::compare::{CompareParams, CompareQuery};
use crate::analysis::distance::{CellDistance, DistanceParams, DistanceQuery};
use crate::analysis::effects::{
    AnovaTerm, EffectsAnalysis, EffectsParams, EffectsQuery, LevelEffect, TopCell,
};
use crate::analysis::variance::{CellVariance, VarianceQuery};
use crate::estimators::crossed_layout::ComponentEstimate;
use crate::server::convert::to_contrast;
use crate::server::services::access::SweepApi;
use crate::server::services::row_readers::table_error;
use crate::server::services::snapshot::SweepSnapshot;

impl SweepApi {
    /// The body of `Compare`.
    pub(crate) async fn answer_compare(
        &self,
        request: v1::CompareRequest,
    ) -> Result<v1::CompareResponse, Status> {
        let snapshot = self.find_snapshot(&request.sweep).await?;
        if !request.baseline_sweep.is_empty() {
            return self.compare_sweeps(snapshot, request).await;
        }

        let baseline: Vec<_> = request
            .baseline
            .into_iter()
            .map(|choice| (choice.axis, choice.value))
            .collect();
        let params = CompareParams {
            baseline: &baseline,
            metric: &request.metric,
            at: &request.at,
            level: request.level,
        };
        let query = CompareQuery::new(&snapshot.spec, &params).map_err(table_error)?;
        let task_query = query.clone();

        let _permit = self.acquire_for_cells(&snapshot, 0).await?;
        let rows = self
            .read_rows(&snapshot, move |rows| task_query.compute_contrasts(rows))
            .await?;

        Ok(v1::CompareResponse {
            axes: snapshot.axis_names(),
            sweep: snapshot.id.into(),
            name: snapshot.spec.name.clone(),
            metric: query.metric().name().into_owned(),
            baseline: query.describe_baseline(&snapshot.spec),
            note: query.describe_caveats(&rows),
            rows: rows.iter().map(to_contrast).collect(),
            done: snapshot.done,
            trials: snapshot.trials,
            data: snapshot.data_provenance,
            numerics: snapshot.spec.numerics.clone(),
            ..v1::CompareResponse::default()
        })
    }

    /// The body of `Distance`.
    pub(crate) async fn answer_distance(
        &self,
        request: v1::DistanceRequest,
    ) -> Result<v1::DistanceResponse, Status> {
        let snapshot = self.find_snapshot(&request.sweep).await?;
        let between: Vec<CellSelector> =
            request.between.into_iter().map(to_cell_selector).collect();
        let params = DistanceParams {
            between: &between,
            at: &request.at,
            permutations: request.permutations,
        };
        let query = DistanceQuery::new(&snapshot.spec, &params).map_err(table_error)?;
        let task_query = query.clone();

        let trials = (query.cells().len() as u64)
            .saturating_mul(snapshot.spec.repeats.into())
            .min(snapshot.done);
        let bytes = query.count_bytes(trials);
        let _permit = self.acquire_for_cells(&snapshot, bytes).await?;
        let (points, rows) = self
            .read_rows(&snapshot, move |rows| {
                let query = task_query.resolve_points(rows)?;
                Ok((query.point_count(), query.compute_distances(rows)?))
            })
            .await?;

        let cells = query.cells().iter();
        Ok(v1::DistanceResponse {
            axes: snapshot.axis_names(),
            cells: cells
                .map(|cell| to_distance_cell(&snapshot, *cell))
                .collect(),
            sweep: snapshot.id.into(),
            name: snapshot.spec.name.clone(),
            rows: rows.into_iter().map(to_distance).collect(),
            points,
            done: snapshot.done,
            trials: snapshot.trials,
            data: snapshot.data_provenance,
            numerics: snapshot.spec.numerics.clone(),
        })
    }

    /// The body of `Effects`.
    pub(crate) async fn answer_effects(
        &self,
        request: v1::EffectsRequest,
    ) -> Result<v1::EffectsResponse, Status> {
        let snapshot = self.find_snapshot(&request.sweep).await?;
        let params = EffectsParams {
            metric: &request.metric,
            at: &request.at,
            level: request.level,
            interaction: &request.interaction,
        };
        let query = EffectsQuery::new(&snapshot.spec, &params).map_err(table_error)?;
        let metric = query.metric().name().into_owned();

        let _permit = self.acquire_for_cells(&snapshot, 0).await?;
        let effects = self
            .read_rows(&snapshot, move |rows| query.analyze_effects(rows))
            .await?;

        Ok(to_effects_response(snapshot, metric, effects))
    }

    /// The body of `Variance`.
    pub(crate) async fn answer_variance(
        &self,
        request: v1::VarianceRequest,
    ) -> Result<v1::VarianceResponse, Status> {
        let snapshot = self.find_snapshot(&request.sweep).await?;
        let query = VarianceQuery::new(&snapshot.spec, &request.metric, &request.at, request.level)
            .map_err(table_error)?;
        let metric = query.metric().name().into_owned();

        let _permit = self.acquire_for_cells(&snapshot, 0).await?;
        let cells = self
            .read_rows(&snapshot, move |rows| query.decompose_cells(rows))
            .await?;

        let cells = cells.into_iter();
        Ok(v1::VarianceResponse {
            axes: snapshot.axis_names(),
            cells: cells
                .map(|cell| to_variance_cell(&snapshot, cell))
                .collect(),
            sweep: snapshot.id.into(),
            name: snapshot.spec.name.clone(),
            metric,
            done: snapshot.done,
            trials: snapshot.trials,
            data: snapshot.data_provenance,
            numerics: snapshot.spec.numerics.clone(),
        })
    }
}

fn to_effects_response(
    snapshot: SweepSnapshot,
    metric: String,
    effects: EffectsAnalysis,
) -> v1::EffectsResponse {
    let spec = &snapshot.spec;
    let levels = effects.levels.iter();
    let pairs = effects.pairs.iter();
    let best = effects.best.iter();

    v1::EffectsResponse {
        axes: snapshot.axis_names(),
        mean: effects.mean,
        effects: levels.map(|level| to_effect(spec, level)).collect(),
        shares: effects.terms.into_iter().map(to_variance_share).collect(),
        best: best.map(|cell| to_best_cell(&snapshot, cell)).collect(),
        interaction: pairs.map(|pair| to_effect(spec, pair)).collect(),
        may_be_best: effects.may_be_best,
        notes: effects.notes,
        name: spec.name.clone(),
        metric,
        done: snapshot.done,
        trials: snapshot.trials,
        numerics: spec.numerics.clone(),
        sweep: snapshot.id.into(),
        data: snapshot.data_provenance,
    }
}

fn to_distance_cell(snapshot: &SweepSnapshot, cell: CellIndex) -> v1::DistanceCell {
    v1::DistanceCell {
        cell: cell.0,
        values: snapshot.axis_values(cell),
    }
}

fn to_variance_cell(snapshot: &SweepSnapshot, cell: CellVariance) -> v1::VarianceCell {
    let CellVariance {
        cell,
        n,
        components,
        note,
    } = cell;
    v1::VarianceCell {
        cell: cell.0,
        values: snapshot.axis_values(cell),
        n,
        components: components.into_iter().map(to_variance_component).collect(),
        note,
    }
}

fn to_variance_component(component: ComponentEstimate) -> v1::VarianceComponent {
    v1::VarianceComponent {
        name: component.name,
        df: component.df,
        variance: component.variance,
        share: component.share,
        low: component.interval.map(|ends| ends.0),
        high: component.interval.map(|ends| ends.1),
    }
}

fn to_effect(spec: &Spec, level: &LevelEffect) -> v1::Effect {
    v1::Effect {
        axes: level
            .axes
            .iter()
            .map(|axis| spec.grid.axes()[*axis].name.clone())
            .collect(),
        values: level.values.iter().map(Into::into).collect(),
        cells: level.cells,
        mean: level.mean,
        effect: level.effect,
        low: level.interval.map(|ends| ends.0),
        high: level.interval.map(|ends| ends.1),
    }
}

fn to_variance_share(term: AnovaTerm) -> v1::VarianceShare {
    let AnovaTerm {
        name,
        df,
        squares,
        share,
        between,
    } = term;
    v1::VarianceShare {
        name,
        df,
        squares,
        share,
        between,
    }
}

fn to_best_cell(snapshot: &SweepSnapshot, best: &TopCell) -> v1::BestCell {
    v1::BestCell {
        cell: best.cell.0,
        values: snapshot.axis_values(best.cell),
        n: best.n,
        lost: best.without_value,
        // Undefined means are NaN on the wire.
        mean: best.mean.unwrap_or(f64::NAN),
        probability: best.probability,
        mean_rank: Some(best.rank.mean_rank),
        may_be_best: best.rank.may_be_best,
    }
}

fn to_cell_selector(choice: v1::CellChoice) -> CellSelector {
    match choice.cell {
        Some(cell) => CellSelector::Number(CellIndex(cell)),
        None => CellSelector::Values(
            choice
                .values
                .into_iter()
                .map(|choice| (choice.axis, choice.value))
                .collect(),
        ),
    }
}

fn to_distance(apart: CellDistance) -> v1::Distance {
    v1::Distance {
        a: apart.a as u32,
        b: apart.b as u32,
        at: apart.at,
        n: apart.n,
        distance: apart.distance,
        null: apart.null,
        statistic: apart.permutation_test.map(|swaps| swaps.distance),
        p: apart.permutation_test.map(|swaps| swaps.p),
        exact: apart.permutation_test.is_some_and(|swaps| swaps.exact),
        agreement: apart.agreement,
        agreement_same: apart.agreement_same,
        agreement_a: apart.agreement_a,
        agreement_b: apart.agreement_b,
        note: apart.note,
    }
}
