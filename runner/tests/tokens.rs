//! Token checks, with an issuer of our own where the local one is expected.
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

mod support;

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::sync::mpsc::{Receiver, channel};

use jsonwebtoken::{Algorithm, EncodingKey, Header, jwk::Jwk};
use serde_json::{Value, json};
use support::{skip, start};

const ISSUER: &str = "http://127.0.0.1:8000";

/// An Ed25519 key in the encoding of RFC 8410.
fn signing_key() -> EncodingKey {
    let mut der = vec![
        0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20,
    ];
    der.extend_from_slice(&[7; 32]);
    EncodingKey::from_ed_der(&der)
}

/// Serves the configuration and the keys; gives the request lines that it got. `None` if the port is taken.
fn issuer() -> Option<Receiver<String>> {
    let listener = TcpListener::bind("127.0.0.1:8000").ok()?;
    let jwk = Jwk::from_encoding_key(&signing_key(), Algorithm::EdDSA).expect("a public key");
    let mut key = serde_json::to_value(jwk).expect("JSON");
    key["kid"] = json!("k1");
    let (sender, receiver) = channel();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let lines: Vec<String> = BufReader::new(stream.try_clone().expect("cloned"))
                .lines()
                .map_while(Result::ok)
                .take_while(|line| !line.is_empty())
                .collect();
            let body = if lines[0].starts_with("GET /.well-known/openid-configuration ") {
                json!({ "issuer": ISSUER, "jwks_uri": format!("{ISSUER}/keys") })
            } else {
                json!({ "keys": [key] })
            }
            .to_string();
            let _ = sender.send(lines.join("\n"));
            let head = format!(
                "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {}\r\n\r\n",
                body.len()
            );
            let _ = stream.write_all(format!("{head}{body}").as_bytes());
        }
    });
    Some(receiver)
}

fn token(permissions: &[&str]) -> String {
    let mut header = Header::new(Algorithm::EdDSA);
    header.kid = Some("k1".to_owned());
    let claims: Value =
        json!({ "iss": ISSUER, "aud": ISSUER, "function": { "permissions": permissions } });
    jsonwebtoken::encode(&header, &claims, &signing_key()).expect("a token")
}

#[test]
fn tokens_open_functions() {
    let Some(requests) = issuer() else {
        return skip("tokens_open_functions", "port 8000 is taken");
    };
    let variables = [
        ("fprocess", "env"),
        ("jwt_auth", "true"),
        ("jwt_auth_local", "true"),
        ("OPENFAAS_NAME", "env"),
        ("OPENFAAS_NAMESPACE", "fn"),
        ("ready_path", "/ready"),
    ];
    let runner = start(&variables, &[]);
    assert!(runner.log().contains(" JWT Auth: true\n"));
    let with = |token: &str| {
        runner.send(
            "GET",
            "/a%20b",
            &[("Authorization", &format!("Bearer {token}"))],
            b"",
        )
    };

    let answer = with(&token(&["fn:env"]));
    assert_eq!(answer.status, 200);
    let text = answer.text();
    let seconds = text
        .lines()
        .find_map(|line| line.strip_prefix("Http_X_Auth_Seconds="))
        .expect("passed on");
    assert!(seconds.parse::<f64>().is_ok(), "{seconds}");
    assert!(text.contains("Http_Authorization=Bearer "));

    let refused = with(&token(&["fn:en"]));
    assert_eq!(
        (refused.status, refused.text().as_str()),
        (403, "insufficient permissions\n")
    );
    runner.wait_for_log(" GET /a b - 403 ACCESS DENIED - (");
    let missing = runner.get("/");
    assert_eq!(
        (missing.status, missing.header("www-authenticate")),
        (401, Some("Bearer realm=IAM function invoke"))
    );
    assert_eq!(
        missing.header("x-openfaas-internal"),
        Some("faas-middleware")
    );
    assert_eq!(
        missing.text(),
        "Bearer must be present in Authorization header\n"
    );
    assert_eq!(with("a.b.c").status, 401);

    assert_eq!(runner.get("/_/health").status, 200, "probes need no token");
    assert_eq!(
        runner.get("/_/ready").status,
        200,
        "nor does the question for the function's own readiness"
    );
    assert!(
        runner
            .metrics()
            .contains("http_requests_total{code=\"403\",method=\"get\"} 1")
    );
    let asked: Vec<String> = requests.try_iter().collect();
    assert_eq!(
        asked.len(),
        2,
        "two requests at start, none later: {asked:?}"
    );
    assert!(
        asked[1]
            .to_ascii_lowercase()
            .contains("user-agent: openfaas-watchdog"),
        "{}",
        asked[1]
    );
}
