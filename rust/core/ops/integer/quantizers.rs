//! Kernels between reals and codes, and between codes of two encodings.

use super::environment::{add_code_input, add_encoding, add_output};
use super::lanes::{CHUNK, ScaleMap, compute_codes, for_chunks, read_codes};
use super::table::ByteTable;
use crate::encoding::Encoding;
use crate::error::{Error, Kind, Location, Result};
use crate::graph::Constant;
use crate::kernels::{Code8, Engine, FloatQuantize, Nearest, any_nan, lookup8_to, quantize};
use crate::num::{FloatType, Rounding};
use crate::ops::closure::input;
use crate::ops::{Explanation, Fact, InPlace, Kernel, Outputs, Place, RunContext};
use crate::program::{Channels, Compiled, Env, Evaluator, Lanes, TileProgram, Value};
use crate::spec::{Action, Spec, names};
use crate::tensor::{DType, Data, Tensor};

/// Compiles the program of a rule that is not an operator.
pub fn compile(spec: &Spec, rule: &str, env: &Env) -> Result<Compiled> {
    let rule = spec.require(rule)?;
    match &rule.resolve(env)?.action {
        Action::Program { program, .. } => program.compile(env),
        Action::Unsupported(reason) => Err(Error::new(Kind::UnsupportedByTarget, "rule_unsupported", reason.clone())),
        other => Err(Error::invalid("rule_action", format!("rule '{}' must be a program", rule.name))
            .at(Location::File(rule.origin.clone()))
            .help(format!("found: {}", other.label()))),
    }
}

struct Quantize {
    compiled: Compiled,
    tile: TileProgram,
    /// The program in vector code, where it has a form for it.
    vectors: Option<FloatQuantize>,
    map: ScaleMap,
    dtype: DType,
    name: String,
}

struct Dequantize {
    compiled: Compiled,
    tile: TileProgram,
    map: ScaleMap,
    /// The real of each code by its byte, where codes are bytes and have one scale.
    table: Option<Box<[f32; 256]>>,
}

struct FakeQuant {
    quantize: Quantize,
    dequantize: Dequantize,
}

struct Requantize {
    compiled: Compiled,
    tile: TileProgram,
    dtype: DType,
    table: Option<ByteTable>,
}

/// Compiles the rule `quantize` or a variant of it.
pub fn compile_quantize(spec: &Spec, rule: &str, encoding: &Encoding) -> Result<Compiled> {
    let mut env = Env::new();
    env.input_float("x", FloatType::F32);
    add_output(&mut env, encoding, None);
    compile(spec, rule, &env)
}

fn prepare_quantize(spec: &Spec, rule: &str, name: &str, encoding: &Encoding, shape: &[usize]) -> Result<Quantize> {
    let compiled = compile_quantize(spec, rule, encoding).map_err(|e| e.at_tensor(name))?;
    Ok(Quantize {
        tile: compiled.tile(),
        vectors: vector_form(&compiled),
        compiled,
        map: ScaleMap::new(encoding, shape).map_err(|e| e.at_tensor(name))?,
        dtype: encoding.storage_dtype(),
        name: name.to_string(),
    })
}

fn vector_form(compiled: &Compiled) -> Option<FloatQuantize> {
    let form = compiled.float_quantize()?;
    let nearest = match form.rounding {
        Rounding::HalfEven => Nearest::Even,
        Rounding::HalfAway => Nearest::Away,
        _ => return None,
    };
    FloatQuantize::new(form.divide, form.scale, nearest, form.zero_point, form.qmin, form.qmax)
}

fn prepare_dequantize(spec: &Spec, name: &str, encoding: &Encoding, shape: &[usize]) -> Result<Dequantize> {
    let mut env = Env::new();
    add_code_input(&mut env, "x", encoding);
    add_encoding(&mut env, "x", encoding);
    let compiled = compile(spec, names::DEQUANTIZE, &env).map_err(|e| e.at_tensor(name))?;
    let map = ScaleMap::new(encoding, shape).map_err(|e| e.at_tensor(name))?;
    let tile = compiled.tile();
    let codes = ByteTable::codes(encoding.qmin(), encoding.qmax());
    let table = match codes.filter(|_| compiled.channels() == 1 && compiled.evaluator() == Evaluator::Fast) {
        Some(codes) => {
            let (mut wide, mut reals) = (vec![0i32; codes.len()], vec![0f32; codes.len()]);
            read_codes(codes.data(), 0, &mut wide)?;
            tile.run_f32(&[Lanes::I32(&wide)], Channels::Uniform(0), &mut reals)?;
            let mut table = Box::new([0f32; 256]);
            wide.iter().zip(reals).for_each(|(&code, real)| table[usize::from(code as u8)] = real);
            Some(table)
        }
        None => None,
    };
    Ok(Dequantize { tile, compiled, map, table })
}

/// The bytes of codes of one byte.
fn bytes(data: &Data) -> Option<&[u8]> {
    match data {
        Data::U8(v) => Some(v),
        Data::I8(v) => Some(i8::bytes(v)),
        _ => None,
    }
}

/// A kernel from float32 to codes by the rule `quantize` or a variant of it.
pub fn quantize_kernel(
    spec: &Spec,
    rule: &str,
    name: &str,
    encoding: &Encoding,
    shape: &[usize],
) -> Result<Box<dyn Kernel>> {
    Ok(Box::new(prepare_quantize(spec, rule, name, encoding, shape)?))
}

/// The codes of the bounds of an activation by the rule `quantize`; `None` for infinite ones.
pub fn quantize_bounds(spec: &Spec, name: &str, encoding: &Encoding, bounds: [f32; 2]) -> Result<[Option<i64>; 2]> {
    let compiled = compile_quantize(spec, names::QUANTIZE, encoding).map_err(|e| e.at_tensor(name))?;
    let code = |bound: f32| -> Result<Option<i64>> {
        if bound.is_infinite() {
            return Ok(None);
        }
        let fault = || Error::invalid("activation_bound", format!("the bound {bound} has no code")).at_tensor(name);
        if bound.is_nan() {
            return Err(fault());
        }
        let code = compiled.eval(0, &[Value::F32(bound)]).map_err(|e| e.at_tensor(name))?;
        code.as_int().and_then(|v| i64::try_from(v).ok()).ok_or_else(fault).map(Some)
    };
    Ok([code(bounds[0])?, code(bounds[1])?])
}

/// A kernel from codes to float32.
pub fn dequantize_kernel(spec: &Spec, name: &str, encoding: &Encoding, shape: &[usize]) -> Result<Box<dyn Kernel>> {
    Ok(Box::new(prepare_dequantize(spec, name, encoding, shape)?))
}

/// A kernel from float32 to the float32 values that the encoding can hold.
pub fn fake_quant_kernel(
    spec: &Spec,
    rule: &str,
    name: &str,
    encoding: &Encoding,
    shape: &[usize],
) -> Result<Box<dyn Kernel>> {
    Ok(Box::new(FakeQuant {
        quantize: prepare_quantize(spec, rule, name, encoding, shape)?,
        dequantize: prepare_dequantize(spec, name, encoding, shape)?,
    }))
}

/// A kernel from codes of one per-tensor encoding to codes of another, by a rule on `x`, for tensors of `count` elements.
pub fn requantize_kernel(
    spec: &Spec,
    rule: &str,
    name: &str,
    from: &Encoding,
    to: &Encoding,
    count: usize,
) -> Result<Box<dyn Kernel>> {
    let mut env = Env::new();
    add_code_input(&mut env, "x", from);
    add_encoding(&mut env, "x", from);
    env.constant("x.count", Value::Int(count as i128));
    add_output(&mut env, to, None);
    let compiled = compile(spec, rule, &env).map_err(|e| e.at_tensor(name))?;
    if compiled.channels() > 1 {
        return Err(
            Error::unsupported("requantize_channels", "requantization between per-channel encodings").at_tensor(name)
        );
    }
    let mut table = None;
    let tile = compiled.tile();
    let dtype = to.storage_dtype();
    let codes = ByteTable::codes(from.qmin(), from.qmax());
    if let (Some(codes), Evaluator::Fast) = (codes, compiled.evaluator()) {
        let mut out = vec![0i32; codes.len()];
        let mut wide = vec![0i32; codes.len()];
        read_codes(codes.data(), 0, &mut wide)?;
        tile.run(&[Lanes::I32(&wide)], Channels::Uniform(0), &mut out)?;
        table = match dtype {
            DType::U8 => ByteTable::new(from.qmin(), &Data::U8(out.iter().map(|&v| v as u8).collect())),
            DType::I8 => ByteTable::new(from.qmin(), &Data::I8(out.iter().map(|&v| v as i8).collect())),
            _ => None,
        };
    }
    Ok(Box::new(Requantize { tile, compiled, dtype, table }))
}

/// Codes of a constant: those of the file, or its reals quantized by the rule for weights.
pub fn quantize_constant(spec: &Spec, fact: &Fact, context: &RunContext<'_>) -> Result<Constant> {
    if let Some(codes) = &fact.codes {
        return Ok(codes.clone());
    }
    let (Some(constant), Some(encoding)) = (&fact.constant, &fact.encoding) else {
        return Err(
            Error::invalid("constant_encoding", "a constant without encoding has no codes").at_tensor(&fact.name)
        );
    };
    let rule = spec.constant_rule();
    let kernel = prepare_quantize(spec, rule, &fact.name, encoding, &fact.shape)?;
    Ok(kernel.run(context, &[Some(constant)])?.into_first().into())
}

/// The trace of one element `x`, whose channel the map gives.
fn explain(compiled: &Compiled, map: Option<&ScaleMap>, index: usize, x: Option<Value>) -> Result<Explanation> {
    let x = x.ok_or_else(|| Error::invalid("explain_index", format!("element {index} does not exist")))?;
    let mut channel = 0;
    if let Some(map) = map {
        map.segments(index..index + 1, |_, channels| {
            channel = match channels {
                Channels::Uniform(c) | Channels::Cyclic { start: c } => c,
            };
            Ok(())
        })?;
    }
    Ok(Explanation {
        operands: vec![("x".into(), x.to_string())],
        trace: compiled.trace(channel % compiled.channels(), &[x])?,
        ..Explanation::default()
    })
}

/// Code `index` of a tensor in memory order.
fn code(x: &Tensor, index: usize) -> Result<Option<Value>> {
    Ok(x.to_i64()?.get(index).map(|&code| Value::Int(code.into())))
}

impl Quantize {
    /// Refuses NaN, which has no code.
    fn check(&self, context: &RunContext<'_>, x: &[f32]) -> Result<()> {
        if !any_nan(context.engine(), x) {
            return Ok(());
        }
        let index = x.iter().position(|v| v.is_nan());
        Err(Error::invalid("quantize_nan", "a NaN cannot be quantized")
            .at(Location::Tensor { name: self.name.clone(), index }))
    }

    /// The codes of `x`, which are those from element `start` of the tensor on.
    fn codes(&self, x: &[f32], start: usize, out: &mut [i32]) -> Result<()> {
        self.map.segments(start..start + x.len(), |range, channels| {
            let part = range.start - start..range.end - start;
            self.tile.run(&[Lanes::F32(&x[part.clone()])], channels, &mut out[part])
        })
    }
}

impl Kernel for Quantize {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        let values = x.as_f32().map_err(|e| e.at_tensor(&self.name))?;
        self.check(context, values)?;
        if let Some(form) = &self.vectors {
            macro_rules! codes {
                ($variant:ident, $t:ty) => {{
                    let mut out = context.output::<$t>(0, values.len());
                    quantize(context.engine(), form, values, &mut out);
                    Data::$variant(out)
                }};
            }
            let data = match self.dtype {
                DType::U8 => codes!(U8, u8),
                DType::I8 => codes!(I8, i8),
                DType::U16 => codes!(U16, u16),
                DType::I16 => codes!(I16, i16),
                _ => codes!(I32, i32),
            };
            return Ok([Tensor::new(x.shape(), data)?].into());
        }
        let data = compute_codes(context, self.dtype, values.len(), |start, out| {
            self.codes(&values[start..start + out.len()], start, out)
        })?;
        Ok([Tensor::new(x.shape(), data)?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let x = input(inputs, 0)?.as_f32()?.get(index).map(|&x| Value::F32(x));
        explain(&self.compiled, Some(&self.map), index, x)
    }
}

impl Dequantize {
    fn reals(&self, codes: &[i32], start: usize, out: &mut [f32]) -> Result<()> {
        self.map.segments(start..start + out.len(), |range, channels| {
            let part = range.start - start..range.end - start;
            self.tile.run_f32(&[Lanes::I32(&codes[part.clone()])], channels, &mut out[part])
        })
    }
}

impl Kernel for Dequantize {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        let mut out = context.output(0, x.len());
        match (&self.table, bytes(x.data())) {
            (Some(table), Some(codes)) => lookup8_to(context.engine(), codes, table, &mut out),
            _ => for_chunks(context, &mut out, |start, chunk| {
                let mut codes = [0i32; CHUNK];
                let codes = &mut codes[..chunk.len()];
                read_codes(x.data(), start, codes)?;
                self.reals(codes, start, chunk)
            })?,
        }
        Ok([Tensor::new(x.shape(), Data::F32(out))?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        explain(&self.compiled, Some(&self.map), index, code(input(inputs, 0)?, index)?)
    }
}

impl Kernel for FakeQuant {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        let values = x.as_f32().map_err(|e| e.at_tensor(&self.quantize.name))?;
        self.quantize.check(context, values)?;
        let mut out = context.output(0, values.len());
        let alone = Engine::single().with(context.simd);
        for_chunks(context, &mut out, |start, chunk| {
            let values = &values[start..start + chunk.len()];
            if let (Some(form), Some(table)) = (&self.quantize.vectors, &self.dequantize.table) {
                let mut codes = [0u8; CHUNK];
                let codes = &mut codes[..chunk.len()];
                match self.quantize.dtype {
                    DType::I8 => quantize(alone, form, values, i8::of_bytes_mut(codes)),
                    _ => quantize(alone, form, values, codes),
                }
                lookup8_to(alone, codes, table, chunk);
                return Ok(());
            }
            let mut codes = [0i32; CHUNK];
            let codes = &mut codes[..chunk.len()];
            self.quantize.codes(values, start, codes)?;
            self.dequantize.reals(codes, start, chunk)
        })?;
        Ok([Tensor::new(x.shape(), Data::F32(out))?].into())
    }

    fn explain(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let code = self.quantize.explain(context, inputs, place)?;
        let codes = self.quantize.run(context, inputs)?;
        let real = self.dequantize.explain(context, &[codes.first()], place)?;
        Ok(code.then(&format!("quantize {}", self.quantize.name), real))
    }
}

impl Kernel for Requantize {
    fn in_place(&self) -> Option<&dyn InPlace> {
        self.table.as_ref().map(|table| table as &dyn InPlace)
    }

    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        if let Some(data) = self.table.as_ref().and_then(|table| table.look_up(context, x.data())) {
            return Ok([Tensor::new(x.shape(), data)?].into());
        }
        let data = compute_codes(context, self.dtype, x.len(), |start, out| {
            let mut codes = [0i32; CHUNK];
            let codes = &mut codes[..out.len()];
            read_codes(x.data(), start, codes)?;
            self.tile.run(&[Lanes::I32(codes)], Channels::Uniform(0), out)
        })?;
        Ok([Tensor::new(x.shape(), data)?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        explain(&self.compiled, None, index, code(input(inputs, 0)?, index)?)
    }
}

/// Integers of a real bias by the rule `bias`: one per channel, in units of `scale_x · scale_w`.
///
/// # Errors
/// Those of the rule; `bias_value` where a real is not finite.
pub fn quantize_bias(
    spec: &Spec,
    name: &str,
    (x, w, out): (&Encoding, &Encoding, &Encoding),
    reals: &Tensor,
) -> Result<Vec<i64>> {
    let mut env = Env::new();
    env.input_float("b", FloatType::F32);
    add_encoding(&mut env, "x", x);
    add_encoding(&mut env, "w", w);
    add_encoding(&mut env, "out", out);
    env.output(i32::MIN.into(), i32::MAX.into());
    env.constant("y.qmin", Value::Int(i32::MIN.into()));
    env.constant("y.qmax", Value::Int(i32::MAX.into()));
    let compiled = compile(spec, names::BIAS, &env).map_err(|e| e.at_tensor(name))?;
    let values = reals.as_f32().map_err(|e| e.at_tensor(name))?;
    if let Some(i) = values.iter().position(|v| !v.is_finite()) {
        return Err(Error::invalid("bias_value", format!("bias {}", values[i]))
            .at(Location::Tensor { name: name.into(), index: Some(i) }));
    }
    let mut out = vec![0i32; values.len()];
    let channels = Channels::Cyclic { start: 0 };
    compiled.tile().run(&[Lanes::F32(values)], channels, &mut out)?;
    Ok(out.into_iter().map(i64::from).collect())
}
