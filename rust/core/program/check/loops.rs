//! Loops that run while a program is compiled: `table`, `first` and `argmin`.

use super::super::eval;
use super::*;
use std::borrow::Cow;
use std::sync::Arc;

impl<'a> Lower<'a> {
    pub(super) fn lower_loop(
        &mut self,
        kind: Loop,
        variable: &'a str,
        lo: NodeId,
        hi: NodeId,
        body: &'a Expr,
        site: &Site,
    ) -> Result<NodeId> {
        for id in [lo, hi] {
            self.expect_int(id)?;
            if self.node(id).rate >= Rate::Loop {
                return Err(self.node(id).site.error("program_rate", "the bounds of a loop are constants"));
            }
            self.use_frozen(id)?;
        }
        let (least, most) = (self.node(lo).range().int().0, self.node(hi).range().int().1);
        if most.checked_sub(least).is_none_or(|n| n > MAX_TABLE as i128) || (kind == Loop::Table && most <= least) {
            return Err(
                site.error("program_loop", format!("a loop over {least}..{most}; 1 to 2^20 steps are possible"))
            );
        }
        let index = self.loops;
        self.loops += 1;
        let variable_node = self.push(Node {
            op: Op::Index(index),
            args: Args::new(),
            ty: Type::Int,
            rate: Rate::Loop,
            proven: Interval::Int(least, (most - 1).max(least)),
            frozen: None,
            literal: None,
            name: Some(variable.into()),
            site: site.clone(),
        });
        self.scope.push((variable, variable_node));
        let body_id = self.expr(body);
        self.scope.pop();
        let mut body_id = body_id?;
        if self.node(body_id).rate.is_run() {
            return Err(body.site.error("program_rate", "a loop at prepare cannot use run-time values"));
        }
        if self.node(body_id).ty == Type::Literal {
            body_id = self.convert(body_id, FloatType::F64, site)?;
        }
        match kind {
            Loop::First => self.expect_bool(body_id)?,
            Loop::Argmin if matches!(self.node(body_id).ty, Type::Bool | Type::Table) => {
                return Err(body.site.error("program_type", "argmin compares numbers"));
            }
            _ if self.node(body_id).ty == Type::Table => {
                return Err(body.site.error("program_type", "a table holds scalars"));
            }
            _ => {}
        }
        let order: Vec<NodeId> = self.graph.reachable(body_id, false);
        if order.iter().any(|&id| matches!(self.node(id).op, Op::Index(other) if other != index)) {
            return Err(site.error("program_loop", "a loop inside a loop cannot use the outer variable"));
        }
        let channel_rate = order
            .iter()
            .flat_map(|&id| self.node(id).args.iter().copied())
            .chain([lo, hi, body_id])
            .any(|id| self.node(id).rate == Rate::Channel);
        let count = if channel_rate { self.channels } else { 1 };
        let work = order.len().max(1).saturating_mul((most - least).max(0) as usize).saturating_mul(count);
        self.loop_work = self.loop_work.saturating_add(work);
        if self.loop_work > MAX_LOOP_WORK {
            return Err(site.error("program_loop", "the loops of the program take more than 2^26 steps"));
        }
        let cells: Vec<Cell> =
            (0..count).map(|channel| self.run_loop(kind, channel, (lo, hi), &order, body_id, site)).collect();
        let ty = if kind == Loop::Table { Type::Table } else { Type::Int };
        Ok(self.leaf(cells, ty, None, site))
    }

    fn run_loop(
        &self,
        kind: Loop,
        channel: usize,
        bounds: (NodeId, NodeId),
        order: &[NodeId],
        body: NodeId,
        site: &Site,
    ) -> Cell {
        let bound = |id: NodeId| match self.node(id).cell(channel).as_deref() {
            Some(Ok(Datum::Value(Value::Int(v)))) => Ok(*v),
            Some(Err(error)) => Err(error.clone()),
            _ => Err(site.error("program_loop", "the bounds of a loop are constants")),
        };
        let (lo, hi) = (bound(bounds.0)?, bound(bounds.1)?);
        let unknown: Cell = Err(site.error("program_loop", "value not known"));
        // What the body reads and does not change, then the nodes of the body.
        let mut cells: Vec<Option<Cow<'_, Cell>>> = vec![None; self.graph.nodes.len()];
        for &id in order.iter().flat_map(|&id| &self.node(id).args).chain([&body]) {
            cells[id] = self.node(id).cell(channel);
        }
        let mut table = Vec::new();
        let mut best: Option<(i128, Value)> = None;
        for i in lo..hi {
            for &id in order {
                let node = self.node(id);
                let cell = if matches!(node.op, Op::Index(_)) {
                    Ok(Datum::Value(Value::Int(i)))
                } else {
                    let args: Vec<&Cell> =
                        node.args.iter().map(|&arg| cells[arg].as_deref().unwrap_or(&unknown)).collect();
                    eval::apply(node, &args)
                };
                cells[id] = Some(Cow::Owned(cell));
            }
            let value = match cells[body].as_deref().unwrap_or(&unknown) {
                Ok(Datum::Value(value)) => *value,
                Ok(Datum::Table(_)) => return Err(site.error("program_type", "a table of tables")),
                Err(error) => return Err(error.clone()),
            };
            match kind {
                Loop::First if value == Value::Bool(true) => return Ok(Datum::Value(Value::Int(i))),
                Loop::First => {}
                Loop::Table => table.push(value),
                Loop::Argmin => {
                    let less = match (best, value) {
                        (None, _) => true,
                        (Some((_, Value::Int(a))), Value::Int(b)) => b < a,
                        (Some((_, a)), b) => b.as_float() < a.as_float(),
                    };
                    if less {
                        best = Some((i, value));
                    }
                }
            }
        }
        match (kind, best) {
            (Loop::Table, _) if !table.is_empty() => Ok(Datum::Table(Arc::new(table))),
            (Loop::Argmin, Some((i, _))) => Ok(Datum::Value(Value::Int(i))),
            _ => Err(site.error("program_loop", format!("no value in {lo}..{hi} fulfils the condition"))),
        }
    }
}
