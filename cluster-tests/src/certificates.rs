//! An authority of the test's own, and a server's certificate of it.

use std::path::PathBuf;

use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};
use tempfile::TempDir;

/// Files in PEM format, gone when it is dropped.
#[derive(Debug)]
pub struct Certificates {
    folder: TempDir,
}

impl Certificates {
    /// Makes an authority that nobody knows yet, and a certificate for 127.0.0.1.
    ///
    /// # Panics
    /// If the files can't be written.
    pub fn new() -> Self {
        let mut authority = CertificateParams::default();
        // With one name for both, servers that ask each other take a certificate for its own issuer.
        authority.distinguished_name = DistinguishedName::new();
        authority.distinguished_name.push(DnType::CommonName, "the authority of a test");
        authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let known = authority.self_signed(&key).expect("an authority");
        let issuer = Issuer::new(authority, key);
        let server = CertificateParams::new(["127.0.0.1".to_owned()]).expect("an address");
        let key = KeyPair::generate().expect("a key");
        let signed = server.signed_by(&key, &issuer).expect("a certificate");
        let certificates = Self { folder: tempfile::tempdir().expect("a folder") };
        for (path, text) in [
            (certificates.authority(), known.pem()),
            (certificates.certificate(), signed.pem()),
            (certificates.key(), key.serialize_pem()),
        ] {
            std::fs::write(path, text).expect("the folder can be written");
        }
        certificates
    }

    /// Arguments by which `redis-server` uses them and asks no client for one. It needs a `--tls-port`
    /// as well.
    pub fn arguments(&self) -> Vec<String> {
        let files = [
            ("--tls-ca-cert-file", self.authority()),
            ("--tls-cert-file", self.certificate()),
            ("--tls-key-file", self.key()),
        ];
        let given = files.map(|(name, path)| [name.to_owned(), path.display().to_string()]);
        let others = ["--tls-auth-clients", "no"].map(str::to_owned);
        given.into_iter().flatten().chain(others).collect()
    }

    /// Whom to trust.
    pub fn authority(&self) -> PathBuf {
        self.folder.path().join("authority.pem")
    }

    /// The server's certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.path().join("server.pem")
    }

    /// Its key.
    pub fn key(&self) -> PathBuf {
        self.folder.path().join("server-key.pem")
    }
}

impl Default for Certificates {
    fn default() -> Self {
        Self::new()
    }
}
