//! Texts with placeholders, such as `--lr={lr}`.

use std::fmt;

use super::seeds::{find_purpose, seed_of_purpose, trial_seed};
use super::value::{ProgramValue, is_identifier};
use crate::random_streams::{NAMED_PURPOSES, Streams};
use crate::spec_file::suggest::suggest_nearest;

/// A text with placeholders in braces; `{{` and `}}` are braces themselves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Template(Vec<Piece>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Piece {
    Text(String),
    Placeholder(Placeholder),
}

/// What a placeholder stands for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Placeholder {
    /// `{name}`: the value of an axis or of a derived field.
    Value(String),
    /// `{repeat}`: the number of the repeat.
    Repeat,
    /// `{seed}`: the seed of the trial.
    Seed,
    /// `{seed.PURPOSE}`: the seed of a purpose that `seeds` may name.
    SeedOf(String),
    /// `{dir}`: the folder of the trial.
    Dir,
}

/// What the placeholders of a trial stand for, besides the values of its cell.
#[derive(Debug, Clone, Copy)]
pub struct TrialFacts<'a> {
    /// The streams of the trial, which know its repeat.
    pub streams: &'a Streams,
    /// The folder of the trial.
    pub dir: &'a str,
}

/// Names of placeholders that are no values of a cell, so that no axis may have them.
pub const RESERVED_PLACEHOLDERS: [&str; 3] = ["repeat", "seed", "dir"];

impl Placeholder {
    /// Parses the text between the braces.
    fn parse(name: &str) -> Result<Self, String> {
        match name {
            "repeat" => return Ok(Self::Repeat),
            "seed" => return Ok(Self::Seed),
            "dir" => return Ok(Self::Dir),
            "cell" => {
                return Err(
                    "{cell} is no placeholder, because the number of a cell is no part of what a trial is: name its axes"
                        .into(),
                );
            }
            "" => return Err("{} names nothing: write {name}, or {{}} for braces".into()),
            _ => {}
        }

        let Some(purpose) = name.strip_prefix("seed.") else {
            return match is_identifier(name) {
                true => Ok(Self::Value(name.to_owned())),
                false => Err(format!(
                    "{{{name}}} is no placeholder: write {{{{ and }}}} for braces"
                )),
            };
        };
        if find_purpose(purpose).is_none() {
            let purposes = NAMED_PURPOSES.iter().map(|(name, _)| *name);
            let hint = suggest_nearest(purpose, purposes);
            return Err(format!("there are no seeds for '{purpose}', {hint}"));
        }
        Ok(Self::SeedOf(purpose.to_owned()))
    }

    fn fill(&self, values: &[(String, ProgramValue)], facts: &TrialFacts<'_>) -> String {
        match self {
            Self::Value(name) => values
                .iter()
                .find(|(other, _)| other == name)
                .map_or_else(String::new, |(_, value)| value.to_string()),
            Self::Repeat => facts.streams.repeat.to_string(),
            Self::Seed => trial_seed(facts.streams).to_string(),
            Self::SeedOf(purpose) => find_purpose(purpose).map_or_else(String::new, |purpose| {
                seed_of_purpose(facts.streams, purpose).to_string()
            }),
            Self::Dir => facts.dir.to_owned(),
        }
    }
}

impl Template {
    /// Parses a text.
    ///
    /// # Errors
    /// A brace has no partner, or a placeholder is impossible. Names of values are not checked here.
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut pieces = Vec::new();
        let mut plain = String::new();
        let mut rest = text;
        while let Some(at) = rest.find(['{', '}']) {
            plain.push_str(&rest[..at]);
            let brace = &rest[at..=at];
            let behind = &rest[at + 1..];
            if let Some(doubled) = behind.strip_prefix(brace) {
                plain.push_str(brace);
                rest = doubled;
                continue;
            }

            let end = behind.find('}').filter(|_| brace == "{");
            let end = end.ok_or_else(|| {
                format!(
                    "a {brace} stands alone in {text:?}: write {brace}{brace} for the character"
                )
            })?;
            if !plain.is_empty() {
                pieces.push(Piece::Text(std::mem::take(&mut plain)));
            }
            pieces.push(Piece::Placeholder(Placeholder::parse(&behind[..end])?));
            rest = &behind[end + 1..];
        }

        plain.push_str(rest);
        if !plain.is_empty() {
            pieces.push(Piece::Text(plain));
        }
        Ok(Self(pieces))
    }

    /// The placeholders in their order.
    pub fn placeholders(&self) -> impl Iterator<Item = &Placeholder> {
        self.0.iter().filter_map(|piece| match piece {
            Piece::Placeholder(placeholder) => Some(placeholder),
            Piece::Text(_) => None,
        })
    }

    /// The text for one trial. A value that the cell lacks becomes nothing; reading a sweep file refuses such names.
    pub fn fill(&self, values: &[(String, ProgramValue)], facts: &TrialFacts<'_>) -> String {
        let pieces = self.0.iter().map(|piece| match piece {
            Piece::Text(text) => text.clone(),
            Piece::Placeholder(placeholder) => placeholder.fill(values, facts),
        });
        pieces.collect()
    }
}

/// The text as it is written in a sweep file.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for piece in &self.0 {
            match piece {
                Piece::Text(text) => {
                    let escaped = text.replace('{', "{{").replace('}', "}}");
                    f.write_str(&escaped)?;
                }
                Piece::Placeholder(Placeholder::Value(name)) => write!(f, "{{{name}}}")?,
                Piece::Placeholder(Placeholder::Repeat) => f.write_str("{repeat}")?,
                Piece::Placeholder(Placeholder::Seed) => f.write_str("{seed}")?,
                Piece::Placeholder(Placeholder::SeedOf(purpose)) => {
                    write!(f, "{{seed.{purpose}}}")?
                }
                Piece::Placeholder(Placeholder::Dir) => f.write_str("{dir}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use crate::program::template::*;

    #[test]
    fn a_template_is_written_as_it_was_read() {
        let texts = [
            "",
            "--lr={lr}",
            "{{{lr}}}",
            "{seed}{seed.init}{repeat}{dir}",
            "{{}}",
            "a b",
        ];
        for text in texts {
            let template = Template::parse(text).expect("a template");
            assert_eq!(template.to_string(), text);
        }
    }

    #[test]
    fn wrong_placeholders_say_what_to_write() {
        let refused = |text: &str| Template::parse(text).expect_err("a wrong template");
        assert_eq!(
            refused("a } b"),
            "a } stands alone in \"a } b\": write }} for the character"
        );
        assert_eq!(
            refused("{lr"),
            "a { stands alone in \"{lr\": write {{ for the character"
        );
        assert!(refused("{seed.innit}").contains("did you mean 'init'"));
        assert!(refused("{cell}").contains("name its axes"));
        assert!(refused("{}").contains("{{}}"));
    }
}
