//! What is found of one experiment: its verdicts and figures.

use std::path::Path;

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_common::spec::SpecSource;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;
use serde_json::{Map, Value, json};

use super::experiment::Experiment;
use crate::analysis::claims::ClaimQuery;
use crate::client::Client;
use crate::client::plot::draw_file_figure;
use crate::client::query::query_trials;
use crate::client::render::{
    format_trial_count, non_empty, render_described_rows, write_atomic_file,
};
use crate::client::status_text::format_duration;
use crate::client::verdicts::{
    build_verdict_data, describe_printed_columns, describe_verdicts, format_verdict_row,
    query_verdicts, render_verdict_json,
};
use crate::plot::{Scene, svg};
use crate::server::services::row_readers::table_error;
use crate::server::services::verdict::to_claim_row;
use crate::terminal::print_stderr_line;

/// Maximum number of trials whose times are added up.
const MAX_TIMED_TRIALS: u64 = 100_000;

/// What is found of an experiment.
pub(super) struct ExperimentFindings<'a> {
    pub(super) experiment: &'a Experiment,
    pub(super) status: v1::SweepStatus,
    pub(super) verdicts: v1::VerdictResponse,
    /// Seconds that all trials took, if they were added up.
    trial_seconds: Option<f64>,
}

impl<'a> ExperimentFindings<'a> {
    /// Judges the claims of an experiment whose sweep has ended.
    ///
    /// # Errors
    /// A claim cannot be evaluated, or the coordinator does not respond.
    pub(super) async fn collect(
        client: &mut Client,
        experiment: &'a Experiment,
        status: v1::SweepStatus,
    ) -> Result<Self, UserError> {
        let verdicts = judge_claims(client, &experiment.file.source, &status).await?;
        let trial_seconds = match status.trials <= MAX_TIMED_TRIALS {
            true => Some(add_trial_seconds(client, &status).await?),
            false => None,
        };
        Ok(Self {
            experiment,
            status,
            verdicts,
            trial_seconds,
        })
    }

    /// The findings of an experiment without trials: nothing is shown.
    ///
    /// # Errors
    /// A claim cannot be evaluated.
    pub(super) fn without_trials(experiment: &'a Experiment, why: &str) -> Result<Self, UserError> {
        let spec = &experiment.spec;
        let claims = ClaimQuery::new(spec, None).map_err(table_error)?;
        let rows = claims.judge_without_trials(spec, why).into_iter();
        let claims_hash = experiment.file.source.compute_claims_hash();
        let verdicts = v1::VerdictResponse {
            name: spec.name.clone(),
            rows: rows.map(to_claim_row).collect(),
            numerics: spec.numerics.clone(),
            seed: spec.seed,
            scale: spec.scales.chosen.clone().unwrap_or_default(),
            claims_hash: claims_hash.map_or_else(Vec::new, |hash| hash.to_vec()),
            ..v1::VerdictResponse::default()
        };
        Ok(Self {
            experiment,
            status: v1::SweepStatus::default(),
            verdicts,
            trial_seconds: None,
        })
    }

    /// Writes the verdicts and the figures into a directory.
    ///
    /// # Errors
    /// A file cannot be written, or the coordinator does not respond.
    pub(super) async fn write_files(
        &self,
        client: &mut Client,
        dir: &Path,
    ) -> Result<(), UserError> {
        let label = &self.experiment.label;
        let figures = self.write_figures(client, dir).await?;
        let mut facts = self.describe_facts();
        facts.insert("figures".to_owned(), json!(figures));
        let document = render_verdict_json(&facts, &build_verdict_data(&self.verdicts));
        write_atomic_file(&dir.join(format!("{label}.json")), document.as_bytes())
    }

    /// Writes the figures; gives the names of their files. A figure that cannot be drawn is no reason to end.
    async fn write_figures(
        &self,
        client: &mut Client,
        dir: &Path,
    ) -> Result<Vec<String>, UserError> {
        let Experiment { label, spec, .. } = self.experiment;
        let figures = spec
            .figures
            .as_ref()
            .map_or(&[][..], |section| section.figures.as_slice());
        let mut names = Vec::new();
        for figure in figures.iter().filter(|_| self.has_sweep()) {
            let id = self.status.sweep_id();
            match draw_file_figure(client, &id, spec, figure, &self.verdicts).await {
                Ok(scene) => {
                    let name = format!("{label}-{}.svg", figure.name);
                    write_atomic_file(&dir.join(&name), svg::render_svg(&scene).as_bytes())?;
                    tell_cut_texts(&name, &scene);
                    names.push(name);
                }
                Err(error) if matches!(error.code, ErrorCode::BadInput | ErrorCode::NotFound) => {
                    let message = &error.message;
                    print_stderr_line(&format!("{label}: no figure '{}': {message}", figure.name));
                }
                Err(error) => return Err(error),
            }
        }
        Ok(names)
    }

    /// Whether there is a sweep, which is none where no trial could start.
    fn has_sweep(&self) -> bool {
        !self.verdicts.sweep.is_empty()
    }

    /// The facts about the experiment, for programs.
    pub(super) fn describe_facts(&self) -> Map<String, Value> {
        let mut facts = Map::new();
        facts.insert("experiment".to_owned(), json!(self.experiment.label));
        facts.insert("file".to_owned(), json!(self.experiment.file.source.file));
        facts.extend(describe_verdicts(&self.verdicts));
        facts.insert("failed".to_owned(), json!(self.status.failed));
        facts.insert("diverged".to_owned(), json!(self.status.diverged));
        facts.insert("trial_seconds".to_owned(), json!(self.trial_seconds));
        facts.insert("launched_at".to_owned(), json!(self.status.launched_at));
        facts
    }

    /// Renders the verdicts for people, below a line about the experiment.
    pub(super) fn render_human(&self) -> String {
        let rows: Vec<[String; 9]> = self.verdicts.rows.iter().map(format_verdict_row).collect();
        // What a claim says in words is in the file, and not every sweep has several cells.
        let shown = SHOWN_COLUMNS
            .into_iter()
            .filter(|at| *at == 0 || rows.iter().any(|row| !row[*at].is_empty()));
        let shown: Vec<usize> = shown.collect();

        let columns = describe_printed_columns();
        let header = shown.iter().map(|at| columns[*at].clone()).collect();
        let cells = rows.iter().map(|row| {
            let cells = shown.iter().map(|at| Value::String(row[*at].clone()));
            cells.collect()
        });
        let cells: Vec<Vec<Value>> = cells.collect();
        format!(
            "{}\n{}\n",
            self.format_heading(),
            render_described_rows(header, &cells)
        )
    }

    /// Formats `03-decay (tt6azdt2): 10 trials (18s in all), scale desk, cpu-f32/6`.
    fn format_heading(&self) -> String {
        let found = &self.verdicts;
        if !self.has_sweep() {
            return format!("{}: no trials", escape_line(&self.experiment.label));
        }

        let trials = format_trial_count(found.done, found.trials);
        let time = self.trial_seconds.map_or_else(String::new, |seconds| {
            format!(" ({} in all)", format_duration(seconds))
        });
        let scale = non_empty(&found.scale).map_or_else(String::new, |scale| {
            format!(", scale {}", escape_line(scale))
        });
        format!(
            "{} ({}): {trials}{time}{scale}, {}",
            escape_line(&self.experiment.label),
            found.sweep,
            found.numerics
        )
    }
}

/// Warns of the texts that have no room in a figure.
fn tell_cut_texts(file: &str, scene: &Scene) {
    for text in scene.cut_texts() {
        print_stderr_line(&format!(
            "warning: {file}: '{}' has no room and is cut: a shorter title or name makes it fit",
            escape_line(text)
        ));
    }
}

/// The columns that are shown, of those that are printed: all but what a claim says in words.
const SHOWN_COLUMNS: [usize; 8] = [0, 1, 3, 4, 5, 6, 7, 8];

/// Queries the verdicts on the claims of a file. Where its sweep was launched with other claims, those of the file came later.
async fn judge_claims(
    client: &mut Client,
    source: &SpecSource,
    status: &v1::SweepStatus,
) -> Result<v1::VerdictResponse, UserError> {
    let wanted = source.compute_claims_hash().map(|hash| hash.to_vec());
    let id = status.sweep_id();
    match query_verdicts(client, &id, None).await {
        Ok(found) if Some(&found.claims_hash) == wanted.as_ref() => Ok(found),
        Err(error) if error.code != ErrorCode::NotFound => Err(error),
        _ => {
            let claims = source.render_claims().unwrap_or_default();
            query_verdicts(client, &id, Some((source.file.as_str(), claims))).await
        }
    }
}

/// Adds up the seconds that the trials of a sweep took.
async fn add_trial_seconds(
    client: &mut Client,
    status: &v1::SweepStatus,
) -> Result<f64, UserError> {
    let pages = query_trials(client, &status.sweep_id(), &[]).await?;
    let rows = pages.iter().flat_map(|page| &page.rows);
    let results = rows.filter_map(|row| row.result.as_ref());
    Ok(results.map(|result| result.seconds).sum())
}

#[cfg(test)]
pub(super) mod tests {
    use ergodic_common::Spec;

    use crate::client::sweep_file::SweepFile;
    use crate::standalone::verify::findings::*;

    /// An experiment for findings that are made up.
    pub(in crate::standalone::verify) fn made_up_experiment(label: &str) -> Experiment {
        let source = SpecSource {
            file: format!("{label}.toml"),
            text: "name = \"a\"\nrepeats = 3\nmodel = { kind = \"empty\" }\n".to_owned(),
            ..SpecSource::default()
        };
        Experiment {
            label: label.to_owned(),
            main: 0,
            spec: Spec::read_new(&source).expect("a valid sweep"),
            file: SweepFile {
                source,
                contents: Vec::new(),
            },
        }
    }

    /// Findings with two rows of one claim, the second with this verdict.
    pub(in crate::standalone::verify) fn made_up_findings(
        experiment: &Experiment,
        verdict: v1::Verdict,
    ) -> ExperimentFindings<'_> {
        let row = v1::ClaimRow {
            claim: "the jump".to_owned(),
            cells: "lr=0.1".to_owned(),
            verdict: v1::Verdict::Agrees.into(),
            effect: Some(9.9821),
            low: Some(9.981),
            high: Some(9.9832),
            level: 0.9,
            region: "in [9.5, 10.5]".to_owned(),
            n: 10,
            ..v1::ClaimRow::default()
        };
        let second = v1::ClaimRow {
            cells: "lr=0.2".to_owned(),
            verdict: verdict.into(),
            note: "small n".to_owned(),
            ..row.clone()
        };
        ExperimentFindings {
            experiment,
            status: v1::SweepStatus {
                launched_at: 1_795_841_489.0,
                ..v1::SweepStatus::default()
            },
            verdicts: v1::VerdictResponse {
                sweep: "tt6azdt2".to_owned(),
                rows: vec![row, second],
                done: 20,
                trials: 20,
                numerics: "cpu-f32/6".to_owned(),
                scale: "desk".to_owned(),
                ..v1::VerdictResponse::default()
            },
            trial_seconds: Some(17.6),
        }
    }

    #[test]
    fn an_experiment_has_a_line_for_each_verdict_and_one_above() {
        let experiment = made_up_experiment("03-decay");
        let findings = made_up_findings(&experiment, v1::Verdict::NotEnough);
        let text = findings.render_human();
        let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
        assert_eq!(
            lines[0],
            "03-decay (tt6azdt2): 20 trials (18s in all), scale desk, cpu-f32/6"
        );
        assert_eq!(lines.len(), 6, "{text}");
        assert!(
            lines[1].contains("verdict") && !lines[1].contains("what"),
            "{text}"
        );
        assert!(
            lines[3].contains("agrees") && lines[4].contains("not enough"),
            "{text}"
        );
        assert!(
            lines[4].contains("9.9810 … 9.9832") && lines[5].is_empty(),
            "{text}"
        );
        assert!(
            lines.iter().all(|line| line.chars().count() <= 90),
            "{text}"
        );
    }
}
