//! The progress of a sweep as a grid of text.

use ergodic_proto::v1;

use super::format_short_number;

/// Length of the bar of a cell in characters, if the terminal is wide enough.
const BAR_WIDTH: usize = 6;
/// Number of lines of the terminal that the grid leaves free.
const RESERVED_LINES: usize = 5;

/// Renders the grid, with the precision of means below it. Lines have at most `width` characters,
/// and there are fewer than `height`.
pub(crate) fn render_watch_grid(
    grid: &v1::WatchGrid,
    metric: &str,
    width: usize,
    height: usize,
) -> Vec<String> {
    let columns = grid.columns.len().max(1);
    if grid.cells.len() != grid.rows.len() * columns {
        return Vec::new();
    }

    let shown = grid.rows.len().min(height.saturating_sub(RESERVED_LINES));
    let side = widest(&grid.rows)
        .max(format_corner(grid).chars().count())
        .min(width / 3);
    let each = widest(&grid.columns).max(BAR_WIDTH + 3);

    let mut out = match side + columns * (each + 2) <= width {
        true => render_bars(grid, side, each, shown),
        false => render_shades(grid, side, width, shown),
    };
    if shown < grid.rows.len() {
        out.push(truncate_to_width(
            &format!("… and {} more rows", grid.rows.len() - shown),
            width,
        ));
    }

    out.extend(format_precision_line(grid, metric).map(|line| truncate_to_width(&line, width)));
    out
}

/// Length of the longest label, in characters.
fn widest(labels: &[String]) -> usize {
    let widths = labels.iter().map(|label| label.chars().count());
    widths.max().unwrap_or(0)
}

fn format_corner(grid: &v1::WatchGrid) -> String {
    if grid.columns.is_empty() {
        grid.rows_axis.clone()
    } else {
        format!("{} \\ {}", grid.rows_axis, grid.columns_axis)
    }
}

fn grid_row(grid: &v1::WatchGrid, at: usize) -> &[v1::WatchCell] {
    let columns = grid.columns.len().max(1);
    &grid.cells[at * columns..(at + 1) * columns]
}

/// Renders `████▌  2✗`: the share of a cell's trials that is done, and the number of diverged ones.
fn render_bars(grid: &v1::WatchGrid, side: usize, each: usize, shown: usize) -> Vec<String> {
    let head: String = grid
        .columns
        .iter()
        .map(|column| format!("  {column:<each$}"))
        .collect();
    let mut out = vec![
        format!("{}{head}", pad_to_width(&format_corner(grid), side))
            .trim_end()
            .to_owned(),
    ];

    for at in 0..shown {
        let cells: String = grid_row(grid, at)
            .iter()
            .map(|cell| format!("  {:<each$}", format_bar(cell)))
            .collect();
        out.push(
            format!("{}{cells}", pad_to_width(&grid.rows[at], side))
                .trim_end()
                .to_owned(),
        );
    }

    out
}

/// Renders one character per cell.
fn render_shades(grid: &v1::WatchGrid, side: usize, width: usize, shown: usize) -> Vec<String> {
    let fit = width.saturating_sub(side + 2);
    let first = grid.columns.first();
    let last = grid.columns.last();
    let range = first
        .zip(last)
        .map_or_else(String::new, |(first, last)| format!("  {first} … {last}"));
    let mut out = vec![truncate_to_width(
        &format!("{}{range}", pad_to_width(&format_corner(grid), side)),
        width,
    )];

    for at in 0..shown {
        let cells: String = grid_row(grid, at)
            .iter()
            .take(fit)
            .map(shade_char)
            .collect();
        out.push(
            format!("{}  {cells}", pad_to_width(&grid.rows[at], side))
                .trim_end()
                .to_owned(),
        );
    }

    out
}

fn count_done_trials(cell: &v1::WatchCell) -> u64 {
    cell.completed + cell.diverged + cell.failed
}

fn format_bar(cell: &v1::WatchCell) -> String {
    const EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    if cell.trials == 0 {
        return String::new();
    }

    let eighths =
        (count_done_trials(cell).min(cell.trials) * 8 * BAR_WIDTH as u64 / cell.trials) as usize;
    let mut bar: String = (0..BAR_WIDTH)
        .map(|at| match EIGHTHS[eighths.saturating_sub(8 * at).min(8)] {
            ' ' => '·',
            drawn => drawn,
        })
        .collect();

    for (n, sign) in [(cell.diverged, '✗'), (cell.failed, '!')] {
        if n > 0 {
            bar += &format!(" {n}{sign}");
        }
    }

    bar
}

fn shade_char(cell: &v1::WatchCell) -> char {
    match (cell.trials, count_done_trials(cell)) {
        (0, _) => ' ',
        (_, 0) => '·',
        _ if cell.failed > 0 => '!',
        _ if cell.diverged > 0 && cell.completed == 0 => '✗',
        (all, done) => ['░', '▒', '▓', '█'][(done.min(all) * 3 / all) as usize],
    }
}

/// Formats `test_acc ± 0.0103 to ± 0.0331 (95 % CI of a cell's mean)`.
fn format_precision_line(grid: &v1::WatchGrid, metric: &str) -> Option<String> {
    let least = grid.precise?;
    let most = grid.imprecise?;
    let range = match least == most {
        true => format!("± {}", format_short_number(Some(least))),
        false => format!(
            "± {} to ± {}",
            format_short_number(Some(least)),
            format_short_number(Some(most))
        ),
    };

    Some(format!(
        "{metric} {range} (95 % CI of a cell's mean);  ✗ diverged  ! failed"
    ))
}

fn pad_to_width(text: &str, width: usize) -> String {
    let text = truncate_to_width(text, width);
    format!("{text:<width$}")
}

fn truncate_to_width(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars()
        .take(width.saturating_sub(1))
        .chain(['…'])
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::client::render::watch_grid::*;

    fn grid(rows: usize, columns: usize) -> v1::WatchGrid {
        let cell = |i: usize| match i % 4 {
            0 => v1::WatchCell {
                trials: 8,
                ..v1::WatchCell::default()
            },
            1 => v1::WatchCell {
                trials: 8,
                completed: 4,
                ..v1::WatchCell::default()
            },
            2 => v1::WatchCell {
                trials: 8,
                completed: 5,
                diverged: 3,
                ..v1::WatchCell::default()
            },
            _ => v1::WatchCell {
                trials: 8,
                diverged: 8,
                ..v1::WatchCell::default()
            },
        };

        v1::WatchGrid {
            rows_axis: "lr".into(),
            rows: (0..rows).map(|i| format!("0.{i}")).collect(),
            columns_axis: "wd".into(),
            columns: (0..columns).map(|i| format!("{i}e-5")).collect(),
            cells: (0..rows * columns).map(cell).collect(),
            precise: Some(0.01),
            imprecise: Some(0.03),
        }
    }

    #[test]
    fn a_wide_terminal_shows_bars_and_a_narrow_one_shades() {
        let wide = render_watch_grid(&grid(2, 2), "test_acc", 100, 30);
        assert_eq!(
            wide,
            [
                "lr \\ wd  0e-5       1e-5",
                "0.0      ······     ███···",
                "0.1      ██████ 3✗  ██████ 8✗",
                "test_acc ± 0.01 to ± 0.03 (95 % CI of a cell's mean);  ✗ diverged  ! failed",
            ]
        );

        let narrow = render_watch_grid(&grid(2, 4), "test_acc", 24, 30);
        assert_eq!(
            narrow[..3],
            ["lr \\ wd  0e-5 … 3e-5", "0.0      ·▒█✗", "0.1      ·▒█✗"]
        );
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        for (rows, columns) in [(1, 1), (3, 40), (40, 3), (20, 20)] {
            for (width, height) in [(20, 8), (80, 24), (300, 100)] {
                let lines =
                    render_watch_grid(&grid(rows, columns), "weight_norm_sq[conv1]", width, height);
                assert!(
                    lines.iter().all(|line| line.chars().count() <= width),
                    "{width}: {lines:#?}"
                );

                assert!(lines.len() < height, "{height}: {lines:#?}");
            }
        }

        assert!(
            render_watch_grid(
                &v1::WatchGrid {
                    cells: vec![],
                    ..grid(2, 2)
                },
                "m",
                80,
                24
            )
            .is_empty()
        );
    }

    #[test]
    fn one_axis_has_one_place_per_row() {
        let one = v1::WatchGrid {
            columns: vec![],
            columns_axis: String::new(),
            precise: None,
            ..grid(2, 1)
        };
        assert_eq!(
            render_watch_grid(&one, "m", 80, 24),
            ["lr", "0.0  ······", "0.1  ███···"]
        );
    }
}
