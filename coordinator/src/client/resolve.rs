//! Which sweep a word means: its name, its id, a prefix of the id, or how many launches ago it was launched.

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_proto::status::UserError;
use ergodic_proto::v1;

/// The word for the user's own last sweep.
pub(super) const LATEST: &str = "latest";
/// Maximum number of sweeps that a message lists.
const MAX_LISTED_SWEEPS: usize = 5;

/// A sweep that a word means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct MatchedSweep<'a> {
    /// The id of the sweep.
    pub(super) id: &'a str,
    /// Why the word means it.
    pub(super) by: MatchedBy,
}

/// Why a word means a sweep.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum MatchedBy {
    /// The word is the id of the sweep, or begins no other one.
    Id,
    /// The word is the name of the sweep, which `count` sweeps have; the user's own if `is_own`.
    Name { count: usize, is_own: bool },
    /// The word counts launches, of the user's own sweeps if `is_own`.
    Launch { is_own: bool },
}

/// Who asks, and where.
#[derive(Debug, Clone, Copy)]
pub(super) struct Asker<'a> {
    /// The user's name as the coordinator knows it; empty if it knows no users.
    pub(super) principal: &'a str,
    /// Whether the sweeps of others count as the user's own if there are no others: a store without a coordinator may come from
    /// another machine, where the same person has another name.
    pub(super) takes_others: bool,
}

impl Asker<'_> {
    fn owns(&self, sweep: &v1::SweepStatus) -> bool {
        self.principal.is_empty()
            || sweep.launched_by.is_empty()
            || sweep.launched_by == self.principal
    }
}

/// The number of launches before the last one that `latest` or `latest~2` names; `None` for any other word.
///
/// # Errors
/// What follows `latest~` is no number.
pub(super) fn parse_launches_ago(word: &str) -> Result<Option<usize>, UserError> {
    let Some(rest) = word.strip_prefix(LATEST) else {
        return Ok(None);
    };
    let Some(number) = rest.strip_prefix('~') else {
        return Ok(rest.is_empty().then_some(0));
    };

    number.parse().map(Some).map_err(|_| {
        let message = format!(
            "'{}': expected a number after latest~, as in latest~1, the sweep before the last one",
            escape_line(word)
        );
        UserError::new(ErrorCode::BadInput, message)
    })
}

/// The sweep that `word` means, among all, from the oldest to the newest. An id goes before a name, and a name before a prefix of an id.
/// Of several sweeps with a name, the user's own last one is meant or, if none is theirs, the last one.
///
/// # Errors
/// No sweep is meant, or several are.
pub(super) fn match_sweep<'a>(
    sweeps: &'a [v1::SweepStatus],
    word: &str,
    asker: &Asker<'_>,
) -> Result<MatchedSweep<'a>, UserError> {
    if let Some(ago) = parse_launches_ago(word)? {
        return match_launch(sweeps, ago, asker);
    }
    if let Some(sweep) = sweeps.iter().find(|sweep| sweep.id == word) {
        return Ok(matched(sweep, MatchedBy::Id));
    }

    let named = || sweeps.iter().filter(|sweep| sweep.name == word);
    let own = named().rfind(|sweep| asker.owns(sweep));
    if let Some(sweep) = own.or_else(|| named().next_back()) {
        let by = MatchedBy::Name {
            count: named().count(),
            is_own: own.is_some(),
        };
        return Ok(matched(sweep, by));
    }

    let begun: Vec<&v1::SweepStatus> = sweeps
        .iter()
        .filter(|sweep| !word.is_empty() && sweep.id.starts_with(word))
        .collect();
    match begun[..] {
        [sweep] => Ok(matched(sweep, MatchedBy::Id)),
        [] => Err(unknown_sweep_error(sweeps, word)),
        _ => {
            let message = format!(
                "'{word}' is ambiguous: the ids of {} begin with it; give more characters",
                list_newest(begun.iter().copied(), format_named_sweep)
            );
            Err(UserError::new(ErrorCode::NotFound, message))
        }
    }
}

fn matched(sweep: &v1::SweepStatus, by: MatchedBy) -> MatchedSweep<'_> {
    MatchedSweep { id: &sweep.id, by }
}

/// The sweep that was launched `ago` launches before the user's last one.
fn match_launch<'a>(
    sweeps: &'a [v1::SweepStatus],
    ago: usize,
    asker: &Asker<'_>,
) -> Result<MatchedSweep<'a>, UserError> {
    let own = || sweeps.iter().filter(|sweep| asker.owns(sweep));
    if own().next().is_none() && asker.takes_others && !sweeps.is_empty() {
        let sweep = sweeps.iter().rev().nth(ago);
        return sweep
            .map(|sweep| matched(sweep, MatchedBy::Launch { is_own: false }))
            .ok_or_else(|| too_few_error(sweeps.iter(), ago));
    }

    match own().rev().nth(ago) {
        Some(sweep) => Ok(matched(sweep, MatchedBy::Launch { is_own: true })),
        None if sweeps.is_empty() => Err(UserError::new(
            ErrorCode::NotFound,
            "there is no sweep yet: launch one",
        )),
        None if own().next().is_none() => {
            let message = format!(
                "latest: {} has launched no sweep here; other users' sweeps are {}: name one by its id",
                escape_line(asker.principal),
                list_newest(sweeps.iter(), format_owned_sweep)
            );
            Err(UserError::new(ErrorCode::NotFound, message))
        }
        None => Err(too_few_error(own(), ago)),
    }
}

fn too_few_error<'a>(
    sweeps: impl DoubleEndedIterator<Item = &'a v1::SweepStatus>,
    ago: usize,
) -> UserError {
    let message = format!(
        "latest~{ago} goes back beyond the first sweep; there are {}",
        list_newest(sweeps, format_named_sweep)
    );
    UserError::new(ErrorCode::NotFound, message)
}

fn unknown_sweep_error(sweeps: &[v1::SweepStatus], word: &str) -> UserError {
    let newest = match sweeps.is_empty() {
        true => String::new(),
        false => format!(
            "; the last are {}",
            list_newest(sweeps.iter(), format_named_sweep)
        ),
    };
    let message = format!("there is no sweep '{}'{newest}", escape_line(word));
    UserError::new(ErrorCode::NotFound, message)
}

/// Lists some sweeps, the newest first.
fn list_newest<'a>(
    sweeps: impl DoubleEndedIterator<Item = &'a v1::SweepStatus>,
    format: impl Fn(&v1::SweepStatus) -> String,
) -> String {
    let mut newest_first = sweeps.rev();
    let named: Vec<String> = newest_first
        .by_ref()
        .take(MAX_LISTED_SWEEPS)
        .map(format)
        .collect();
    let more = if newest_first.next().is_some() {
        ", …"
    } else {
        ""
    };
    format!("{}{more}", named.join(", "))
}

/// Formats `abcdefgh (lr-wd)`.
fn format_named_sweep(sweep: &v1::SweepStatus) -> String {
    format!("{} ({})", sweep.id, escape_line(&sweep.name))
}

/// Formats `abcdefgh (lr-wd) by anna@lab`.
fn format_owned_sweep(sweep: &v1::SweepStatus) -> String {
    let by = escape_line(&sweep.launched_by);
    format!("{} by {by}", format_named_sweep(sweep))
}

#[cfg(test)]
mod tests {
    use crate::client::resolve::*;

    fn sweep(id: &str, name: &str, by: &str) -> v1::SweepStatus {
        v1::SweepStatus {
            id: id.into(),
            name: name.into(),
            launched_by: by.into(),
            ..v1::SweepStatus::default()
        }
    }

    fn shared_sweeps() -> Vec<v1::SweepStatus> {
        vec![
            sweep("aaaa1111", "lr", "anna@lab"),
            sweep("bbbb2222", "lr", ""),
            sweep("aacc3333", "lr", "ben@lab"),
            sweep("lr000000", "wd", "anna@lab"),
            sweep("eeee5555", "aaaa1111", "ben@lab"),
        ]
    }

    fn find(word: &str, principal: &str) -> Result<(String, MatchedBy), UserError> {
        let asker = Asker {
            principal,
            takes_others: false,
        };
        match_sweep(&shared_sweeps(), word, &asker).map(|found| (found.id.to_owned(), found.by))
    }

    fn named(count: usize, is_own: bool) -> MatchedBy {
        MatchedBy::Name { count, is_own }
    }

    #[test]
    fn an_id_goes_before_a_name_and_a_name_before_a_prefix() {
        let cases = [
            ("aaaa1111", "aaaa1111", MatchedBy::Id),
            ("lr", "bbbb2222", named(3, true)),
            ("wd", "lr000000", named(1, true)),
            ("lr0", "lr000000", MatchedBy::Id),
            ("e", "eeee5555", MatchedBy::Id),
        ];
        for (word, id, by) in cases {
            assert_eq!(find(word, "anna@lab"), Ok((id.to_owned(), by)), "{word}");
        }
        assert_eq!(
            find("lr", "ben@lab"),
            Ok(("aacc3333".to_owned(), named(3, true)))
        );
        assert_eq!(
            find("wd", "ben@lab"),
            Ok(("lr000000".to_owned(), named(1, false)))
        );
        assert_eq!(
            find("aaaa1111", ""),
            Ok(("aaaa1111".to_owned(), MatchedBy::Id))
        );
    }

    #[test]
    fn what_is_ambiguous_or_unknown_is_told_with_what_there_is() {
        let ambiguous = find("aa", "anna@lab").expect_err("two begin with it");
        assert_eq!(
            ambiguous.message,
            "'aa' is ambiguous: the ids of aacc3333 (lr), aaaa1111 (lr) begin with it; give more characters"
        );
        for word in ["", "zz", "Latest", "latestish", "\u{1b}[2J"] {
            let unknown = find(word, "anna@lab").expect_err("none has it");
            assert_eq!(unknown.code, ErrorCode::NotFound);
            assert!(unknown.message.contains("the last are eeee5555 (aaaa1111)"));
            assert!(!unknown.message.contains('\u{1b}'));
        }
        for word in ["latest~", "latest~x", "latest~-1"] {
            let error = find(word, "anna@lab").expect_err("no number");
            assert_eq!(error.code, ErrorCode::BadInput, "{word}");
        }
    }

    #[test]
    fn the_latest_is_ones_own_and_so_is_the_one_before() {
        let id = |word: &str, who: &str| find(word, who).map(|(id, _)| id);
        assert_eq!(id("latest", "anna@lab").as_deref(), Ok("lr000000"));
        assert_eq!(id("latest~0", "anna@lab").as_deref(), Ok("lr000000"));
        assert_eq!(id("latest~2", "anna@lab").as_deref(), Ok("aaaa1111"));
        assert_eq!(id("latest", "ben@lab").as_deref(), Ok("eeee5555"));
        assert_eq!(id("latest", "cora@lab").as_deref(), Ok("bbbb2222"));
        assert_eq!(id("latest~1", "").as_deref(), Ok("lr000000"));

        let few = id("latest~3", "anna@lab").expect_err("there are three");
        assert_eq!(
            few.message,
            "latest~3 goes back beyond the first sweep; there are lr000000 (wd), bbbb2222 (lr), aaaa1111 (lr)"
        );
    }

    #[test]
    fn others_sweeps_are_the_latest_only_where_a_store_is_read() {
        let all = shared_sweeps();
        let mut asker = Asker {
            principal: "cora@lab",
            takes_others: false,
        };
        let others = match_sweep(&all[2..], LATEST, &asker).expect_err("these are of others");
        assert!(
            others
                .message
                .contains("cora@lab has launched no sweep here")
        );
        assert!(
            others
                .message
                .contains("eeee5555 (aaaa1111) by ben@lab, lr000000 (wd) by anna@lab")
        );

        asker.takes_others = true;
        let found = match_sweep(&all[2..], LATEST, &asker).expect("the last one");
        assert_eq!(
            (found.id, found.by),
            ("eeee5555", MatchedBy::Launch { is_own: false })
        );
        let none = match_sweep(&[], LATEST, &asker).expect_err("there is none");
        assert_eq!(none.code, ErrorCode::NotFound);
    }
}
