//! The server's Ed25519 key (RFC 8032): it signs tree heads and erasure receipts, and anybody with its public half
//! can check them.

use std::fmt;
use std::str::FromStr;

use ed25519_dalek::{Signature, Signer, SigningKey, VerifyingKey};
use serde::{Deserialize, Serialize};

use super::error::GovernanceError;

/// Length of the seed that the secret key is made from.
pub const SEED_LEN: usize = 32;
const SIGNATURE_LEN: usize = 64;

/// The secret key. `Debug` does not show it.
pub struct AuditKey(SigningKey);

impl AuditKey {
    /// The key of this seed, which the caller made once and keeps outside of every cube.
    pub fn from_seed(seed: &[u8; SEED_LEN]) -> Self {
        Self(SigningKey::from_bytes(seed))
    }

    /// A new seed.
    ///
    /// # Errors
    /// The operating system gave no randomness.
    pub fn random_seed() -> Result<[u8; SEED_LEN], GovernanceError> {
        let mut seed = [0; SEED_LEN];
        getrandom::fill(&mut seed).map_err(|error| GovernanceError::NoEntropy { reason: error.to_string() })?;
        Ok(seed)
    }

    /// What others check its signatures with.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.verifying_key().to_bytes())
    }

    pub(super) fn sign(&self, message: &[u8]) -> SignatureBytes {
        SignatureBytes(self.0.sign(message).to_bytes())
    }
}

impl fmt::Debug for AuditKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "AuditKey(public {})", self.public())
    }
}

/// The public half of an [`AuditKey`].
#[derive(Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PublicKey([u8; 32]);

impl PublicKey {
    /// The key from its 32 bytes; whether they are a key shows when a signature is checked.
    pub fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Its 32 bytes.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Checks a signature; the strict check also refuses weak keys and second forms of a signature.
    ///
    /// # Errors
    /// It is not this key's signature of this message.
    pub(super) fn verify(
        &self,
        message: &[u8],
        signature: &SignatureBytes,
        what: &'static str,
    ) -> Result<(), GovernanceError> {
        let rejected = |_| GovernanceError::SignatureRejected { what };
        let key = VerifyingKey::from_bytes(&self.0).map_err(rejected)?;
        key.verify_strict(message, &Signature::from_bytes(&signature.0)).map_err(rejected)
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&to_hex(&self.0))
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "PublicKey({self})")
    }
}

impl FromStr for PublicKey {
    type Err = GovernanceError;

    fn from_str(hex: &str) -> Result<Self, GovernanceError> {
        from_hex(hex)
            .map(Self)
            .ok_or(GovernanceError::InvalidField { field: "a public key", reason: "must be 64 lower-case hex digits" })
    }
}

impl TryFrom<String> for PublicKey {
    type Error = GovernanceError;

    fn try_from(hex: String) -> Result<Self, GovernanceError> {
        hex.parse()
    }
}

impl From<PublicKey> for String {
    fn from(key: PublicKey) -> Self {
        key.to_string()
    }
}

/// A signature, unchecked.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct SignatureBytes(pub(super) [u8; SIGNATURE_LEN]);

impl fmt::Debug for SignatureBytes {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "SignatureBytes({})", to_hex(&self.0))
    }
}

impl TryFrom<String> for SignatureBytes {
    type Error = GovernanceError;

    fn try_from(hex: String) -> Result<Self, GovernanceError> {
        from_hex(&hex)
            .map(Self)
            .ok_or(GovernanceError::InvalidField { field: "a signature", reason: "must be 128 lower-case hex digits" })
    }
}

impl From<SignatureBytes> for String {
    fn from(signature: SignatureBytes) -> Self {
        to_hex(&signature.0)
    }
}

fn to_hex(bytes: &[u8]) -> String {
    let digit = |value: u8| char::from_digit(u32::from(value), 16).expect("four bits are a hex digit: this is a bug");
    bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 15)]).collect()
}

fn from_hex<const LEN: usize>(hex: &str) -> Option<[u8; LEN]> {
    let value = |digit: u8| match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        _ => None,
    };
    if hex.len() != 2 * LEN {
        return None;
    }
    let mut bytes = [0; LEN];
    for (byte, pair) in bytes.iter_mut().zip(hex.as_bytes().chunks_exact(2)) {
        *byte = value(pair[0])? << 4 | value(pair[1])?;
    }
    Some(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signature_is_for_one_key_and_one_message() {
        let key = AuditKey::from_seed(&[7; SEED_LEN]);
        let signature = key.sign(b"message");
        key.public().verify(b"message", &signature, "it").expect("its own");
        assert!(key.public().verify(b"massage", &signature, "it").is_err());
        assert!(AuditKey::from_seed(&[8; SEED_LEN]).public().verify(b"message", &signature, "it").is_err());
        for position in 0..SIGNATURE_LEN {
            let mut forged = signature;
            forged.0[position] ^= 1;
            assert!(key.public().verify(b"message", &forged, "it").is_err(), "byte {position}");
        }
        assert!(PublicKey::from_bytes([0; 32]).verify(b"message", &signature, "it").is_err(), "a weak key");
        assert!(!format!("{key:?}").contains("0707"));
    }

    #[test]
    fn the_key_pair_is_that_of_rfc_8032() {
        // Section 7.1, test 1: the empty message.
        let seed = from_hex("9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").expect("hex");
        let key = AuditKey::from_seed(&seed);
        assert_eq!(key.public().to_string(), "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a");
        let signature = String::from(key.sign(b""));
        assert!(signature.starts_with("e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e06522490155"));
        assert_eq!(SignatureBytes::try_from(signature.clone()).map(String::from).expect("hex"), signature);
    }

    #[test]
    fn keys_and_signatures_have_one_spelling() {
        let key = AuditKey::from_seed(&[7; SEED_LEN]).public();
        assert_eq!(key.to_string().parse::<PublicKey>().expect("its own text"), key);
        for hex in ["", "00", &key.to_string().to_uppercase(), &format!("{}g", &key.to_string()[1..])] {
            assert!(hex.parse::<PublicKey>().is_err(), "{hex:?}");
        }
        assert!(AuditKey::random_seed().expect("entropy") != AuditKey::random_seed().expect("entropy"));
    }
}
