//! An issuer's public keys, a JSON Web Key Set.
//!
//! Each key is good for one algorithm alone. Keys for other uses are passed
//! over, as real sets have them; a set without a usable key, or with a secret
//! in it, is refused.

use std::sync::Arc;

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyAlgorithm, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

use super::claims::Header;
use super::invalid;
use crate::refusal::Refusal;
use crate::security::belief::{Belief, Believed};

/// The member that marks a development node's keys, in the set and in each key.
pub(in crate::security) const DEVELOPMENT_MEMBER: &str = "simpul_development";

/// How many keys of a set are read.
const MAX_KEYS: usize = 64;

/// Why a set is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(in crate::security) enum JwksError {
    /// Torn or something else.
    #[error("is not a JSON Web Key Set")]
    Form,
    /// Nothing to verify with.
    #[error("holds no key for EdDSA (Ed25519), ES256 or RS256 signatures")]
    NoKey,
    /// A symmetric key would let every reader of the file sign.
    #[error("holds a symmetric key; only public keys belong here")]
    Symmetric,
    /// A key's private half.
    #[error("holds a private key; only public keys belong here")]
    Private,
    /// Which of two would be meant.
    #[error("has several keys, and one of them has no kid or another's")]
    KeyIds,
    /// Made by a development node.
    #[error("was made for development; production does not take it")]
    Development,
}

/// The usable keys.
pub(in crate::security) struct KeySet(Vec<Key>);

struct Key {
    id: Option<String>,
    algorithm: Algorithm,
    key: DecodingKey,
    /// The members that make the key what it is.
    material: Vec<Value>,
    believed: Believed,
}

impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| (&key.id, key.algorithm))).finish()
    }
}

impl KeySet {
    /// Reads a set.
    pub(in crate::security) fn read(json: &[u8], production: bool) -> Result<Self, JwksError> {
        let set: Value = serde_json::from_slice(json).map_err(|_| JwksError::Form)?;
        let listed = set.get("keys").and_then(Value::as_array).ok_or(JwksError::Form)?;
        if listed.len() > MAX_KEYS {
            return Err(JwksError::Form);
        }
        let marked = |value: &Value| value.get(DEVELOPMENT_MEMBER).is_some();
        if production && (marked(&set) || listed.iter().any(marked)) {
            return Err(JwksError::Development);
        }
        let mut keys: Vec<Key> = Vec::new();
        for value in listed {
            if value.get("kty").and_then(Value::as_str) == Some("oct") {
                return Err(JwksError::Symmetric);
            }
            if value.get("d").is_some() {
                return Err(JwksError::Private);
            }
            keys.extend(Key::read(value));
        }
        let twice =
            keys.iter().enumerate().any(|(i, key)| keys.iter().take(i).any(|k| k.id == key.id));
        let nameless = keys.iter().any(|key| key.id.is_none());
        match keys.len() {
            0 => Err(JwksError::NoKey),
            1 => Ok(Self(keys)),
            _ if twice || nameless => Err(JwksError::KeyIds),
            _ => Ok(Self(keys)),
        }
    }

    /// Goes on with the belief in the keys that a former set had too.
    pub(in crate::security) fn go_on_from(&mut self, former: &Self) {
        for key in &mut self.0 {
            if let Some(same) = former.0.iter().find(|other| other.is(key)) {
                key.believed = same.believed.clone();
            }
        }
    }

    /// Ends what rests on keys that are in none of these sets.
    pub(super) fn withdraw_unless_in(&self, sets: &[Arc<KeySet>]) {
        let kept = sets.iter().flat_map(|set| &set.0);
        for key in &self.0 {
            if !kept.clone().any(|other| other.believed.is(&key.believed)) {
                key.believed.withdraw();
            }
        }
    }

    /// Whether one of the keys signed the message, by its own algorithm; gives
    /// the belief in it.
    pub(super) fn verify(
        &self,
        header: &Header,
        message: &[u8],
        signature: &str,
    ) -> Result<Belief, Refusal> {
        let key = match (&header.kid, self.0.as_slice()) {
            (Some(id), keys) => keys
                .iter()
                // A lone key without a name answers to any.
                .find(|key| key.id.as_ref().map_or(keys.len() == 1, |own| own == id))
                .ok_or_else(|| invalid("the token's key (kid) is not the issuer's"))?,
            (None, [only]) => only,
            (None, _) => return Err(invalid("the token must name its key (kid)")),
        };
        if header.alg != name(key.algorithm) {
            return Err(invalid("the token's algorithm (alg) is not its key's"));
        }
        match jsonwebtoken::crypto::verify(signature, message, &key.key, key.algorithm) {
            Ok(true) => Ok(key.believed.belief()),
            Ok(false) | Err(_) => Err(invalid("the token's signature is not right")),
        }
    }
}

impl Key {
    /// `None` for keys that sign no tokens here.
    fn read(value: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(value.clone()).ok()?;
        if !matches!(jwk.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
            return None;
        }
        let (algorithm, named) = match &jwk.algorithm {
            AlgorithmParameters::OctetKeyPair(key) if key.curve == EllipticCurve::Ed25519 => {
                (Algorithm::EdDSA, KeyAlgorithm::EdDSA)
            }
            AlgorithmParameters::EllipticCurve(key) if key.curve == EllipticCurve::P256 => {
                (Algorithm::ES256, KeyAlgorithm::ES256)
            }
            AlgorithmParameters::RSA(_) => (Algorithm::RS256, KeyAlgorithm::RS256),
            _ => return None,
        };
        if jwk.common.key_algorithm.is_some_and(|own| own != named) {
            return None;
        }
        let key = DecodingKey::from_jwk(&jwk).ok()?;
        let material = ["kty", "crv", "x", "y", "n", "e"];
        let material = material.map(|name| value.get(name).cloned().unwrap_or_default()).into();
        let (id, believed) = (jwk.common.key_id, Believed::new());
        Some(Self { id, algorithm, key, material, believed })
    }

    /// Whether both are one key, under one name.
    fn is(&self, other: &Self) -> bool {
        (&self.id, self.algorithm, &self.material) == (&other.id, other.algorithm, &other.material)
    }
}

fn name(algorithm: Algorithm) -> &'static str {
    match algorithm {
        Algorithm::EdDSA => "EdDSA",
        Algorithm::ES256 => "ES256",
        Algorithm::RS256 => "RS256",
        // Key::read makes no others.
        _ => "",
    }
}
