//! Tables of text for people: columns that fit a width, one rule below the header.

use std::fmt::Write as _;

use ergodic_common::escape::escape_line;
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

use super::table_layout::TableLayout;

/// The least width of a column whose texts may be cut, in characters.
const MIN_CUT_WIDTH: usize = 12;
/// The least width of a column of labels, in characters.
const MIN_LABEL_WIDTH: usize = 10;
/// The least number of characters of a shortened digest.
const MIN_DIGEST_CHARS: usize = 8;
/// Spaces beside the texts of a column.
const PADDING: usize = 2;

/// How a column gives way on a narrow terminal.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum ColumnFit {
    /// The texts are whole, or the column is left out.
    #[default]
    Whole,
    /// The texts tell rows apart: words may lose characters in their middle, and numbers are whole.
    Label,
    /// The texts may be cut at their end.
    Cut,
    /// The texts are hashes, of which a unique prefix is enough.
    Digest,
}

/// A column of a table.
#[derive(Debug, Clone, Default)]
pub struct TextColumn {
    /// The name that `--columns` knows.
    pub(super) name: String,
    /// The header.
    pub(super) header: String,
    /// A shorter header, where the header is wider than the texts and room is short.
    pub(super) short_header: Option<String>,
    /// Whether texts are aligned to the right.
    pub(super) right: bool,
    /// What is least important is left out first; of equals, the rightmost.
    pub(super) importance: u8,
    /// How the column gives way.
    pub(super) fit: ColumnFit,
    /// Whether the column is shown only if it is asked for.
    pub(super) on_request: bool,
}

impl TextColumn {
    /// A column whose header is its name.
    pub(super) fn new(name: impl Into<String>) -> Self {
        let name = name.into();
        Self {
            header: name.clone(),
            name,
            ..Self::default()
        }
    }

    /// A column of figures or of short words, which are shown whole.
    pub fn figure(name: impl Into<String>, importance: u8) -> Self {
        Self {
            importance,
            ..Self::with_escaped_header(name)
        }
    }

    /// A column of labels, which tell rows apart.
    pub fn label(name: impl Into<String>, importance: u8) -> Self {
        Self {
            importance,
            fit: ColumnFit::Label,
            ..Self::with_escaped_header(name)
        }
    }

    /// A column of remarks without a header, which may be cut.
    pub fn remarks(name: impl Into<String>, importance: u8) -> Self {
        Self {
            header: String::new(),
            importance,
            fit: ColumnFit::Cut,
            ..Self::new(name)
        }
    }

    fn with_escaped_header(name: impl Into<String>) -> Self {
        let column = Self::new(name);
        Self {
            header: escape_line(&column.name).into_owned(),
            ..column
        }
    }
}

/// A text of a table with its width.
#[derive(Debug, Clone)]
pub(super) struct TextCell {
    text: String,
    /// Width in characters of the terminal.
    width: usize,
    /// Parameters of the escape sequence that sets colours, as in `1;32`; empty for none.
    style: String,
    /// Overrides the alignment of the column.
    right: Option<bool>,
}

impl TextCell {
    pub(super) fn new(text: impl Into<String>) -> Self {
        let text = text.into();
        Self {
            width: text.width(),
            text,
            style: String::new(),
            right: None,
        }
    }

    /// Sets the parameters of the sequence that colours the cell.
    pub(super) fn with_style(mut self, style: impl Into<String>) -> Self {
        self.style = style.into();
        self
    }

    pub(super) fn with_alignment(mut self, right: bool) -> Self {
        self.right = Some(right);
        self
    }
}

impl From<String> for TextCell {
    fn from(text: String) -> Self {
        Self::new(text)
    }
}

/// A table of text.
#[derive(Debug, Clone, Default)]
pub(super) struct TextTable {
    columns: Vec<TextColumn>,
    rows: Vec<Vec<TextCell>>,
}

/// A column that is shown, with its width.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct PlacedColumn {
    at: usize,
    width: usize,
}

impl TextTable {
    pub(super) fn new(columns: Vec<TextColumn>) -> Self {
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row with one cell per column.
    pub(super) fn add_row<T: Into<TextCell>>(&mut self, cells: impl IntoIterator<Item = T>) {
        self.rows.push(cells.into_iter().map(Into::into).collect());
    }

    /// The names of all columns, also of those that are shown on request only.
    pub(super) fn column_names(&self) -> impl Iterator<Item = &str> {
        self.columns.iter().map(|column| column.name.as_str())
    }

    /// Keeps these columns, in this order, whatever their importance.
    pub(super) fn select_columns(&mut self, positions: &[usize]) {
        self.columns = positions
            .iter()
            .map(|at| self.columns[*at].clone())
            .collect();
        for column in &mut self.columns {
            column.on_request = false;
            column.importance = u8::MAX;
        }
        for row in &mut self.rows {
            *row = positions.iter().map(|at| row[*at].clone()).collect();
        }
    }

    /// Renders the table. On a terminal that is too narrow, less important columns are left out, and
    /// a last line names them and `remedy`, which shows them.
    pub(super) fn render(mut self, layout: TableLayout, remedy: &str) -> String {
        let Some(width) = layout.width else {
            let placed = self.place_all();
            return self.draw(&placed, layout.colours);
        };

        self.shorten_digests();
        let mut placed = self.place_all();
        if total_width(&placed) > width {
            self.shorten_headers();
            placed = self.fit_columns(width);
        }

        let mut out = self.draw(&placed, layout.colours);
        let left_out: Vec<&str> = (0..self.columns.len())
            .filter(|at| {
                !self.columns[*at].on_request && placed.iter().all(|column| column.at != *at)
            })
            .map(|at| self.columns[at].name.as_str())
            .collect();
        if !left_out.is_empty() {
            out += &wrap_words(
                &format!("not shown: {}; {remedy}", left_out.join(", ")),
                width,
            );
        }

        out
    }

    /// Renders the table in blocks of columns below each other, each with the first column, such
    /// that no line is wider than the terminal.
    pub(super) fn render_in_blocks(self, layout: TableLayout) -> String {
        let placed = self.place_all();
        let (Some(width), Some((side, rest))) = (layout.width, placed.split_first()) else {
            return self.draw(&placed, layout.colours);
        };

        let mut blocks = Vec::new();
        let mut block = vec![*side];
        for column in rest {
            block.push(*column);
            if total_width(&block) > width && block.len() > 2 {
                block.pop();
                blocks.push(std::mem::replace(&mut block, vec![*side, *column]));
            }
        }
        blocks.push(block);

        let drawn = blocks.iter().map(|block| self.draw(block, layout.colours));
        drawn.collect::<Vec<_>>().join("\n")
    }

    /// All columns that need not be asked for, as wide as their widest text.
    fn place_all(&self) -> Vec<PlacedColumn> {
        let mut widths: Vec<usize> = self.columns.iter().map(|c| c.header.width()).collect();
        for row in &self.rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = (*width).max(cell.width);
            }
        }

        let all = widths.into_iter().enumerate();
        all.filter(|(at, _)| !self.columns[*at].on_request)
            .map(|(at, width)| PlacedColumn { at, width })
            .collect()
    }

    /// The most important columns that fit the width. What may be cut has at least its least width, and more where there is room.
    fn fit_columns(&self, width: usize) -> Vec<PlacedColumn> {
        let natural = self.place_all();
        let mut placed: Vec<PlacedColumn> = natural
            .iter()
            .map(|column| PlacedColumn {
                width: self.least_width(*column),
                ..*column
            })
            .collect();

        while total_width(&placed) > width && placed.len() > 1 {
            let least = (0..placed.len())
                .rev()
                .min_by_key(|i| self.columns[placed[*i].at].importance);
            least.map(|i| placed.remove(i));
        }

        widen_columns(&mut placed, &natural, width);
        if let [only] = &mut placed[..] {
            only.width = only.width.min(width.saturating_sub(PADDING).max(1));
        }
        placed
    }

    /// The least width of a column that has this width where there is room.
    fn least_width(&self, column: PlacedColumn) -> usize {
        let described = &self.columns[column.at];
        match described.fit {
            ColumnFit::Whole | ColumnFit::Digest => column.width,
            ColumnFit::Cut => column.width.min(MIN_CUT_WIDTH),
            ColumnFit::Label => {
                let texts = self.rows.iter().map(|row| &row[column.at]);
                let numbers = texts.filter(|cell| cell.text.parse::<f64>().is_ok());
                numbers
                    .map(|cell| cell.width)
                    .max()
                    .unwrap_or(0)
                    .max(column.width.min(MIN_LABEL_WIDTH))
            }
        }
    }

    fn shorten_headers(&mut self) {
        for column in &mut self.columns {
            if let Some(short) = column.short_header.take() {
                column.header = short;
            }
        }
    }

    fn shorten_digests(&mut self) {
        for at in 0..self.columns.len() {
            if self.columns[at].fit != ColumnFit::Digest {
                continue;
            }

            let texts = self.rows.iter().map(|row| row[at].text.as_str());
            let chars = unique_prefix_chars(texts.collect());
            for row in &mut self.rows {
                let short: String = row[at].text.chars().take(chars).collect();
                row[at].width = short.width();
                row[at].text = short;
            }
        }
    }

    fn draw(&self, placed: &[PlacedColumn], colours: bool) -> String {
        let mut out = String::new();
        for column in placed {
            let header = &self.columns[column.at];
            push_padded(
                &mut out,
                &header.header,
                header.header.width(),
                *column,
                header.right,
                cut_to_width,
            );
        }
        end_line(&mut out);

        let rule = "═".repeat(total_width(placed));
        let _ = writeln!(out, "{rule}");
        for row in &self.rows {
            for column in placed {
                self.push_cell(&mut out, &row[column.at], *column, colours);
            }
            end_line(&mut out);
        }

        out
    }

    fn push_cell(&self, out: &mut String, cell: &TextCell, column: PlacedColumn, colours: bool) {
        let right = cell.right.unwrap_or(self.columns[column.at].right);
        let styled = colours && !cell.style.is_empty();
        if styled {
            let _ = write!(out, "\u{1b}[{}m", cell.style);
        }
        let shorten: fn(&str, usize) -> String = match self.columns[column.at].fit {
            ColumnFit::Label => shorten_in_middle,
            _ => cut_to_width,
        };
        push_padded(out, &cell.text, cell.width, column, right, shorten);
        if styled {
            out.push_str("\u{1b}[0m");
        }
    }
}

/// Widens the narrowest columns, as far as they need it and there is room.
fn widen_columns(placed: &mut [PlacedColumn], natural: &[PlacedColumn], width: usize) {
    for _ in total_width(placed)..width {
        let narrow = placed.iter_mut().filter(|column| {
            let whole = natural.iter().find(|whole| whole.at == column.at);
            whole.is_some_and(|whole| column.width < whole.width)
        });
        match narrow.min_by_key(|column| column.width) {
            Some(column) => column.width += 1,
            None => return,
        }
    }
}

fn total_width(placed: &[PlacedColumn]) -> usize {
    placed.iter().map(|column| column.width + PADDING).sum()
}

/// Appends a text, a space on either side, in the width of its column; `shorten` makes one fit that is wider.
fn push_padded(
    out: &mut String,
    text: &str,
    width: usize,
    column: PlacedColumn,
    right: bool,
    shorten: fn(&str, usize) -> String,
) {
    let cut;
    let (text, width) = match width > column.width {
        true => {
            cut = shorten(text, column.width);
            (cut.as_str(), cut.width())
        }
        false => (text, width),
    };
    let fill = column.width - width;
    let (before, after) = if right { (fill, 0) } else { (0, fill) };
    out.extend(std::iter::repeat_n(' ', before + 1));
    out.push_str(text);
    out.extend(std::iter::repeat_n(' ', after + 1));
}

/// Ends a line, without spaces at its end.
fn end_line(out: &mut String) {
    out.truncate(out.trim_end_matches(' ').len());
    out.push('\n');
}

/// Cuts a text to a width in characters of the terminal, with an ellipsis at its end.
pub(crate) fn cut_to_width(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }

    let mut out = String::new();
    let mut left = width.saturating_sub(1);
    for c in text.chars() {
        let wide = c.width().unwrap_or(0);
        if wide > left {
            break;
        }
        left -= wide;
        out.push(c);
    }
    if width > 0 {
        out.push('…');
    }
    out
}

/// Cuts characters out of the middle of a text that is wider than `width`: names differ at either end.
pub(in crate::client) fn shorten_in_middle(text: &str, width: usize) -> String {
    if text.width() <= width {
        return text.to_owned();
    }

    let characters: Vec<char> = text.chars().collect();
    let mut kept = characters.len();
    loop {
        kept -= 1;
        let head: String = characters[..kept.div_ceil(2)].iter().collect();
        let tail: String = characters[characters.len() - kept / 2..].iter().collect();
        let short = format!("{head}…{tail}");
        if short.width() <= width || kept == 0 {
            return short;
        }
    }
}

/// The least number of characters, at least `MIN_DIGEST_CHARS`, by which different texts differ.
fn unique_prefix_chars(mut texts: Vec<&str>) -> usize {
    texts.sort_unstable();
    texts.dedup();
    let shared = texts.windows(2).map(|pair| {
        let both = pair[0].chars().zip(pair[1].chars());
        both.take_while(|(a, b)| a == b).count() + 1
    });
    shared.max().unwrap_or(0).max(MIN_DIGEST_CHARS)
}

/// Breaks a text between words into lines of at most this width.
pub(super) fn wrap_words(text: &str, width: usize) -> String {
    let mut out = String::new();
    let mut used = 0;
    for word in text.split(' ') {
        let wide = word.width();
        if used > 0 && used + 1 + wide > width {
            out.push('\n');
            used = 0;
        } else if used > 0 {
            out.push(' ');
            used += 1;
        }
        out.push_str(word);
        used += wide;
    }

    out.push('\n');
    out
}

#[cfg(test)]
mod tests {
    use crate::client::render::text_table::*;

    const NARROW: TableLayout = TableLayout {
        width: Some(30),
        colours: false,
    };

    fn column(name: &str, importance: u8, fit: ColumnFit) -> TextColumn {
        TextColumn {
            importance,
            fit,
            ..TextColumn::new(name)
        }
    }

    fn table() -> TextTable {
        let mut out = TextTable::new(vec![
            column("lr", 200, ColumnFit::Whole),
            column("digest", 90, ColumnFit::Digest),
            column("seconds", 50, ColumnFit::Whole),
            column("cause", 80, ColumnFit::Cut),
        ]);
        let digests = ["ab".repeat(16), format!("{}ff", "ab".repeat(15))];
        for digest in digests {
            let why = "the trial took too long".to_owned();
            out.add_row(["0.1".to_owned(), digest, "12.5".to_owned(), why]);
        }
        out
    }

    #[test]
    fn without_a_width_everything_is_shown() {
        let text = table().render(TableLayout::PLAIN, "--wide");
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.len(), 4, "one rule, below the header: {text}");
        assert!(lines[2].contains(&"ab".repeat(16)) && lines[2].ends_with("took too long"));
        assert!(!text.contains("not shown"), "{text}");
    }

    #[test]
    fn the_least_important_columns_are_left_out_and_named() {
        let mut narrow = table();
        narrow.rows.truncate(1);
        let text = narrow.render(NARROW, "--wide shows all");
        let rule = "═".repeat(30);
        let wanted = [
            " lr   digest    cause",
            &rule,
            " 0.1  abababab  the trial to…",
            "not shown: seconds; --wide",
            "shows all",
        ];
        assert_eq!(text.lines().collect::<Vec<_>>(), wanted);
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
    }

    #[test]
    fn labels_shrink_before_columns_are_left_out() {
        let mut table = TextTable::new(vec![
            TextColumn::label("case", 200),
            TextColumn::label("lr", 200),
            TextColumn::figure("mean", 255),
            TextColumn::remarks("note", 1),
        ]);
        let ends = ["first", "other"].map(|end| format!("{}-{end}", "x".repeat(60)));
        for case in ends {
            let note = "a remark that is long".to_owned();
            table.add_row([case, "0.00123456".to_owned(), "0.5".to_owned(), note]);
        }

        let text = table.clone().render(NARROW, "--format csv has all");
        let lines: Vec<&str> = text.lines().collect();
        let header: Vec<&str> = lines[0].split_whitespace().collect();
        assert_eq!(header, ["case", "lr", "mean"]);
        assert!(lines[2].contains("0.00123456  0.5"), "{text}");
        assert!(lines[4].starts_with("not shown: note; "), "{text}");

        let wide = TableLayout {
            width: Some(60),
            ..NARROW
        };
        let text = table.render(wide, "--format csv has all");
        assert!(!text.contains("not shown"), "{text}");
        assert!(
            text.contains("x-first ") && text.contains("x-other "),
            "{text}"
        );
        assert!(text.lines().all(|line| line.width() <= 60), "{text}");
    }

    #[test]
    fn what_is_cut_out_is_in_the_middle() {
        assert_eq!(shorten_in_middle("mnist-lr-2", 10), "mnist-lr-2");
        assert_eq!(shorten_in_middle("mnist-lr-2", 7), "mni…r-2");
        assert_eq!(shorten_in_middle("語語語語", 5), "語…語");
        assert_eq!(shorten_in_middle("語", 0), "…");
    }

    #[test]
    fn digests_keep_what_tells_them_apart() {
        let wide = TableLayout {
            width: Some(200),
            colours: false,
        };
        let text = table().render(wide, "--wide");
        assert!(
            text.contains(&format!(" {}a ", "ab".repeat(15))) && text.contains("abf "),
            "{text}"
        );
        assert_eq!(unique_prefix_chars(vec!["abcdefghij", "abcdefghij"]), 8);
    }

    #[test]
    fn a_grid_continues_in_blocks_below() {
        let mut grid = TextTable::new((0..10).map(|i| TextColumn::new(format!("c{i}"))).collect());
        grid.add_row((0..10).map(|i| format!("0.12{i}")));
        let text = grid.render_in_blocks(NARROW);
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
        assert_eq!(text.matches("0.120").count(), 3, "{text}");
        assert!(
            (1..10).all(|i| text.matches(&format!("0.12{i}")).count() == 1),
            "{text}"
        );
    }

    #[test]
    fn wide_characters_take_two_places() {
        let mut out = TextTable::new(vec![TextColumn::new("名前"), TextColumn::new("n")]);
        out.add_row(["x".to_owned(), "1".to_owned()]);
        out.add_row(["漢字漢".to_owned(), "2".to_owned()]);
        assert_eq!(
            out.render(TableLayout::PLAIN, ""),
            " 名前    n\n═══════════\n x       1\n 漢字漢  2\n"
        );
        assert_eq!(cut_to_width("漢字漢", 4), "漢…");
    }

    #[test]
    fn a_column_that_alone_is_too_wide_is_cut() {
        let mut out = TextTable::new(vec![TextColumn::new("name")]);
        out.add_row(["x".repeat(100)]);
        let text = out.render(NARROW, "--wide");
        assert!(text.lines().all(|line| line.width() <= 30), "{text}");
    }

    #[test]
    fn colours_are_beside_the_text_and_no_part_of_its_width() {
        let mut out = TextTable::new(vec![TextColumn::new("n")]);
        out.add_row([TextCell::new("1").with_style("32")]);
        let layout = TableLayout {
            width: None,
            colours: true,
        };
        assert!(
            out.clone()
                .render(layout, "")
                .contains("\u{1b}[32m 1 \u{1b}[0m\n")
        );
        assert!(!out.render(TableLayout::PLAIN, "").contains('\u{1b}'));
    }
}
