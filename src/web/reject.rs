//! Errors as answers.

use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderValue, StatusCode};

use crate::error::{Error, ErrorKind};

/// The status that an error of this kind is answered with.
pub(super) fn status_of(kind: ErrorKind) -> StatusCode {
    match kind {
        ErrorKind::Store | ErrorKind::Unavailable | ErrorKind::WaitTimeout | ErrorKind::Busy => {
            StatusCode::SERVICE_UNAVAILABLE
        }
        ErrorKind::Conflict | ErrorKind::SessionEnded | ErrorKind::LeaseLost => {
            StatusCode::CONFLICT
        }
        ErrorKind::SessionMissing => StatusCode::NOT_FOUND,
        ErrorKind::PayloadTooLarge => StatusCode::PAYLOAD_TOO_LARGE,
        ErrorKind::InvalidData | ErrorKind::InvalidMaxAge => StatusCode::UNPROCESSABLE_ENTITY,
        _ => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// For `?` in handlers.
///
/// | status | kinds |
/// |---|---|
/// | 404 | `SessionMissing` |
/// | 409 | `Conflict`, `SessionEnded`, `LeaseLost` |
/// | 413 | `PayloadTooLarge` |
/// | 422 | `InvalidData`, `InvalidMaxAge` |
/// | 503 with `Retry-After: 1` | `Store`, `Unavailable`, `WaitTimeout`, `Busy` |
/// | 500 | all others, which are mistakes in the program |
///
/// The body is the error's text. It holds no ids and not the cause, which is logged.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = status_of(self.kind());
        if status.is_server_error() {
            tracing::error!(error = ?self, "a request failed");
        }
        let mut response = (status, self.to_string()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}
