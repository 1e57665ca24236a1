//! `AdminService`: tokens and backups.

use std::sync::Arc;
use std::time::Duration;

use ergodic_common::ErrorCode;
use ergodic_proto::status::UserError;
use ergodic_proto::token::TokenRole;
use ergodic_proto::v1;
use ergodic_proto::v1::admin_service_server::AdminService;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use crate::server::auth::{Principal, StoredToken, TokenRights, TokenStore};
use crate::server::{ServerContext, backup};

/// Maximum length of a note, in bytes.
const MAX_NOTE_BYTES: usize = 200;

pub(crate) struct AdminApi {
    pub(crate) tokens: Option<Arc<TokenStore>>,
    pub(crate) context: Arc<ServerContext>,
}

impl AdminApi {
    fn require_tokens(&self) -> Result<Arc<TokenStore>, Status> {
        self.tokens.clone().ok_or_else(|| {
            let message = "this coordinator does not use tokens: start it with --secure, or listen beyond loopback";
            Status::from(UserError::new(ErrorCode::Refused, message))
        })
    }
}

#[tonic::async_trait]
impl AdminService for AdminApi {
    type BackupStream = ReceiverStream<Result<v1::BackupRecord, Status>>;

    async fn backup(
        &self,
        _: Request<v1::BackupRequest>,
    ) -> Result<Response<Self::BackupStream>, Status> {
        let (records, stream) = mpsc::channel(2);
        let context = self.context.clone();
        tokio::task::spawn_blocking(move || backup::send_backup(&context, records));
        Ok(Response::new(ReceiverStream::new(stream)))
    }

    async fn new_token(
        &self,
        request: Request<v1::NewTokenRequest>,
    ) -> Result<Response<v1::NewTokenResponse>, Status> {
        let tokens = self.require_tokens()?;
        let request = request.into_inner();
        let role = TokenRole::from_name(&request.role).ok_or_else(|| {
            Status::invalid_argument(format!(
                "role: expected worker, user or admin, found '{}'",
                request.role
            ))
        })?;

        if request.programs && role == TokenRole::Worker {
            let message = "programs: workers have no right to give; a worker runs programs if it is started with --programs";
            return Err(UserError::new(ErrorCode::BadInput, message).into());
        }
        if request.note.len() > MAX_NOTE_BYTES || request.note.chars().any(char::is_control) {
            return Err(Status::invalid_argument(format!(
                "note: expected one line of at most {MAX_NOTE_BYTES} bytes"
            )));
        }

        let lifetime = (request.expires_in_seconds > 0)
            .then(|| Duration::from_secs(request.expires_in_seconds));
        let made = tokio::task::spawn_blocking(move || {
            let rights = TokenRights {
                role,
                programs: request.programs,
            };
            tokens.create_token(rights, lifetime, &request.note)
        })
        .await;
        let token = made
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(tokens_not_saved)?;
        tracing::info!(token = token.id, role = role.name(), "token created");

        Ok(Response::new(v1::NewTokenResponse {
            token: token.reveal_text(),
        }))
    }

    async fn list_tokens(
        &self,
        _: Request<v1::ListTokensRequest>,
    ) -> Result<Response<v1::ListTokensResponse>, Status> {
        let tokens = self
            .require_tokens()?
            .list_tokens()
            .into_iter()
            .map(to_token_record)
            .collect();

        Ok(Response::new(v1::ListTokensResponse { tokens }))
    }

    async fn revoke_token(
        &self,
        request: Request<v1::RevokeTokenRequest>,
    ) -> Result<Response<v1::RevokeTokenResponse>, Status> {
        let tokens = self.require_tokens()?;
        let own = request
            .extensions()
            .get::<Principal>()
            .map(|principal| principal.token_id.clone());
        let id = request.into_inner().id;
        if own.as_ref() == Some(&id) {
            let message = format!(
                "the token {id} made this request, and cannot revoke itself: use another token"
            );
            return Err(UserError::new(ErrorCode::Refused, message).into());
        }

        let named = id.clone();
        let revoked = tokio::task::spawn_blocking(move || tokens.revoke_token(&named)).await;
        if !revoked
            .map_err(|e| Status::internal(e.to_string()))?
            .map_err(tokens_not_saved)?
        {
            let message = format!("there is no token {id}; see `ergodic token list`");
            return Err(UserError::new(ErrorCode::NotFound, message).into());
        }

        tracing::info!(token = id, "token revoked");
        Ok(Response::new(v1::RevokeTokenResponse {}))
    }
}

fn tokens_not_saved(error: std::io::Error) -> Status {
    UserError::new(
        ErrorCode::Internal,
        format!("the tokens could not be stored: {error}"),
    )
    .into()
}

fn to_token_record(record: StoredToken) -> v1::TokenRecord {
    v1::TokenRecord {
        role: record
            .role()
            .map_or_else(String::new, |role| role.name().to_owned()),
        id: record.id,
        note: record.note,
        created_at: record.created_at,
        expires_at: record.expires_at,
        programs: record.programs,
    }
}
