//! Options that say who may see a session, and who may ask at all.

use std::time::Duration;

use super::SessionBridgeBuilder;
use crate::bridge::options::{OnDestroy, OnRotate, Seal, SocketPairing};

impl SessionBridgeBuilder {
    /// When sessions are sealed. Default [`Seal::OnRotate`].
    pub fn seal(mut self, seal: Seal) -> Self {
        self.options.seal = seal;
        self
    }

    /// Which sessions a socket may see. Default [`SocketPairing::UntilSealed`].
    pub fn socket_pairing(mut self, pairing: SocketPairing) -> Self {
        self.options.socket_pairing = pairing;
        self
    }

    /// What happens to the sockets of a session that is sealed. Default [`OnRotate::Disconnect`].
    pub fn on_rotate(mut self, on_rotate: OnRotate) -> Self {
        self.options.on_rotate = on_rotate;
        self
    }

    /// What happens to the sockets of a session that ends. Default [`OnDestroy::Disconnect`]
    /// with a grace of 250 milliseconds.
    pub fn on_destroy(mut self, on_destroy: OnDestroy) -> Self {
        self.options.on_destroy = on_destroy;
        self
    }

    /// How old an open session may be for first requests of its client to join it, up to
    /// 1 minute. A browser sends its first requests side by side, without a session cookie: those
    /// that come within this time end in one session. Zero: none joins, each gets a session and a
    /// client id of its own. Default 5 seconds.
    pub fn join_window(mut self, window: Duration) -> Self {
        self.options.join_window = window;
        self
    }

    /// How long the previous id opens a session after
    /// [`renew_id`](crate::Session::renew_id), up to 5 minutes: for requests that are under way.
    /// Default 10 seconds.
    pub fn renew_overlap(mut self, overlap: Duration) -> Self {
        self.options.renew_overlap = overlap;
        self
    }

    /// The strictest rules: sessions are sealed from the start, none is joined, and a socket sees
    /// only the session whose cookie its handshake carried. The client cookie then opens nothing
    /// at all. A page has to connect its sockets again once it has its first session.
    ///
    /// ```
    /// # #[tokio::main(flavor = "current_thread")]
    /// # async fn main() -> axum_io_session::Result<()> {
    /// let bridge = axum_io_session::SessionBridge::builder().strict().build().await?;
    /// # bridge.shutdown().await;
    /// # Ok(())
    /// # }
    /// ```
    pub fn strict(self) -> Self {
        self.seal(Seal::FromStart)
            .join_window(Duration::ZERO)
            .socket_pairing(SocketPairing::Strict)
            .on_rotate(OnRotate::Disconnect)
    }

    /// Whether unsafe requests (all methods but GET, HEAD, OPTIONS and TRACE) that a browser says
    /// to come from another origin are refused with 403. Default true.
    ///
    /// `Sec-Fetch-Site` counts first: only `same-origin` and `none` pass. Without it `Origin` has
    /// to name the request's own host and port. A request with neither comes from no browser and
    /// passes.
    pub fn check_request_origins(mut self, check: bool) -> Self {
        self.options.origins.requests = check;
        self
    }

    /// Whether Socket.IO requests and WebSocket upgrades from other origins are refused, whatever
    /// their method. Default true.
    pub fn check_socket_origins(mut self, check: bool) -> Self {
        self.options.origins.sockets = check;
        self
    }

    /// Other origins that may use sessions, for requests and sockets:
    /// `https://app.example.com`, with the port if it is not the scheme's own. Default: none.
    /// Answers for scripts of other origins need CORS headers as well, which are not set here.
    pub fn allowed_origins<O: Into<String>>(
        mut self,
        origins: impl IntoIterator<Item = O>,
    ) -> Self {
        self.options.origins.allowed = origins.into_iter().map(Into::into).collect();
        self
    }

    /// Paths, with all below them, where origins are not checked: webhooks, and forms that check
    /// a token of their own. Default: none. They are paths as the session layer sees them: without the
    /// prefix if the router with the layer is nested.
    pub fn origin_exempt_paths<P: Into<String>>(
        mut self,
        paths: impl IntoIterator<Item = P>,
    ) -> Self {
        self.options.origins.exempt = paths.into_iter().map(Into::into).collect();
        self
    }

    /// How many Engine.IO connections of this node may be open that have not connected a socket
    /// yet, 1 to 1,000,000; further handshakes get 503. Default 4096.
    ///
    /// Set `SocketIoBuilder::connect_timeout` to some 10 seconds beside it: it ends those that
    /// never connect one, after 45 seconds by default.
    pub fn pending_sockets_limit(mut self, limit: usize) -> Self {
        self.options.pending_sockets_limit = limit;
        self
    }

    /// How many proxies in front of this node are yours, up to 16. Default 0: no proxy is
    /// believed.
    ///
    /// `X-Forwarded-Proto`, `X-Forwarded-Host` and `Forwarded` are believed as far as these
    /// proxies wrote them: each appends its entry at the end, so the one that counts is that
    /// many from the end (or the first, where proxies overwrite the header).
    #[doc(alias = "trust proxy")]
    pub fn trusted_proxies(mut self, proxies: usize) -> Self {
        self.options.trusted_proxies = proxies;
        self
    }
}
