//! Quantities of Kubernetes: `10`, `500m`, `1.5k`, `2Gi`, `1e3`.

/// Suffixes and what they multiply by: how many powers of ten, and how many of 1024.
const SUFFIXES: [(&str, i32, u32); 16] = [
    ("Ki", 0, 1),
    ("Mi", 0, 2),
    ("Gi", 0, 3),
    ("Ti", 0, 4),
    ("Pi", 0, 5),
    ("Ei", 0, 6),
    ("n", -9, 0),
    ("u", -6, 0),
    ("m", -3, 0),
    ("k", 3, 0),
    ("M", 6, 0),
    ("G", 9, 0),
    ("T", 12, 0),
    ("P", 15, 0),
    ("E", 18, 0),
    ("", 0, 0),
];
/// Most digits that are read: more mean nothing to anybody.
const DIGITS_MAX: usize = 24;

/// A quantity in thousandths, rounded up as Kubernetes does; `None` for what is none or is too large.
pub(super) fn milli(text: &str) -> Option<i64> {
    let (number, exponent) = match exponent(text) {
        Some((number, exponent)) => (number, (exponent, 0)),
        None => {
            let (suffix, ten, binary) = SUFFIXES.into_iter().find(|(suffix, ..)| text.ends_with(suffix))?;
            (text.strip_suffix(suffix)?, (ten, binary))
        }
    };
    let (is_negative, digits) = match number.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, number.strip_prefix('+').unwrap_or(number)),
    };
    let (whole, fraction) = digits.split_once('.').unwrap_or((digits, ""));
    let all = format!("{whole}{fraction}");
    let is_number = !all.is_empty() && all.len() <= DIGITS_MAX && all.bytes().all(|byte| byte.is_ascii_digit());
    let mut value: i128 = is_number.then(|| all.parse().ok()).flatten()?;
    value = value.checked_mul(1_024_i128.checked_pow(exponent.1)?)?;
    let power = exponent.0 + 3 - i32::try_from(fraction.len()).ok()?;
    let ten = 10_i128.checked_pow(power.unsigned_abs())?;
    let milli = if power >= 0 {
        value.checked_mul(ten)?
    } else if is_negative {
        value / ten
    } else {
        (value / ten) + i128::from(value % ten != 0)
    };
    i64::try_from(if is_negative { -milli } else { milli }).ok()
}

/// The number and the exponent of `1e3`; `1E` is a suffix.
fn exponent(text: &str) -> Option<(&str, i32)> {
    let (number, exponent) = text.split_once(['e', 'E'])?;
    let exponent: i32 = exponent.parse().ok()?;
    (-24..=24).contains(&exponent).then_some((number, exponent))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantities_are_thousandths_rounded_up() {
        for (text, expected) in [
            ("10", 10_000),
            ("500m", 500),
            ("0.5", 500),
            (".5", 500),
            ("1.5k", 1_500_000),
            ("1k", 1_000_000),
            ("2Gi", 2_147_483_648_000),
            ("1Ki", 1_024_000),
            ("1e3", 1_000_000),
            ("1E3", 1_000_000),
            ("15e-1", 1_500),
            ("1u", 1),
            ("0", 0),
            ("-1", -1_000),
            ("+2", 2_000),
        ] {
            assert_eq!(milli(text), Some(expected), "{text}");
        }
        for text in ["", "m", "ten", "1 0", "1.2.3", "0x10", "1e99", "9E", "1_000", "5%", "NaN", "1Kib", "--1"] {
            assert_eq!(milli(text), None, "{text}");
        }
    }
}
