//! Elementwise operators of two operands of at most 8 bits: a sum in vector code, or a table of all pairs.

use super::elementwise::{code_at, explain_codes};
use super::{Argument, Context, Layout, Prepared};
use crate::error::Result;
use crate::kernels::{Code8, FloatSum, float_sum, lookup_pairs};
use crate::ops::closure::input;
use crate::ops::{Explanation, Facts, Kernel, Place, RunContext};
use crate::program::{Channels, Compiled, Evaluator, Lanes, Scratch};
use crate::tensor::{DType, Data, Tensor};

/// Elements from which on a table of all pairs is worth making.
const TABLE_ELEMENTS: usize = 1 << 13;

/// How an operand meets the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Element by element.
    Whole,
    /// One code per channel and image, or per channel.
    Channels,
}

enum Form {
    /// The operand that is multiplied last, and the sum.
    Sum(usize, FloatSum),
    /// Entry `256·a + b`, by the bytes of the codes.
    Table(Data),
}

struct Pairs {
    compiled: Compiled,
    form: Form,
    names: &'static [&'static str],
    shapes: [Shape; 2],
    output: Vec<usize>,
    layout: Layout,
    dtype: DType,
}

/// The kernel, where operands and program allow it; gives the program back where they do not.
pub fn prepare(
    facts: &Facts<'_>,
    context: &Context<'_>,
    compiled: Compiled,
    names: &'static [&'static str],
    dtype: DType,
) -> Result<std::result::Result<Prepared, Compiled>> {
    let output = match facts.outputs {
        [Some(y)] => y.shape.clone(),
        _ => return Ok(Err(compiled)),
    };
    let len: usize = output.iter().product();
    let mut shapes = [Shape::Whole; 2];
    for (i, shape) in shapes.iter_mut().enumerate() {
        let fact = facts.input(i)?;
        let byte = fact.encoding.as_ref().is_some_and(|e| e.storage_dtype().size() == 1 && e.scale.len() == 1);
        *shape = match fact.shape.as_slice() {
            _ if !byte => return Ok(Err(compiled)),
            s if s == output => Shape::Whole,
            [n, c, spatial @ ..]
                if (3..=4).contains(&output.len())
                    && fact.shape.len() == output.len()
                    && *c == output[1]
                    && (*n == 1 || *n == output[0])
                    && spatial.iter().all(|&d| d == 1) =>
            {
                Shape::Channels
            }
            _ => return Ok(Err(compiled)),
        };
    }
    if compiled.channels() != 1 || compiled.evaluator() != Evaluator::Fast || shapes == [Shape::Channels; 2] {
        return Ok(Err(compiled));
    }
    let sum = compiled.float_sum().filter(|_| dtype.size() == 1).and_then(|s| {
        let narrow = |v: i64| i32::try_from(v).ok();
        let factors = [s.outer_factor, s.inner_factor];
        let form = FloatSum::new(factors, s.constant, narrow(s.zero_point)?, narrow(s.qmin)?, narrow(s.qmax)?)?;
        Some(Form::Sum(s.outer, form))
    });
    let form = match sum {
        Some(form) => form,
        None if len >= TABLE_ELEMENTS => Form::Table(table(facts, &compiled, dtype)?),
        None => return Ok(Err(compiled)),
    };
    let layout = match shapes {
        [Shape::Whole, Shape::Whole] => context.layouts[..2].iter().copied().max().unwrap_or(Layout::RowMajor),
        _ => Layout::ChannelsLast,
    };
    let arguments = (0..2)
        .map(|input| {
            let layout = if shapes[input] == Shape::Whole { layout } else { Layout::RowMajor };
            Argument { input, layout }
        })
        .collect();
    let kernel = Pairs { compiled, form, names, shapes, output, layout, dtype };
    Ok(Ok(Prepared { kernel: Box::new(kernel), arguments, layout }))
}

/// The results of all pairs of codes that the encodings have; zero for bytes that are no codes.
fn table(facts: &Facts<'_>, compiled: &Compiled, dtype: DType) -> Result<Data> {
    let range = |i: usize| -> Result<std::ops::RangeInclusive<i32>> {
        let fact = facts.input(i)?;
        let encoding = super::environment::encoding_of(facts, fact)?;
        Ok(encoding.qmin() as i32..=encoding.qmax() as i32)
    };
    let (first, second) = (range(0)?, range(1)?);
    let codes: Vec<i32> = second.clone().collect();
    let (tile, mut scratch) = (compiled.tile(), Scratch::default());
    let mut entries = vec![0i32; 1 << 16];
    let mut line = vec![0i32; codes.len()];
    for a in first {
        tile.run(&[Lanes::I32(&[a]), Lanes::I32(&codes)], Channels::Uniform(0), &mut scratch, &mut line)?;
        for (&b, &y) in codes.iter().zip(&line) {
            entries[usize::from(a as u8) << 8 | usize::from(b as u8)] = y;
        }
    }
    Ok(match dtype {
        DType::U8 => Data::U8(entries.iter().map(|&v| v as u8).collect()),
        DType::I8 => Data::I8(entries.iter().map(|&v| v as i8).collect()),
        DType::U16 => Data::U16(entries.iter().map(|&v| v as u16).collect()),
        DType::I16 => Data::I16(entries.iter().map(|&v| v as i16).collect()),
        _ => Data::I32(entries),
    })
}

/// Repeats the codes of each image's channels (or those of all images) for the `pixels` of every image.
fn repeat<T: Copy>(codes: &[T], channels: usize, pixels: usize, out: &mut [T]) {
    let sets = codes.len() / channels.max(1);
    for (image, out) in out.chunks_exact_mut((channels * pixels).max(1)).enumerate() {
        let own = &codes[image % sets * channels..][..channels];
        out.chunks_exact_mut(channels).for_each(|to| to.copy_from_slice(own));
    }
}

impl Pairs {
    fn pixels(&self) -> usize {
        self.output[2..].iter().product()
    }

    /// The codes of an operand, one for each element of the output.
    fn spread<'x>(&self, context: &RunContext<'_>, x: &'x Tensor, shape: Shape) -> Result<Spread<'x>> {
        macro_rules! spread {
            ($v:expr, $variant:ident) => {{
                if shape == Shape::Whole {
                    return Ok(Spread::Whole(x.data()));
                }
                let mut out = context.buffer(self.output.iter().product());
                repeat($v, self.output[1], self.pixels(), &mut out);
                Spread::Repeated(Data::$variant(out))
            }};
        }
        Ok(match x.data() {
            Data::U8(v) => spread!(v, U8),
            Data::I8(v) => spread!(v, I8),
            other => return Err(super::mac::wrong_codes(other)),
        })
    }

    /// Index of the code of operand `i` that element `index` of the output meets, both in memory order.
    fn place(&self, i: usize, x: &Tensor, index: usize) -> usize {
        if self.shapes[i] == Shape::Whole {
            return index;
        }
        let channels = self.output[1];
        let image = index / (channels * self.pixels());
        image % (x.len() / channels) * channels + index % channels
    }
}

enum Spread<'x> {
    Whole(&'x Data),
    Repeated(Data),
}

impl Spread<'_> {
    fn data(&self) -> &Data {
        match self {
            Spread::Whole(data) => data,
            Spread::Repeated(data) => data,
        }
    }
}

/// The bytes of codes.
fn bytes(data: &Data) -> Result<&[u8]> {
    match data {
        Data::U8(v) => Ok(v),
        Data::I8(v) => Ok(i8::bytes(v)),
        other => Err(super::mac::wrong_codes(other)),
    }
}

impl Kernel for Pairs {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Vec<Tensor>> {
        let len = self.output.iter().product();
        let a = self.spread(context, input(inputs, 0)?, self.shapes[0])?;
        let b = self.spread(context, input(inputs, 1)?, self.shapes[1])?;
        let engine = context.engine();
        let data = match &self.form {
            Form::Sum(outer, sum) => {
                let (first, second) = if *outer == 0 { (a.data(), b.data()) } else { (b.data(), a.data()) };
                macro_rules! add {
                    ($a:expr, $b:expr) => {
                        if self.dtype == DType::U8 {
                            let mut out = context.buffer::<u8>(len);
                            float_sum(engine, sum, $a, $b, &mut out);
                            Data::U8(out)
                        } else {
                            let mut out = context.buffer::<i8>(len);
                            float_sum(engine, sum, $a, $b, &mut out);
                            Data::I8(out)
                        }
                    };
                }
                match (first, second) {
                    (Data::U8(a), Data::U8(b)) => add!(a, b),
                    (Data::U8(a), Data::I8(b)) => add!(a, b),
                    (Data::I8(a), Data::U8(b)) => add!(a, b),
                    (Data::I8(a), Data::I8(b)) => add!(a, b),
                    (other, _) => return Err(super::mac::wrong_codes(other)),
                }
            }
            Form::Table(table) => {
                let (a, b) = (bytes(a.data())?, bytes(b.data())?);
                macro_rules! look_up {
                    ($table:expr, $variant:ident, $t:ty) => {{
                        let mut out = context.buffer::<$t>(len);
                        lookup_pairs(engine, a, b, $table, &mut out);
                        Data::$variant(out)
                    }};
                }
                match table {
                    Data::U8(t) => look_up!(t, U8, u8),
                    Data::I8(t) => look_up!(t, I8, i8),
                    Data::U16(t) => look_up!(t, U16, u16),
                    Data::I16(t) => look_up!(t, I16, i16),
                    Data::I32(t) => look_up!(t, I32, i32),
                    other => return Err(super::mac::wrong_codes(other)),
                }
            }
        };
        for operand in [a, b] {
            if let (Spread::Repeated(data), Some(memory)) = (operand, context.memory) {
                memory.give(data);
            }
        }
        let shape = match self.layout {
            Layout::RowMajor => self.output.clone(),
            Layout::ChannelsLast => [&self.output[..1], &self.output[2..], &self.output[1..2]].concat(),
        };
        Ok(vec![Tensor::new(shape, data)?])
    }

    fn explain(
        &self,
        _context: &RunContext<'_>,
        inputs: &[Option<&Tensor>],
        Place { index, .. }: Place,
    ) -> Result<Explanation> {
        let mut operands = Vec::with_capacity(2);
        for (i, name) in self.names.iter().enumerate() {
            let x = input(inputs, i)?;
            operands.push((*name, code_at(x, self.place(i, x, index))?));
        }
        explain_codes(&self.compiled, 0, &operands)
    }
}
