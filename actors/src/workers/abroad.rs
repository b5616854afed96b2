//! Task types that this process cannot run.

use std::task::Poll;

use crate::executor::context::Context;
use crate::executor::function::{Runner, TaskError, TaskFunction};

/// Stands for the function of a task type that only workers run. No replica of this process is given such tasks; one that was all the same fails.
pub struct Abroad;

impl TaskFunction for Abroad {
    fn runner(&self) -> Box<dyn Runner> {
        Box::new(Abroad)
    }
}

impl Runner for Abroad {
    fn begin(&mut self, _: usize, _: Context, _: &[u8]) -> Result<(), TaskError> {
        Err(TaskError::new("no_function", "only workers run tasks of this type"))
    }

    fn poll(&mut self, _: usize, _: &mut std::task::Context<'_>, _: &mut Vec<u8>) -> Poll<Result<(), TaskError>> {
        Poll::Pending
    }

    fn abort(&mut self, _: usize) -> bool {
        true
    }
}
