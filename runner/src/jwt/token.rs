//! A token taken apart, and what is wrong with one in the words of the Go library that of-watchdog uses. That library
//! reports all claims that do not hold, and JSON's null as a claim that is not there.

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, DecodingKey};
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value};

use super::permissions::{FunctionClaim, or_default};

/// How far the issuer's clock may be off, in seconds.
const LEEWAY: f64 = 1.0;

/// A token whose signature has not been checked.
#[derive(Debug)]
pub(super) struct Token<'a> {
    signed: &'a str,
    signature: &'a str,
    /// `None` for a token without a signature.
    algorithm: Option<Algorithm>,
    key_id: Value,
    claims: Claims,
}

/// What a token claims.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Claims {
    #[serde(rename = "iss", deserialize_with = "or_default")]
    pub(super) issuer: String,
    #[serde(rename = "aud", deserialize_with = "one_or_many")]
    pub(super) audience: Vec<String>,
    #[serde(rename = "exp")]
    expires: Option<f64>,
    #[serde(rename = "nbf")]
    not_before: Option<f64>,
    #[serde(deserialize_with = "or_default")]
    pub(super) function: FunctionClaim,
}

/// Why a token is not accepted.
#[derive(Debug, thiserror::Error)]
pub(super) enum TokenError {
    #[error("token is malformed: token contains an invalid number of segments")]
    Segments,
    #[error("token is malformed: could not base64 decode {part}: {cause}")]
    Base64 {
        part: &'static str,
        #[source]
        cause: base64::DecodeError,
    },
    #[error("token is malformed: could not JSON decode {part}: {cause}")]
    Json {
        part: &'static str,
        #[source]
        cause: serde_json::Error,
    },
    #[error("token is unverifiable: signing method (alg) is unspecified")]
    NoAlgorithm,
    #[error("token is unverifiable: signing method (alg) is unavailable")]
    UnknownAlgorithm,
    #[error("token is unverifiable: error while executing keyfunc: invalid kid: {0}")]
    UnknownKey(String),
    #[error(
        "token signature is invalid: token is unverifiable: 'none' signature type is not allowed"
    )]
    Unsigned,
    #[error("token signature is invalid: key is of invalid type for {0:?}")]
    KeyType(Algorithm),
    #[error("token signature is invalid: verification error")]
    Signature,
    #[error("token has invalid claims: {}", join(.0))]
    Claims(Vec<ClaimError>),
}

/// A claim that does not hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ClaimError {
    #[error("token is expired")]
    Expired,
    #[error("token is not valid yet")]
    NotYet,
    #[error("token is missing required claim: {0} claim is required")]
    Missing(&'static str),
    #[error("token has invalid audience")]
    Audience,
    #[error("token has invalid issuer")]
    Issuer,
}

fn join(errors: &[ClaimError]) -> String {
    let texts: Vec<String> = errors.iter().map(ToString::to_string).collect();
    texts.join(", ")
}

impl<'a> Token<'a> {
    pub(super) fn parse(text: &'a str) -> Result<Self, TokenError> {
        let (signed, signature) = text.rsplit_once('.').ok_or(TokenError::Segments)?;
        let (header, claims) = signed.split_once('.').ok_or(TokenError::Segments)?;
        if claims.contains('.') {
            return Err(TokenError::Segments);
        }
        let header: Map<String, Value> = decode("header", header)?;
        let claims = decode("claim", claims)?;
        let algorithm = match header.get("alg").and_then(Value::as_str) {
            None => return Err(TokenError::NoAlgorithm),
            Some("none") => None,
            Some(name) => Some(name.parse().map_err(|_| TokenError::UnknownAlgorithm)?),
        };
        Ok(Self {
            signed,
            signature,
            algorithm,
            key_id: header.get("kid").cloned().unwrap_or_default(),
            claims,
        })
    }

    pub(super) fn claims(&self) -> &Claims {
        &self.claims
    }

    /// The number of the key that it says it was signed with.
    pub(super) fn key_id(&self) -> Result<&str, TokenError> {
        match &self.key_id {
            Value::String(id) => Ok(id),
            Value::Null => Err(TokenError::UnknownKey("<nil>".to_owned())),
            other => Err(TokenError::UnknownKey(other.to_string())),
        }
    }

    /// Checks the signature with a key that may be used with `algorithms`.
    pub(super) fn verify(
        self,
        key: &DecodingKey,
        algorithms: &[Algorithm],
    ) -> Result<Claims, TokenError> {
        let algorithm = self.algorithm.ok_or(TokenError::Unsigned)?;
        if !algorithms.contains(&algorithm) {
            return Err(TokenError::KeyType(algorithm));
        }
        let signed = self.signed.as_bytes();
        match jsonwebtoken::crypto::verify(self.signature, signed, key, algorithm) {
            Ok(true) => Ok(self.claims),
            Ok(false) | Err(_) => Err(TokenError::Signature),
        }
    }
}

impl Claims {
    /// Checks all that does not concern the function, at a time in seconds since the epoch.
    pub(super) fn validate(&self, issuer: &str, now: f64) -> Result<(), TokenError> {
        let expired = self.expires.is_some_and(|at| now >= at + LEEWAY);
        let not_yet = self.not_before.is_some_and(|at| now < at - LEEWAY);
        let audience = match self.audience.as_slice() {
            [] => Some(ClaimError::Missing("aud")),
            [one] if one.is_empty() => Some(ClaimError::Missing("aud")),
            all if all.iter().any(|audience| audience == issuer) => None,
            _ => Some(ClaimError::Audience),
        };
        let wrong_issuer = match self.issuer.as_str() {
            "" => Some(ClaimError::Missing("iss")),
            found if found == issuer => None,
            _ => Some(ClaimError::Issuer),
        };
        let errors: Vec<_> = [
            expired.then_some(ClaimError::Expired),
            not_yet.then_some(ClaimError::NotYet),
            audience,
            wrong_issuer,
        ]
        .into_iter()
        .flatten()
        .collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(TokenError::Claims(errors))
        }
    }
}

fn decode<T: for<'de> Deserialize<'de>>(part: &'static str, text: &str) -> Result<T, TokenError> {
    let json = BASE64_URL_SAFE_NO_PAD
        .decode(text)
        .map_err(|cause| TokenError::Base64 { part, cause })?;
    serde_json::from_slice(&json).map_err(|cause| TokenError::Json { part, cause })
}

fn one_or_many<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Vec<String>, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged, expecting = "invalid type for claim")]
    enum OneOrMany {
        One(String),
        Many(Vec<String>),
        None,
    }
    Ok(match OneOrMany::deserialize(deserializer)? {
        OneOrMany::One(one) => vec![one],
        OneOrMany::Many(many) => many,
        OneOrMany::None => Vec::new(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(header: &str, claims: &str) -> String {
        let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
        format!("{}.{}.c2ln", part(header), part(claims))
    }

    #[test]
    fn what_is_no_token_is_told() {
        for (text, expected) in [
            ("", "token is malformed: token contains an invalid number"),
            (
                "a.b",
                "token is malformed: token contains an invalid number",
            ),
            (
                "a.b.c.d",
                "token is malformed: token contains an invalid number",
            ),
            (
                "a b.b.c",
                "token is malformed: could not base64 decode header: ",
            ),
            (
                "YQ.YQ.c",
                "token is malformed: could not JSON decode header: ",
            ),
        ] {
            let error = Token::parse(text).expect_err(text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        }
        for (header, claims, expected) in [
            (
                r#"{}"#,
                "{}",
                "token is unverifiable: signing method (alg) is unspecified",
            ),
            (
                r#"{"alg":7}"#,
                "{}",
                "token is unverifiable: signing method (alg) is unspecified",
            ),
            (
                r#"{"alg":"XX"}"#,
                "{}",
                "token is unverifiable: signing method (alg) is unavailable",
            ),
            (
                r#"{"alg":"RS256"}"#,
                r#"{"aud":5}"#,
                "token is malformed: could not JSON decode claim: invalid type",
            ),
            (
                r#"{"alg":"RS256"}"#,
                r#"{"exp":"x"}"#,
                "token is malformed: could not JSON decode claim: ",
            ),
            (
                r#"{"alg":"RS256"}"#,
                r#"{"function":"x"}"#,
                "token is malformed: could not JSON decode claim: ",
            ),
        ] {
            let text = encoded(header, claims);
            let error = Token::parse(&text).expect_err(header).to_string();
            assert!(error.starts_with(expected), "{header} {claims}: {error}");
        }
    }

    #[test]
    fn keys_are_named_by_text() {
        for (header, expected) in [
            (r#"{"alg":"none","kid":"k"}"#, Ok("k")),
            (r#"{"alg":"none"}"#, Err("invalid kid: <nil>")),
            (r#"{"alg":"none","kid":5}"#, Err("invalid kid: 5")),
        ] {
            let text = encoded(header, "{}");
            let token = Token::parse(&text).expect("a token");
            match (token.key_id(), expected) {
                (Ok(id), Ok(expected)) => assert_eq!(id, expected),
                (Err(error), Err(expected)) => {
                    assert!(error.to_string().ends_with(expected), "{error}");
                }
                (found, _) => panic!("{header}: {found:?}"),
            }
            let error = token.verify(&DecodingKey::from_secret(b""), &[]);
            assert!(matches!(error, Err(TokenError::Unsigned)), "{error:?}");
        }
    }

    #[test]
    fn all_claims_that_do_not_hold_are_told() {
        let check = |claims: &str| -> String {
            let claims: Claims = serde_json::from_str(claims).expect(claims);
            match claims.validate("me", 100.0) {
                Ok(()) => String::new(),
                Err(error) => error.to_string(),
            }
        };
        for claims in [
            r#"{"iss":"me","aud":"me"}"#,
            r#"{"iss":"me","aud":["x","me"],"exp":99.5,"nbf":100.9}"#,
            r#"{"iss":"me","aud":"me","exp":null,"nbf":null,"function":null}"#,
            r#"{"iss":"me","aud":"me","exp":1e300,"function":{"permissions":null}}"#,
        ] {
            assert_eq!(check(claims), "", "{claims}");
        }
        for (claims, expected) in [
            (
                "{}",
                "token is missing required claim: aud claim is required, token is missing required claim: iss claim is required",
            ),
            (
                r#"{"iss":"x","aud":"y","exp":-5,"nbf":200}"#,
                "token is expired, token is not valid yet, token has invalid audience, token has invalid issuer",
            ),
            (
                r#"{"iss":"me","aud":[]}"#,
                "token is missing required claim: aud claim is required",
            ),
            (
                r#"{"iss":"me","aud":null}"#,
                "token is missing required claim: aud claim is required",
            ),
            (r#"{"iss":"me","aud":"me","exp":99}"#, "token is expired"),
        ] {
            let expected = format!("token has invalid claims: {expected}");
            assert_eq!(check(claims), expected, "{claims}");
        }
    }
}
