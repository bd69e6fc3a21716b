//! Fuzzing of tokens: only tokens that the issuer signed are accepted, and only if their claims permit it.
#![allow(clippy::expect_used, reason = "a panic is how a fuzz target fails")]

use std::sync::LazyLock;

use base64::Engine as _;
use base64::prelude::BASE64_URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::{Value, json};

use super::keys::KeySet;
use super::permissions::FunctionClaim;
use super::token::Token;
use super::{Authenticator, Claims};
use crate::config::LogFormat;
use crate::log::Logger;

const ISSUER: &str = "http://issuer";
const FUNCTION: &str = "openfaas-fn:env";

/// The issuer's key: an Ed25519 key in PKCS#8, as RFC 8410 encodes it.
static KEY: LazyLock<EncodingKey> = LazyLock::new(|| {
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend_from_slice(&[1; 32]);
    EncodingKey::from_ed_der(&der)
});

static AUTHENTICATOR: LazyLock<Authenticator> = LazyLock::new(|| {
    let public = jsonwebtoken::jwk::Jwk::from_encoding_key(&KEY, Algorithm::EdDSA);
    let mut key = serde_json::to_value(public.expect("a public key")).expect("JSON");
    key["kid"] = json!("k1");
    Authenticator {
        issuer: ISSUER.to_owned(),
        keys: KeySet::from_json(&json!({ "keys": [key] })).expect("keys"),
        function: FUNCTION.to_owned(),
        debug: false,
        logger: Logger::new(LogFormat::Text, true),
    }
});

/// Takes bytes as a token, as a set of keys, and as the header and the claims of a token that the issuer signs: the
/// first line and what follows it.
///
/// # Panics
///
/// If a token is accepted that should not be.
pub fn token(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    assert!(
        AUTHENTICATOR.accept(text).is_err(),
        "a token without the issuer's signature"
    );
    if let Ok(set) = serde_json::from_slice(bytes) {
        let _ = KeySet::from_json(&set);
    }
    let (header, claims) = text
        .split_once('\n')
        .unwrap_or((r#"{"alg":"EdDSA","kid":"k1"}"#, text));
    let part = |text: &str| BASE64_URL_SAFE_NO_PAD.encode(text);
    let signed = format!("{}.{}", part(header), part(claims));
    // Signing is slow, so sign only tokens that pass the checks before the signature.
    let unsigned = format!("{signed}.");
    if !Token::parse(&unsigned).is_ok_and(|token| token.key_id().is_ok_and(|id| id == "k1")) {
        assert!(AUTHENTICATOR.accept(&unsigned).is_err());
        return;
    }
    let signature = jsonwebtoken::crypto::sign(signed.as_bytes(), &KEY, Algorithm::EdDSA);
    let token = format!("{signed}.{}", signature.expect("a signature"));
    let Ok(accepted) = AUTHENTICATOR.accept(&token) else {
        return;
    };
    permissions(&accepted);
    let header: Value = serde_json::from_str(header).expect("it was accepted");
    assert_eq!(header["alg"], "EdDSA");
    let claims: Value = serde_json::from_str(claims).expect("it was accepted");
    assert_eq!(claims["iss"], ISSUER);
    let audience = &claims["aud"];
    let listed = |list: &Vec<Value>| list.iter().any(|one| one == ISSUER);
    assert!(
        audience == ISSUER || audience.as_array().is_some_and(listed),
        "{audience}"
    );
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = now.expect("after 1970").as_secs_f64();
    let time = |name: &str| claims[name].as_f64();
    assert!(
        time("exp").is_none_or(|at| now < at + 2.0) && time("nbf").is_none_or(|at| now > at - 2.0)
    );
    assert!(
        ["exp", "nbf"]
            .iter()
            .all(|name| claims[name].is_null() || claims[name].is_number())
    );
}

/// `allows` agrees with a second implementation of the patterns.
fn permissions(claims: &Claims) {
    let FunctionClaim {
        permissions,
        audience,
    } = &claims.function;
    let any = |patterns: &[String]| {
        let mut patterns = patterns.iter();
        patterns.any(|pattern| glob(pattern.as_bytes(), FUNCTION.as_bytes()))
    };
    let expected = (audience.is_empty() || any(audience)) && any(permissions);
    assert_eq!(
        claims.function.allows(FUNCTION),
        expected,
        "{:?}",
        claims.function
    );
}

/// Whether a pattern matches, by dynamic programming over the prefixes of the name.
fn glob(pattern: &[u8], name: &[u8]) -> bool {
    let mut matched = vec![false; name.len() + 1];
    matched[0] = true;
    for byte in pattern {
        if *byte == b'*' {
            for at in 1..=name.len() {
                matched[at] |= matched[at - 1];
            }
        } else {
            for at in (1..=name.len()).rev() {
                matched[at] = matched[at - 1] && name[at - 1] == *byte;
            }
            matched[0] = false;
        }
    }
    matched[name.len()]
}
