//! The scales and stages of a sweep file: a plan of one checks the others, too.

use ergodic_common::config::MAIN_STAGE;
use ergodic_common::spec::SpecSource;
use ergodic_common::{ErrorCode, Spec, SpecError};
use ergodic_proto::status::UserError;

use super::PlanArgs;
use crate::client::sweep_file::{read_launch_spec, read_sweep_file};

/// The file as it is read with a scale and a stage.
struct Variant<'a> {
    scale: Option<&'a str>,
    stage: Option<&'a str>,
    source: SpecSource,
    spec: Spec,
}

impl Variant<'_> {
    /// Checks that what the trials of a stage start from is kept by the other stages, at the same scale.
    fn check_start(&self, all: &[Variant<'_>]) -> Result<(), SpecError> {
        let find = |name: &str| {
            let mut others = all.iter().filter(|other| other.scale == self.scale);
            let other = others.find(|other| other.stage.unwrap_or(MAIN_STAGE) == name);
            other.map(|other| &other.spec)
        };
        self.spec.check_taken_weights(&self.source, find)
    }
}

/// Checks the file under each scale and stage that is not chosen, and returns what there is to say about the claims of each.
///
/// # Errors
/// Names all mistakes of all scales and stages.
pub(super) fn check_variants(
    args: &PlanArgs,
    source: &SpecSource,
    spec: &Spec,
) -> Result<Vec<String>, UserError> {
    let mut variants = vec![Variant {
        scale: spec.scales.chosen.as_deref(),
        stage: spec.stages.chosen.as_deref(),
        source: source.clone(),
        spec: spec.clone(),
    }];
    let mut mistakes: Vec<String> = Vec::new();
    for (scale, stage) in list_variants(spec) {
        let settings = args.change.resolve_with(scale, stage);
        let read = read_sweep_file(&args.spec, &settings)
            .and_then(|file| Ok((read_launch_spec(&file.source)?, file.source)));
        match read {
            Ok((spec, source)) => variants.push(Variant {
                scale,
                stage,
                source,
                spec,
            }),
            Err(error) => mistakes.push(describe_mistake(scale, stage, &error.message)),
        }
    }
    for variant in &variants {
        if let Err(error) = variant.check_start(&variants) {
            mistakes.push(describe_mistake(
                variant.scale,
                variant.stage,
                &error.to_string(),
            ));
        }
    }

    match mistakes.is_empty() {
        true => Ok(variants
            .iter()
            .flat_map(|variant| describe_lacking_claims(&variant.spec))
            .collect()),
        false => Err(UserError::new(ErrorCode::BadInput, mistakes.join("\n"))),
    }
}

fn describe_mistake(scale: Option<&str>, stage: Option<&str>, message: &str) -> String {
    format!("with {}: {message}", describe_choices(scale, stage))
}

/// The scales and stages that a file can be read with, but for those that it was read with.
fn list_variants(spec: &Spec) -> Vec<(Option<&str>, Option<&str>)> {
    let chosen = (spec.scales.chosen.as_deref(), spec.stages.chosen.as_deref());
    let mut variants = Vec::new();
    for scale in std::iter::once(chosen.0).chain(spec.scales.others().map(Some)) {
        variants.push((scale, chosen.1));
        let others = spec.stages.names.iter().map(String::as_str).map(Some);
        variants.extend(
            others
                .filter(|_| chosen.1.is_none())
                .map(|stage| (scale, stage)),
        );
    }
    variants.retain(|variant| *variant != chosen);
    variants
}

/// The options that choose a scale and a stage.
fn describe_choices(scale: Option<&str>, stage: Option<&str>) -> String {
    let scale = scale.map(|name| format!("--scale {name}"));
    let stage = stage.map(|name| format!("--stage {name}"));
    let chosen: Vec<String> = scale.into_iter().chain(stage).collect();
    match chosen.is_empty() {
        true => "these settings".to_owned(),
        false => chosen.join(" "),
    }
}

/// Describes the claims whose cells a sweep lacks, which is no mistake at a scale.
fn describe_lacking_claims(spec: &Spec) -> Vec<String> {
    let chosen = (spec.scales.chosen.as_deref(), spec.stages.chosen.as_deref());
    let place = format!("with {}", describe_choices(chosen.0, chosen.1));
    let lacking = spec.find_lacking_claims().into_iter();
    lacking
        .map(|(claim, lack)| {
            format!("{place}, the verdict on the claim '{claim}' will be \"not enough\": {lack}")
        })
        .collect()
}
