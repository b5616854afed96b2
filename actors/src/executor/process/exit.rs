//! What an exit status says about the attempt.

use std::ops::RangeInclusive;
use std::os::unix::process::ExitStatusExt;
use std::process::ExitStatus;

use ergate_events::task::MESSAGE_BYTES_MAX;

use super::kept::Kept;
use crate::executor::function::TaskError;

/// Exit codes after which another attempt would end alike: those of `sysexits.h` but 75 (EX_TEMPFAIL, "try again later"), and what a shell
/// says of a command that it cannot run (126) or find (127).
pub const NON_RETRYABLE_DEFAULT: [RangeInclusive<u8>; 3] = [64..=74, 76..=78, 126..=127];

/// How an attempt ended, for whoever retries it.
pub(super) fn outcome(status: ExitStatus, non_retryable: &[RangeInclusive<u8>], log: &Kept) -> Result<(), TaskError> {
    match (status.code(), status.signal()) {
        (Some(0), _) => Ok(()),
        (Some(code), _) => {
            let class = format!("exit-{code}");
            let message = with_log(&format!("the command ended with exit code {code}"), log);
            let permanent = u8::try_from(code).is_ok_and(|code| non_retryable.iter().any(|codes| codes.contains(&code)));
            Err(if permanent { TaskError::permanent(class, message) } else { TaskError::new(class, message) })
        }
        (None, signal) => {
            let signal = signal.unwrap_or_default();
            Err(TaskError::new("signal", with_log(&format!("the command was ended by signal {signal}{}", name(signal)), log)))
        }
    }
}

/// A sentence and as much of the log as a message holds.
pub(super) fn with_log(sentence: &str, log: &Kept) -> String {
    if log.is_empty() {
        return format!("{sentence} and said nothing on stderr");
    }
    let room = MESSAGE_BYTES_MAX.saturating_sub(sentence.len() + 16);
    format!("{sentence}; stderr: {}", log.excerpt(room))
}

/// Names of the signals that people meet; their numbers are the same on all of Linux but for MIPS.
const fn name(signal: i32) -> &'static str {
    match signal {
        1 => " (HUP)",
        2 => " (INT)",
        4 => " (ILL)",
        6 => " (ABRT)",
        8 => " (FPE)",
        9 => " (KILL), perhaps for want of memory",
        11 => " (SEGV)",
        13 => " (PIPE)",
        15 => " (TERM)",
        _ => "",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn exit_codes_and_signals_say_whether_another_attempt_is_worth_it() {
        let of = |raw: i32| outcome(ExitStatus::from_raw(raw), &NON_RETRYABLE_DEFAULT, &Kept::default());
        assert!(of(0).is_ok());
        for (raw, class, retryable) in [
            (1 << 8, "exit-1", true),
            (63 << 8, "exit-63", true),
            (64 << 8, "exit-64", false),
            (75 << 8, "exit-75", true),
            (78 << 8, "exit-78", false),
            (79 << 8, "exit-79", true),
            (126 << 8, "exit-126", false),
            (127 << 8, "exit-127", false),
            (255 << 8, "exit-255", true),
            (9, "signal", true),
            (15, "signal", true),
        ] {
            let failure = of(raw).expect_err(class).into_failure();
            assert_eq!((failure.class.as_str(), failure.retryable), (class, retryable));
        }
        assert!(of(9).expect_err("killed").message().contains("signal 9 (KILL)"));
    }

    #[test]
    fn a_failure_tells_what_the_command_said_within_the_limit_of_messages() {
        let mut log = Kept::default();
        log.push(b"thumb: no such file: a.jpg\n");
        let error = outcome(ExitStatus::from_raw(3 << 8), &[], &log).expect_err("3 is a failure");
        assert_eq!(error.message(), "the command ended with exit code 3; stderr: thumb: no such file: a.jpg");
        log.push(&[b'x'; 100_000]);
        log.push(b" the end");
        let message = with_log("it ended", &log);
        assert!(message.len() <= MESSAGE_BYTES_MAX && message.ends_with("the end"), "{}", message.len());
    }
}
