//! Texts from outside as they may be shown.

/// The text with control and direction-changing characters written out, so that it can be shown on a terminal.
pub fn escape(text: &str) -> String {
    let harmless = |c: char| {
        c == '\n' || !(c.is_control() || matches!(c, '\u{200e}' | '\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}'))
    };
    text.chars().map(|c| if harmless(c) { c.to_string() } else { c.escape_unicode().to_string() }).collect()
}
