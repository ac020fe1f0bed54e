//! What intrinsics say of the integers that they compute on the way.

use crate::ops::explanation::elided;
use crate::program::Trace;
use std::fmt::Display;

/// Where an intrinsic writes intermediate values. The kernels write to `()`, which costs nothing; explanations to a
/// [`Trail`].
pub trait Record {
    /// A value.
    fn note(&mut self, what: &str, value: impl Display);
    /// Several values.
    fn list<T: Display>(&mut self, what: &str, values: impl IntoIterator<Item = T>);
    /// Whether what follows belongs to the element that is explained.
    fn follows(&self, element: usize) -> bool;
}

impl Record for () {
    fn note(&mut self, _what: &str, _value: impl Display) {}

    fn list<T: Display>(&mut self, _what: &str, _values: impl IntoIterator<Item = T>) {}

    fn follows(&self, _element: usize) -> bool {
        false
    }
}

/// The steps to one element.
#[derive(Default)]
pub struct Trail {
    /// What was noted so far.
    pub trace: Trace,
    /// Which element of its row.
    pub element: usize,
}

impl Record for Trail {
    fn note(&mut self, what: &str, value: impl Display) {
        self.trace.add("step", what, value);
    }

    fn list<T: Display>(&mut self, what: &str, values: impl IntoIterator<Item = T>) {
        self.trace.add("step", what, elided(values));
    }

    fn follows(&self, element: usize) -> bool {
        element == self.element
    }
}
