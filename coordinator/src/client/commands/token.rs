//! `ergodic token`: making, listing and revoking the tokens that a coordinator admits.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use ergodic_proto::status::UserError;
use ergodic_proto::token::TokenRole;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::client::Client;
use crate::client::render::{
    AtomicFile, TableData, TextFormat, file_write_error, render_human_rows, render_table_data,
};
use crate::client::status_text::format_duration;

/// `ergodic token new`: the token for stdout, or nothing if it went to a file.
///
/// # Errors
/// The caller may not make tokens, the file cannot be written or is there already, or nobody answers.
pub async fn create_token(
    client: &mut Client,
    role: TokenRole,
    expires: Option<Duration>,
    note: &str,
    output: Option<&Path>,
) -> Result<String, UserError> {
    // A token that could not be written would be lost.
    let file = match output {
        Some(path) => {
            let file =
                AtomicFile::create_private_new(path).map_err(|e| file_write_error(path, &e))?;
            Some((path, file))
        }
        None => None,
    };

    let request = v1::NewTokenRequest {
        role: role.name().to_owned(),
        expires_in_seconds: expires.map_or(0, |time| time.as_secs().max(1)),
        note: note.to_owned(),
    };
    let made = client
        .admin
        .new_token(request)
        .await
        .map_err(|e| client.to_user_error(&e))?
        .into_inner();
    let Some((path, mut file)) = file else {
        return Ok(format!("{}\n", made.token));
    };

    writeln!(file, "{}", made.token)
        .and_then(|()| file.finish())
        .map_err(|e| file_write_error(path, &e))?;
    Ok(String::new())
}

/// `ergodic token list`
///
/// # Errors
/// The caller may not see tokens, or nobody answers.
pub async fn list_tokens(client: &mut Client, format: TextFormat) -> Result<String, UserError> {
    let response = client
        .admin
        .list_tokens(v1::ListTokensRequest {})
        .await
        .map_err(|e| client.to_user_error(&e))?;

    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let tokens = response.into_inner().tokens;
    let rows = tokens
        .iter()
        .map(|token| build_token_row(token, now, format))
        .collect();
    let data = TableData::from_rows(&["id", "role", "made", "expires", "note"], rows);

    Ok(render_table_data(&data, format, |data| {
        render_human_rows(&data.columns, &data.rows)
    }))
}

/// A row of the list: ages at `now`, in seconds since 1970, for people, and times for machines.
fn build_token_row(token: &v1::TokenRecord, now: u64, format: TextFormat) -> Vec<Value> {
    let (made, expires) = match format {
        TextFormat::Table => {
            let age = format_duration(now.saturating_sub(token.created_at) as f64);
            let expires = format_expiry(token.expires_at, now);
            (json!(format!("{age} ago")), json!(expires))
        }
        _ => {
            let expires = (token.expires_at > 0).then_some(token.expires_at);
            (json!(token.created_at), json!(expires))
        }
    };

    vec![
        json!(token.id),
        json!(token.role),
        made,
        expires,
        json!(token.note),
    ]
}

fn format_expiry(at: u64, now: u64) -> String {
    match at {
        0 => "never".to_owned(),
        at if at <= now => "ended".to_owned(),
        at => format!("in {}", format_duration((at - now) as f64)),
    }
}

/// `ergodic token revoke`
///
/// # Errors
/// There is no such token, the caller may not revoke it, or nobody answers.
pub async fn revoke_token(client: &mut Client, id: &str) -> Result<(), UserError> {
    let request = v1::RevokeTokenRequest { id: id.to_owned() };
    client
        .admin
        .revoke_token(request)
        .await
        .map(|_| ())
        .map_err(|e| client.to_user_error(&e))
}
