//! How many rows a matrix product takes at once: so many that its scores stay in the L2 cache until they are read.

use super::{Search, Shape};

/// Scores of one tile, in bytes, where the device does not tell its cache: half of an H100's.
const TILE_BYTES: u64 = 24 << 20;
/// Rows of a tile, at least: below, the product is too small to fill a device.
const TILE_ROWS_MIN: u64 = 1024;
/// Scores that one block looks through.
const RUN_ROWS: u64 = 8192;

/// Rows of one product.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tile {
    /// The first row.
    pub first: u64,
    /// How many, a multiple of 8; the matrix's last ones may be zeros that fill up.
    pub rows: u64,
}

/// The tiles of one search.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Tiles {
    rows_kept: u64,
    /// Rows of every tile but the last, a multiple of 8.
    pub tile_rows: u64,
    /// Rows of a tile that one block looks through, a multiple of 8.
    pub run_rows: u32,
    /// Blocks a query and tile.
    pub runs: u32,
}

impl Tiles {
    /// Tiles for a matrix with at least one row. `tile_bytes` is the size of a tile's scores, or what suits a cache of `l2_bytes`.
    pub fn of(shape: &Shape, search: &Search, l2_bytes: u64, tile_bytes: Option<u64>) -> Self {
        let bytes = tile_bytes.unwrap_or(if l2_bytes == 0 { TILE_BYTES } else { l2_bytes / 2 });
        let wanted = (bytes / (u64::from(search.queries) * 4)).max(TILE_ROWS_MIN) / 8 * 8;
        let tile_rows = wanted.min(shape.rows_kept());
        // The matrix product counts its rows in 31 bits.
        let tile_rows = tile_rows.min((1 << 30) - 8);
        let runs = tile_rows.div_ceil(RUN_ROWS);
        let run_rows = tile_rows.div_ceil(runs).next_multiple_of(8);
        Self { rows_kept: shape.rows_kept(), tile_rows, run_rows: run_rows as u32, runs: tile_rows.div_ceil(run_rows) as u32 }
    }

    /// The tiles, in order.
    pub fn each(&self) -> impl Iterator<Item = Tile> + use<> {
        let (rows_kept, tile_rows) = (self.rows_kept, self.tile_rows);
        (0..rows_kept.div_ceil(tile_rows)).map(move |index| {
            let first = index * tile_rows;
            Tile { first, rows: tile_rows.min(rows_kept - first) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::Metric;
    use super::*;
    use crate::Dtype;

    #[test]
    fn tiles_cover_every_row_once_and_begin_at_eights() {
        for rows in [1, 7, 8, 1023, 1024, 1025, 40_009, 4_000_000] {
            for queries in [2, 3, 17, 1024, 65_535] {
                let shape = Shape::new(rows, 256, Dtype::F32, Metric::Dot).unwrap();
                let tiles = Tiles::of(&shape, &Search::new(queries, 10).unwrap(), 0, None);
                let mut next = 0;
                for tile in tiles.each() {
                    assert_eq!((tile.first, tile.first % 8, tile.rows % 8), (next, 0, 0));
                    assert!(tile.rows > 0 && tile.rows <= tiles.tile_rows);
                    next += tile.rows;
                }
                assert_eq!(next, shape.rows_kept());
                assert!(u64::from(tiles.runs) * u64::from(tiles.run_rows) >= tiles.tile_rows);
                assert_eq!(tiles.run_rows % 8, 0);
            }
        }
    }

    #[test]
    fn the_tile_of_a_thousand_queries_stays_in_half_the_cache() {
        let shape = Shape::new(4_000_000, 256, Dtype::F32, Metric::Dot).unwrap();
        let tiles = Tiles::of(&shape, &Search::new(1024, 10).unwrap(), 50 << 20, None);
        assert_eq!((tiles.tile_rows * 1024 * 4, tiles.runs), (25 << 20, 1));
    }
}
