//! Gemm and MatMul on codes. A product of wide codes is a 1×1 convolution over its rows.

use super::super::lanes::read_codes;
use super::super::{Arrangement, Context, IntegerOp, Layout, Prepared};
use super::arithmetic::{Arithmetic, Mac};
use super::conv::{require_pairs, wrong_codes};
use super::epilogue::{AnyEpilogue, narrow, tiles, with_epilogue};
use super::reference;
use crate::error::Result;
use crate::graph::Constant;
use crate::kernels::{
    Accumulator, Code8, Codes, ConvShape, PackedWeights, WideWeights, gemm, gemm_pair_saturating, gemm_wide,
};
use crate::ops::broadcast::broadcast_shape;
use crate::ops::closure::input;
use crate::ops::{Explanation, Fact, Facts, Kernel, Outputs, Place, RunContext};
use crate::program::Env;
use crate::spec::Overflow;
use crate::tensor::{DType, Data, Tensor};

pub struct Gemm;
pub struct MatMul;

fn output<'a>(facts: &Facts<'a>) -> Result<&'a Fact> {
    facts.outputs.first().and_then(Option::as_ref).ok_or_else(|| facts.invalid("no output"))
}

/// Gemm's operands, and whether its right operand is `N × K`.
fn gemm_mac<'a>(facts: &Facts<'a>) -> Result<(Mac<'a>, bool)> {
    let node = facts.node;
    if node.int("transA", 0)? != 0 {
        return Err(facts.unsupported("transA on codes"));
    }
    if node.float("alpha", 1.0)? != 1.0 || node.float("beta", 1.0)? != 1.0 {
        return Err(facts.unsupported("alpha and beta other than 1 on codes"));
    }
    if let Some(bias) = facts.optional(2) {
        let (last, outer) = bias.shape.split_last().map_or((1, &[][..]), |(l, o)| (*l, o));
        let columns = facts.input(1)?.shape[usize::from(node.int("transB", 0)? == 0)];
        if !(last == 1 || last == columns) || outer.iter().any(|&d| d != 1) {
            return Err(facts.unsupported(format!("a bias of shape {:?} on codes", bias.shape)));
        }
    }
    let (x, w) = (facts.input(0)?, facts.input(1)?);
    let transposed = node.int("transB", 0)? != 0;
    let channel_axis = usize::from(!transposed);
    let mac = Mac {
        x,
        w,
        bias: facts.optional(2),
        y: output(facts)?,
        depth: x.shape[1],
        channels: w.shape[channel_axis],
        channel_axis,
        window: None,
        file: None,
    };
    Ok((mac, transposed))
}

fn matmul_mac<'a>(facts: &Facts<'a>) -> Result<Mac<'a>> {
    let (x, w) = (facts.input(0)?, facts.input(1)?);
    if x.shape.len() < 2 || w.shape.len() < 2 {
        return Err(facts.unsupported("a MatMul of vectors on codes"));
    }
    let channel_axis = w.shape.len() - 1;
    Ok(Mac {
        x,
        w,
        bias: None,
        y: output(facts)?,
        depth: w.shape[channel_axis - 1],
        channels: w.shape[channel_axis],
        channel_axis,
        window: None,
        file: None,
    })
}

impl IntegerOp for Gemm {
    fn data_inputs(&self, _facts: &Facts<'_>) -> Vec<usize> {
        vec![0, 1]
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        gemm_mac(facts)?.0.environment(facts, clamp)
    }

    fn arrangement(&self, facts: &Facts<'_>, _layouts: &[Layout]) -> Option<Arrangement> {
        arrangement(facts)
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Prepared> {
        let (mac, transposed) = gemm_mac(facts)?;
        prepare(facts, context, env, mac, transposed)
    }
}

impl IntegerOp for MatMul {
    fn data_inputs(&self, _facts: &Facts<'_>) -> Vec<usize> {
        vec![0, 1]
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        matmul_mac(facts)?.environment(facts, clamp)
    }

    fn arrangement(&self, facts: &Facts<'_>, _layouts: &[Layout]) -> Option<Arrangement> {
        arrangement(facts)
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, env: Env) -> Result<Prepared> {
        prepare(facts, context, env, matmul_mac(facts)?, false)
    }
}

/// Both operands are arguments unless the second one is constant.
fn arrangement(facts: &Facts<'_>) -> Option<Arrangement> {
    let w = facts.optional(1)?;
    let constant = w.codes.is_some() || w.constant.is_some();
    Some(Arrangement::alike(if constant { 1 } else { 2 }, Layout::RowMajor))
}

fn prepare(facts: &Facts<'_>, context: &Context<'_>, env: Env, mac: Mac<'_>, transposed: bool) -> Result<Prepared> {
    let weights = mac.reencoded(facts, context.spec)?;
    let mac = mac.with_weights(weights.as_ref());
    let arithmetic = mac.arithmetic(facts, context, env)?;
    let (x, w, y) = mac.encodings(facts)?;
    let dtype = y.storage_dtype();
    let is_narrow = x.bitwidth <= 8 && w.bitwidth <= 8 && arithmetic.accumulator.width == 32;
    let pairs = arithmetic.accumulator.overflow == Overflow::PairSat16;
    if pairs {
        require_pairs(facts, x, w)?;
    }
    let bias = if is_narrow { arithmetic.bias_i32(facts)? } else { Vec::new() };
    let outputs = mac.y.shape.iter().product::<usize>() / mac.channels.max(1);
    let epilogue = match (is_narrow, arithmetic.accumulator.width) {
        (true, _) if pairs => Epilogues::Pairs(narrow(&arithmetic.compiled, mac.channels, dtype, 0)),
        (true, _) => Epilogues::Narrow(narrow(&arithmetic.compiled, mac.channels, dtype, outputs)),
        (false, 32) => Epilogues::Wide32(narrow(&arithmetic.compiled, mac.channels, dtype, 0)),
        (false, _) => Epilogues::Wide64(tiles(&arithmetic.compiled, dtype)),
    };
    let mut kernel = MatrixKernel {
        depth: mac.depth,
        channels: mac.channels,
        transposed,
        x_zero: x.zero_point[0],
        w_zero: w.zero_point.iter().map(|&z| z as i32).collect(),
        bias,
        epilogue,
        constant: None,
        batched: None,
        shape: mac.y.shape.clone(),
        x_batch: mac.x.shape[..mac.x.shape.len() - 2].to_vec(),
        w_batch: mac.w.shape[..mac.w.shape.len() - 2].to_vec(),
        arithmetic,
        dtype,
    };
    match &mac.w.codes {
        Some(codes) if mac.w.shape.len() == 2 => {
            kernel.constant = Some((codes.clone(), kernel.right(facts, codes)?));
        }
        Some(codes) => kernel.batched = Some(codes.clone()),
        None => {}
    }
    let operands = if kernel.constant.is_some() || kernel.batched.is_some() { 1 } else { 2 };
    Ok(Prepared { kernel: Box::new(kernel), arrangement: Arrangement::alike(operands, Layout::RowMajor) })
}

enum Epilogues {
    /// 8-bit codes, 32-bit sums.
    Narrow(AnyEpilogue<i32>),
    /// uint8 by int8, adjacent products saturated to 16 bits before they are summed.
    Pairs(AnyEpilogue<i32>),
    /// Any codes, 32-bit sums.
    Wide32(AnyEpilogue<i32>),
    /// Any codes, 64-bit sums.
    Wide64(AnyEpilogue<i64>),
}

/// A packed right operand of one batch.
enum Right {
    Narrow(PackedWeights, Vec<i32>),
    Pairs(Vec<i8>, Vec<i32>),
    Wide(WideWeights, Vec<i64>),
}

struct MatrixKernel {
    depth: usize,
    channels: usize,
    transposed: bool,
    x_zero: i64,
    w_zero: Vec<i32>,
    bias: Vec<i32>,
    epilogue: Epilogues,
    constant: Option<(Constant, Right)>,
    /// Codes of a constant right operand of several matrices.
    batched: Option<Constant>,
    shape: Vec<usize>,
    x_batch: Vec<usize>,
    w_batch: Vec<usize>,
    arithmetic: Arithmetic,
    dtype: DType,
}

impl MatrixKernel {
    /// Packs the only matrix of a constant right operand.
    fn right(&self, facts: &Facts<'_>, codes: &Constant) -> Result<Right> {
        match codes.codes_in_order(&[0, 1]).filter(|_| matches!(self.epilogue, Epilogues::Narrow(_))) {
            Some(Codes::U8(v)) => Ok(self.pack_narrow(v)),
            Some(Codes::I8(v)) => Ok(self.pack_narrow(v)),
            _ => self.pack(codes, 0).map_err(|e| e.at_node(&facts.node.name, &facts.node.op_type)),
        }
    }

    fn pack_narrow<W: Code8>(&self, v: &[W]) -> Right {
        let (k, n) = (self.depth, self.channels);
        let packed = match self.transposed {
            true => PackedWeights::from_nk(k, n, &self.w_zero, v),
            false => PackedWeights::from_kn(k, n, &self.w_zero, v),
        };
        let init = packed.centred_init(&self.bias, self.x_zero as i32);
        Right::Narrow(packed, init)
    }

    /// A right matrix with the weights of a channel one after the other.
    fn by_channel<T: Copy>(&self, matrix: &[T]) -> Vec<T> {
        let (k, n) = (self.depth, self.channels);
        let at = |row: usize, column: usize| if self.transposed { column * k + row } else { row * n + column };
        (0..n * k).map(|i| matrix[at(i % k, i / k)]).collect()
    }

    /// Packs matrix number `batch` of the right operand.
    fn pack(&self, codes: &Tensor, batch: usize) -> Result<Right> {
        let (k, n) = (self.depth, self.channels);
        let range = batch * k * n..(batch + 1) * k * n;
        match (&self.epilogue, codes.data()) {
            (Epilogues::Narrow(_), Data::U8(v)) => Ok(self.pack_narrow(&v[range])),
            (Epilogues::Narrow(_), Data::I8(v)) => Ok(self.pack_narrow(&v[range])),
            (Epilogues::Pairs(_), Data::I8(v)) => {
                let v = &v[range];
                let by_channel = self.by_channel(v);
                let init = PackedWeights::from_nk(k, n, &[], &by_channel).centred_init(&self.bias, self.x_zero as i32);
                Ok(Right::Pairs(by_channel, init))
            }
            (Epilogues::Narrow(_) | Epilogues::Pairs(_), other) => Err(wrong_codes(other)),
            _ => {
                let mut v = vec![0; k * n];
                read_codes(codes.data(), range.start, &mut v)?;
                let by_channel = self.by_channel(&v);
                let packed = WideWeights::new(&ConvShape::new(1, [1, 1], k, n, [1, 1]), &by_channel, &self.w_zero);
                let init = packed.centred_init(&self.arithmetic.bias, self.x_zero as i32);
                Ok(Right::Wide(packed, init))
            }
        }
    }

    fn multiply(&self, context: &RunContext<'_>, x: &Data, from: usize, rows: usize, right: &Right) -> Result<Data> {
        let engine = context.engine();
        let range = from * self.depth..(from + rows) * self.depth;
        let len = rows * self.channels;
        Ok(match (&self.epilogue, right) {
            (Epilogues::Narrow(epilogue), Right::Narrow(packed, init)) => match x {
                Data::U8(v) => {
                    with_epilogue!(context, epilogue, len, (e, out) => gemm(engine, &v[range], rows, packed, init, e, &mut out))
                }
                Data::I8(v) => {
                    with_epilogue!(context, epilogue, len, (e, out) => gemm(engine, &v[range], rows, packed, init, e, &mut out))
                }
                other => return Err(wrong_codes(other)),
            },
            (Epilogues::Pairs(epilogue), Right::Pairs(weights, init)) => match x {
                Data::U8(v) => with_epilogue!(context, epilogue, len, (e, out) => {
                    gemm_pair_saturating(engine, &v[range], rows, self.depth, weights, init, e, &mut out)
                }),
                other => return Err(wrong_codes(other)),
            },
            (Epilogues::Wide32(epilogue), Right::Wide(packed, init)) => {
                let init: Vec<i32> = init.iter().map(|&v| v as i32).collect();
                run_wide(context, x, range, rows, packed, &init, epilogue, len)?
            }
            (Epilogues::Wide64(epilogue), Right::Wide(packed, init)) => {
                run_wide(context, x, range, rows, packed, init, epilogue, len)?
            }
            _ => return Err(wrong_codes(x)),
        })
    }

    /// The product of `rows` rows from row `from` on by matrix number `right` of `w`, by the naive twin.
    fn multiply_reference(
        &self,
        context: &RunContext<'_>,
        x: &Tensor,
        from: usize,
        rows: usize,
        w: &Tensor,
        right: usize,
    ) -> Result<Data> {
        let (k, n) = (self.depth, self.channels);
        let x = &reference::codes(x.data())?[from * k..(from + rows) * k];
        let w = &reference::codes(w.data())?[right * k * n..(right + 1) * k * n];
        let weights = self.by_channel(w);
        let shape = &ConvShape::new(1, [rows, 1], k, n, [1, 1]);
        let twin = reference::Convolution { shape, x, x_zero: self.x_zero, weights: &weights, w_zero: &self.w_zero };
        twin.run(context, &self.arithmetic, self.dtype)
    }

    /// For each batch of the output: number of the left and of the right matrix.
    fn batches(&self) -> Result<Vec<(usize, usize)>> {
        let batch = broadcast_shape(&[&self.x_batch, &self.w_batch])?;
        let count: usize = batch.iter().product();
        let number = |own: &[usize], index: usize| {
            let (mut rest, mut number, mut step) = (index, 0, 1);
            for (i, &size) in batch.iter().enumerate().rev() {
                let at = rest % size;
                rest /= size;
                if let Some(own_axis) = (i + own.len()).checked_sub(batch.len()) {
                    number += if own[own_axis] == 1 { 0 } else { at * step };
                    step *= own[own_axis];
                }
            }
            number
        };
        Ok((0..count).map(|i| (number(&self.x_batch, i), number(&self.w_batch, i))).collect())
    }

    /// The right operand, where it is more than one constant matrix.
    fn variable<'a>(&'a self, inputs: &[Option<&'a Tensor>]) -> Result<&'a Tensor> {
        match &self.batched {
            Some(codes) => Ok(codes),
            None => input(inputs, 1),
        }
    }

    /// Rows of one left matrix.
    fn rows(&self) -> usize {
        self.shape[self.shape.len() - 2]
    }
}

impl Kernel for MatrixKernel {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        if let Some((codes, right)) = &self.constant {
            let rows = x.len() / self.depth.max(1);
            let data = match self.arithmetic.is_reference() {
                true => self.multiply_reference(context, x, 0, rows, codes, 0)?,
                false => self.multiply(context, x.data(), 0, rows, right)?,
            };
            return Ok([Tensor::new(self.shape.clone(), data)?].into());
        }
        let w = self.variable(inputs)?;
        let rows = self.rows();
        // None of the parts is the output.
        let context = &RunContext { places: None, ..*context };
        let mut parts = Vec::new();
        let mut packed: Option<(usize, Right)> = None;
        for (left, right) in self.batches()? {
            if self.arithmetic.is_reference() {
                parts.push(self.multiply_reference(context, x, left * rows, rows, w, right)?);
                continue;
            }
            if packed.as_ref().is_none_or(|(of, _)| *of != right) {
                packed = Some((right, self.pack(w, right)?));
            }
            let (_, right) = packed.as_ref().expect("packed above");
            parts.push(self.multiply(context, x.data(), left * rows, rows, right)?);
        }
        Ok([Tensor::new(self.shape.clone(), join(parts)?)?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let x = input(inputs, 0)?.to_i64()?;
        let (n, k) = (self.channels, self.depth);
        let (row, channel) = (index / n, index % n);
        let (left, right, w) = match &self.constant {
            Some((codes, _)) => (row, 0, codes.to_i64()?),
            None => {
                let (left, right) = self.batches()?[row / self.rows()];
                (left * self.rows() + row % self.rows(), right, self.variable(inputs)?.to_i64()?)
            }
        };
        let w_zero = i64::from(*self.w_zero.get(channel).unwrap_or(&self.w_zero[0]));
        let met = |i: usize| {
            let at = right * k * n + if self.transposed { channel * k + i } else { i * n + channel };
            (x[left * k + i], w[at])
        };
        if self.arithmetic.sums_pairs() {
            let codes: Vec<(u8, i8)> = (0..k).map(|i| (met(i).0 as u8, met(i).1 as i8)).collect();
            return self.arithmetic.explain_pairs(channel, self.x_zero, &codes);
        }
        let terms: Vec<(i64, i64)> = (0..k).map(|i| (met(i).0 - self.x_zero, met(i).1 - w_zero)).collect();
        self.arithmetic.explain(channel, &terms)
    }
}

#[allow(clippy::too_many_arguments)]
fn run_wide<A: Accumulator>(
    context: &RunContext<'_>,
    x: &Data,
    range: std::ops::Range<usize>,
    rows: usize,
    packed: &WideWeights,
    init: &[A],
    epilogue: &AnyEpilogue<A>,
    len: usize,
) -> Result<Data> {
    macro_rules! run {
        ($v:expr) => {
            with_epilogue!(context, epilogue, len, (e, out) => gemm_wide(context.engine(), &$v[range], rows, packed, init, e, &mut out))
        };
    }
    Ok(match x {
        Data::U8(v) => run!(v),
        Data::I8(v) => run!(v),
        Data::U16(v) => run!(v),
        Data::I16(v) => run!(v),
        other => return Err(wrong_codes(other)),
    })
}

/// Concatenates parts of one type.
fn join(parts: Vec<Data>) -> Result<Data> {
    let dtype = parts.first().map_or(DType::U8, Data::dtype);
    macro_rules! join {
        ($variant:ident) => {{
            let mut out = Vec::new();
            for part in parts {
                if let Data::$variant(v) = part {
                    out.extend_from_slice(&v);
                }
            }
            Data::$variant(out.into())
        }};
    }
    Ok(match dtype {
        DType::U8 => join!(U8),
        DType::I8 => join!(I8),
        DType::U16 => join!(U16),
        DType::I16 => join!(I16),
        _ => join!(I32),
    })
}
