//! TLS 1.3 with raw ed25519 keys on both sides (RFC 7250): no certificates, no authority, no names. The server name
//! in the handshake says which class the connection carries, so that each class can have its own windows.

use std::sync::Arc;

use netsplit_core::{PublicKey, SecretKey};
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, WebPkiSupportedAlgorithms, verify_tls13_signature_with_raw_key};
use rustls::pki_types::{
    CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer, ServerName, SubjectPublicKeyInfoDer, UnixTime,
};
use rustls::server::danger::{ClientCertVerified, ClientCertVerifier};
use rustls::sign::CertifiedKey;
use rustls::{
    CertificateError, ClientConfig, DigitallySignedStruct, DistinguishedName, Error, PeerIncompatible,
    ServerConfig, SignatureScheme,
};
use tokio_rustls::{TlsAcceptor, TlsConnector};

use crate::Class;

/// DER of `SubjectPublicKeyInfo { algorithm: ed25519, subjectPublicKey }` up to the 32 bytes of the key (RFC 8410).
const SPKI_PREFIX: [u8; 12] = [0x30, 0x2a, 0x30, 0x05, 0x06, 0x03, 0x2b, 0x65, 0x70, 0x03, 0x21, 0x00];

const ALPN: &[u8] = b"h2";

/// The node's side of every handshake.
#[derive(Debug)]
pub(crate) struct Tls {
    provider: Arc<CryptoProvider>,
    identity: Arc<CertifiedKey>,
    server: Arc<ServerConfig>,
}

impl Tls {
    pub(crate) fn new(key: &SecretKey) -> Result<Self, Error> {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let private = PrivateKeyDer::Pkcs8(PrivatePkcs8KeyDer::from(key.to_pkcs8_der()));
        let signing_key = provider.key_provider.load_private_key(private)?;
        let identity = Arc::new(CertifiedKey::new(vec![spki(&key.public())], signing_key));
        let resolver = rustls::server::AlwaysResolvesServerRawPublicKeys::new(identity.clone());
        let verifier = RawKey { expected: None, algorithms: provider.signature_verification_algorithms };
        let mut server = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_client_cert_verifier(Arc::new(verifier))
            .with_cert_resolver(Arc::new(resolver));
        server.alpn_protocols = vec![ALPN.to_vec()];
        // A resumed session saves little between long-lived peers, and its store costs memory.
        server.send_tls13_tickets = 0;
        server.session_storage = Arc::new(rustls::server::NoServerSessionStorage {});
        Ok(Self { provider, identity, server: Arc::new(server) })
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(self.server.clone())
    }

    /// A connector that accepts only `peer`.
    pub(crate) fn connector(&self, peer: &PublicKey) -> Result<TlsConnector, Error> {
        let resolver = rustls::client::AlwaysResolvesClientRawPublicKeys::new(self.identity.clone());
        let verifier =
            RawKey { expected: Some(*peer), algorithms: self.provider.signature_verification_algorithms };
        let mut config = ClientConfig::builder_with_provider(self.provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_client_cert_resolver(Arc::new(resolver));
        config.alpn_protocols = vec![ALPN.to_vec()];
        config.resumption = rustls::client::Resumption::disabled();
        Ok(TlsConnector::from(Arc::new(config)))
    }
}

/// The server name that stands for a class.
pub(crate) fn server_name(class: Class) -> ServerName<'static> {
    let name = match class {
        Class::Consensus => "consensus.netsplit",
        Class::Relay => "relay.netsplit",
        Class::Bulk => "bulk.netsplit",
    };
    ServerName::try_from(name).expect("the three names are valid DNS names")
}

/// The inverse of [`server_name`].
pub(crate) fn class_of(server_name: &str) -> Option<Class> {
    Class::ALL.into_iter().find(|class| server_name.strip_suffix(".netsplit") == Some(class.name()))
}

/// The key in a raw-public-key "certificate"; `None` when it is no ed25519 key.
pub(crate) fn key_of(certificate: &CertificateDer<'_>) -> Option<PublicKey> {
    let key = certificate.as_ref().strip_prefix(&SPKI_PREFIX)?;
    Some(PublicKey::ed25519(key.try_into().ok()?))
}

fn spki(key: &PublicKey) -> CertificateDer<'static> {
    let mut der = SPKI_PREFIX.to_vec();
    der.extend_from_slice(key.raw());
    CertificateDer::from(der)
}

/// Accepts a well-formed ed25519 key, and of servers only the expected one. Whether a client's key is known is
/// decided in the session's handshake, where a refusal can carry its reason.
#[derive(Debug)]
struct RawKey {
    expected: Option<PublicKey>,
    algorithms: WebPkiSupportedAlgorithms,
}

impl RawKey {
    fn check(&self, end_entity: &CertificateDer<'_>) -> Result<(), Error> {
        let key = key_of(end_entity).ok_or(Error::InvalidCertificate(CertificateError::BadEncoding))?;
        match self.expected {
            Some(expected) if expected != key => {
                Err(Error::General(format!("the peer has the key {key}, not {expected}")))
            }
            _ => Ok(()),
        }
    }

    fn check_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let key = SubjectPublicKeyInfoDer::from(key.as_ref());
        verify_tls13_signature_with_raw_key(message, &key, signature, &self.algorithms)
    }
}

impl ServerCertVerifier for RawKey {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        self.check(end_entity).map(|()| ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

impl ClientCertVerifier for RawKey {
    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, Error> {
        self.check(end_entity).map(|()| ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        Err(Error::PeerIncompatible(PeerIncompatible::Tls13RequiredForQuic))
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        key: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        self.check_signature(message, key, signature)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![SignatureScheme::ED25519]
    }

    fn requires_raw_public_keys(&self) -> bool {
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_survives_its_certificate_form() {
        let key = SecretKey::from_seed([7; 32]).public();
        assert_eq!(key_of(&spki(&key)), Some(key));
        assert_eq!(key_of(&CertificateDer::from(vec![0; 44])), None);
    }

    #[test]
    fn a_class_survives_its_server_name() {
        for class in Class::ALL {
            assert_eq!(class_of(&server_name(class).to_str()), Some(class));
        }
        assert_eq!(class_of("consensus"), None);
    }
}
