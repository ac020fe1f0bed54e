//! Kernels that compute each pixel of an image's channel from that channel.

use super::record::{Record, Trail};
use super::rows::narrow;
use crate::error::Result;
use crate::ops::closure::input;
use crate::ops::explanation::coordinates;
use crate::ops::{Explanation, Kernel, Outputs, Place, RunContext};
use crate::tensor::Tensor;

/// A function of one channel of an image.
pub trait PlaneFunction: Send + Sync {
    /// What is computed once for a channel.
    type Ready;

    /// Prepares a channel.
    fn ready(&self, plane: &[i64]) -> Self::Ready;

    /// The code at row and column `at` of the output.
    fn pixel<R: Record>(&self, plane: &[i64], ready: &Self::Ready, at: [usize; 2], record: &mut R) -> i64;
}

/// The kernel of a function of channels.
pub struct PlaneKernel<F> {
    /// Elements of a channel of the input.
    pub plane: usize,
    /// Shape of the output, `N C H W`.
    pub shape: Vec<usize>,
    /// Bits of the codes.
    pub bits: u32,
    /// Whether the codes have a sign.
    pub signed: bool,
    /// The function.
    pub function: F,
}

impl<F: PlaneFunction> Kernel for PlaneKernel<F> {
    fn run(&self, context: &RunContext<'_>, inputs: &[Option<&Tensor>]) -> Result<Outputs> {
        let codes = input(inputs, 0)?.to_i64()?;
        let [height, width] = [self.shape[2], self.shape[3]];
        let channel = |plane: &[i64]| -> Vec<i64> {
            let ready = self.function.ready(plane);
            let pixel = |i: usize| self.function.pixel(plane, &ready, [i / width, i % width], &mut ());
            (0..height * width).map(pixel).collect()
        };
        let plane = self.plane.max(1);
        let count = codes.len().div_ceil(plane);
        let planes = context.engine().map(count, |p| channel(&codes[p * plane..codes.len().min((p + 1) * plane)]));
        Ok([Tensor::new(self.shape.clone(), narrow(&planes.concat(), self.bits, self.signed))?].into())
    }

    fn explain(&self, _context: &RunContext<'_>, inputs: &[Option<&Tensor>], place: Place) -> Result<Explanation> {
        let codes = input(inputs, 0)?.to_i64()?;
        let at = coordinates(&self.shape, place.index);
        let number = at[0] * self.shape[1] + at[1];
        let plane = &codes[number * self.plane..][..self.plane];
        let mut trail = Trail::default();
        trail.note("output at", format!("{at:?}"));
        let code = self.function.pixel(plane, &self.function.ready(plane), [at[2], at[3]], &mut trail);
        Ok(Explanation { trace: trail.trace.end(code), ..Explanation::default() })
    }
}
