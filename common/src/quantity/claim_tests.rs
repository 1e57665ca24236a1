//! Claims about predictions, about pairs of trials, and about cases.

use crate::Spec;
use crate::quantity::ExpandedClaims;
use crate::spec::SpecSource;

/// Cells: 0 and 1 are case A, 2 and 3 are case B; the even ones have wd 0.
const SWEEP: &str = "name = \"t\"\nrepeats = 4\n[data]\ndataset = \"glyphs\"\ntrain = 100\ntest = 50\n[model]\nkind = \"mlp\"\n\
                     hidden = [8]\n[train]\nsteps = 100\nbatch_size = 10\nschedule = [{ step = \"first\", lr = \"x0.1\" }]\n\
                     [case]\nA = { lr = 0.1, first = 40 }\n\"B c\" = { lr = 0.2, first = 60 }\n[grid]\nwd = [0.0, 0.1]\n\
                     [measure]\nmetrics = [\"train_loss\"]\n";
const PROBE: &str = "probe = { points = 5, at = [\"50 steps\", \"final\"] }\n";

fn read_sweep(further: &str) -> Result<Spec, String> {
    let source = SpecSource {
        file: "f.toml".into(),
        text: format!("{SWEEP}{further}"),
        ..SpecSource::default()
    };
    Spec::read_new(&source).map_err(|e| e.to_string())
}

fn expand(further: &str) -> ExpandedClaims {
    let spec = read_sweep(further).unwrap_or_else(|e| panic!("{e}"));
    let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
    spec.expand_claims(&claims)
        .unwrap_or_else(|e| panic!("{e}"))
}

/// The cell and the reference of each effect of a claim.
fn pairs(further: &str) -> Vec<(u64, Option<u64>)> {
    let expanded = expand(further);
    let effects = expanded.claims[0].effects.iter();
    effects
        .map(|effect| (effect.cells[0].0, effect.reference.map(|cell| cell.0)))
        .collect()
}

fn labels(keys: &str) -> String {
    format!("{PROBE}[[claim]]\nname = 'c'\nform = 'labels'\nbelow = 0.1\n{keys}\n")
}

fn value(of: &str, keys: &str) -> String {
    format!("[[claim]]\nname = 'c'\nabove = 0\nof = \"{of}\"\n{keys}\n")
}

#[test]
fn labels_are_compared_with_references_or_along_axes() {
    let to = "to = \"case == 'A'\"";
    assert_eq!(pairs(&labels(to)), [(2, Some(0)), (3, Some(1))]);
    assert_eq!(
        pairs(&labels("over = 'case'\nof = 'predictions'")),
        [(0, Some(2)), (1, Some(3))]
    );
    let all = pairs(&labels("over = ['case', 'wd']\nat = '50 %'"));
    assert_eq!(all.len(), 6);
    assert_eq!(
        pairs(&labels(
            "over = 'case'\nwhere = 'wd == 0'\nrelative_to = '50 steps'\njoint = true"
        )),
        [(0, Some(2))]
    );
}

#[test]
fn cases_and_their_free_names_are_names_of_cells() {
    let of = "at(train_loss, end)";
    for condition in ["case == 'B c'", "first == 60", "first > 50", "lr == 0.2"] {
        let found = pairs(&value(of, &format!("where = \"{condition}\"")));
        assert_eq!(found, [(2, None), (3, None)], "{condition}");
    }
    for to in ["case == 'A'", "first == 40", "lr == 0.1"] {
        let ratio = value(of, &format!("form = 'ratio'\nto = \"{to}\""));
        assert_eq!(pairs(&ratio), [(2, Some(0)), (3, Some(1))], "{to}");
    }

    let needs = expand(&value(of, "needs = \"case == 'A' || first > 70\""));
    let few = needs.claims[0].effects.iter();
    let few: Vec<bool> = few.map(|effect| effect.has_too_few_steps).collect();
    assert_eq!(few, [false, false, true, true]);
    let slope = value(of, "form = 'slope'\nagainst = 'first'\nby = 'wd'");
    assert_eq!(expand(&slope).claims[0].effects[0].abscissas, [40.0, 60.0]);
}

#[test]
fn a_free_name_may_be_there_for_claims_alone() {
    let sweep = SWEEP
        .replace("first = 40", "first = 40, kappa = 3")
        .replace("first = 60", "first = 60, kappa = 0.5");
    let read = |claims: &str| {
        let source = SpecSource {
            text: format!("{sweep}{claims}"),
            ..SpecSource::default()
        };
        Spec::read_new(&source)
    };
    let slope = value(
        "at(train_loss, end)",
        "form = 'slope'\nagainst = 'kappa'\nby = 'wd'",
    );
    let spec = read(&slope).unwrap_or_else(|e| panic!("{e}"));
    let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
    let expanded = spec
        .expand_claims(&claims)
        .unwrap_or_else(|e| panic!("{e}"));
    assert_eq!(expanded.claims[0].effects[0].abscissas, [3.0, 0.5]);

    let unused = read("").expect_err("nothing uses it").to_string();
    assert!(unused.contains("kappa"), "{unused}");
}

#[test]
fn quantities_compare_words_of_cells() {
    let text = value(
        "at(train_loss, end)*(case == 'B c') + first*(case != 'B c')",
        "",
    );
    let spec = read_sweep(&text).unwrap_or_else(|e| panic!("{e}"));
    let claims = spec.claims.clone().unwrap_or_else(|e| panic!("{e}"));
    let expanded = spec
        .expand_claims(&claims)
        .unwrap_or_else(|e| panic!("{e}"));

    let numbers = spec.grid.iter().map(|cell| {
        let inputs = expanded.program.cell_inputs(&spec.grid, cell);
        let curve = crate::quantity::SampledCurve {
            steps: &[100.0],
            columns: &[vec![7.0]],
        };
        let inputs = inputs.expect("the sweep has the cell");
        let between = crate::quantity::EventRounding::Between;
        let nodes = expanded.program.evaluate_trial(&inputs, curve, between);
        nodes[expanded.claims[0].roots[0]].as_number()
    });
    assert_eq!(numbers.collect::<Vec<_>>(), [40.0, 40.0, 7.0, 7.0]);
}

#[test]
fn a_quantity_may_be_set_against_that_of_the_reference() {
    let text = value(
        "slope(ln(abs(train_loss - other(train_loss))), step, 20..70)",
        "to = \"case == 'A'\"",
    );
    assert_eq!(pairs(&text), [(2, Some(0)), (3, Some(1))]);
    let claim = &expand(&text).claims[0];
    assert!(claim.pairs_trials);
    let cells = claim.number_cells(&claim.effects[0]);
    assert_eq!(cells.map(|cell| cell.0).collect::<Vec<_>>(), [2]);
}

#[test]
fn wrong_keys_are_refused_with_line_and_remedy() {
    let line = SWEEP.lines().count() + 1;
    let mean = "mean(abs(train_loss - other(train_loss)))";
    for (text, wanted) in [
        (
            labels("").replace(PROBE, "").replace("below", "over = 'case'\nbelow"),
            "claim 'c': form: the sweep keeps no predictions, whose labels are compared: add probe",
        ),
        (
            labels(""),
            "claim 'c': to: which cells are compared? Add to = ",
        ),
        (
            labels("over = 'case'\nto = 'wd == 0'"),
            "claim 'c': over: to says already",
        ),
        (
            labels("over = 'case'\nat = '40 steps'"),
            "claim 'c': at: no predictions are kept at \"40 steps\", but at \"50 steps\", \"final\"",
        ),
        (
            labels("over = 'case'\nrelative_to = '1 step'"),
            "claim 'c': relative_to: no predictions are kept at \"1 step\"",
        ),
        (
            labels("over = 'case'\nrelative_to = 'final'"),
            "claim 'c': relative_to: it is the moment of the claim itself",
        ),
        (
            labels("over = 'case'\nat = 'soon'"),
            "claim.at: expected a moment such as \"1000 steps\"",
        ),
        (
            labels("over = 'case'\nof = 'train_loss'"),
            "claim 'c': of: form = \"labels\" compares predictions",
        ),
        (
            labels("over = 'case'\nper = 'mean'"),
            "claim 'c': per: form = \"labels\" compares trials: remove it",
        ),
        (
            labels("over = 'case'\nwhere = \"case == 'A'\""),
            "claim 'c': over: case=A, wd=0 stands alone",
        ),
        (
            labels("to = 'wd >= 0'"),
            "claim 'c': to: every cell that the claim is about is a reference itself",
        ),
        (
            value("at(train_loss, end)", "at = 'final'"),
            "claim 'c': at: form = \"value\" has none: it belongs to form = \"labels\"",
        ),
        (
            value(mean, ""),
            "claim 'c': to: other(...) is a quantity of the reference cell: add to = ",
        ),
        (
            value(mean, "form = 'difference'\nto = 'wd == 0'"),
            "claim 'c': of: other(...) stands in claims of form = \"value\"",
        ),
        (
            value(mean, "to = 'wd == 0'\nper = 'mean'"),
            "claim 'c': per: other(...) pairs the trials",
        ),
        (
            value("mean(other(other(train_loss)))", "to = 'wd == 0'"),
            "claim 'c': of: mean: other: 'other(train_loss)' is set against a reference cell itself",
        ),
        (
            value("mean(other(train_loss, step))", "to = 'wd == 0'"),
            "mean: other: expected one quantity, as in other(train_loss), found 2",
        ),
        (
            "[quantity]\nother = '1'".to_owned(),
            "quantity.other: every quantity can use this name",
        ),
        (
            "[quantity]\nfirst_ = '1'\n[[claim]]\nname = 'c'\nof = 'first_'\nabove = 0\nwhere = \"case == 'A\"".to_owned(),
            "claim 'c': where: expected a condition such as",
        ),
    ] {
        let error = read_sweep(&text).expect_err(&text);
        assert!(error.contains(wanted), "{text}\n{error}\n{wanted}");
        let has_line = (line..line + 12).any(|n| error.starts_with(&format!("f.toml:{n}: ")));
        assert!(has_line, "{error}");
    }
}

#[test]
fn a_file_that_defines_a_quantity_anew_says_so() {
    let quantities = "[quantity]\nx = '2*train_loss'\ny = 'x + 1'\n";
    let spec = read_sweep(quantities).unwrap_or_else(|e| panic!("{e}"));
    let redefinition = |file: &str, of: &str| {
        let file = format!("{file}[[claim]]\nname = 'c'\nof = 'at({of}, end)'\nabove = 0\n");
        let claims = spec.read_claims_file(&file, "c.toml");
        let claims = claims.unwrap_or_else(|e| panic!("{e}"));
        claims.claims[0].redefinition.clone()
    };

    let anew = "[quantity]\nx = '3*train_loss'\n";
    let note = "defined anew: x = 3*train_loss, in the sweep 2*train_loss";
    for of in ["x", "y"] {
        assert_eq!(redefinition(anew, of).as_deref(), Some(note), "{of}");
    }
    assert_eq!(redefinition(anew, "train_loss"), None);
    assert_eq!(redefinition("", "x"), None);
    assert_eq!(redefinition(quantities, "y"), None);
}

#[test]
fn cells_are_selected_by_lists_as_tables_show_them() {
    let source = SpecSource {
        text: "name = \"t\"\nrepeats = 4\n[data]\ndataset = \"glyphs\"\ntrain = 100\ntest = 50\n[model]\nkind = \"mlp\"\n\
               [train]\nsteps = 100\nbatch_size = 10\nlr = 0.1\n[grid]\n\"model.hidden\" = [[4], [4, 8]]\n\
               [measure]\nmetrics = [\"train_loss\"]\n[[claim]]\nname = 'c'\nform = 'ratio'\nof = 'at(train_loss, end)'\n\
               to = 'model.hidden == \"[4]\"'\nbelow = 1\n"
            .to_owned(),
        ..SpecSource::default()
    };
    let spec = Spec::read_new(&source).unwrap_or_else(|e| panic!("{e}"));
    let section = spec.claims.as_ref().expect("a claim");
    let claims = spec.expand_claims(section).expect("cells");
    let effect = &claims.claims[0].effects[0];
    assert_eq!(
        (effect.cells[0].0, effect.reference.map(|cell| cell.0)),
        (1, Some(0))
    );
}
