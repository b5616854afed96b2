//! Keys of task types: `task.NAME.retry.max`, where a name that has dots is quoted.

use super::is_name;

/// Longest name of a task type, in bytes.
const NAME_BYTES_MAX: usize = 128;

/// A key of a task type, taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct TaskKey<'a> {
    /// The task type.
    pub(crate) name: &'a str,
    /// What of it, without the name.
    pub(crate) key: &'a str,
}

/// Takes a key apart; `None` for what is no key of a task type with a possible name.
pub(crate) fn split(key: &str) -> Option<TaskKey<'_>> {
    let rest = key.strip_prefix("task.")?;
    let (name, key) = match rest.strip_prefix('"') {
        Some(rest) => {
            let (name, rest) = rest.split_once('"')?;
            (name, rest.strip_prefix('.').unwrap_or(rest))
        }
        None => rest.split_once('.').unwrap_or((rest, "")),
    };
    is_name(name, NAME_BYTES_MAX).then_some(TaskKey { name, key })
}

/// A name as it stands in a key.
pub(crate) fn quoted(name: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_');
    if !name.is_empty() && name.bytes().all(plain) { name.to_owned() } else { format!("\"{name}\"") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_with_dots_are_quoted_and_found_again() {
        for name in ["thumbnail", "image.resize", "a-b_c", "v1.2"] {
            let key = format!("task.{}.retry.max", quoted(name));
            assert_eq!(split(&key), Some(TaskKey { name, key: "retry.max" }), "{key}");
            let section = format!("task.{}", quoted(name));
            assert_eq!(split(&section), Some(TaskKey { name, key: "" }), "{section}");
        }
        for key in
            ["task", "pool.a.slots", "task.\"../x\".pool", "task.\"\".pool", "task.\"a", "task.\".a\".pool", "task.a/b.pool"]
        {
            assert_eq!(split(key), None, "{key}");
        }
    }
}
