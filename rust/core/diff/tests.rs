use super::*;
use crate::encoding::Encoding;
use crate::tensor::{Data, Tensor};
use std::sync::Arc;

fn real(name: &str, values: &[f32]) -> Captured {
    Captured {
        name: name.into(),
        aliases: Vec::new(),
        codes: None,
        value: Tensor::f32(&[values.len()], values.to_vec()),
        encoding: None,
    }
}

fn coded(name: &str, codes: &[u8], scale: f64) -> Captured {
    let value: Vec<f32> = codes.iter().map(|&c| f32::from(c) * scale as f32).collect();
    Captured {
        codes: Some(Tensor::new(vec![codes.len()], Data::U8(codes.to_vec().into())).unwrap()),
        encoding: Some(Arc::new(Encoding::per_tensor(scale, 0, 8, false).unwrap())),
        ..real(name, &value)
    }
}

#[test]
fn codes_of_one_grid_are_compared_as_codes() {
    let diffs = compare(&[coded("y", &[1, 5, 7, 9], 0.5)], &[coded("y", &[1, 4, 7, 12], 0.5)]).unwrap();
    let d = &diffs[0];
    assert_eq!((d.basis, d.elements, d.differing, d.off_by_n), (Basis::Codes, 4, 2, Some(3)));
    assert_eq!((d.exact, d.l1_quanta, d.mse_quanta), (0.5, Some(1.0), Some(2.5)));
    assert_eq!((d.mse, d.max_abs), (0.25 * 2.5, 1.5));
    assert_eq!(d.first, Some(FirstDifference { sample: 0, index: 1, left: 5.0, right: 4.0 }));
    assert!(d.within(3, 0.0) && !d.within(2, 100.0));
    let signal = 0.25 * (1.0 + 16.0 + 49.0 + 144.0f64);
    assert!((d.sqnr_db.unwrap() - 10.0 * (signal / 2.5).log10()).abs() < 1e-12);
}

#[test]
fn a_run_without_codes_is_compared_in_units_of_the_scale() {
    let fake = Captured { codes: None, ..coded("y", &[4, 4, 4], 0.5) };
    let d = &compare(&[coded("y", &[4, 6, 3], 0.5)], &[fake]).unwrap()[0];
    assert_eq!((d.basis, d.off_by_n, d.l1_quanta), (Basis::Scaled, Some(2), Some(1.0)));
    let nearly = Captured { encoding: None, ..real("y", &[2.0 + 1e-6]) };
    let d = &compare(&[coded("y", &[4], 0.5)], &[nearly]).unwrap()[0];
    assert_eq!((d.differing, d.exact, d.off_by_n), (0, 1.0, Some(0)));
    assert!(d.max_abs > 0.0);
}

#[test]
fn codes_of_two_grids_are_never_subtracted() {
    let d = &compare(&[coded("y", &[10], 0.5)], &[coded("y", &[5], 1.0)]).unwrap()[0];
    assert_eq!((d.basis, d.differing, d.mse), (Basis::Scaled, 0, 0.0));
}

#[test]
fn reals_without_an_encoding_have_no_quanta() {
    let d = &compare(&[real("y", &[1.0, f32::NAN])], &[real("y", &[1.0, f32::NAN])]).unwrap()[0];
    assert_eq!((d.basis, d.differing, d.off_by_n, d.sqnr_db), (Basis::Reals, 0, None, None));
    let d = &compare(&[real("y", &[1.0, f32::NAN])], &[real("y", &[1.0, 2.0])]).unwrap()[0];
    assert_eq!((d.differing, d.max_abs), (1, f64::INFINITY));
    assert!(!d.within(1000, 1e30));
}

#[test]
fn pairs_are_found_by_name_then_alias_and_the_rest_is_listed() {
    let mut right = [real("z", &[1.0]), real("q", &[2.0]), real("only_right", &[0.0])];
    right[1].aliases.push("y".into());
    let mut comparison = Comparison::new();
    comparison.add(&[real("only_left", &[0.0]), real("y", &[2.0]), real("z", &[1.0])], &right).unwrap();
    let names: Vec<_> = comparison.finish().into_iter().map(|d| d.name).collect();
    assert_eq!(names, ["y", "z"]);
    assert_eq!(comparison.unpaired(), &Unpaired { left: vec!["only_left".into()], right: vec!["only_right".into()] });
}

#[test]
fn samples_add_up_and_the_first_difference_knows_its_sample() {
    let mut comparison = Comparison::new();
    comparison.add(&[coded("y", &[1, 2], 1.0)], &[coded("y", &[1, 2], 1.0)]).unwrap();
    comparison.add(&[coded("y", &[1, 2], 1.0)], &[coded("y", &[1, 4], 1.0)]).unwrap();
    let d = &comparison.finish()[0];
    assert_eq!((d.elements, d.differing, d.mse_quanta), (4, 1, Some(1.0)));
    assert_eq!(d.first.unwrap().sample, 1);
}

#[test]
fn two_sizes_are_an_error_that_names_the_tensor() {
    let error = compare(&[real("y", &[1.0])], &[real("y", &[1.0, 2.0])]).unwrap_err();
    assert_eq!(error.code(), "diff_shape");
    assert!(error.to_string().contains("'y'"));
}
