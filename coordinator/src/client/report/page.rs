//! The page: HTML with an inline style, no script, and nothing external.

use ergodic_common::escape::escape_lines;
use ergodic_proto::v1;
use maud::{DOCTYPE, Markup, PreEscaped, Render, html};

use crate::client::render::{
    AxisFormats, RankMarks, find_best_row, format_incomplete_counts, format_mean_and_interval,
    format_trial_statistics, render_legend,
};
use crate::client::verdicts::{PRINTED_COLUMNS, describe_levels, format_verdict_row};
use crate::plot::{Scene, svg};

/// The style follows the reader's light or dark mode. Figures stay on white, and printed pages are
/// white.
const STYLE: &str = "
:root { color-scheme: light dark; --ink: #1a1a1a; --paper: #fff; --grey: #595959; --line: #d0d0d0; --best: #e8f4ea; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e6e6; --paper: #16181b; --grey: #a8a8a8; --line: #3c4046; --best: #1e3a27; }
}
body { margin: 2rem auto; max-width: 60rem; padding: 0 1rem; background: var(--paper); color: var(--ink);
  font: 15px/1.5 system-ui, 'DejaVu Sans', Verdana, sans-serif; }
h1 { font-size: 1.6rem; margin-bottom: 0; } h2 { font-size: 1.2rem; margin-top: 2.5rem; border-bottom: 1px solid var(--line); }
.standing, p.note { color: var(--grey); } .scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; margin: 1rem 0; }
th, td { padding: .2rem .8rem; text-align: right; white-space: nowrap; } thead th { border-bottom: 1.5px solid var(--ink); }
table.data { border-top: 1.5px solid var(--ink); border-bottom: 1.5px solid var(--ink); } tr.best { background: var(--best); font-weight: 600; }
table.facts th, table.facts td { text-align: left; vertical-align: top; white-space: normal; overflow-wrap: anywhere; }
table.facts th { font-weight: normal; color: var(--grey); white-space: nowrap; }
figure { margin: 1.5rem 0; background: #fff; border-radius: 4px; padding: .5rem; width: fit-content; max-width: 100%; box-sizing: border-box; }
figure svg { max-width: 100%; height: auto; display: block; }
pre { border: 1px solid var(--line); padding: 1rem; overflow-x: auto; font-size: 13px; }
@media print {
  :root { color-scheme: light; --ink: #000; --paper: #fff; --grey: #444; --line: #bbb; --best: #eee; }
  body { margin: 0; max-width: none; padding: 0; font-size: 10pt; } figure, tr { break-inside: avoid; }
  h2 { break-after: avoid; } thead { display: table-header-group; } .scroll { overflow-x: visible; }
  table.data { font-size: 8.5pt; } th, td { padding: .15rem .35rem; }
  table.data th { white-space: normal; overflow-wrap: anywhere; vertical-align: bottom; }
  tr.best { print-color-adjust: exact; -webkit-print-color-adjust: exact; }
  pre { white-space: pre-wrap; overflow-wrap: anywhere; overflow-x: visible; }
}
";

/// Notes on the figures of every table, in the words of the README.
const STATISTICS: [&str; 4] = [
    "n counts completed trials; means, deviations and intervals are over these. Diverged trials are a result and are counted beside them, and are the last of their repeat where cells are ranked; failed ones count nowhere.",
    "Everything is recomputed from the stored rows in the order of cells and repeats. Deviations have n − 1 in the denominator; intervals are mean ± t·s/√n at 95 %, by Student's t with n − 1 degrees of freedom, unless a note says otherwise: rows of several cells have the error of whole repeats, and sweeps that cross random streams that of the streams.",
    "Where a sample is small and skewed, such intervals cover the mean less often than their level says. Intervals of \
     different cells are not adjusted for their number.",
    "Repeat r has the same random streams in every cell unless the sweep file says otherwise: cells are best compared \
     repeat by repeat (ergodic compare), and overlapping intervals do not show that cells do not differ.",
];

/// Text of other people: no markup, and nothing in it misleads; lines stay.
struct Text<'a>(&'a str);

impl Render for Text<'_> {
    fn render_to(&self, out: &mut String) {
        escape_lines(self.0).render_to(out);
    }
}

/// A page under construction.
pub(super) struct ReportPage {
    title: String,
    /// What is on it, each in a line of its own.
    body: String,
}

impl ReportPage {
    pub(super) fn new(title: &str) -> Self {
        Self {
            title: title.to_owned(),
            body: String::new(),
        }
    }

    /// Begins a part of the page: a sweep, and how far it is.
    pub(super) fn add_heading(&mut self, title: &str, standing: &str) {
        self.add(&html! { h1 { (Text(title)) } });
        self.add(&html! { p.standing { (Text(standing)) } });
    }

    fn add(&mut self, markup: &Markup) {
        markup.render_to(&mut self.body);
        self.body.push('\n');
    }

    pub(super) fn add_section(&mut self, name: &str) {
        self.add(&html! { h2 { (Text(name)) } });
    }

    pub(super) fn add_paragraph(&mut self, text: &str) {
        self.add(&html! { p.note { (Text(text)) } });
    }

    /// Adds a picture, and the texts that have no room in it.
    pub(super) fn add_scene(&mut self, scene: &Scene) {
        self.add_figure(&svg::render_svg(scene));
        let cut = scene.cut_texts();
        if !cut.is_empty() {
            self.add_paragraph(&format!("Cut in the figure: {}.", cut.join("; ")));
        }
    }

    /// Adds an SVG document, which must be trusted.
    fn add_figure(&mut self, svg: &str) {
        self.add(&html! { figure { "\n" (PreEscaped(svg)) } });
    }

    pub(super) fn add_verbatim(&mut self, text: &str) {
        self.add(&html! { pre { (Text(text)) } });
    }

    pub(super) fn add_facts(&mut self, facts: &[(&str, String)]) {
        self.add(&html! {
            table.facts {
                "\n"
                @for (name, value) in facts {
                    tr { th { (Text(name)) } td { (Text(value)) } } "\n"
                }
            }
        });
    }

    /// Adds at most `most` rows of a table, and its legend.
    pub(super) fn add_table(&mut self, table: &v1::TableResponse, most: usize) {
        let head = ["n", "mean ± 95 % CI", "std", "min", "median", "max", ""];
        let names = table.axes.iter().map(String::as_str).chain(head);
        let best = find_best_row(table);
        let words = AxisFormats::from_table(table);
        let marks = RankMarks::from_table(table);

        self.add(&html! {
            div.scroll {
                table.data {
                    "\n" thead { tr { @for name in names { th { (Text(name)) } } } }
                    "\n" tbody {
                        "\n"
                        @for at in 0..table.rows.len().min(most) {
                            tr class=[(best == Some(at)).then_some("best")] {
                                @for cell in format_cells(table, &words, marks, at) { td { (Text(&cell)) } }
                            }
                            "\n"
                        }
                    }
                }
            }
        });

        if best.is_some_and(|best| best >= most) {
            self.add_paragraph("The best cell is not among these.");
        }

        render_legend(table)
            .lines()
            .for_each(|line| self.add_paragraph(line));
    }

    /// Adds a table of verdicts on claims, and what their intervals are.
    pub(super) fn add_verdicts(&mut self, rows: &[v1::ClaimRow]) {
        self.add(&html! {
            div.scroll {
                table.data {
                    "\n" thead { tr { @for name in PRINTED_COLUMNS { th { (Text(name)) } } } }
                    "\n" tbody {
                        "\n"
                        @for row in rows {
                            tr { @for cell in format_verdict_row(row) { td { (Text(&cell)) } } } "\n"
                        }
                    }
                }
            }
        });
        self.add_paragraph(&describe_levels(rows));
    }

    pub(super) fn add_statistics_notes(&mut self) {
        self.add_section("Statistics");
        STATISTICS.iter().for_each(|text| self.add_paragraph(text));
    }

    pub(super) fn to_html(&self) -> String {
        let page = html! {
            (DOCTYPE) "\n"
            html lang="en" {
                "\n" head {
                    "\n" meta charset="utf-8";
                    "\n" meta name="viewport" content="width=device-width, initial-scale=1";
                    "\n" title { (Text(&self.title)) }
                    "\n" style { (PreEscaped(STYLE)) }
                    "\n"
                }
                "\n" body { "\n" (PreEscaped(&self.body)) }
                "\n"
            }
            "\n"
        };
        page.into_string()
    }
}

/// The cells of a row of a table: values of the axes, and statistics.
fn format_cells(
    table: &v1::TableResponse,
    words: &AxisFormats,
    marks: RankMarks,
    at: usize,
) -> Vec<String> {
    let row = &table.rows[at];
    let s = row.summary.unwrap_or_default();
    let mean = format!("{}{}", marks.mark(at, row), format_mean_and_interval(&s));

    words
        .format_row(&row.values)
        .chain([s.n.to_string(), mean])
        .chain(format_trial_statistics(&s))
        .chain([format_incomplete_counts(&s)])
        .collect()
}

#[cfg(test)]
mod tests {
    use crate::client::report::page::*;

    #[test]
    fn nothing_that_a_user_wrote_is_markup() {
        let bad = "<script>alert('x')</script>&\"\u{1b}[31m";
        let mut page = ReportPage::new(bad);
        page.add_heading(bad, bad);
        page.add_section(bad);
        page.add_paragraph(bad);
        page.add_verbatim(bad);
        page.add_facts(&[("name", bad.to_owned())]);

        page.add_verdicts(&[v1::ClaimRow {
            claim: bad.to_owned(),
            note: bad.to_owned(),
            ..v1::ClaimRow::default()
        }]);

        let value = v1::AxisValue {
            kind: Some(v1::axis_value::Kind::Text(bad.to_owned())),
        };
        let row = v1::TableRow {
            values: vec![value],
            ..v1::TableRow::default()
        };
        page.add_table(
            &v1::TableResponse {
                axes: vec![bad.to_owned()],
                rows: vec![row],
                ..v1::TableResponse::default()
            },
            9,
        );

        let html = page.to_html();
        assert!(!html.contains('\u{1b}'), "no control character");
        assert!(
            !html.contains("<script") && html.matches("&lt;script&gt;").count() == 11,
            "{html}"
        );

        // Of a cell without trials there is no number, and that is seen.
        assert!(
            html.contains("<td>0</td><td>–</td>") && !html.contains("NaN"),
            "{html}"
        );
    }

    fn page_of(means: &[f64]) -> String {
        let row = |mean: &f64| {
            let s = v1::Summary {
                n: 3,
                mean: Some(*mean),
                ci95_high: Some(2.5 * mean),
                ..v1::Summary::default()
            };
            v1::TableRow {
                summary: Some(v1::Summary {
                    max: Some(*mean),
                    ..s
                }),
                ..v1::TableRow::default()
            }
        };
        let mut rows: Vec<v1::TableRow> = means.iter().map(row).collect();

        let least = means.iter().copied().fold(f64::INFINITY, f64::min);
        let mut places = 1..;
        rows.iter_mut()
            .zip(means)
            .filter(|(_, mean)| **mean == least)
            .for_each(|(row, _)| {
                (row.rank, row.may_be_best) = (places.next(), true);
            });

        let mut page = ReportPage::new("");
        page.add_table(
            &v1::TableResponse {
                rows,
                better: -1,
                ..v1::TableResponse::default()
            },
            3,
        );

        page.to_html()
    }

    #[test]
    fn the_best_row_is_starred_beside_those_that_cannot_be_told_from_it() {
        let one = page_of(&[0.5, 0.25]);
        assert!(
            one.contains("<tr class=\"best\"><td>3</td><td>★ 0.25 ± 0.38")
                && one.contains("all others here can be told from it, at 95 %"),
            "{one}"
        );

        let ties = page_of(&[0.25, 0.5, 0.25]);
        assert!(
            ties.matches("<td>★").count() == 1 && ties.matches("<td>☆").count() == 1,
            "{ties}"
        );
        assert!(
            ties.contains("☆ cannot be told from it: 1 of 2 others here"),
            "{ties}"
        );

        assert!(page_of(&[0.5, 0.5, 0.5, 0.25]).contains("is not among these"));
    }

    #[test]
    fn large_numbers_are_short() {
        let html = page_of(&[1.5e44, 0.25]);
        assert!(
            html.contains("<td>1.5e44 ± 2.3e44</td>") && html.contains("<td>1.5e44</td>"),
            "{html}"
        );
        assert!(!html.contains("00000000"), "{html}");
    }
}
