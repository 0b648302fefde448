//! Which requests may pass, and what is known of them then.

use std::sync::atomic::{AtomicBool, Ordering};

use http::header::{HeaderMap, UPGRADE};
use http::uri::Authority;
use http::{Method, Request, Uri};

use super::cookies::{CookieKit, Incoming};
use super::proxy;
use crate::bridge::{EngineRequest, RequestOrigin, Secure, SessionBridge};

/// Looks at where requests come from, and reads their cookies.
#[derive(Debug)]
pub(super) struct Admission {
    /// The warning that a proxy's headers are not believed was logged.
    warned: AtomicBool,
}

/// What is known of a request that may pass.
pub(super) struct Admitted {
    pub(super) incoming: Incoming,
    pub(super) https: bool,
    pub(super) engine_io: bool,
    /// It begins an Engine.IO connection.
    pub(super) handshake: bool,
    /// It belongs on another node, for this one is about to stop.
    pub(super) elsewhere: bool,
}

/// The request gets 403.
pub(super) struct Forbidden;

impl Admission {
    pub(super) fn new() -> Self {
        Self { warned: AtomicBool::new(false) }
    }

    pub(super) fn admit<B>(
        &self,
        bridge: &SessionBridge,
        kit: &CookieKit,
        request: &Request<B>,
    ) -> Result<Admitted, Forbidden> {
        let (options, headers, uri) = (bridge.options(), request.headers(), request.uri());
        let forwarded = proxy::forwarded(headers, options.trusted_proxies);
        let https = uri.scheme_str() == Some("https") || forwarded.https;
        self.warn_of_proxies(bridge, https, headers);
        let engine = engine_request(uri);
        let origin = RequestOrigin {
            method: request.method(),
            path: uri.path(),
            headers,
            authority: uri.authority().map(Authority::as_str),
            forwarded_host: forwarded.host.as_deref(),
            socket: engine.is_some() || is_upgrade(request.method(), headers),
            connected: matches!(engine, Some(EngineRequest::Of(id)) if bridge.knows_engine(id)),
        };
        if options.origins.refuses(&origin) {
            bridge.counters().refused_origins.add(1);
            tracing::debug!(method = %request.method(), path = uri.path(), "another origin was refused");
            return Err(Forbidden);
        }
        let incoming = kit.read(headers);
        if let Some(EngineRequest::Of(id)) = engine
            && !bridge.admits_engine(id, incoming.client.map(|client| client.value))
        {
            bridge.counters().refused_engine_ids.add(1);
            tracing::debug!("an Engine.IO request came without the client cookie of its handshake");
            return Err(Forbidden);
        }
        let handshake = engine == Some(EngineRequest::Handshake);
        // Of a connection that is not known here the balancer thinks that it is.
        let elsewhere = bridge.is_draining()
            && engine.is_some_and(|engine| match engine {
                EngineRequest::Handshake => true,
                EngineRequest::Of(id) => !bridge.knows_engine(id),
            });
        Ok(Admitted { incoming, https, engine_io: engine.is_some(), handshake, elsewhere })
    }

    /// Logs once that a proxy ends TLS and is not believed: cookies lack `Secure` then.
    fn warn_of_proxies(&self, bridge: &SessionBridge, https: bool, headers: &HeaderMap) {
        let options = bridge.options();
        if options.secure == Secure::Auto
            && options.trusted_proxies == 0
            && !https
            && !self.warned.load(Ordering::Relaxed)
            && proxy::claims_https(headers)
            && !self.warned.swap(true, Ordering::Relaxed)
        {
            tracing::warn!(
                "a request says that it was forwarded from https, and no proxy is trusted: cookies are not `Secure`. Behind a proxy of yours set `trusted_proxies(1)`, or `secure(Secure::Yes)`"
            );
        }
    }
}

/// Cookies alone open a websocket, whatever serves it. Over HTTP/2 its method is CONNECT, and there is no
/// header.
fn is_upgrade(method: &Method, headers: &HeaderMap) -> bool {
    method == Method::CONNECT
        || headers.get(UPGRADE).is_some_and(|to| to.as_bytes().eq_ignore_ascii_case(b"websocket"))
}

/// Socket.IO's own requests (handshakes, polls, packets, upgrades) by what engineioxide goes by. They
/// come all the time, whether or not a person does something: they renew no session.
fn engine_request(uri: &Uri) -> Option<EngineRequest<'_>> {
    let query = uri.query()?;
    let value = |key: &str| query.split('&').find_map(|pair| pair.strip_prefix(key));
    value("EIO=")?;
    Some(value("sid=").map_or(EngineRequest::Handshake, EngineRequest::Of))
}
