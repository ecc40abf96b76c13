//! The table server's certificate: made once for an installation, kept in a Secret that all operators share.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use k8s_openapi::{ByteString, api::core::v1::Secret, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, api::PostParams};
use netsplit_backend::kubernetes::TablesTls;

const NAME: &str = "netsplit-tables-tls";
const CA: &str = "ca.crt";
const CERTIFICATE: &str = "tls.crt";
const KEY: &str = "tls.key";
/// The name that the certificate is for.
const HOST: &str = "netsplit.dev/host";

/// Reads the certificate for that DNS name, or makes it.
pub async fn get_or_make(client: &Client, namespace: &str, dns: &str) -> Result<TablesTls> {
    let secrets: Api<Secret> = Api::namespaced(client.clone(), namespace);
    loop {
        let found = secrets.get_opt(NAME).await.with_context(|| format!("cannot read the Secret {NAME}"))?;
        if let Some(tls) = found.as_ref().and_then(|found| read(found, dns)) {
            return Ok(tls);
        }
        let tls = TablesTls::generate(dns).context("cannot make the table server's certificate")?;
        let mut made = secret(&tls, dns);
        let written = match found {
            // For another name, or not ours: agents could not know the server by it.
            Some(found) => {
                made.metadata.resource_version = found.metadata.resource_version;
                secrets.replace(NAME, &PostParams::default(), &made).await
            }
            None => secrets.create(&PostParams::default(), &made).await,
        };
        match written {
            Ok(_) => return Ok(tls),
            // Another operator was faster: its certificate is the one.
            Err(kube::Error::Api(status)) if status.code == 409 => {}
            Err(error) => return Err(error).with_context(|| format!("cannot write the Secret {NAME}")),
        }
    }
}

fn secret(tls: &TablesTls, dns: &str) -> Secret {
    let data = [(CA, &tls.ca_pem), (CERTIFICATE, &tls.certificate_pem), (KEY, &tls.key_pem)];
    let entry = |(key, pem): (&str, &String)| (key.to_owned(), ByteString(pem.clone().into_bytes()));
    Secret {
        metadata: ObjectMeta {
            name: Some(NAME.to_owned()),
            annotations: Some(BTreeMap::from([(HOST.to_owned(), dns.to_owned())])),
            labels: Some(BTreeMap::from([(
                "app.kubernetes.io/managed-by".to_owned(),
                "netsplit".to_owned(),
            )])),
            ..ObjectMeta::default()
        },
        type_: Some("kubernetes.io/tls".to_owned()),
        data: Some(data.into_iter().map(entry).collect()),
        ..Secret::default()
    }
}

fn read(secret: &Secret, dns: &str) -> Option<TablesTls> {
    let host = secret.metadata.annotations.as_ref()?.get(HOST)?;
    let text = |key: &str| String::from_utf8(secret.data.as_ref()?.get(key)?.0.clone()).ok();
    let tls = TablesTls { ca_pem: text(CA)?, certificate_pem: text(CERTIFICATE)?, key_pem: text(KEY)? };
    (host == dns).then_some(tls)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_certificate_survives_its_secret_and_counts_for_its_own_name_only() {
        let tls = TablesTls::generate("tables.ns.svc").unwrap();
        let kept = secret(&tls, "tables.ns.svc");
        assert_eq!(read(&kept, "tables.ns.svc"), Some(tls));
        assert_eq!(read(&kept, "tables.other.svc"), None);
    }
}
