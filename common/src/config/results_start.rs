//! `[model.init] results`: a start from the mean of weights that trials of another sweep kept.

use std::collections::HashMap;

use super::range_for_key;
use crate::ids::{FileHash, Repeat};
use crate::random_streams::{Purpose, SeedPlan};
use crate::spec_file::error::SpecError;
use crate::spec_file::node::{SpecNode, SpecValue};
use crate::spec_file::reader::{TableReader, quote_value};

/// The weights that the trials of a cell start from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsStart {
    /// What the file says of them.
    pub selection: ResultsSelection,
    /// BLAKE3 of the list of them, which the launch makes; `None` before.
    pub manifest: Option<FileHash>,
}

/// The trials whose weights are taken, as the file names them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResultsSelection {
    /// The sweep that they belong to.
    pub source: ResultsSource,
    /// The condition that their cells meet; all cells without one.
    pub condition: Option<String>,
    /// Number of repeats of each of these cells whose weights a trial takes.
    pub trials: u32,
    /// Number of repeats from the first one that a trial takes to the first one that the next repeat takes.
    pub block: u32,
    /// The moments at which they are taken, as written.
    pub at: Vec<String>,
}

/// The sweep whose trials kept weights.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ResultsSource {
    /// A sweep by its id or name.
    Sweep(String),
    /// A stage of the same file.
    Stage(String),
}

/// The stage that is the file as it is.
pub const MAIN_STAGE: &str = "main";

/// What the paths of lists of weights begin with, where the files of a sweep are listed.
const MANIFEST_PREFIX: &str = "results of ";

impl ResultsSelection {
    /// The path under which the list of the weights stands among the files of a sweep. It says all that the selection does.
    pub fn manifest_path(&self) -> String {
        let source = match &self.source {
            ResultsSource::Sweep(word) => format!("the sweep {word}"),
            ResultsSource::Stage(name) => format!("the stage {name}"),
        };
        let condition = self.condition.as_deref().unwrap_or("true");
        let at = self.at.join(", ");
        format!(
            "{MANIFEST_PREFIX}{source}: {} of {} per cell at {at} where {condition}",
            self.trials, self.block
        )
    }

    /// Finds a crossed stream of which two of the first `repeats` repeats take trials with the same level, given the streams that
    /// these trials draw from. Such repeats are not independent.
    pub fn find_shared_stream(
        &self,
        seeds: &SeedPlan,
        used: &[Purpose],
        repeats: u32,
    ) -> Option<Purpose> {
        let crossed = seeds.crossed.iter().map(|(purpose, _)| *purpose);
        crossed
            .filter(|purpose| used.contains(purpose))
            .find(|purpose| {
                let mut takers = HashMap::new();
                let mut taken = (0..repeats).flat_map(|repeat| {
                    let first = repeat * self.block;
                    (first..first + self.trials).map(move |taken| (repeat, taken))
                });
                taken.any(|(repeat, taken)| {
                    let level = seeds.stream_number(*purpose, Repeat(taken));
                    *takers.entry(level).or_insert(repeat) != repeat
                })
            })
    }
}

impl ResultsStart {
    /// The value in a cell's identity: the hash of what it starts from, as soon as that is known.
    pub(super) fn identity_text(&self) -> String {
        let hash = self.manifest.map(|hash| hash.to_string());
        hash.unwrap_or_else(|| self.selection.manifest_path())
    }

    /// Reads `results = { sweep = "abcd2345", where = "lag == 1000", trials = 8 }` in `[model.init]`.
    pub(crate) fn read_section(model: &TableReader<'_>) -> Result<Option<Self>, SpecError> {
        let init = model.section("init")?;
        if init.read_node("results").is_none() {
            return Ok(None);
        }
        for key in ["file", "scheme", "zero_residual"] {
            if init.read_node(key).is_some() {
                let message = "the weights of other trials decide the initial weights: remove this, or model.init.results";
                return Err(init.error_at(key, message));
            }
        }

        let r = init.section("results")?;
        let sweep = r.read_str("sweep")?.map(str::to_owned);
        let stage = r.read_str("stage")?.map(str::to_owned);
        let condition = r.read_str("where")?.map(str::to_owned);
        let trials = r.read_whole_number("trials", range_for_key(&r, "trials"))?;
        let block = r.read_whole_number("block", range_for_key(&r, "block"))?;
        let at = read_moment_texts(&r)?;
        r.refuse_unknown_keys()?;

        let source = match (sweep, stage) {
            (Some(word), None) => ResultsSource::Sweep(word),
            (None, Some(name)) => ResultsSource::Stage(name),
            (None, None) => {
                let message =
                    "whose weights? Set sweep = \"ID\", or stage = \"main\" in a [stage.NAME]";
                return Err(r.error_at("sweep", message).of_missing_value());
            }
            (Some(_), Some(_)) => {
                let message = "model.init.results.sweep is set as well: keep one of the two";
                return Err(r.error_at("stage", message));
            }
        };
        let trials = trials.unwrap_or(1);
        let block = block.unwrap_or(trials);
        if block < trials {
            let message =
                format!("expected at least as many as trials, which are {trials}, found {block}");
            return Err(r.error_at("block", message));
        }
        let selection = ResultsSelection {
            source,
            condition,
            trials: trials as u32,
            block: block as u32,
            at,
        };
        let path = selection.manifest_path();
        Ok(Some(Self {
            manifest: r.find_pinned_file(&path).map(|pin| pin.hash),
            selection,
        }))
    }
}

/// Reads `at = "final"` or `at = ["300 steps", "final"]`.
fn read_moment_texts(r: &TableReader<'_>) -> Result<Vec<String>, SpecError> {
    let Some(node) = r.read_node("at") else {
        return Ok(vec!["final".to_owned()]);
    };
    let items: &[SpecNode] = match &node.value {
        SpecValue::List(items) => items,
        _ => std::slice::from_ref(node),
    };
    let texts = items.iter().map(|item| {
        item.value.as_str().map(str::to_owned).ok_or_else(|| {
            let found = quote_value(&item.value);
            let message =
                format!("expected moments like \"300 steps\" or \"final\", found {found}");
            r.error_at("at", message)
        })
    });
    let texts = texts.collect::<Result<Vec<_>, _>>()?;
    match texts.is_empty() {
        true => Err(r.error_at("at", "the list is empty: name a moment, such as \"final\"")),
        false => Ok(texts),
    }
}

#[cfg(test)]
mod tests {
    use crate::config::results_start::*;

    #[test]
    fn repeats_that_share_a_level_of_a_crossed_stream_are_found() {
        let seeds = SeedPlan {
            crossed: vec![(Purpose::Init, 3), (Purpose::Order, 4)],
            ..SeedPlan::default()
        };
        let selection = |trials, block| ResultsSelection {
            source: ResultsSource::Stage(MAIN_STAGE.to_owned()),
            condition: None,
            trials,
            block,
            at: vec!["final".to_owned()],
        };
        let all = [Purpose::Init, Purpose::Order];
        let init = [Purpose::Init];

        // Blocks of four trials have an initialization each, and all have the same four orders.
        let whole = selection(4, 4);
        assert_eq!(whole.find_shared_stream(&seeds, &init, 3), None);
        let shared = whole.find_shared_stream(&seeds, &all, 3);
        assert_eq!(shared, Some(Purpose::Order));
        // Two blocks are of one initialization.
        let halves = selection(1, 2);
        let shared = halves.find_shared_stream(&seeds, &init, 2);
        assert_eq!(shared, Some(Purpose::Init));
        assert_eq!(halves.find_shared_stream(&seeds, &all, 1), None);
        let plain = SeedPlan::default();
        assert_eq!(halves.find_shared_stream(&plain, &all, 3), None);
    }
}
