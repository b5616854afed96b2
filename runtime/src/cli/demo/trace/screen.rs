//! A few lines of a terminal that are drawn again and again where they stand.

use std::io::{self, IsTerminal, Write};

/// The widest and the narrowest screen that is drawn for.
const WIDTH: (usize, usize) = (20, 80);

/// Lines on a terminal; the cursor is there again when this is gone.
pub(super) struct Screen {
    /// How many lines were drawn.
    drawn: usize,
    width: usize,
}

impl Screen {
    /// A screen where standard output is a terminal.
    pub(super) fn open() -> Option<Screen> {
        let stdout = io::stdout();
        if !stdout.is_terminal() {
            return None;
        }
        let mut screen = Screen { drawn: 0, width: WIDTH.1 };
        screen.measure();
        screen.write("\x1b[?25l");
        Some(screen)
    }

    /// Draws these lines over the last ones, each cut to the width, all of them at once so that nothing flickers.
    pub(super) fn draw(&mut self, lines: &[String]) {
        self.measure();
        let mut out = String::new();
        if self.drawn > 0 {
            out.push_str(&format!("\x1b[{}A", self.drawn));
        }
        for line in lines {
            out.push('\r');
            out.push_str(&cut(line, self.width - 1));
            out.push_str("\x1b[K\n");
        }
        out.push_str("\x1b[J");
        self.drawn = lines.len();
        self.write(&out);
    }

    fn measure(&mut self) {
        let columns = rustix::termios::tcgetwinsize(io::stdout()).map_or(0, |size| usize::from(size.ws_col));
        // A terminal that does not say is as wide as most.
        self.width = if columns == 0 { WIDTH.1 } else { columns.clamp(WIDTH.0, WIDTH.1) };
    }

    fn write(&self, text: &str) {
        let mut out = io::stdout().lock();
        // Nobody is left to see it when this fails.
        let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
    }
}

impl Drop for Screen {
    fn drop(&mut self) {
        self.write("\x1b[?25h");
    }
}

/// At most so many characters of a text.
fn cut(text: &str, most: usize) -> String {
    if text.chars().count() <= most {
        return text.to_owned();
    }
    text.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// The last of these numbers as a row of bars, the tallest as high as `most`.
pub(super) fn bars(numbers: &[f64], most: f64, width: usize) -> String {
    const BARS: [char; 9] = [' ', '▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
    let last = &numbers[numbers.len().saturating_sub(width)..];
    let bar = |number: &f64| {
        let eighths = if most > 0.0 { (number / most * 8.0).ceil().clamp(0.0, 8.0) } else { 0.0 };
        BARS[eighths as usize]
    };
    last.iter().map(bar).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_are_cut_by_characters_and_bars_are_as_high_as_their_numbers() {
        assert_eq!(cut("replicas", 8), "replicas");
        assert_eq!(cut("Größenwahn", 6), "Größe…");
        assert_eq!(bars(&[0.0, 1.0, 4.0, 8.0], 8.0, 10), " ▁▄█");
        assert_eq!(bars(&[5.0, 8.0, 0.1], 8.0, 2), "█▁");
        assert_eq!(bars(&[0.0, 0.0], 0.0, 4), "  ");
    }
}
