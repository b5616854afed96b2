//! A run over time, in at most so many equal pieces: what a plot needs, whatever the length of the trace.

/// One piece of time.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Point {
    /// Where it begins, in seconds from the beginning.
    pub at_s: f64,
    /// Tasks that waited, on average.
    pub backlog: f64,
    /// Replicas that were billed, on average.
    pub replicas: f64,
    /// Slots in which a task ran, on average.
    pub running: f64,
    /// The longest wait of the tasks that started in it, in seconds; `None` where none started.
    pub wait_s: Option<f64>,
}

/// Pieces that grow together when there are too many of them.
#[derive(Debug)]
pub(super) struct Series {
    width: u64,
    pieces: Vec<Piece>,
    /// The piece that was looked for last and where it ends: the next moment is most often in it.
    last: (usize, u64),
}

#[derive(Clone, Copy, Debug, Default)]
struct Piece {
    covered: f64,
    backlog: f64,
    replicas: f64,
    running: f64,
    wait: Option<u64>,
}

/// Most pieces; there are at least half as many once the trace is longer than as many times the first width.
const PIECES_MAX: usize = 480;
/// The first width.
const WIDTH: u64 = 100_000;

impl Series {
    pub(super) fn new() -> Series {
        Series { width: WIDTH, pieces: Vec::with_capacity(PIECES_MAX), last: (0, 0) }
    }

    /// From one moment to another so many waited, were billed, ran.
    pub(super) fn span(&mut self, from: u64, to: u64, [backlog, replicas, running]: [u32; 3]) {
        let mut from = from;
        if from < to {
            // Pieces become wider before any is filled.
            self.piece(to - 1);
        }
        while from < to {
            let index = self.piece(from);
            let until = to.min((index as u64 + 1) * self.width);
            let length = (until - from) as f64;
            let piece = &mut self.pieces[index];
            piece.covered += length;
            piece.backlog += length * f64::from(backlog);
            piece.replicas += length * f64::from(replicas);
            piece.running += length * f64::from(running);
            from = until;
        }
    }

    /// A task started that had waited so long.
    pub(super) fn wait(&mut self, at: u64, wait: u64) {
        let index = self.piece(at);
        let piece = &mut self.pieces[index];
        piece.wait = piece.wait.max(Some(wait));
    }

    /// The piece of a moment, which exists from now on.
    fn piece(&mut self, at: u64) -> usize {
        let (index, end) = self.last;
        if at < end && at + self.width >= end {
            return index;
        }
        while at / self.width >= PIECES_MAX as u64 {
            self.halve();
        }
        // Below the most pieces, which a usize holds.
        let index = (at / self.width) as usize;
        if index >= self.pieces.len() {
            self.pieces.resize(index + 1, Piece::default());
        }
        self.last = (index, (index as u64 + 1) * self.width);
        index
    }

    fn halve(&mut self) {
        self.width *= 2;
        self.last = (0, 0);
        let merged = |pair: &[Piece]| {
            pair.iter().fold(Piece::default(), |one, other| Piece {
                covered: one.covered + other.covered,
                backlog: one.backlog + other.backlog,
                replicas: one.replicas + other.replicas,
                running: one.running + other.running,
                wait: one.wait.max(other.wait),
            })
        };
        self.pieces = self.pieces.chunks(2).map(merged).collect();
    }

    pub(super) fn points(&self) -> Vec<Point> {
        let point = |(index, piece): (usize, &Piece)| {
            let mean = |sum: f64| if piece.covered > 0.0 { sum / piece.covered } else { 0.0 };
            Point {
                at_s: index as f64 * self.width as f64 / 1e6,
                backlog: mean(piece.backlog),
                replicas: mean(piece.replicas),
                running: mean(piece.running),
                wait_s: piece.wait.map(|wait| wait as f64 / 1e6),
            }
        };
        self.pieces.iter().enumerate().map(point).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn means_survive_that_pieces_grow() {
        let mut series = Series::new();
        // 10 for an hour, then 20 for an hour.
        series.span(0, 3_600_000_000, [10, 1, 0]);
        series.wait(1_800_000_000, 7_000_000);
        series.span(3_600_000_000, 7_200_000_000, [20, 3, 2]);
        let points = series.points();
        assert!(points.len() <= PIECES_MAX && points.len() > PIECES_MAX / 2, "{}", points.len());
        let mean: f64 = points.iter().map(|point| point.backlog).sum::<f64>() / points.len() as f64;
        assert!((mean - 15.0).abs() < 0.05, "{mean}");
        assert_eq!((points[0].backlog, points[0].replicas), (10.0, 1.0));
        let last = points.last().unwrap();
        assert_eq!((last.backlog, last.replicas, last.running), (20.0, 3.0, 2.0));
        assert_eq!(points.iter().filter_map(|point| point.wait_s).collect::<Vec<_>>(), [7.0]);
    }

    #[test]
    fn a_span_of_years_takes_no_more_room() {
        let mut series = Series::new();
        series.span(0, 1_000_000_000_000_000, [1, 1, 1]);
        assert!(series.points().len() <= PIECES_MAX);
    }
}
