//! Redis over TLS, with an authority of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use axum_io_session::ErrorKind;
use axum_io_session::backend::BackendConfig;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig, fred};
use cluster_tests::{Certificates, Cluster, LOCAL_SERVER, Redis, RedisOptions, free_port, run_js};
use fred::rustls::crypto::ring;
use fred::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use fred::rustls::{ClientConfig, RootCertStore};
use fred::types::config::{Config, TlsConnector};

/// A server with a port for TLS, beside the one by which the test asks it. Returns its address too.
fn server(certificates: &Certificates) -> (Redis, String) {
    let port = free_port().to_string();
    let [authority, certificate, key] =
        [certificates.authority(), certificates.certificate(), certificates.key()]
            .map(|path| path.display().to_string());
    let redis = RedisOptions::new()
        .program(LOCAL_SERVER)
        .arguments(&["--tls-port", &port, "--tls-auth-clients", "no"])
        .arguments(&["--tls-ca-cert-file", &authority])
        .arguments(&["--tls-cert-file", &certificate, "--tls-key-file", &key])
        .start();
    (redis, format!("127.0.0.1:{port}"))
}

/// Trusts this authority only.
fn trusting(address: &str, authority: &Path) -> Config {
    let mut trusted = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(authority).unwrap() {
        trusted.add(certificate.unwrap()).unwrap();
    }
    let tls = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(trusted)
        .with_no_client_auth();
    let mut config = Config::from_url(&format!("redis://{address}")).unwrap();
    config.tls = Some(TlsConnector::from(tls).into());
    config
}

#[test]
fn the_contract_is_kept_over_tls_with_an_authority_given_in_code() {
    let certificates = Certificates::new();
    let (_redis, address) = server(&certificates);
    let config = trusting(&address, &certificates.authority());
    support::keeps_the_contract_with(|prefix| {
        RedisConfig::from_fred(config.clone()).prefix(prefix)
    });
}

#[test]
fn three_nodes_share_sessions_over_tls_with_an_authority_given_by_a_variable() {
    let certificates = Certificates::new();
    let (redis, address) = server(&certificates);
    let authority = certificates.authority().display().to_string();
    let urls = vec![format!("rediss://{address}"); 3];
    let cluster = Cluster::start_with(&urls, &[], &[("SSL_CERT_FILE", &authority)]);
    run_js("events.mjs", &cluster.urls());
    assert_eq!(plain_connections(&redis), 1, "only the test itself may come without TLS");
    cluster.stop();
}

/// Connections to the port without TLS, this one included.
fn plain_connections(redis: &Redis) -> usize {
    let list = redis.cli(&["CLIENT", "LIST"]);
    let local = format!("laddr={} ", redis.address());
    list.lines().filter(|line| line.contains(&local)).count()
}

#[tokio::test]
async fn a_server_of_an_unknown_authority_is_refused() {
    let certificates = Certificates::new();
    let (_redis, address) = server(&certificates);
    let other = Certificates::new();
    let place = RedisConfig::from_fred(trusting(&address, &other.authority()));
    let error = RedisBackend::connect(place, BackendConfig::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    let mut causes = String::new();
    let mut cause = error.source();
    while let Some(inner) = cause {
        causes.push_str(&format!("{inner:?} "));
        cause = inner.source();
    }
    assert!(causes.contains("InvalidCertificate"), "{causes}");
}
