//! One step of a recurrent cell, and its activation functions.

use super::Facts;
use super::elementwise::{relu, sigmoid, softplus, softsign};
use super::recurrent::Recurrent;
use crate::error::Result;
use crate::graph::Attribute;

/// A function of a gate with its two parameters.
#[derive(Debug, Clone, Copy)]
pub struct Activation {
    function: fn(f64, f64, f64) -> f64,
    alpha: f64,
    beta: f64,
}

impl Activation {
    fn of(&self, x: f64) -> f64 {
        (self.function)(x, self.alpha, self.beta)
    }
}

/// Names, functions and the defaults of alpha and beta; NaN where there is none, and `None` where the function does
/// not take the parameter.
type Known = (&'static str, fn(f64, f64, f64) -> f64, Option<f64>, Option<f64>);

const KNOWN: [Known; 11] = [
    ("relu", |x, _, _| relu(x), None, None),
    ("tanh", |x, _, _| libm::tanh(x), None, None),
    ("sigmoid", |x, _, _| sigmoid(x), None, None),
    ("softsign", |x, _, _| softsign(x), None, None),
    ("softplus", |x, _, _| softplus(x), None, None),
    ("affine", |x, a, b| a * x + b, Some(f64::NAN), Some(f64::NAN)),
    ("leakyrelu", |x, a, _| if x < 0.0 { a * x } else { x }, Some(0.01f32 as f64), None),
    ("thresholdedrelu", |x, a, _| if x > a { x } else { 0.0 }, Some(1.0), None),
    ("scaledtanh", |x, a, b| a * libm::tanh(b * x), Some(f64::NAN), Some(f64::NAN)),
    ("hardsigmoid", |x, a, b| (a * x + b).clamp(0.0, 1.0), Some(0.2f32 as f64), Some(0.5)),
    ("elu", |x, a, _| if x < 0.0 { a * libm::expm1(x) } else { x }, Some(1.0), None),
];

/// The functions of each direction: one for RNN, two for GRU, three for LSTM. The lists of alphas and betas are consumed
/// in order by the functions that take them.
pub fn activations(facts: &Facts<'_>, gates: usize, directions: usize) -> Result<Vec<Vec<Activation>>> {
    let default: &[&str] = match gates {
        1 => &["tanh"],
        3 => &["sigmoid", "tanh"],
        _ => &["sigmoid", "tanh", "tanh"],
    };
    let names: Vec<String> = match facts.node.attributes.get("activations") {
        None => default.iter().cycle().take(default.len() * directions).map(|s| s.to_string()).collect(),
        Some(Attribute::Strings(list)) => list.iter().map(|s| s.to_ascii_lowercase()).collect(),
        Some(_) => return Err(facts.invalid("attribute 'activations' is no list of strings")),
    };
    if names.len() != default.len() * directions {
        return Err(facts.invalid(format!("{} activations, {} are expected", names.len(), default.len() * directions)));
    }
    let floats = |name: &str| match facts.node.attributes.get(name) {
        None => Ok(Vec::new()),
        Some(Attribute::Floats(list)) => Ok(list.clone()),
        Some(_) => Err(facts.invalid(format!("attribute '{name}' is no list of floats"))),
    };
    let (alphas, betas) = (floats("activation_alpha")?, floats("activation_beta")?);
    let (mut alphas, mut betas) = (alphas.into_iter(), betas.into_iter());
    let mut out = Vec::with_capacity(names.len());
    for name in &names {
        let (_, function, alpha, beta) = *KNOWN
            .iter()
            .find(|k| k.0 == name)
            .ok_or_else(|| facts.invalid(format!("the activation '{name}' is not known")))?;
        let parameter = |default: Option<f64>, list: &mut std::vec::IntoIter<f32>| match default {
            None => Ok(0.0),
            Some(default) => match list.next().map_or(default, f64::from) {
                value if value.is_nan() => Err(facts.invalid(format!("the activation '{name}' lacks a parameter"))),
                value => Ok(value),
            },
        };
        out.push(Activation { function, alpha: parameter(alpha, &mut alphas)?, beta: parameter(beta, &mut betas)? });
    }
    if alphas.next().is_some() || betas.next().is_some() {
        return Err(facts.invalid("more activation_alpha or activation_beta than the activations take"));
    }
    Ok(out.chunks(default.len()).map(<[Activation]>::to_vec).collect())
}

/// Weights of one direction: `w` is `[gates · hidden, input]`, `r` is `[gates · hidden, hidden]`, the bias is that of the
/// input followed by that of the state, the peepholes are those of i, o and f.
pub struct Direction<'a> {
    /// Weights of the input.
    pub w: &'a [f64],
    /// Weights of the state.
    pub r: &'a [f64],
    /// Biases.
    pub bias: Vec<f64>,
    /// Weights of the memory.
    pub peepholes: Option<Vec<f64>>,
}

/// A cell of one direction.
pub struct Cell<'a> {
    /// The operator.
    pub kind: Recurrent,
    /// Its weights.
    pub direction: Direction<'a>,
    /// Its activation functions.
    pub functions: &'a [Activation],
    /// Bound of what enters an activation.
    pub clip: f64,
    /// LSTM: the forget gate is `1 - i`. GRU: the reset gate applies behind the multiplication.
    pub variant: bool,
}

fn dot(row: &[f64], x: &[f64]) -> f64 {
    row.iter().zip(x).map(|(a, b)| a * b).sum()
}

impl Cell<'_> {
    fn activate(&self, function: usize, x: f64) -> f64 {
        self.functions[function].of(x.clamp(-self.clip, self.clip))
    }

    /// `x` times row `i` of `w`, plus its bias.
    fn input(&self, i: usize, x: &[f64]) -> f64 {
        dot(&self.direction.w[i * x.len()..][..x.len()], x) + self.direction.bias[i]
    }

    /// `h` times row `i` of `r`, plus its bias.
    fn state(&self, i: usize, h: &[f64]) -> f64 {
        let half = self.direction.bias.len() / 2;
        dot(&self.direction.r[i * h.len()..][..h.len()], h) + self.direction.bias[half + i]
    }

    /// The next state and memory from an input, the state and the memory (which only LSTM has).
    pub fn step(&self, x: &[f64], h: &[f64], c: &[f64]) -> (Vec<f64>, Vec<f64>) {
        let n = h.len();
        let gate = |g: usize, j: usize| self.input(g * n + j, x) + self.state(g * n + j, h);
        match self.kind {
            Recurrent::Rnn => ((0..n).map(|j| self.activate(0, gate(0, j))).collect(), c.to_vec()),
            Recurrent::Gru => {
                let update: Vec<f64> = (0..n).map(|j| self.activate(0, gate(0, j))).collect();
                let reset: Vec<f64> = (0..n).map(|j| self.activate(0, gate(1, j))).collect();
                let kept: Vec<f64> = reset.iter().zip(h).map(|(r, h)| r * h).collect();
                let candidate = |j: usize| {
                    let input = self.input(2 * n + j, x);
                    let state = match self.variant {
                        true => reset[j] * self.state(2 * n + j, h),
                        false => self.state(2 * n + j, &kept),
                    };
                    self.activate(1, input + state)
                };
                ((0..n).map(|j| (1.0 - update[j]) * candidate(j) + update[j] * h[j]).collect(), c.to_vec())
            }
            Recurrent::Lstm => {
                let peephole =
                    |g: usize, j: usize, c: f64| self.direction.peepholes.as_ref().map_or(0.0, |p| p[g * n + j] * c);
                let (mut state, mut memory) = (Vec::with_capacity(n), Vec::with_capacity(n));
                for (j, &old) in c.iter().enumerate() {
                    let input = self.activate(0, gate(0, j) + peephole(0, j, old));
                    let forget = match self.variant {
                        true => 1.0 - input,
                        false => self.activate(0, gate(2, j) + peephole(2, j, old)),
                    };
                    let next = forget * old + input * self.activate(1, gate(3, j));
                    let output = self.activate(0, gate(1, j) + peephole(1, j, next));
                    memory.push(next);
                    state.push(output * self.functions[2].of(next));
                }
                (state, memory)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::graph::Node;

    fn cell<'a>(kind: Recurrent, w: &'a [f64], r: &'a [f64], functions: &'a [Activation], variant: bool) -> Cell<'a> {
        let direction = Direction { w, r, bias: vec![0.0; 2 * w.len()], peepholes: None };
        Cell { kind, direction, functions, clip: f64::INFINITY, variant }
    }

    fn identity() -> Activation {
        Activation { function: |x, a, b| a * x + b, alpha: 1.0, beta: 0.0 }
    }

    #[test]
    fn cells_compute_their_equations() {
        let f = [identity(); 3];
        let rnn = cell(Recurrent::Rnn, &[2.0], &[3.0], &f, false);
        assert_eq!(rnn.step(&[1.0], &[1.0], &[0.0]).0, [5.0]);
        // z = x, r = 2x, candidate = x + 5·(r·h).
        let gru = |variant| {
            cell(Recurrent::Gru, &[1.0, 2.0, 1.0], &[0.0, 0.0, 5.0], &f, variant).step(&[2.0], &[3.0], &[0.0])
        };
        assert_eq!(gru(false).0, [(1.0 - 2.0) * (2.0 + 5.0 * 12.0) + 2.0 * 3.0]);
        assert_eq!(gru(true).0, gru(false).0);
        // i = x, o = 2x, f = 3x, g = 4x.
        let lstm = |variant| {
            cell(Recurrent::Lstm, &[1.0, 2.0, 3.0, 4.0], &[0.0; 4], &f, variant).step(&[1.0], &[0.0], &[10.0])
        };
        assert_eq!(lstm(false), (vec![2.0 * 34.0], vec![34.0]));
        assert_eq!(lstm(true), (vec![2.0 * 4.0], vec![4.0]));
    }

    #[test]
    fn parameters_go_to_the_functions_that_take_them() {
        let node = |names: &[&str], alpha: Vec<f32>| Node {
            attributes: [
                ("activations".to_string(), Attribute::Strings(names.iter().map(|s| s.to_string()).collect())),
                ("activation_alpha".to_string(), Attribute::Floats(alpha)),
            ]
            .into(),
            ..Node::default()
        };
        let run = |names: &[&str], alpha: Vec<f32>| {
            let node = node(names, alpha);
            activations(&Facts { node: &node, opset: 14, inputs: &[], outputs: &[] }, 3, 1).map(|a| a[0].clone())
        };
        let got = run(&["Tanh", "LeakyRelu"], vec![0.5]).unwrap();
        assert_eq!(got[1].of(-2.0), -1.0);
        assert!(run(&["Tanh", "Affine"], vec![0.5]).is_err());
        assert!(run(&["Tanh", "Tanh"], vec![0.5]).is_err());
        assert!(run(&["Tanh"], vec![]).is_err());
        assert!(run(&["Tanh", "Sine"], vec![]).is_err());
    }
}
