//! Quantities on small curves, computed by hand, and the mistakes of claims.

use crate::Spec;
use crate::quantity::call_text::{CalledFunction, split_quantity_calls};
use crate::quantity::reduce::{Reducer, Samples};
use crate::quantity::{
    ClaimSection, EventRounding, ExpandedClaims, NodeValue, SampledCurve, TrialPooling,
};
use crate::spec::SpecSource;
use crate::spec::measured_value::{MeasuredValue, MeasuredValueError};

const SWEEP: &str = "name = \"t\"\nrepeats = 4\n[data]\ndataset = \"glyphs\"\ntrain = 100\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
                     norm = \"batch\"\n[train]\nsteps = 100\nbatch_size = 10\nschedule = [{ step = 40, lr = \"x0.1\" }]\n\
                     [grid]\nlr = [0.1, 0.2]\nwd = [0.0, 0.1]\n[measure]\nevery = \"10 steps\"\n\
                     metrics = [\"train_loss\", \"effective_lr\"]\n";

/// Steps 10 to 100 by 10.
fn steps() -> Vec<f64> {
    (1..=10).map(|i| f64::from(i) * 10.0).collect()
}

fn read_sweep(further: &str) -> Result<Spec, String> {
    let source = SpecSource {
        file: "f.toml".into(),
        text: format!("{SWEEP}{further}"),
        ..SpecSource::default()
    };
    Spec::read_new(&source).map_err(|e| e.to_string())
}

fn expand(further: &str) -> (Spec, ExpandedClaims) {
    let spec = read_sweep(further).unwrap_or_else(|e| panic!("{e}"));
    let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
    let expanded = spec
        .expand_claims(&claims)
        .unwrap_or_else(|e| panic!("{e}"));
    (spec, expanded)
}

/// The number of a quantity in the first cell, for a trial whose loss and effective learning rate are these.
fn number(of: &str, loss: &[f64], rate: &[f64], rounding: EventRounding) -> f64 {
    let text = format!("[[claim]]\nname = \"c\"\nof = '{of}'\nabove = 0\n");
    let (spec, expanded) = expand(&text);
    let cell = spec.grid.iter().next().expect("the sweep has cells");
    let inputs = expanded
        .program
        .cell_inputs(&spec.grid, cell)
        .expect("a cell");
    let all = [loss.to_vec(), rate.to_vec()];
    let columns: Vec<Vec<f64>> = expanded
        .program
        .metrics()
        .iter()
        .map(|at| all[*at].clone())
        .collect();
    let steps = steps();
    let curve = SampledCurve {
        steps: &steps,
        columns: &columns,
    };
    let nodes = expanded.program.evaluate_trial(&inputs, curve, rounding);
    match nodes[expanded.claims[0].roots[0]] {
        NodeValue::Number(x) => x,
        NodeValue::Series(_) => panic!("{of} is a series"),
    }
}

#[test]
fn reducers_are_found_in_a_text() {
    let split = split_quantity_calls("10*mean(inv, 50%..decay)/mean(inv, last 20 %) + max(1, 2)")
        .expect("it is whole");
    assert_eq!(split.expression, "10*{#0}/{#1} + max(1, 2)");
    assert_eq!(split.calls[0].arguments, ["inv", "50%..decay"]);
    assert_eq!(
        split.calls[1].function,
        CalledFunction::Reducer(Reducer::Mean)
    );

    let nested = split_quantity_calls("max(abs(ln(q/at(q, 5))), 0..)").expect("it is whole");
    assert_eq!(nested.expression, "{#0}");
    assert_eq!(nested.calls[0].arguments, ["abs(ln(q/at(q, 5)))", "0.."]);

    let words = split_quantity_calls("count(norm == \"a)b\" && {x, y} > 1)").expect("it is whole");
    assert_eq!(words.calls[0].arguments, ["norm == \"a)b\" && {x, y} > 1"]);
    assert!(split_quantity_calls("mean(x").is_err() && split_quantity_calls("at(\"x").is_err());
    assert_eq!(
        split_quantity_calls("mean + first_x(1)")
            .expect("no call")
            .calls,
        []
    );
}

#[test]
fn quantities_are_computed_as_by_hand() {
    let loss = [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 2.0, 1.0, 3.0, 3.0];
    let rate = [1.0, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0, 8.0, 9.0, 10.0];
    for (of, expected) in [
        ("at(train_loss, end)", 3.0),
        ("at(train_loss, 44)", 2.0),
        ("at(train_loss, 45 %)", 2.0),
        ("at(train_loss, 2 epochs)", 4.0),
        ("mean(train_loss)", 2.5),
        ("mean(train_loss, 20..40)", 3.0),
        ("mean(train_loss, 20 steps..40 steps)", 3.0),
        ("mean(train_loss, last 20 %)", 7.0 / 3.0),
        ("mean(train_loss, last 10 steps)", 3.0),
        ("mean(train_loss, ..decay)", 3.5),
        ("min(train_loss)", 1.0),
        ("max(train_loss, 50 %..)", 3.0),
        ("max(at(train_loss, end), 7)", 7.0),
        ("sd(train_loss, 20..40)", 1.0),
        ("quantile(train_loss, 0.5, 10..50)", 3.0),
        ("quantile(train_loss, 0.25)", 1.25),
        ("jump(train_loss, decay)", 0.5),
        ("first(train_loss < 2.5)", 40.0),
        ("count(train_loss < 2.5)", 1.0),
        ("count(train_loss <= 1)", 2.0),
        ("count(train_loss <= 1, 50..60)", 1.0),
        ("slope(effective_lr, step)", 0.1),
        ("slope(effective_lr, samples, 50 %..)", 0.01),
        ("mean(train_loss, first(train_loss < 2.5)..50)", 1.5),
        (
            "at(epoch, end) + lr + wd + batch_size + steps",
            10.0 + 0.1 + 10.0 + 100.0,
        ),
        ("end/decay", 2.5),
        ("mean(train_loss/mean(train_loss))", 1.0),
    ] {
        let found = number(of, &loss, &rate, EventRounding::Between);
        assert!((found - expected).abs() < 1e-12, "{of}: {found}");
    }
    assert!(
        number(
            "mean(train_loss, 91..99)",
            &loss,
            &rate,
            EventRounding::Between
        )
        .is_nan()
    );
}

#[test]
fn an_event_lies_between_the_samples_around_it() {
    // Distances of the logarithm from that of the end, e^0: 8, 4, 2, 1, 0.
    let steps = [1.0, 2.0, 3.0, 4.0, 5.0];
    let values = [8.0, 4.0, 2.0, 1.0, 0.0].map(libm::exp);
    let samples = Samples {
        steps: &steps,
        values: &values,
    };
    // The last 40 % of 10 steps are none of these, so the level is that of the step 5 alone with an end at 8.
    let found = samples.settle(0.375, 8.3).expect("it settles");
    assert!((found.between - 2.5).abs() < 1e-12, "{found:?}");
    assert_eq!((found.before, found.after), (2.0, 3.0));
    assert_eq!(
        samples.settle(0.0, 8.3).map(|found| found.between),
        Some(5.0)
    );
    assert!(samples.settle(0.1, 20.0).is_none());

    let loss = [5.0, 4.0, 3.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0];
    let at = |rounding| number("first(train_loss < 2.5)", &loss, &loss, rounding);
    assert_eq!(at(EventRounding::Before), 30.0);
    assert_eq!(at(EventRounding::After), 40.0);
}

#[test]
fn quantities_of_mean_curves_are_reduced_after_averaging() {
    let text = "[quantity]\ninv = '1/train_loss'\n[[claim]]\nname = 'c'\nper = 'mean'\nabove = 0\n\
                of = 'first(inv > 0.75)/max(inv, 50 %..)'\n";
    let (spec, expanded) = expand(text);
    let claim = &expanded.claims[0];
    assert_eq!(claim.claim.per, TrialPooling::MeanCurve);
    let series = expanded.program.averaged_series(claim.roots[0]);
    assert_eq!(series.len(), 1);
    assert!(!expanded.program.is_smooth(claim.roots[0]));

    let cell = spec.grid.iter().next().expect("the sweep has cells");
    let inputs = expanded
        .program
        .cell_inputs(&spec.grid, cell)
        .expect("a cell");
    let mean: Vec<f64> = (1..=10).map(|i| f64::from(i) * 0.1).collect();
    let lookup = |_| &mean[..];
    let steps = steps();
    let between = EventRounding::Between;
    let found = expanded
        .program
        .evaluate_mean(claim.roots[0], &inputs, &steps, &lookup, &|_| between);
    assert!((found - 80.0).abs() < 1e-9, "{found}");
}

#[test]
fn cells_are_set_against_references_and_joined() {
    let claim = |keys: &str| {
        let text = format!("[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\n{keys}\n");
        let (_, expanded) = expand(&text);
        let effects = &expanded.claims[0].effects;
        let cells = |cells: &[crate::ids::CellIndex]| cells.iter().map(|c| c.0).collect::<Vec<_>>();
        effects
            .iter()
            .map(|e| (cells(&e.cells), e.reference.map(|c| c.0)))
            .collect::<Vec<_>>()
    };

    // Cells: 0 is lr 0.1, wd 0; 1 is lr 0.1, wd 0.1; 2 is lr 0.2, wd 0; 3 is lr 0.2, wd 0.1.
    let ratio = "form = 'ratio'\nwithin = [0.5, 2]\n";
    assert_eq!(
        claim(&format!("{ratio}to = 'lr == 0.1'")),
        [(vec![2], Some(0)), (vec![3], Some(1))]
    );
    assert_eq!(
        claim(&format!(
            "{ratio}to = 'lr == 0.1 && wd == 0'\nwhere = 'lr == 0.2'"
        )),
        [(vec![2], Some(0)), (vec![3], Some(0))]
    );
    assert_eq!(
        claim("form = 'collapse'\nbelow = 2\nover = 'wd'"),
        [(vec![0, 1], None), (vec![2, 3], None)]
    );
    assert_eq!(
        claim("form = 'slope'\nabove = 0\nagainst = 'lr'\nby = 'wd'"),
        [(vec![0, 2], None), (vec![1, 3], None)]
    );
    assert_eq!(
        claim("form = 'spread'\nbelow = 2"),
        [(vec![0, 1, 2, 3], None)]
    );
    assert_eq!(
        claim("above = 0\nwhere = 'norm == \"batch\" && lr*steps > 15'"),
        [(vec![2], None), (vec![3], None)]
    );
}

#[test]
fn wrong_claims_are_refused_with_line_and_remedy() {
    let line = SWEEP.lines().count() + 1;
    for (text, wanted) in [
        (
            "[quantity]\ninv = '1/efective_lr'",
            "quantity.inv: there is no quantity, metric, axis or field 'efective_lr', did you mean 'effective_lr'?",
        ),
        (
            "[quantity]\na = 'b + 1'\nb = 'a + 1'",
            "quantity.a: the quantities 'a', 'b' use each other in a circle",
        ),
        ("[quantity]\ntrain_loss = '1'", "a metric has this name"),
        (
            "[quantity]\nbatch_size = '1'",
            "it would hide the field train.batch_size",
        ),
        (
            "[quantity]\na = 'mean(test_acc)'",
            "the sweep does not measure 'test_acc': add it to measure.metrics",
        ),
        (
            "[quantity]\na = 'settle(train_loss)'",
            "settle: expected arguments as in settle(effective_lr, 0.1), found 1",
        ),
        (
            "[quantity]\na = 'mean(lr)'",
            "mean: 'lr' is one number per trial",
        ),
        (
            "[quantity]\na = 'mean(train_loss > 1)'",
            "mean: 'train_loss > 1' is a condition",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'train_loss'\nabove = 0",
            "claim 'c': of: 'train_loss' has a value at each sample: reduce it",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'mean(train_loss, 80..20)'\nabove = 0",
            "the window begins at step 80 and ends before it, at step 20",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'mean(train_loss, 200..)'\nabove = 0",
            "step 200 is after the end: a trial of the cell has 100 steps",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, 200)'\nabove = 0",
            "at: step 200 is after the end",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'max(train_loss, 0..5000)'\nabove = 0",
            "claim 'c': of: max: the window ends at step 5000, and a trial of the cell has 100 steps: end it at 'end'",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'max(train_loss, 50..12 epochs)'\nabove = 0",
            "max: the window ends at step 120, and",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'mean(train_loss, decay - 50..decay)'\nabove = 0",
            "mean: the window begins at step -10, before a trial does",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'mean(train_loss, last 200 steps)'\nabove = 0",
            "mean: the window begins at step -100, before a trial does",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, decay - 50)'\nabove = 0",
            "at: step -10 is before the begin of a trial",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'jump(train_loss, end)'\nabove = 0",
            "jump: no sample comes after step 100: a trial of the cell has 100 steps",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'",
            "claim 'c': within: in which region? Add within = [0.9, 1.1]",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nwithin = [2, 1]",
            "within: the region is upside down: write [1, 2]",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nwithin = [1, 1]",
            "within: both ends are 1: expected two different numbers, such as [0.9, 1.1]",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end) > 1'\nform = 'share'\nabove = 1.5",
            "claim 'c': above: a share of trials lies in [0, 1], of which none is in the region",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end) > 1'\nform = 'share'\nbelow = 0",
            "claim 'c': below: a share of trials lies in [0, 1], of which none is in the region",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nabove = 1\nbelow = 2",
            "claim.below: above stands there, too",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nform = 'ratio'\nabove = 1",
            "claim 'c': to: form = \"ratio\" needs it: add to = ",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nto = 'lr == 0.1'\nabove = 1",
            "claim 'c': to: form = \"value\" has none unless of has other(...), as in",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nwhere = 'lr == 3'\nabove = 1",
            "claim 'c': where: no cell of the sweep meets 'lr == 3'",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nwhere = 'lrr == 3'\nabove = 1",
            "claim 'c': where: cells have no axis or field 'lrr', did you mean 'lr'?",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nform = 'spread'\nbelow = 0.5",
            "the largest over the smallest is at least 1",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nform = 'rato'\nabove = 1",
            "claim.form: unknown value 'rato', did you mean 'ratio'?",
        ),
        (
            "[[claim]]\nof = 'at(train_loss, end)'\nabove = 1",
            "claim.name: add name = ",
        ),
        (
            "[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nabove = 0\n[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nabove = 0",
            "claim 'c': name: another claim has this name",
        ),
        (
            "[claim]\nname = 'c'",
            "claim: claims stand in a list of tables: write [[claim]]",
        ),
    ] {
        let error = read_sweep(text).expect_err(text);
        assert!(error.contains(wanted), "{text}\n{error}\n{wanted}");
        let lines = (line..line + 10).any(|n| error.starts_with(&format!("f.toml:{n}: ")));
        assert!(lines, "{error}");
    }
}

#[test]
fn claims_are_no_part_of_what_is_run() {
    let source = |further: &str| SpecSource {
        text: format!("{SWEEP}{further}"),
        ..SpecSource::default()
    };
    let plain = source("");
    let claimed = source("[[claim]]\nname = 'c'\nof = 'at(train_loss, end)'\nabove = 0\n");
    assert_eq!(plain.compute_meaning_hash(), claimed.compute_meaning_hash());

    // A stored sweep is read whatever its claims are.
    let wrong = source("[[claim]]\nname = 'c'\n");
    assert!(Spec::read_new(&wrong).is_err());
    let stored = Spec::read_stored(&wrong).expect("claims keep no stored sweep from being read");
    assert!(stored.claims.is_err());
}

#[test]
fn a_file_has_claims_alone() {
    let text =
        "[quantity]\nx = 'at(train_loss, end)'\n[[claim]]\nname = 'c'\nof = 'x'\nabove = 0\n";
    let section = ClaimSection::read_file(text, "c.toml").expect("it is whole");
    assert_eq!((section.quantities.len(), section.claims.len()), (1, 1));

    let refuse = |text: &str| {
        let error = ClaimSection::read_file(text, "c.toml").map_err(|e| e.to_string());
        error.expect_err(text)
    };
    assert!(
        refuse("[[claims]]\nname = 'c'").contains("unknown key 'claims', did you mean 'claim'?")
    );
    assert!(refuse("[quantity]\nx = '1'").contains("there is no claim in this file"));
}

#[test]
fn a_quantity_of_a_trial_is_found_by_name_or_is_an_expression() {
    let text = "[quantity]\ninv = '1/effective_lr'\ngain = 'jump(inv,\tdecay)'\nanother = '2'\n";
    let spec = read_sweep(text).unwrap_or_else(|e| panic!("{e}"));
    let find = |name: &str| match spec.find_measured_value(name) {
        Ok(MeasuredValue::Quantity(quantity)) => quantity,
        found => panic!("{name}: {found:?}"),
    };
    assert!(matches!(
        spec.find_measured_value("effective_lr"),
        Ok(MeasuredValue::Metric(1))
    ));

    let gain = find("gain");
    assert_eq!(gain.text(), "gain");
    assert_eq!(
        gain.definition(),
        "gain = jump(inv, decay), inv = 1/effective_lr"
    );
    assert_eq!(
        (gain.is_curve(), gain.needs_whole_curve(), gain.metrics()),
        (false, true, &[1][..])
    );
    let relative = find("  inv /\n at(inv, 10)");
    assert_eq!(relative.text(), "inv / at(inv, 10)");
    assert_eq!(
        (relative.is_curve(), relative.needs_whole_curve()),
        (true, true)
    );
    let plain = find("train_loss*lr");
    assert_eq!((plain.is_curve(), plain.needs_whole_curve()), (true, false));
    assert_eq!(plain.definition(), "");

    let cell = spec.grid.iter().next().expect("the sweep has cells");
    let inputs = relative.cell_inputs(&spec.grid, cell).expect("a cell");
    let found = relative.evaluate(&inputs, &[10.0, 20.0], &|row, column| {
        assert_eq!(column, 1);
        [0.5, 0.125][row]
    });
    assert_eq!(found, NodeValue::Series(vec![1.0, 4.0]));
}

#[test]
fn windows_are_checked_in_trials_of_every_length() {
    // The last of 301 cells has shorter trials than the others.
    let lengths: Vec<u32> = (0..300).map(|at| 1_000 - at).chain([50]).collect();
    let sweep = SWEEP
        .replace("[grid]\n", &format!("[grid]\ntrain.steps = {lengths:?}\n"))
        .replace("lr = [0.1, 0.2]", "lr = [0.1]")
        .replace("wd = [0.0, 0.1]", "wd = [0.1]")
        .replace("steps = 100\n", "");
    let read = |window: &str| {
        let source = SpecSource {
            text: format!(
                "{sweep}[[claim]]\nname = 'c'\nof = 'max(train_loss, {window})'\nabove = 0\n"
            ),
            ..SpecSource::default()
        };
        Spec::read_new(&source).map_err(|e| e.to_string())
    };
    for inside in ["0..end", "40..50", "decay..end", "0.01*end..5/(lr*1.0)"] {
        read(inside).unwrap_or_else(|e| panic!("{inside}: {e}"));
    }
    for outside in ["0..60", "0..6/lr", "60..", "0..decay + 20"] {
        let error = read(outside).expect_err(outside);
        assert!(
            error.contains("a trial of the cell has 50 steps"),
            "{error}"
        );
    }
}

#[test]
fn a_stored_claim_whose_window_a_trial_cuts_is_lacking_and_the_others_stay() {
    let claim = |name: &str, window: &str| {
        format!("[[claim]]\nname = '{name}'\nof = 'max(train_loss, {window})'\nabove = 0\n")
    };
    let source = SpecSource {
        text: format!(
            "{SWEEP}{}{}",
            claim("cut", "0..5000"),
            claim("whole", "0..100")
        ),
        ..SpecSource::default()
    };
    assert!(Spec::read_new(&source).is_err());
    let stored = Spec::read_stored(&source).unwrap_or_else(|e| panic!("{e}"));
    let claims = stored.expand_own_claims().unwrap_or_else(|e| panic!("{e}"));
    let lacks: Vec<bool> = claims
        .claims
        .iter()
        .map(|claim| claim.lack.is_some())
        .collect();
    assert_eq!(lacks, [true, false]);
    assert_eq!(stored.find_lacking_claims().len(), 1);
}

#[test]
fn what_no_trial_has_is_refused_but_not_what_some_have() {
    let grid = "[quantity]\nlate = 'at(train_loss, 150)'\n";
    let text = format!("{SWEEP}{grid}").replace("wd = [0.0, 0.1]", "train.steps = [100, 200]");
    let text = text.replace("steps = 100\n", "");
    let read = |text: String| {
        let source = SpecSource {
            text,
            ..SpecSource::default()
        };
        Spec::read_stored(&source).unwrap_or_else(|e| panic!("{e}"))
    };
    let spec = read(text);
    assert!(spec.find_measured_value("late").is_ok());
    let refused = |name: &str| match spec.find_measured_value(name) {
        Ok(found) => panic!("{found:?}"),
        Err(error) => error,
    };
    assert_eq!(
        refused("at(train_loss, 300)"),
        MeasuredValueError::Invalid(
            "at: step 300 is after the end: a trial of the cell has 100 steps".to_owned()
        )
    );
    assert_eq!(
        refused("lte"),
        MeasuredValueError::Unknown(
            "the sweep does not measure 'lte', did you mean 'late'?".to_owned()
        )
    );
}
