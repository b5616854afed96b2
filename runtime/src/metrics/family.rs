//! One metric with its samples: written down at once as text, or in the form that the `prometheus` crate has for registries.
//!
//! The text could be made of that form by the crate; with hundreds of task types that takes several times as long, for it keeps each label of each sample
//! as two strings. A test has both and compares them.

use std::fmt::Write;

use ergate_actors::timings::{BOUNDS_US, Timings};
use ergate_events::time::Micros;
use ergate_events::view::Spans;
use prometheus::proto::{self, MetricFamily, MetricType};

use super::table::{Kind, Metric};

/// For whom figures are written.
#[derive(Clone, Copy, Debug)]
pub(super) enum Form {
    /// The text format.
    Text,
    /// A registry of the `prometheus` crate.
    Registry,
}

/// One metric and its samples.
pub(super) struct Family {
    metric: &'static Metric,
    samples: Samples,
}

enum Samples {
    Text(String),
    Registry(Vec<proto::Metric>),
}

impl Family {
    pub(super) const fn new(metric: &'static Metric, form: Form) -> Family {
        let samples = match form {
            Form::Text => Samples::Text(String::new()),
            Form::Registry => Samples::Registry(Vec::new()),
        };
        Family { metric, samples }
    }

    /// One that has no labels.
    pub(super) fn of(metric: &'static Metric, form: Form, value: f64) -> Family {
        Family::new(metric, form).with(&[], value)
    }

    /// Adds a sample; `labels` are the values in the order of the metric's names.
    pub(super) fn with(mut self, labels: &[&str], value: f64) -> Family {
        self.add(labels, value);
        self
    }

    /// Adds a sample.
    pub(super) fn add(&mut self, labels: &[&str], value: f64) {
        let metric = self.metric;
        debug_assert_eq!(labels.len(), metric.labels.len(), "{}", metric.name);
        match &mut self.samples {
            Samples::Text(text) => write_sample(text, metric, "", labels, value),
            Samples::Registry(samples) => samples.push(sample(metric, labels, value)),
        }
    }

    /// Adds a histogram of spans.
    pub(super) fn add_spans(&mut self, labels: &[&str], spans: &Spans) {
        self.add_histogram(labels, spans.cumulative(), spans.count(), spans.sum());
    }

    /// A histogram without labels.
    pub(super) fn timings(metric: &'static Metric, form: Form, timings: &Timings) -> Family {
        let (counts, sum_us) = timings.read();
        let upto = counts.iter().scan(0, |sum, count| {
            *sum += count;
            Some(*sum)
        });
        let mut family = Family::new(metric, form);
        family.add_histogram(&[], BOUNDS_US.map(Micros).into_iter().zip(upto), counts.iter().sum(), Micros(sum_us));
        family
    }

    fn add_histogram(&mut self, labels: &[&str], buckets: impl Iterator<Item = (Micros, u64)>, count: u64, sum: Micros) {
        match &mut self.samples {
            Samples::Text(text) => write_histogram(text, self.metric, labels, buckets, (count, sum)),
            Samples::Registry(samples) => samples.push(histogram(self.metric, labels, buckets, (count, sum))),
        }
    }

    /// Writes the family down. One without a sample is left out, for a name alone says nothing.
    pub(super) fn write(self, out: &mut String) {
        let Metric { name, kind, help, .. } = self.metric;
        if let Samples::Text(samples) = self.samples
            && !samples.is_empty()
        {
            let kind = match kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram => "histogram",
            };
            out.extend(["# HELP ", name, " ", help, "\n# TYPE ", name, " ", kind, "\n", &samples]);
        }
    }

    /// The family for a registry; `None` where there is no sample.
    pub(super) fn gather(self) -> Option<MetricFamily> {
        let Samples::Registry(samples) = self.samples else { return None };
        let mut family = MetricFamily::default();
        family.set_name(self.metric.name.to_owned());
        family.set_help(self.metric.help.to_owned());
        family.set_field_type(match self.metric.kind {
            Kind::Counter => MetricType::COUNTER,
            Kind::Gauge => MetricType::GAUGE,
            Kind::Histogram => MetricType::HISTOGRAM,
        });
        let is_empty = samples.is_empty();
        family.set_metric(samples);
        (!is_empty).then_some(family)
    }
}

fn write_sample(text: &mut String, metric: &Metric, suffix: &str, labels: &[&str], value: f64) {
    text.extend([metric.name, suffix]);
    if !labels.is_empty() {
        write_labels(text, metric, labels);
        text.push('}');
    }
    text.push(' ');
    write_number(text, value);
    text.push('\n');
}

/// Labels with their brace, which whoever asked closes.
fn write_labels(text: &mut String, metric: &Metric, labels: &[&str]) {
    for ((name, value), before) in metric.labels.iter().zip(labels).zip(std::iter::once('{').chain(std::iter::repeat(','))) {
        text.push(before);
        text.extend([name, "=\""]);
        write_escaped(text, value);
        text.push('"');
    }
}

fn write_escaped(text: &mut String, value: &str) {
    if !value.contains(['\\', '"', '\n']) {
        return text.push_str(value);
    }
    for char in value.chars() {
        match char {
            '\\' => text.push_str("\\\\"),
            '"' => text.push_str("\\\""),
            '\n' => text.push_str("\\n"),
            char => text.push(char),
        }
    }
}

/// Most are whole, and those are written several times as fast as numbers.
fn write_number(text: &mut String, value: f64) {
    // Exact so far, and far beyond what is counted.
    const WHOLE_MAX: f64 = (1_u64 << 53) as f64;
    // A string takes everything.
    let _ = if (0.0..WHOLE_MAX).contains(&value) && value.fract() == 0.0 {
        write!(text, "{}", value as u64)
    } else {
        write!(text, "{value}")
    };
}

fn write_histogram(
    text: &mut String,
    metric: &Metric,
    labels: &[&str],
    buckets: impl Iterator<Item = (Micros, u64)>,
    (count, sum): (u64, Micros),
) {
    let mut head = format!("{}_bucket", metric.name);
    write_labels(&mut head, metric, labels);
    head.push_str(if labels.is_empty() { "{le=\"" } else { ",le=\"" });
    for (bound, count) in buckets {
        text.push_str(&head);
        write_number(text, seconds(bound));
        // A string takes everything.
        let _ = writeln!(text, "\"}} {count}");
    }
    let _ = writeln!(text, "{head}+Inf\"}} {count}");
    write_sample(text, metric, "_sum", labels, seconds(sum));
    write_sample(text, metric, "_count", labels, number(count));
}

fn sample(metric: &Metric, labels: &[&str], value: f64) -> proto::Metric {
    let mut sample = labelled(metric, labels);
    if metric.kind == Kind::Counter {
        let mut counter = proto::Counter::default();
        counter.set_value(value);
        sample.set_counter(counter);
    } else {
        let mut gauge = proto::Gauge::default();
        gauge.set_value(value);
        sample.set_gauge(gauge);
    }
    sample
}

fn histogram(
    metric: &Metric,
    labels: &[&str],
    buckets: impl Iterator<Item = (Micros, u64)>,
    (count, sum): (u64, Micros),
) -> proto::Metric {
    let mut histogram = proto::Histogram::default();
    histogram.set_bucket(buckets.map(|(bound, count)| bucket(bound, count)).collect());
    histogram.set_sample_count(count);
    histogram.set_sample_sum(seconds(sum));
    let mut sample = labelled(metric, labels);
    sample.set_histogram(histogram);
    sample
}

fn labelled(metric: &Metric, labels: &[&str]) -> proto::Metric {
    let pair = |(name, value): (&&str, &&str)| {
        let mut pair = proto::LabelPair::default();
        pair.set_name((*name).to_owned());
        pair.set_value((*value).to_owned());
        pair
    };
    proto::Metric::from_label(metric.labels.iter().zip(labels).map(pair).collect())
}

fn bucket(bound: Micros, count: u64) -> proto::Bucket {
    let mut bucket = proto::Bucket::default();
    bucket.set_upper_bound(seconds(bound));
    bucket.set_cumulative_count(count);
    bucket
}

/// A span in seconds.
pub(super) fn seconds(span: Micros) -> f64 {
    number(span.0) / 1e6
}

/// A count as a number of Prometheus, exact to 2^53.
pub(super) const fn number(count: u64) -> f64 {
    count as f64
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use prometheus::TextEncoder;

    use super::super::table;
    use super::*;

    /// Everything that families are made of, in one form.
    fn families(form: Form) -> Vec<Family> {
        let timings = Timings::default();
        [3, 70, 1_234_567, 60_000_000].into_iter().for_each(|us| timings.record(Duration::from_micros(us)));
        let mut spans = Spans::default();
        [1, 7_654_321, 4_000_000_000].into_iter().for_each(|us| spans.record(Micros(us)));
        let mut waits = Family::new(&table::WAITS, form);
        waits.add_spans(&["default", "plain"], &spans);
        waits.add_spans(&["new\nline", "quo\"te \\ ünï"], &Spans::default());
        vec![
            waits,
            Family::timings(&table::APPEND, form, &timings),
            Family::new(&table::SLOTS, form),
            Family::new(&table::REQUESTS, form).with(&["a", "b"], 0.0).with(&["\\", "\"\n"], 9_007_199_254_740_993.0),
            Family::new(&table::OLDEST, form).with(&["a", "b"], 0.123_456).with(&["a", "c"], 1e21).with(&["a", "d"], 1e-7),
            Family::of(&table::UNDECIDED, form, 67_108_864.0),
        ]
    }

    #[test]
    fn the_text_is_what_the_prometheus_crate_writes() {
        let mut text = String::new();
        families(Form::Text).into_iter().for_each(|family| family.write(&mut text));
        let gathered: Vec<_> = families(Form::Registry).into_iter().filter_map(Family::gather).collect();
        assert_eq!(text, TextEncoder::new().encode_to_string(&gathered).unwrap_or_default());
        assert!(text.lines().count() > 60);
    }
}
