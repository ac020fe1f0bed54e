//! The numbers that the founding complaint published: `quic/aimet` issue 3978, simulation by AIMET 2.3 against a
//! Samsung Galaxy S24 Ultra (Snapdragon 8 Gen 3).
//!
//! Three tables were printed, by three runs of one script: the reporter's fifteen depths, and the maintainer's four
//! depths with and without the cumulative Add. Digits are as printed.

use serde::Serialize;

/// One row as printed. The first table has neither normalized columns nor off-by-N.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Published {
    /// Number of layers.
    pub depth: usize,
    /// Mean squared difference of the outputs.
    pub mse: f64,
    /// The same in units of the output's scale, squared.
    pub mse_normalized: Option<f64>,
    /// Mean absolute difference of the outputs.
    pub l1: f64,
    /// The same in units of the output's scale.
    pub l1_normalized: Option<f64>,
    /// Largest difference in units of the output's scale.
    pub off_by_n: Option<u32>,
}

const fn short(depth: usize, mse: f64, l1: f64) -> Published {
    Published { depth, mse, mse_normalized: None, l1, l1_normalized: None, off_by_n: None }
}

const fn full(depth: usize, mse: f64, mse_normalized: f64, l1: f64, l1_normalized: f64, off_by_n: u32) -> Published {
    Published {
        depth,
        mse,
        mse_normalized: Some(mse_normalized),
        l1,
        l1_normalized: Some(l1_normalized),
        off_by_n: Some(off_by_n),
    }
}

/// The reporter's table: fifteen networks with the cumulative Add.
pub const FIFTEEN_ROWS: [Published; 15] = [
    short(1, 5.64e-05, 0.0012),
    short(3, 3.77e-04, 0.0071),
    short(5, 9.35e-04, 0.0148),
    short(7, 2.35e-03, 0.0275),
    short(9, 5.58e-03, 0.0459),
    short(11, 9.93e-03, 0.0641),
    short(13, 1.52e-02, 0.0818),
    short(15, 2.36e-02, 0.1026),
    short(17, 3.27e-02, 0.1223),
    short(19, 4.18e-02, 0.1374),
    short(21, 5.88e-02, 0.1540),
    short(23, 6.14e-02, 0.1633),
    short(25, 7.35e-02, 0.1825),
    short(27, 8.77e-02, 0.1991),
    short(29, 1.04e-01, 0.2153),
];

/// The maintainer's table with the cumulative Add.
pub const WITH_ADD: [Published; 4] = [
    full(1, 5.639e-05, 0.026, 0.001, 0.026, 2),
    full(9, 0.005, 0.528, 0.043, 0.447, 4),
    full(19, 0.042, 0.954, 0.139, 0.661, 6),
    full(29, 0.107, 0.934, 0.218, 0.644, 7),
];

/// The maintainer's table without the cumulative Add.
pub const WITHOUT_ADD: [Published; 4] = [
    full(1, 9.699e-06, 0.062, 0.0007, 0.062, 1),
    full(9, 3.893e-09, 0.066, 1.6069e-05, 0.066, 1),
    full(19, 3.014e-09, 0.053, 1.2661e-05, 0.053, 1),
    full(29, 2.819e-09, 0.064, 1.3528e-05, 0.064, 1),
];

/// The row of the maintainer's tables for a network, or else of the reporter's.
pub fn row(cumulative_add: bool, depth: usize) -> Option<Published> {
    let tables: &[&[Published]] = if cumulative_add { &[&WITH_ADD, &FIFTEEN_ROWS] } else { &[&WITHOUT_ADD] };
    tables.iter().find_map(|table| table.iter().find(|r| r.depth == depth)).copied()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn normalized_columns_agree_with_the_raw_ones() {
        // mse / mse_normalized is the squared scale and l1 / l1_normalized the scale: both to the printed digits.
        for row in WITH_ADD.iter().chain(&WITHOUT_ADD) {
            let (squared, scale) = (row.mse / row.mse_normalized.unwrap(), row.l1 / row.l1_normalized.unwrap());
            assert!((squared.sqrt() / scale - 1.0).abs() < 0.25, "{row:?}");
        }
    }

    #[test]
    fn depths_beyond_the_tables_have_no_row() {
        assert_eq!(row(true, 9), Some(WITH_ADD[1]));
        assert_eq!(row(true, 3), Some(FIFTEEN_ROWS[1]));
        assert_eq!(row(false, 3), None);
        assert_eq!(row(true, 30), None);
    }
}
