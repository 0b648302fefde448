//! The tower layer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use http::{Request, Response};
use tower_layer::Layer;
use tower_service::Service;

use super::cookies::CookieKit;
use super::state::RequestState;
use crate::bridge::SessionBridge;

/// Gives each request its session. See [`SessionBridge::layer`].
#[derive(Debug, Clone)]
pub struct SessionLayer {
    bridge: SessionBridge,
    kit: Arc<CookieKit>,
}

impl SessionBridge {
    /// The layer that reads and sets the cookies and commits sessions.
    ///
    /// It goes outside the Socket.IO layer, so that handshakes pass it:
    /// `router.layer(socket_io_layer).layer(bridge.layer())`, or let
    /// [`bridge_session`](crate::bridge_session) do it. It works for any service whose response
    /// body has a default, which is what a failed commit answers with.
    pub fn layer(&self) -> SessionLayer {
        SessionLayer { bridge: self.clone(), kit: Arc::new(CookieKit::new(self.options())) }
    }
}

impl<S> Layer<S> for SessionLayer {
    type Service = SessionService<S>;

    fn layer(&self, inner: S) -> Self::Service {
        SessionService { inner, layer: self.clone() }
    }
}

/// The service that [`SessionLayer`] makes.
#[derive(Debug, Clone)]
pub struct SessionService<S> {
    inner: S,
    layer: SessionLayer,
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>, Error = Infallible>
        + Clone
        + Send
        + 'static,
    S::Future: Send + 'static,
    ReqBody: Send + 'static,
    ResBody: Default + Send,
{
    type Response = Response<ResBody>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone waits for the next.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let SessionLayer { bridge, kit } = self.layer.clone();
        let passed = request.extensions().get::<Arc<RequestState>>();
        if passed.is_some_and(|state| state.bridge.is_same(&bridge)) {
            // The layer was added twice. A second state would know a client of its own.
            let response = inner.call(request);
            return Box::pin(response);
        }
        Box::pin(async move {
            let incoming = kit.read(request.headers());
            let https = is_https(&request, bridge.options().trust_proxy);
            let engine_io = is_engine_io(&request);
            let state = RequestState::new(bridge, incoming, https, engine_io).await;
            let state = Arc::new(state);
            request.extensions_mut().insert(state.handshake());
            request.extensions_mut().insert(state.clone());
            let response = inner.call(request).await?;
            Ok(state.finish(&kit, response).await)
        })
    }
}

fn is_https<B>(request: &Request<B>, trust_proxy: bool) -> bool {
    if request.uri().scheme_str() == Some("https") {
        return true;
    }
    let forwarded = request.headers().get("x-forwarded-proto").filter(|_| trust_proxy);
    // With several proxies the first entry is what the browser used.
    forwarded.is_some_and(|value| {
        let first = value.as_bytes().split(|byte| *byte == b',').next().unwrap_or_default();
        first.trim_ascii().eq_ignore_ascii_case(b"https")
    })
}

/// Socket.IO's own requests (polls, packets, upgrades) come all the time, whether or not a person
/// does something: they renew no session.
fn is_engine_io<B>(request: &Request<B>) -> bool {
    let query = request.uri().query().unwrap_or_default();
    query.split('&').any(|pair| pair.starts_with("EIO="))
}
