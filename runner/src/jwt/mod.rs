//! Token checks: a request is let through if it carries a token of the configured issuer whose permissions name this
//! function. The issuer's keys are fetched once, at start; none of them is fetched again.

mod discovery;
#[cfg(feature = "fuzzing")]
pub(crate) mod fuzzing;
mod keys;
mod permissions;
mod token;

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use http::{HeaderValue, StatusCode};

pub use discovery::SetupError;

use self::keys::KeySet;
use self::token::{Claims, Token, TokenError};
use crate::config::JwtSettings;
use crate::gotext::GoDuration;
use crate::log::Logger;
use crate::request::RequestHead;
use crate::response::{self, Response, X_OPENFAAS_INTERNAL};

/// Checks tokens.
#[derive(Debug)]
pub struct Authenticator {
    issuer: String,
    keys: KeySet,
    /// `<namespace>:<name>`, what permissions are matched against.
    function: String,
    debug: bool,
    logger: Logger,
}

/// Why a request is refused.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("Bearer must be present in Authorization header")]
    NoToken,
    #[error("failed to parse JWT token: {0}")]
    BadToken(#[from] TokenError),
    #[error("insufficient permissions")]
    Forbidden,
}

impl Refusal {
    fn status(&self) -> StatusCode {
        match self {
            Self::NoToken | Self::BadToken(_) => StatusCode::UNAUTHORIZED,
            Self::Forbidden => StatusCode::FORBIDDEN,
        }
    }
}

impl Authenticator {
    /// Fetches the issuer's configuration and keys.
    ///
    /// # Errors
    /// If the function's name is not known or the issuer cannot be asked.
    pub async fn discover(settings: &JwtSettings, logger: &Logger) -> Result<Self, SetupError> {
        let function = discovery::function_name(settings)?;
        let discovery::Issuer { issuer, keys } = discovery::fetch(settings, logger).await?;
        Ok(Self {
            issuer,
            keys,
            function,
            debug: settings.debug,
            logger: *logger,
        })
    }

    /// Lets a request through, with the seconds that the check took as a header value, or gives the answer to it.
    pub(crate) fn check(&self, head: &RequestHead) -> Result<HeaderValue, Box<Response>> {
        let began = Instant::now();
        match self.verify(head) {
            Ok(()) => {
                let seconds = format!("{:.6}", began.elapsed().as_secs_f64());
                // Digits and a point are a header value.
                Ok(HeaderValue::from_str(&seconds).unwrap_or(HeaderValue::from_static("0.000000")))
            }
            Err(refusal) => {
                let milliseconds = (began.elapsed().as_secs_f64() * 1000.0).round();
                #[expect(
                    clippy::cast_possible_truncation,
                    reason = "a check takes no centuries"
                )]
                let elapsed = GoDuration::from_nanos(milliseconds as i64 * 1_000_000);
                self.logger.warn(&format!(
                    "{} {} - {} ACCESS DENIED - ({elapsed})",
                    head.method,
                    String::from_utf8_lossy(&head.decoded_path()),
                    refusal.status().as_u16(),
                ));
                Err(Box::new(answer(&refusal)))
            }
        }
    }

    fn verify(&self, head: &RequestHead) -> Result<(), Refusal> {
        let authorization = head.header(AUTHORIZATION).unwrap_or_default();
        let token = authorization
            .strip_prefix("Bearer ")
            .unwrap_or(authorization);
        if token.is_empty() {
            return Err(Refusal::NoToken);
        }
        if self.debug {
            for kid in self.keys.ids() {
                self.logger.info(&format!("{}: {kid}", self.issuer));
            }
        }
        let claims = self.accept(token)?;
        if claims.function.allows(&self.function) {
            Ok(())
        } else {
            Err(Refusal::Forbidden)
        }
    }

    fn accept(&self, token: &str) -> Result<Claims, TokenError> {
        let token = Token::parse(token)?;
        if self.debug {
            let Claims {
                audience, issuer, ..
            } = token.claims();
            // As Go prints a list of strings.
            let audience = audience.join(" ");
            self.logger.info(&format!(
                "[JWT Auth] Token: audience: [{audience}]\tissuer: {issuer}"
            ));
        }
        let id = token.key_id()?;
        let key = self
            .keys
            .find(id)
            .ok_or_else(|| TokenError::UnknownKey(id.to_owned()))?;
        let claims = token.verify(key.decoding_key(), key.algorithms())?;
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        // No clock is before the epoch.
        claims.validate(&self.issuer, now.unwrap_or_default().as_secs_f64())?;
        Ok(claims)
    }
}

fn answer(refusal: &Refusal) -> Response {
    let mut response = response::error(refusal.status(), refusal.to_string());
    let headers = response.headers_mut();
    headers.insert(
        X_OPENFAAS_INTERNAL,
        HeaderValue::from_static("faas-middleware"),
    );
    if refusal.status() == StatusCode::UNAUTHORIZED {
        headers.insert(
            WWW_AUTHENTICATE,
            HeaderValue::from_static("Bearer realm=IAM function invoke"),
        );
    }
    response
}

#[cfg(test)]
mod tests {
    use jsonwebtoken::{Algorithm, EncodingKey, Header};
    use serde_json::{Value, json};

    use super::*;
    use crate::config::LogFormat;
    use crate::request::tests::head;

    const ISSUER: &str = "http://issuer";

    /// An Ed25519 key in PKCS#8 whose secret is 32 bytes of `fill`; the encoding is RFC 8410's.
    fn signing_key(fill: u8) -> EncodingKey {
        let mut der = vec![
            0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
        ];
        der.extend_from_slice(&[fill; 32]);
        EncodingKey::from_ed_der(&der)
    }

    fn authenticator() -> Authenticator {
        let public = jsonwebtoken::jwk::Jwk::from_encoding_key(&signing_key(1), Algorithm::EdDSA)
            .expect("a public key");
        let mut key = serde_json::to_value(public).expect("JSON");
        key["kid"] = json!("k1");
        Authenticator {
            issuer: ISSUER.to_owned(),
            keys: KeySet::from_json(&json!({ "keys": [key] })).expect("keys"),
            function: "openfaas-fn:env".to_owned(),
            debug: false,
            logger: Logger::new(LogFormat::Text, true),
        }
    }

    fn token(kid: &str, key: &EncodingKey, claims: &Value) -> String {
        let mut header = Header::new(Algorithm::EdDSA);
        header.kid = Some(kid.to_owned());
        jsonwebtoken::encode(&header, claims, key).expect("a token")
    }

    fn good_claims() -> Value {
        json!({ "iss": ISSUER, "aud": [ISSUER], "function": { "permissions": ["openfaas-fn:*"] } })
    }

    fn with(changes: &Value) -> Value {
        let mut claims = good_claims();
        for (name, value) in changes.as_object().expect("an object") {
            claims[name] = value.clone();
        }
        claims
    }

    fn refusal(token: &str) -> Option<String> {
        let head = head("/", &[("authorization", token)]);
        authenticator()
            .verify(&head)
            .err()
            .map(|refusal| format!("{} {refusal}", refusal.status().as_u16()))
    }

    #[test]
    fn accepts_good_tokens() {
        let good = token("k1", &signing_key(1), &good_claims());
        assert_eq!(refusal(&format!("Bearer {good}")), None);
        assert_eq!(refusal(&good), None, "without the word Bearer");
        let audience_as_text = token("k1", &signing_key(1), &with(&json!({ "aud": ISSUER })));
        assert_eq!(refusal(&audience_as_text), None);
    }

    #[test]
    fn refuses_bad_tokens() {
        let now = jsonwebtoken::get_current_timestamp();
        for (changes, expected) in [
            (
                json!({ "iss": "http://other" }),
                "401 failed to parse JWT token: token has invalid claims: token has invalid issuer",
            ),
            (
                json!({ "aud": "http://other" }),
                "401 failed to parse JWT token: token has invalid claims: token has invalid audience",
            ),
            (
                json!({ "exp": now - 60 }),
                "401 failed to parse JWT token: token has invalid claims: token is expired",
            ),
            (
                json!({ "nbf": now + 60 }),
                "401 failed to parse JWT token: token has invalid claims: token is not valid yet",
            ),
            (
                json!({ "function": { "permissions": ["other:*"] } }),
                "403 insufficient permissions",
            ),
            (json!({ "function": {} }), "403 insufficient permissions"),
        ] {
            let token = token("k1", &signing_key(1), &with(&changes));
            assert_eq!(
                refusal(&format!("Bearer {token}")).as_deref(),
                Some(expected),
                "{changes}"
            );
        }
        let without_audience = json!({ "iss": ISSUER, "function": { "permissions": ["*"] } });
        let missing = refusal(&token("k1", &signing_key(1), &without_audience)).expect("refused");
        assert!(
            missing.ends_with("token is missing required claim: aud claim is required"),
            "{missing}"
        );
    }

    #[test]
    fn refuses_unverifiable_tokens() {
        let unknown = refusal(&token("k2", &signing_key(1), &good_claims())).expect("refused");
        assert!(
            unknown
                .ends_with("token is unverifiable: error while executing keyfunc: invalid kid: k2"),
            "{unknown}"
        );
        let forged = refusal(&token("k1", &signing_key(2), &good_claims())).expect("refused");
        assert!(forged.contains("token signature is invalid"), "{forged}");
        let mut hmac = Header::new(Algorithm::HS256);
        hmac.kid = Some("k1".to_owned());
        let confused = jsonwebtoken::encode(&hmac, &good_claims(), &EncodingKey::from_secret(b"x"))
            .expect("a token");
        assert!(
            refusal(&confused)
                .expect("refused")
                .contains("token signature is invalid")
        );
        for garbage in ["Bearer x", "Bearer a.b.c", "Basic abc"] {
            assert!(
                refusal(garbage)
                    .expect("refused")
                    .contains("token is malformed"),
                "{garbage}"
            );
        }
        for empty in ["", "Bearer "] {
            assert_eq!(
                refusal(empty).as_deref(),
                Some("401 Bearer must be present in Authorization header")
            );
        }
    }

    #[test]
    fn refusals_say_how_to_authenticate() {
        let response = authenticator().check(&head("/", &[])).expect_err("refused");
        assert_eq!(response.status(), 401);
        assert_eq!(
            response.headers()["www-authenticate"],
            "Bearer realm=IAM function invoke"
        );
        assert_eq!(response.headers()["x-openfaas-internal"], "faas-middleware");
    }
}
