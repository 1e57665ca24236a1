use crate::expr::*;
use crate::spec_file::error::Origin;
use crate::spec_file::node::SpecNode;

fn eval(text: &str, values: &[f64]) -> f64 {
    Expr::parse(text, 2).expect("valid expression").eval(values)
}

/// As version 1 has it.
fn first(text: &str, values: &[f64]) -> f64 {
    Expr::parse(text, 1).expect("valid expression").eval(values)
}

fn refusal(text: &str) -> String {
    Expr::parse(text, 2).expect_err(text)
}

#[test]
fn arithmetic_and_comparisons_have_the_usual_precedence() {
    for eval in [eval, first] {
        assert_eq!(eval("1 + 2 * 3 ^ 2 / 9", &[]), 3.0);
        assert_eq!(eval("lr * wd <= 1e-3 && lr < 1", &[0.1, 1e-2]), 1.0);
        assert_eq!(eval("lr * wd <= 1e-3 || lr > 1", &[0.5, 1e-2]), 0.0);
        assert_eq!(eval("8 - 4 - 2", &[]), 2.0);
        assert_eq!(eval("max(2, x) / min(4, x)", &[3.0]), 1.0);
        assert_eq!(eval("1.5e-3 * 2E3", &[]), 3.0);
    }
}

#[test]
fn what_version_1_has_otherwise_means_what_it_means_in_mathematics() {
    for (text, x, was, is) in [
        ("-x^2", 3.0, 9.0, -9.0),
        ("2^3^2", 0.0, 64.0, 512.0),
        ("0.001 < x < 0.5", 0.1, 0.0, 1.0),
        ("0.001 < x < 0.5", 0.001, 1.0, 0.0),
        ("3 > x >= 1", 2.0, 1.0, 1.0),
        ("3 > x >= 1", 0.0, 1.0, 0.0),
        ("x == 2 == 2", 2.0, 0.0, 1.0),
        ("-1e9 < x < 1e9", 2e9, 1.0, 0.0),
    ] {
        let numbers = |expr: &Expr| vec![x; expr.names().len()];
        let old = Expr::parse(text, 1).expect(text);
        let new = Expr::parse(text, 2).expect(text);
        assert_eq!(
            (old.eval(&numbers(&old)), new.eval(&numbers(&new))),
            (was, is),
            "{text} at {x}"
        );

        assert_eq!((old.min_grammar(), new.min_grammar()), (1, 2), "{text}");
    }
}

#[test]
fn what_both_read_alike_needs_no_newer_program() {
    for text in [
        "intrinsic_lr / lr",
        "lr * wd <= 1e-3",
        "2^-x",
        "(-x)^2",
        "-(x^2)",
        "max(a, b) - sqrt(b)^2",
        "(a < b) * 3",
    ] {
        assert_eq!(Expr::parse(text, 2).expect(text).min_grammar(), 1, "{text}");
    }

    for text in [
        "max(a, b, c)",
        "max_lr / 2",
        "sqrt + 1",
        "-sqrt(x)^2",
        "2^-x^2",
    ] {
        assert_eq!(Expr::parse(text, 2).expect(text).min_grammar(), 2, "{text}");
    }
}

#[test]
fn names_of_functions_are_names_where_nothing_is_called() {
    for (text, names) in [
        ("max_lr / 2", vec!["max_lr"]),
        ("min < max", vec!["max", "min"]),
        ("min(min, max) + minimum", vec!["max", "min", "minimum"]),
        (
            "exponent * logs - absolute",
            vec!["absolute", "exponent", "logs"],
        ),
        (
            "model.init.scale * 0.5 + a_1",
            vec!["a_1", "model.init.scale"],
        ),
        ("{learning rate} * größe", vec!["größe", "learning rate"]),
    ] {
        assert_eq!(Expr::parse(text, 2).expect(text).names(), names, "{text}");
    }

    assert_eq!(eval("max(1, a, b) - min(a, b)", &[2.0, 5.0]), 3.0);
}

#[test]
fn a_number_is_no_condition_and_a_condition_counts_as_a_number() {
    for text in [
        "lr",
        "lr * 2",
        "-(lr < 1)",
        "(lr < 1) + 1",
        "max(lr < 1, 0)",
    ] {
        assert!(!Expr::parse(text, 2).expect(text).is_condition(), "{text}");
    }

    for text in [
        "lr < 1",
        "(lr < 1)",
        "lr < 1 && wd > 0",
        "((lr < 1)) == (wd < 1)",
    ] {
        assert!(Expr::parse(text, 2).expect(text).is_condition(), "{text}");
    }

    assert_eq!(eval("(x > 1) * 3 + (x > 2)", &[1.5]), 3.0);
    assert!(refusal("lr && wd < 1").contains("joins conditions"));
    assert!(refusal("lr < 1 || 1").contains("joins conditions"));
}

#[test]
fn of_what_has_no_value_nothing_is_true() {
    for text in [
        "sqrt(x) < 1",
        "sqrt(x) != 1",
        "sqrt(x) == sqrt(x)",
        "0 < sqrt(x) < 1",
        "x < 0 && sqrt(x) < 1",
    ] {
        assert!(eval(text, &[-1.0]).is_nan(), "{text}");
    }

    // What is known without it is known.
    assert_eq!(eval("sqrt(x) < 1 && x > 0", &[-1.0]), 0.0);
    assert_eq!(eval("sqrt(x) < 1 || x < 0", &[-1.0]), 1.0);
    assert_eq!(eval("sqrt(x) < 1 < -1", &[-1.0]), 0.0);
}

#[test]
fn nonsense_is_refused_by_name() {
    for (text, word) in [
        ("", "expected a number"),
        ("lr *", "found its end"),
        ("(lr", "expected ')'"),
        (
            "lr lr",
            "expected an operator or the end, found the name lr",
        ),
        ("2 lr", "found the name lr"),
        ("1..2", "found the number 0.2"),
        ("lr <", "found its end"),
        ("lr = 1", "equality is =="),
        ("a & b", "&&"),
        ("a < b > c", "goes one way"),
        ("a != b != c", "goes one way"),
        ("sin(x)", "there is no function sin"),
        ("lr(2)", "product"),
        ("sqrt(1, 2)", "takes one number"),
        ("min(1)", "two numbers or more"),
        ("max()", "expected a number"),
        (",", "found ','"),
        ("{", "brace"),
        ("𝛼 🦀", "unexpected '🦀'"),
        ("1e999 < x", "too large"),
        ("x == \"sgd\"", "the word \"sgd\""),
        (".", "point"),
    ] {
        let error = refusal(text);
        assert!(error.contains(word), "{text}: {error}");
    }

    assert!(refusal(&"x".repeat(MAX_EXPR_BYTES + 1)).contains("at most 4096"));
    assert!(refusal(&format!("{}x{}", "(".repeat(1000), ")".repeat(1000))).contains("nested"));
    assert!(refusal(&format!("{}x", "-".repeat(1000))).contains("nested"));
    assert!(refusal(&"2^".repeat(1000)).contains("nested"));
}

#[test]
fn words_are_equal_to_themselves_alone() {
    let WordExpr { expr, words } =
        WordExpr::parse("kind == \"sgd\" || kind != \"adamw\" && lr == 0").expect("valid");
    assert_eq!(
        (expr.names(), &words[..]),
        (
            vec!["kind", "lr"],
            &["sgd".to_owned(), "adamw".to_owned()][..]
        )
    );

    assert_eq!(expr.eval(&[word_number(0), 1.0]), 1.0);
    assert_eq!(expr.eval(&[word_number(1), 0.0]), 0.0);
    assert_eq!(
        expr.eval(&[other_word_number("adam"), 0.0]),
        1.0,
        "another word is unequal"
    );

    // The place of a word among words was once its number.
    assert_eq!(expr.eval(&[0.0, 1.0]), 0.0);
    for (text, word) in [
        ("kind < \"sgd\"", "no order"),
        ("-\"sgd\" == kind", "is not a number"),
        ("\"sgd\"", "is not a number"),
        ("kind == \"sgd", "quote is open"),
        ("kind == 'sgd\"", "quote is open"),
        ("max(\"a\", 1) == 1", "is not a number"),
        ("lr", "compares nothing"),
    ] {
        let error = WordExpr::parse(text).expect_err(text);
        assert!(error.contains(word), "{text}: {error}");
    }
}

#[test]
fn words_stand_in_quotes_of_either_kind() {
    let both = WordExpr::parse("case == 'a \"b\"' || case == \"it's\"").expect("valid");
    assert_eq!(both.words, ["a \"b\"", "it's"]);
    assert!(WordExpr::parse_quantity("2*(case == 'a')").is_ok());
}

#[test]
fn a_series_has_the_bits_of_its_samples() {
    let x = [0.1, -2.0, f64::NAN, 3.5, f64::INFINITY];
    let y = [1.0, 1.0, 0.3, -0.0, 2.0];
    for text in [
        "x",
        "7",
        "a*x^2/y - ln(abs(x)) + sqrt(y)",
        "0.05 < x <= y || x == a",
        "-1 < x < y < 5 && x != y",
        "max(x, y, a) - min(x, a)",
        "2^-x^y",
    ] {
        let expr = Expr::parse(text, 2).expect(text);
        let inputs = expr.names().into_iter().map(|name| match name {
            "x" => SeriesInput::Series(&x),
            "y" => SeriesInput::Series(&y),
            _ => SeriesInput::Number(0.7),
        });
        let inputs: Vec<SeriesInput<'_>> = inputs.collect();
        let found = expr.eval_series(&inputs, x.len());
        for (sample, found) in found.iter().enumerate() {
            let values = inputs.iter().map(|input| input.at_sample(sample));
            let wanted = expr.eval(&values.collect::<Vec<_>>());
            assert_eq!(found.to_bits(), wanted.to_bits(), "{text} at {sample}");
        }
    }
}

/// `tests/oracles/expressions.py` makes the fixture.
#[test]
fn expressions_mean_what_pythons_parser_makes_of_them() {
    let mut of_both = 0;
    for line in include_str!("../../../tests/oracles/expressions.tsv").lines() {
        let (text, numbers) = line.split_once('\t').expect("an expression and numbers");
        let numbers: Vec<f64> = numbers
            .split('\t')
            .map(|x| x.parse().expect("a number"))
            .collect();
        let expr = Expr::parse(text, 2).expect(text);

        let value = |name: &&str| numbers["abc".find(name).expect("one of three names")];
        let values: Vec<f64> = expr.names().iter().map(value).collect();
        let found = expr.eval(&values);
        let wanted = numbers[3];
        assert!(
            (found - wanted).abs() <= 1e-12 * wanted.abs(),
            "{line}: {found}"
        );

        if expr.min_grammar() == 1 {
            // What is stored as of version 1 means the same there.
            let first = Expr::parse(text, 1).expect(text);
            assert_eq!(
                (first.names(), first.eval(&values).to_bits()),
                (expr.names(), found.to_bits()),
                "{line}"
            );

            of_both += 1;
        }
    }

    assert!(of_both > 100, "{of_both} mean the same in both");
}

#[test]
fn lists_are_compared_as_tables_show_them() {
    let list = SpecValue::List(vec![SpecNode {
        value: SpecValue::Int(4),
        origin: Origin::Default,
    }]);
    let meets = |text: &str| {
        let condition = WordExpr::parse(text).expect("a condition");
        condition.is_met(&[condition.value_number(&list)])
    };
    assert!(meets("hidden == \"[4]\""));
    assert!(meets("hidden != \"[5]\""));
    assert!(!meets("hidden == \"4\"") && !meets("hidden == 4"));
}
