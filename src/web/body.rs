//! The body of an answer that passed the layer.

use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Buf;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use crate::bridge::EngineConnection;

pin_project! {
    /// The body of an answer that passed [`SessionLayer`](super::SessionLayer): the inner one as it
    /// is, or none for an answer of the layer's own.
    #[derive(Debug)]
    pub struct SessionBody<B> {
        #[pin]
        inner: Option<B>,
        // Set for the answer to an Engine.IO handshake: its first bytes name the connection.
        engine: Option<Arc<EngineConnection>>,
    }
}

impl<B> SessionBody<B> {
    pub(super) fn new(inner: B, engine: Option<Arc<EngineConnection>>) -> Self {
        Self { inner: Some(inner), engine }
    }

    pub(super) fn empty() -> Self {
        Self { inner: None, engine: None }
    }
}

impl<B> Default for SessionBody<B> {
    fn default() -> Self {
        Self::empty()
    }
}

impl<B: Body> Body for SessionBody<B> {
    type Data = B::Data;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<B::Data>, B::Error>>> {
        let this = self.project();
        let Some(inner) = this.inner.as_pin_mut() else { return Poll::Ready(None) };
        let frame = ready!(inner.poll_frame(context));
        // Before the client can know the id and use it.
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
            && let Some(engine) = this.engine.take()
            && let Some(id) = engine_id(data.chunk())
        {
            engine.named(id);
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.inner.as_ref().is_none_or(Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.as_ref().map_or_else(|| SizeHint::with_exact(0), Body::size_hint)
    }
}

/// The id in an Engine.IO open packet: `0{"sid":"..",..}`, behind a length in version 3.
fn engine_id(packet: &[u8]) -> Option<&str> {
    const KEY: &str = "\"sid\":\"";
    let text = std::str::from_utf8(packet).ok()?;
    let (start, rest) = text.split_once(KEY)?;
    let id = rest.split('"').next()?;
    (start.ends_with("0{") && !id.is_empty()).then_some(id)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_id_is_read_from_an_open_packet_and_from_nothing_else() {
        let open = br#"0{"sid":"AAAA_aaaa-1234","upgrades":["websocket"],"pingInterval":25000}"#;
        assert_eq!(engine_id(open), Some("AAAA_aaaa-1234"));
        let third = br#"97:0{"sid":"AAAA","upgrades":[]}"#;
        assert_eq!(engine_id(third), Some("AAAA"));
        for other in
            [&b"2probe"[..], b"42[\"a\",{\"sid\":\"x\"}]", b"0{\"sid\":\"\"}", b"\xff", b""]
        {
            assert_eq!(engine_id(other), None);
        }
    }
}
