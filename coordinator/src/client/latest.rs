//! Finds the sweep that a word means. Commands that change the sweep name it and ask for confirmation where the word leaves a doubt.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_common::ids::SweepId;
use ergodic_common::number_format::format_count;
use ergodic_proto::identity::host_name;
use ergodic_proto::status::UserError;
use ergodic_proto::{USER_METADATA, v1};
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::Client;
use super::query::{query_status, query_sweeps};
use super::render::print_stderr_line;
use super::resolve::{Asker, MatchedBy, match_sweep, parse_launches_ago};
use super::status_text::{count_done_trials, format_duration, state_word};

/// A request that names its user, for coordinators without tokens.
pub fn request_as_user<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    request.metadata_mut().insert_bin(
        USER_METADATA,
        MetadataValue::from_bytes(user_at_host().as_bytes()),
    );
    request
}

fn user_at_host() -> String {
    let named = ["USER", "LOGNAME"]
        .iter()
        .find_map(|name| std::env::var(name).ok().filter(|user| !user.is_empty()));
    let user = named.unwrap_or_else(|| format!("uid-{}", rustix::process::getuid().as_raw()));
    let host = host_name();
    if host.is_empty() {
        user
    } else {
        format!("{user}@{host}")
    }
}

/// The id of the sweep that a command reads, given its name, its id, a prefix of the id, or how many launches ago it was launched.
///
/// # Errors
/// No sweep is meant, or several are, or the coordinator does not respond.
pub async fn resolve_sweep_id(client: &mut Client, word: &str) -> Result<SweepId, UserError> {
    let resolved = resolve_sweep(client, word).await?;
    if let Some(note) = describe_choice(word, &resolved) {
        print_stderr_line(&note);
    }
    Ok(resolved.id)
}

/// A sweep, and why a word means it.
struct ResolvedSweep {
    id: SweepId,
    by: MatchedBy,
}

/// Tells which of several sweeps a word was taken to mean, if the user may have meant another one.
fn describe_choice(word: &str, resolved: &ResolvedSweep) -> Option<String> {
    let id = &resolved.id;
    match resolved.by {
        MatchedBy::Name { count, is_own } if count > 1 => Some(format!(
            "{} is {id}, {}",
            escape_line(word),
            describe_namesakes(count, is_own)
        )),
        MatchedBy::Launch { is_own: false } => Some(format!(
            "{} is {id}, which another user launched: none of yours is here",
            escape_line(word)
        )),
        MatchedBy::Id | MatchedBy::Name { .. } | MatchedBy::Launch { is_own: true } => None,
    }
}

fn describe_namesakes(count: usize, is_own: bool) -> String {
    let whose = if is_own { "your last" } else { "the last" };
    format!("{whose} of {count} sweeps with this name")
}

async fn resolve_sweep(client: &mut Client, word: &str) -> Result<ResolvedSweep, UserError> {
    // A whole id, which most programs give, does not need the list of all sweeps.
    if let Some(id) = SweepId::parse(word) {
        let is_known = match query_status(client, word).await {
            Ok(status) => status.id == word,
            // Whoever may not see sweeps is told what else is not allowed by the request that follows.
            Err(error) => error.code == ErrorCode::Refused,
        };
        if is_known {
            let by = MatchedBy::Id;
            return Ok(ResolvedSweep { id, by });
        }
    }
    parse_launches_ago(word)?;

    let request = request_as_user(v1::InfoRequest {});
    let info = client
        .call(async |client| client.sweeps.info(request).await)
        .await?;
    // Older coordinators know no users: all sweeps are anybody's then.
    let asker = Asker {
        principal: &info.principal,
        takes_others: client.is_on_store(),
    };

    let sweeps = query_sweeps(client).await?;
    let error = match match_sweep(&sweeps, word, &asker) {
        Ok(found) => {
            let by = found.by;
            let id = found.id.into();
            return Ok(ResolvedSweep { id, by });
        }
        Err(error) => error,
    };

    // A standby may not know a sweep that was launched a moment ago; it asks the leader for a single one.
    let begins_id = !info.leader.is_empty() && error.code == ErrorCode::NotFound;
    if begins_id
        && parse_launches_ago(word)?.is_none()
        && let Ok(status) = query_status(client, word).await
    {
        let id = status.sweep_id();
        return Ok(ResolvedSweep {
            id,
            by: MatchedBy::Id,
        });
    }

    let is_first = sweeps.is_empty() && parse_launches_ago(word)?.is_some();
    match error.code == ErrorCode::NotFound && !is_first {
        true => {
            let message = format!("{}; `ergodic list` shows all", error.message);
            Err(UserError::new(ErrorCode::NotFound, message))
        }
        false => Err(error),
    }
}

/// The id of the sweep for a command that changes it. What "latest" is, and which of several sweeps with a name is meant, must be
/// confirmed by `--yes` or on a terminal.
///
/// # Errors
/// The sweep was not confirmed; otherwise as for [`resolve_sweep_id`].
pub async fn resolve_sweep_to_change(
    client: &mut Client,
    word: &str,
    command: &str,
    yes: bool,
) -> Result<SweepId, UserError> {
    let resolved = resolve_sweep(client, word).await?;
    let among = match resolved.by {
        MatchedBy::Id
        | MatchedBy::Name {
            count: ..=1,
            is_own: true,
        } => return Ok(resolved.id),
        MatchedBy::Name { count: ..=1, .. } => ", of another user".to_owned(),
        MatchedBy::Name { count, is_own } => format!(", {}", describe_namesakes(count, is_own)),
        MatchedBy::Launch { .. } => String::new(),
    };

    let status = query_status(client, &resolved.id).await?;
    let what = describe_sweep(&status) + &among;
    let word = escape_line(word);
    if yes {
        print_stderr_line(&format!("{word} is {what}"));
        return Ok(status.sweep_id());
    }

    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let message = format!(
            "{word} is {what}: name it by its id, `ergodic {command} {}`, or use --yes",
            status.id
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    match is_confirmed_by_user(&format!("{command} {what}?")) {
        true => Ok(status.sweep_id()),
        false => Err(UserError::new(ErrorCode::Refused, "nothing was changed")),
    }
}

/// Formats `abcdefgh (lr-wd), completed, 45 of 45 trials done, launched 3m 20s ago by anna@lab`.
fn describe_sweep(status: &v1::SweepStatus) -> String {
    let now = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0.0, |d| d.as_secs_f64());
    let by = if status.launched_by.is_empty() {
        String::new()
    } else {
        format!(" by {}", escape_line(&status.launched_by))
    };

    format!(
        "{} ({}), {}, {} of {} done, launched {} ago{by}",
        status.id,
        escape_line(&status.name),
        state_word(status.state()),
        count_done_trials(status),
        format_count(status.trials, "trial"),
        format_duration(now - status.launched_at)
    )
}

fn is_confirmed_by_user(question: &str) -> bool {
    let mut terminal = std::io::stderr();
    let mut answer = String::new();
    let read = write!(terminal, "{question} [y/N] ")
        .and_then(|()| terminal.flush())
        .and_then(|()| std::io::stdin().lock().read_line(&mut answer));
    read.is_ok() && matches!(answer.trim().to_lowercase().as_str(), "y" | "yes")
}

#[cfg(test)]
mod tests {
    use crate::client::latest::*;

    #[test]
    fn a_choice_among_several_sweeps_is_told() {
        let told = |by| {
            let id = "aaaa1111".into();
            describe_choice("lr", &ResolvedSweep { id, by })
        };
        let named = |count| MatchedBy::Name {
            count,
            is_own: true,
        };
        assert_eq!(told(MatchedBy::Id), None);
        assert_eq!(told(named(1)), None);
        assert_eq!(told(MatchedBy::Launch { is_own: true }), None);
        assert_eq!(
            told(named(3)).as_deref(),
            Some("lr is aaaa1111, your last of 3 sweeps with this name")
        );
        assert!(told(MatchedBy::Launch { is_own: false }).is_some());
    }
}
