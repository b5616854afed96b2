use super::*;

/// `y[i] = factor * x[i]`, with `factor` in the payload.
pub(crate) fn scale() -> KernelSpec {
    KernelSpec {
        name: "scale.cu".to_owned(),
        source: "extern \"C\" __global__ void scale(const float* x, float* y, float factor, unsigned int n) {\n\
                 unsigned int i = blockIdx.x * blockDim.x + threadIdx.x; if (i < n) y[i] = factor * x[i]; }\n"
            .to_owned(),
        entry: "scale".to_owned(),
        options: Vec::new(),
        arguments: vec![
            buffer("x", Direction::In, Dtype::F32, &["n"]),
            buffer("y", Direction::Out, Dtype::F32, &["n"]),
            Argument { name: "factor".to_owned(), kind: ArgumentKind::Scalar { dtype: Dtype::F32, value: ScalarValue::Payload } },
            Argument {
                name: "n".to_owned(),
                kind: ArgumentKind::Scalar { dtype: Dtype::U32, value: ScalarValue::Formula(formula("n")) },
            },
        ],
        constants: BTreeMap::new(),
        geometry: Geometry::linear("n", 256).unwrap(),
        batching: Batching::Concat,
        payload_bytes_max: 1 << 20,
        result_bytes_max: 1 << 20,
    }
}

pub(crate) fn buffer(name: &str, direction: Direction, dtype: Dtype, shape: &[&str]) -> Argument {
    let shape = shape.iter().map(|dimension| formula(dimension)).collect();
    Argument { name: name.to_owned(), kind: ArgumentKind::Buffer { direction, dtype, shape, finite: false } }
}

pub(crate) fn formula(text: &str) -> Formula {
    text.parse().unwrap()
}

#[test]
fn a_sound_kernel_is_taken() {
    assert_eq!(scale().check(), Ok(()));
    assert_eq!(scale().dimensions(), ["n"]);
}

/// What is wrong with a kernel, and what is said of it.
#[test]
fn everything_wrong_is_named() {
    type Change = fn(&mut KernelSpec);
    let table: Vec<(Change, &str)> = vec![
        (|k| k.source = " \n".to_owned(), "the source is empty"),
        (|k| k.source.push('\0'), "zero byte"),
        (|k| k.entry = "scale2".to_owned(), "`scale2` does not occur"),
        (|k| k.entry = "a b".to_owned(), "`a b` is no name"),
        (|k| k.entry = String::new(), "`` is no name"),
        (|k| k.options = vec!["--gpu-architecture=sm_70".to_owned()], "--gpu-architecture is not taken"),
        (|k| k.options = vec!["-I/etc".to_owned()], "-I is not taken"),
        (|k| k.options = vec!["fast".to_owned()], "`fast` is none"),
        (|k| k.arguments[1].name = "x".to_owned(), "two arguments are called `x`"),
        (|k| k.constants = BTreeMap::from([("1st".to_owned(), 1)]), "constant `1st`"),
        (|k| drop(k.arguments.remove(1)), "no argument is an output"),
        (|k| k.arguments[0] = buffer("x", Direction::In, Dtype::F32, &["n * 2"]), "`n * 2` is neither"),
        (|k| k.arguments[1] = buffer("y", Direction::Out, Dtype::F32, &[]), "y has no dimension"),
        (|k| k.arguments[1] = buffer("y", Direction::Out, Dtype::F32, &["n", "0"]), "y has a dimension of 0"),
        (|k| k.arguments[1] = buffer("y", Direction::Out, Dtype::F32, &["n", "m"]), "nothing binds `m`"),
        (|k| k.geometry = Geometry::linear("rows", 64).unwrap(), "grid.x = `ceil((rows) / 64)`: nothing binds `rows`"),
        (|k| k.geometry.shared_bytes = formula("4 * w"), "shared_bytes = `4 * w`: nothing binds `w`"),
        (|k| k.geometry.shared_bytes = formula("batch"), "nothing binds `batch`"),
        (
            |k| {
                let value = ScalarValue::Fixed(Scalar::F64(1.0));
                k.arguments[2].kind = ArgumentKind::Scalar { dtype: Dtype::F32, value };
            },
            "scalar factor is f32, and its value f64",
        ),
        (
            |k| {
                let value = ScalarValue::Formula(formula("n"));
                k.arguments[2].kind = ArgumentKind::Scalar { dtype: Dtype::F32, value };
            },
            "a formula is a whole number",
        ),
        (|k| k.arguments[1] = buffer("y", Direction::Out, Dtype::F32, &["ceil(n / 4)"]), "first dimension of every array"),
        (|k| k.arguments[1] = buffer("y", Direction::Out, Dtype::F32, &["n", "n"]), "y has `n` in more than its first dimension"),
        (|k| k.constants = BTreeMap::from([("n".to_owned(), 4)]), "`n` is a constant"),
        (
            |k| {
                k.batching = Batching::Stack;
                k.arguments[1] = buffer("y", Direction::Out, Dtype::F32, &["batch", "n"]);
            },
            "put before every shape by itself",
        ),
        (|k| k.arguments[0] = buffer("x", Direction::In, Dtype::F32, &["batch"]), "cannot be called `batch`"),
    ];
    for (change, wanted) in table {
        let mut kernel = scale();
        change(&mut kernel);
        let error = kernel.check().expect_err(wanted).to_string();
        assert!(error.starts_with("kernel scale.cu: ") && error.contains(wanted), "{wanted}: {error}");
    }
}

#[test]
fn several_faults_are_said_at_once() {
    let mut kernel = scale();
    kernel.entry = "nothing".to_owned();
    kernel.geometry = Geometry::linear("rows", 64).unwrap();
    kernel.options = vec!["-arch=sm_70".to_owned()];
    let error = kernel.check().unwrap_err().to_string();
    assert!(["nothing", "rows", "-arch"].iter().all(|wanted| error.contains(wanted)), "{error}");
}

#[test]
fn constants_are_defined_for_the_compiler() {
    let mut kernel = scale();
    kernel.constants.insert("WIDTH".to_owned(), 4);
    assert_eq!(kernel.program().options, ["-DWIDTH=4"]);
}
