//! What a sweep draws once for all of its repeats. Another seed would draw it anew and shift all values together, so that the repeats
//! of a sweep are no independent sample of what another seed would give.

use ergodic_common::dataset::files::count_read_images;
use ergodic_common::ids::CellIndex;
use ergodic_common::named_files::count_needed_images;
use ergodic_common::{Spec, TrialConfig};

/// What the repeats of each of two sweeps share.
#[derive(Debug)]
pub(super) struct SharedDraws<'a> {
    sweeps: [DrawingSweep<'a>; 2],
    /// Whether each sweep chooses images and wrong labels of its own. Sweeps of one seed have the same ones, which shift both alike.
    has_own_data: bool,
}

/// A sweep that draws.
#[derive(Debug)]
struct DrawingSweep<'a> {
    spec: &'a Spec,
    /// Largest number of training and validation images of a cell.
    needed_images: u32,
}

impl<'a> SharedDraws<'a> {
    /// Looks at the seeds of two sweeps.
    pub(super) fn of_sweeps(sweep: &'a Spec, baseline: &'a Spec) -> Self {
        Self {
            sweeps: [sweep, baseline].map(|spec| DrawingSweep {
                spec,
                needed_images: count_needed_images(&spec.grid.class_configs()),
            }),
            has_own_data: sweep.seed != baseline.seed,
        }
    }

    /// Why the repeats of a cell of the first sweep and of a cell of the second one are no independent samples; `None` if they are.
    pub(super) fn describe(&self, cell: CellIndex, other: CellIndex) -> Option<String> {
        let crosses = |sweep: &DrawingSweep<'_>| !sweep.spec.seeds.crossed.is_empty();
        if self.sweeps.iter().any(crosses) {
            return Some("repeats share crossed streams".to_owned());
        }

        let mut shared: Vec<String> = Vec::new();
        for (sweep, cell) in self.sweeps.iter().zip([cell, other]) {
            let mut draws: Vec<String> = sweep.describe_fixed_streams().into_iter().collect();
            if self.has_own_data {
                draws.extend(sweep.list_drawn_data(cell));
            }
            draws.retain(|draw| !shared.contains(draw));
            shared.extend(draws);
        }

        (!shared.is_empty()).then(|| format!("all repeats of a sweep share {}", shared.join(", ")))
    }
}

impl DrawingSweep<'_> {
    fn describe_fixed_streams(&self) -> Option<String> {
        let fixed = self.spec.seeds.fixed.iter();
        let names: Vec<&str> = fixed.map(|purpose| purpose.as_str()).collect();
        (!names.is_empty()).then(|| format!("the fixed {}", names.join(", ")))
    }

    /// What the seed draws of the data of a cell.
    fn list_drawn_data(&self, cell: CellIndex) -> Vec<String> {
        let config = self.spec.grid.resolve_config(cell).ok();
        let Some(config) = config.filter(TrialConfig::uses_dataset) else {
            return Vec::new();
        };
        let data = &config.data;
        let read = count_read_images(data.dataset, self.needed_images);

        let images = data.chooses_images(read).then_some("the chosen images");
        let labels = (data.label_noise > 0.0).then_some("the wrong labels");
        let draws = images.into_iter().chain(labels);
        draws.map(str::to_owned).collect()
    }
}

#[cfg(test)]
mod tests {
    use ergodic_common::spec::SpecSource;

    use crate::analysis::shared_draws::*;

    fn describe(seeds: [u64; 2], text: &str) -> Option<String> {
        let [here, there] = seeds.map(|seed| {
            let model = match text.contains("model") {
                true => "",
                false => "model = { kind = \"mlp\" }\n",
            };
            let source = SpecSource {
                text: format!(
                    "name = \"x\"\nrepeats = 4\nseed = {seed}\nmeasure = {{ metrics = [\"train_loss\"] }}\n{model}{text}\
                     [train]\nsteps = 10\nbatch_size = 8\nlr = 0.1\n"
                ),
                ..SpecSource::default()
            };
            Spec::read_stored(&source).expect("a sweep")
        });
        SharedDraws::of_sweeps(&here, &there).describe(CellIndex(0), CellIndex(0))
    }

    fn of_data(fields: &str) -> Option<String> {
        let text = format!("data = {{ {fields} }}\n");
        assert_eq!(describe([7, 7], &text), None, "{fields}");
        describe([7, 8], &text)
    }

    #[test]
    fn images_and_labels_that_a_seed_draws_are_shared_by_its_repeats() {
        let shared = |what: &str| Some(format!("all repeats of a sweep share {what}"));
        assert_eq!(of_data("dataset = \"glyphs\""), None);
        assert_eq!(of_data("train = 10000, test = 2000"), None);
        assert_eq!(of_data("train = 9999"), shared("the chosen images"));
        assert_eq!(of_data("test = 200"), shared("the chosen images"));
        assert_eq!(of_data("validation = 100"), shared("the chosen images"));
        assert_eq!(of_data("label_noise = 0.1"), shared("the wrong labels"));
        assert_eq!(
            of_data("test = 200, label_noise = 0.1"),
            shared("the chosen images, the wrong labels")
        );

        // Of CIFAR-10, whole files are read, and all of their images are used.
        assert_eq!(of_data("dataset = \"cifar10\", train = 20000"), None);
        assert_eq!(
            of_data("dataset = \"cifar10\", train = 20001"),
            shared("the chosen images")
        );
        // A toy has no images.
        assert_eq!(
            describe(
                [7, 8],
                "model = { kind = \"toy\", dim = 2 }\ndata = { test = 200 }\n"
            ),
            None
        );
    }

    #[test]
    fn fixed_and_crossed_streams_are_shared_whatever_the_seed() {
        let fixed = "seeds = { fixed = [\"init\"] }\ndata = { test = 200 }\n";
        assert_eq!(
            describe([7, 7], fixed).as_deref(),
            Some("all repeats of a sweep share the fixed init")
        );
        assert_eq!(
            describe([7, 8], fixed).as_deref(),
            Some("all repeats of a sweep share the fixed init, the chosen images")
        );
        let crossed = "seeds = { crossed = { init = 2, order = 2 } }\n";
        assert_eq!(
            describe([7, 8], crossed).as_deref(),
            Some("repeats share crossed streams")
        );
    }
}
