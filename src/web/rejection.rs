//! Errors as answers.

use std::time::Duration;

use axum::response::{IntoResponse, Response};
use http::header::RETRY_AFTER;
use http::{HeaderMap, HeaderValue, StatusCode};

use crate::bridge::whole_seconds;
use crate::error::{Error, ErrorKind};

/// What an answer says as long as the layer, which knows the option, has not seen it.
const SOON: &str = "1";

/// Marks an answer that was made of an [`Error`]. Handlers make answers of their own with the same
/// status, which are none of the layer's business.
#[derive(Clone)]
struct OfAnError;

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
/// | 503 with `Retry-After` | `Store`, `Unavailable`, `WaitTimeout`, `Busy` |
/// | 500 | all others, which are mistakes in the program |
///
/// The body is the error's text. It holds no ids and not the cause, which is logged. `Retry-After`
/// is 1 second, and below the session layer what
/// [`retry_after`](crate::bridge::SessionBridgeBuilder::retry_after) says.
impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let status = status_of(self.kind());
        match self.kind() {
            // A crowd of clients can cause these as it likes.
            ErrorKind::Busy | ErrorKind::WaitTimeout => {
                tracing::debug!(error = ?self, "a request waited too long for its session");
            }
            _ if status.is_server_error() => tracing::error!(error = ?self, "a request failed"),
            _ => {}
        }
        let mut response = (status, self.to_string()).into_response();
        if status == StatusCode::SERVICE_UNAVAILABLE {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static(SOON));
            response.extensions_mut().insert(OfAnError);
        }
        response
    }
}

pub(super) fn set_retry_after(headers: &mut HeaderMap, wait: Duration) {
    headers.insert(RETRY_AFTER, whole_seconds(wait).into());
}

/// Puts the option into an answer that was made of an [`Error`], unless a handler changed it.
pub(super) fn settle_retry_after<B>(response: &mut http::Response<B>, wait: Duration) {
    let ours = response.extensions_mut().remove::<OfAnError>().is_some();
    let unchanged = response.status() == StatusCode::SERVICE_UNAVAILABLE
        && response.headers().get(RETRY_AFTER).is_some_and(|value| value == SOON);
    if ours && unchanged {
        set_retry_after(response.headers_mut(), wait);
    }
}
