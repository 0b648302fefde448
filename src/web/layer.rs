//! The tower layer.

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use http::header::{HeaderMap, UPGRADE};
use http::uri::Authority;
use http::{Request, Response, StatusCode, Uri};
use http_body::Body;
use tower_layer::Layer;
use tower_service::Service;

use super::answer::Answer;
use super::body::SessionBody;
use super::cookies::{CookieKit, Incoming};
use super::proxy;
use super::rejection;
use super::request::RequestState;
use crate::bridge::{EngineRequest, RequestOrigin, Secure, SessionBridge};

/// Gives each request its session. See [`SessionBridge::layer`].
#[derive(Debug, Clone)]
pub struct SessionLayer {
    bridge: SessionBridge,
    shared: Arc<Shared>,
}

/// What all clones have in common.
#[derive(Debug)]
struct Shared {
    kit: CookieKit,
    /// It was said that a proxy's headers are not believed.
    warned: AtomicBool,
}

impl SessionBridge {
    /// The layer that reads and sets the cookies, refuses requests of other origins, and commits
    /// sessions.
    ///
    /// It goes outside the Socket.IO layer, so that handshakes pass it:
    /// `router.layer(socket_io_layer).layer(bridge.layer())`, or let
    /// [`bridge_session`](crate::bridge_session) do it.
    pub fn layer(&self) -> SessionLayer {
        let shared = Shared { kit: CookieKit::new(self.options()), warned: AtomicBool::new(false) };
        SessionLayer { bridge: self.clone(), shared: Arc::new(shared) }
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
    ResBody: Body + Send + 'static,
{
    type Response = Response<SessionBody<ResBody>>;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // The service that was polled ready is the one to call; its clone waits for the next.
        let next = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, next);
        let SessionLayer { bridge, shared } = self.layer.clone();
        let passed = request.extensions().get::<Arc<RequestState>>();
        if passed.is_some_and(|state| state.bridge.is_same(&bridge)) {
            // The layer was added twice. A second state would know a client of its own.
            let response = inner.call(request);
            return Box::pin(async move {
                Ok(response.await?.map(|body| SessionBody::new(body, None)))
            });
        }
        let admitted = admit(&bridge, &shared, &request);
        Box::pin(async move {
            let Admitted { incoming, https, engine_io, handshake } = match admitted {
                Ok(admitted) => admitted,
                Err(refusal) => return Ok(refusal),
            };
            let mut state = RequestState::new(bridge.clone(), incoming, https, engine_io).await;
            if handshake && !state.begin_engine() {
                bridge.counters().refused_handshakes.add(1);
                tracing::debug!("too many Engine.IO connections wait for a socket");
                return Ok(too_many(&bridge));
            }
            let state = Arc::new(state);
            request.extensions_mut().insert(state.handshake());
            request.extensions_mut().insert(state.clone());
            let response = state.ends().scope(inner.call(request)).await?;
            let engine = state.engine().filter(|_| response.status() == StatusCode::OK).cloned();
            let response = response.map(|body| SessionBody::new(body, engine));
            Ok(Answer { request: &state }.finish(&shared.kit, response, SessionBody::empty).await)
        })
    }
}

/// What is known of a request that may pass.
struct Admitted {
    incoming: Incoming,
    https: bool,
    engine_io: bool,
    handshake: bool,
}

/// Looks at where a request comes from, and reads its cookies; or the answer that refuses it.
fn admit<B, R>(
    bridge: &SessionBridge,
    shared: &Shared,
    request: &Request<B>,
) -> Result<Admitted, Response<SessionBody<R>>> {
    let (options, headers, uri) = (bridge.options(), request.headers(), request.uri());
    let forwarded = proxy::forwarded(headers, options.trusted_proxies);
    let https = uri.scheme_str() == Some("https") || forwarded.https;
    shared.warn_of_proxies(bridge, https, headers);
    let engine = engine_request(uri);
    let origin = RequestOrigin {
        method: request.method(),
        path: uri.path(),
        headers,
        authority: uri.authority().map(Authority::as_str),
        forwarded_host: forwarded.host.as_deref(),
        socket: engine.is_some() || is_upgrade(headers),
        connected: matches!(engine, Some(EngineRequest::Of(id)) if bridge.knows_engine(id)),
    };
    if options.origins.refuses(&origin) {
        bridge.counters().refused_origins.add(1);
        tracing::debug!(method = %request.method(), path = uri.path(), "another origin was refused");
        return Err(refused());
    }
    let incoming = shared.kit.read(headers);
    if let Some(EngineRequest::Of(id)) = engine
        && !bridge.admits_engine(id, incoming.client.map(|client| client.value))
    {
        bridge.counters().refused_engine_ids.add(1);
        tracing::debug!("an Engine.IO request came without the client cookie of its handshake");
        return Err(refused());
    }
    let handshake = engine == Some(EngineRequest::Handshake);
    Ok(Admitted { incoming, https, engine_io: engine.is_some(), handshake })
}

fn refused<B>() -> Response<SessionBody<B>> {
    let mut response = Response::new(SessionBody::empty());
    *response.status_mut() = StatusCode::FORBIDDEN;
    response
}

fn too_many<B>(bridge: &SessionBridge) -> Response<SessionBody<B>> {
    let mut response = Response::new(SessionBody::empty());
    *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
    rejection::set_retry_after(response.headers_mut(), bridge.options().retry_after);
    response
}

impl Shared {
    /// Says once that a proxy ends TLS and is not believed: cookies lack `Secure` then.
    fn warn_of_proxies(&self, bridge: &SessionBridge, https: bool, headers: &HeaderMap) {
        let options = bridge.options();
        if options.secure == Secure::Auto
            && options.trusted_proxies == 0
            && !https
            && proxy::claims_https(headers)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a request says that it was forwarded from https, and no proxy is trusted: cookies are not `Secure`. Behind a proxy of yours set `trusted_proxies(1)`, or `secure(Secure::Yes)`"
            );
        }
    }
}

/// Cookies alone open a websocket, whatever serves it.
fn is_upgrade(headers: &HeaderMap) -> bool {
    headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Socket.IO's own requests (handshakes, polls, packets, upgrades) by what engineioxide goes by. They
/// come all the time, whether or not a person does something: they renew no session.
fn engine_request(uri: &Uri) -> Option<EngineRequest<'_>> {
    let query = uri.query()?;
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key));
    value("EIO=")?;
    Some(value("sid=").map_or(EngineRequest::Handshake, EngineRequest::Of))
}
