//! What a program says of its build for `--version`.

use std::fmt::Write as _;

use crate::BUILD;

/// Facts of a build beside [`BUILD`].
#[derive(Debug, Clone)]
pub struct BuildFacts<'a> {
    /// The git revision of the sources; empty if the build did not know it.
    pub revision: &'a str,
    /// The day of the revision, as in `2026-11-29`; empty if the build did not know it.
    pub date: &'a str,
    /// The platform that the program is for, as in `x86_64-unknown-linux-gnu`.
    pub target: &'a str,
    /// Whether the C library is part of the program.
    pub is_static: bool,
    /// Version of the protocol between coordinator, workers and clients.
    pub protocol: u32,
    /// Versions of the store's schema, by the name of the database; empty for a program without a store.
    pub schemas: &'a [(&'a str, usize)],
    /// Numerics classes of the trials that the program knows how to run or read.
    pub numerics: &'a [&'a str],
    /// Optional features that the program was built with.
    pub features: &'a [&'a str],
}

impl BuildFacts<'_> {
    /// The version in its long form: the first line is [`BUILD`], each other one names a fact.
    pub fn format_version(&self) -> String {
        let mut text = BUILD.to_owned();
        let mut add = |name: &str, fact: &str| {
            let _ = write!(text, "\n{name}: {fact}");
        };

        add("revision", &self.format_revision());
        add("protocol", &self.protocol.to_string());
        if !self.schemas.is_empty() {
            let schemas = self.schemas.iter();
            let schemas = schemas.map(|(database, version)| format!("{version} ({database})"));
            add("store schema", &schemas.collect::<Vec<_>>().join(", "));
        }
        add("numerics", &join_or_none(self.numerics));
        add("features", &join_or_none(self.features));
        let linked = if self.is_static { ", static" } else { "" };
        add("target", &format!("{}{linked}", self.target));

        text
    }

    fn format_revision(&self) -> String {
        match (self.revision, self.date) {
            ("", _) => "unknown".to_owned(),
            (revision, "") => revision.to_owned(),
            (revision, date) => format!("{revision} of {date}"),
        }
    }
}

fn join_or_none(words: &[&str]) -> String {
    if words.is_empty() {
        "none".to_owned()
    } else {
        words.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use crate::build_facts::*;

    #[test]
    fn each_fact_has_a_line_and_what_is_not_known_is_said() {
        let full = BuildFacts {
            revision: "0123456789ab-dirty",
            date: "2026-11-29",
            target: "x86_64-unknown-linux-gnu",
            is_static: true,
            protocol: 2,
            schemas: &[("SQLite", 11), ("PostgreSQL", 7)],
            numerics: &["cpu-f32/6", "cuda-f32/2"],
            features: &["sql"],
        };
        assert_eq!(
            full.format_version(),
            format!(
                "{BUILD}\nrevision: 0123456789ab-dirty of 2026-11-29\nprotocol: 2\n\
                 store schema: 11 (SQLite), 7 (PostgreSQL)\nnumerics: cpu-f32/6, cuda-f32/2\nfeatures: sql\n\
                 target: x86_64-unknown-linux-gnu, static"
            )
        );

        let undated = BuildFacts { date: "", ..full };
        assert!(
            undated
                .format_version()
                .contains("\nrevision: 0123456789ab-dirty\n")
        );

        let bare = BuildFacts {
            revision: "",
            is_static: false,
            schemas: &[],
            features: &[],
            ..undated
        };
        let said = bare.format_version();
        assert!(said.contains("\nrevision: unknown\n") && !said.contains("schema"));
        assert!(said.contains("\nfeatures: none\n") && said.ends_with("linux-gnu"));
    }
}
