//! Nodes that compute nothing: their codes are those of what they read.

use super::{Form, Planner};
use crate::error::Result;
use crate::exec::scaling::Scaling;
use crate::graph::TensorId;
use crate::ops::Facts;
use crate::ops::integer::Layout;

impl Planner<'_> {
    /// A product with a constant scalar whose result has the codes of its input, where the target scales the grid.
    pub(super) fn add_scaled(&mut self, facts: &Facts<'_>) -> Result<bool> {
        let (node, graph) = (facts.node, &self.placed.graph);
        let value = |t: TensorId| self.facts[t].as_ref().and_then(|fact| fact.constant.as_deref());
        let Some(scaling) = Scaling::of(graph, &self.spec.placement, node, value) else { return Ok(false) };
        let (Some(Some(y)), Some(from)) = (node.outputs.first().copied(), self.facts[scaling.from].clone()) else {
            return Ok(false);
        };
        let Some(to) = self.facts[y].clone().filter(|to| to.shape == from.shape) else { return Ok(false) };
        let keeps = |from, to| scaling.keeps_codes(from, to);
        if !matches!((&from.encoding, &to.encoding), (Some(from), Some(to)) if keeps(from, to)) {
            return Ok(false);
        }
        let channels_last = self.values.contains_key(&(scaling.from, Form::Codes, Layout::ChannelsLast));
        let layout = if channels_last { Layout::ChannelsLast } else { Layout::RowMajor };
        let codes = self.value(scaling.from, Form::Codes, layout)?;
        self.values.insert((y, Form::Codes, layout), codes);
        self.report(node, "move", None);
        Ok(true)
    }
}

#[cfg(test)]
mod tests {
    use crate::encoding::Encoding;
    use crate::exec::testing::Builder;
    use crate::exec::{Options, Session};
    use crate::graph::Graph;
    use crate::spec::Spec;
    use crate::tensor::Tensor;
    use std::sync::Arc;

    /// `y = x · 0.3` and `z = x / 3`, as int8 under a target that scales grids.
    fn products(encoding_of_y: Option<Encoding>) -> Session {
        let mut builder = Builder::new();
        builder.tensor("c", Some(Tensor::f32(&[], vec![0.3])));
        builder.tensor("d", Some(Tensor::f32(&[1], vec![3.0])));
        builder.node("Mul", &["c", "x"], "y").node("Div", &["x", "d"], "z").node("Relu", &["z"], "r");
        let mut graph: Graph = builder.graph(&["x"], &["y", "r"]);
        let grid = Encoding::per_tensor(0.5, 3, 8, true).unwrap();
        for (name, encoding) in [("x", Some(grid.clone())), ("y", encoding_of_y), ("r", Some(grid))] {
            let t = graph.find(name).unwrap();
            graph.tensors[t].encoding = encoding.map(Arc::new);
        }
        Session::new(graph, Spec::load("htp_v75").unwrap(), Options::default()).unwrap()
    }

    #[test]
    fn a_product_with_a_scalar_has_the_codes_of_its_input() {
        let session = products(None);
        let x = Tensor::f32(&[4], vec![-2.0, 0.0, 1.5, 60.0]);
        let result = session.run_with(&[("x", &x)], true, &mut || Ok(())).unwrap();
        let codes = |name: &str| result.captured.iter().find(|c| c.name == name).unwrap();
        assert_eq!(codes("x").codes.as_ref().unwrap().to_i64().unwrap(), [-1, 3, 6, 123]);
        for (name, scale) in [("y", 0.5 * f64::from(0.3f32)), ("z", 0.5 * (1.0 / 3.0))] {
            assert_eq!(codes(name).codes, codes("x").codes, "{name}");
            assert_eq!(codes(name).encoding.as_ref().unwrap().scale, [scale], "{name}");
        }
        let report = session.report(vec![vec![4]]).unwrap();
        assert_eq!(report.nodes.iter().map(|n| n.mode).take(2).collect::<Vec<_>>(), ["move", "move"]);
        assert!(report.notes.iter().any(|n| n.place == "y" && n.text.contains("codes of 'x'")), "{:?}", report.notes);
    }

    #[test]
    fn a_product_with_a_grid_of_its_own_is_computed() {
        let session = products(Some(Encoding::per_tensor(0.25, 3, 8, true).unwrap()));
        let report = session.report(vec![vec![4]]).unwrap();
        assert_ne!(report.nodes[0].mode, "move");
        // The digits that a file has for 0.5 · 0.3 are enough.
        let session = products(Some(Encoding::per_tensor(0.150_000_01, 3, 8, true).unwrap()));
        assert_eq!(session.report(vec![vec![4]]).unwrap().nodes[0].mode, "move");
    }
}
