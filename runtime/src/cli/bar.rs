//! A bar for work that takes a while: on a terminal only, and never with `--quiet`.

use std::io::IsTerminal;

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::Globals;

/// How many positions are done, of how many.
#[derive(Debug)]
pub(crate) struct Bar {
    bar: ProgressBar,
    first: u64,
}

impl Bar {
    /// A bar from one position to another.
    pub(crate) fn new(globals: &Globals, what: &'static str, first: u64, next: u64) -> Bar {
        let shown = !globals.quiet && std::io::stderr().is_terminal();
        let target = if shown { ProgressDrawTarget::stderr_with_hz(8) } else { ProgressDrawTarget::hidden() };
        let bar = ProgressBar::with_draw_target(Some(next.saturating_sub(first)), target).with_message(what);
        let style = ProgressStyle::with_template("{msg} {wide_bar} {human_pos}/{human_len} events, {per_sec}, {eta} left");
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Bar { bar, first }
    }

    /// Everything before this position is done.
    pub(crate) fn at(&self, position: u64) {
        self.bar.set_position(position.saturating_sub(self.first));
    }
}

impl Drop for Bar {
    fn drop(&mut self) {
        self.bar.finish_and_clear();
    }
}
