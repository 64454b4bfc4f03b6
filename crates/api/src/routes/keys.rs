//! API keys, managed by a key with the role `admin`.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::StatusCode;
use axum::response::Json;

use crate::backend::Backend;
use crate::extract::Admin;
use crate::json::{USUAL_LIMIT, read};
use crate::problem::Problem;
use crate::wire::{KeyView, MadeKey, NewKey};

/// List all API keys by name, without their secrets. Requires a key with the role `admin`.
#[utoipa::path(get, path = "/api/keys", operation_id = "keys", security(("apiKey" = [])), responses(
    (status = 200, body = Vec<KeyView>), (status = 401, body = Problem),
    (status = 403, body = Problem, description = "The key does not have the role admin")
))]
pub(super) async fn list<B: Backend>(
    State(backend): State<Arc<B>>,
    _: Admin,
) -> Result<Json<Vec<KeyView>>, Problem> {
    Ok(Json(backend.keys().await?))
}

/// Create a key; only this response contains its secret. Requires a key with the role `admin`.
#[utoipa::path(post, path = "/api/keys", operation_id = "add_key", request_body = NewKey, security(("apiKey" = [])), responses(
    (status = 201, body = MadeKey), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem, description = "The key does not have the role admin"),
    (status = 409, body = Problem, description = "A key with this name already exists"),
    (status = 413, body = Problem), (status = 422, body = Problem, description = "The name is not valid")
))]
pub(super) async fn add<B: Backend>(
    State(backend): State<Arc<B>>,
    Admin(principal): Admin,
    body: Body,
) -> Result<(StatusCode, Json<MadeKey>), Problem> {
    let key: NewKey = read(body, USUAL_LIMIT).await?;
    Ok((StatusCode::CREATED, Json(backend.add_key(key, &principal).await?)))
}

/// Rotate a key: the earlier key is refused from now on, and what it opened is closed. Requires a key
/// with the role `admin`.
#[utoipa::path(post, path = "/api/keys/{name}/rotate", operation_id = "rotate_key", params(("name" = String, Path)),
    security(("apiKey" = [])), responses(
    (status = 200, body = MadeKey), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem, description = "The key does not have the role admin"), (status = 404, body = Problem)
))]
pub(super) async fn rotate<B: Backend>(
    State(backend): State<Arc<B>>,
    Admin(principal): Admin,
    name: Result<Path<String>, PathRejection>,
) -> Result<Json<MadeKey>, Problem> {
    Ok(Json(backend.rotate_key(&key_name(name)?, &principal).await?))
}

/// Revoke a key: it is refused from now on, and what it opened is closed. Requires a key with the role
/// `admin`.
#[utoipa::path(delete, path = "/api/keys/{name}", operation_id = "revoke_key", params(("name" = String, Path)),
    security(("apiKey" = [])), responses(
    (status = 204, description = "The key was revoked"), (status = 400, body = Problem), (status = 401, body = Problem),
    (status = 403, body = Problem, description = "The key does not have the role admin"), (status = 404, body = Problem)
))]
pub(super) async fn revoke<B: Backend>(
    State(backend): State<Arc<B>>,
    Admin(principal): Admin,
    name: Result<Path<String>, PathRejection>,
) -> Result<StatusCode, Problem> {
    backend.revoke_key(&key_name(name)?, &principal).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn key_name(name: Result<Path<String>, PathRejection>) -> Result<String, Problem> {
    name.map(|Path(name)| name).map_err(|error| Problem::bad_request(error.to_string()))
}
