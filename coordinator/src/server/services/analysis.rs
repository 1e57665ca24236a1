//! What users ask of a sweep's repeats beyond tables: the answers of `SweepService` that have a file of their own.

use ergodic_common::Spec;
use ergodic_proto::v1;
use tonic::{Response, Status};

use crate::analysis::distance::{CellDistance, CellSelector, DistanceParams, DistanceQuery};
use crate::analysis::effects::{AnovaTerm, EffectsParams, EffectsQuery, LevelEffect, TopCell};
use crate::analysis::variance::{CellVariance, ComponentEstimate, VarianceQuery};
use crate::server::services::access::SweepApi;
use crate::server::services::results::table_error;

impl SweepApi {
    /// `SweepService.Distance`
    pub(crate) async fn answer_distance(
        &self,
        request: v1::DistanceRequest,
    ) -> Result<Response<v1::DistanceResponse>, Status> {
        let found = self.find_snapshot(&request.sweep).await?;
        let between: Vec<CellSelector> = request.between.into_iter().map(to_cell_choice).collect();
        let question = DistanceParams {
            between: &between,
            at: &request.at,
            permutations: request.permutations,
        };
        let distances = DistanceQuery::new(&found.spec, &question).map_err(table_error)?;
        let trials = (distances.cells().len() as u64)
            .saturating_mul(found.spec.repeats.into())
            .min(found.done);

        let points = found
            .spec
            .measure
            .probe
            .as_ref()
            .map_or(0, |probe| probe.points);
        let _room = self
            .acquire_for_cells(&found, trials.saturating_mul(points.into()))
            .await?;

        let asked = distances.clone();
        let rows = self
            .read_rows(&found, move |rows| asked.compute_distances(rows))
            .await?;
        let cell = |cell: &u64| v1::DistanceCell {
            cell: *cell,
            values: found
                .spec
                .grid
                .axis_values(*cell)
                .iter()
                .map(Into::into)
                .collect(),
        };

        Ok(Response::new(v1::DistanceResponse {
            sweep: found.id,
            name: found.spec.name.clone(),
            axes: found
                .spec
                .grid
                .axes()
                .iter()
                .map(|axis| axis.name.clone())
                .collect(),
            cells: distances.cells().iter().map(cell).collect(),
            rows: rows.into_iter().map(to_distance).collect(),
            points: found
                .spec
                .measure
                .probe
                .as_ref()
                .map_or(0, |probe| probe.points),
            done: found.done,
            trials: found.spec.trial_count(),
            data: found.data_provenance,
            numerics: found.spec.numerics.clone(),
        }))
    }

    /// `SweepService.Effects`
    pub(crate) async fn answer_effects(
        &self,
        request: v1::EffectsRequest,
    ) -> Result<Response<v1::EffectsResponse>, Status> {
        let found = self.find_snapshot(&request.sweep).await?;
        let v1::EffectsRequest {
            metric,
            at,
            level,
            interaction,
            ..
        } = request;
        let asked = EffectsParams {
            metric: &metric,
            at: &at,
            level,
            interaction: &interaction,
        };
        let analysis = EffectsQuery::new(&found.spec, &asked).map_err(table_error)?;
        let metric = analysis.metric().name().into_owned();

        let _room = self.acquire_for_cells(&found, 0).await?;
        let effects = self
            .read_rows(&found, move |rows| analysis.analyze_effects(rows))
            .await?;
        let spec = &found.spec;
        Ok(Response::new(v1::EffectsResponse {
            sweep: found.id,
            name: spec.name.clone(),
            metric,
            axes: spec
                .grid
                .axes()
                .iter()
                .map(|axis| axis.name.clone())
                .collect(),
            mean: effects.mean,
            effects: effects
                .levels
                .iter()
                .map(|level| to_effect(spec, level))
                .collect(),
            shares: effects.terms.into_iter().map(to_variance_share).collect(),
            best: effects
                .best
                .iter()
                .map(|best| to_best_cell(spec, best))
                .collect(),
            interaction: effects
                .pairs
                .iter()
                .map(|pair| to_effect(spec, pair))
                .collect(),
            may_be_best: effects.may_be_best,
            notes: effects.notes,
            done: found.done,
            trials: spec.trial_count(),
            data: found.data_provenance,
            numerics: spec.numerics.clone(),
        }))
    }

    /// `SweepService.Variance`
    pub(crate) async fn answer_variance(
        &self,
        request: v1::VarianceRequest,
    ) -> Result<Response<v1::VarianceResponse>, Status> {
        let found = self.find_snapshot(&request.sweep).await?;
        let asked = VarianceQuery::new(&found.spec, &request.metric, &request.at, request.level)
            .map_err(table_error)?;
        let metric = asked.metric().name().into_owned();
        let _room = self.acquire_for_cells(&found, 0).await?;
        let cells = self
            .read_rows(&found, move |rows| asked.decompose_cells(rows))
            .await?;

        let spec = &found.spec;
        Ok(Response::new(v1::VarianceResponse {
            sweep: found.id,
            name: spec.name.clone(),
            metric,
            axes: spec
                .grid
                .axes()
                .iter()
                .map(|axis| axis.name.clone())
                .collect(),
            cells: cells
                .into_iter()
                .map(|cell| to_variance_cell(spec, cell))
                .collect(),
            done: found.done,
            trials: spec.trial_count(),
            data: found.data_provenance,
            numerics: spec.numerics.clone(),
        }))
    }
}

fn to_variance_cell(spec: &Spec, found: CellVariance) -> v1::VarianceCell {
    let component = |component: ComponentEstimate| v1::VarianceComponent {
        name: component.name,
        df: component.df,
        variance: component.variance,
        share: component.share,
        low: component.interval.map(|ends| ends.0),
        high: component.interval.map(|ends| ends.1),
    };

    let CellVariance {
        cell,
        n,
        components,
        note,
    } = found;
    let values = spec.grid.axis_values(cell).iter().map(Into::into).collect();
    v1::VarianceCell {
        cell,
        values,
        n,
        components: components.into_iter().map(component).collect(),
        note,
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

fn to_best_cell(spec: &Spec, best: &TopCell) -> v1::BestCell {
    let TopCell {
        cell,
        n,
        without_value: lost,
        mean,
        rank: place,
        probability,
    } = *best;
    let values = spec.grid.axis_values(cell).iter().map(Into::into).collect();

    let mean_rank = Some(place.mean_rank);
    let may_be_best = place.may_be_best;
    // What is not defined is NaN on the wire.
    v1::BestCell {
        cell,
        values,
        n,
        lost,
        mean: mean.unwrap_or(f64::NAN),
        probability,
        mean_rank,
        may_be_best,
    }
}

fn to_cell_choice(choice: v1::CellChoice) -> CellSelector {
    match choice.cell {
        Some(cell) => CellSelector::Number(cell),
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
