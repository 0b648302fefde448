//! Redis over TLS.

use std::borrow::Cow;

use fred::types::config::Config;

use crate::error::{Error, ErrorKind, Result};

/// A URL without what asks for TLS, and whether it did. The client library's own way takes all or
/// none of the system's certificates, and panics in a program with two providers of cryptography.
pub(crate) fn without(url: &str) -> (Cow<'_, str>, bool) {
    let scheme = url.split("://").next().unwrap_or_default();
    for (encrypted, plain) in [("rediss", "redis"), ("valkeys", "valkey")] {
        let begins = scheme.get(..encrypted.len());
        if begins.is_some_and(|begins| begins.eq_ignore_ascii_case(encrypted)) {
            return (format!("{plain}{}", &url[encrypted.len()..]).into(), true);
        }
    }
    (url.into(), false)
}

/// The same over TLS, by the certificates that the system trusts.
#[cfg(feature = "redis-tls")]
pub(crate) fn over(mut config: Config) -> Result<Config> {
    use std::sync::Arc;

    use fred::rustls::crypto::ring;
    use fred::rustls::{ClientConfig, RootCertStore};
    use fred::rustls_native_certs::load_native_certs;
    use fred::types::config::TlsConnector;

    let mut found = load_native_certs();
    let mut trusted = RootCertStore::empty();
    // One that can't be read must not cost all others.
    let (usable, _) = trusted.add_parsable_certificates(found.certs);
    if usable == 0 {
        let error = Error::new(
            ErrorKind::InvalidOption,
            "no certificate authority is trusted, so that Redis can't be reached over TLS: install the package ca-certificates, or name a file in PEM format by the variable SSL_CERT_FILE",
        );
        return Err(match found.errors.pop() {
            Some(cause) => error.with_source(cause),
            None => error,
        });
    }
    let client = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::store("preparing TLS", error))?
        .with_root_certificates(trusted)
        .with_no_client_auth();
    config.tls = Some(TlsConnector::from(client).into());
    Ok(config)
}

/// There is none in this build.
#[cfg(not(feature = "redis-tls"))]
pub(crate) fn over(_: Config) -> Result<Config> {
    Err(Error::new(
        ErrorKind::Unsupported,
        "the URL asks for Redis over TLS, which this build has not: switch on the feature `redis-tls` of axum-io-session",
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_scheme_says_whether_a_url_asks_for_tls() {
        for (url, plain, encrypted) in [
            ("rediss://u:p@h:1/2", "redis://u:p@h:1/2", true),
            ("REDISS://h", "redis://h", true),
            ("rediss-cluster://h?node=i:1", "redis-cluster://h?node=i:1", true),
            ("valkeys-sentinel://h", "valkey-sentinel://h", true),
            ("redis://h", "redis://h", false),
            ("redis-sentinel://rediss:1", "redis-sentinel://rediss:1", false),
            ("", "", false),
        ] {
            assert_eq!(without(url), (plain.into(), encrypted));
        }
    }

    #[cfg(not(feature = "redis-tls"))]
    #[test]
    fn without_the_feature_tls_is_refused_and_the_feature_is_named() {
        use crate::backend::redis::RedisConfig;

        let error = RedisConfig::new("rediss://127.0.0.1").fred().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains("`redis-tls`"), "{error}");
    }
}
