//! What can go wrong, in four classes: the class alone says what is done next.

use std::fmt;

use crate::Digest;

/// Why something on a device did not happen.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum GpuError {
    /// Refused before anything ran: the request is at fault, or there is no device. Names what, of what, and what to do.
    #[error("{0}")]
    Refused(String),
    /// The memory does not suffice; nothing ran.
    #[error(
        "out of device memory for {what}: {asked} bytes asked, {free} free of a limit of {limit}; \
         use smaller batches or inputs, or a larger memory_max"
    )]
    OutOfMemory {
        /// What the memory was for.
        what: String,
        /// Bytes asked for.
        asked: u64,
        /// Bytes free at that moment.
        free: u64,
        /// The limit in force, in bytes.
        limit: u64,
    },
    /// It ran or was about to and failed; the device is sound, and others go on.
    #[error("{0}")]
    Failed(String),
    /// The context is dead until its process ends.
    #[error("{sticky} during {during}; the process must end before the device can be used again")]
    Sticky {
        /// What the driver said.
        sticky: Sticky,
        /// The call in which it showed, and the kernel where known.
        during: String,
    },
    /// It was in a batch that killed the context, and which member did it cannot be known: it is to be run alone.
    #[error("one of {batch_size} attempts of kernel {digest} killed the device ({sticky}); this one is to be run alone")]
    Suspect {
        /// What the driver said.
        sticky: Sticky,
        /// The kernel.
        digest: Digest,
        /// How many were in the batch.
        batch_size: usize,
    },
    /// Not run, through no fault of its own: may be given to another process.
    #[error("returned without having run: {0}")]
    Returned(String),
}

/// What kills a context.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Sticky {
    /// A kernel read or wrote memory that is not its own.
    IllegalAddress,
    /// A kernel's `assert` did not hold.
    Assert,
    /// Any other fault of a kernel: misaligned address, illegal instruction, invalid program counter, stack overflow.
    LaunchFailed,
    /// An error of the hardware: ECC, NVLink, a device that is lost.
    Hardware,
    /// Nothing ended within the time limit, in milliseconds.
    Hung {
        /// The limit that passed.
        limit_ms: u64,
    },
}

impl fmt::Display for Sticky {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::IllegalAddress => write!(f, "illegal address"),
            Self::Assert => write!(f, "failed assert in a kernel"),
            Self::LaunchFailed => write!(f, "fault of a kernel"),
            Self::Hardware => write!(f, "error of the device"),
            Self::Hung { limit_ms } => write!(f, "no end within {limit_ms} ms"),
        }
    }
}

/// What is to be done after an error.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Class {
    /// Tell the caller; trying again changes nothing.
    Refused,
    /// Try alone once, then fail with the numbers.
    OutOfMemory,
    /// Fail this one; its neighbours are run again singly.
    Failed,
    /// End the process; return the others.
    Sticky,
    /// Give it to another process, alone; it counts for nothing.
    Suspect,
    /// Give it to another process; it counts for nothing.
    Returned,
}

impl GpuError {
    /// The class, which decides what is done next.
    pub fn class(&self) -> Class {
        match self {
            Self::Refused(_) => Class::Refused,
            Self::OutOfMemory { .. } => Class::OutOfMemory,
            Self::Failed(_) => Class::Failed,
            Self::Sticky { .. } => Class::Sticky,
            Self::Suspect { .. } => Class::Suspect,
            Self::Returned(_) => Class::Returned,
        }
    }

    /// A refusal with the given sentence.
    pub fn refused(sentence: impl Into<String>) -> Self {
        Self::Refused(sentence.into())
    }

    /// A failure with the given sentence.
    pub fn failed(sentence: impl Into<String>) -> Self {
        Self::Failed(sentence.into())
    }
}
