//! Rows of several sweeps as those of one.

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

use super::SWEEP_AXIS;
use super::definitions::join_definitions;
use crate::client::query::incomplete_response;
use crate::client::render::RANKED_APART;

/// Joins tables of the same metric and statistics; each comes with its label. The axis `sweep` gets this position.
///
/// # Errors
/// A sweep has an axis named `sweep`.
pub(super) fn join_tables(
    tables: Vec<(String, v1::TableResponse)>,
    position: usize,
) -> Result<v1::TableResponse, UserError> {
    let axes = JoinedAxes::find(
        tables.iter().map(|(_, table)| table.axes.as_slice()),
        position,
    )?;
    let each = || tables.iter().map(|(_, table)| table);
    let mut all = v1::TableResponse {
        sweep: join_distinct(each().map(|table| &table.sweep), ", "),
        name: join_distinct(each().map(|table| &table.name), ", "),
        data: join_distinct(each().map(|table| &table.data), "; "),
        numerics: join_distinct(each().map(|table| &table.numerics), ", "),
        metric: each()
            .next()
            .map(|table| table.metric.clone())
            .unwrap_or_default(),
        better: each().next().map_or(0, |table| table.better),
        columns: each()
            .next()
            .map(|table| table.columns.clone())
            .unwrap_or_default(),
        weighting: join_distinct(each().map(|table| &table.weighting), ", "),
        done: each().map(|table| table.done).sum(),
        trials: each().map(|table| table.trials).sum(),
        unranked: RANKED_APART.to_owned(),
        axes: axes.names.clone(),
        rows: Vec::new(),
        ranked_by: String::new(),
        cell_condition: each()
            .next()
            .map(|table| table.cell_condition.clone())
            .unwrap_or_default(),
        quantities: join_definitions(
            tables
                .iter()
                .map(|(label, table)| (label.as_str(), table.quantities.as_str())),
        ),
    };

    for (number, (label, table)) in tables.into_iter().enumerate() {
        let arrangement = axes.arrange(number, &label);
        all.rows
            .extend(table.rows.into_iter().map(|row| v1::TableRow {
                values: arrangement.place_values(&row.values),
                rank: None,
                mean_rank: None,
                may_be_best: false,
                ..row
            }));
    }

    Ok(all)
}

/// Joins curves of the same metric and statistics; each comes with its label. The axis `sweep` gets this position.
///
/// # Errors
/// A sweep has an axis named `sweep`.
pub(super) fn join_curves(
    curves: Vec<(String, v1::CurvesResponse)>,
    position: usize,
) -> Result<v1::CurvesResponse, UserError> {
    let axes = JoinedAxes::find(
        curves.iter().map(|(_, curves)| curves.axes.as_slice()),
        position,
    )?;
    let each = || curves.iter().map(|(_, curves)| curves);
    let mut all = v1::CurvesResponse {
        sweep: join_distinct(each().map(|curves| &curves.sweep), ", "),
        metric: each()
            .next()
            .map(|curves| curves.metric.clone())
            .unwrap_or_default(),
        columns: each()
            .next()
            .map(|curves| curves.columns.clone())
            .unwrap_or_default(),
        axes: axes.names.clone(),
        points: Vec::new(),
        cell_condition: each()
            .next()
            .map(|curves| curves.cell_condition.clone())
            .unwrap_or_default(),
        quantities: join_definitions(
            curves
                .iter()
                .map(|(label, curves)| (label.as_str(), curves.quantities.as_str())),
        ),
    };

    for (number, (label, curves)) in curves.into_iter().enumerate() {
        let arrangement = axes.arrange(number, &label);
        all.points
            .extend(curves.points.into_iter().map(|point| v1::CurvePoint {
                values: arrangement.place_values(&point.values),
                ..point
            }));
    }

    Ok(all)
}

/// Joins rows of trials into one page. A metric that a sweep does not measure is missing in its rows.
///
/// # Errors
/// A sweep has an axis named `sweep`, or no page.
pub(super) fn join_trials(
    sweeps: Vec<(String, Vec<v1::TrialsResponse>)>,
) -> Result<v1::TrialsResponse, UserError> {
    let firsts = || sweeps.iter().filter_map(|(_, pages)| pages.first());
    let axes = JoinedAxes::find(firsts().map(|page| page.axes.as_slice()), 0)?;
    let mut metrics: Vec<String> = Vec::new();
    for metric in firsts().flat_map(|page| &page.metrics) {
        if !metrics.contains(metric) {
            metrics.push(metric.clone());
        }
    }

    let mut all = v1::TrialsResponse {
        sweep: join_distinct(firsts().map(|page| &page.sweep), ", "),
        numerics: join_distinct(firsts().map(|page| &page.numerics), ", "),
        axes: axes.names.clone(),
        better: join_directions(&metrics, firsts()),
        metrics: metrics.clone(),
        rows: Vec::new(),
    };
    for (number, (label, pages)) in sweeps.into_iter().enumerate() {
        let first = pages
            .first()
            .ok_or_else(|| incomplete_response(&format!("TrialsResponse for {label}")))?;
        let arrangement = axes.arrange(number, &label);
        let columns = find_columns(&metrics, &first.metrics);
        let rows = pages.into_iter().flat_map(|page| page.rows);
        all.rows.extend(rows.map(|row| v1::TrialRow {
            values: arrangement.place_values(&row.values),
            result: row.result.map(|result| arrange_metrics(result, &columns)),
            worker: row.worker,
        }));
    }

    Ok(all)
}

/// The direction of each metric in the first sweep that has it; none if a coordinator does not tell them.
fn join_directions<'a>(
    metrics: &[String],
    mut firsts: impl Iterator<Item = &'a v1::TrialsResponse> + Clone,
) -> Vec<i32> {
    let directions = metrics.iter().map(|metric| {
        firsts.clone().find_map(|page| {
            let at = page.metrics.iter().position(|name| name == metric)?;
            (!page.better.is_empty()).then(|| page.better.get(at).copied().unwrap_or(0))
        })
    });
    let joined = directions.collect::<Option<Vec<i32>>>();
    firsts.next().and(joined).unwrap_or_default()
}

/// The axes of several sweeps: those of the first, then those that only others have, and `sweep` among them. An axis has the name that
/// it has in the first sweep that has it: `lr` in one sweep file may be `train.lr` in another.
struct JoinedAxes {
    names: Vec<String>,
    /// Position of the axis `sweep`.
    sweep: usize,
    /// For each sweep, the positions of its axes among the joined ones.
    columns: Vec<Vec<usize>>,
}

impl JoinedAxes {
    fn find<'a>(
        sweeps: impl Iterator<Item = &'a [String]>,
        position: usize,
    ) -> Result<Self, UserError> {
        let mut names: Vec<String> = Vec::new();
        let mut columns = Vec::new();
        for axes in sweeps {
            if axes.iter().any(|axis| axis == SWEEP_AXIS) {
                return Err(UserError::new(
                    ErrorCode::BadInput,
                    "a sweep with an axis named 'sweep' cannot be shown beside others, because that axis tells sweeps apart: \
                     show it alone",
                ));
            }
            columns.push(add_axes(&mut names, axes));
        }

        let sweep = position.min(names.len());
        names.insert(sweep, SWEEP_AXIS.to_owned());
        let behind = columns.iter_mut().flatten();
        behind
            .filter(|column| **column >= sweep)
            .for_each(|column| *column += 1);
        Ok(Self {
            names,
            sweep,
            columns,
        })
    }

    /// Says how to arrange the values of a sweep's rows, the sweep given by its number.
    fn arrange(&self, number: usize, label: &str) -> RowArrangement {
        let columns = &self.columns[number];
        RowArrangement {
            label: label.to_owned(),
            sweep: self.sweep,
            positions: (0..self.names.len())
                .map(|joined| columns.iter().position(|column| *column == joined))
                .collect(),
        }
    }
}

/// Adds the axes of a sweep that are not among the names yet; returns the position of each.
fn add_axes(names: &mut Vec<String>, axes: &[String]) -> Vec<usize> {
    let known = names.clone();
    let mut columns = Vec::with_capacity(axes.len());
    for axis in axes {
        let same = known.iter().position(|name| name == axis);
        let found = same.or_else(|| {
            find_only_alike(axis, &known).filter(|at| find_only_alike(&known[*at], axes).is_some())
        });
        columns.push(found.unwrap_or(names.len()));
        if found.is_none() {
            names.push(axis.clone());
        }
    }

    columns
}

/// The position of the only name that is `name`, or the last part of it as `lr` is of `train.lr`, or whose last part it is.
fn find_only_alike(name: &str, among: &[String]) -> Option<usize> {
    let is_last_part = |name: &str, path: &str| {
        path.strip_suffix(name)
            .is_some_and(|before| before.is_empty() || before.ends_with('.'))
    };
    let mut alike = (0..among.len())
        .filter(|at| is_last_part(name, &among[*at]) || is_last_part(&among[*at], name));
    alike.next().filter(|_| alike.next().is_none())
}

/// How the values of a sweep's rows stand on the joined axes.
struct RowArrangement {
    label: String,
    /// Position of the axis `sweep`.
    sweep: usize,
    /// For each joined axis, its position among the axes of the sweep.
    positions: Vec<Option<usize>>,
}

impl RowArrangement {
    /// The values of a row on the joined axes; none on axes that its sweep does not have.
    fn place_values(&self, values: &[v1::AxisValue]) -> Vec<v1::AxisValue> {
        let positions = self.positions.iter().enumerate();
        positions
            .map(|(axis, at)| match at.and_then(|at| values.get(at)) {
                Some(value) => value.clone(),
                None if axis == self.sweep => text_value(&self.label),
                None => v1::AxisValue { kind: None },
            })
            .collect()
    }
}

fn text_value(text: &str) -> v1::AxisValue {
    v1::AxisValue {
        kind: Some(v1::axis_value::Kind::Text(text.to_owned())),
    }
}

/// For each name, its position among others.
fn find_columns(names: &[String], among: &[String]) -> Vec<Option<usize>> {
    names
        .iter()
        .map(|name| among.iter().position(|other| other == name))
        .collect()
}

/// Puts a result's final metrics into these columns; NaN where there is none.
fn arrange_metrics(result: v1::TrialResult, columns: &[Option<usize>]) -> v1::TrialResult {
    let metrics = columns
        .iter()
        .map(|at| at.and_then(|at| result.metrics.get(at)).copied())
        .map(|value| value.unwrap_or(f64::NAN))
        .collect();
    v1::TrialResult { metrics, ..result }
}

/// Joins texts, equal ones once.
fn join_distinct<'a>(texts: impl Iterator<Item = &'a String>, separator: &str) -> String {
    let mut distinct: Vec<&str> = Vec::new();
    for text in texts {
        if !text.is_empty() && !distinct.contains(&text.as_str()) {
            distinct.push(text);
        }
    }

    distinct.join(separator)
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec_file::node::SpecValue;

    use crate::client::sweep_set::join::*;

    fn axis_value(value: SpecValue) -> v1::AxisValue {
        (&value).into()
    }

    fn table(sweep: &str, axes: &[&str], rows: &[&[f64]]) -> (String, v1::TableResponse) {
        let rows = rows.iter().map(|values| v1::TableRow {
            values: values
                .iter()
                .map(|x| axis_value(SpecValue::Float(*x)))
                .collect(),
            rank: Some(1),
            may_be_best: true,
            ..v1::TableRow::default()
        });
        let response = v1::TableResponse {
            sweep: format!("id-{sweep}"),
            name: sweep.to_owned(),
            metric: "test_acc".to_owned(),
            axes: axes.iter().map(|axis| (*axis).to_owned()).collect(),
            rows: rows.collect(),
            done: 5,
            trials: 6,
            ..v1::TableResponse::default()
        };
        (sweep.to_owned(), response)
    }

    #[test]
    fn rows_of_several_sweeps_have_all_axes_and_no_ranks() {
        let joined = join_tables(
            vec![
                table("a", &["lr"], &[&[0.1], &[0.2]]),
                table("b", &["wd", "lr"], &[&[0.5, 0.1]]),
            ],
            0,
        )
        .expect("they fit");

        assert_eq!(joined.axes, ["sweep", "lr", "wd"]);
        assert_eq!(
            (joined.sweep.as_str(), joined.done, joined.trials),
            ("id-a, id-b", 10, 12)
        );
        assert!(
            joined
                .rows
                .iter()
                .all(|row| row.rank.is_none() && !row.may_be_best)
        );

        let values: Vec<Vec<SpecValue>> = joined
            .rows
            .iter()
            .map(|row| row.values.iter().map(SpecValue::from).collect())
            .collect();
        let text = |text: &str| SpecValue::Str(text.to_owned());
        assert_eq!(
            values,
            [
                vec![text("a"), SpecValue::Float(0.1), text("")],
                vec![text("a"), SpecValue::Float(0.2), text("")],
                vec![text("b"), SpecValue::Float(0.1), SpecValue::Float(0.5)],
            ]
        );
        // The column of an axis that a sweep lacks is still one of numbers.
        assert_eq!(joined.rows[0].values[2].kind, None);
    }

    #[test]
    fn an_axis_written_in_two_ways_is_one_axis() {
        let tables = |first: &[&str], second: &[&str]| {
            let values = [0.1, 0.2];
            let joined = join_tables(
                vec![
                    table("a", first, &[&values[..first.len()]]),
                    table("b", second, &[&values[..second.len()]]),
                ],
                0,
            )
            .expect("they fit");
            let rows: Vec<Vec<SpecValue>> = joined
                .rows
                .iter()
                .map(|row| row.values[1..].iter().map(SpecValue::from).collect())
                .collect();
            (joined.axes, rows)
        };
        let number = SpecValue::Float;

        let (axes, rows) = tables(&["lr", "wd"], &["train.wd", "train.lr"]);
        assert_eq!(axes, ["sweep", "lr", "wd"]);
        assert_eq!(rows[1], [number(0.2), number(0.1)]);

        // A name that may be either is neither.
        let (axes, _) = tables(&["scale"], &["init.scale", "head.scale"]);
        assert_eq!(axes, ["sweep", "scale", "init.scale", "head.scale"]);
        let (axes, _) = tables(&["init.scale", "head.scale"], &["scale"]);
        assert_eq!(axes, ["sweep", "init.scale", "head.scale", "scale"]);
        let (axes, rows) = tables(&["lr", "head.lr"], &["lr"]);
        assert_eq!(axes, ["sweep", "lr", "head.lr"]);
        assert_eq!(rows[1][0], number(0.1));
        let (axes, _) = tables(&["lr"], &["blr"]);
        assert_eq!(axes, ["sweep", "lr", "blr"]);

        // A third sweep takes nothing from the second.
        let three =
            [&["init.scale"], &["scale"], &["head.scale"]].map(|axes| table("x", axes, &[&[0.1]]));
        let joined = join_tables(three.to_vec(), 0).expect("they fit");
        assert_eq!(joined.axes, ["sweep", "init.scale", "head.scale"]);
        assert_eq!(SpecValue::from(&joined.rows[1].values[1]), number(0.1));
    }

    #[test]
    fn the_axis_sweep_stands_where_it_was_asked_for() {
        let tables = || {
            vec![
                table("a", &["wd", "lr"], &[&[0.5, 0.1]]),
                table("b", &["wd", "lr"], &[]),
            ]
        };
        for (position, axes) in [
            (1, ["wd", "sweep", "lr"]),
            (2, ["wd", "lr", "sweep"]),
            (9, ["wd", "lr", "sweep"]),
        ] {
            let joined = join_tables(tables(), position).expect("they fit");
            assert_eq!(joined.axes, axes);
            let at = axes
                .iter()
                .position(|axis| *axis == "sweep")
                .expect("it is there");
            assert_eq!(joined.rows[0].values[at], text_value("a"));
        }
    }

    #[test]
    fn an_axis_named_sweep_stands_alone() {
        let refused = join_tables(
            vec![table("a", &["sweep"], &[]), table("b", &["lr"], &[])],
            0,
        );
        assert!(refused.is_err_and(|error| error.message.contains("'sweep'")));
    }

    #[test]
    fn trials_get_the_metrics_of_all_sweeps() {
        let page = |metrics: &[&str], values: &[f64]| v1::TrialsResponse {
            metrics: metrics.iter().map(|metric| (*metric).to_owned()).collect(),
            rows: vec![v1::TrialRow {
                result: Some(v1::TrialResult {
                    metrics: values.to_vec(),
                    ..v1::TrialResult::default()
                }),
                ..v1::TrialRow::default()
            }],
            ..v1::TrialsResponse::default()
        };
        let joined = join_trials(vec![
            ("a".to_owned(), vec![page(&["test_acc"], &[0.9])]),
            (
                "b".to_owned(),
                vec![page(&["test_loss", "test_acc"], &[0.3, 0.8])],
            ),
        ])
        .expect("they fit");
        let lost = join_trials(vec![
            ("a".to_owned(), vec![page(&["test_acc"], &[0.9])]),
            ("b".to_owned(), Vec::new()),
        ]);
        assert!(lost.is_err_and(|error| error.message.contains("TrialsResponse for b")));

        assert_eq!(joined.metrics, ["test_acc", "test_loss"]);
        let metrics: Vec<Vec<f64>> = joined
            .rows
            .into_iter()
            .filter_map(|row| Some(row.result?.metrics))
            .collect();
        assert_eq!((metrics[0][0], metrics[0][1].is_nan()), (0.9, true));
        assert_eq!(metrics[1], [0.8, 0.3]);
    }
}
