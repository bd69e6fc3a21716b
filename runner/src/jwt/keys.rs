//! The issuer's public keys, and which algorithms each of them may be used with.

use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// A set of public keys.
#[derive(Debug)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// A public key.
pub(super) struct Key {
    id: String,
    algorithms: &'static [Algorithm],
    decoding_key: DecodingKey,
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Key")
            .field("id", &self.id)
            .field("algorithms", &self.algorithms)
            .finish_non_exhaustive()
    }
}

impl KeySet {
    /// The usable keys of a JWK set; `None` if it is not one. Keys of unknown kinds and secrets are left out.
    pub(super) fn from_json(set: &Value) -> Option<Self> {
        let keys = set.get("keys")?.as_array()?;
        Some(Self {
            keys: keys.iter().filter_map(Key::from_json).collect(),
        })
    }

    /// The first key with this number.
    pub(super) fn find(&self, id: &str) -> Option<&Key> {
        self.keys.iter().find(|key| key.id == id)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = &str> {
        self.keys.iter().map(|key| key.id.as_str())
    }
}

impl Key {
    fn from_json(key: &Value) -> Option<Self> {
        let jwk: Jwk = serde_json::from_value(key.clone()).ok()?;
        let algorithms: &[Algorithm] = match &jwk.algorithm {
            AlgorithmParameters::RSA(_) => &[
                Algorithm::RS256,
                Algorithm::RS384,
                Algorithm::RS512,
                Algorithm::PS256,
                Algorithm::PS384,
                Algorithm::PS512,
            ],
            AlgorithmParameters::EllipticCurve(parameters) => match parameters.curve {
                EllipticCurve::P256 => &[Algorithm::ES256],
                EllipticCurve::P384 => &[Algorithm::ES384],
                _ => return None,
            },
            AlgorithmParameters::OctetKeyPair(_) => &[Algorithm::EdDSA],
            // A secret in a public set verifies nothing.
            _ => return None,
        };
        let decoding_key = DecodingKey::from_jwk(&jwk).ok()?;
        Some(Self {
            id: jwk.common.key_id.unwrap_or_default(),
            algorithms,
            decoding_key,
        })
    }

    /// What it may be used with.
    pub(super) fn algorithms(&self) -> &[Algorithm] {
        self.algorithms
    }

    pub(super) fn decoding_key(&self) -> &DecodingKey {
        &self.decoding_key
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn reads_public_keys_only() {
        let set = json!({ "keys": [
            { "kty": "oct", "kid": "secret", "k": "c2VjcmV0" },
            { "kty": "XYZ", "kid": "unknown" },
            { "kty": "OKP", "kid": "ed", "crv": "Ed25519", "x": "11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo", "alg": "EdDSA", "use": "sig" },
            { "kty": "RSA", "kid": "rsa", "e": "AQAB", "n": "sXch" },
            "nonsense",
        ]});
        let keys = KeySet::from_json(&set).expect("a set");
        assert_eq!(keys.ids().collect::<Vec<_>>(), ["ed", "rsa"]);
        let ed = keys.find("ed").expect("there");
        assert_eq!(ed.algorithms(), [Algorithm::EdDSA]);
        assert!(KeySet::from_json(&json!({})).is_none());
        assert!(KeySet::from_json(&json!([])).is_none());
    }
}
