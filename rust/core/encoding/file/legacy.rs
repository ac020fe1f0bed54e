//! What 0.6.1 and 1.0.0 share: offsets on the unsigned grid, and a flag whose meaning depends on the producer.

use super::Section;
use crate::encoding::{Encoding, Granularity};
use serde_json::{Value, json};

/// Meaning of `is_sym` / `is_symmetric`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Convention {
    /// The symmetric flag (aimet-torch): symmetric activations stay on the unsigned grid, with zero in its middle.
    Symmetric,
    /// Signedness of the codes (aimet-onnx, and files written here).
    Signed,
    /// Unknown producer: signed where the flag is set and zero lies in the middle.
    Centred,
}

impl Convention {
    pub(super) fn of_producer(producer: &Value) -> Convention {
        let package = producer.get("package").and_then(Value::as_str).unwrap_or("");
        if package.contains("torch") {
            Convention::Symmetric
        } else if package.contains("onnx") || package == PACKAGE {
            Convention::Signed
        } else {
            Convention::Centred
        }
    }
}

const PACKAGE: &str = "nputwin";

/// The producer entry of a file whose `is_sym` means signedness.
pub(super) fn own_producer(source: &Value) -> Value {
    let mut producer = json!({"package": PACKAGE, "version": env!("CARGO_PKG_VERSION")});
    if !source.is_null() {
        producer["converted_from"] = source.clone();
    }
    producer
}

/// A grid as these versions write it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Offsets {
    pub(super) is_symmetric: bool,
    pub(super) offset: Vec<i64>,
}

/// Signedness, narrowness, symmetry and zero points of a tensor.
///
/// With `half = 2^(bitwidth-1)`: a signed grid has `zero_point = -offset - half`, and `offset = 1 - half` throughout
/// means a narrow range; an unsigned grid has `zero_point = -offset`. Lengths are the caller's to check.
pub(super) fn decode(grid: &Offsets, bitwidth: u32, section: Section, convention: Convention) -> Encoding {
    let half = 1i64 << (bitwidth - 1);
    let all = |offset: i64| grid.offset.iter().all(|&o| o == offset);
    let narrow = all(1 - half);
    let centred = all(-half) || narrow;
    let signed = grid.is_symmetric
        && match convention {
            Convention::Symmetric => centred && section == Section::Param,
            Convention::Centred => centred,
            Convention::Signed => true,
        };
    let narrow_range = signed && narrow;
    let zero_point: Vec<i64> = match (signed, narrow_range) {
        (true, true) => vec![0; grid.offset.len()],
        (true, false) => grid.offset.iter().map(|o| o.saturating_neg().saturating_sub(half)).collect(),
        (false, _) => grid.offset.iter().map(|o| o.saturating_neg()).collect(),
    };
    let symmetric = match convention {
        Convention::Signed => signed && zero_point.iter().all(|&z| z == 0),
        _ => grid.is_symmetric,
    };
    Encoding {
        scale: Vec::new(),
        zero_point,
        bitwidth,
        signed,
        symmetric,
        narrow_range,
        granularity: Granularity::PerTensor,
        lpbq: None,
    }
}

/// The inverse of [`decode`]; `None` where the file would be read as another grid.
pub(super) fn encode(encoding: &Encoding, section: Section, convention: Convention) -> Option<Offsets> {
    let grid = if encoding.signed {
        let half = 1i64 << (encoding.bitwidth - 1);
        let shift = half - i64::from(encoding.narrow_range);
        Offsets { is_symmetric: true, offset: encoding.zero_point.iter().map(|z| -z - shift).collect() }
    } else {
        let is_symmetric = encoding.symmetric && convention != Convention::Signed;
        Offsets { is_symmetric, offset: encoding.zero_point.iter().map(|z| -z).collect() }
    };
    let same = |grid: &Offsets| {
        let read = decode(grid, encoding.bitwidth, section, convention);
        read.signed == encoding.signed
            && read.narrow_range == encoding.narrow_range
            && read.zero_point == encoding.zero_point
    };
    if same(&grid) {
        return Some(grid);
    }
    let plain = Offsets { is_symmetric: false, ..grid };
    same(&plain).then_some(plain)
}

/// The unsigned grid of the same real numbers: codes grow by `2^(bitwidth-1)` where they were signed.
pub(super) fn unsigned_grid(encoding: &Encoding) -> Offsets {
    let shift = if encoding.signed { 1i64 << (encoding.bitwidth - 1) } else { 0 };
    Offsets { is_symmetric: false, offset: encoding.zero_point.iter().map(|z| -z - shift).collect() }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(is_symmetric: bool, offset: i64, section: Section, convention: Convention) -> (bool, bool, i64) {
        let e = decode(&Offsets { is_symmetric, offset: vec![offset] }, 8, section, convention);
        (e.signed, e.narrow_range, e.zero_point[0])
    }

    #[test]
    fn the_flag_means_what_the_producer_means() {
        use Convention::*;
        use Section::*;
        assert_eq!(read(true, -128, Param, Symmetric), (true, false, 0));
        assert_eq!(read(true, -128, Activation, Symmetric), (false, false, 128));
        assert_eq!(read(true, -128, Activation, Signed), (true, false, 0));
        assert_eq!(read(true, -128, Activation, Centred), (true, false, 0));
        assert_eq!(read(true, -127, Param, Symmetric), (true, true, 0));
        assert_eq!(read(true, -100, Param, Symmetric), (false, false, 100));
        assert_eq!(read(true, -100, Activation, Signed), (true, false, -28));
        assert_eq!(read(true, -100, Activation, Centred), (false, false, 100));
        assert_eq!(read(false, -128, Param, Signed), (false, false, 128));
        assert_eq!(read(true, 0, Param, Symmetric), (false, false, 0));
    }

    #[test]
    fn what_is_written_is_read_back_or_refused() {
        let mut refused = 0;
        for convention in [Convention::Symmetric, Convention::Signed, Convention::Centred] {
            for section in [Section::Param, Section::Activation] {
                for (signed, narrow_range, zero_point) in [
                    (true, false, 0),
                    (true, true, 0),
                    (true, false, -1),
                    (true, false, 28),
                    (true, false, -128),
                    (false, false, 0),
                    (false, false, 128),
                    (false, false, 127),
                    (false, false, 255),
                    (false, true, 128),
                ] {
                    for symmetric in [false, true] {
                        let encoding = Encoding {
                            narrow_range,
                            symmetric,
                            ..Encoding::per_tensor(1.0, zero_point, 8, signed).unwrap()
                        };
                        match encode(&encoding, section, convention) {
                            Some(grid) => {
                                assert!((-255..=0).contains(&grid.offset[0]));
                                let back = decode(&grid, 8, section, convention);
                                assert_eq!(
                                    (back.signed, back.narrow_range, back.zero_point[0]),
                                    (signed, narrow_range, zero_point)
                                );
                            }
                            None => refused += 1,
                        }
                    }
                }
            }
        }
        assert!(refused > 0);
        let narrow = Encoding { narrow_range: true, ..Encoding::per_tensor(1.0, 128, 8, false).unwrap() };
        assert_eq!(encode(&narrow, Section::Param, Convention::Signed), None);
    }
}
