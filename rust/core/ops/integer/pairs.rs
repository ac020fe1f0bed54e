//! Elementwise operators of two operands: vector code where the program has a form for it, or a table of all pairs of bytes.

use super::channels_last::turned;
use super::elementwise::{code_at, explain_codes};
use super::float_pairs::factors;
use super::lanes::{CHUNK, for_chunks};
use super::mac::epilogue::{self, AnyEpilogue};
use super::{Argument, Arrangement, Context, Layout, Prepared};
use crate::encoding::Encoding;
use crate::error::{Error, Result};
use crate::kernels::{
    Code8, Codes, Engine, FloatSum, MEET_CHANNELS, PairResults, Part, Simd, float_sum, lookup_pairs, meet,
};
use crate::ops::closure::input;
use crate::ops::{Explanation, Facts, InPlace, Kernel, Outputs, Place, RunContext};
use crate::program::{Channels, Compiled, Evaluator, Lanes, Meeting};
use crate::tensor::{DType, Data, Tensor};
use std::ops::Range;

/// Elements from which on a table of all pairs is worth making.
const TABLE_ELEMENTS: usize = 1 << 13;

/// Elements from which on a float sum with the same results is looked for, which takes as long as it then saves in one run.
const FLOAT_ELEMENTS: usize = 1 << 17;

/// How an operand meets the output.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shape {
    /// Element by element.
    Whole,
    /// A row of codes again and again.
    Rows(Rows),
}

/// How rows of codes repeat, in the order in which the output lies in memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Rows {
    /// Codes of a row.
    len: usize,
    /// How often each row comes before the next one does; behind the last one the first one comes again.
    times: usize,
}

enum Form {
    /// The operand that is multiplied last, and the sum.
    Sum(usize, FloatSum),
    /// Integers that meet, and an epilogue.
    Meet(Meeting, [Part; 2], AnyEpilogue<i32>),
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
    /// Types of the operands' codes.
    operands: [DType; 2],
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
    let (mut shapes, mut layout) = ([Shape::Whole; 2], None);
    let mut operands = [dtype; 2];
    for (i, shape) in shapes.iter_mut().enumerate() {
        let fact = facts.input(i)?;
        let Some(encoding) = fact.encoding.as_ref().filter(|e| e.scale.len() == 1) else { return Ok(Err(compiled)) };
        operands[i] = encoding.storage_dtype();
        *shape = match fact.shape.as_slice() {
            _ if !matches!(operands[i].size(), 1 | 2) => return Ok(Err(compiled)),
            s if s == output => Shape::Whole,
            [n, c, spatial @ ..]
                if (3..=4).contains(&output.len())
                    && fact.shape.len() == output.len()
                    && *c == output[1]
                    && (*n == 1 || *n == output[0])
                    && spatial.iter().all(|&d| d == 1) =>
            {
                layout = Some(Layout::ChannelsLast);
                Shape::Rows(Rows { len: output[1], times: output[2..].iter().product() })
            }
            s if len > 0 && s.iter().all(|&d| d == 1) => Shape::Rows(Rows { len: 1, times: len }),
            // One code for each element of the last axis.
            [ones @ .., last] if len > 0 && Some(last) == output.last() && ones.iter().all(|&d| d == 1) => {
                layout = Some(Layout::RowMajor);
                Shape::Rows(Rows { len: *last, times: len / last })
            }
            _ => return Ok(Err(compiled)),
        };
    }
    let whole = shapes.contains(&Shape::Whole);
    if compiled.channels() != 1 || compiled.evaluator() != Evaluator::Fast || !whole {
        return Ok(Err(compiled));
    }
    let bytes = operands.iter().all(|t| t.size() == 1);
    let large = len >= FLOAT_ELEMENTS && bytes && dtype.size() == 1;
    let (form, factors) = match vector_form(facts, &compiled, (bytes, large), dtype)? {
        Some(found) => found,
        None if bytes && len >= TABLE_ELEMENTS => (Form::Table(table(facts, &compiled, dtype)?), None),
        None => return Ok(Err(compiled)),
    };
    let own = (0..2).filter(|&i| shapes[i] == Shape::Whole).map(|i| context.layouts[i]).max();
    let layout = layout.or(own).unwrap_or(Layout::RowMajor);
    let arguments = (0..2)
        .map(|input| {
            let layout = if shapes[input] == Shape::Whole { layout } else { Layout::RowMajor };
            Argument { input, layout }
        })
        .collect();
    let mut kernel = Pairs { compiled, form, names, shapes, output, layout, operands, dtype };
    if let Some(factors) = factors {
        kernel.in_floats([encoding(facts, 0)?, encoding(facts, 1)?], factors);
    }
    Ok(Ok(Prepared { kernel: Box::new(kernel), arrangement: Arrangement { arguments, layout } }))
}

/// A form, and the factors of the sum that it is about, where a float sum is to be looked for.
type Found = (Form, Option<[f64; 2]>);

/// The program as vector code, where it has a form for it. `bytes` says whether both operands are of one byte, `large` whether a float
/// sum is worth looking for.
fn vector_form(
    facts: &Facts<'_>,
    compiled: &Compiled,
    (bytes, large): (bool, bool),
    dtype: DType,
) -> Result<Option<Found>> {
    let narrow = |v: i64| i32::try_from(v).ok();
    if let Some(s) = compiled.float_sum().filter(|_| bytes && dtype.size() == 1)
        && let (Some(zero_point), Some(qmin), Some(qmax)) = (narrow(s.zero_point), narrow(s.qmin), narrow(s.qmax))
        && let Some(sum) = FloatSum::new([s.outer_factor, s.inner_factor], s.constant, zero_point, qmin, qmax)
    {
        return Ok(Some((Form::Sum(s.outer, sum), None)));
    }
    let Some(split) = compiled.split() else { return Ok(None) };
    let Some(epilogue) = epilogue::vectors(&split.after, MEET_CHANNELS, dtype, 0) else { return Ok(None) };
    let encodings = [encoding(facts, 0)?, encoding(facts, 1)?];
    let [first, second] = [0, 1].map(|i| part(&split.parts[i], encodings[i]));
    let factors = if large { factors(&split, encodings) } else { None };
    let meet = |(first, second)| (Form::Meet(split.meeting, [first, second], epilogue), factors);
    Ok(first?.zip(second?).map(meet))
}

fn encoding<'f>(facts: &'f Facts<'_>, i: usize) -> Result<&'f Encoding> {
    super::environment::encoding_of(facts, facts.input(i)?)
}

/// What becomes of the codes of an operand, where vector code computes it: an affine function of all codes that the encoding
/// has, or a table of bytes.
fn part(compiled: &Compiled, encoding: &Encoding) -> Result<Option<Part>> {
    let (least, most) = (encoding.qmin() as i32, encoding.qmax() as i32);
    let codes: Vec<i32> = (least..=most).collect();
    let mut values = vec![0i32; codes.len()];
    compiled.tile().run(&[Lanes::I32(&codes)], Channels::Uniform(0), &mut values)?;
    let factor = values.get(1).map_or(0, |second| second.wrapping_sub(values[0]));
    if values.windows(2).all(|pair| pair[1].wrapping_sub(pair[0]) == factor) {
        return Ok(Some(Part::Affine { factor, constant: values[0].wrapping_sub(least.wrapping_mul(factor)) }));
    }
    if encoding.storage_dtype().size() != 1 {
        return Ok(None);
    }
    let mut entries = [0i32; 256];
    codes.iter().zip(values).for_each(|(&code, value)| entries[usize::from(code as u8)] = value);
    Ok(Some(Part::table(entries)))
}

/// The results of all pairs of codes that the encodings have; zero for bytes that are no codes.
fn table(facts: &Facts<'_>, compiled: &Compiled, dtype: DType) -> Result<Data> {
    let range = |i: usize| encoding(facts, i).map(|e| e.qmin() as i32..=e.qmax() as i32);
    let (first, second) = (range(0)?, range(1)?);
    let codes: Vec<i32> = second.clone().collect();
    let tile = compiled.tile();
    let mut entries = vec![0i32; 1 << 16];
    let mut line = vec![0i32; codes.len()];
    for a in first {
        tile.run(&[Lanes::I32(&[a]), Lanes::I32(&codes)], Channels::Uniform(0), &mut line)?;
        for (&b, &y) in codes.iter().zip(&line) {
            entries[usize::from(a as u8) << 8 | usize::from(b as u8)] = y;
        }
    }
    Ok(match dtype {
        DType::U8 => Data::U8(entries.iter().map(|&v| v as u8).collect()),
        DType::I8 => Data::I8(entries.iter().map(|&v| v as i8).collect()),
        DType::U16 => Data::U16(entries.iter().map(|&v| v as u16).collect()),
        DType::I16 => Data::I16(entries.iter().map(|&v| v as i16).collect()),
        _ => Data::I32(entries.into()),
    })
}

impl Pairs {
    /// Calls `body` with the codes of operand `i` that the elements `range` of the output meet, at most [`CHUNK`] where rows of
    /// them repeat.
    fn with_codes<R>(
        &self,
        i: usize,
        data: &Data,
        range: Range<usize>,
        body: impl FnOnce(Codes<'_>) -> R,
    ) -> Result<R> {
        macro_rules! codes {
            ($v:expr, $variant:ident, $t:ty) => {
                match self.shapes[i] {
                    Shape::Whole => body(Codes::$variant(&$v[range])),
                    Shape::Rows(rows) => {
                        let mut near = [0 as $t; CHUNK];
                        let near = &mut near[..range.len()];
                        rows.repeat($v, range.start, near);
                        body(Codes::$variant(near))
                    }
                }
            };
        }
        Ok(match data {
            Data::U8(v) => codes!(v, U8, u8),
            Data::I8(v) => codes!(v, I8, i8),
            Data::U16(v) => codes!(v, U16, u16),
            Data::I16(v) => codes!(v, I16, i16),
            other => return Err(super::mac::wrong_codes(other)),
        })
    }
}

impl Rows {
    /// The codes from element `start` of the output on.
    fn repeat<T: Copy>(self, codes: &[T], start: usize, out: &mut [T]) {
        if let [only] = codes {
            return out.fill(*only);
        }
        let mut at = 0;
        while at < out.len() {
            let from = self.place(codes.len(), start + at);
            let run = (self.len - from % self.len).min(out.len() - at);
            out[at..at + run].copy_from_slice(&codes[from..from + run]);
            at += run;
        }
    }

    /// Which of `count` codes element `index` of the output meets.
    fn place(self, count: usize, index: usize) -> usize {
        index / (self.len * self.times) % (count / self.len) * self.len + index % self.len
    }
}

/// The bytes of codes of one byte.
fn bytes(codes: Codes<'_>) -> &[u8] {
    match codes {
        Codes::U8(v) => v,
        Codes::I8(v) => i8::bytes(v),
        Codes::U16(_) | Codes::I16(_) => panic!("tables are for codes of one byte"),
    }
}

/// Results of one type from operands of the types that the kernel was prepared for.
macro_rules! combine {
    ($pairs:expr, $engine:expr, $codes:expr, $out:expr, $variant:ident $(, $sum:ident)?) => {{
        let [a, b]: [Codes<'_>; 2] = $codes;
        match &$pairs.form {
            $(Form::Sum(outer, sum) => $sum($engine, sum, if *outer == 0 { [a, b] } else { [b, a] }, $out),)?
            Form::Meet(meeting, [first, second], AnyEpilogue::$variant(epilogue)) => {
                meet($engine, *meeting, [first, second], [a, b], &**epilogue, $out);
            }
            Form::Table(Data::$variant(table)) => lookup_pairs($engine, bytes(a), bytes(b), table, $out),
            _ => panic!("results of the type that the kernel was prepared for"),
        }
    }};
}

/// [`float_sum`] of codes of any type of one byte.
fn sum_up<O: Code8>(engine: Engine<'_>, sum: &FloatSum, codes: [Codes<'_>; 2], out: &mut [O]) {
    match codes {
        [Codes::U8(a), Codes::U8(b)] => float_sum(engine, sum, a, b, out),
        [Codes::U8(a), Codes::I8(b)] => float_sum(engine, sum, a, b, out),
        [Codes::I8(a), Codes::U8(b)] => float_sum(engine, sum, a, b, out),
        [Codes::I8(a), Codes::I8(b)] => float_sum(engine, sum, a, b, out),
        _ => panic!("float sums are of codes of one byte"),
    }
}

impl Pairs {
    /// Results of one byte from operands of one byte, as bytes.
    fn combine_bytes(&self, engine: Engine<'_>, codes: [Codes<'_>; 2], out: &mut [u8]) {
        match self.dtype {
            DType::U8 => combine!(self, engine, codes, out, U8, sum_up),
            _ => combine!(self, engine, codes, i8::of_bytes_mut(out), I8, sum_up),
        }
    }

    /// Takes a float sum that gives the same for all pairs of codes of the encodings, where one is found; `factors` are about
    /// those of the sum.
    fn in_floats(&mut self, encodings: [&Encoding; 2], factors: [f64; 2]) {
        fn find<A: Code8, B: Code8, O: Code8>(
            pairs: &Pairs,
            [first, second]: [&Encoding; 2],
            factors: [f64; 2],
        ) -> Option<(usize, FloatSum)>
        where
            for<'c> Codes<'c>: From<&'c [A]> + From<&'c [B]>,
        {
            let simd = Simd::best();
            let engine = Engine::single().with(simd);
            let first: Vec<A> = (first.qmin()..=first.qmax()).map(A::wrap).collect();
            let second: Vec<B> = (second.qmin()..=second.qmax()).map(B::wrap).collect();
            let (mut repeated, mut results) = (vec![A::default(); second.len()], vec![0; first.len() * second.len()]);
            for (&a, results) in first.iter().zip(results.chunks_exact_mut(second.len())) {
                repeated.fill(a);
                pairs.combine_bytes(engine, [Codes::from(&repeated[..]), Codes::from(&second[..])], results);
            }
            PairResults { first: &first, second: &second, results: O::of_bytes(&results) }.float_sum(simd, factors)
        }
        macro_rules! find {
            ($a:ty, $b:ty) => {
                match self.dtype {
                    DType::U8 => find::<$a, $b, u8>(self, encodings, factors),
                    _ => find::<$a, $b, i8>(self, encodings, factors),
                }
            };
        }
        let found = match self.operands {
            [DType::U8, DType::U8] => find!(u8, u8),
            [DType::U8, _] => find!(u8, i8),
            [_, DType::U8] => find!(i8, u8),
            _ => find!(i8, i8),
        };
        if let Some((outer, sum)) = found {
            self.form = Form::Sum(outer, sum);
        }
    }
}

impl InPlace for Pairs {
    fn takes(&self, own: usize) -> Option<DType> {
        let fits = self.shapes == [Shape::Whole; 2] && self.operands.iter().all(|t| t.size() == 1);
        Some(self.dtype).filter(|&dtype| fits && self.operands.get(own) == Some(&dtype))
    }

    fn check(&self, own: usize, inputs: &[Option<&Tensor>]) -> Result<()> {
        let other = input(inputs, 1 - own)?;
        let len = self.output.iter().product::<usize>();
        if other.dtype() != self.operands[1 - own] {
            return Err(super::mac::wrong_codes(other.data()));
        }
        match other.len() == len {
            true => Ok(()),
            false => Err(Error::invalid("operand_length", format!("{} codes meet {len}", other.len()))),
        }
    }

    fn replace(&self, simd: Simd, own: usize, inputs: &[Option<&Tensor>], start: usize, replaced: &mut [u8]) {
        let other = inputs[1 - own].expect("two operands");
        let engine = Engine::single().with(simd);
        let mut aside = [0; CHUNK];
        for (i, part) in replaced.chunks_mut(CHUNK).enumerate() {
            let range = start + i * CHUNK..start + i * CHUNK + part.len();
            let aside = &mut aside[..part.len()];
            aside.copy_from_slice(part);
            let aside = &*aside;
            let own_codes = if self.dtype == DType::U8 { Codes::U8(aside) } else { Codes::I8(i8::of_bytes(aside)) };
            self.with_codes(1 - own, other.data(), range, |other| {
                self.combine_bytes(engine, if own == 0 { [own_codes, other] } else { [other, own_codes] }, part);
            })
            .expect("the types have been checked");
        }
    }
}

impl Kernel for Pairs {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let len = self.output.iter().product();
        for (i, dtype) in self.operands.iter().enumerate() {
            let x = input(inputs, i)?;
            if x.dtype() != *dtype {
                return Err(super::mac::wrong_codes(x.data()));
            }
        }
        let (engine, alone) = (context.engine(), Engine::single().with(context.simd));
        let [a, b] = [0, 1].map(|i| inputs[i].expect("checked above").data());
        macro_rules! results {
            ($t:ty, $variant:ident $(, $sum:ident)?) => {{
                let mut out = context.output::<$t>(0, len);
                let results = |engine: Engine<'_>, start: usize, out: &mut [$t]| {
                    let range = start..start + out.len();
                    self.with_codes(0, a, range.clone(), |a| {
                        self.with_codes(1, b, range, |b| combine!(self, engine, [a, b], out, $variant $(, $sum)?))
                    })?
                };
                match self.shapes {
                    [Shape::Whole, Shape::Whole] => results(engine, 0, &mut out)?,
                    _ => for_chunks(context, &mut out, |start, out| results(alone, start, out))?,
                }
                Data::$variant(out)
            }};
        }
        let data = match self.dtype {
            DType::U8 => results!(u8, U8, sum_up),
            DType::I8 => results!(i8, I8, sum_up),
            DType::U16 => results!(u16, U16),
            DType::I16 => results!(i16, I16),
            _ => results!(i32, I32),
        };
        let shape = match self.layout {
            Layout::RowMajor => self.output.as_slice().into(),
            Layout::ChannelsLast => turned(&self.output),
        };
        Ok([Tensor::new(shape, data)?].into())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
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
            let at = match self.shapes[i] {
                Shape::Whole => index,
                Shape::Rows(rows) => rows.place(x.len(), index),
            };
            operands.push((*name, code_at(x, at)?));
        }
        explain_codes(&self.compiled, 0, &operands)
    }
}
