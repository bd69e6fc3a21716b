//! The Grafana dashboard shows only metrics that exist.

use std::collections::BTreeSet;
use std::path::Path;

use faas_wasm_tests::Guest;
use serde_json::Value;

fn dashboard() -> Value {
    let path =
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../templates/grafana/faas-wasm-runner.json");
    let text = std::fs::read_to_string(path).expect("the dashboard is there");
    serde_json::from_str(&text).expect("it is JSON")
}

/// Metric names: those that stand before the `{` of a selector.
fn metrics_of(expression: &str) -> BTreeSet<String> {
    let named = expression.split('{').filter_map(|before| {
        let name = before.rsplit(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        name.take(1).find(|name| !name.is_empty())
    });
    // The text after the last selector contains no name.
    let count = expression.matches('{').count();
    named.take(count).map(str::to_owned).collect()
}

#[test]
fn metric_names_are_found_in_expressions() {
    let found = metrics_of("sum by (le) (rate(a_total{x=\"1\"}[5m])) / b{y=~\"2\"} + 3");
    assert_eq!(found, BTreeSet::from(["a_total".into(), "b".into()]));
}

#[test]
fn the_dashboard_shows_only_existing_metrics() {
    let guest = Guest::fixture("hello");
    let runner = guest.serve().start();
    // Series by status exist only after the first request.
    runner.get("/");
    runner.wait_for_metric("wasm_instances_started_total", 1.0);
    runner.wait_for_metric("http_requests_total{code=\"200\",method=\"get\"}", 1.0);
    let text = runner.metrics();
    let existing: BTreeSet<_> = text
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.split(['{', ' ']).next())
        .collect();

    let dashboard = dashboard();
    let panels = dashboard["panels"].as_array().expect("a list");
    assert!(!panels.is_empty());
    for panel in panels {
        let targets = panel["targets"].as_array().expect("a list");
        assert!(!targets.is_empty(), "{}", panel["title"]);
        for target in targets {
            let expression = target["expr"].as_str().expect("a text");
            let metrics = metrics_of(expression);
            assert!(!metrics.is_empty(), "{expression}");
            for metric in metrics {
                assert!(
                    existing.contains(metric.as_str()),
                    "{}: there is no {metric} in\n{text}",
                    panel["title"]
                );
            }
        }
    }
}
