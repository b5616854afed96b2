//! Tables with a heading: our own, Azure's and Alibaba's.

use super::{Format, Row, Rows, ServiceModel, TraceError, lines, moment, room, short};

/// Reads a table whose heading is on line `first`.
pub(super) fn read(text: &str, first: usize, model: ServiceModel) -> Result<(Format, Rows), TraceError> {
    let mut lines = lines(text);
    let (_, head) = lines.next().ok_or(TraceError::Empty)?;
    short(first, head)?;
    let heads: Vec<String> = fields(head).into_iter().map(|head| head.trim().to_owned()).collect();
    let column = |name: &str| heads.iter().position(|head| head == name);
    let table = if let (Some(at), Some(service)) = (column("arrival_s"), column("service_s")) {
        Table::Own { at, service, priority: column("priority") }
    } else if let (Some(at), Some(context), Some(generated)) =
        (column("TIMESTAMP"), column("ContextTokens"), column("GeneratedTokens"))
    {
        Table::Azure { at, context, generated }
    } else if let (Some(at), Some(service)) = (column("gmt_create"), column("exec_time_seconds")) {
        Table::Alibaba { at, service }
    } else {
        return Err(TraceError::Unknown);
    };
    let mut rows = Rows { has_calendar: !matches!(table, Table::Own { .. }), ..Rows::default() };
    for (line, text) in lines {
        short(line, text)?;
        room(&rows)?;
        match table.row(Line { line, fields: fields(text) }, model, &mut rows.has_calendar)? {
            Some(row) => rows.rows.push(row),
            None => rows.skipped += 1,
        }
    }
    Ok((table.format(), rows))
}

/// Which columns hold what.
enum Table {
    Own { at: usize, service: usize, priority: Option<usize> },
    Azure { at: usize, context: usize, generated: usize },
    Alibaba { at: usize, service: usize },
}

struct Line<'a> {
    line: usize,
    fields: Vec<std::borrow::Cow<'a, str>>,
}

impl Table {
    const fn format(&self) -> Format {
        match self {
            Table::Own { .. } => Format::Csv,
            Table::Azure { .. } => Format::Azure,
            Table::Alibaba { .. } => Format::Alibaba,
        }
    }

    /// The task of a line; `None` where it has no service time.
    fn row(&self, line: Line<'_>, model: ServiceModel, has_calendar: &mut bool) -> Result<Option<Row>, TraceError> {
        const SECONDS: &str = "a number of seconds, 0 or more";
        const TOKENS: &str = "a number of tokens";
        match *self {
            Table::Own { at, service, priority } => {
                let at = line.field(at, "arrival_s", SECONDS, moment::seconds)?.0;
                let service = line.field(service, "service_s", SECONDS, moment::seconds)?;
                let read = |column| line.field(column, "priority", "0 to 9", |text| text.trim().parse().ok());
                Ok(Some(Row { at, service, priority: priority.map(read).transpose()? }))
            }
            Table::Azure { at, context, generated } => {
                let at = line.field(at, "TIMESTAMP", "a date and a time", moment::calendar)?;
                let number = |text: &str| text.trim().parse::<u32>().ok().map(u64::from);
                let context = line.field(context, "ContextTokens", TOKENS, number)?;
                let generated = line.field(generated, "GeneratedTokens", TOKENS, number)?;
                Ok(Some(Row { at, service: model.service(context, generated), priority: None }))
            }
            Table::Alibaba { at, service } => {
                if line.fields.get(service).is_some_and(|text| text.trim().is_empty()) {
                    return Ok(None);
                }
                let service = line.field(service, "exec_time_seconds", SECONDS, moment::seconds)?;
                // Published with dates, and as seconds of an unknown beginning.
                let at = line.field(at, "gmt_create", "a date and a time, or a number of seconds", |text| {
                    let since = moment::seconds(text);
                    *has_calendar &= since.is_none();
                    moment::calendar(text).or_else(|| Some(since?.0))
                })?;
                Ok(Some(Row { at, service, priority: None }))
            }
        }
    }
}

impl Line<'_> {
    fn field<T>(
        &self,
        column: usize,
        field: &'static str,
        expected: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, TraceError> {
        let line = self.line;
        let text = self.fields.get(column).ok_or(TraceError::Missing { line, field })?;
        parse(text).ok_or_else(|| TraceError::Field { line, field, value: text.chars().take(64).collect(), expected })
    }
}

/// The fields of a line as RFC 4180 has them, but for line breaks in quotes.
fn fields(line: &str) -> Vec<std::borrow::Cow<'_, str>> {
    if !line.contains('"') {
        return line.split(',').map(Into::into).collect();
    }
    let mut fields = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = line.chars().peekable();
    while let Some(char) = chars.next() {
        match char {
            '"' if is_quoted && chars.peek() == Some(&'"') => {
                chars.next();
                fields.last_mut().into_iter().for_each(|field| field.push('"'));
            }
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => fields.push(String::new()),
            _ => fields.last_mut().into_iter().for_each(|field| field.push(char)),
        }
    }
    fields.into_iter().map(Into::into).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_in_quotes_divide_nothing() {
        assert_eq!(fields(r#"a,"b, ""c""",,d"#), ["a", "b, \"c\"", "", "d"]);
        assert_eq!(fields("a,b"), ["a", "b"]);
    }
}
