//! Calibration, and the distance between simulation and emulation.

use super::network::{INPUT, Network, Ranges};
use crate::args::RunOptions;
use nputwin::calibrate::{MinMax, Observer};
use nputwin::exec::{Captured, Options, RunResult, Session};
use nputwin::spec::Spec;
use nputwin::tensor::Tensor;
use nputwin::{Error, Result};
use serde::Serialize;

/// The float simulation.
pub const SIMULATION: &str = "fake_quant";
/// The chip of the complaint.
pub const EMULATION: &str = "htp_v75";
/// The same chip on float networks.
pub const EMULATION_F16: &str = "htp_float16";
/// The rule that the advice changes, and its two alternatives.
pub const INPUT_RULE: &str = "quantize_input";
/// The device quantizes the input itself.
pub const ON_DEVICE: &str = "device_fp16";
/// The host quantizes and the device receives integers.
pub const ON_HOST: &str = "host_exact";

/// How far two outputs are apart.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Difference {
    /// Mean of the squared differences.
    pub mse: f64,
    /// The same in units of the output's scale, squared.
    pub mse_normalized: f64,
    /// Mean of the absolute differences.
    pub l1: f64,
    /// The same in units of the output's scale.
    pub l1_normalized: f64,
    /// Largest difference in units of the output's scale, rounded.
    pub off_by_n: u64,
}

impl Difference {
    /// Compares two outputs whose grid has steps of `scale`.
    fn of(simulated: &[f32], emulated: &[f32], scale: f64) -> Difference {
        let (mut squares, mut sum, mut largest) = (0.0, 0.0, 0.0f64);
        for (&s, &e) in simulated.iter().zip(emulated) {
            let d = f64::from(s) - f64::from(e);
            squares += d * d;
            sum += d.abs();
            largest = largest.max(d.abs());
        }
        let count = simulated.len().max(1) as f64;
        let (mse, l1) = (squares / count, sum / count);
        Difference {
            mse,
            mse_normalized: mse / (scale * scale),
            l1,
            l1_normalized: l1 / scale,
            off_by_n: (largest / scale).round() as u64,
        }
    }
}

/// The first tensor of the graph whose codes differ between simulation and emulation.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct FirstDifference {
    /// Tensor name.
    pub tensor: String,
    /// Share of its elements that differ.
    pub share: f64,
    /// Largest difference in codes.
    pub off_by_n: u64,
}

/// The results of one network at one depth.
#[derive(Debug, Clone, PartialEq)]
pub struct Measured {
    /// Layers.
    pub depth: usize,
    /// Scale of the output.
    pub scale: f64,
    /// Against the device that quantizes the input itself.
    pub device: Difference,
    /// Against the device that receives integers.
    pub host: Difference,
}

/// Three ways to run a network: simulated, emulated, and emulated on an input that the host quantized.
pub struct Targets {
    /// The simulation.
    pub simulation: Spec,
    /// The emulation with the input rule [`ON_DEVICE`], or the one that the user assumes.
    pub device: Spec,
    /// The emulation with the input rule [`ON_HOST`].
    pub host: Spec,
    /// How sessions run.
    pub options: Options,
}

impl Targets {
    /// Loads the specs. The user's assumptions are for the emulation; one about [`INPUT_RULE`] replaces [`ON_DEVICE`].
    pub fn load(options: &RunOptions) -> Result<Targets> {
        let spec = options.spec(EMULATION)?;
        let on_device = spec.assumptions.get(INPUT_RULE).cloned().unwrap_or_else(|| ON_DEVICE.into());
        if on_device == ON_HOST {
            let message = format!("the demo runs {INPUT_RULE}={ON_HOST} beside another alternative");
            return Err(
                Error::invalid("demo_arguments", message).help("name an alternative in which the device quantizes")
            );
        }
        let with = |alternative: &str| {
            let mut spec = spec.clone();
            spec.assume(INPUT_RULE, alternative)?;
            Ok::<_, Error>(spec)
        };
        let simulation = Spec::load(SIMULATION)?;
        Ok(Targets { simulation, device: with(&on_device)?, host: with(ON_HOST)?, options: options.options() })
    }

    /// Ranges of all activations of the first `depth` layers over some inputs. Weights are quantized and activations
    /// are not, as AIMET calibrates. `done` is called after each input.
    pub fn calibrate(
        &self,
        network: &Network,
        depth: usize,
        inputs: impl Iterator<Item = Tensor>,
        mut done: impl FnMut(),
    ) -> Result<Ranges> {
        let names = network.activation_names(depth);
        let (_, computed) = names.split_first().expect("the input is an activation");
        let session = Session::new(network.graph(depth, None, computed)?, self.simulation.clone(), self.options)?;
        let mut ranges: Ranges = names.iter().map(|n| (n.clone(), MinMax::new())).collect();
        let mut widen = |name: &str, tensor: &Tensor| -> Result<()> {
            let range = ranges.get_mut(name).expect("all activations are listed");
            range.observe(tensor.as_f32()?).map_err(|e| e.at_tensor(name))
        };
        for input in inputs {
            widen(INPUT, &input)?;
            for (name, tensor) in &session.run(&[(INPUT, &input)])?.outputs {
                widen(name, tensor)?;
            }
            done();
        }
        Ok(ranges)
    }

    /// Runs the network three ways and compares its outputs at each depth. `done` is called after each run.
    pub fn measure(
        &self,
        network: &Network,
        ranges: &Ranges,
        input: &Tensor,
        depths: &[usize],
        mut done: impl FnMut(),
    ) -> Result<Vec<Measured>> {
        let deepest = depths.iter().copied().max().unwrap_or(1);
        let outputs: Vec<String> = depths.iter().map(|&d| network.output_name(d)).collect();
        let graph = network.graph(deepest, Some(ranges), &outputs)?;
        let mut run = |spec: &Spec| -> Result<RunResult> {
            let result = Session::new(graph.clone(), spec.clone(), self.options)?.run(&[(INPUT, input)]);
            done();
            result
        };
        let (simulated, device, host) = (run(&self.simulation)?, run(&self.device)?, run(&self.host)?);
        let mut rows = Vec::new();
        for (i, (&depth, name)) in depths.iter().zip(&outputs).enumerate() {
            let encoding = graph.find(name).and_then(|t| graph.tensors[t].encoding.as_ref());
            let scale = encoding.map_or(1.0, |e| e.scale[0]);
            let against = |other: &RunResult| {
                let (a, b) = (simulated.outputs[i].1.as_f32()?, other.outputs[i].1.as_f32()?);
                Ok::<_, Error>(Difference::of(a, b, scale))
            };
            rows.push(Measured { depth, scale, device: against(&device)?, host: against(&host)? });
        }
        Ok(rows)
    }

    /// Where an emulation leaves the simulation, among the tensors of the first `depth` layers.
    pub fn first_difference(
        &self,
        emulation: &Spec,
        network: &Network,
        ranges: &Ranges,
        input: &Tensor,
        depth: usize,
    ) -> Result<Option<FirstDifference>> {
        let graph = network.graph(depth, Some(ranges), &[network.output_name(depth)])?;
        let capture = |spec: &Spec| -> Result<Vec<Captured>> {
            let session = Session::new(graph.clone(), spec.clone(), self.options)?;
            Ok(session.run_with(&[(INPUT, input)], true, &mut || Ok(()))?.captured)
        };
        let (simulated, emulated) = (capture(&self.simulation)?, capture(emulation)?);
        for name in network.activation_names(depth) {
            let find = |captured: &[Captured]| captured.iter().find(|c| c.name == name).cloned();
            let (Some(a), Some(b)) = (find(&simulated), find(&emulated)) else { continue };
            let Some(encoding) = b.encoding else { continue };
            let (a, b) = (a.value.as_f32()?, b.value.as_f32()?);
            let steps = a
                .iter()
                .zip(b)
                .map(|(&a, &b)| ((f64::from(a) - f64::from(b)).abs() / encoding.scale[0]).round() as u64);
            let (count, largest) = steps.fold((0usize, 0), |(n, m), d| (n + usize::from(d > 0), m.max(d)));
            if count > 0 {
                let share = count as f64 / a.len() as f64;
                return Ok(Some(FirstDifference { tensor: name, share, off_by_n: largest }));
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn differences_are_counted_in_units_of_the_scale() {
        let d = Difference::of(&[0.0, 1.0, 2.0, 3.0], &[0.0, 1.5, 2.0, 2.0], 0.5);
        assert_eq!((d.mse, d.mse_normalized), (0.3125, 1.25));
        assert_eq!((d.l1, d.l1_normalized, d.off_by_n), (0.375, 0.75, 2));
    }
}
