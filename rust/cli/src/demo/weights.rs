//! Networks from a file instead of the generator.
//!
//! An `.npz` of little-endian float32 arrays, uncompressed or deflated:
//!
//! | key | shape | meaning |
//! |---|---|---|
//! | `input` | `[1, C, H, W]` | the input that is measured |
//! | `weight.<i>` | `[C, C, 3, 3]` | convolution `i`, counted from 0, batch normalization folded |
//! | `bias.<i>` | `[C]` | its bias |
//! | `range.input` | `[2]` | smallest and largest input during calibration |
//! | `range.relu6.<i>` | `[2]` | the same for the activation of layer `i` |
//! | `range.add.<i>` | `[2]` | the same for the running sum after layer `i`; absent without the cumulative Add |
//! | `calibration` | `[N, C, H, W]` | inputs to calibrate on, where no `range.*` is given |
//! | `cumulative_add` | `[]` or `[1]` | 0 for the network without the Add; read where no `range.*` is given |
//!
//! Ranges come from a run with quantized weights and unquantized activations, as AIMET calibrates.

use super::network::{INPUT, Layer, Network, Ranges, add_name, relu6_name};
use nputwin::arrays::Npz;
use nputwin::calibrate::{MinMax, Observer};
use nputwin::error::Location;
use nputwin::tensor::Tensor;
use nputwin::{Error, Result};
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

/// Where the ranges of a network come from.
#[derive(Debug)]
pub enum Calibration {
    /// The file has them.
    Ranges(Ranges),
    /// The file has inputs to calibrate on.
    Inputs(Vec<Tensor>),
}

/// What a file holds.
#[derive(Debug)]
pub struct Given {
    /// The network, all of whose layers are measured.
    pub network: Network,
    /// The input that is measured.
    pub input: Tensor,
    /// How to get encodings.
    pub calibration: Calibration,
}

/// Reads a network.
pub fn read(path: &Path) -> Result<Given> {
    let file = || Location::File(path.display().to_string());
    let arrays = read_arrays(path).map_err(|e| e.at(file()))?;
    interpret(arrays).map_err(|e| e.at(file()).help("`nputwin demo --help` names the arrays of a weights file"))
}

fn read_arrays(path: &Path) -> Result<BTreeMap<String, Tensor>> {
    let mut archive = Npz::open(path)?;
    let mut arrays = BTreeMap::new();
    for name in archive.names() {
        let array = archive.array(&name)?;
        array.as_f32().map_err(|e| e.at_tensor(&name))?;
        arrays.insert(name, array);
    }
    Ok(arrays)
}

fn interpret(mut arrays: BTreeMap<String, Tensor>) -> Result<Given> {
    let mut layers = Vec::new();
    while let Some(weight) = arrays.remove(&format!("weight.{}", layers.len())) {
        let bias = take(&mut arrays, &format!("bias.{}", layers.len()))?;
        layers.push(Layer { weight: Arc::new(weight), bias: Arc::new(bias) });
    }
    let input = take(&mut arrays, "input")?;
    let shape: [usize; 4] =
        <[usize; 4]>::try_from(input.shape()).ok().filter(|s| s[0] == 1 && s.iter().all(|&d| d > 0)).ok_or_else(
            || Error::invalid("demo_shape", format!("shape {:?}, not [1, C, H, W]", input.shape())).at_tensor("input"),
        )?;
    if layers.is_empty() {
        return Err(Error::invalid("demo_weights", "the file has no array 'weight.0'"));
    }
    let channels = shape[1];
    for (i, layer) in layers.iter().enumerate() {
        expect_shape(&layer.weight, &[channels, channels, 3, 3], &format!("weight.{i}"))?;
        expect_shape(&layer.bias, &[channels], &format!("bias.{i}"))?;
    }
    let (network, calibration) = if arrays.contains_key("range.input") {
        let cumulative_add = arrays.contains_key("range.add.0");
        let mut ranges = Ranges::from([(INPUT.to_string(), range(&mut arrays, "range.input")?)]);
        for i in 0..layers.len() {
            ranges.insert(relu6_name(i), range(&mut arrays, &format!("range.relu6.{i}"))?);
            if cumulative_add {
                ranges.insert(add_name(i), range(&mut arrays, &format!("range.add.{i}"))?);
            }
        }
        (Network { cumulative_add, shape, layers }, Calibration::Ranges(ranges))
    } else {
        let cumulative_add = match arrays.remove("cumulative_add") {
            None => true,
            Some(flag) if flag.len() == 1 => flag.as_f32()?[0] != 0.0,
            Some(flag) => {
                return Err(Error::invalid("demo_shape", format!("shape {:?}, not one number", flag.shape()))
                    .at_tensor("cumulative_add"));
            }
        };
        let inputs = take(&mut arrays, "calibration")?;
        if inputs.shape().len() != 4 || inputs.shape()[0] == 0 || inputs.shape()[1..] != shape[1..] {
            return Err(Error::invalid(
                "demo_shape",
                format!("shape {:?} does not fit the input {shape:?}", inputs.shape()),
            )
            .at_tensor("calibration"));
        }
        let size = shape.iter().product();
        let inputs = inputs.as_f32()?.chunks_exact(size).map(|v| Tensor::f32(&shape, v.to_vec())).collect();
        (Network { cumulative_add, shape, layers }, Calibration::Inputs(inputs))
    };
    match arrays.keys().next() {
        None => Ok(Given { network, input, calibration }),
        Some(name) => Err(Error::invalid("demo_array", format!("the array '{name}' has no meaning here"))),
    }
}

fn take(arrays: &mut BTreeMap<String, Tensor>, name: &str) -> Result<Tensor> {
    arrays.remove(name).ok_or_else(|| Error::invalid("demo_array", format!("the file has no array '{name}'")))
}

fn expect_shape(tensor: &Tensor, shape: &[usize], name: &str) -> Result<()> {
    if tensor.shape() == shape {
        return Ok(());
    }
    Err(Error::invalid("demo_shape", format!("shape {:?}, not {shape:?}", tensor.shape())).at_tensor(name))
}

fn range(arrays: &mut BTreeMap<String, Tensor>, name: &str) -> Result<MinMax> {
    let ends = take(arrays, name)?;
    expect_shape(&ends, &[2], name)?;
    let mut range = MinMax::new();
    range.observe(ends.as_f32()?).map_err(|e| e.at_tensor(name))?;
    Ok(range)
}

#[cfg(test)]
mod tests {
    use super::*;
    use nputwin::encoding::{Formula, FormulaOptions};

    fn arrays() -> BTreeMap<String, Tensor> {
        BTreeMap::from([
            ("input".to_string(), Tensor::f32(&[1, 2, 3, 3], vec![0.5; 18])),
            ("weight.0".to_string(), Tensor::f32(&[2, 2, 3, 3], vec![0.1; 36])),
            ("bias.0".to_string(), Tensor::f32(&[2], vec![0.0; 2])),
            ("range.input".to_string(), Tensor::f32(&[2], vec![-1.0, 1.0])),
            ("range.relu6.0".to_string(), Tensor::f32(&[2], vec![0.0, 2.0])),
            ("range.add.0".to_string(), Tensor::f32(&[2], vec![-1.0, 3.0])),
        ])
    }

    #[test]
    fn a_complete_file_gives_a_network_with_ranges() {
        let given = interpret(arrays()).unwrap();
        assert!(given.network.cumulative_add);
        let Calibration::Ranges(ranges) = given.calibration else { panic!("ranges are in the file") };
        let options = FormulaOptions::activation(Formula::AimetTorch, 8);
        assert_eq!(ranges["layer1.add"].range(&options).unwrap(), (-1.0, 3.0));
        let mut without = arrays();
        without.remove("range.add.0");
        assert!(!interpret(without).unwrap().network.cumulative_add);
    }

    #[test]
    fn inputs_stand_in_for_ranges() {
        let mut arrays = arrays();
        arrays.retain(|name, _| !name.starts_with("range."));
        assert!(interpret(arrays.clone()).unwrap_err().message().contains("calibration"));
        arrays.insert("calibration".into(), Tensor::f32(&[2, 2, 3, 3], vec![0.5; 36]));
        arrays.insert("cumulative_add".into(), Tensor::f32(&[], vec![0.0]));
        let given = interpret(arrays).unwrap();
        assert!(!given.network.cumulative_add);
        assert!(matches!(given.calibration, Calibration::Inputs(inputs) if inputs.len() == 2));
    }

    #[test]
    fn what_is_missing_or_odd_is_named() {
        for (name, replacement, word) in [
            ("input", None, "input"),
            ("weight.0", None, "weight.0"),
            ("bias.0", None, "bias.0"),
            ("range.relu6.0", None, "range.relu6.0"),
            ("input", Some(Tensor::f32(&[2, 3, 3], vec![0.0; 18])), "[1, C, H, W]"),
            ("weight.0", Some(Tensor::f32(&[2, 2, 1, 1], vec![0.0; 4])), "[2, 2, 3, 3]"),
            ("range.input", Some(Tensor::f32(&[3], vec![0.0; 3])), "[3]"),
            ("weights.1", Some(Tensor::f32(&[1], vec![0.0])), "weights.1"),
        ] {
            let mut arrays = arrays();
            arrays.remove(name);
            if let Some(tensor) = replacement {
                arrays.insert(name.into(), tensor);
            }
            let message = interpret(arrays).unwrap_err().to_string();
            assert!(message.contains(word), "{name}: {message}");
        }
    }
}
