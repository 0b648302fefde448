//! Redis over TLS, with an authority of the test's own.
#![allow(clippy::unwrap_used, clippy::expect_used)] // a test fails by panicking

mod support;

use std::error::Error as _;
use std::path::Path;
use std::sync::Arc;

use axum_io_session::ErrorKind;
use axum_io_session::backend::BackendConfig;
use axum_io_session::backend::redis::{RedisBackend, RedisConfig, fred};
use cluster_tests::{
    Certificates, Cluster, LOCAL_SERVER, PREFIX, Redis, RedisCluster, RedisOptions, STAY,
    Sentinels, Sockets, run_js, until,
};
use fred::rustls::crypto::ring;
use fred::rustls::pki_types::{CertificateDer, pem::PemObject as _};
use fred::rustls::{ClientConfig, RootCertStore};
use fred::types::config::{Config, TlsConnector};
use support::user::{HEALS, User, is_copied};

/// A server with a port for TLS, beside the one by which the test asks it. Returns its address too.
fn server(certificates: &Certificates) -> (Redis, String) {
    let options = RedisOptions::new().program(LOCAL_SERVER);
    let redis = options.tls(&certificates.arguments()).start();
    let address = redis.tls_address();
    (redis, address)
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
    let cluster = Cluster::start_with(&urls, &STAY, &[("SSL_CERT_FILE", &authority)]);
    run_js("events.mjs", &cluster.urls());
    assert_eq!(plain_connections(&redis), 1, "only the test itself may come without TLS");
    cluster.stop();
}

/// Three nodes that trust this authority share sessions at this URL.
fn sessions_are_shared(url: String, certificates: &Certificates) -> Cluster {
    let authority = certificates.authority().display().to_string();
    let cluster = Cluster::start_with(&vec![url; 3], &STAY, &[("SSL_CERT_FILE", &authority)]);
    run_js("events.mjs", &cluster.urls());
    cluster
}

/// Waits until each of three nodes hears announcements on one of these servers. Then all people are
/// served, and told of changes.
fn all_goes_on(servers: &[Redis], people: &[User]) {
    let channel = format!("{PREFIX}:all:0");
    let hear = |server: &Redis| {
        let answer = server.ask(&["PUBSUB", "NUMSUB", &channel]).unwrap_or_default();
        answer.lines().last().and_then(|count| count.parse::<usize>().ok()).unwrap_or(0)
    };
    until("all nodes hear announcements", HEALS, || {
        (servers.iter().map(hear).sum::<usize>() == 3).then_some(())
    });
    for person in people {
        person.is_served_by_all();
        person.is_told_once_of_each_change();
    }
}

/// No node came to one of these servers without TLS.
fn nobody_came_without(servers: &[Redis]) {
    let plain: Vec<_> = servers.iter().map(plain_connections).collect();
    assert!(plain.iter().all(|&count| count == 1), "only the test itself may: {plain:?}");
}

#[test]
fn three_nodes_share_sessions_in_a_cluster_over_tls_and_survive_the_death_of_a_primary() {
    let certificates = Certificates::new();
    let mut redis = RedisCluster::start_over_tls(&certificates);
    let cluster = sessions_are_shared(redis.url(), &certificates);
    nobody_came_without(redis.servers());
    let sockets = Sockets::start();
    let people: Vec<_> = (0..6).map(|_| User::new(&cluster, &sockets)).collect();
    is_copied(&redis.servers()[0], &redis.servers()[3]);
    redis.server(0).kill();
    all_goes_on(redis.servers(), &people);
    cluster.stop();
}

#[test]
fn three_nodes_share_sessions_behind_sentinels_over_tls_and_survive_the_death_of_the_primary() {
    let certificates = Certificates::new();
    let mut redis = Sentinels::start_over_tls(&certificates);
    let cluster = sessions_are_shared(redis.url(), &certificates);
    nobody_came_without(&redis.servers()[..1]);
    redis.are_listened_to("default", 3);
    let sockets = Sockets::start();
    let people: Vec<_> = (0..3).map(|_| User::new(&cluster, &sockets)).collect();
    let [primary, replicas @ ..] = redis.servers() else { panic!("three servers") };
    replicas.iter().for_each(|replica| is_copied(primary, replica));
    redis.server(0).kill();
    all_goes_on(redis.servers(), &people);
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
