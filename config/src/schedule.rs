//! `[schedule.NAME]`: tasks at certain times.

use ergate_events::cron::Cron;
use ergate_events::schedule::{CatchUp, EVERY_MAX, EVERY_MIN, Label, Overlap, ScheduleSettings, When, name_of};
use ergate_events::task::PRIORITY_MAX;
use ergate_events::time::Micros;

use crate::value::{Raw, show_duration};

/// Keys of a schedule, in the order of `default.toml`.
pub(crate) const KEYS: [&str; 10] =
    ["cron", "every", "at", "timezone", "task", "payload", "labels", "priority", "catch_up", "overlap"];

/// A schedule as the configuration has it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Schedule {
    cron: Option<String>,
    every: Option<Micros>,
    at: Option<String>,
    timezone: Option<String>,
    task: Option<String>,
    payload: Option<String>,
    labels: Vec<Label>,
    priority: Option<u8>,
    catch_up: CatchUp,
    overlap: Overlap,
}

impl Schedule {
    /// Sets a value; the error says what the key takes.
    pub(crate) fn set(&mut self, key: &str, raw: &Raw) -> Result<(), &'static str> {
        let text = || raw.text().filter(|text| !text.is_empty()).map(str::to_owned);
        match key {
            "cron" => self.cron = Some(text().ok_or("a cron text such as \"0 3 * * *\"")?),
            "every" => self.every = Some(every(raw).ok_or("a duration from \"1s\" to \"366d\"")?),
            "at" => self.at = Some(moment(raw).ok_or("a moment such as \"2030-01-31T12:00:00Z\"")?),
            "timezone" => self.timezone = Some(text().ok_or("an IANA time zone such as \"Europe/Berlin\"")?),
            "task" => self.task = Some(text().ok_or("the name of a task type")?),
            "payload" => self.payload = Some(text().ok_or("the payload as a JSON text such as '{\"full\": true}'")?),
            "labels" => self.labels = labels(raw).ok_or("a list of names and values such as [\"team=blue\"]")?,
            "priority" => {
                let priority = raw.count(0, PRIORITY_MAX.into()).and_then(|count| u8::try_from(count).ok());
                self.priority = Some(priority.ok_or("a whole number from 0 to 9")?);
            }
            "catch_up" => self.catch_up = named(&CatchUp::ALL, raw).ok_or("\"skip\", \"run-once\" or \"run-all\"")?,
            "overlap" => self.overlap = named(&Overlap::ALL, raw).ok_or("\"allow\", \"skip\" or \"cancel-previous\"")?,
            _ => return Err("nothing"),
        }
        Ok(())
    }

    /// A value as a file would have it; empty for one that is not there.
    pub(crate) fn value(&self, key: &str) -> String {
        let text = |text: &Option<String>| text.clone().unwrap_or_default();
        match key {
            "cron" => text(&self.cron),
            "every" => self.every.map_or_else(String::new, |span| show_duration(span.to_std())),
            "at" => text(&self.at),
            "timezone" => self.timezone.clone().unwrap_or_else(|| "UTC".to_owned()),
            "task" => text(&self.task),
            "payload" => self.payload.clone().unwrap_or_else(|| "null".to_owned()),
            "labels" => {
                format!("{:?}", self.labels.iter().map(|Label { name, value }| format!("{name}={value}")).collect::<Vec<_>>())
            }
            "priority" => self.priority.map_or_else(String::new, |priority| priority.to_string()),
            "catch_up" => name_of(&CatchUp::ALL, self.catch_up).to_owned(),
            "overlap" => name_of(&Overlap::ALL, self.overlap).to_owned(),
            _ => String::new(),
        }
    }

    /// What the rules are told, or the key at fault and why. `read` reads the moment of `at` in a time zone.
    pub(crate) fn settings<E: ToString>(
        &self,
        read: impl FnOnce(&str, &str) -> Result<When, E>,
    ) -> Result<ScheduleSettings, (&'static str, String)> {
        let timezone = self.timezone.as_deref().unwrap_or("UTC");
        let when = match (&self.cron, self.every, &self.at) {
            (Some(text), None, None) => match Cron::parse(text) {
                Ok(_) => When::Cron(text.clone()),
                Err(error) => return Err(("cron", error.to_string())),
            },
            (None, Some(span), None) => When::Every(span),
            (None, None, Some(at)) => read(at, timezone).map_err(|error| ("at", error.to_string()))?,
            _ => return Err(("cron", "a schedule needs one of `cron`, `every` and `at`, and has no use for two".to_owned())),
        };
        let task = self.task.as_deref().ok_or_else(|| ("task", "it says which task type is fired; there is none".to_owned()))?;
        let new = ScheduleSettings::new(when, task);
        Ok(ScheduleSettings {
            timezone: timezone.to_owned(),
            payload: self.payload.clone().unwrap_or(new.payload),
            labels: self.labels.clone(),
            priority: self.priority,
            catch_up: self.catch_up,
            overlap: self.overlap,
            ..new
        })
    }
}

fn every(raw: &Raw) -> Option<Micros> {
    raw.duration().map(Micros::from).filter(|span| (EVERY_MIN..=EVERY_MAX).contains(span))
}

/// A text, or a date of TOML as it stands in the file.
fn moment(raw: &Raw) -> Option<String> {
    if let Raw::Other("date", text) = raw { Some(text.clone()) } else { raw.text().map(str::to_owned) }
}

fn labels(raw: &Raw) -> Option<Vec<Label>> {
    let label = |text: String| {
        let (name, value) = text.split_once('=').filter(|(name, _)| !name.is_empty())?;
        Some(Label { name: name.to_owned(), value: value.to_owned() })
    };
    raw.texts()?.into_iter().map(label).collect()
}

fn named<T: Copy>(all: &[(&str, T)], raw: &Raw) -> Option<T> {
    all.iter().find(|(name, _)| raw.text() == Some(name)).map(|(_, value)| *value)
}
