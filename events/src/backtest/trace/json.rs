//! JSON lines: our own, and Mooncake's.

use serde::Deserialize;

use super::{Format, Row, Rows, ServiceModel, TraceError, lines, moment, room, short};

/// A line of either; whatever else it has means nothing here.
#[derive(Deserialize)]
struct Line {
    arrival_s: Option<f64>,
    service_s: Option<f64>,
    priority: Option<u8>,
    /// In milliseconds.
    timestamp: Option<f64>,
    input_length: Option<u32>,
    output_length: Option<u32>,
}

pub(super) fn read(text: &str, model: ServiceModel) -> Result<(Format, Rows), TraceError> {
    let mut rows = Rows::default();
    let mut format = Format::Ndjson;
    for (number, text) in lines(text) {
        short(number, text)?;
        room(&rows)?;
        let line: Line =
            serde_json::from_str(text).map_err(|error| TraceError::Json { line: number, reason: error.to_string() })?;
        if line.arrival_s.is_none() && line.timestamp.is_some() {
            format = Format::Mooncake;
        }
        rows.rows.push(row(number, &line, model)?);
    }
    Ok((format, rows))
}

fn row(number: usize, line: &Line, model: ServiceModel) -> Result<Row, TraceError> {
    let missing = |field| TraceError::Missing { line: number, field };
    let wrong = |field, value: f64| {
        let expected = "0 or more";
        TraceError::Field { line: number, field, value: value.to_string(), expected }
    };
    if let (None, Some(timestamp)) = (line.arrival_s, line.timestamp) {
        let context = line.input_length.ok_or_else(|| missing("input_length"))?;
        let generated = line.output_length.ok_or_else(|| missing("output_length"))?;
        let at = moment::of_seconds(timestamp / 1e3).ok_or_else(|| wrong("timestamp", timestamp))?.0;
        return Ok(Row { at, service: model.service(context.into(), generated.into()), priority: None });
    }
    let at = line.arrival_s.ok_or_else(|| missing("arrival_s"))?;
    let service = line.service_s.ok_or_else(|| missing("service_s"))?;
    let at = moment::of_seconds(at).ok_or_else(|| wrong("arrival_s", at))?.0;
    let service = moment::of_seconds(service).ok_or_else(|| wrong("service_s", service))?;
    Ok(Row { at, service, priority: line.priority })
}
