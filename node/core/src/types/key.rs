//! Keys and signatures. A type byte travels with each key, so that another scheme can be added without a new format.
//!
//! Signing is `ed25519-dalek`; validity is ZIP-215 by `ed25519-zebra` (see [`crate::verify`]), the rule under which single and batch
//! verification agree by definition. A public key is not checked to be a curve point when it is read: a key that is none never
//! verifies, and an address only has to be unique.

use std::fmt;
use std::io;
use std::str::FromStr;

use bech32::primitives::decode::CheckedHrpstring;
use bech32::{Bech32m, Hrp};
use borsh::{BorshDeserialize, BorshSerialize};
use ed25519_dalek::Signer;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use crate::hex;

const PREFIX: Hrp = Hrp::parse_unchecked("ns");

/// The signature scheme of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum KeyType {
    Ed25519 = 1,
}

impl KeyType {
    fn from_byte(byte: u8) -> Option<Self> {
        (byte == Self::Ed25519 as u8).then_some(Self::Ed25519)
    }
}

/// Text that is not a key.
#[derive(Debug, thiserror::Error)]
pub enum KeyError {
    #[error("an address or public key is bech32m text that starts with \"ns1\", not {text:?}: {reason}")]
    Public { text: String, reason: String },
    #[error("a secret key file holds 66 hexadecimal digits: the key type 01 and 32 bytes")]
    Secret,
}

/// A public key: type byte and 32 bytes; in borsh these 33 bytes. Shown as bech32m, `ns1...`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PublicKey {
    key_type: KeyType,
    bytes: [u8; 32],
}

/// An account, node or validator is addressed by its public key.
pub type Address = PublicKey;

impl PublicKey {
    /// Bytes of the encoded form: type byte and key.
    pub const ENCODED_LEN: usize = 33;

    pub const fn ed25519(bytes: [u8; 32]) -> Self {
        Self { key_type: KeyType::Ed25519, bytes }
    }

    pub const fn key_type(&self) -> KeyType {
        self.key_type
    }

    /// The key without its type byte.
    pub const fn raw(&self) -> &[u8; 32] {
        &self.bytes
    }

    /// The type byte and the key.
    pub fn to_bytes(&self) -> [u8; Self::ENCODED_LEN] {
        let mut encoded = [0; Self::ENCODED_LEN];
        encoded[0] = self.key_type as u8;
        encoded[1..].copy_from_slice(&self.bytes);
        encoded
    }

    /// The inverse of [`PublicKey::to_bytes`]; `None` for another length or an unknown key type.
    pub fn from_bytes(encoded: &[u8]) -> Option<Self> {
        let (&key_type, key) = encoded.split_first()?;
        Some(Self { key_type: KeyType::from_byte(key_type)?, bytes: key.try_into().ok()? })
    }

    /// Whether `signature` is this key's signature of `message`, by ZIP-215.
    pub fn verify(&self, message: &[u8], signature: &Signature) -> bool {
        crate::verify::verify_one(self, message, signature)
    }
}

impl BorshSerialize for PublicKey {
    fn serialize<W: io::Write>(&self, writer: &mut W) -> io::Result<()> {
        writer.write_all(&self.to_bytes())
    }
}

impl BorshDeserialize for PublicKey {
    fn deserialize_reader<R: io::Read>(reader: &mut R) -> io::Result<Self> {
        let encoded = <[u8; Self::ENCODED_LEN]>::deserialize_reader(reader)?;
        Self::from_bytes(&encoded).ok_or_else(|| {
            io::Error::new(io::ErrorKind::InvalidData, format!("unknown key type {}", encoded[0]))
        })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        bech32::encode_lower_to_fmt::<Bech32m, _>(f, PREFIX, &self.to_bytes()).map_err(|_| fmt::Error)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl FromStr for PublicKey {
    type Err = KeyError;

    fn from_str(text: &str) -> Result<Self, KeyError> {
        let refuse = |reason: String| KeyError::Public { text: text.chars().take(100).collect(), reason };
        let parsed = CheckedHrpstring::new::<Bech32m>(text).map_err(|error| refuse(error.to_string()))?;
        if parsed.hrp() != PREFIX {
            return Err(refuse(format!("it starts with {:?}", parsed.hrp().to_string())));
        }
        let encoded: Vec<u8> = parsed.byte_iter().collect();
        let key = Self::from_bytes(&encoded)
            .ok_or_else(|| refuse("it does not hold a known key type and 32 bytes".into()))?;
        // Upper case and stray padding bits have the same bytes; one key has one text.
        if key.to_string() == text { Ok(key) } else { Err(refuse("it is not in canonical form".into())) }
    }
}

impl Serialize for PublicKey {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for PublicKey {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        <String as Deserialize>::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

/// A secret key. Neither `Debug` nor an error ever shows it; the key is overwritten in memory when dropped.
#[derive(Clone)]
pub struct SecretKey(ed25519_dalek::SigningKey);

impl SecretKey {
    pub fn from_seed(seed: [u8; 32]) -> Self {
        Self(ed25519_dalek::SigningKey::from_bytes(&seed))
    }

    /// The 32 bytes that [`SecretKey::from_seed`] takes. Handle as the secret that it is.
    pub fn seed(&self) -> [u8; 32] {
        self.0.to_bytes()
    }

    pub fn public(&self) -> PublicKey {
        PublicKey::ed25519(self.0.verifying_key().to_bytes())
    }

    pub fn sign(&self, message: &[u8]) -> Signature {
        Signature(self.0.sign(message).to_bytes())
    }

    /// What a key file holds: type byte and seed in hexadecimal, and a line end.
    pub fn to_file_text(&self) -> String {
        format!("{:02x}{}\n", KeyType::Ed25519 as u8, hex::encode(&self.seed()))
    }

    /// The inverse of [`SecretKey::to_file_text`]; white space around it is ignored.
    pub fn from_file_text(text: &str) -> Result<Self, KeyError> {
        let bytes: [u8; 33] = hex::decode(text.trim()).ok_or(KeyError::Secret)?;
        KeyType::from_byte(bytes[0]).ok_or(KeyError::Secret)?;
        let seed = bytes[1..].try_into().expect("33 bytes without the first are 32");
        Ok(Self::from_seed(seed))
    }

    /// PKCS #8 version 1 in DER (RFC 8410), the form a TLS library takes: a fixed header and the seed.
    pub fn to_pkcs8_der(&self) -> Vec<u8> {
        let mut der = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
        der.extend_from_slice(&self.seed());
        der
    }
}

impl fmt::Debug for SecretKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SecretKey(of {})", self.public())
    }
}

/// An ed25519 signature as it was sent; nothing about it is checked before it is verified.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, BorshSerialize, BorshDeserialize)]
pub struct Signature([u8; 64]);

impl Signature {
    pub const fn from_bytes(bytes: [u8; 64]) -> Self {
        Self(bytes)
    }

    pub const fn as_bytes(&self) -> &[u8; 64] {
        &self.0
    }
}

impl fmt::Display for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}

impl fmt::Debug for Signature {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        hex::write(f, &self.0)
    }
}
