//! The kernels' text for one variant.

use super::{Metric, Search, Shape};
use crate::{Dtype, Program};

/// The kernels that a program has.
pub const ENTRIES: [&str; 7] =
    ["top_k_load", "top_k_queries", "top_k_one", "top_k_select", "top_k_merge", "top_k_rescore", "top_k_results"];

/// What a program is compiled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Variant {
    /// Entries that a lane keeps, 1 to 4: a warp keeps 32 times as many.
    pub per_lane: u32,
    /// Whether the matrix is kept in bf16.
    pub bf16: bool,
    /// Whether it comes in bf16.
    pub source_bf16: bool,
    /// Whether similarity is the cosine.
    pub cosine: bool,
}

impl Variant {
    /// The variant that makes a matrix resident which comes as `source`.
    pub fn load(shape: &Shape, source: Dtype) -> Self {
        Self {
            per_lane: 1,
            bf16: shape.kept == Dtype::Bf16,
            source_bf16: source == Dtype::Bf16,
            cosine: shape.metric == Metric::Cosine,
        }
    }

    /// The variant that searches.
    pub fn search(shape: &Shape, search: &Search) -> Self {
        Self { per_lane: search.kept().div_ceil(32), ..Self::load(shape, Dtype::F32) }
    }
}

/// The program for a variant.
pub fn program(variant: &Variant) -> Program {
    let flag = u8::from;
    let source = format!(
        "#define TOP_K_PER_LANE {}\n#define TOP_K_BF16 {}\n#define TOP_K_SOURCE_BF16 {}\n#define TOP_K_COSINE {}\n{}{}",
        variant.per_lane,
        flag(variant.bf16),
        flag(variant.source_bf16),
        flag(variant.cosine),
        include_str!("../../kernels/top_k_entries.cu"),
        include_str!("../../kernels/top_k.cu")
    );
    Program { name: "top_k.cu".into(), source, options: vec!["--std=c++17".into()] }
}

/// The variant that a program was made for, if it is one of these.
pub(super) fn made_for(program: &Program) -> Option<Variant> {
    let define = |name: &str| {
        let text = program.source.lines().take(4).find_map(|line| line.strip_prefix("#define ")?.strip_prefix(name));
        text?.trim().parse::<u32>().ok()
    };
    Some(Variant {
        per_lane: define("TOP_K_PER_LANE")?,
        bf16: define("TOP_K_BF16")? == 1,
        source_bf16: define("TOP_K_SOURCE_BF16")? == 1,
        cosine: define("TOP_K_COSINE")? == 1,
    })
}
