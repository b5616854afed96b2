//! What a policy's settings may be, and the error that says so.

use super::real::Real;
use crate::time::Micros;

/// A setting that makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{key}` is {value}; allowed is {allowed}")]
pub struct SettingError {
    /// Which setting, as a path from the policy's root.
    pub key: String,
    /// What it is.
    pub value: String,
    /// What it may be.
    pub allowed: String,
}

/// An error about a setting, unless it is as it should be.
pub(crate) fn require(is_fine: bool, key: &str, value: impl ToString, allowed: &str) -> Result<(), SettingError> {
    if is_fine {
        return Ok(());
    }
    Err(SettingError { key: key.to_owned(), value: value.to_string(), allowed: allowed.to_owned() })
}

/// Requires a span between two others, both allowed.
pub(crate) fn span(key: &str, value: Micros, least: Micros, most: Micros) -> Result<(), SettingError> {
    require(least <= value && value <= most, key, value, &format!("{least} to {most}"))
}

/// Requires a number above zero.
pub(crate) fn positive(key: &str, value: Real) -> Result<(), SettingError> {
    require(value > Real::ZERO, key, value, "a number above 0")
}

/// Requires a name.
pub(crate) fn name(key: &str, value: &str) -> Result<(), SettingError> {
    require(!value.is_empty() && value.len() <= 256, key, format!("{value:?}"), "a name of 1 to 256 bytes")
}

/// The longest span that any setting may have: a week, beyond which a cooldown or a window is a mistake.
pub(crate) const SPAN_MAX: Micros = Micros::from_secs(7 * 86_400);
/// Most metrics, triggers, rules or members of one policy.
pub(crate) const INPUTS_MAX: usize = 64;

/// Requires at least one input and not too many.
pub(crate) fn inputs(key: &str, count: usize) -> Result<(), SettingError> {
    require((1..=INPUTS_MAX).contains(&count), key, format!("a list of {count}"), "1 to 64 of them")
}
