//! `ergodic token`: making, listing and revoking what opens a coordinator's door.

use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use ergodic_proto::status::UserError;
use ergodic_proto::token::TokenRole;
use ergodic_proto::v1;
use serde_json::json;

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
    // What cannot be written is not made.
    let new = |path| AtomicFile::create_private_new(path).map_err(|e| file_write_error(path, &e));
    let file = output
        .map(|path| new(path).map(|file| (path, file)))
        .transpose()?;
    let expires_in_seconds = expires.map_or(0, |time| time.as_secs().max(1));
    let request = v1::NewTokenRequest {
        role: role.name().to_owned(),
        expires_in_seconds,
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
    let kept = writeln!(file, "{}", made.token).and_then(|()| file.finish());

    kept.map(|_| String::new())
        .map_err(|e| file_write_error(path, &e))
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
    let ends = |at: u64| match at {
        0 => "never".to_owned(),
        at if at <= now => "ended".to_owned(),
        at => format!("in {}", format_duration((at - now) as f64)),
    };
    let row = |token: v1::TokenRecord| {
        let age = format!(
            "{} ago",
            format_duration(now.saturating_sub(token.created_at) as f64)
        );
        let (made, expires) = match format {
            TextFormat::Table => (json!(age), json!(ends(token.expires_at))),
            _ => (
                json!(token.created_at),
                json!((token.expires_at > 0).then_some(token.expires_at)),
            ),
        };

        vec![
            json!(token.id),
            json!(token.role),
            made,
            expires,
            json!(token.note),
        ]
    };
    let rows = response.into_inner().tokens.into_iter().map(row).collect();
    let records = TableData::from_rows(&["id", "role", "made", "expires", "note"], rows);

    Ok(render_table_data(&records, format, |r| {
        render_human_rows(&r.columns, &r.rows)
    }))
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
