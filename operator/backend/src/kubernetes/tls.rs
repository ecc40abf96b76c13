//! The table server's certificate, under an authority of its own.

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose,
};

/// An authority and the server's certificate under it, as PEM. The authority's key is not kept: a new server certificate
/// comes with a new authority, which agents read anew whenever they connect.
#[derive(Clone, PartialEq, Eq)]
pub struct TablesTls {
    pub ca_pem: String,
    pub certificate_pem: String,
    pub key_pem: String,
}

impl std::fmt::Debug for TablesTls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("TablesTls").field("certificate", &self.certificate_pem).finish_non_exhaustive()
    }
}

impl TablesTls {
    /// Made once for each installation, and kept in a Secret. `service_dns` is the name that agents connect to.
    pub fn generate(service_dns: &str) -> Result<Self, rcgen::Error> {
        let mut authority = CertificateParams::new(Vec::new())?;
        authority.distinguished_name.push(DnType::CommonName, "netsplit tables");
        authority.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        authority.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let authority_key = KeyPair::generate()?;
        let ca_pem = authority.self_signed(&authority_key)?.pem();
        let issuer = Issuer::new(authority, authority_key);

        let mut server = CertificateParams::new(vec![service_dns.to_owned()])?;
        server.distinguished_name.push(DnType::CommonName, "netsplit operator");
        server.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        let key = KeyPair::generate()?;
        let certificate_pem = server.signed_by(&key, &issuer)?.pem();
        Ok(Self { ca_pem, certificate_pem, key_pem: key.serialize_pem() })
    }
}
