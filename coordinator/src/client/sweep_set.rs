//! Several sweeps that a command shows together: their rows in one table, told apart by an axis named `sweep`.

mod definitions;
mod join;
mod loss_kinds;
mod ranked_trials;

use ergodic_common::expr::WordExpr;
use ergodic_common::ids::SweepId;
use ergodic_common::{ErrorCode, Spec};
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use join::{join_curves, join_tables, join_trials};
use loss_kinds::{describe_loss, describe_mixture, find_losses};

use super::Client;
use super::latest::resolve_sweep_id;
use super::query::{query_curves, query_status, query_sweep_file, query_table, query_trials};
pub use super::render::SWEEP_AXIS;
use super::render::{RowSelection, SplitSelection};

/// At least one sweep.
#[derive(Debug, Clone)]
pub struct SweepSet {
    first: SweepInSet,
    others: Vec<SweepInSet>,
}

/// A sweep of a set.
#[derive(Debug, Clone)]
struct SweepInSet {
    id: SweepId,
    /// The value of the axis `sweep`: the name, with the id if several sweeps have that name.
    label: String,
}

impl SweepSet {
    /// A set of one, whose rows have no axis `sweep`.
    pub fn of_one(id: SweepId) -> Self {
        let first = SweepInSet {
            label: id.to_string(),
            id,
        };
        Self {
            first,
            others: Vec::new(),
        }
    }

    /// Resolves further sweeps as typed, beside the first one.
    ///
    /// # Errors
    /// There is no such sweep, one is named twice, or nobody answers.
    pub async fn resolve(
        client: &mut Client,
        first: SweepId,
        others: &[String],
    ) -> Result<Self, UserError> {
        if others.is_empty() {
            return Ok(Self::of_one(first));
        }

        let mut sweeps = vec![query_status(client, &first).await?];
        for typed in others {
            let id = resolve_sweep_id(client, typed).await?;
            let status = query_status(client, &id).await?;
            if sweeps.iter().any(|known| known.id == status.id) {
                return Err(UserError::new(
                    ErrorCode::BadInput,
                    format!("the sweep {} ({}) is named twice", status.name, status.id),
                ));
            }
            sweeps.push(status);
        }

        let mut labelled = label_sweeps(&sweeps).into_iter();
        Ok(Self {
            first: labelled.next().unwrap_or(SweepInSet {
                label: first.to_string(),
                id: first,
            }),
            others: labelled.collect(),
        })
    }

    /// The id of the only sweep; `None` of several.
    pub fn only_id(&self) -> Option<&SweepId> {
        self.others.is_empty().then_some(&self.first.id)
    }

    /// The id of the only sweep, for what is made for one; `option` begins the message, `instead` says what to do.
    ///
    /// # Errors
    /// There are several sweeps.
    pub fn require_one(&self, option: &str, instead: &str) -> Result<&SweepId, UserError> {
        self.only_id().ok_or_else(|| {
            let message = format!("{option}: only for one sweep: {instead}");
            UserError::new(ErrorCode::BadInput, message)
        })
    }

    /// Whether there are several sweeps.
    pub fn is_several(&self) -> bool {
        !self.others.is_empty()
    }

    /// The ids.
    pub fn ids(&self) -> impl Iterator<Item = &SweepId> {
        self.iter().map(|sweep| &sweep.id)
    }

    fn iter(&self) -> impl Iterator<Item = &SweepInSet> {
        std::iter::once(&self.first).chain(&self.others)
    }

    /// Decides what `--where` selects, as [`RowSelection::split_by_axes`] does for rows with the axes `by`. Rows of several sweeps have
    /// the axis `sweep`, too.
    ///
    /// # Errors
    /// As for [`RowSelection::split_by_axes`], or the condition names both an axis that is pooled and the axis `sweep`, which tells rows
    /// apart.
    pub fn split_selection(
        &self,
        selection: &RowSelection,
        by: &[String],
        stats: &[String],
    ) -> Result<SplitSelection, UserError> {
        if !self.is_several() || by.is_empty() {
            return selection.split_by_axes(by, stats);
        }
        let mut axes = by.to_vec();
        if !axes.iter().any(|axis| axis == SWEEP_AXIS) {
            axes.push(SWEEP_AXIS.to_owned());
        }

        let split = selection.split_by_axes(&axes, stats)?;
        if names_sweep_axis(&split.cells) {
            let message = "--where: it names `sweep`, which tells rows apart, and an axis that rows pool over: give them apart, as in \
                           --where \"lr < 0.1\" --having 'sweep == \"A\"'";
            return Err(UserError::new(ErrorCode::BadInput, message));
        }
        Ok(split)
    }

    /// Queries statistics per cell of every sweep. Rows of several sweeps are never pooled and have no ranks.
    ///
    /// # Errors
    /// A sweep has no such axis, metric or statistic, sweeps do not fit together, or nobody answers.
    pub async fn query_table(
        &self,
        client: &mut Client,
        mut request: v1::TableRequest,
    ) -> Result<v1::TableResponse, UserError> {
        if let Some(id) = self.only_id() {
            request.sweep = id.to_string();
            return query_table(client, request).await;
        }

        let place = SweepAxisPlace::take_from(&mut request.by)?;
        request.pool_all = place.pools_all;
        let mut tables = Vec::new();
        for sweep in self.iter() {
            request.sweep = sweep.id.to_string();
            let table = query_table(client, request.clone())
                .await
                .map_err(|error| sweep.explain(error))?;
            // The main metric of the first sweep is that of all.
            request.metric.clone_from(&table.metric);
            tables.push((sweep.label.clone(), table));
        }

        let mut joined = join_tables(tables, place.position)?;
        let texts = format!("{} {}", joined.metric, joined.quantities);
        for mixed in self.describe_mixed_losses(client, &texts).await? {
            // Why rows are not ranked is told only where they could be.
            let told = match joined.better {
                0 => &mut joined.quantities,
                _ => &mut joined.unranked,
            };
            add_reason(told, mixed);
        }
        Ok(joined)
    }

    /// Says of each loss that a text names that it is not the same quantity in all sweeps, if it is not.
    async fn describe_mixed_losses(
        &self,
        client: &mut Client,
        text: &str,
    ) -> Result<Vec<String>, UserError> {
        let losses = find_losses(text);
        if losses.is_empty() {
            return Ok(Vec::new());
        }

        let mut files = Vec::new();
        for sweep in self.iter() {
            let file = query_sweep_file(client, &sweep.id).await?;
            files.push((sweep.label.as_str(), file.source));
        }

        let mixtures = losses.iter().filter_map(|loss| {
            let kinds: Vec<(&str, Option<String>)> = files
                .iter()
                .map(|(label, source)| (*label, describe_loss(source, loss)))
                .collect();
            describe_mixture(&loss.name(), &kinds)
        });
        Ok(mixtures.collect())
    }

    /// Queries statistics per cell and step of every sweep.
    ///
    /// # Errors
    /// As for [`Self::query_table`].
    pub async fn query_curves(
        &self,
        client: &mut Client,
        mut request: v1::CurvesRequest,
    ) -> Result<v1::CurvesResponse, UserError> {
        if let Some(id) = self.only_id() {
            request.sweep = id.to_string();
            return query_curves(client, request).await;
        }

        let place = SweepAxisPlace::take_from(&mut request.by)?;
        request.pool_all = place.pools_all;
        let mut curves = Vec::new();
        for sweep in self.iter() {
            request.sweep = sweep.id.to_string();
            let of_sweep = query_curves(client, request.clone())
                .await
                .map_err(|error| sweep.explain(error))?;
            request.metric.clone_from(&of_sweep.metric);
            curves.push((sweep.label.clone(), of_sweep));
        }

        let mut joined = join_curves(curves, place.position)?;
        let texts = format!("{} {}", joined.metric, joined.quantities);
        for mixed in self.describe_mixed_losses(client, &texts).await? {
            add_reason(&mut joined.quantities, mixed);
        }
        Ok(joined)
    }

    /// Queries the sweep files, and returns the names of the quantities that all of them define.
    ///
    /// # Errors
    /// There is no such sweep, or nobody answers.
    pub async fn query_quantity_names(
        &self,
        client: &mut Client,
    ) -> Result<Vec<String>, UserError> {
        let mut common: Option<Vec<String>> = None;
        for sweep in self.iter() {
            let file = query_sweep_file(client, &sweep.id).await?;
            // What this program cannot read, the coordinator may.
            let spec = Spec::read_stored(&file.source).ok();
            let names: Vec<String> = spec
                .iter()
                .flat_map(Spec::quantity_names)
                .map(str::to_owned)
                .collect();
            common = Some(match common {
                Some(known) => known
                    .into_iter()
                    .filter(|name| names.contains(name))
                    .collect(),
                None => names,
            });
        }

        Ok(common.unwrap_or_default())
    }

    /// Queries the rows of every sweep. The final values of further metrics or quantities follow those of the sweeps' metrics.
    ///
    /// # Errors
    /// There is no such sweep, a sweep has no such metric or quantity, or nobody answers.
    pub async fn query_trials(
        &self,
        client: &mut Client,
        further_metrics: &[String],
    ) -> Result<Vec<v1::TrialsResponse>, UserError> {
        if let Some(id) = self.only_id() {
            return query_trials(client, id, further_metrics).await;
        }

        let mut sweeps = Vec::new();
        for sweep in self.iter() {
            let pages = query_trials(client, &sweep.id, further_metrics)
                .await
                .map_err(|error| sweep.explain(error))?;
            sweeps.push((sweep.label.clone(), pages));
        }

        join_trials(sweeps).map(|all| vec![all])
    }
}

impl SweepInSet {
    /// Names the sweep that an error is about.
    fn explain(&self, error: UserError) -> UserError {
        UserError {
            message: format!("{}: {}", self.label, error.message),
            ..error
        }
    }
}

/// Names sweeps by their names, and by their ids, too, where names are equal.
fn label_sweeps(sweeps: &[v1::SweepStatus]) -> Vec<SweepInSet> {
    let namesakes = |name: &str| sweeps.iter().filter(|other| other.name == name).count();
    sweeps
        .iter()
        .map(|sweep| SweepInSet {
            id: sweep.sweep_id(),
            label: match namesakes(&sweep.name) {
                1 => sweep.name.clone(),
                _ => format!("{} ({})", sweep.name, sweep.id),
            },
        })
        .collect()
}

/// Whether a condition, which may be empty, names the axis that tells the sweeps apart.
fn names_sweep_axis(condition: &str) -> bool {
    WordExpr::parse(condition).is_ok_and(|parsed| parsed.expr.names().contains(&SWEEP_AXIS))
}

/// Where the axis `sweep` stands among the axes to group by.
struct SweepAxisPlace {
    /// The position of the axis: the first, unless the user names another one.
    position: usize,
    /// Whether nothing else was asked for, so that the cells of each sweep are pooled.
    pools_all: bool,
}

impl SweepAxisPlace {
    /// Takes the axis out of those that a coordinator is asked for.
    ///
    /// # Errors
    /// The axis is named twice.
    fn take_from(by: &mut Vec<String>) -> Result<Self, UserError> {
        let named = by.iter().position(|axis| axis == SWEEP_AXIS);
        if by.iter().filter(|axis| *axis == SWEEP_AXIS).count() > 1 {
            let message = format!("--by: the axis '{SWEEP_AXIS}' is named twice: name it once");
            return Err(UserError::new(ErrorCode::BadInput, message));
        }

        by.retain(|axis| axis != SWEEP_AXIS);
        Ok(Self {
            position: named.unwrap_or(0),
            pools_all: named.is_some() && by.is_empty(),
        })
    }
}

/// Adds a text to what is told already.
fn add_reason(told: &mut String, reason: String) {
    *told = match told.as_str() {
        "" => reason,
        told => format!("{told}; {reason}"),
    };
}

#[cfg(test)]
mod tests {
    use crate::client::sweep_set::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    /// The condition on cells of two sweeps, by these axes.
    fn split(condition: &str, by: &[&str]) -> Result<String, String> {
        let [first, other] = ["a", "b"].map(|label| SweepInSet {
            id: SweepId::from(label.to_owned()),
            label: label.to_owned(),
        });
        let sweeps = SweepSet {
            first,
            others: vec![other],
        };
        let selection = RowSelection {
            condition: Some(condition.to_owned()),
            ..RowSelection::default()
        };
        sweeps
            .split_selection(&selection, &names(by), &[])
            .map(|split| split.cells)
            .map_err(|error| error.message)
    }

    #[test]
    fn a_condition_on_the_axis_sweep_selects_rows() {
        let rows = Ok(String::new());
        for by in [&[][..], &["lr"], &["sweep"], &["lr", "sweep"]] {
            assert_eq!(split("sweep == \"a\"", by), rows, "{by:?}");
        }
        assert_eq!(split("sweep == \"a\" && lr < 0.1", &["lr"]), rows);
        assert_eq!(split("wd > 0", &["lr"]), Ok("wd > 0".to_owned()));

        let refused = split("sweep == \"a\" && wd > 0", &["lr"]);
        assert!(
            refused.as_ref().is_err_and(|e| e.contains("--having")),
            "{refused:?}"
        );
    }

    #[test]
    fn the_axis_sweep_is_named_once() {
        let take = |axes: &[&str]| {
            let mut by = names(axes);
            let place = SweepAxisPlace::take_from(&mut by).map_err(|error| error.message)?;
            Ok::<_, String>((by, place.position, place.pools_all))
        };
        assert_eq!(take(&[]), Ok((vec![], 0, false)));
        assert_eq!(take(&["sweep"]), Ok((vec![], 0, true)));
        assert_eq!(take(&["lr", "sweep"]), Ok((names(&["lr"]), 1, false)));
        assert!(take(&["sweep", "sweep"]).is_err_and(|e| e.contains("named twice")));
    }
}
