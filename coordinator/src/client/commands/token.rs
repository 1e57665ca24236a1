//! `ergodic token`: creates, lists and revokes tokens.

use std::io::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Subcommand};
use ergodic_common::duration::parse_duration;
use ergodic_proto::status::UserError;
use ergodic_proto::token::TokenRole;
use ergodic_proto::v1;
use serde_json::{Value, json};

use crate::app::{CommandOutcome, print_output};
use crate::client::args::{ConnectionArgs, ListArgs};
use crate::client::render::{
    AtomicFile, TableData, TextFormat, file_write_error, render_human_rows, render_table_data,
};
use crate::client::status_text::format_duration;

/// `ergodic token`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Create a token and print it on stdout, alone; it cannot be shown again
    New(NewTokenArgs),
    /// List tokens, without their secrets
    List(ListArgs),
    /// Revoke a token: it is no longer accepted, and its sessions end
    Revoke(RevokeTokenArgs),
}

/// `ergodic token new`
#[derive(Debug, Args)]
pub struct NewTokenArgs {
    /// What its holder may do: worker, take leases and deliver results; user, launch, steer and read sweeps; admin, all that and manage
    /// tokens
    #[arg(long, value_name = "worker|user|admin", value_parser = parse_role)]
    pub role: TokenRole,
    /// Also let its holder have programs run (`[program]` of a sweep file): any command, on the workers that run programs
    #[arg(long)]
    pub programs: bool,
    /// Time until it expires, as in 30d [default: never]
    #[arg(long, value_parser = parse_duration, value_name = "TIME")]
    pub expires: Option<Duration>,
    /// Note that says what it is for
    #[arg(long, default_value = "")]
    pub note: String,
    /// File to write it to instead of stdout; only you may read the file
    #[arg(short, long, value_name = "FILE")]
    pub output: Option<PathBuf>,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

/// `ergodic token revoke`
#[derive(Debug, Args)]
pub struct RevokeTokenArgs {
    /// The token's id, as `ergodic token list` shows it
    pub id: String,
    #[command(flatten)]
    #[allow(missing_docs)]
    pub connection: ConnectionArgs,
}

fn parse_role(text: &str) -> Result<TokenRole, String> {
    TokenRole::from_name(text).ok_or_else(|| "expected worker, user or admin".to_owned())
}

/// Makes, lists or revokes tokens.
///
/// # Errors
/// The caller may not do it, there is no such token, a file cannot be written, or nobody answers.
pub async fn run_token(command: TokenCommand) -> Result<CommandOutcome, UserError> {
    match command {
        TokenCommand::New(args) => create_token(args).await,
        TokenCommand::List(args) => list_tokens(args).await,
        TokenCommand::Revoke(args) => revoke_token(args).await,
    }
}

/// Prints a new token, or writes it to a file.
async fn create_token(args: NewTokenArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.connection.connect().await?;
    // The file is created first, because a token that cannot be written is lost.
    let file = match &args.output {
        Some(path) => {
            let file =
                AtomicFile::create_private_new(path).map_err(|e| file_write_error(path, &e))?;
            Some((path, file))
        }
        None => None,
    };

    let request = v1::NewTokenRequest {
        role: args.role.name().to_owned(),
        expires_in_seconds: args.expires.map_or(0, |time| time.as_secs().max(1)),
        note: args.note,
        programs: args.programs,
    };
    let made = client
        .call(async |client| client.admin.new_token(request).await)
        .await?;
    let Some((path, mut file)) = file else {
        return print_output(format!("{}\n", made.token));
    };

    writeln!(file, "{}", made.token)
        .and_then(|()| file.finish())
        .map_err(|e| file_write_error(path, &e))?;
    Ok(CommandOutcome::Done)
}

async fn list_tokens(args: ListArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.connection.connect().await?;
    let response = client
        .call(async |client| client.admin.list_tokens(v1::ListTokensRequest {}).await)
        .await?;

    let now = std::time::SystemTime::now()
        .duration_since(std::time::UNIX_EPOCH)
        .unwrap_or_default()
        .as_secs();
    let rows = response
        .tokens
        .iter()
        .map(|token| build_token_row(token, now, args.format))
        .collect();
    let data = TableData::from_rows(&["id", "role", "made", "expires", "note"], rows);

    print_output(render_table_data(&data, args.format, |data| {
        render_human_rows(&data.columns, &data.rows)
    }))
}

/// Builds a row of the list, with ages at `now`, in seconds since 1970, for people, and times for
/// machines.
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
        json!(match token.programs {
            true => format!("{}, programs", token.role),
            false => token.role.clone(),
        }),
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

async fn revoke_token(args: RevokeTokenArgs) -> Result<CommandOutcome, UserError> {
    let mut client = args.connection.connect().await?;
    let request = v1::RevokeTokenRequest { id: args.id };
    client
        .call(async |client| client.admin.revoke_token(request).await)
        .await?;
    Ok(CommandOutcome::Done)
}
