//! The kernels' text for one spec: macros that say which words a group has, then the files of `gpu/kernels`.

use std::fmt::Write;

use super::{Aggregate, AggregateSpec};
use crate::{Dtype, Program};

/// The kernels that a program has.
pub const ENTRIES: [&str; 10] = [
    "aggregate_reset",
    "aggregate_sample",
    "aggregate_direct",
    "aggregate_private",
    "aggregate_count",
    "aggregate_places",
    "aggregate_list",
    "aggregate_sort_block",
    "aggregate_sort_step",
    "aggregate_gather",
];

/// An accumulator word: the operation that feeds it, and from which column.
struct Word {
    operation: &'static str,
    column: Option<usize>,
    /// What it is reset to, where no row leaves it so: then it tells whether there was one.
    mark: Option<&'static str>,
}

/// The words of a group and the expressions that make outputs of them.
struct Layout {
    words: Vec<Word>,
    outputs: Vec<(&'static str, String)>,
    /// The word that tells whether there was a row.
    mark: usize,
}

/// How many accumulator words of 8 bytes a group has.
pub(super) fn words(spec: &AggregateSpec) -> u64 {
    layout(spec).words.len() as u64
}

/// What the first line of a program's text begins with; what it was made for follows.
const MADE_FOR: &str = "// gpu.aggregate:";

/// The words of a group: the operation that feeds each, and from which column.
pub(super) fn steps(spec: &AggregateSpec) -> Vec<(&'static str, Option<usize>)> {
    layout(spec).words.iter().map(|word| (word.operation, word.column)).collect()
}

/// The word that tells whether a group has a row.
pub(super) fn mark(spec: &AggregateSpec) -> usize {
    layout(spec).mark
}

/// What a program was made for, if it is one of these.
pub(super) fn made_for(program: &Program) -> Option<AggregateSpec> {
    let (columns, aggregates) = program.source.lines().next()?.strip_prefix(MADE_FOR)?.split_once(';')?;
    let columns: Option<Vec<Dtype>> = columns.split_whitespace().map(Dtype::from_name).collect();
    let aggregates = aggregates.split_whitespace().map(|aggregate| match aggregate.split_once(':') {
        None => (aggregate == "count").then_some(Aggregate::Count),
        Some((operation, column)) => {
            let column = column.parse().ok()?;
            match operation {
                "sum" => Some(Aggregate::Sum(column)),
                "min" => Some(Aggregate::Min(column)),
                "max" => Some(Aggregate::Max(column)),
                _ => None,
            }
        }
    });
    AggregateSpec::new(columns?, aggregates.collect::<Option<Vec<_>>>()?).ok()
}

fn first_line(spec: &AggregateSpec) -> String {
    let columns: String = spec.columns().iter().map(|dtype| format!(" {}", dtype.name())).collect();
    let aggregates = spec.aggregates().iter().map(|aggregate| match aggregate {
        Aggregate::Count => " count".to_owned(),
        Aggregate::Sum(column) => format!(" sum:{column}"),
        Aggregate::Min(column) => format!(" min:{column}"),
        Aggregate::Max(column) => format!(" max:{column}"),
    });
    format!("{MADE_FOR}{columns};{}\n", aggregates.collect::<String>())
}

/// The program for a spec.
pub fn program(spec: &AggregateSpec) -> Program {
    let source = format!(
        "{}{}{}{}{}",
        first_line(spec),
        macros(spec, &layout(spec)),
        include_str!("../../kernels/aggregate_words.cu"),
        include_str!("../../kernels/aggregate.cu"),
        include_str!("../../kernels/aggregate_list.cu")
    );
    Program { name: "aggregate.cu".into(), source, options: vec!["--std=c++17".into()] }
}

fn macros(spec: &AggregateSpec, layout: &Layout) -> String {
    let mut text = format!("#define AGGREGATE_WORDS {}\n", layout.words.len());
    let mut list = |name: &str, items: Vec<String>| {
        writeln!(text, "#define {name}(X) {}", items.join(" ")).expect("writing to a string does not fail");
    };
    let indexed = || layout.words.iter().enumerate();
    list(
        "AGGREGATE_COLUMNS",
        spec.columns().iter().enumerate().map(|(column, &dtype)| format!("X({column}, {})", c_type(dtype))).collect(),
    );
    let step = |(index, word): (usize, &Word)| word.column.map(|column| format!("X({index}, {column}, {})", word.operation));
    list("AGGREGATE_STEPS", indexed().filter_map(step).collect());
    list(
        "AGGREGATE_COUNTS",
        indexed().filter(|(_, word)| word.column.is_none()).map(|(index, _)| format!("X({index})")).collect(),
    );
    list("AGGREGATE_INITIAL", indexed().map(|(index, word)| format!("X({index}, {})", word.operation)).collect());
    let outputs = layout.outputs.iter().enumerate();
    list("AGGREGATE_OUTPUTS", outputs.map(|(output, (c, expression))| format!("X({output}, {c}, {expression})")).collect());
    let empty = layout.words[layout.mark].mark.expect("the layout has a word that marks groups");
    write!(text, "#define AGGREGATE_MARK {}\n#define AGGREGATE_MARK_EMPTY {empty}\n", layout.mark)
        .expect("writing to a string does not fail");
    text
}

fn layout(spec: &AggregateSpec) -> Layout {
    let mut words = Vec::new();
    let mut outputs = Vec::new();
    for (output, &aggregate) in spec.aggregates().iter().enumerate() {
        outputs.push(match aggregate {
            Aggregate::Count => ("word_t", format!("word[{}]", share(&mut words, count()))),
            Aggregate::Sum(column) => sum(&mut words, output, column, spec.columns()[column]),
            Aggregate::Min(column) => extreme(&mut words, column, spec.columns()[column], ["MinInt", "MinFloat"], "~0ULL"),
            Aggregate::Max(column) => extreme(&mut words, column, spec.columns()[column], ["MaxInt", "MaxFloat"], "0ULL"),
        });
    }
    // Any word will do that tells; sums and extremes of i64 take every value, and then rows are counted.
    let mark = words.iter().position(|word| word.mark.is_some()).unwrap_or_else(|| share(&mut words, count()));
    Layout { words, outputs, mark }
}

/// The index of a word, which aggregates share when they need the same.
fn share(words: &mut Vec<Word>, word: Word) -> usize {
    let found = words.iter().position(|other| other.operation == word.operation && other.column == word.column);
    found.unwrap_or_else(|| {
        words.push(word);
        words.len() - 1
    })
}

fn count() -> Word {
    Word { operation: "Count", column: None, mark: Some("0ULL") }
}

fn sum(words: &mut Vec<Word>, output: usize, column: usize, dtype: Dtype) -> (&'static str, String) {
    if dtype.is_float() {
        let word = Word { operation: "SumFloat", column: Some(column), mark: Some("0x8000000000000000ULL") };
        return ("double", format!("real(word[{}])", share(words, word)));
    }
    let low = share(words, Word { operation: "SumLow", column: Some(column), mark: None });
    if dtype == Dtype::I32 {
        return ("long long", format!("word[{low}]"));
    }
    let high = share(words, Word { operation: "SumHigh", column: Some(column), mark: None });
    ("long long", format!("wide_sum(word[{low}], word[{high}], key, {output}, status)"))
}

fn extreme(
    words: &mut Vec<Word>,
    column: usize,
    dtype: Dtype,
    [int, float]: [&'static str; 2],
    empty: &'static str,
) -> (&'static str, String) {
    let operation = if dtype.is_float() { float } else { int };
    let word = Word { operation, column: Some(column), mark: (dtype != Dtype::I64).then_some(empty) };
    let index = share(words, word);
    let expression =
        if dtype.is_float() { format!("{operation}::value(word[{index}])") } else { format!("from_ordered(word[{index}])") };
    (c_type(dtype), expression)
}

fn c_type(dtype: Dtype) -> &'static str {
    match dtype {
        Dtype::I32 => "int",
        Dtype::F32 => "float",
        Dtype::F64 => "double",
        Dtype::I64 | Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16 | Dtype::U32 | Dtype::U64 | Dtype::F16 | Dtype::Bf16 => {
            "long long"
        }
    }
}
