//! What all multiply-accumulate operators share: the program's view, the bias, and the trace of one element.

use super::super::environment::{add_attributes, add_encoding, add_output, encoding_of, repeat_encoding};
use super::super::{Context, quantizers};
use super::weights;
use crate::encoding::{Encoding, Granularity};
use crate::error::Result;
use crate::kernels::{pair, saturated};
use crate::ops::explanation::elided;
use crate::ops::{Explanation, Fact, Facts};
use crate::program::{Compiled, Env, Evaluator, Program, Value};
use crate::spec::{Accumulator, Action, Overflow, Spec, Terms};
use crate::tensor::{DType, Tensor};

/// A multiply-accumulate node, apart from how its elements meet.
pub struct Mac<'a> {
    /// Activation.
    pub x: &'a Fact,
    /// Second operand: weights, or another activation.
    pub w: &'a Fact,
    /// Bias.
    pub bias: Option<&'a Fact>,
    /// Output.
    pub y: &'a Fact,
    /// Products per sum.
    pub depth: usize,
    /// Output channels, or columns.
    pub channels: usize,
    /// Axis of `w` that runs over output channels.
    pub channel_axis: usize,
    /// How the windows lie; `None` for products of matrices.
    pub window: Option<MacWindow>,
    /// The weights as in the file, where `w` has another encoding: the file's integers of a bias are then in other units.
    pub file: Option<&'a Fact>,
}

/// The geometry of a convolution as far as rules depend on it. One-dimensional ones have a height of one.
#[derive(Debug, Clone, Copy)]
pub struct MacWindow {
    /// Height and width.
    pub kernel: [usize; 2],
    /// Down and across.
    pub stride: [usize; 2],
    /// Down and across.
    pub dilation: [usize; 2],
    /// Groups of channels.
    pub groups: usize,
    /// Whether every group has one input channel and there are several groups.
    pub depthwise: bool,
}

impl MacWindow {
    /// Adds `kernel.h`, `stride.w` … of a window, or of a product of matrices.
    fn add(window: Option<MacWindow>, depth: usize, env: &mut Env) {
        let window_or_one = window.unwrap_or(MacWindow {
            kernel: [1; 2],
            stride: [1; 2],
            dilation: [1; 2],
            groups: 1,
            depthwise: false,
        });
        let MacWindow { kernel, stride, dilation, groups, depthwise } = window_or_one;
        let taps = (kernel[0] * kernel[1]).max(1);
        for (name, [h, w]) in [("kernel", kernel), ("stride", stride), ("dilation", dilation)] {
            env.constant(format!("{name}.h"), Value::Int(h as i128));
            env.constant(format!("{name}.w"), Value::Int(w as i128));
        }
        env.constant("taps", Value::Int(taps as i128));
        env.constant("groups", Value::Int(groups as i128));
        env.constant("group_inputs", Value::Int((depth / taps) as i128));
        env.constant("convolution", Value::Bool(window.is_some()));
        env.constant("depthwise", Value::Bool(depthwise));
    }
}

/// The frozen arithmetic of a node.
pub struct Arithmetic {
    /// The program with its constants.
    pub compiled: Compiled,
    /// Bias in accumulator units, one per channel, where the sum includes it.
    pub bias: Vec<i64>,
    /// Bits of the accumulator.
    pub accumulator: Accumulator,
}

impl<'a> Mac<'a> {
    /// The weights in the encoding in which the target multiplies them, where that is not the file's.
    pub fn reencoded(&self, facts: &Facts<'_>, spec: &Spec) -> Result<Option<Fact>> {
        let (x, _, y) = self.encodings(facts)?;
        let env = || {
            let mut env = Env::new();
            add_encoding(&mut env, "out", y);
            MacWindow::add(self.window, self.depth, &mut env);
            env
        };
        let (axis, channels) = (self.channel_axis, self.channels);
        weights::reencode(spec, x, self.w, axis, channels, env).map_err(|e| e.at_tensor(&self.w.name))
    }

    /// The same node with other weights.
    pub fn with_weights(self, weights: Option<&'a Fact>) -> Self {
        match weights {
            Some(w) => Mac { w, file: Some(self.w), ..self },
            None => self,
        }
    }

    /// Encodings of activation, weights and output.
    pub fn encodings(&self, facts: &Facts<'_>) -> Result<(&Encoding, &Encoding, &Encoding)> {
        let x = encoding_of(facts, self.x)?;
        let w = encoding_of(facts, self.w)?;
        if x.granularity != Granularity::PerTensor {
            return Err(facts.unsupported("a per-channel encoding of the activation"));
        }
        match w.granularity {
            Granularity::PerTensor => {}
            Granularity::PerChannel { axis } if axis == self.channel_axis && w.scale.len() == self.channels => {}
            Granularity::PerChannel { axis } => {
                return Err(facts.unsupported(format!("{} weight scales along axis {axis}", w.scale.len())));
            }
            Granularity::PerBlock { .. } => return Err(facts.unsupported("per-block weights on codes")),
        }
        Ok((x, w, encoding_of(facts, self.y)?))
    }

    /// The program's view without the accumulator: enough for the conditions of a rule.
    pub fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        let (x, w, y) = self.encodings(facts)?;
        let mut env = Env::new();
        add_encoding(&mut env, "x", x);
        add_encoding(&mut env, "w", w);
        match self.file {
            Some(file) => add_encoding(&mut env, "file", encoding_of(facts, file)?),
            None => repeat_encoding(&mut env, "w", "file"),
        }
        MacWindow::add(self.window, self.depth, &mut env);
        add_output(&mut env, y, clamp);
        add_attributes(&mut env, facts.node, &[]);
        env.constant("K", Value::Int(self.depth as i128));
        env.constant("channels", Value::Int(self.channels as i128));
        env.constant("w.dynamic", Value::Bool(self.w.constant.is_none() && self.w.codes.is_none()));
        let bits = match self.bias {
            None => 0,
            Some(bias) => match bias.codes.as_ref().map(|c| c.dtype()) {
                Some(DType::I64) => 64,
                Some(_) => 32,
                None => 0,
            },
        };
        env.constant("b.bits", Value::Int(bits));
        Ok(env)
    }

    /// Whether the file's integers of the bias are used: those that count in units of the accumulator (signed, around zero,
    /// at scale `x · w`), and whatever integers there are where the target says `verbatim_bias`.
    fn takes_integers(&self, facts: &Facts<'_>, bias: &Fact, accumulator: Accumulator) -> Result<bool> {
        let wide = matches!(bias.codes.as_ref().map(|c| c.dtype()), Some(DType::I32 | DType::I64));
        let rescaled = self.file.is_some();
        let Some(encoding) = bias.encoding.as_deref() else { return Ok(wide && !rescaled) };
        let centred = encoding.zero_point.iter().all(|&z| z == 0);
        if accumulator.verbatim_bias && !accumulator.bias {
            return Ok(wide && centred);
        }
        let (x, w, _) = self.encodings(facts)?;
        let mut scales = encoding.scale.iter().cycle().zip(w.scale.iter().cycle()).take(self.channels);
        let near = |(bias, w): (&f64, &f64)| (bias / (x.scale[0] * w) - 1.0).abs() < 1e-3;
        let agrees = accumulator.verbatim_bias || (centred && scales.all(near));
        Ok(wide && agrees && !rescaled)
    }

    /// Integers of the bias: those of the file, or its reals by the target's rule; and whether they are the file's. Empty
    /// without bias.
    fn bias_codes(&self, facts: &Facts<'_>, context: &Context<'_>) -> Result<(Vec<i64>, bool)> {
        let Some(bias) = self.bias else { return Ok((Vec::new(), false)) };
        let takes_integers = self.takes_integers(facts, bias, context.body.accumulator)?;
        let values = match (&bias.codes, &bias.constant) {
            (Some(codes), _) if takes_integers => codes.to_i64()?,
            (_, Some(reals)) => {
                let encodings = self.encodings(facts)?;
                let spread =
                    Tensor::f32(&[self.channels], vec![*reals.as_f32()?.first().unwrap_or(&0.0); self.channels]);
                let reals = if reals.len() == 1 { &spread } else { &**reals };
                quantizers::quantize_bias(context.spec, &bias.name, encodings, reals)?
            }
            (_, None) => return Err(facts.unsupported(format!("bias '{}' is not constant", bias.name))),
        };
        match values.len() {
            1 => Ok((vec![values[0]; self.channels], takes_integers)),
            n if n == self.channels => Ok((values, takes_integers)),
            n => Err(facts.unsupported(format!("a bias of {n} elements for {} channels", self.channels))),
        }
    }

    /// Freezes the rule for this node. `env` is the environment of the node with the file's weights.
    pub fn arithmetic(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Arithmetic> {
        let Action::Program { program, .. } = &context.body.action else {
            return Err(facts.unsupported(format!("action '{}' of a multiply-accumulate", context.body.action.label())));
        };
        let accumulator = context.body.accumulator;
        if accumulator.terms == Terms::Raw {
            return Err(facts.unsupported("terms = \"raw\" of a multiply-accumulate"));
        }
        let (x, w, _) = self.encodings(facts)?;
        let mut env = if self.file.is_some() { self.environment(facts, context.clamp)? } else { env };
        let (bias, verbatim) = self.bias_codes(facts, context)?;
        self.add_sums(program, &mut env)?;
        let reach = |e: &Encoding| e.zero_point.iter().map(|&z| (e.qmax() - z).max(z - e.qmin())).max().unwrap_or(0);
        let mut bound = self.depth as i128 * i128::from(reach(x)) * i128::from(reach(w));
        if accumulator.bias {
            bound += bias.iter().map(|b| i128::from(b.unsigned_abs())).max().unwrap_or(0);
        } else {
            let values = if bias.is_empty() { vec![0; self.channels] } else { bias.clone() };
            env.channel_ints("b", values);
            if program.reads("b.scale") {
                let scales = self.bias_scales(facts, verbatim)?;
                env.channel_reals("b.scale", scales);
            }
        }
        if program.reads("channel") {
            env.channel_ints("channel", (0..self.channels).map(|c| c as i64));
        }
        let half = 1i128 << (accumulator.width - 1);
        match bound < half {
            true => env.input_int("acc", -bound, bound),
            false => env.input_int("acc", -half, half - 1),
        };
        let compiled = program.compile(&env)?;
        Ok(Arithmetic { compiled, bias: if accumulator.bias { bias } else { Vec::new() }, accumulator })
    }
}

impl Mac<'_> {
    /// Scale of the bias' integers, one per channel: the file's where they are the file's, else that of the accumulator.
    fn bias_scales(&self, facts: &Facts<'_>, verbatim: bool) -> Result<Vec<f64>> {
        let (x, w, _) = self.encodings(facts)?;
        let file = self.bias.and_then(|b| b.encoding.as_deref()).filter(|_| verbatim);
        let scale = |c: usize| match file {
            Some(encoding) => encoding.scale[c % encoding.scale.len()],
            None => x.scale[0] * w.scale[c % w.scale.len()],
        };
        Ok((0..self.channels).map(scale).collect())
    }

    /// Adds what a program may know of constant weights, one value per channel: `w.sum`, the sum of the centred codes that
    /// are multiplied, and `file.reach`, the largest distance of the file's codes from their zero point.
    fn add_sums(&self, program: &Program, env: &mut Env) -> Result<()> {
        if !program.reads("w.sum") && !program.reads("file.reach") {
            return Ok(());
        }
        let of = |fact: &Fact| weights::channel_statistics(fact, self.channel_axis, self.channels);
        let (Some(used), Some(file)) = (of(self.w)?, of(self.file.unwrap_or(self.w))?) else { return Ok(()) };
        env.channel_ints("w.sum", used.iter().map(|s| s.sum));
        env.channel_ints("file.reach", file.iter().map(|s| s.reach));
        Ok(())
    }
}

impl Arithmetic {
    /// Whether the naive twins compute the sums.
    pub fn is_reference(&self) -> bool {
        self.compiled.evaluator() == Evaluator::Reference
    }

    /// The bias as 32-bit integers; an error where one does not fit.
    pub fn bias_i32(&self, facts: &Facts<'_>) -> Result<Vec<i32>> {
        self.bias
            .iter()
            .map(|&b| i32::try_from(b).map_err(|_| facts.invalid(format!("bias {b} does not fit the accumulator"))))
            .collect()
    }

    /// The trace of one element. `terms` are the products' factors, centred.
    pub fn explain(&self, channel: usize, terms: &[(i64, i64)]) -> Result<Explanation> {
        let bias = self.bias.get(channel).copied().unwrap_or(0);
        let sum: i64 = terms.iter().map(|(x, w)| x.wrapping_mul(*w)).fold(0, i64::wrapping_add);
        let exact = sum.wrapping_add(bias);
        let acc = if self.accumulator.width == 32 { i64::from(exact as i32) } else { exact };
        let mut explanation = Explanation::default();
        explanation.add("products", terms.len());
        explanation.add("(x - zp)·(w - zp)", elided(terms.iter().map(|(x, w)| format!("{x}·{w}"))));
        explanation.add("sum of (x - zp)·(w - zp)", sum);
        if !self.bias.is_empty() {
            explanation.add("bias", bias);
        }
        self.finish(channel, acc, explanation)
    }

    /// The trace of one element whose products are summed in saturating pairs. `terms` are the codes that meet, in the order
    /// of the sum and with those of the padding.
    pub fn explain_pairs(&self, channel: usize, x_zero: i64, terms: &[(u8, i8)]) -> Result<Explanation> {
        let bias = self.bias.get(channel).copied().unwrap_or(0);
        let weights: i64 = terms.iter().map(|&(_, w)| i64::from(w)).sum();
        let init = (bias - x_zero * weights) as i32;
        let mut explanation = Explanation::default();
        explanation.add("products", terms.len());
        if !self.bias.is_empty() {
            explanation.add("bias", bias);
        }
        explanation.add("start: bias - zp · sum of the weights", init);
        let (mut sums, mut struck) = (Vec::new(), Vec::new());
        let mut acc = init;
        for (number, terms) in terms.chunks(2).enumerate() {
            let (first, second) = (terms[0], terms.get(1).copied().unwrap_or_default());
            let exact = pair([first.0, second.0], [first.1, second.1]);
            let sum = saturated(exact);
            acc = acc.wrapping_add(sum);
            let written = format!("{}·{} + {}·{} = {exact}", first.0, first.1, second.0, second.1);
            if sum != exact {
                struck.push(format!("pair {number}: {written} → {sum}"));
            }
            sums.push(written);
        }
        explanation.add("pairs x·w + x·w", elided(sums));
        match struck.len() {
            0 => explanation.add("saturated pairs", "none"),
            _ => explanation.add("saturated pairs", elided(struck)),
        }
        self.finish(channel, acc.into(), explanation)
    }

    /// Whether products are summed in saturating pairs.
    pub fn sums_pairs(&self) -> bool {
        self.accumulator.overflow == Overflow::PairSat16
    }

    fn finish(&self, channel: usize, acc: i64, mut explanation: Explanation) -> Result<Explanation> {
        explanation.add("acc", acc);
        explanation.trace = self.compiled.trace(channel % self.compiled.channels(), &[Value::Int(acc.into())])?;
        Ok(explanation)
    }
}
