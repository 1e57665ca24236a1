//! All mistakes of a sweep file at once.
//!
//! Reading ends at the first error. So a file with an error is repaired in memory and read again, until it can be read or nothing
//! more can be repaired. What can follow from an earlier mistake is repaired as well, and not reported.

mod claims;
mod repair;

use std::cell::Cell;
use std::fmt;

use crate::grid::StillWanted;
use crate::spec::scale::list_names_in_scales;
use crate::spec::{Spec, SpecSource};
use crate::spec_file::error::{Origin, SpecError};
use crate::spec_file::grammar::ReadingMode;
use crate::spec_file::node::{SpecTable, parse_document};
use repair::{Repairs, find_node};

/// Maximum number of mistakes that are shown.
const MAX_SHOWN: usize = 20;
/// Maximum number of times that a file is read.
const MAX_READINGS: usize = 100;
/// How often the readings may ask whether they are still wanted, which they do after a number of cells: a bound on their work.
const MAX_QUESTIONS: u32 = 2_000;

/// The mistakes of a sweep file, one at least, in the order of its lines.
#[derive(Debug, Clone, PartialEq)]
pub struct Mistakes(Vec<SpecError>);

impl Mistakes {
    /// The mistakes, one at least.
    pub fn as_slice(&self) -> &[SpecError] {
        &self.0
    }
}

/// One mistake as it is; several one per line, below their number.
impl fmt::Display for Mistakes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let [only] = &self.0[..] {
            return only.fmt(f);
        }

        write!(f, "there are {} mistakes:", self.0.len())?;
        for mistake in self.0.iter().take(MAX_SHOWN) {
            write!(f, "\n  {mistake}")?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n  and {more} more"),
        }
    }
}

impl Spec {
    /// Reads the file of a new sweep as [`Spec::read_new`] does.
    ///
    /// # Errors
    /// Names all that is wrong, with file, line and field, as far as one mistake does not hide another.
    pub fn read_new_naming_mistakes(source: &SpecSource) -> Result<Self, Mistakes> {
        Self::read_new(source).map_err(|first| {
            let mut mistakes = collect_mistakes(source, first);
            mistakes.sort_by_key(|mistake| line_of(&mistake.origin));
            Mistakes(
                mistakes
                    .into_iter()
                    .map(|mistake| explain_setting(mistake).with_file(&source.file))
                    .collect(),
            )
        })
    }
}

/// Collects the mistakes of a file whose reading ends with the error `first`.
fn collect_mistakes(source: &SpecSource, first: SpecError) -> Vec<SpecError> {
    let Ok((mut document, mut mistakes)) = source.read_document_naming_mistakes() else {
        return vec![first];
    };
    mistakes.extend(list_names_in_scales(&source.text, &source.settings));
    let questions = Cell::new(0);
    let is_wanted = || {
        questions.set(questions.get() + 1);
        questions.get() < MAX_QUESTIONS
    };

    let reading = ReadingMode::for_new(source.grammar);
    let mut repairs = Repairs::of_document(!mistakes.is_empty());
    let mut next = match mistakes.is_empty() {
        true => Some(first),
        false => read_repaired(source, &document, reading, &is_wanted),
    };
    for _ in 0..MAX_READINGS {
        let Some(error) = next else {
            break;
        };
        let error = locate_error(error, &document);
        let is_consequence = repairs.can_explain(&error);
        let is_repaired = repairs.repair(&mut document, &error);
        if !is_consequence {
            mistakes.push(error);
        }
        if !is_repaired {
            break;
        }

        next = read_repaired(source, &document, reading, &is_wanted)
            .filter(|_| questions.get() < MAX_QUESTIONS);
    }

    mistakes
}

/// What is wrong with a document, but for the names of its scales, which are told from its text.
fn read_repaired(
    source: &SpecSource,
    document: &SpecTable,
    reading: ReadingMode,
    wanted: StillWanted<'_>,
) -> Option<SpecError> {
    let spec = Spec::read_checked_sections(source, document, reading, wanted);
    let checked = spec.and_then(|spec| reading.refuse_claims_if_new(&spec));
    checked.err()
}

/// Says how a list or table is typed, where a setting that looks like one is none, and so has been taken for a text.
fn explain_setting(mistake: SpecError) -> SpecError {
    let hint = match &mistake.origin {
        Origin::Set(setting) => describe_bad_list(setting),
        _ => None,
    };
    match hint {
        Some(hint) => SpecError {
            message: format!("{}: {hint}", mistake.message),
            ..mistake
        },
        None => mistake,
    }
}

fn describe_bad_list(setting: &str) -> Option<String> {
    let (key, value) = setting.split_once('=')?;
    let (key, value) = (key.trim(), value.trim());
    if !value.starts_with(['[', '{']) || parse_document(&format!("v = {value}")).is_ok() {
        return None;
    }

    let words = value
        .strip_prefix('[')
        .and_then(|rest| rest.strip_suffix(']'));
    let example = match words {
        Some(words) if !words.contains(['[', '{', '"', '\'']) => {
            let items: Vec<String> = words.split(',').map(quote_word).collect();
            format!("[{}]", items.join(", "))
        }
        _ => "[\"a\", \"b\"]".to_owned(),
    };
    Some(format!(
        "words stand in quotes, as in --set '{key}={example}'"
    ))
}

/// An item of a list, in quotes if it is a word.
fn quote_word(item: &str) -> String {
    let item = item.trim();
    match parse_document(&format!("v = {item}")) {
        Ok(_) => item.to_owned(),
        Err(_) => format!("\"{item}\""),
    }
}

/// Adds the line of the field, where the reader knew the field alone.
fn locate_error(error: SpecError, document: &SpecTable) -> SpecError {
    let node = find_node(document, &error.path).filter(|_| error.origin == Origin::Default);
    let origin = node.map(|node| node.origin.clone());
    SpecError {
        origin: origin.unwrap_or(error.origin),
        ..error
    }
}

/// The key by which mistakes are sorted: lines of the file, then settings of the command line, then what has no place.
fn line_of(origin: &Origin) -> u32 {
    match origin {
        Origin::Line(line) => *line,
        Origin::Set(_) => u32::MAX - 1,
        Origin::Default => u32::MAX,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "name = \"t\"\nrepeats = 3\n[data]\ndataset = \"glyphs\"\ntrain = 100\n[model]\nkind = \"mlp\"\nhidden = [8]\n\
                        [train]\nepochs = 2\nlr = 0.1\nbatch_size = 10\n[grid]\nwd = [0.0, 0.1]\n[measure]\nmetrics = [\"test_acc\"]\n";

    /// The lines of the mistakes in [`GOOD`] with these changes, and their fields.
    fn mistakes(changes: &[(&str, &str)]) -> Vec<(u32, String)> {
        let mut text = GOOD.to_owned();
        for (from, to) in changes {
            assert!(text.contains(from), "{from}");
            text = text.replacen(from, to, 1);
        }

        let source = SpecSource {
            text,
            ..SpecSource::default()
        };
        let Err(found) = Spec::read_new_naming_mistakes(&source) else {
            return Vec::new();
        };
        let places = found.as_slice().iter();
        places
            .map(|mistake| (line_of(&mistake.origin), mistake.path.clone()))
            .collect()
    }

    fn fields(changes: &[(&str, &str)]) -> Vec<String> {
        mistakes(changes)
            .into_iter()
            .map(|(_, path)| path)
            .collect()
    }

    #[test]
    fn independent_mistakes_are_all_named_in_the_order_of_lines() {
        assert_eq!(mistakes(&[]), []);
        let found = mistakes(&[
            ("repeats = 3", "repeats = 0"),
            ("\"glyphs\"", "\"glyhps\""),
            ("hidden = [8]", "hidden = [0]"),
            ("batch_size = 10", "batch_sise = 10"),
            ("lr = 0.1", "lr = -1"),
            ("[0.0, 0.1]", "[]"),
            ("\"test_acc\"", "\"test_ac\", \"x\", \"val\""),
        ]);
        let expected = [
            (2, "repeats"),
            (4, "data.dataset"),
            (8, "model.hidden"),
            (11, "train.lr"),
            (12, "train.batch_sise"),
            (14, "grid.wd"),
            (16, "measure.metrics"),
            (16, "measure.metrics"),
            (16, "measure.metrics"),
        ];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));
    }

    #[test]
    fn what_follows_from_another_mistake_is_not_named() {
        // The value is missing because its key is unknown.
        assert_eq!(
            fields(&[("lr = 0.1", "learning_rate = 0.1")]),
            ["train.learning_rate"]
        );
        assert_eq!(
            fields(&[("[train]", "[training_of_it]")]),
            ["training_of_it"]
        );
        // The model is unknown, and so are its keys.
        assert_eq!(fields(&[("\"mlp\"", "\"transformer\"")]), ["model.kind"]);
        // The batch would be too large for a number of images that is wrong.
        assert_eq!(
            fields(&[
                ("train = 100", "train = -100"),
                ("epochs = 2", "epochs = 0")
            ]),
            ["data.train", "train.epochs"]
        );
        assert_eq!(fields(&[("epochs = 2", "steps = 0")]), ["train.steps"]);
        // The only word of a list is misspelt, and what is measured otherwise is no mistake.
        assert_eq!(
            fields(&[
                ("\"mlp\"\nhidden = [8]", "\"toy\""),
                ("test_acc", "tain_loss")
            ]),
            ["measure.metrics"]
        );
        // The axis is used by an expression that cannot be read.
        assert_eq!(
            fields(&[("wd = [0.0, 0.1]", "a = [1, 2]\n[derive]\nwd = \"a *\"")]),
            ["derive.wd"]
        );
        // Either the axis is misspelt or the expression: this tells the one that is read first.
        assert_eq!(
            fields(&[(
                "wd = [0.0, 0.1]",
                "wdd = [1, 2]\n[where]\nkeep = \"wd < 2\""
            )]),
            ["where.keep"]
        );
        // The zipped axis has no values.
        assert_eq!(
            fields(&[(
                "wd = [0.0, 0.1]",
                "wd = []\n\"model.norm_eps\" = [1, 2]\nzip = [[\"wd\", \"model.norm_eps\"]]"
            )]),
            ["grid.wd"]
        );
    }

    #[test]
    fn a_mistake_in_a_range_is_one_of_the_axis() {
        for (range, field) in [
            ("{ log = [0, 1], points = 3 }", "grid.wd.log"),
            ("{ linear = [0, 1], points = -3 }", "grid.wd.points"),
            ("{ linear = [0, 1] }", "grid.wd.points"),
        ] {
            assert_eq!(fields(&[("[0.0, 0.1]", range)]), [field], "{range}");
        }
    }

    #[test]
    fn claims_that_are_wrong_are_all_named_and_what_follows_is_not() {
        const CLAIMS: &str = "[measure]\nmetrics = [\"test_acc\"]\n[quantity]\na = \"ln(test_loss)\"\nb = \"2*a\"\n\
                              [[claim]]\nname = \"one\"\nof = \"at(b, end)\"\nabove = 0\n\
                              [[claim]]\nname = \"two\"\nof = \"at(test_acc, end)\"\n\
                              [[claim]]\nname = \"three\"\nof = \"at(test_acc, end)\"\nabove = 0\nwhere = \"wdd > 0\"\n\
                              [[claim]]\nname = \"four\"\nform = \"rato\"\nof = \"at(test_acc, end)\"\nabove = 0\n";
        let measure = "[measure]\nmetrics = [\"test_acc\"]\n";
        let found = mistakes(&[(measure, CLAIMS), ("lr = 0.1", "lr = 0.1 # good")]);
        let expected = [
            (18, "quantity.a"),
            (24, "claim 'two': within"),
            (31, "claim 'three': where"),
            (34, "claim.form"),
        ];
        assert_eq!(found, expected.map(|(line, path)| (line, path.to_owned())));

        // What a metric that nobody knows is measured for may be a claim.
        let claim = "[measure]\nmetrics = [\"test_acc\", \"x\"]\n[[claim]]\nname = \"c\"\nof = \"at(x, end)\"\nabove = 0\n";
        assert_eq!(fields(&[(measure, claim)]), ["measure.metrics"]);
    }

    #[test]
    fn a_name_that_a_wrong_claim_alone_uses_is_no_mistake() {
        const CASES: &str = "[case]\nA = { \"model.init.scale\" = 1, k = 1 }\nB = { \"model.init.scale\" = 2, k = 2 }\n\
                             [measure]\nmetrics = [\"test_acc\"]\n\
                             [[claim]]\nname = \"c\"\nof = \"at(test_ac, end)\"\nform = \"slope\"\nagainst = \"k\"\nabove = 0\n";
        let measure = "[measure]\nmetrics = [\"test_acc\"]\n";
        assert_eq!(fields(&[(measure, CASES)]), ["claim 'c': of"]);
    }

    #[test]
    fn figures_that_are_wrong_are_all_named_and_what_follows_is_not() {
        const FIGURES: &str = "[measure]\nmetrics = [\"test_acc\"]\n[quantity]\na = \"ln(test_loss)\"\n\
                               [[claim]]\nname = \"c d\"\nof = \"at(x, end)\"\nabove = 0\n\
                               [[figure]]\nname = \"uses a\"\ny = \"a\"\n\
                               [[figure]]\nname = \"uses c\"\nclaims = [\"c d\"]\nx = \"wd\"\n\
                               [[figure]]\nname = \"y\"\ny = \"test_acccc\"\n\
                               [[figure]]\nname = \"by\"\ny = \"test_acc\"\nby = \"wdd\"\n";
        let found = fields(&[("[measure]\nmetrics = [\"test_acc\"]\n", FIGURES)]);
        let expected = [
            "quantity.a",
            "claim 'c d': of",
            "figure 'y': y",
            "figure 'by': by",
        ];
        assert_eq!(found, expected);
    }

    #[test]
    fn a_setting_that_is_almost_a_list_tells_how_to_quote_its_words() {
        for (setting, hint) in [
            (
                "measure.metrics=[test_acc, test_loss]",
                Some("as in --set 'measure.metrics=[\"test_acc\", \"test_loss\"]'"),
            ),
            ("grid.lr=[0.1, x]", Some("'grid.lr=[0.1, \"x\"]'")),
            ("grid.lr={ log = [1, x }", Some("words stand in quotes")),
            ("measure.metrics=test_ac", None),
            ("measure.metrics=[\"test_ac\"]", None),
        ] {
            let source = SpecSource {
                text: GOOD.to_owned(),
                settings: vec![setting.to_owned()],
                ..SpecSource::default()
            };
            let text = Spec::read_new_naming_mistakes(&source)
                .expect_err(setting)
                .to_string();
            assert_eq!(
                text.contains("words stand in quotes"),
                hint.is_some(),
                "{text}"
            );
            assert!(hint.is_none_or(|hint| text.contains(hint)), "{text}");
        }
    }

    #[test]
    fn every_wrong_scale_and_setting_is_named() {
        let scales = "[scale.desk]\nname = \"small\"\n[scale.\"a b\"]\nrepeats = 2\n[scale.paper]\nname = \"x\"\n";
        let source = SpecSource {
            text: GOOD.replace("lr = 0.1", "lr = -1") + scales,
            settings: vec![
                "scale.gate=3".to_owned(),
                "scale=dekk".to_owned(),
                "name.of=1".to_owned(),
            ],
            ..SpecSource::default()
        };
        let found = Spec::read_new_naming_mistakes(&source).expect_err("mistakes");
        let mut fields: Vec<&str> = found.as_slice().iter().map(|m| m.path.as_str()).collect();
        fields.sort_unstable();
        let expected = [
            "name.of",
            "scale",
            "scale.a b",
            "scale.desk.name",
            "scale.gate",
            "scale.paper.name",
            "train.lr",
        ];
        assert_eq!(fields, expected, "{found}");
        let text = found.to_string();
        assert!(text.contains("did you mean 'desk'?"), "{text}");
    }

    #[test]
    fn what_cases_would_have_set_is_not_missed() {
        let source = SpecSource {
            text: GOOD.replace("lr = 0.1\n", "") + "[case]\nA = { lr = 0.1 }\nB = { lr = 0.2 }\n",
            settings: vec!["case=A".to_owned()],
            ..SpecSource::default()
        };
        let found = Spec::read_new_naming_mistakes(&source).expect_err("a case is a table");
        let fields: Vec<&str> = found.as_slice().iter().map(|m| m.path.as_str()).collect();
        assert_eq!(fields, ["case"]);
    }

    #[test]
    fn a_file_of_claims_names_all_mistakes() {
        let source = SpecSource {
            text: GOOD.to_owned(),
            ..SpecSource::default()
        };
        let spec = Spec::read_new(&source).expect("it is good");
        let claim = |name: &str, of: &str| {
            format!("[[claim]]\nname = \"{name}\"\nof = \"{of}\"\nabove = 0\n")
        };
        let good = claim("a", "at(test_acc, end)");
        assert!(spec.read_claims_file(&good, "c.toml").is_ok());

        let text = claim("b", "at(x, end)") + &good + &claim("c", "at(test_acc");
        let found = spec
            .read_claims_file(&text, "c.toml")
            .expect_err("two are wrong");
        let found: Vec<String> = found.as_slice().iter().map(ToString::to_string).collect();
        assert!(
            found.len() == 2
                && found[0].starts_with("c.toml:3: claim 'b': of")
                && found[1].starts_with("c.toml:11: claim 'c': of"),
            "{found:?}"
        );
    }

    #[test]
    fn a_combination_is_named_with_its_line() {
        assert_eq!(
            mistakes(&[("batch_size = 10", "batch_size = 1000")]),
            [(12, "train.batch_size".to_owned())]
        );
        assert_eq!(
            mistakes(&[
                (
                    "repeats = 3",
                    "repeats = 3\nseeds = { crossed = { init = 2, order = 2 } }"
                ),
                ("\"test_acc\"", "\"val_acc\"")
            ]),
            [(17, "measure.metrics".to_owned())]
        );
    }

    #[test]
    fn many_mistakes_are_counted() {
        let unknown: String = (0..30).map(|n| format!("unknown{n:02} = 1\n")).collect();
        let source = SpecSource {
            file: "a.toml".into(),
            text: GOOD.replace("[data]\n", &format!("[data]\n{unknown}")),
            ..SpecSource::default()
        };
        let text = Spec::read_new_naming_mistakes(&source)
            .expect_err("unknown keys")
            .to_string();
        assert!(
            text.starts_with("there are 30 mistakes:\n  a.toml:4: data.unknown00: unknown key"),
            "{text}"
        );
        assert!(text.ends_with("\n  and 10 more"), "{text}");
    }
}
