//! The experiments of `sweeps/intrinsic-lr` with something broken in each: they say no.
//!
//! A twin is an experiment as it ships, with its repeats, but for settings that break it and others that make it shorter. With the
//! latter alone it must not disagree. At the scale of the gate this is a test. At that of a desk, with the data in `ERGODIC_DATA`,
//! preferably by optimised programs:
//!
//! ```text
//! ERGODIC_DATA=DIR cargo test --release --workspace --test e2e -- --ignored --nocapture twins_at_desk_scale
//! ```

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use ergodic_tests::{Finished, note, run_in};
use serde_json::Value;

/// An experiment with something broken.
struct Twin {
    /// The name of the experiment's file, without its end.
    experiment: &'static str,
    /// What is broken, in words.
    broken: &'static str,
    /// Settings that break it.
    breaking: &'static [&'static str],
    /// Settings that make it shorter.
    shorter: &'static [&'static str],
    /// The claim that must disagree.
    claim: &'static str,
}

/// At least one for each experiment.
const TWINS: &[Twin] = &[
    Twin {
        experiment: "01-equilibrium",
        broken: "one of the schedules keeps its η",
        breaking: &["case.B.train.schedule=[{ step = 1000, lr = 0.5, wd = 0.1 }]"],
        shorter: &[
            "model.hidden=[16]",
            "data.train=1000",
            "data.test=500",
            "train.steps=2000",
        ],
        claim: "equal after",
    },
    Twin {
        experiment: "02-time",
        broken: "λ is twice as large along one of the paths",
        breaking: &["derive.train.wd='intrinsic_lr/train.lr*(1 + path)'"],
        shorter: &["grid.intrinsic_lr=[1e-2]"],
        claim: "only ηλ counts",
    },
    Twin {
        experiment: "03-decay",
        broken: "η is divided by five",
        breaking: &["train.schedule=[{ step = 1000, lr = 'x0.2' }]"],
        shorter: &["grid.phase=[0.25]"],
        claim: "it jumps by ten",
    },
    Twin {
        experiment: "04-same-product",
        broken: "λ is not divided by c",
        breaking: &["train.wd=0.02"],
        shorter: &["grid.c=[1, 16]", "train.steps=1200"],
        claim: "effective learning rates agree",
    },
    Twin {
        experiment: "04-same-product",
        broken: "the norm is removed",
        breaking: &["model.norm='none'"],
        shorter: &["grid.c=[1, 4]", "train.steps=1200"],
        claim: "norms diverge",
    },
    Twin {
        experiment: "05-init-scale",
        broken: "weights at s = 2 are off by one bit",
        breaking: &["model.init.scale='s*(1 + 1.2e-7*(s == 2))'"],
        shorter: &["train.steps=20"],
        claim: "the same function to the last bit",
    },
    Twin {
        experiment: "05-init-scale",
        broken: "ε > 0 in the norms of all cells",
        breaking: &[
            "grid.model.norm_eps=[1e-6, 1e-5]",
            "where.keep='s < 3'",
            "claim=[{ name = 'the same function to the last bit', of = 'train_loss', form = 'bits', where = 's != 1', to = 's == 1' }]",
        ],
        shorter: &["train.steps=20"],
        claim: "the same function to the last bit",
    },
    Twin {
        experiment: "06-exponential",
        broken: "the learning rate grows with the exponent −t in place of −2t",
        breaking: &[
            "train.schedule={ kind = 'exponential', factor = '1 + grows*((1 - 0.005)^(-1) - 1)' }",
        ],
        shorter: &["train.steps=50", "measure.every='10 steps'"],
        claim: "the same function",
    },
    Twin {
        experiment: "06-exponential",
        broken: "the learning rate grows with the exponent −t in place of −2t",
        breaking: &[
            "train.schedule={ kind = 'exponential', factor = '1 + grows*((1 - 0.005)^(-1) - 1)' }",
        ],
        shorter: &["train.steps=50", "measure.every='10 steps'"],
        claim: "the same direction",
    },
    Twin {
        experiment: "07-batch",
        broken: "η and λ are those of B = 4 in all cells",
        breaking: &["train.lr=0.08", "train.wd='kappa*4/train.lr'"],
        shorter: &[
            "grid.kappa=[2e-4]",
            "grid.model.norm=['group']",
            "train.steps='round(4/(kappa*train.batch_size))'",
            "measure.every='10 %'",
        ],
        claim: "ηλ/B controls the process",
    },
    Twin {
        experiment: "08-small-lr",
        broken: "small learning rates have a tenth of the time of the large one",
        breaking: &[
            "case={ \"1\" = { lr = 0.5, decayed = 600 }, \"0.1\" = { lr = 0.05, decayed = 60 }, \"0.01\" = { lr = 0.005, decayed = 60 } }",
        ],
        shorter: &[
            "train.steps='decayed + 210'",
            "train.schedule=[{ step = 'decayed', lr = 0.0025 }, { step = 'decayed + 100', lr = 0.00025, wd = 0.0 }]",
        ],
        claim: "as good as a large one",
    },
    Twin {
        experiment: "09-too-soon",
        broken: "the long second phase has one step more than the short one",
        breaking: &[
            "train.steps='50 + 350*late + 100 + long + 310'",
            "train.schedule=[{ step = '50 + 350*late', lr = 'x0.1' }, { step = '50 + 350*late + 100 + long', lr = 'train.lr/1000', wd = 0.0 }]",
        ],
        shorter: &["grid.late=[0]"],
        claim: "both decays too soon cost accuracy",
    },
    Twin {
        experiment: "10-last-phase",
        broken: "η stays as it is in the last phase",
        breaking: &["train.schedule=[{ step = 200, lr = 'x1', wd = '0.02*decay_on' }]"],
        shorter: &[
            "grid.last=[0, 1]",
            "train.steps='200 + 31*last'",
            "train.schedule=[{ step = 200, lr = 'x0.01', wd = '0.02*decay_on' }]",
            "measure.every=['1 step from 200 to 200', '50 %']",
        ],
        claim: "the norm hardly moves",
    },
    Twin {
        experiment: "11-momentum",
        broken: "η is not multiplied by 1 − μ",
        breaking: &["train.lr='0.5*c'"],
        shorter: &["grid.c=[1]", "train.steps=400"],
        claim: "η/(1 − μ) takes the place of η",
    },
    Twin {
        experiment: "12-depth",
        broken: "weights begin at their usual scale and with ε > 0, so that nothing explodes",
        breaking: &["model.init.scale=1.0", "model.norm_eps=1.0"],
        shorter: &[
            "train.steps=20",
            "train.schedule=[]",
            "measure.every='10 steps'",
        ],
        claim: "the norm explodes with depth",
    },
    Twin {
        experiment: "13-heavy-tails",
        broken: "one step has a hundred times the learning rate",
        breaking: &["train.schedule=[{ step = 1150, lr = 'x100' }, { step = 1151, lr = 'x0.01' }]"],
        shorter: &[
            "train.steps=1600",
            "measure.every=['100 steps from 900 to 1600']",
        ],
        claim: "‖w‖ does not leap",
    },
    Twin {
        experiment: "14-gradient-descent",
        broken: "λ is not divided by s²",
        breaking: &["train.wd=0.002"],
        shorter: &["train.steps=40", "train.schedule=[{ step = 30, wd = 0.0 }]"],
        claim: "a factor of two keeps every bit",
    },
    Twin {
        experiment: "14-reaching",
        broken: "η is a ten-thousandth",
        breaking: &["train.lr=5e-5"],
        shorter: &[],
        claim: "it reaches 100 %",
    },
    Twin {
        experiment: "14-toy",
        broken: "weight decay stays on",
        breaking: &["train.schedule=[{ step = 2000, wd = 2.0 }]"],
        shorter: &[],
        claim: "without weight decay it converges",
    },
    Twin {
        experiment: "15-averages",
        broken: "trials that should have their initial weights in common do not",
        breaking: &["stage.orders.seeds={ fixed = ['head'] }"],
        shorter: &["grid.lag=[20]", "train.steps=40"],
        claim: "an average across orders does not",
    },
    Twin {
        experiment: "15-averages",
        broken: "training stops after a third",
        breaking: &["train.schedule=[{ step = 100, lr = 1e-9 }]"],
        shorter: &["grid.lag=[20, 80]", "train.steps=320", "data.train=500"],
        claim: "weights go on moving",
    },
    Twin {
        experiment: "16-any-wd",
        broken: "weight decay ends after a step",
        breaking: &["train.schedule=[{ step = 1, wd = 0.0 }]"],
        shorter: &["grid.wd=[0.0, 4e-2]", "train.steps=400"],
        claim: "any weight decay stops the growth",
    },
    Twin {
        experiment: "17-invariance",
        broken: "ε > 0 in the norm",
        breaking: &["model.norm_eps=0.1"],
        shorter: &["grid.model.norm=['layer']", "train.steps=40"],
        claim: "the gradient is perpendicular to w",
    },
    Twin {
        experiment: "18-cosine",
        broken: "λ is a thousandth, so that there is no time for an equilibrium",
        breaking: &["train.wd=2e-5"],
        shorter: &["train.steps=2000"],
        claim: "it follows the present equilibrium",
    },
    Twin {
        experiment: "19-ghost-norm",
        broken: "η and λ are those of B = 8 in all cells",
        breaking: &["train.lr=0.16", "train.wd='2e-4*8/train.lr'"],
        shorter: &[
            "grid.batched=[0]",
            "train.steps='round(4/(2e-4*train.batch_size))'",
        ],
        claim: "ghost norm brings ηλ/B back",
    },
    Twin {
        experiment: "20-covariance",
        broken: "the noise is that of batches of one image in place of sixteen",
        breaking: &["case.noise.train.added_noise.images=1"],
        shorter: &["train.steps=300"],
        claim: "the same equilibrium",
    },
    Twin {
        experiment: "23-momentum-law",
        broken: "one of the schedules keeps its η",
        breaking: &["case.B.train.schedule=[{ step = 1000, lr = 0.05, wd = 0.1 }]"],
        shorter: &[],
        claim: "equal after",
    },
    Twin {
        experiment: "24-time",
        broken: "λ is not divided by η",
        breaking: &["train.wd='1e-3*rate'"],
        shorter: &["grid.rate=[4]", "train.steps=300"],
        claim: "η alone makes no difference",
    },
    Twin {
        experiment: "25-equation-10",
        broken: "ε > 0 in the norm",
        breaking: &["model.norm_eps=0.1"],
        shorter: &["grid.intrinsic_lr=[1e-2]", "train.steps=200"],
        claim: "‖w‖² from step to step",
    },
    Twin {
        experiment: "28-mixing",
        broken: "λ of the second phase is ten times as large in one of the schedules",
        breaking: &["case.A.train.schedule=[{ step = 1000, lr = 0.5, wd = 0.1 }]"],
        shorter: &["train.steps=2000", "measure.every='500 steps'"],
        claim: "functions mix",
    },
    Twin {
        experiment: "28-mixing",
        broken: "all trials start from the same weights, and are next to them",
        breaking: &["seeds.fixed=['head', 'init']", "train.steps=20"],
        shorter: &[
            "case.A.train.schedule=[]",
            "case.C.train.schedule=[]",
            "measure.every='20 steps'",
            "measure.save=['final']",
            "measure.probe.at=['final']",
            "claim=[]",
            "stage.angles.grid.model.init.results.at=['final']",
        ],
        claim: "trials stay apart",
    },
    Twin {
        experiment: "29-batch-statistics",
        broken: "a batch has 32 images in place of five",
        breaking: &["train.batch_size=32"],
        shorter: &["train.steps=1200"],
        claim: "the equilibrium is the same",
    },
];

/// Experiments that, with nothing broken, take too long for the gate.
const LONG_UNBROKEN: &[&str] = &["08-small-lr", "09-too-soon", "23-momentum-law", "28-mixing"];

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../sweeps/intrinsic-lr")
}

/// Verifies an experiment at a scale with some settings. Gives how the command ended, and the verdicts by claim.
fn verify(
    experiment: &str,
    scale: &[&str],
    settings: &[&str],
) -> (Finished, Vec<(String, String)>) {
    let here = tempfile::tempdir().expect("a temporary directory");
    let file = folder().join(format!("{experiment}.toml"));
    let file = file.to_str().expect("the path is UTF-8");
    let set: Vec<&str> = settings.iter().flat_map(|of| ["--set", of]).collect();
    let args = [&["verify", file, "-o", "found"], scale, &set].concat();
    let finished = run_in(here.path(), &[], &args);

    let files = std::fs::read_dir(here.path().join("found"));
    let paths = files
        .into_iter()
        .flatten()
        .flatten()
        .map(|file| file.path());
    // Stages have files of their own.
    let files = paths.filter(|path| path.extension().is_some_and(|end| end == "json"));
    let found: Vec<Value> = files
        .map(|path| {
            let text = std::fs::read_to_string(path).expect("the file can be read");
            serde_json::from_str(&text).expect("JSON")
        })
        .collect();
    let rows = found
        .iter()
        .flat_map(|found| found["rows"].as_array().into_iter().flatten());
    let word = |row: &Value, key: &str| row[key].as_str().unwrap_or_default().to_owned();
    let verdicts = rows.map(|row| (word(row, "claim"), word(row, "verdict")));
    (finished, verdicts.collect())
}

/// A verification of an experiment with some settings, and what must come out.
struct Check {
    /// What is verified, in words.
    words: String,
    experiment: &'static str,
    settings: Vec<&'static str>,
    claims: Vec<&'static str>,
    /// Whether the claims must disagree; otherwise they must not.
    is_broken: bool,
}

impl Check {
    fn new(twin: &Twin, is_broken: bool) -> Self {
        let (broken, breaking) = match is_broken {
            true => (twin.broken, twin.breaking),
            false => ("nothing is broken, but it is as short", &[][..]),
        };
        Self {
            words: format!("{}, {broken}", twin.experiment),
            experiment: twin.experiment,
            settings: [twin.shorter, breaking].concat(),
            claims: vec![twin.claim],
            is_broken,
        }
    }

    /// Whether each claim comes out as it must and, where one disagrees, the command ends with the code for that.
    fn is_met_by(&self, finished: &Finished, verdicts: &[(String, String)]) -> bool {
        self.claims.iter().all(|claim| {
            let found: Vec<&str> = verdicts
                .iter()
                .filter(|(name, _)| name == claim)
                .map(|(_, verdict)| verdict.as_str())
                .collect();
            match self.is_broken {
                true => finished.code == 7 && found.contains(&"disagrees"),
                false => !found.is_empty() && !found.contains(&"disagrees"),
            }
        })
    }
}

/// All twins, and the same experiments with nothing broken: what is broken must be what makes a claim disagree.
fn list_checks(takes_unbroken: fn(&Twin) -> bool) -> Vec<Check> {
    let mut checks: Vec<Check> = TWINS.iter().map(|twin| Check::new(twin, true)).collect();
    for twin in TWINS.iter().filter(|twin| takes_unbroken(twin)) {
        let unbroken = Check::new(twin, false);
        let same = checks.iter_mut().find(|check| {
            !check.is_broken
                && (check.experiment, &check.settings) == (unbroken.experiment, &unbroken.settings)
        });
        match same {
            Some(check) => check.claims.push(twin.claim),
            None => checks.push(unbroken),
        }
    }
    checks
}

/// Verifies experiments at a scale, several at a time, and gives a line for each that does not come out as it must.
fn find_unmet_checks(checks: &[Check], scale: &[&str], is_noted: bool) -> Vec<String> {
    let next = AtomicUsize::new(0);
    let unmet = Mutex::new(Vec::new());
    let verify_next = || {
        while let Some(check) = checks.get(next.fetch_add(1, Ordering::Relaxed)) {
            assert!(
                !check.settings.iter().any(|set| set.starts_with("repeats")),
                "a twin has the repeats that ship"
            );
            let (finished, verdicts) = verify(check.experiment, scale, &check.settings);
            let is_met = check.is_met_by(&finished, &verdicts);
            let words = format!("{}: {}", check.words, check.claims.join(", "));
            if is_noted {
                let met = if is_met {
                    "as it must"
                } else {
                    "not as it must"
                };
                note(&format!("{words}: {met}\n{}", finished.stdout));
            }
            if !is_met {
                let line = format!("{words}\n{}\n{}", finished.stdout, finished.stderr);
                unmet.lock().expect("no thread panics with it").push(line);
            }
        }
    };
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(verify_next);
        }
    });
    unmet.into_inner().expect("no thread panics with it")
}

#[test]
fn every_experiment_has_a_twin_with_something_broken_that_disagrees() {
    let files = std::fs::read_dir(folder()).expect("the experiments are in the repository");
    let files = files.map(|entry| entry.expect("the folder can be read").path());
    let experiments = files.filter(|path| path.extension().is_some_and(|end| end == "toml"));
    let experiments = experiments.map(|path| {
        let name = path.file_stem().expect("the file has a name");
        name.to_string_lossy().into_owned()
    });
    let experiments: BTreeSet<String> = experiments.collect();
    let twins = TWINS.iter().map(|twin| twin.experiment.to_owned());
    assert_eq!(experiments, twins.collect::<BTreeSet<String>>());

    let checks = list_checks(|twin| !LONG_UNBROKEN.contains(&twin.experiment));
    let unmet = find_unmet_checks(&checks, &["--scale", "gate"], false);
    assert!(unmet.is_empty(), "{}", unmet.join("\n\n"));
}

#[test]
fn too_few_trials_and_trials_that_all_diverge_are_not_enough() {
    for (settings, reason) in [
        (&["repeats=2", "train.steps=20"][..], "needs 3 repeats"),
        (
            &["model.norm='none'", "train.lr='1e9*c'", "train.steps=20"],
            "diverged",
        ),
    ] {
        let (finished, verdicts) = verify("04-same-product", &["--scale", "gate"], settings);
        assert_eq!(finished.code, 8, "{finished:?}");
        assert!(finished.stdout.contains(reason), "{finished:?}");
        assert!(
            !verdicts.is_empty() && verdicts.iter().all(|(_, verdict)| verdict == "not enough"),
            "{verdicts:?}"
        );
    }
}

#[test]
fn too_few_steps_are_not_enough() {
    // ηλ·steps is 0.4, and would have to be 4.
    let settings = ["grid.wd=[0.0, 4e-3]", "train.steps=200"];
    let (finished, verdicts) = verify("16-any-wd", &["--scale", "gate"], &settings);
    let claim = "any weight decay stops the growth".to_owned();
    assert!(
        verdicts.contains(&(claim, "not enough".to_owned())),
        "{finished:?}"
    );
    assert!(finished.stdout.contains("not enough steps"), "{finished:?}");
}

#[test]
#[ignore = "some minutes, and needs the data sets of the experiments: ERGODIC_DATA=DIR"]
fn twins_at_desk_scale_disagree() {
    let data = std::env::var("ERGODIC_DATA").expect("ERGODIC_DATA names the folder with mnist");
    let scale = ["--scale", "desk", "--data-dir", &data];
    let unmet = find_unmet_checks(&list_checks(|_| true), &scale, true);
    assert!(unmet.is_empty(), "{}", unmet.join("\n\n"));
}
