//! Syntax tree to typed graph: names, types, rates, ranges. What is known at prepare is computed on the way.

use super::builtins;
use super::column::{self, Column};
use super::env::{Entry, Env, InputKind, MAX_TABLE};
use super::functions::Functions;
use super::graph::{Args, Cell, Comparison, Graph, Node, NodeId, Op};
use super::interval::range_of;
use super::sharing::{Map, Sharing};
use super::syntax::{Binary, Body, Expr, ExprKind, Loop, Site};
use super::types::{Datum, Interval, Rate, Type, Value};
use crate::error::{Error, Result, nearest};
use crate::num::FloatType;
use smallvec::SmallVec;

/// Most operations that inlining may produce.
const MAX_STEPS: usize = 1 << 16;
/// Deepest nesting of expressions after inlining.
const MAX_DEPTH: usize = 256;
/// Most evaluations of operations inside loops, per program.
const MAX_LOOP_WORK: usize = 1 << 26;

mod loops;

pub(super) struct Lower<'a> {
    pub env: &'a Env,
    pub functions: &'a Functions,
    pub graph: Graph,
    pub channels: usize,
    scope: Vec<(&'a str, NodeId)>,
    sharing: Sharing,
    /// Nodes of what the environment gives, by name.
    named: Map<&'a str, NodeId>,
    steps: usize,
    depth: usize,
    loops: usize,
    loop_work: usize,
}

impl<'a> Lower<'a> {
    /// `steps` is about how many operations there will be.
    pub fn new(env: &'a Env, functions: &'a Functions, steps: usize) -> Result<Self> {
        Ok(Lower {
            env,
            functions,
            graph: Graph { nodes: Vec::with_capacity(steps) },
            channels: env.channels()?,
            scope: Vec::new(),
            sharing: Sharing::with_capacity(steps),
            named: Map::default(),
            steps: 0,
            depth: 0,
            loops: 0,
            loop_work: 0,
        })
    }

    pub fn node(&self, id: NodeId) -> &Node {
        &self.graph.nodes[id]
    }

    /// Binds a name for what follows.
    pub fn bind(&mut self, name: &'a str, id: NodeId) -> Result<()> {
        self.named(id, name)?;
        self.scope.push((name, id));
        Ok(())
    }

    /// A value that has a name, or is a result, must fit 64 bits.
    fn named(&mut self, id: NodeId, name: &str) -> Result<()> {
        let node = &mut self.graph.nodes[id];
        if node.rate.is_run() && node.ty == Type::Int && !node.range().fits_i64() {
            let (lo, hi) = node.range().int();
            return Err(node
                .site
                .error("program_range", format!("'{name}' has the proven range {lo}..={hi}, which leaves 64 bits"))
                .help("say what the hardware does: wrap(…, i64), sat(…, i32), or shift in the same expression"));
        }
        node.name.get_or_insert_with(|| name.into());
        Ok(())
    }

    pub fn body(&mut self, body: &'a Body) -> Result<NodeId> {
        for statement in &body.statements {
            let id = self.expr(&statement.value)?;
            if self.env.entries.contains_key(&statement.name) {
                return Err(statement.value.site.error(
                    "program_name",
                    format!("'{}' is given from outside and cannot be assigned", statement.name),
                ));
            }
            self.bind(&statement.name, id)?;
        }
        let id = self.expr(&body.result)?;
        self.named(id, "y")?;
        Ok(id)
    }

    /// An error of a frozen value becomes an error of the program where the value is used.
    pub fn use_frozen(&self, id: NodeId) -> Result<()> {
        self.node(id).frozen.as_ref().map_or(Ok(()), |column| column.check().map_err(Error::clone))
    }

    fn push(&mut self, node: Node) -> NodeId {
        self.graph.nodes.push(node);
        self.graph.nodes.len() - 1
    }

    pub fn leaf(&mut self, column: impl Into<Column>, ty: Type, literal: Option<String>, site: &Site) -> NodeId {
        let column = column.into();
        let rate = if column.len() == 1 { Rate::Const } else { Rate::Channel };
        let number = if let Column::One(Ok(Datum::Value(v))) = &column { Some(*v) } else { None };
        let id = self.push(Node {
            op: Op::Frozen,
            args: Args::new(),
            ty,
            rate,
            proven: column.proven(),
            frozen: Some(column),
            literal,
            name: None,
            site: site.clone(),
        });
        if let Some(number) = number {
            self.sharing.number(id, ty, number);
        }
        id
    }

    pub fn constant(&mut self, value: Value, site: &Site) -> NodeId {
        self.leaf(value, value.type_of(), None, site)
    }

    /// Adds an operation whose operands have the right types already.
    pub fn operation(&mut self, op: Op, args: &[NodeId], ty: Type, site: &Site) -> Result<NodeId> {
        self.steps += 1;
        if self.steps > MAX_STEPS {
            return Err(site.error("program_size", format!("the program has more than {MAX_STEPS} operations")));
        }
        let rate = args.iter().map(|&id| self.node(id).rate).max().unwrap_or(Rate::Const);
        if rate >= Rate::Loop {
            for &id in args {
                if rate.is_run() {
                    self.use_frozen(id)?;
                }
            }
            if rate.is_run() && args.iter().any(|&id| self.node(id).rate == Rate::Loop) {
                return Err(site.error("program_rate", "a loop at prepare cannot use run-time values"));
            }
        }
        if rate < Rate::Loop {
            return Ok(self.frozen(op, args, ty, rate, site));
        }
        // What fails from here on ends the program.
        let next = self.graph.nodes.len();
        let id = self.sharing.operation(op, ty, args, false, next);
        if id != next {
            return Ok(id);
        }
        let ranges: SmallVec<[Interval; 3]> = args.iter().map(|&id| self.node(id).range()).collect();
        let operand = args.first().map_or(ty, |&id| self.node(id).ty);
        let range = match range_of(op, ty, operand, &ranges) {
            Ok(range) => range,
            Err(_) if rate == Rate::Loop && ty == Type::Int => Interval::Int(i128::MIN, i128::MAX),
            Err(message) => {
                return Err(site
                    .error("program_range", message)
                    .help("narrow the operands with clamp, sat, wrap, min or max"));
            }
        };
        if rate.is_run() {
            self.check_tables(op, args, site)?;
        }
        let args = args.into();
        let (frozen, literal, name) = (None, None, None);
        Ok(self.push(Node { op, args, ty, rate, proven: range, frozen, literal, name, site: site.clone() }))
    }

    /// Indices that are known at run time only must lie in the table.
    fn check_tables(&self, op: Op, args: &[NodeId], site: &Site) -> Result<()> {
        if op != Op::At {
            return Ok(());
        }
        let tables = self.node(args[0]).frozen.iter().flat_map(Column::tables);
        let length = tables.map(|table| table.len()).min().unwrap_or(0);
        let (lo, hi) = self.node(args[1]).range().int();
        if lo < 0 || hi >= length as i128 {
            return Err(site
                .error(
                    "program_range",
                    format!("the index has the proven range {lo}..={hi}, the table {length} entries"),
                )
                .help("clamp the index, or make the table longer"));
        }
        Ok(())
    }

    fn frozen(&mut self, op: Op, args: &[NodeId], ty: Type, rate: Rate, site: &Site) -> NodeId {
        let next = self.graph.nodes.len();
        let first = self.sharing.operation(op, ty, args, true, next);
        let count = if rate == Rate::Channel { self.channels } else { 1 };
        let mut node = Node {
            op,
            args: args.into(),
            ty,
            rate,
            proven: Interval::Other,
            frozen: None,
            literal: None,
            name: None,
            site: site.clone(),
        };
        if first != next {
            let known = self.node(first);
            (node.proven, node.frozen) = (known.proven, known.frozen.clone());
            self.sharing.alias(next, first);
            return self.push(node);
        }
        let column = {
            let operand = |&id: &NodeId| self.node(id).frozen.as_ref().unwrap_or(&Column::Forgotten);
            let operands: SmallVec<[&Column; 3]> = node.args.iter().map(operand).collect();
            column::apply(&node, &operands, count)
        };
        node.proven = column.proven();
        node.frozen = Some(column);
        self.push(node)
    }

    pub fn expr(&mut self, e: &'a Expr) -> Result<NodeId> {
        self.depth += 1;
        if self.depth > MAX_DEPTH {
            return Err(e.site.error("program_depth", format!("calls and expressions nest deeper than {MAX_DEPTH}")));
        }
        let result = self.kind(e);
        self.depth -= 1;
        result
    }

    fn kind(&mut self, e: &'a Expr) -> Result<NodeId> {
        let site = &e.site;
        match &e.kind {
            ExprKind::Int(v) => Ok(self.constant(Value::Int(*v), site)),
            ExprKind::Bool(v) => Ok(self.constant(Value::Bool(*v), site)),
            ExprKind::Real(text) => self.literal(text.clone(), site),
            ExprKind::Name(name) => self.name(name, site),
            ExprKind::Negate(a) => {
                let a = self.expr(a)?;
                self.negate(a, site)
            }
            ExprKind::Not(a) => {
                let a = self.expr(a)?;
                self.expect_bool(a)?;
                self.operation(Op::Not, &[a], Type::Bool, site)
            }
            ExprKind::Binary(operator, a, b) => {
                let (a, b) = (self.expr(a)?, self.expr(b)?);
                self.binary(*operator, a, b, site)
            }
            ExprKind::Call(name, args) => self.call(name, args, site),
            ExprKind::List(items) => {
                if items.len() > MAX_TABLE || items.is_empty() {
                    return Err(site.error("program_table", "a table has 1 to 2^20 entries"));
                }
                let mut ids = items.iter().map(|item| self.expr(item)).collect::<Result<Vec<_>>>()?;
                self.list(&mut ids, site)
            }
            ExprKind::Loop { kind, variable, lo, hi, body } => {
                let (lo, hi) = (self.expr(lo)?, self.expr(hi)?);
                self.lower_loop(*kind, variable, lo, hi, body, site)
            }
        }
    }

    fn literal(&mut self, text: String, site: &Site) -> Result<NodeId> {
        let value: f64 = text.parse().map_err(|_| site.error("program_number", "not a number"))?;
        Ok(self.leaf(Value::F64(value), Type::Literal, Some(text), site))
    }

    fn name(&mut self, name: &'a str, site: &Site) -> Result<NodeId> {
        if let Some((_, id)) = self.scope.iter().rev().find(|(bound, _)| *bound == name) {
            return Ok(*id);
        }
        if let Some(&first) = self.named.get(name) {
            let known = self.node(first);
            if known.rate.is_run() {
                return Ok(first);
            }
            let id = self.push(Node { site: site.clone(), ..known.clone() });
            self.sharing.alias(id, first);
            return Ok(id);
        }
        let column = match self.env.entries.get(name) {
            Some(Entry::Input(position)) => {
                let input = &self.env.inputs[*position];
                let (ty, range) = match input.kind {
                    InputKind::Int(lo, hi) => (Type::Int, Interval::Int(lo, hi)),
                    InputKind::Float(format) => (Type::Float(format), Interval::ANY_FLOAT),
                };
                let id = self.push(Node {
                    op: Op::Input(*position),
                    args: Args::new(),
                    ty,
                    rate: input.rate,
                    proven: range,
                    frozen: None,
                    literal: None,
                    name: Some(name.into()),
                    site: site.clone(),
                });
                self.named.insert(name, id);
                return Ok(id);
            }
            Some(Entry::Constant(column)) => column.clone(),
            None => return Err(self.unknown(name, site)),
        };
        let ty = column.first_type().unwrap_or(Type::Table);
        let id = self.leaf(column, ty, None, site);
        self.graph.nodes[id].name = Some(name.into());
        self.named.insert(name, id);
        Ok(id)
    }

    fn unknown(&self, name: &str, site: &Site) -> Error {
        let mut given: Vec<&str> = self.env.entries.keys().map(String::as_str).collect();
        given.sort_unstable();
        let known = self.scope.iter().map(|(n, _)| *n).chain(given);
        let error = site.error("program_unknown_name", format!("unknown name '{name}'"));
        match nearest(name, known.clone()) {
            Some(near) => error.help(format!("did you mean '{near}'?")),
            None => error.help(format!("known names: {}", known.take(40).collect::<Vec<_>>().join(", "))),
        }
    }

    fn call(&mut self, name: &'a str, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        if let Some(builtin) = builtins::find(name) {
            return self.builtin(builtin, args, site);
        }
        let functions = self.functions;
        let Some(function) = functions.get(name) else {
            return Err(builtins::unknown_function(name, functions.names(), site));
        };
        if args.len() != function.params.len() {
            return Err(site.error(
                "program_arity",
                format!(
                    "{name} takes {} arguments ({}), not {}",
                    function.params.len(),
                    function.params.join(", "),
                    args.len()
                ),
            ));
        }
        let mut scope = Vec::with_capacity(args.len());
        for (param, arg) in function.params.iter().zip(args) {
            scope.push((param.as_str(), self.expr(arg)?));
        }
        let outer = std::mem::replace(&mut self.scope, scope);
        let result = (|| {
            for (name, value) in &function.lets {
                let id = self.expr(value)?;
                self.bind(name, id)?;
            }
            for statement in &function.body.statements {
                let id = self.expr(&statement.value)?;
                self.bind(&statement.name, id)?;
            }
            self.expr(&function.body.result)
        })();
        self.scope = outer;
        result
    }

    pub fn negate(&mut self, a: NodeId, site: &Site) -> Result<NodeId> {
        match (self.node(a).ty, self.node(a).literal.clone()) {
            (Type::Literal, Some(text)) => {
                let text = text.strip_prefix('-').map_or_else(|| format!("-{text}"), str::to_string);
                self.literal(text, site)
            }
            (ty @ (Type::Int | Type::Float(_) | Type::Literal), _) => self.operation(Op::Neg, &[a], ty, site),
            (ty, _) => Err(site.error("program_type", format!("a {ty} has no negative"))),
        }
    }

    pub fn expect_bool(&self, id: NodeId) -> Result<()> {
        let node = self.node(id);
        if node.ty == Type::Bool {
            return Ok(());
        }
        Err(node
            .site
            .error("program_type", format!("expected bool, found {}", node.ty))
            .help("compare with something: `value != 0`"))
    }

    pub fn expect_int(&self, id: NodeId) -> Result<()> {
        let node = self.node(id);
        if node.ty == Type::Int {
            return Ok(());
        }
        Err(node
            .site
            .error("program_type", format!("expected int, found {}", node.ty))
            .help("int(value, mode) makes an int, with a rounding mode such as half_even"))
    }

    fn binary(&mut self, operator: Binary, a: NodeId, b: NodeId, site: &Site) -> Result<NodeId> {
        let comparison = match operator {
            Binary::Less => Some(Comparison::Less),
            Binary::LessEqual => Some(Comparison::LessEqual),
            Binary::Greater => Some(Comparison::Greater),
            Binary::GreaterEqual => Some(Comparison::GreaterEqual),
            Binary::Equal => Some(Comparison::Equal),
            Binary::NotEqual => Some(Comparison::NotEqual),
            _ => None,
        };
        if let Some(how) = comparison {
            let bools = self.node(a).ty == Type::Bool && self.node(b).ty == Type::Bool;
            let equality = matches!(how, Comparison::Equal | Comparison::NotEqual);
            if bools && equality {
                return self.operation(Op::Compare(how), &[a, b], Type::Bool, site);
            }
            let mut ids = [a, b];
            self.unify(&mut ids, site)?;
            return self.operation(Op::Compare(how), &ids, Type::Bool, site);
        }
        match operator {
            Binary::And | Binary::Or => {
                self.expect_bool(a)?;
                self.expect_bool(b)?;
                self.operation(if operator == Binary::And { Op::And } else { Op::Or }, &[a, b], Type::Bool, site)
            }
            Binary::ShiftLeft => {
                self.expect_int(a)?;
                self.expect_int(b)?;
                self.operation(Op::Shl, &[a, b], Type::Int, site)
            }
            Binary::Pow => self.power(a, b, site),
            Binary::Div if self.node(a).ty == Type::Int && self.node(b).ty == Type::Int => Err(site
                .error("program_type", "`/` divides reals; both sides are int")
                .help("write div(a, b, mode) for integers, or f64(a) / f64(b)")),
            arithmetic => {
                let op = match arithmetic {
                    Binary::Add => Op::Add,
                    Binary::Sub => Op::Sub,
                    Binary::Mul => Op::Mul,
                    _ => Op::Div,
                };
                let mut ids = [a, b];
                let ty = self.unify(&mut ids, site)?;
                self.operation(op, &ids, ty, site)
            }
        }
    }

    /// `a ^ b` of constants: an int where both are and the exponent is not negative, else a real literal.
    fn power(&mut self, a: NodeId, b: NodeId, site: &Site) -> Result<NodeId> {
        for id in [a, b] {
            if self.node(id).rate.is_run() {
                return Err(site
                    .error("program_rate", "`^` is for constants")
                    .help("use shl(value, n) or ldexp(value, n) while the kernel runs"));
            }
        }
        match (self.node(a).ty, self.node(b).ty) {
            (Type::Int, Type::Int) if self.node(b).range().int().0 >= 0 && self.node(b).rate != Rate::Loop => {
                self.operation(Op::Pow, &[a, b], Type::Int, site)
            }
            (Type::Int | Type::Literal, Type::Int) => {
                let (a, b) = (self.real_of(a, site)?, self.real_of(b, site)?);
                let in_loop = self.node(a).rate.max(self.node(b).rate) == Rate::Loop;
                let ty = if in_loop { Type::Float(FloatType::F64) } else { Type::Literal };
                self.operation(Op::Pow, &[a, b], ty, site)
            }
            (
                Type::Float(FloatType::F64) | Type::Int | Type::Literal,
                Type::Int | Type::Literal | Type::Float(FloatType::F64),
            ) => {
                let (a, b) = (self.convert(a, FloatType::F64, site)?, self.convert(b, FloatType::F64, site)?);
                self.operation(Op::Pow, &[a, b], Type::Float(FloatType::F64), site)
            }
            (a, b) => Err(site.error("program_type", format!("no power of {a} and {b}"))),
        }
    }

    /// An int or literal as a literal.
    fn real_of(&mut self, id: NodeId, site: &Site) -> Result<NodeId> {
        if self.node(id).ty == Type::Literal {
            return Ok(id);
        }
        let converted = self.convert(id, FloatType::F64, site)?;
        if self.node(converted).rate == Rate::Loop {
            return Ok(converted);
        }
        let column = self.node(converted).frozen.clone().unwrap_or(Column::Forgotten);
        Ok(self.leaf(column, Type::Literal, None, site))
    }

    /// Brings operands to one numeric type.
    pub fn unify(&mut self, ids: &mut [NodeId], site: &Site) -> Result<Type> {
        let types = || ids.iter().map(|&id| self.node(id).ty);
        if let Some((&id, ty)) = ids.iter().zip(types()).find(|(_, ty)| matches!(ty, Type::Bool | Type::Table)) {
            return Err(self.node(id).site.error("program_type", format!("expected a number, found {ty}")));
        }
        if types().all(|ty| ty == Type::Int) {
            return Ok(Type::Int);
        }
        let mut formats = types().filter_map(|ty| if let Type::Float(format) = ty { Some(format) } else { None });
        match formats.next() {
            Some(format) => {
                if types().all(|ty| ty == Type::Float(format)) {
                    return Ok(Type::Float(format));
                }
                if let Some(other) = formats.find(|other| *other != format) {
                    return Err(site
                        .error("program_type", format!("{format} and {other} do not mix"))
                        .help(format!("cast one side, as in {format}(…)")));
                }
                for id in ids {
                    *id = self.convert(*id, format, site)?;
                }
                Ok(Type::Float(format))
            }
            None => {
                if let Some(&id) = ids.iter().find(|&&id| self.node(id).ty == Type::Int && self.node(id).rate.is_run())
                {
                    return Err(self
                        .node(id)
                        .site
                        .error("program_type", "an int that varies does not mix with a real literal")
                        .help("say in which precision: f32(…) or f64(…)"));
                }
                for id in &mut *ids {
                    *id = self.real_of(*id, site)?;
                }
                if ids.iter().all(|&id| self.node(id).rate != Rate::Loop) {
                    return Ok(Type::Literal);
                }
                for id in ids {
                    *id = self.convert(*id, FloatType::F64, site)?;
                }
                Ok(Type::Float(FloatType::F64))
            }
        }
    }

    /// Brings one operand to a float format where that is exact: ints that the format holds, literals.
    pub fn convert(&mut self, id: NodeId, format: FloatType, site: &Site) -> Result<NodeId> {
        let node = self.node(id);
        match node.ty {
            Type::Float(found) if found == format => Ok(id),
            Type::Literal => self.adapt(id, format),
            Type::Int => {
                let top = 1i128 << format.precision();
                let exact = match &node.frozen {
                    _ if node.range().within(-top, top) => true,
                    Some(column) => column.all(|v| match v {
                        Some(Value::Int(v)) => holds_exactly(v, format),
                        _ => true,
                    }),
                    None => node.rate == Rate::Loop,
                };
                if !exact {
                    return Err(node
                        .site
                        .error("program_type", format!("this int may not fit {format} exactly"))
                        .help(format!("write {format}(…) to round it")));
                }
                self.operation(Op::ToFloat(format), &[id], Type::Float(format), site)
            }
            ty => Err(site.error("program_type", format!("expected {format}, found {ty}"))),
        }
    }

    /// A literal in a format: from its text where there is one, else it must be exact.
    fn adapt(&mut self, id: NodeId, format: FloatType) -> Result<NodeId> {
        let node = self.node(id).clone();
        let target = Type::Float(format);
        if let (Some(text), FloatType::F32) = (&node.literal, format) {
            let value: f32 = text.parse().map_err(|_| node.site.error("program_number", "not a number"))?;
            return Ok(self.leaf(Value::F32(value), target, None, &node.site));
        }
        let column = node.frozen.unwrap_or(Column::Forgotten);
        if format == FloatType::F64 {
            return Ok(self.leaf(column, target, None, &node.site));
        }
        let cells: Vec<Cell> = (0..column.len())
            .filter_map(|channel| column.cell(channel))
            .map(|cell| {
                let Ok(Datum::Value(value)) = *cell else { return cell.into_owned() };
                let wanted = value.as_float().unwrap_or_default();
                let found = Value::float(crate::num::float::round_to(wanted, format), format);
                if node.literal.is_some() || found.as_float() == Some(wanted) {
                    return Ok(Datum::Value(found));
                }
                Err(node
                    .site
                    .error("program_type", format!("{wanted:?} is no {format}"))
                    .help(format!("write {format}(…) to round it")))
            })
            .collect();
        Ok(self.leaf(cells, target, None, &node.site))
    }

    pub fn list(&mut self, ids: &mut [NodeId], site: &Site) -> Result<NodeId> {
        if ids.iter().any(|&id| self.node(id).rate >= Rate::Loop) {
            return Err(site.error("program_rate", "a table holds constants"));
        }
        let all_bool = ids.iter().all(|&id| self.node(id).ty == Type::Bool);
        if !all_bool && self.unify(ids, site)? == Type::Literal {
            for id in &mut *ids {
                *id = self.convert(*id, FloatType::F64, site)?;
            }
        }
        self.operation(Op::List, ids, Type::Table, site)
    }
}

fn holds_exactly(v: i128, format: FloatType) -> bool {
    let found = crate::num::float::from_int(v, format);
    found.is_finite() && crate::num::float::to_int(found, crate::num::Rounding::Trunc) == Some(v)
}
