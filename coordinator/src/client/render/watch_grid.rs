//! The progress of a sweep as a grid of text.

use ergodic_common::number_format::{format_count, format_significant};
use ergodic_proto::v1;
use unicode_width::UnicodeWidthStr;

use super::format_short_number;
use super::pivot::TerminalPalette;
use super::text_table::cut_to_width;
use crate::terminal::ScreenSize;

/// Length of the bar of a cell in characters, if the terminal is wide enough.
const BAR_WIDTH: usize = 6;
/// Spaces between columns.
const GAP: usize = 2;

/// Renders the grid, with the precision of means below it: how much of each cell is done, and its
/// mean so far, as a number or, on a narrow terminal, as a colour. Lines fit the columns of `room`,
/// and there are at most as many as its lines. Without a palette there are no colours.
pub(crate) fn render_watch_grid(
    grid: &v1::WatchGrid,
    metric: &str,
    room: ScreenSize,
    palette: Option<TerminalPalette>,
) -> Vec<String> {
    let columns = grid.columns.len().max(1);
    if grid.cells.len() != grid.rows.len() * columns {
        return Vec::new();
    }

    let side = widest(&grid.rows)
        .max(format_corner(grid).width())
        .min(room.columns / 3);
    let formats: [fn(&v1::WatchCell) -> String; 3] =
        [format_bar_and_mean, format_shade_and_mean, format_bar];
    let texts = formats
        .into_iter()
        .map(|format| CellMeans::new(grid, format))
        .find(|texts| side + columns * (texts.width + GAP) <= room.columns);
    let heat = texts.is_none().then(|| MeanRange::of(grid)).flatten();

    let below = [
        heat.and_then(|range| range.format_line(metric, room.columns, palette)),
        format_precision_line(grid, metric).map(|line| cut_to_width(&line, room.columns)),
    ];
    let below: Vec<String> = below.into_iter().flatten().collect();
    // A header, and the number of rows that are not shown.
    let shown = grid
        .rows
        .len()
        .min(room.lines.saturating_sub(below.len() + 2));
    let mut out = match texts {
        Some(texts) => render_texts(grid, side, &texts, shown),
        None => {
            let heat = heat.zip(palette);
            render_shades(grid, side, room.columns, shown, heat)
        }
    };
    if shown < grid.rows.len() {
        let more = format!(
            "… and {}",
            format_count((grid.rows.len() - shown) as u64, "more row")
        );
        out.push(cut_to_width(&more, room.columns));
    }

    out.extend(below);
    out
}

/// The texts of all cells, in one format.
struct CellMeans {
    texts: Vec<String>,
    /// Width of the widest text or header of a column.
    width: usize,
}

impl CellMeans {
    fn new(grid: &v1::WatchGrid, format: impl Fn(&v1::WatchCell) -> String) -> Self {
        let texts: Vec<String> = grid.cells.iter().map(format).collect();
        Self {
            width: widest(&texts).max(widest(&grid.columns)),
            texts,
        }
    }
}

/// The range of the means of all cells.
#[derive(Debug, Clone, Copy)]
struct MeanRange {
    low: f64,
    high: f64,
}

impl MeanRange {
    /// The range; `None` if no two means differ.
    fn of(grid: &v1::WatchGrid) -> Option<Self> {
        let means = grid.cells.iter().filter_map(|cell| cell.mean);
        let finite = means.filter(|mean| mean.is_finite());
        let low = finite.clone().fold(f64::INFINITY, f64::min);
        let high = finite.fold(f64::NEG_INFINITY, f64::max);
        (low < high).then_some(Self { low, high })
    }

    /// The place of a mean in the range, from 0 to 1.
    fn share(self, mean: f64) -> Option<f64> {
        mean.is_finite()
            .then(|| (mean - self.low) / (self.high - self.low))
    }

    /// Formats the ends of the range, in their colours; `None` if that is wider than the terminal.
    fn format_line(
        self,
        metric: &str,
        width: usize,
        palette: Option<TerminalPalette>,
    ) -> Option<String> {
        let texts = [self.low, self.high].map(|x| format_short_number(Some(x)));
        let plain = format!("{metric}: {} … {}", texts[0], texts[1]);
        // Coloured ends have a space on either side.
        let needed = plain.width() + if palette.is_some() { 4 } else { 0 };
        if needed > width {
            return None;
        }
        let Some(palette) = palette else {
            return Some(plain);
        };

        let styles = [0.0, 1.0].map(|share| palette.cell_style(share, false));
        let [low, high] = [0, 1].map(|end| colour_text(&format!(" {} ", texts[end]), &styles[end]));
        Some(format!("{metric}: {low} … {high}"))
    }
}

fn colour_text(text: &str, style: &str) -> String {
    format!("\u{1b}[{style}m{text}\u{1b}[0m")
}

/// Width of the widest label.
fn widest(labels: &[String]) -> usize {
    let widths = labels.iter().map(|label| label.width());
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

/// Renders one text per cell, in columns.
fn render_texts(grid: &v1::WatchGrid, side: usize, cells: &CellMeans, shown: usize) -> Vec<String> {
    let columns = grid.columns.len().max(1);
    let head = format_corner(grid);
    let mut out = vec![join_texts(&head, side, &grid.columns, cells.width)];
    for (label, texts) in grid
        .rows
        .iter()
        .zip(cells.texts.chunks(columns))
        .take(shown)
    {
        out.push(join_texts(label, side, texts, cells.width));
    }

    out
}

fn join_texts(label: &str, side: usize, texts: &[String], width: usize) -> String {
    let mut line = pad_to_width(label, side);
    for text in texts {
        line += &format!("{}{}", " ".repeat(GAP), pad_to_width(text, width));
    }
    line.trim_end().to_owned()
}

/// Renders one character per cell, which has the colour of its mean if there are colours.
fn render_shades(
    grid: &v1::WatchGrid,
    side: usize,
    width: usize,
    shown: usize,
    heat: Option<(MeanRange, TerminalPalette)>,
) -> Vec<String> {
    let fit = width.saturating_sub(side + GAP);
    let first = grid.columns.first();
    let last = grid.columns.last();
    let range = first
        .zip(last)
        .map_or_else(String::new, |(first, last)| format!("  {first} … {last}"));
    let head = format!("{}{range}", pad_to_width(&format_corner(grid), side));
    let mut out = vec![cut_to_width(&head, width)];

    for at in 0..shown {
        let cells = grid_row(grid, at).iter().take(fit);
        let shades: String = cells.map(|cell| format_shade(cell, heat)).collect();
        let line = format!("{}  {shades}", pad_to_width(&grid.rows[at], side));
        out.push(line.trim_end().to_owned());
    }

    out
}

fn format_shade(cell: &v1::WatchCell, heat: Option<(MeanRange, TerminalPalette)>) -> String {
    let shade = shade_char(cell).to_string();
    let style = heat
        .zip(cell.mean)
        .and_then(|((range, palette), mean)| Some(palette.cell_style(range.share(mean)?, false)));
    style.map_or_else(|| shade.clone(), |style| colour_text(&shade, &style))
}

fn count_done_trials(cell: &v1::WatchCell) -> u64 {
    cell.completed + cell.diverged + cell.failed
}

/// Formats `████▌· 0.912 2✗`: the share of a cell's trials that is done, its mean, and the number of
/// diverged trials.
fn format_bar_and_mean(cell: &v1::WatchCell) -> String {
    let parts = [draw_bar(cell), format_mean(cell), format_marks(cell)];
    join_parts(parts)
}

/// Formats `▓ 0.912 2✗`.
fn format_shade_and_mean(cell: &v1::WatchCell) -> String {
    let parts = [
        shade_char(cell).to_string(),
        format_mean(cell),
        format_marks(cell),
    ];
    join_parts(parts)
}

/// Formats `████▌· 2✗`.
fn format_bar(cell: &v1::WatchCell) -> String {
    join_parts([draw_bar(cell), format_marks(cell)])
}

fn join_parts<const N: usize>(parts: [String; N]) -> String {
    let parts = parts.into_iter().filter(|part| !part.trim().is_empty());
    parts.collect::<Vec<_>>().join(" ")
}

/// The mean with three digits, which change less often than they are drawn.
fn format_mean(cell: &v1::WatchCell) -> String {
    let mean = cell.mean.filter(|mean| mean.is_finite());
    mean.map_or_else(String::new, |mean| format_significant(mean, 3))
}

fn draw_bar(cell: &v1::WatchCell) -> String {
    const EIGHTHS: [char; 9] = [' ', '▏', '▎', '▍', '▌', '▋', '▊', '▉', '█'];
    if cell.trials == 0 {
        return String::new();
    }

    let eighths =
        (count_done_trials(cell).min(cell.trials) * 8 * BAR_WIDTH as u64 / cell.trials) as usize;
    (0..BAR_WIDTH)
        .map(|at| match EIGHTHS[eighths.saturating_sub(8 * at).min(8)] {
            ' ' => '·',
            drawn => drawn,
        })
        .collect()
}

/// Formats `2✗ 1!`: the numbers of diverged and failed trials.
fn format_marks(cell: &v1::WatchCell) -> String {
    let counts = [(cell.diverged, '✗'), (cell.failed, '!')];
    let marks = counts.iter().filter(|(n, _)| *n > 0);
    marks
        .map(|(n, sign)| format!("{n}{sign}"))
        .collect::<Vec<_>>()
        .join(" ")
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
    let text = cut_to_width(text, width);
    let fill = width - text.width();
    text + &" ".repeat(fill)
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
                mean: Some(0.91),
                ..v1::WatchCell::default()
            },
            2 => v1::WatchCell {
                trials: 8,
                completed: 5,
                diverged: 3,
                mean: Some(0.917 + 0.001 * (i / 4) as f64),
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

    fn size(columns: usize, lines: usize) -> ScreenSize {
        ScreenSize { columns, lines }
    }

    #[test]
    fn a_wide_terminal_shows_bars_and_means_and_a_narrow_one_shades() {
        let wide = render_watch_grid(&grid(2, 2), "test_acc", size(100, 30), None);
        assert_eq!(
            wide,
            [
                "lr \\ wd  0e-5             1e-5",
                "0.0      ······           ███··· 0.91",
                "0.1      ██████ 0.917 3✗  ██████ 8✗",
                "test_acc ± 0.01 to ± 0.03 (95 % CI of a cell's mean);  ✗ diverged  ! failed",
            ]
        );

        let narrower = render_watch_grid(&grid(2, 2), "test_acc", size(34, 30), None);
        assert_eq!(
            narrower[1..3],
            ["0.0      ·           ▒ 0.91", "0.1      █ 0.917 3✗  ✗ 8✗"]
        );
        let narrow = render_watch_grid(&grid(2, 4), "test_acc", size(24, 30), None);
        assert_eq!(
            narrow[..4],
            [
                "lr \\ wd  0e-5 … 3e-5",
                "0.0      ·▒█✗",
                "0.1      ·▒█✗",
                "test_acc: 0.91 … 0.918"
            ]
        );
    }

    #[test]
    fn a_narrow_terminal_shows_means_as_colours() {
        let palette = Some(TerminalPalette::from_environment());
        let lines = render_watch_grid(&grid(2, 40), "test_acc", size(60, 30), palette);
        assert_eq!(lines[1].matches("\u{1b}[48;").count(), 20, "{lines:#?}");
        assert!(lines[3].starts_with("test_acc: \u{1b}[48;"), "{lines:#?}");
    }

    #[test]
    fn nothing_is_wider_or_higher_than_the_terminal() {
        for (rows, columns) in [(1, 1), (3, 40), (40, 3), (20, 20)] {
            for (width, height) in [(20, 8), (80, 24), (300, 100)] {
                let room = size(width, height);
                let lines = render_watch_grid(&grid(rows, columns), "test_acc", room, None);
                assert!(
                    lines.iter().all(|line| line.width() <= width),
                    "{width}: {lines:#?}"
                );

                assert!(lines.len() <= height, "{height}: {lines:#?}");
            }
        }

        let no_cells = v1::WatchGrid {
            cells: vec![],
            ..grid(2, 2)
        };
        assert!(render_watch_grid(&no_cells, "m", size(80, 24), None).is_empty());
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
            render_watch_grid(&one, "m", size(80, 24), None),
            ["lr", "0.0  ······", "0.1  ███··· 0.91"]
        );
    }
}
