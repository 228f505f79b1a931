//! The lab's certificate authority and the one server certificate it signs.
//!
//! Queue policies that demand TLS are enforced by the emulator as by AWS, so everything in the lab speaks
//! https and trusts `bundle.pem`: the lab's authority and the system's roots in one file, as
//! `AWS_CA_BUNDLE` and `SSL_CERT_FILE` both replace the system's store instead of adding to it.

use std::{
    fs, io,
    net::IpAddr,
    path::{Path, PathBuf},
};

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

/// Where Debian's `ca-certificates` keeps the system's roots; absent on a bare machine, which is fine:
/// nothing in the lab talks to anything but the lab.
const SYSTEM_ROOTS: &str = "/etc/ssl/certs/ca-certificates.crt";

/// Why the lab has no certificates.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A certificate could not be made.
    #[error("make the lab's certificates")]
    Certificate(#[from] rcgen::Error),
    /// A file could not be read or written.
    #[error("write the lab's certificates to {path}")]
    File {
        /// The file in question.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// The certificate and key do not make a server.
    #[error("use the lab's certificate")]
    Rustls(#[from] rustls::Error),
}

/// The certificates of one lab, as files (for the emulator, boto3, the CLI, Lambdas and instances) and
/// as what the proxy needs to serve and to call with.
#[derive(Debug, Clone)]
pub struct Certificates {
    /// The authority alone, PEM.
    pub ca: PathBuf,
    /// The server's certificate, PEM.
    pub server: PathBuf,
    /// The server's private key, PEM, mode 0600.
    pub server_key: PathBuf,
    /// The authority and the system's roots, PEM: the value of `AWS_CA_BUNDLE` and `SSL_CERT_FILE`.
    pub bundle: PathBuf,
    authority: rustls::pki_types::CertificateDer<'static>,
    leaf: rustls::pki_types::CertificateDer<'static>,
    leaf_key: Vec<u8>,
}

impl Certificates {
    /// Makes an authority and a server certificate for `localhost`, 127.0.0.1 and `addresses`, and
    /// writes `ca.pem`, `server.pem`, `server.key` and `bundle.pem` into `directory` (created if absent).
    pub fn create(directory: &Path, addresses: &[IpAddr]) -> Result<Self, TlsError> {
        let authority_key = KeyPair::generate()?;
        let authority = authority_params().self_signed(&authority_key)?;
        let issuer = Issuer::new(authority_params(), authority_key);
        let leaf_key = KeyPair::generate()?;
        let leaf = leaf_params(addresses)?.signed_by(&leaf_key, &issuer)?;

        let certificates = Self {
            ca: directory.join("ca.pem"),
            server: directory.join("server.pem"),
            server_key: directory.join("server.key"),
            bundle: directory.join("bundle.pem"),
            authority: authority.der().clone(),
            leaf: leaf.der().clone(),
            leaf_key: leaf_key.serialize_der(),
        };
        let system_roots = fs::read_to_string(SYSTEM_ROOTS).unwrap_or_default();
        fs::create_dir_all(directory).map_err(|source| TlsError::File {
            path: directory.to_owned(),
            source,
        })?;
        write(&certificates.ca, &authority.pem(), 0o644)?;
        write(&certificates.server, &leaf.pem(), 0o644)?;
        write(&certificates.server_key, &leaf_key.serialize_pem(), 0o600)?;
        write(
            &certificates.bundle,
            &format!("{}{system_roots}", authority.pem()),
            0o644,
        )?;
        Ok(certificates)
    }

    /// A server configuration that offers HTTP/1.1 only, which is all the lab's clients need.
    pub(crate) fn server_config(&self) -> Result<rustls::ServerConfig, TlsError> {
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(self.leaf_key.clone());
        let mut config = rustls::ServerConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![self.leaf.clone()], key.into())?;
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Ok(config)
    }

    /// A client configuration that trusts the lab's authority and nothing else.
    pub(crate) fn client_config(&self) -> Result<rustls::ClientConfig, TlsError> {
        let mut roots = rustls::RootCertStore::empty();
        roots.add(self.authority.clone())?;
        Ok(rustls::ClientConfig::builder_with_provider(provider())
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth())
    }
}

/// One crypto library for the whole lab; named here because two are compiled in and rustls picks none.
fn provider() -> std::sync::Arc<rustls::crypto::CryptoProvider> {
    std::sync::Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

fn authority_params() -> CertificateParams {
    let mut params = CertificateParams::default();
    params
        .distinguished_name
        .push(DnType::CommonName, "Spillway lab authority");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![
        KeyUsagePurpose::KeyCertSign,
        KeyUsagePurpose::CrlSign,
        KeyUsagePurpose::DigitalSignature,
    ];
    params
}

fn leaf_params(addresses: &[IpAddr]) -> Result<CertificateParams, rcgen::Error> {
    let mut params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()])?;
    params
        .distinguished_name
        .push(DnType::CommonName, "Spillway lab");
    params
        .subject_alt_names
        .extend(addresses.iter().map(|address| SanType::IpAddress(*address)));
    params.is_ca = IsCa::ExplicitNoCa;
    // Python 3.13 verifies strictly (RFC 5280) and refuses a leaf without it.
    params.use_authority_key_identifier_extension = true;
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
    Ok(params)
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), TlsError> {
    use std::{io::Write as _, os::unix::fs::OpenOptionsExt as _};
    fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()))
        .map_err(|source| TlsError::File {
            path: path.to_owned(),
            source,
        })
}
