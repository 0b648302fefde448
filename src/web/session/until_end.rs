//! Responses that end with their session.

use std::future::Future;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use axum::body::Body as AnyBody;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::HeaderMap;
use http::header::{CONTENT_ENCODING, CONTENT_LENGTH, CONTENT_TYPE};
use http_body::{Body, Frame, SizeHint};
use serde_json::json;

use super::Session;
use crate::bridge::{Connection, SessionBridge};
use crate::error::{Error, ErrorKind, Result};
use crate::session::SessionEnd;

impl Session {
    /// Lets a streaming response live no longer than this request's session: for Server-Sent Events and
    /// long downloads.
    ///
    /// At the session's end on any node, a sealing by another request, or a shutdown
    /// ([`close_connections`](crate::SessionBridge::close_connections)) the handler's body is dropped,
    /// whether or not it has something to send, and nothing of it is sent any more:
    ///
    /// - A `text/event-stream` ends with one more event, named as the message to sockets
    ///   ([`SocketMessages::destroy`](crate::bridge::SocketMessages::destroy), `sessionDestroy`), whose
    ///   data is `{"reason":"destroyed","node":".."}`; the reason is `shutdown` at a shutdown. A browser's
    ///   `EventSource` then connects again, without the session. Keep-alive and all other events stay as
    ///   they are.
    /// - Any other body ends with an error, which breaks the connection off: a download that ended as
    ///   if it were complete would be taken for the whole.
    ///
    /// The session is followed from the moment that the response has left the session layer, so what
    /// this request commits counts: what it creates or seals is its own. If the session can't be
    /// followed, for the store is away, the body ends with an error. See also
    /// [`cancellation`](Self::cancellation).
    ///
    /// ```
    /// use std::convert::Infallible;
    ///
    /// use axum::response::Response;
    /// use axum::response::sse::{Event, KeepAlive, Sse};
    /// use axum_io_session::Session;
    /// use futures_util::{Stream, stream};
    ///
    /// # fn news() -> impl Stream<Item = Result<Event, Infallible>> + Send { stream::pending() }
    /// async fn live(session: Session) -> Response {
    ///     session.until_end(Sse::new(news()).keep_alive(KeepAlive::default()))
    /// }
    /// ```
    pub fn until_end(&self, response: impl IntoResponse) -> Response {
        let (parts, body) = response.into_response().into_parts();
        let events = is_event_stream(&parts.headers);
        let session = self.clone();
        let attaching = Box::pin(async move { session.follow().await });
        let body = UntilEnd {
            bridge: self.bridge().clone(),
            phase: Phase::Attaching(attaching),
            inner: body,
            events,
            boundary: Boundary::default(),
        };
        Response::from_parts(parts, AnyBody::new(body))
    }
}

/// The last event of a stream; `None` if the messages of ends are switched off.
fn last_event(bridge: &SessionBridge, end: &SessionEnd) -> Option<String> {
    let messages = &bridge.options().messages;
    let mut payload = json!({ "reason": end.as_str(), "node": bridge.node() });
    if let SessionEnd::Ended(end) = end {
        payload["node"] = json!(end.node);
        if messages.include_ids {
            payload["sessionId"] = json!(end.session_id);
        }
    }
    // A line break in the name would begin another field.
    let name = messages.destroy.as_ref()?.replace(['\r', '\n'], " ");
    Some(format!("event: {name}\ndata: {payload}\n\n"))
}

/// Whether an event can be added at the end.
fn is_event_stream(headers: &HeaderMap) -> bool {
    let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
    let essence = kind.split(';').next().unwrap_or_default().trim();
    // Plain text fits neither behind a counted nor behind a compressed one.
    essence.eq_ignore_ascii_case("text/event-stream")
        && !headers.contains_key(CONTENT_LENGTH)
        && !headers.contains_key(CONTENT_ENCODING)
}

type Waiting<T> = Pin<Box<dyn Future<Output = T> + Send>>;

enum Phase {
    /// Until the session is followed nothing is sent: it may have ended.
    Attaching(Waiting<Result<Connection>>),
    Following(Waiting<SessionEnd>),
    Over,
}

/// A body that ends with its session.
struct UntilEnd {
    bridge: SessionBridge,
    phase: Phase,
    inner: AnyBody,
    events: bool,
    boundary: Boundary,
}

impl UntilEnd {
    /// Waits for the end; pending while the inner body may go on.
    fn poll_end(&mut self, context: &mut Context<'_>) -> Poll<Result<SessionEnd>> {
        if let Phase::Attaching(attaching) = &mut self.phase {
            let connection = ready!(attaching.as_mut().poll(context))?;
            // The answer is on its way: the request writes nothing more, so each sealing is another's.
            let end = async move { connection.signal().ended().await };
            self.phase = Phase::Following(Box::pin(end));
        }
        match &mut self.phase {
            Phase::Following(end) => end.as_mut().poll(context).map(Ok),
            Phase::Attaching(_) | Phase::Over => Poll::Pending,
        }
    }

    /// Drops what is left, and the attachment with it.
    fn finish(&mut self) {
        self.phase = Phase::Over;
        self.inner = AnyBody::empty();
    }

    /// What follows the inner body at the session's end.
    fn last_frame(&self, end: &SessionEnd) -> Option<Result<Frame<Bytes>, axum::Error>> {
        if !self.events {
            return Some(Err(broken_off(end.as_str())));
        }
        // In the middle of an event, a blank line would complete what is not complete.
        let last = self.boundary.is_reached().then(|| last_event(&self.bridge, end))??;
        Some(Ok(Frame::data(Bytes::from(last))))
    }
}

fn broken_off(reason: &'static str) -> axum::Error {
    axum::Error::new(Error::new(ErrorKind::SessionEnded, reason))
}

impl Body for UntilEnd {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        if matches!(self.phase, Phase::Over) {
            return Poll::Ready(None);
        }
        // Before the inner body: what is ready at the end is not sent.
        if let Poll::Ready(end) = self.poll_end(context) {
            let last = match &end {
                Ok(end) => self.last_frame(end),
                Err(error) => Some(Err(axum::Error::new(error.without_source()))),
            };
            self.finish();
            return Poll::Ready(last);
        }
        if matches!(self.phase, Phase::Attaching(_)) {
            return Poll::Pending;
        }
        let frame = ready!(Pin::new(&mut self.inner).poll_frame(context));
        match &frame {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.boundary.pass(data);
                }
            }
            Some(Err(_)) | None => self.finish(),
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        matches!(self.phase, Phase::Over) || self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        // One more event would be more than was announced.
        if self.events { SizeHint::default() } else { self.inner.size_hint() }
    }
}

/// Whether a stream is between two events, by its last bytes.
#[derive(Debug, Default)]
struct Boundary {
    begun: bool,
    tail: [u8; 3],
}

impl Boundary {
    /// Takes in what is sent.
    fn pass(&mut self, data: &[u8]) {
        for &byte in &data[data.len().saturating_sub(self.tail.len())..] {
            self.begun = true;
            self.tail = [self.tail[1], self.tail[2], byte];
        }
    }

    fn is_reached(&self) -> bool {
        let blank = |line: &&[u8]| self.tail.ends_with(line);
        !self.begun || [&b"\n\n"[..], b"\r\r", b"\n\r", b"\n\r\n"].iter().any(blank)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_event_is_added_between_two_events_only() {
        for (sent, between) in [
            (&[][..], true),
            (&["data: a\n\n"], true),
            (&["data: a\n", "\n"], true),
            (&["data: a\r\n\r\n"], true),
            (&["data: a\r\r"], true),
            (&[":\n\n"], true),
            (&["data: a\n"], false),
            (&["data: a\r\n"], false),
            (&["data: a\r", "\n"], false),
            (&["data: a\n\n", "da"], false),
        ] {
            let mut boundary = Boundary::default();
            for part in sent {
                boundary.pass(part.as_bytes());
            }
            assert_eq!(boundary.is_reached(), between, "{sent:?}");
        }
    }
}
