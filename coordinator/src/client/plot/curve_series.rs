//! Names and styles of curves: values with an order get a sequential scale of colours.

use ergodic_proto::v1;

use super::RowLevels;
use super::cell_names::format_row_name;
use crate::client::render::{AxisFormats, exact_value};
use crate::plot::PlotAxis;
use crate::plot::curves::{CurveSeries, DASH_STYLES, DISTINCT_COLOURS, MeanCurve, SeriesColour};

/// Minimum number of values whose order colours can show.
const MIN_ORDERED: usize = 3;

/// The series of a table's rows.
pub(super) struct SeriesList {
    /// For each row, the index of its series.
    pub(super) of_row: Vec<usize>,
    pub(super) styles: Vec<CurveSeries>,
    /// Whether a series has a curve.
    pub(super) is_drawn: Vec<bool>,
}

impl SeriesList {
    /// The series with curves. Their indices in the curves change with that.
    pub(super) fn keep_drawn(self, lines: &mut [MeanCurve]) -> Vec<CurveSeries> {
        let mut next = 0;
        let indices: Vec<usize> = self
            .is_drawn
            .iter()
            .map(|is_drawn| {
                let at = next;
                next += usize::from(*is_drawn);
                at
            })
            .collect();
        for line in lines {
            line.series = indices[line.series];
        }

        self.styles
            .into_iter()
            .zip(self.is_drawn)
            .filter(|(_, is_drawn)| *is_drawn)
            .map(|(style, _)| style)
            .collect()
    }
}

fn series_key(row: &v1::TableRow, axes: &[(usize, String)]) -> Vec<String> {
    axes.iter()
        .map(|(at, _)| exact_value(&row.values[*at]))
        .collect()
}

/// Builds a series for each combination of values of some axes, in the order of the rows.
pub(super) fn build_series(
    table: &v1::TableResponse,
    axes: &[(usize, String)],
    names: &AxisFormats,
) -> SeriesList {
    let mut list = SeriesList {
        of_row: Vec::new(),
        styles: Vec::new(),
        is_drawn: Vec::new(),
    };
    let palette = SeriesPalette::choose(table, axes, names);
    let mut keys: Vec<Vec<String>> = Vec::new();
    for (position, row) in table.rows.iter().enumerate() {
        let key = series_key(row, axes);
        if let Some(at) = keys.iter().position(|known| *known == key) {
            list.of_row.push(at);
            continue;
        }

        let [colour, dash] = palette.place_row(position, keys.len());
        list.of_row.push(keys.len());
        list.styles.push(CurveSeries {
            label: format_row_name(row, axes, names),
            colour: palette.colour_at(colour),
            dash,
        });
        keys.push(key);
        list.is_drawn.push(false);
    }

    list
}

/// How colours and dashes tell series apart.
enum SeriesPalette {
    /// Each series has the next colour, and the next dashes when all colours are used.
    InTurn,
    /// One axis chooses the colour, and another one, if there are two, the dashes.
    ByAxes {
        colours: RowLevels,
        dashes: Option<RowLevels>,
    },
}

impl SeriesPalette {
    fn choose(table: &v1::TableResponse, axes: &[(usize, String)], names: &AxisFormats) -> Self {
        let mut levels: Vec<RowLevels> = axes
            .iter()
            .map(|(at, _)| RowLevels::from_table(table, names, *at))
            .collect();
        // The colours are for the axis with more values, or with an order.
        if let [first, second] = &levels[..] {
            let is_long = second.axis.levels.len() > DASH_STYLES;
            if is_long || (is_ordered(&second.axis) && !is_ordered(&first.axis)) {
                levels.swap(0, 1);
            }
        }

        match <[_; 2]>::try_from(levels) {
            Ok([colours, dashes])
                if dashes.axis.levels.len() <= DASH_STYLES
                    && (is_ordered(&colours.axis)
                        || colours.axis.levels.len() <= DISTINCT_COLOURS) =>
            {
                Self::ByAxes {
                    colours,
                    dashes: Some(dashes),
                }
            }
            Ok(_) => Self::InTurn,
            Err(mut levels) => match levels.pop() {
                Some(colours) if levels.is_empty() && is_ordered(&colours.axis) => Self::ByAxes {
                    colours,
                    dashes: None,
                },
                _ => Self::InTurn,
            },
        }
    }

    /// The indices of colour and dashes of the row at a position, which is the first of the `next`-th series.
    fn place_row(&self, position: usize, next: usize) -> [usize; 2] {
        match self {
            Self::InTurn => [next, next / DISTINCT_COLOURS],
            Self::ByAxes { colours, dashes } => [
                colours.of_row[position],
                dashes.as_ref().map_or(0, |dashes| dashes.of_row[position]),
            ],
        }
    }

    fn colour_at(&self, at: usize) -> SeriesColour {
        match self {
            Self::ByAxes { colours, .. } if is_ordered(&colours.axis) => {
                SeriesColour::Ordered(at as f64 / (colours.axis.levels.len() - 1) as f64)
            }
            _ => SeriesColour::Distinct(at),
        }
    }
}

/// Whether the values of an axis are numbers, and enough for a scale of colours.
fn is_ordered(axis: &PlotAxis) -> bool {
    axis.levels.len() >= MIN_ORDERED && axis.levels.iter().all(|level| level.number.is_some())
}

#[cfg(test)]
mod tests {
    use crate::client::plot::curve_series::*;

    fn number(x: f64) -> v1::AxisValue {
        v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Number(x)),
        }
    }

    fn word(text: &str) -> v1::AxisValue {
        v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Text(text.to_owned())),
        }
    }

    fn styles(rows: Vec<Vec<v1::AxisValue>>) -> Vec<(SeriesColour, usize)> {
        let count = rows[0].len();
        let axes: Vec<(usize, String)> = (0..count).map(|at| (at, format!("axis{at}"))).collect();
        let table = v1::TableResponse {
            axes: axes.iter().map(|(_, name)| name.clone()).collect(),
            rows: rows
                .into_iter()
                .map(|values| v1::TableRow {
                    values,
                    ..v1::TableRow::default()
                })
                .collect(),
            ..v1::TableResponse::default()
        };
        let names = AxisFormats::from_table(&table);
        let series = build_series(&table, &axes, &names);
        series
            .styles
            .iter()
            .map(|style| (style.colour, style.dash))
            .collect()
    }

    #[test]
    fn numbers_are_coloured_in_their_order_and_words_are_not() {
        use SeriesColour::{Distinct, Ordered};
        let lr = |values: &[f64]| values.iter().map(|x| vec![number(*x)]).collect();
        assert_eq!(
            styles(lr(&[0.1, 1.0, 0.01])),
            [(Ordered(0.5), 0), (Ordered(1.0), 0), (Ordered(0.0), 0)]
        );
        assert_eq!(
            styles(lr(&[0.1, 1.0])),
            [(Distinct(0), 0), (Distinct(1), 0)]
        );
        assert_eq!(
            styles(vec![vec![word("b")], vec![word("a")], vec![word("c")]]),
            [(Distinct(0), 0), (Distinct(1), 0), (Distinct(2), 0)]
        );
    }

    #[test]
    fn of_two_axes_one_has_the_colours_and_one_the_dashes() {
        use SeriesColour::{Distinct, Ordered};
        let rows = |kinds: &[&str], numbers: &[f64]| {
            let pairs = kinds
                .iter()
                .flat_map(|kind| numbers.iter().map(|x| vec![word(kind), number(*x)]));
            pairs.collect::<Vec<_>>()
        };
        // The longer axis of numbers has the colours, although it comes second.
        assert_eq!(
            styles(rows(&["a", "b"], &[1.0, 2.0, 3.0, 4.0, 5.0]))[5..7],
            [(Ordered(0.0), 1), (Ordered(0.25), 1)]
        );
        assert_eq!(
            styles(rows(&["a", "b"], &[1.0, 2.0])),
            [
                (Distinct(0), 0),
                (Distinct(0), 1),
                (Distinct(1), 0),
                (Distinct(1), 1)
            ]
        );
    }
}
