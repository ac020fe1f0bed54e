//! Operators that compute each output element from one element of each operand.

use super::environment::{add_attributes, add_code_input, add_encoding, add_output, encoding_of};
use super::lanes::{CHUNK, ScaleMap, compute_codes, read_codes, read_viewed};
use super::table::ByteTable;
use super::{Argument, Arrangement, Context, IntegerOp, Layout, Prepared, pairs};
use crate::encoding::{Encoding, Granularity};
use crate::error::{Error, Result};
use crate::ops::{Explanation, Fact, Facts, InPlace, Kernel, Outputs, Place, RunContext};
use crate::program::{Channels, Compiled, Env, Evaluator, Lanes, TileProgram, Value};
use crate::spec::Action;
use crate::tensor::{DType, Data, Tensor, View};
use smallvec::SmallVec;

/// Names of the operands in programs, for each operator of this kind.
pub fn arity(op_type: &str) -> Option<&'static [&'static str]> {
    Some(match op_type {
        "Relu" | "Clip" | "LeakyRelu" | "Sigmoid" | "Tanh" | "HardSwish" | "HardSigmoid" | "Gelu" | "Exp" | "Log"
        | "Sqrt" | "Reciprocal" | "Abs" | "Neg" | "Erf" | "Elu" | "Selu" | "Celu" | "Softplus" | "Softsign"
        | "Mish" | "Floor" | "Ceil" | "Round" | "Sin" | "Cos" | "Requantize" | "LookUp" => &["x"],
        "PRelu" => &["x", "w"],
        "Add" | "Sub" | "Mul" | "Div" | "Pow" | "Min" | "Max" => &["a", "b"],
        _ => return None,
    })
}

/// Largest code range for which a unary operator becomes a table.
const TABLE_CODES: i64 = 1 << 16;

pub struct Elementwise;

impl IntegerOp for Elementwise {
    fn data_inputs(&self, facts: &Facts<'_>) -> Vec<usize> {
        (0..arity(&facts.node.op_type).map_or(0, <[_]>::len)).collect()
    }

    fn takes_channels(&self, facts: &Facts<'_>) -> bool {
        facts.node.op_type == "Requantize"
    }

    fn environment(&self, facts: &Facts<'_>, clamp: Option<(i64, i64)>) -> Result<Env> {
        environment(facts, clamp, false)
    }

    /// Known where all operands have the shape of the output, and all tensors one scale.
    fn arrangement(&self, facts: &Facts<'_>, layouts: &[Layout]) -> Option<Arrangement> {
        let operands = self.data_inputs(facts).len();
        let y = facts.outputs.first()?.as_ref()?;
        let plain = |fact: &Fact| fact.shape == y.shape && fact.encoding.as_ref().is_some_and(|e| e.scale.len() == 1);
        if facts.node.op_type == "PRelu" || !(0..operands).all(|i| facts.optional(i).is_some_and(plain)) || !plain(y) {
            return None;
        }
        Some(Arrangement::alike(operands, layouts[..operands].iter().copied().max()?))
    }

    fn prepare(&self, facts: &Facts<'_>, context: &Context<'_>, mut env: Env) -> Result<Prepared> {
        let Action::Program { program, .. } = &context.body.action else {
            return Err(
                facts.unsupported(format!("action '{}' of an elementwise operator", context.body.action.label()))
            );
        };
        let slope = match facts.node.op_type == "PRelu" && program.reads("slope") {
            true => Some(Slope::new(facts)?),
            false => None,
        };
        if let Some(slope) = &slope {
            env = environment(facts, context.clamp, true)?;
            env.channel("slope", slope.values.iter().map(|&v| Value::F32(v)).collect());
        }
        let compiled = program.compile(&env)?;
        let operands = if slope.is_some() { 1 } else { self.data_inputs(facts).len() };
        let y = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?;
        let dtype = encoding_of(facts, y)?.storage_dtype();
        if operands == 1 {
            let x = encoding_of(facts, facts.input(0)?)?;
            let layout = context.layouts[0];
            let fast = compiled.evaluator() == Evaluator::Fast;
            if fast && compiled.channels() == 1 && x.qmax() - x.qmin() < TABLE_CODES {
                let table = Table::build(compiled, x.qmin() as i32, x.qmax() as i32, dtype)?;
                return Ok(Prepared { kernel: Box::new(table), arrangement: Arrangement::first(layout) });
            }
        }
        let names = &arity(&facts.node.op_type).unwrap_or_default()[..operands];
        let compiled = match operands {
            2 => match pairs::prepare(facts, context, compiled, names, dtype)? {
                Ok(prepared) => return Ok(prepared),
                Err(compiled) => compiled,
            },
            _ => compiled,
        };
        let shapes: Vec<&[usize]> =
            (0..operands).map(|i| Ok(facts.input(i)?.shape.as_slice())).collect::<Result<_>>()?;
        let plain = compiled.channels() == 1
            && shapes.iter().all(|s| *s == y.shape.as_slice() || s.iter().product::<usize>() == 1);
        let layout = match plain {
            true => {
                let full = (0..operands).filter(|&i| shapes[i] == y.shape.as_slice());
                full.map(|i| context.layouts[i]).max().unwrap_or(Layout::RowMajor)
            }
            false => Layout::RowMajor,
        };
        let map = match plain {
            true => None,
            false => Some(match &slope {
                Some(slope) => slope.map(&y.shape)?,
                None => channel_map(facts, operands, &y.shape)?,
            }),
        };
        let arguments = (0..operands)
            .map(|input| Argument {
                input,
                layout: if shapes[input] == y.shape.as_slice() { layout } else { Layout::RowMajor },
            })
            .collect();
        let view = |s: &&[usize]| {
            let repeated = *s != y.shape.as_slice() && s.iter().product::<usize>() > 1;
            repeated.then(|| View::broadcast(s, &y.shape).merged())
        };
        let (views, shape, tile) = (shapes.iter().map(view).collect(), y.shape.clone(), compiled.tile());
        let kernel = ElementwiseKernel { tile, compiled, names, map, dtype, shape, plain, views };
        Ok(Prepared { kernel: Box::new(kernel), arrangement: Arrangement { arguments, layout } })
    }
}

/// What programs and conditions see. A constant slope of PRelu stands apart from the operands that vary.
fn environment(facts: &Facts<'_>, clamp: Option<(i64, i64)>, constant_slope: bool) -> Result<Env> {
    let names = arity(&facts.node.op_type).ok_or_else(|| facts.unsupported("not an elementwise operator"))?;
    if facts.inputs.len() > names.len() && !matches!(facts.node.op_type.as_str(), "Clip" | "LookUp") {
        return Err(facts.unsupported(format!("{} operands", facts.inputs.len())));
    }
    let mut env = Env::new();
    for (i, name) in names.iter().enumerate().take(if constant_slope { 1 } else { names.len() }) {
        let encoding = encoding_of(facts, facts.input(i)?)?;
        add_code_input(&mut env, name, encoding);
        add_encoding(&mut env, name, encoding);
    }
    let y = facts.outputs[0].as_ref().ok_or_else(|| facts.invalid("no output"))?;
    add_output(&mut env, encoding_of(facts, y)?, clamp);
    let defaults: &[(&str, f32)] = match facts.node.op_type.as_str() {
        "LeakyRelu" => &[("alpha", 0.01)],
        "HardSigmoid" => &[("alpha", 0.2), ("beta", 0.5)],
        "Elu" | "Celu" => &[("alpha", 1.0)],
        "Selu" => &[("alpha", 1.673_263_2), ("gamma", 1.050_701)],
        _ => &[],
    };
    add_attributes(&mut env, facts.node, defaults);
    if facts.node.op_type == "Gelu" {
        let tanh = facts.node.string("approximate", "none")? == "tanh";
        env.constant("attr.approximate_tanh", Value::Bool(tanh));
    }
    if facts.node.op_type == "Requantize" {
        env.constant("x.count", Value::Int(facts.input(0)?.shape.iter().product::<usize>() as i128));
    }
    if facts.node.op_type == "LookUp" {
        let table = facts.constant(1)?.to_i64()?;
        env.table("table", table.into_iter().map(|v| Value::Int(v.into())).collect());
    }
    if facts.node.op_type == "Clip" {
        let (lo, hi) = clip_bounds(facts)?;
        env.constant("attr.min", Value::F32(lo));
        env.constant("attr.max", Value::F32(hi));
    }
    Ok(env)
}

/// Real bounds of a Clip, infinite where absent.
pub fn clip_bounds(facts: &Facts<'_>) -> Result<(f32, f32)> {
    let bound = |i: usize, name: &str, default: f32| -> Result<f32> {
        match facts.optional(i) {
            None => facts.node.float(name, default),
            Some(_) => {
                let value = facts.constant(i)?.to_f64();
                value.first().map(|&v| v as f32).ok_or_else(|| facts.invalid("an empty bound"))
            }
        }
    };
    Ok((bound(1, "min", f32::NEG_INFINITY)?, bound(2, "max", f32::INFINITY)?))
}

/// The constant slope of a PRelu as reals: one, or one per channel.
struct Slope {
    values: Vec<f32>,
    /// Axis of the output that the values run over.
    axis: usize,
}

impl Slope {
    fn new(facts: &Facts<'_>) -> Result<Slope> {
        let fact = facts.input(1)?;
        let encoding = encoding_of(facts, fact)?;
        let Some(codes) = &fact.codes else { return Err(facts.unsupported("a slope that is not constant")) };
        let rank = facts.input(0)?.shape.len();
        let long: Vec<usize> = (0..fact.shape.len()).filter(|&d| fact.shape[d] != 1).collect();
        let axis = match long[..] {
            [] => 0,
            [d] if fact.shape.len() <= rank => d + rank - fact.shape.len(),
            _ => return Err(facts.unsupported(format!("a slope of shape {:?}", fact.shape))),
        };
        if matches!(encoding.granularity, Granularity::PerBlock { .. }) {
            return Err(facts.unsupported("a slope with per-block scales"));
        }
        let real = |(i, code): (usize, i64)| {
            let at = i % encoding.scale.len();
            ((code - encoding.zero_point[at]) as f64 * encoding.scale[at]) as f32
        };
        Ok(Slope { values: codes.to_i64()?.into_iter().enumerate().map(real).collect(), axis })
    }

    fn map(&self, shape: &[usize]) -> Result<ScaleMap> {
        let grid = Encoding::per_tensor(1.0, 0, 8, false)?;
        if self.values.len() == 1 {
            return ScaleMap::new(&grid, shape);
        }
        let spread = Encoding {
            scale: vec![1.0; self.values.len()],
            zero_point: vec![0; self.values.len()],
            granularity: Granularity::PerChannel { axis: self.axis },
            ..grid
        };
        ScaleMap::new(&spread, shape)
    }
}

/// Channels of the one operand that has per-channel scales, in terms of the output's shape.
fn channel_map(facts: &Facts<'_>, operands: usize, shape: &[usize]) -> Result<ScaleMap> {
    for i in 0..operands {
        let fact = facts.input(i)?;
        let encoding = encoding_of(facts, fact)?;
        if let Granularity::PerChannel { axis } = encoding.granularity {
            let mut lifted = encoding.clone();
            lifted.granularity = Granularity::PerChannel { axis: axis + shape.len() - fact.shape.len() };
            return ScaleMap::new(&lifted, shape);
        }
        if encoding.granularity != Granularity::PerTensor {
            return Err(facts.unsupported("per-block encodings of elementwise operands"));
        }
    }
    let any = encoding_of(facts, facts.input(0)?)?;
    ScaleMap::new(any, shape)
}

/// The trace of one element, from the operands' codes.
pub fn explain_codes(compiled: &Compiled, channel: usize, operands: &[(&str, i64)]) -> Result<Explanation> {
    let values: Vec<Value> = operands.iter().map(|(_, code)| Value::Int((*code).into())).collect();
    Ok(Explanation {
        operands: operands.iter().map(|(name, code)| (name.to_string(), code.to_string())).collect(),
        trace: compiled.trace(channel % compiled.channels(), &values)?,
        ..Explanation::default()
    })
}

/// A part of the codes; one code serves every part.
fn section(lanes: Lanes<'_>, part: std::ops::Range<usize>) -> Lanes<'_> {
    match lanes {
        Lanes::I32(v) if v.len() > 1 => Lanes::I32(&v[part]),
        Lanes::I64(v) if v.len() > 1 => Lanes::I64(&v[part]),
        other => other,
    }
}

/// Code `index` of a tensor in memory order.
pub fn code_at(x: &Tensor, index: usize) -> Result<i64> {
    if index >= x.len() {
        return Err(Error::invalid("explain_index", format!("element {index} of {}", x.len())));
    }
    if let Data::I64(codes) = x.data() {
        return Ok(codes[index]);
    }
    let mut code = [0i32];
    read_codes(x.data(), index, &mut code)?;
    Ok(code[0].into())
}

/// A unary operator as a table from code to code.
struct Table {
    compiled: Compiled,
    first: i32,
    entries: Data,
    /// The same, where codes and entries are bytes.
    bytes: Option<ByteTable>,
}

impl Table {
    /// Evaluates the program for the codes `first..=last`.
    fn build(compiled: Compiled, first: i32, last: i32, dtype: DType) -> Result<Self> {
        let codes: Vec<i32> = (first..=last).collect();
        let mut out = vec![0i32; codes.len()];
        compiled.tile().run(&[Lanes::I32(&codes)], Channels::Uniform(0), &mut out)?;
        let entries = match dtype {
            DType::U8 => Data::U8(out.iter().map(|&v| v as u8).collect()),
            DType::I8 => Data::I8(out.iter().map(|&v| v as i8).collect()),
            DType::U16 => Data::U16(out.iter().map(|&v| v as u16).collect()),
            DType::I16 => Data::I16(out.iter().map(|&v| v as i16).collect()),
            _ => Data::I32(out.into()),
        };
        let bytes = ByteTable::new(first.into(), &entries);
        Ok(Table { compiled, first, entries, bytes })
    }
}

impl Kernel for Table {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = crate::ops::closure::input(inputs, 0)?;
        let dtype = self.entries.dtype();
        if let Some(data) = self.bytes.as_ref().and_then(|table| table.look_up(context, x.data())) {
            return Ok([Tensor::new(x.shape(), data)?].into());
        }
        let data = compute_codes(context, dtype, x.len(), |start, out| {
            read_codes(x.data(), start, out)?;
            let index = |code: i32| (code - self.first) as usize;
            match &self.entries {
                Data::U8(t) => out.iter_mut().for_each(|v| *v = t[index(*v)].into()),
                Data::I8(t) => out.iter_mut().for_each(|v| *v = t[index(*v)].into()),
                Data::U16(t) => out.iter_mut().for_each(|v| *v = t[index(*v)].into()),
                Data::I16(t) => out.iter_mut().for_each(|v| *v = t[index(*v)].into()),
                Data::I32(t) => out.iter_mut().for_each(|v| *v = t[index(*v)]),
                _ => unreachable!("tables hold codes"),
            }
            Ok(())
        })?;
        Ok([Tensor::new(x.shape(), data)?].into())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        self.bytes.as_ref().map(|table| table as &dyn InPlace)
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let code = code_at(crate::ops::closure::input(inputs, 0)?, index)?;
        explain_codes(&self.compiled, 0, &[("x", code)])
    }
}

struct ElementwiseKernel {
    tile: TileProgram,
    compiled: Compiled,
    names: &'static [&'static str],
    map: Option<ScaleMap>,
    dtype: DType,
    shape: Vec<usize>,
    plain: bool,
    /// How an operand of many elements is repeated to the output, where it is smaller.
    views: Vec<Option<View>>,
}

impl Kernel for ElementwiseKernel {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let mut operands: SmallVec<[&Tensor; 2]> = SmallVec::new();
        for i in 0..self.views.len() {
            operands.push(crate::ops::closure::input(inputs, i)?);
        }
        let shape = match operands.iter().find(|x| x.shape().len() == self.shape.len() && x.len() > 1) {
            Some(x) if self.plain => x.shape(),
            _ => &self.shape,
        };
        let len = self.shape.iter().product();
        let data = compute_codes(context, self.dtype, len, |start, out| {
            let mut buffers = [[0i32; CHUNK]; 2];
            let mut wide = [const { Vec::new() }; 2];
            let mut lanes: SmallVec<[Lanes<'_>; 2]> = SmallVec::new();
            for (((x, view), narrow), wide) in operands.iter().zip(&self.views).zip(&mut buffers).zip(&mut wide) {
                let (first, count) = if x.len() == 1 { (0, 1) } else { (start, out.len()) };
                match x.data() {
                    Data::I64(codes) if view.is_none() => lanes.push(Lanes::I64(&codes[first..first + count])),
                    Data::I64(codes) => {
                        wide.resize(count, 0);
                        view.as_ref().expect("seen above").read(codes, first, wide, |code| code);
                        lanes.push(Lanes::I64(wide));
                    }
                    data => {
                        read_viewed(data, view.as_ref(), first, &mut narrow[..count])?;
                        lanes.push(Lanes::I32(&narrow[..count]));
                    }
                }
            }
            match &self.map {
                None => self.tile.run(&lanes, Channels::Uniform(0), out),
                Some(map) => map.segments(start..start + out.len(), |range, channels| {
                    let part = range.start - start..range.end - start;
                    let lanes: SmallVec<[_; 2]> = lanes.iter().map(|&l| section(l, part.clone())).collect();
                    self.tile.run(&lanes, channels, &mut out[part])
                }),
            }
        })?;
        Ok([Tensor::new(shape, data)?].into())
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let mut operands = Vec::with_capacity(inputs.len());
        for (i, name) in self.names.iter().enumerate() {
            let x = crate::ops::closure::input(inputs, i)?;
            let own = if x.len() == 1 { 0 } else { index };
            let at = self.views[i].as_ref().map_or(own, |view| view.index(index));
            operands.push((*name, code_at(x, at)?));
        }
        let mut channel = 0;
        if let Some(map) = &self.map {
            map.segments(index..index + 1, |_, channels| {
                channel = match channels {
                    Channels::Uniform(c) | Channels::Cyclic { start: c } => c,
                };
                Ok(())
            })?;
        }
        explain_codes(&self.compiled, channel, &operands)
    }
}
