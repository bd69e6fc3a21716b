//! Asks the issuer for its configuration and keys: two requests, at start.

use std::time::Duration;

use bytes::Bytes;
use http::header::USER_AGENT;
use http::{HeaderValue, StatusCode};
use http_body_util::{BodyExt as _, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use serde::Deserialize;

use super::keys::KeySet;
use crate::config::JwtSettings;
use crate::log::Logger;
use crate::request::RequestBody;

const GATEWAY: &str = "http://gateway.openfaas:8080";
const LOCAL: &str = "http://127.0.0.1:8000";
const CONFIGURATION_PATH: &str = "/.well-known/openid-configuration";
const NAMESPACE_FILE: &str = "/var/run/secrets/kubernetes.io/serviceaccount/namespace";

/// Limits of one request to the issuer.
const TIMEOUT: Duration = Duration::from_secs(30);
const MAX_BODY: usize = 1 << 20;

/// Why tokens cannot be checked.
#[derive(Debug, thiserror::Error)]
pub enum SetupError {
    /// The namespace is neither in the environment nor in the service account.
    #[error("failed to get function namespace: open {NAMESPACE_FILE}: {0}")]
    Namespace(String),
    /// The name is not in the environment.
    #[error("failed to get function name: env variable 'OPENFAAS_NAME' not set")]
    Name,
    /// The issuer does not answer.
    #[error("Get {quoted}: {cause}", quoted = crate::gotext::quote(url))]
    Unreachable {
        /// Where it was asked.
        url: String,
        /// Why there is no answer.
        cause: String,
    },
    /// The issuer answers with an error.
    #[error("failed to get {what} from {url}, status code: {status}, body: {body}")]
    Status {
        /// `config` or `keyset`.
        what: &'static str,
        /// Where it was asked.
        url: String,
        /// The status.
        status: u16,
        /// What it said.
        body: String,
    },
    /// The answer is not what it should be.
    #[error("failed to read {what} from {url}: {cause}")]
    Content {
        /// `config` or `keyset`.
        what: &'static str,
        /// Where it was asked.
        url: String,
        /// What is wrong with it.
        cause: String,
    },
}

/// What the issuer says of itself.
#[derive(Debug)]
pub(super) struct Issuer {
    pub(super) issuer: String,
    pub(super) keys: KeySet,
}

#[derive(Debug, Deserialize)]
struct OpenIdConfiguration {
    issuer: String,
    jwks_uri: String,
}

/// The name that permissions are matched against.
pub(super) fn function_name(settings: &JwtSettings) -> Result<String, SetupError> {
    let namespace = match &settings.namespace {
        Some(namespace) => namespace.clone(),
        None => std::fs::read_to_string(NAMESPACE_FILE)
            .map_err(|cause| SetupError::Namespace(crate::process::io_error_text(&cause)))?,
    };
    if settings.function_name.is_empty() {
        return Err(SetupError::Name);
    }
    Ok(format!("{namespace}:{}", settings.function_name))
}

pub(super) async fn fetch(settings: &JwtSettings, logger: &Logger) -> Result<Issuer, SetupError> {
    let authority = if settings.local { LOCAL } else { GATEWAY };
    let url = format!("{authority}{CONFIGURATION_PATH}");
    let body = get("config", &url, None).await?;
    let configuration: OpenIdConfiguration = parse("config", &url, &body)?;
    let OpenIdConfiguration { issuer, jwks_uri } = configuration;
    if settings.debug {
        logger.info(&format!(
            "[JWT Auth] Issuer: {issuer}\tJWKS URI: {jwks_uri}"
        ));
    }
    let body = get(
        "keyset",
        &jwks_uri,
        Some(HeaderValue::from_static("openfaas-watchdog")),
    )
    .await?;
    let keys = KeySet::from_json(&parse("keyset", &jwks_uri, &body)?).ok_or_else(|| {
        SetupError::Content {
            what: "keyset",
            url: jwks_uri,
            cause: "there is no list \"keys\" in it".to_owned(),
        }
    })?;
    if settings.debug {
        for kid in keys.ids() {
            logger.info(&format!("[JWT Auth] Key: {kid}"));
        }
    }
    Ok(Issuer { issuer, keys })
}

fn parse<T: for<'a> Deserialize<'a>>(
    what: &'static str,
    url: &str,
    body: &[u8],
) -> Result<T, SetupError> {
    serde_json::from_slice(body).map_err(|cause| SetupError::Content {
        what,
        url: url.to_owned(),
        cause: cause.to_string(),
    })
}

async fn get(
    what: &'static str,
    url: &str,
    user_agent: Option<HeaderValue>,
) -> Result<Bytes, SetupError> {
    let unreachable = |cause: String| SetupError::Unreachable {
        url: url.to_owned(),
        cause,
    };
    let mut request = http::Request::get(url)
        .body(RequestBody::none())
        .map_err(|cause| unreachable(cause.to_string()))?;
    if request.uri().scheme_str() != Some("http") {
        return Err(unreachable("only http URLs are supported".to_owned()));
    }
    request
        .headers_mut()
        .extend(user_agent.map(|agent| (USER_AGENT, agent)));
    let client: Client<HttpConnector, RequestBody> =
        Client::builder(TokioExecutor::new()).build_http();
    let exchange = async {
        let response = client
            .request(request)
            .await
            .map_err(|cause| unreachable(error_chain(&cause)))?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_BODY).collect().await;
        Ok((
            status,
            body.map_err(|cause| unreachable(cause.to_string()))?
                .to_bytes(),
        ))
    };
    let (status, body) = tokio::time::timeout(TIMEOUT, exchange)
        .await
        .map_err(|_| unreachable("timed out".to_owned()))??;
    if status != StatusCode::OK {
        let body = String::from_utf8_lossy(&body).into_owned();
        return Err(SetupError::Status {
            what,
            url: url.to_owned(),
            status: status.as_u16(),
            body,
        });
    }
    Ok(body)
}

fn error_chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text = format!("{text}: {cause}");
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_function() {
        let settings = |name: &str, namespace: Option<&str>| JwtSettings {
            debug: false,
            local: false,
            function_name: name.to_owned(),
            namespace: namespace.map(str::to_owned),
        };
        assert_eq!(
            function_name(&settings("env", Some("fn"))).expect("a name"),
            "fn:env"
        );
        assert_eq!(
            function_name(&settings("env", Some(""))).expect("a name"),
            ":env"
        );
        let error = function_name(&settings("", Some("fn")))
            .expect_err("no name")
            .to_string();
        assert_eq!(
            error,
            "failed to get function name: env variable 'OPENFAAS_NAME' not set"
        );
    }
}
