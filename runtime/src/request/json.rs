//! Takes JSON objects apart without parsing what is in them, so that the field that is wrong can be named.

use std::borrow::Cow;
use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::DEPTH_MAX;
use super::refusal::{Refusal, instead, shown};

/// The fields of an object, in the order of their names; `null` counts as not given.
pub(super) type Fields<'a, const N: usize> = [Option<&'a RawValue>; N];

/// What to do with a field that has none of the names.
pub(super) type Unknown<'n> = &'n dyn Fn(&str, &RawValue) -> Result<(), Refusal>;

/// Reads a value as UTF-8; a byte order mark at its beginning is left out.
pub(super) fn utf8(value: &[u8]) -> Result<&str, Refusal> {
    match std::str::from_utf8(value) {
        Ok(text) => Ok(text.strip_prefix('\u{feff}').unwrap_or(text)),
        Err(_) if value.first() == Some(&0) => Err(framed()),
        Err(error) => {
            let reason = format!("is not UTF-8 from byte {} on; JSON in UTF-8 is expected", error.valid_up_to() + 1);
            Err(Refusal::new("value", reason))
        }
    }
}

/// A value in the wire format of schema registries: a zero byte, four bytes of a schema's id, then the data.
fn framed() -> Refusal {
    let reason = "begins with a zero byte, as serializers of schema registries write it; JSON without a frame is expected";
    Refusal::new("value", reason)
}

/// Takes the object in a value apart.
pub(super) fn split_value<'a, const N: usize>(
    text: &'a str,
    names: &[&str; N],
    unknown: Unknown<'_>,
) -> Result<Fields<'a, N>, Refusal> {
    match text.trim_ascii_start().as_bytes().first() {
        Some(b'{') => split("value", "", text, names, unknown),
        Some(0) => Err(framed()),
        Some(_) => {
            let start: String = text.chars().take(16).collect();
            Err(Refusal::new("value", format!("begins with {} where a JSON object is expected", shown(&start))))
        }
        None => Err(Refusal::new("value", "is empty; a JSON object is expected")),
    }
}

/// Takes the object in a field apart.
pub(super) fn split_field<'a, const N: usize>(
    field: &str,
    raw: &'a RawValue,
    names: &[&str; N],
) -> Result<Fields<'a, N>, Refusal> {
    if !raw.get().starts_with('{') {
        return Err(Refusal::new(field, instead(raw.get(), "an object")));
    }
    let unknown = |name: &str, _: &RawValue| Err(Refusal::unknown(&format!("{field}.{name}"), name, names));
    split(field, &format!("{field}."), raw.get(), names, &unknown)
}

fn split<'a, const N: usize>(
    whole: &str,
    prefix: &str,
    text: &'a str,
    names: &[&str; N],
    unknown: Unknown<'_>,
) -> Result<Fields<'a, N>, Refusal> {
    let mut refusal = None;
    let mut from = serde_json::Deserializer::from_str(text);
    let object = Object { prefix, names, unknown, refusal: &mut refusal };
    let fields = object.deserialize(&mut from).and_then(|fields| from.end().map(|()| fields));
    fields.map_err(|error| refusal.unwrap_or_else(|| Refusal::new(whole, not_json(&error))))
}

/// What serde says; the number of the only line is left out.
fn not_json(error: &serde_json::Error) -> String {
    let text = error.to_string();
    let text = match text.rsplit_once(" at line 1 column ") {
        Some((what, column)) => format!("{what} at column {column}"),
        None => text,
    };
    format!("is not JSON: {text}")
}

/// Whether a text is one JSON value.
pub(super) fn check(text: &str) -> Result<(), String> {
    serde_json::from_str::<&RawValue>(text).map(drop).map_err(|error| not_json(&error))
}

struct Object<'n, const N: usize> {
    prefix: &'n str,
    names: &'n [&'n str; N],
    unknown: Unknown<'n>,
    refusal: &'n mut Option<Refusal>,
}

impl<'de, const N: usize> DeserializeSeed<'de> for Object<'_, N> {
    type Value = Fields<'de, N>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_map(self)
    }
}

impl<'de, const N: usize> Visitor<'de> for Object<'_, N> {
    type Value = Fields<'de, N>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut fields = [None; N];
        let mut seen = [false; N];
        while let Some(name) = map.next_key_seed(Name(self.names))? {
            let raw: &RawValue = map.next_value()?;
            let outcome = match name {
                Ok(index) if seen[index] => {
                    let field = format!("{}{}", self.prefix, self.names[index]);
                    Err(Refusal::new(&field, "is given twice; it is expected once"))
                }
                Ok(index) => {
                    seen[index] = true;
                    fields[index] = (raw.get() != "null").then_some(raw);
                    Ok(())
                }
                Err(name) => (self.unknown)(&name, raw),
            };
            if let Err(refusal) = outcome {
                *self.refusal = Some(refusal);
                return Err(A::Error::custom("refused"));
            }
        }
        Ok(fields)
    }
}

/// Finds a name's index, or keeps the name; only the latter allocates.
struct Name<'n>(&'n [&'n str]);

impl<'de> DeserializeSeed<'de> for Name<'_> {
    type Value = Result<usize, String>;

    fn deserialize<D: Deserializer<'de>>(self, from: D) -> Result<Self::Value, D::Error> {
        from.deserialize_str(self)
    }
}

impl Visitor<'_> for Name<'_> {
    type Value = Result<usize, String>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a name")
    }

    fn visit_str<E: Error>(self, name: &str) -> Result<Self::Value, E> {
        Ok(self.0.iter().position(|known| *known == name).ok_or_else(|| name.to_owned()))
    }
}

/// A text, without a copy where nothing in it is escaped.
pub(super) fn text(raw: &RawValue) -> Result<Cow<'_, str>, String> {
    let json = raw.get();
    match json.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) if !inner.contains('\\') => Ok(Cow::Borrowed(inner)),
        Some(_) => serde_json::from_str(json).map(Cow::Owned).map_err(|_| instead(json, "a text of whole characters")),
        None => Err(instead(json, "a text")),
    }
}

/// An object of texts, in its order.
pub(super) fn texts(field: &str, raw: &RawValue) -> Result<Vec<(String, String)>, Refusal> {
    if !raw.get().starts_with('{') {
        return Err(Refusal::new(field, instead(raw.get(), "an object of texts")));
    }
    let found = std::cell::RefCell::new(Vec::<(String, String)>::new());
    let each = |name: &str, raw: &RawValue| {
        let of = |reason: String| Refusal::new(&format!("{field}.{name}"), reason);
        let (mut found, text) = (found.borrow_mut(), text(raw).map_err(of)?);
        if found.iter().any(|(known, _)| known == name) {
            return Err(of("is given twice; it is expected once".to_owned()));
        }
        found.push((name.to_owned(), text.into_owned()));
        Ok(())
    };
    split(field, "", raw.get(), &[], &each)?;
    Ok(found.into_inner())
}

/// Refuses what is nested too deep. Every level takes two bytes, so few payloads are long enough, and brackets are counted before texts are
/// told from what is around them.
pub(super) fn shallow(json: &[u8]) -> Result<(), String> {
    let opening = || json.iter().filter(|byte| matches!(byte, b'{' | b'[')).count();
    let depth = if json.len() > 2 * DEPTH_MAX && opening() > DEPTH_MAX { depth(json) } else { 0 };
    if depth <= DEPTH_MAX { Ok(()) } else { Err(format!("is nested {depth} deep; at most {DEPTH_MAX} is expected")) }
}

/// How deep JSON is nested.
fn depth(json: &[u8]) -> usize {
    let (mut now, mut deepest, mut in_text, mut escaped) = (0_usize, 0, false, false);
    for byte in json {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = in_text,
            b'"' => in_text = !in_text,
            b'{' | b'[' if !in_text => {
                now += 1;
                deepest = deepest.max(now);
            }
            b'}' | b']' if !in_text => now = now.saturating_sub(1),
            _ => {}
        }
    }
    deepest
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn depth_counts_brackets_outside_of_texts() {
        assert_eq!(depth(br#"{"a":["[[[\"[[", {}], "b":[]}"#), 3);
        let nested = |depth: usize| "[".repeat(depth) + &"]".repeat(depth);
        assert!(shallow(nested(DEPTH_MAX).as_bytes()).is_ok() && shallow(nested(DEPTH_MAX + 1).as_bytes()).is_err());
        assert!(shallow(format!("[{}]", ["[]"; 500].join(",")).as_bytes()).is_ok());
    }
}
