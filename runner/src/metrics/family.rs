//! Families of metrics whose numbers are kept elsewhere and read at each scrape.

use std::collections::HashMap;

use prometheus::core::Desc;
use prometheus::proto::{Counter, Gauge, Histogram, LabelPair, Metric, MetricFamily, MetricType};

/// A family's name, help text and labels.
#[derive(Debug)]
pub struct Family {
    name: &'static str,
    help: &'static str,
    labels: &'static [&'static str],
    description: Desc,
}

/// What a metric has to tell.
#[derive(Debug)]
pub enum Reading {
    /// Only grows.
    Counter(u64),
    /// Goes up and down.
    Gauge(i64),
    /// Values by size.
    Histogram(Histogram),
}

impl Family {
    /// A family whose metrics have these labels.
    ///
    /// # Errors
    /// If a name is not valid.
    pub fn new(
        name: &'static str,
        help: &'static str,
        labels: &'static [&'static str],
    ) -> Result<Self, prometheus::Error> {
        let names = labels.iter().map(|label| (*label).to_owned()).collect();
        let description = Desc::new(name.to_owned(), help.to_owned(), names, HashMap::new())?;
        Ok(Self {
            name,
            help,
            labels,
            description,
        })
    }

    /// For the registry.
    #[must_use]
    pub fn description(&self) -> &Desc {
        &self.description
    }

    /// The family with its metrics: for each the values of the labels, and what it tells.
    #[must_use]
    pub fn collect(
        &self,
        readings: impl IntoIterator<Item = (Vec<String>, Reading)>,
    ) -> MetricFamily {
        let mut family = MetricFamily::default();
        family.set_name(self.name.to_owned());
        family.set_help(self.help.to_owned());
        let metrics = readings.into_iter().map(|(values, reading)| {
            let (kind, metric) = self.metric(values, reading);
            family.set_field_type(kind);
            metric
        });
        let metrics = metrics.collect();
        family.set_metric(metrics);
        family
    }

    #[expect(
        clippy::cast_precision_loss,
        reason = "metrics are floating point by format"
    )]
    fn metric(&self, values: Vec<String>, reading: Reading) -> (MetricType, Metric) {
        let labels = self.labels.iter().zip(values).map(|(name, value)| {
            let mut label = LabelPair::default();
            label.set_name((*name).to_owned());
            label.set_value(value);
            label
        });
        let mut metric = Metric::from_label(labels.collect());
        let kind = match reading {
            Reading::Counter(value) => {
                let mut counter = Counter::default();
                counter.set_value(value as f64);
                metric.set_counter(counter);
                MetricType::COUNTER
            }
            Reading::Gauge(value) => {
                let mut gauge = Gauge::default();
                gauge.set_value(value as f64);
                metric.set_gauge(gauge);
                MetricType::GAUGE
            }
            Reading::Histogram(histogram) => {
                metric.set_histogram(histogram);
                MetricType::HISTOGRAM
            }
        };
        (kind, metric)
    }
}
