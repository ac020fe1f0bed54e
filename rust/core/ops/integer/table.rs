//! Functions of one code of a byte, as a table of 256 bytes.

use crate::error::{Error, Result};
use crate::kernels::{Code8, Engine, Simd, lookup8};
use crate::ops::closure::input;
use crate::ops::{InPlace, Kernel, Outputs, RunContext};
use crate::tensor::{DType, Data, Tensor};

/// The entry of each byte of a code.
pub struct ByteTable {
    entries: Box<[u8; 256]>,
    /// Whether the entries are signed.
    signed: bool,
}

impl ByteTable {
    /// A table of these results, of which there is one for each of the codes from `first` on. `None` where results are not
    /// of one byte, or where there are more than 256.
    pub fn new(first: i64, results: &Data) -> Option<ByteTable> {
        let (bytes, signed) = match results {
            Data::U8(v) => (&v[..], false),
            Data::I8(v) => (i8::bytes(v), true),
            _ => return None,
        };
        let mut entries = Box::new([0u8; 256]);
        for (code, &byte) in (first..).zip(bytes) {
            entries[usize::from(code as u8)] = byte;
        }
        (bytes.len() <= 256).then_some(ByteTable { entries, signed })
    }

    /// The codes `first..=last` in the type of bytes that holds them.
    pub fn codes(first: i64, last: i64) -> Option<Tensor> {
        let count = usize::try_from(last - first + 1).ok()?;
        let data = match (first, last) {
            (0.., ..=255) => Data::U8((first..=last).map(|c| c as u8).collect()),
            (-128.., ..=127) => Data::I8((first..=last).map(|c| c as i8).collect()),
            _ => return None,
        };
        Tensor::new(vec![count], data).ok()
    }

    /// The entries of all codes of a tensor; `None` where codes are not bytes.
    pub fn look_up(&self, context: &RunContext<'_>, x: &Data) -> Option<Data> {
        let x = match x {
            Data::U8(v) => &v[..],
            Data::I8(v) => i8::bytes(v),
            _ => return None,
        };
        Some(if self.signed {
            let mut out = context.output::<i8>(0, x.len());
            lookup8(context.engine(), x, &self.entries, i8::bytes_mut(&mut out));
            Data::I8(out)
        } else {
            let mut out = context.output::<u8>(0, x.len());
            lookup8(context.engine(), x, &self.entries, &mut out);
            Data::U8(out)
        })
    }
}

impl InPlace for ByteTable {
    fn takes(&self, own: usize) -> Option<DType> {
        let dtype = if self.signed { DType::I8 } else { DType::U8 };
        (own == 0).then_some(dtype)
    }

    fn replace(&self, simd: Simd, _own: usize, _inputs: &[Option<&Tensor>], _start: usize, replaced: &mut [u8]) {
        let mut codes = [0; 1024];
        for part in replaced.chunks_mut(codes.len()) {
            let codes = &mut codes[..part.len()];
            codes.copy_from_slice(part);
            lookup8(Engine::single().with(simd), codes, &self.entries, part);
        }
    }
}

impl Kernel for ByteTable {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let x = input(inputs, 0)?;
        let data = self
            .look_up(context, x.data())
            .ok_or_else(|| Error::invalid("codes_dtype", format!("{} does not hold codes of one byte", x.dtype())))?;
        Ok([Tensor::new(x.shape(), data)?].into())
    }

    fn in_place(&self) -> Option<&dyn InPlace> {
        Some(self)
    }
}
