//! The control port: arms, lists and disarms faults over plain http on loopback.

use axum::{
    Json, Router,
    extract::{Path, State},
    http::StatusCode,
    response::{IntoResponse, Response},
    routing::{delete, get},
};

use crate::faults::{Armed, Fault, FaultError, Faults};

/// `POST /faults` arms one and answers `{"id"}`; `GET /faults` lists them with how often each fired;
/// `DELETE /faults/{id}` and `DELETE /faults` disarm.
pub(super) fn router(faults: Faults) -> Router {
    Router::new()
        .route("/faults", get(list).post(arm).delete(clear))
        .route("/faults/{id}", delete(disarm))
        .with_state(faults)
}

async fn list(State(faults): State<Faults>) -> Json<Vec<Armed>> {
    Json(faults.list())
}

async fn arm(State(faults): State<Faults>, Json(fault): Json<Fault>) -> Response {
    match faults.arm(fault) {
        Ok(id) => Json(serde_json::json!({ "id": id })).into_response(),
        Err(error) => {
            let status = match error {
                FaultError::Duplicate(_) => StatusCode::CONFLICT,
                FaultError::Pattern(_) | FaultError::Status(_) => StatusCode::BAD_REQUEST,
            };
            (
                status,
                Json(serde_json::json!({ "error": error.to_string() })),
            )
                .into_response()
        }
    }
}

async fn clear(State(faults): State<Faults>) -> StatusCode {
    faults.clear();
    StatusCode::NO_CONTENT
}

async fn disarm(State(faults): State<Faults>, Path(id): Path<String>) -> StatusCode {
    if faults.disarm(&id) {
        StatusCode::NO_CONTENT
    } else {
        StatusCode::NOT_FOUND
    }
}
