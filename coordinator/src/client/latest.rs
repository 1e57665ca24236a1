//! The word "latest": the sweep that the user launched last. Commands that change the sweep name it
//! and ask for confirmation.

use std::io::{BufRead as _, IsTerminal as _, Write as _};
use std::time::{SystemTime, UNIX_EPOCH};

use ergodic_common::ErrorCode;
use ergodic_common::escape::escape_line;
use ergodic_proto::identity::host_name;
use ergodic_proto::status::UserError;
use ergodic_proto::{USER_METADATA, v1};
use tonic::Request;
use tonic::metadata::MetadataValue;

use super::Client;
use super::query::{query_status, query_sweeps};
use super::render::print_stderr_line;
use super::status_text::{count_done_trials, format_duration, state_word};

/// The word for the user's own last sweep.
const LATEST: &str = "latest";
/// Maximum number of other users' sweeps that a message lists.
const MAX_NAMED_SWEEPS: usize = 5;

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

/// The id of the sweep for a read-only command; "latest" means the user's last one.
///
/// # Errors
/// The user launched none, or the coordinator does not respond.
pub async fn resolve_sweep_id(client: &mut Client, id: &str) -> Result<String, UserError> {
    if id != LATEST {
        return Ok(id.to_owned());
    }

    let request = request_as_user(v1::InfoRequest {});
    let info = client
        .call(async |client| client.sweeps.info(request).await)
        .await?;

    // Older coordinators know no users, so their latest sweep is anybody's.
    if info.principal.is_empty() {
        return Ok(id.to_owned());
    }

    find_own_latest(&query_sweeps(client).await?, &info.principal)
}

/// Finds the newest sweep that the principal launched, or that has no known owner.
fn find_own_latest(sweeps: &[v1::SweepStatus], principal: &str) -> Result<String, UserError> {
    let mut newest_first = sweeps.iter().rev();
    let own =
        newest_first.find(|sweep| sweep.launched_by == principal || sweep.launched_by.is_empty());
    if let Some(own) = own {
        return Ok(own.id.clone());
    }

    if sweeps.is_empty() {
        return Err(UserError::new(
            ErrorCode::NotFound,
            "there is no sweep yet: launch one",
        ));
    }

    let named: Vec<String> = sweeps
        .iter()
        .rev()
        .take(MAX_NAMED_SWEEPS)
        .map(format_owned_sweep)
        .collect();
    let more = if sweeps.len() > named.len() {
        ", …"
    } else {
        ""
    };
    let message = format!(
        "latest: {} has launched no sweep here; other users' sweeps are {}{more}: name one by its id",
        escape_line(principal),
        named.join(", ")
    );

    Err(UserError::new(ErrorCode::NotFound, message))
}

/// Formats `abcdefgh (lr-wd) by anna@lab`.
fn format_owned_sweep(sweep: &v1::SweepStatus) -> String {
    format!(
        "{} ({}) by {}",
        sweep.id,
        escape_line(&sweep.name),
        escape_line(&sweep.launched_by)
    )
}

/// The id of the sweep for a command that changes it. "latest" is named, and must be confirmed by
/// `--yes` or on a terminal.
///
/// # Errors
/// "latest" was not confirmed; otherwise as for [`resolve_sweep_id`].
pub async fn resolve_sweep_to_change(
    client: &mut Client,
    id: &str,
    command: &str,
    yes: bool,
) -> Result<String, UserError> {
    if id != LATEST {
        return Ok(id.to_owned());
    }

    let id = resolve_sweep_id(client, id).await?;
    let status = query_status(client, &id).await?;
    let what = describe_sweep(&status);

    if yes {
        print_stderr_line(&format!("latest is {what}"));
        return Ok(status.id);
    }

    if !(std::io::stdin().is_terminal() && std::io::stderr().is_terminal()) {
        let message = format!(
            "latest is {what}: name it by its id, `ergodic {command} {}`, or use --yes",
            status.id
        );
        return Err(UserError::new(ErrorCode::BadInput, message));
    }

    match is_confirmed_by_user(&format!("{command} {what}?")) {
        true => Ok(status.id),
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
        "{} ({}), {}, {} of {} trials done, launched {} ago{by}",
        status.id,
        escape_line(&status.name),
        state_word(status.state()),
        count_done_trials(status),
        status.trials,
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

    fn sweep(id: &str, by: &str) -> v1::SweepStatus {
        v1::SweepStatus {
            id: id.into(),
            name: "lr".into(),
            launched_by: by.into(),
            ..v1::SweepStatus::default()
        }
    }

    #[test]
    fn the_latest_is_ones_own() {
        let sweeps = [
            sweep("a", "anna@lab"),
            sweep("b", ""),
            sweep("c", "ben@lab"),
            sweep("d", "anna@lab"),
            sweep("e", "ben@lab"),
        ];
        assert_eq!(
            find_own_latest(&sweeps, "anna@lab").ok().as_deref(),
            Some("d")
        );

        assert_eq!(
            find_own_latest(&sweeps, "ben@lab").ok().as_deref(),
            Some("e")
        );
        assert_eq!(
            find_own_latest(&sweeps, "cora@lab").ok().as_deref(),
            Some("b"),
            "nobody knows whose it is"
        );

        let others = find_own_latest(&sweeps[2..], "cora@lab")
            .expect_err("these are of others")
            .message;
        assert!(
            others.contains("cora@lab has launched no sweep here")
                && others.contains("e (lr) by ben@lab, d (lr) by anna@lab")
        );

        assert_eq!(
            find_own_latest(&[], "cora@lab").map_err(|e| e.code),
            Err(ErrorCode::NotFound)
        );
    }
}
