//! `Retry-After` (RFC 9110 §10.2.3): seconds, or a moment as HTTP writes it.

use std::time::{Duration, UNIX_EPOCH};

use ergate_events::time::Timestamp;

/// The delay that a header asks for, at most `max`; `None` for what says nothing.
pub(super) fn parse(value: &[u8], now: Timestamp, max: Duration) -> Option<Duration> {
    let text = std::str::from_utf8(value).ok()?.trim();
    if !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit()) {
        // More digits than a number has are more than the most.
        return Some(text.parse().map_or(max, Duration::from_secs).min(max));
    }
    let moment = httpdate::parse_http_date(text).ok()?.duration_since(UNIX_EPOCH).ok()?;
    Some(moment.saturating_sub(Duration::from_micros(now.0)).min(max))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_and_moments_are_read_and_bounded() {
        let now = Timestamp(784_111_770_000_000);
        let of = |text: &str| parse(text.as_bytes(), now, Duration::from_secs(60));
        assert_eq!(of("7"), Some(Duration::from_secs(7)));
        assert_eq!(of(" 0 "), Some(Duration::ZERO));
        assert_eq!(of("99999999999999999999999"), Some(Duration::from_secs(60)));
        // 1994-11-06 08:49:37 UTC in all three forms of RFC 9110.
        for moment in ["Sun, 06 Nov 1994 08:49:37 GMT", "Sunday, 06-Nov-94 08:49:37 GMT", "Sun Nov  6 08:49:37 1994"] {
            assert_eq!(of(moment), Some(Duration::from_secs(7)), "{moment}");
        }
        assert_eq!(of("Sun, 06 Nov 1994 08:49:29 GMT"), Some(Duration::ZERO));
        assert_eq!(of("Mon, 06 Nov 1995 08:49:29 GMT"), Some(Duration::from_secs(60)));
        for text in ["", "-1", "1.5", "soon", "1s"] {
            assert_eq!(of(text), None, "{text}");
        }
    }
}
