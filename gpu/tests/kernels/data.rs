//! Inputs drawn from a seed.

use ergate_gpu::Dtype;
use ergate_gpu::aggregate::Column;

/// A small generator of numbers (splitmix64): the same on every machine.
pub(crate) struct Draw(pub(crate) u64);

impl Draw {
    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(crate) fn below(&mut self, limit: u64) -> u64 {
        self.next() % limit
    }

    /// Between -1 and 1.
    pub(crate) fn unit(&mut self) -> f64 {
        (self.next() >> 11) as f64 / (1u64 << 52) as f64 - 1.0
    }
}

/// How keys are spread.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Keys {
    /// 0 to before this.
    Near(u64),
    /// As many different ones, anywhere in 64 bits.
    Far(u64),
    /// Half of the rows have one key, the others as `Far`.
    Hot(u64),
    /// `Near`, but for one row in 50.
    Outliers(u64),
    /// Only the ends of the range.
    Ends,
    /// All of them different.
    Different,
}

pub(crate) fn keys(draw: &mut Draw, rows: usize, spread: Keys) -> Vec<i64> {
    let far = |draw: &mut Draw, groups: u64| Draw(draw.below(groups.max(1))).next() as i64;
    (0..rows)
        .map(|row| match spread {
            Keys::Near(groups) => draw.below(groups.max(1)) as i64 - 3,
            Keys::Far(groups) => far(draw, groups),
            Keys::Hot(groups) => {
                if draw.below(2) == 0 {
                    -77
                } else {
                    far(draw, groups)
                }
            }
            Keys::Outliers(groups) => {
                if draw.below(50) == 0 {
                    draw.next() as i64
                } else {
                    draw.below(groups.max(1)) as i64 - 3
                }
            }
            Keys::Ends => [i64::MIN, i64::MIN + 1, -1, 0, 1, i64::MAX - 1, i64::MAX][draw.below(7) as usize],
            Keys::Different => (row as i64).wrapping_mul(0x1234_5678_9abc_def1),
        })
        .collect()
}

/// Values of all sizes, with NaN, infinities and zeros of both signs where `wild`.
pub(crate) fn column(draw: &mut Draw, rows: usize, dtype: Dtype, wild: bool) -> Column {
    let odd = |draw: &mut Draw| match draw.below(40) {
        0 => Some(if draw.below(2) == 0 { f64::NAN } else { -f64::NAN }),
        1 => Some(f64::INFINITY),
        2 => Some(f64::NEG_INFINITY),
        3 => Some(-0.0),
        4 => Some(0.0),
        _ => None,
    };
    let float = |draw: &mut Draw| {
        let plain = draw.unit() * 2f64.powi(draw.below(40) as i32 - 20);
        if wild { odd(draw).unwrap_or(plain) } else { plain }
    };
    match dtype {
        Dtype::I32 => Column::I32((0..rows).map(|_| draw.next() as i32 >> draw.below(32)).collect()),
        // Sums of these fit: rows are few.
        Dtype::I64 => Column::I64((0..rows).map(|_| (draw.next() as i64 >> 20) >> draw.below(44)).collect()),
        Dtype::F32 => Column::F32((0..rows).map(|_| float(draw) as f32).collect()),
        Dtype::F64 => Column::F64((0..rows).map(|_| float(draw)).collect()),
        Dtype::U8 | Dtype::I8 | Dtype::I16 | Dtype::U16 | Dtype::U32 | Dtype::U64 | Dtype::F16 | Dtype::Bf16 => {
            panic!("no values of {dtype:?} are drawn")
        }
    }
}
