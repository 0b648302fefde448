//! Options of the cookies.

use std::time::Duration;

use super::SessionBridgeBuilder;
use crate::bridge::options::{ClientCookie, SameSite, Secure};

impl SessionBridgeBuilder {
    /// Name of the session cookie. Default `sid`.
    ///
    /// A name that begins with `__Host-` or `__Secure-` makes the cookies Secure, and the build
    /// fails if another option contradicts the prefix.
    pub fn cookie_name(mut self, name: impl Into<String>) -> Self {
        self.options.key = name.into();
        self
    }

    /// Name of the client cookie. Default `{key}.cid`.
    #[doc(alias = "clientKey")]
    pub fn client_key(mut self, name: impl Into<String>) -> Self {
        self.options.client_key = name.into();
        self.options.client_key_given = true;
        self
    }

    /// Life of the client cookie, 1 second to 400 days (browsers keep none for longer).
    /// Default 365 days.
    #[doc(alias = "clientMaxAge")]
    pub fn client_max_age(mut self, age: Duration) -> Self {
        self.options.client_max_age = age;
        self
    }

    /// On which answers the client cookie is sent. Default [`ClientCookie::Always`].
    #[doc(alias = "clientAlwaysRoll")]
    pub fn client_cookie(mut self, policy: ClientCookie) -> Self {
        self.options.client_cookie = policy;
        self
    }

    /// Whether cookies are signed. Default true. Without signatures a guessed or
    /// leaked id can be used from anywhere; the build warns.
    pub fn signed(mut self, signed: bool) -> Self {
        self.options.signed = signed;
        self
    }

    /// Signing keys, each at least 32 random bytes: the first signs, all verify, and a cookie
    /// signed by a later one is issued again.
    ///
    /// To rotate keys put the new one in front. With several nodes that are replaced one after the
    /// other, first deploy it behind the old one: as long as a node does not know a key, no other may
    /// sign by it. Remove the old one after the longest `max_age`.
    ///
    /// Default: a random key, with a warning: all sessions are lost at a restart.
    #[doc(alias = "app.keys")]
    pub fn signing_keys<K: AsRef<[u8]>>(mut self, keys: impl IntoIterator<Item = K>) -> Self {
        self.options.keys = keys.into_iter().map(|key| key.as_ref().to_vec()).collect();
        self
    }

    /// Accepts keys that are shorter than 32 bytes, with a warning. Default false.
    pub fn allow_weak_keys(mut self, allow: bool) -> Self {
        self.options.allow_weak_keys = allow;
        self
    }

    /// `SameSite` of both cookies. Default [`SameSite::Lax`].
    #[doc(alias = "sameSite")]
    pub fn same_site(mut self, same_site: SameSite) -> Self {
        self.options.same_site = same_site;
        self
    }

    /// `HttpOnly` of both cookies. Default true.
    #[doc(alias = "httpOnly")]
    pub fn http_only(mut self, http_only: bool) -> Self {
        self.options.http_only = http_only;
        self
    }

    /// `Secure` of both cookies. Default [`Secure::Auto`].
    pub fn secure(mut self, secure: Secure) -> Self {
        self.options.secure = secure;
        self
    }

    /// `Domain` of both cookies. Default: none, this host only.
    pub fn domain(mut self, domain: impl Into<String>) -> Self {
        self.options.domain = Some(domain.into());
        self
    }

    /// `Path` of both cookies. Default `/`.
    pub fn path(mut self, path: impl Into<String>) -> Self {
        self.options.path = path.into();
        self
    }
}
