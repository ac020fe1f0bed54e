//! Graph to passes: lane types, conversions, constants, registers.

use super::super::column::Column;
use super::super::graph::{Comparison, Graph, Node, NodeId, Op};
use super::super::simplify::aliases;
use super::super::types::{Datum, Interval, Type, Value};
use super::super::{Compiled, Evaluator, env};
use super::lanes::Consts;
use super::{Action, Argument, Class, Instruction, Reference, Shift, Source, TileProgram};
use crate::num::{FloatType, Rounding};
use std::collections::HashMap;
use std::sync::Arc;

impl Compiled {
    /// The same program for many elements at a time.
    pub fn tile(&self) -> TileProgram {
        let alias = aliases(&self.graph);
        let mut build = Build {
            graph: &self.graph,
            alias: &alias,
            inputs: &self.inputs,
            instructions: Vec::new(),
            constants: Consts::default(),
            counts: [0; 5],
            values: HashMap::new(),
            converted: HashMap::new(),
            frozen: HashMap::new(),
        };
        let result = alias[self.result];
        for id in needed(&self.graph, &alias, result) {
            build.node(id);
        }
        let node = &self.graph.nodes[result];
        let class = lane_class(node.ty, node.range());
        let result = build.operand(result, class);
        let inputs = self
            .inputs
            .iter()
            .map(|input| {
                let ty = match input.kind {
                    env::InputKind::Int(..) => Type::Int,
                    env::InputKind::Float(format) => Type::Float(format),
                };
                (input.name.clone(), ty)
            })
            .collect();
        let mut program = TileProgram {
            instructions: build.instructions,
            constants: build.constants,
            registers: build.counts,
            channels: self.channels,
            inputs,
            result,
            result_type: node.ty,
            vectors: self.executor.vectors,
            reference: (self.evaluator() == Evaluator::Reference).then(|| Arc::new(self.clone())),
        };
        program.share_registers();
        program
    }
}

/// Run-time nodes that the result needs when aliases are followed, in order.
fn needed(graph: &Graph, alias: &[NodeId], result: NodeId) -> Vec<NodeId> {
    let mut wanted = vec![false; graph.nodes.len()];
    wanted[result] = true;
    for id in (0..=result).rev() {
        if wanted[id] && graph.nodes[id].frozen.is_none() {
            graph.nodes[id].args.iter().for_each(|&arg| wanted[alias[arg]] = true);
        }
    }
    (0..=result).filter(|&id| wanted[id] && graph.nodes[id].frozen.is_none()).collect()
}

/// The narrowest lanes that hold a value.
fn lane_class(ty: Type, range: Interval) -> Class {
    match ty {
        Type::Float(FloatType::F64) | Type::Literal => Class::F64,
        Type::Float(_) => Class::F32,
        Type::Bool => Class::I32,
        _ if range.fits_i32() => Class::I32,
        _ if range.fits_i64() => Class::I64,
        _ => Class::I128,
    }
}

struct Build<'a> {
    graph: &'a Graph,
    alias: &'a [NodeId],
    inputs: &'a [env::Input],
    instructions: Vec<Instruction>,
    constants: Consts,
    counts: [usize; 5],
    values: HashMap<NodeId, Source>,
    converted: HashMap<(NodeId, Class), Source>,
    frozen: HashMap<(NodeId, Class), Source>,
}

impl<'a> Build<'a> {
    fn class(&self, id: NodeId) -> Class {
        let node = &self.graph.nodes[id];
        lane_class(node.ty, node.range())
    }

    fn emit(&mut self, action: Action, sources: &[Source], class: Class) -> Source {
        // Passes take a constant on the right without spreading it. (The order of float minima is their meaning.)
        let swapped;
        let mut sources = sources;
        if let (Action::Add | Action::Mul | Action::MulWide, [a @ Source::Constant(..), b]) = (&action, sources) {
            swapped = [*b, *a];
            sources = &swapped;
        }
        let destination = self.counts[class as usize] as u16;
        self.counts[class as usize] += 1;
        let at = |i: usize| sources.get(i).copied().unwrap_or(Source::None);
        self.instructions.push(Instruction { action, a: at(0), b: at(1), c: at(2), class, destination });
        Source::Register(class, destination)
    }

    /// A node's value in lanes of `class`; ints that do not fit keep their low bits.
    fn operand(&mut self, id: NodeId, class: Class) -> Source {
        if self.graph.nodes[id].frozen.is_some() {
            return self.constant(id, class);
        }
        let source = self.values[&id];
        if matches!(source, Source::Register(found, _) if found == class) {
            return source;
        }
        if let Some(&source) = self.converted.get(&(id, class)) {
            return source;
        }
        let converted = self.emit(Action::Convert, &[source], class);
        self.converted.insert((id, class), converted);
        converted
    }

    fn constant(&mut self, id: NodeId, class: Class) -> Source {
        if let Some(&source) = self.frozen.get(&(id, class)) {
            return source;
        }
        let column = self.graph.nodes[id].frozen.as_ref().unwrap_or(&Column::Forgotten);
        let of = |v: Option<Value>| v.unwrap_or(Value::Int(0));
        let source = match class {
            Class::I32 => self.constants.add(column.map(|v| int(of(v)) as i32)),
            Class::I64 => self.constants.add(column.map(|v| int(of(v)) as i64)),
            Class::I128 => self.constants.add(column.map(|v| int(of(v)))),
            Class::F32 => self.constants.add(column.map(|v| float(of(v)) as f32)),
            Class::F64 => self.constants.add(column.map(|v| float(of(v)))),
        };
        self.frozen.insert((id, class), source);
        source
    }

    /// The table that a node is for all channels.
    fn one_table(&self, id: NodeId) -> Option<&'a [Value]> {
        let column = self.graph.nodes[id].frozen.as_ref().filter(|column| column.len() == 1)?;
        column.tables().next().map(|table| table.as_slice())
    }

    fn table(&mut self, values: &[Value], class: Class) -> u16 {
        let source = match class {
            Class::I32 => self.constants.store(values.iter().map(|v| int(*v) as i32).collect()),
            Class::I64 => self.constants.store(values.iter().map(|v| int(*v) as i64).collect()),
            Class::I128 => self.constants.store(values.iter().map(|v| int(*v)).collect()),
            Class::F32 => self.constants.store(values.iter().map(|v| float(*v) as f32).collect()),
            Class::F64 => self.constants.store(values.iter().map(|v| float(*v)).collect()),
        };
        if let Source::Constant(_, index) = source { index } else { 0 }
    }

    fn node(&mut self, id: NodeId) {
        let node = &self.graph.nodes[id];
        let args: Vec<NodeId> = node.args.iter().map(|&arg| self.alias[arg]).collect();
        let own = self.class(id);
        let widest = args
            .iter()
            .filter(|&&arg| self.graph.nodes[arg].ty == Type::Int)
            .map(|&arg| self.class(arg))
            .fold(own, Class::max);
        let source = match (node.op, node.ty) {
            (Op::Input(position), _) => {
                let class = match self.inputs[position].kind {
                    env::InputKind::Int(lo, hi) => lane_class(Type::Int, Interval::Int(lo, hi)),
                    env::InputKind::Float(format) => lane_class(Type::Float(format), Interval::ANY_FLOAT),
                };
                self.emit(Action::Load(position), &[], class)
            }
            (Op::Add | Op::Sub | Op::Min | Op::Max | Op::Neg | Op::Abs | Op::Clamp, Type::Int) => {
                let action = match node.op {
                    Op::Add => Action::Add,
                    Op::Sub => Action::Sub,
                    Op::Min => Action::Min,
                    Op::Max => Action::Max,
                    Op::Neg => Action::Neg,
                    Op::Abs => Action::Abs,
                    _ => Action::Clamp,
                };
                self.int_action(action, &args, widest, own)
            }
            (Op::Mul, Type::Int) => {
                let narrow = args.iter().all(|&arg| self.class(arg) == Class::I32);
                if narrow && own == Class::I64 {
                    let sources = self.operands(&args, Class::I32);
                    self.emit(Action::MulWide, &sources, Class::I64)
                } else {
                    self.int_action(Action::Mul, &args, widest, own)
                }
            }
            (Op::DivInt(mode), _) => self.int_action(Action::DivInt(mode), &args, widest, own),
            (Op::Shl, _) if self.graph.nodes[args[1]].range().int().1 < 126 => {
                let class = self.at_least_count(own.max(self.class(args[0])), args[1]);
                self.int_action(Action::Shl, &args, class, own)
            }
            (Op::Shr(mode), _) if self.graph.nodes[args[1]].range().int().1 < 126 => {
                let class = self.at_least_count(self.class(args[0]), args[1]);
                let shift = self.shift_of(mode, args[0], args[1], class);
                self.int_action(Action::Shr(shift), &args, class.max(own), own)
            }
            (Op::Wrap { bits, signed }, _) => {
                // The low bits are all that counts.
                let class = if bits <= 32 && (signed || bits < 32) { Class::I32 } else { Class::I64 };
                let source = self.operand(args[0], class);
                if signed && (bits, class) == (32, Class::I32) || (bits, class) == (64, Class::I64) {
                    source
                } else {
                    let wrapped = self.emit(Action::Wrap { bits, signed }, &[source], class);
                    self.narrowed(wrapped, class, own)
                }
            }
            (Op::Select, ty) => {
                let condition = self.operand(args[0], Class::I32);
                let class = if ty == Type::Int { widest } else { own };
                let (yes, no) = (self.operand(args[1], class), self.operand(args[2], class));
                let chosen = self.emit(Action::Select, &[condition, yes, no], class);
                self.narrowed(chosen, class, own)
            }
            (Op::Compare(how), _) => {
                let class = args.iter().map(|&arg| self.class(arg)).fold(Class::I32, Class::max);
                let mut sources = self.operands(&args, class);
                let (how, swap) = match how {
                    Comparison::Greater => (Comparison::Less, true),
                    Comparison::GreaterEqual => (Comparison::LessEqual, true),
                    Comparison::NotEqual => (Comparison::Equal, false),
                    how => (how, false),
                };
                if swap {
                    sources.reverse();
                }
                let found = self.emit(Action::Compare(how), &sources, Class::I32);
                if node.op == Op::Compare(Comparison::NotEqual) {
                    self.emit(Action::Not, &[found], Class::I32)
                } else {
                    found
                }
            }
            (Op::And, _) => self.same(Action::And, &args, Class::I32),
            (Op::Or, _) => self.same(Action::Or, &args, Class::I32),
            (Op::Not, _) => self.same(Action::Not, &args, Class::I32),
            (Op::Clz(bits), _) if self.class(args[0]) <= Class::I64 => {
                let source = self.operand(args[0], Class::I64);
                self.emit(Action::Clz(bits), &[source], Class::I32)
            }
            (Op::FloorLog2, _) if self.class(args[0]) <= Class::I64 => {
                let source = self.operand(args[0], Class::I64);
                self.emit(Action::FloorLog2, &[source], Class::I32)
            }
            (Op::ToFloat(format), _) => self.cast(args[0], format),
            (Op::ToInt(_), _) if self.graph.nodes[args[0]].ty == Type::Bool => self.operand(args[0], Class::I32),
            (Op::ToInt(mode), _) => {
                let class = self.class(args[0]);
                let source = self.operand(args[0], class);
                let (lo, hi) = node.range().int();
                let nan = self.graph.nodes[args[0]].range().float().2;
                let rounded = self.emit(Action::Round(mode), &[source], class);
                if !nan || (lo <= 0 && hi >= 0) {
                    self.emit(Action::Convert, &[rounded], own)
                } else {
                    // NaN becomes 0, which the bounds exclude.
                    let wide = self.emit(Action::Convert, &[rounded], Class::I64);
                    let (lo, hi) = (self.constants.add(vec![lo as i64]), self.constants.add(vec![hi as i64]));
                    let clamped = self.emit(Action::Clamp, &[wide, lo, hi], Class::I64);
                    self.narrowed(clamped, Class::I64, own)
                }
            }
            (Op::At, _) if self.one_table(args[0]).is_some() => {
                let table = self.one_table(args[0]).unwrap_or_default();
                let table = self.table(table, own);
                let index = self.operand(args[1], self.class(args[1]).min(Class::I64));
                self.emit(Action::At(table), &[index], own)
            }
            (Op::Bucket, _) if self.one_table(args[1]).is_some() => {
                let table = self.one_table(args[1]).unwrap_or_default();
                let edges = self.graph.nodes[args[1]].range();
                let class = match self.graph.nodes[args[0]].ty {
                    Type::Int => self.class(args[0]).max(lane_class(Type::Int, edges)),
                    _ => self.class(args[0]),
                };
                let edges = self.table(table, class);
                let value = self.operand(args[0], class);
                self.emit(Action::Bucket(edges), &[value], Class::I32)
            }
            (op, Type::Float(format)) => match float_action(op) {
                Some(action) => self.float_action(action, &args, format),
                None => return self.reference(id, &args, own),
            },
            _ => return self.reference(id, &args, own),
        };
        self.values.insert(id, source);
    }

    fn operands(&mut self, args: &[NodeId], class: Class) -> Vec<Source> {
        args.iter().map(|&arg| self.operand(arg, class)).collect()
    }

    fn same(&mut self, action: Action, args: &[NodeId], class: Class) -> Source {
        let sources = self.operands(args, class);
        self.emit(action, &sources, class)
    }

    /// An action in lanes of `class`, its result in lanes of `own`.
    fn int_action(&mut self, action: Action, args: &[NodeId], class: Class, own: Class) -> Source {
        let sources = self.operands(args, class);
        let wide = self.emit(action, &sources, class);
        self.narrowed(wide, class, own)
    }

    fn narrowed(&mut self, source: Source, class: Class, own: Class) -> Source {
        if class == own { source } else { self.emit(Action::Convert, &[source], own) }
    }

    /// Lanes in which every shift count is below the width.
    fn at_least_count(&self, class: Class, count: NodeId) -> Class {
        match self.graph.nodes[count].range().int().1 {
            ..=31 => class,
            32..=63 => class.max(Class::I64),
            _ => Class::I128,
        }
    }

    fn shift_of(&self, mode: Rounding, value: NodeId, count: NodeId, class: Class) -> Shift {
        let (lo, hi) = self.graph.nodes[value].range().int();
        let most = self.graph.nodes[count].range().int().1;
        let half = if most == 0 { 0 } else { 1i128 << (most - 1).min(100) };
        let top = match class {
            Class::I32 => i128::from(i32::MAX),
            Class::I64 => i128::from(i64::MAX),
            _ => 0,
        };
        // `1 << n` itself must keep its sign for the half to be right, and `lo - 1 + half` cannot go below `lo`.
        let fits = lo >= -top - 1 && hi <= top - half && 2 * half <= top;
        match mode {
            Rounding::Floor => Shift::Floor,
            Rounding::HalfUp if fits => Shift::AddHalfUp,
            Rounding::HalfAway if fits => Shift::AddHalfAway,
            mode => Shift::Threshold(mode),
        }
    }

    fn cast(&mut self, arg: NodeId, format: FloatType) -> Source {
        let node = &self.graph.nodes[arg];
        let (ty, range) = (node.ty, node.range());
        match (ty, format) {
            (_, FloatType::F32) => {
                let class = self.class(arg);
                let source = self.operand(arg, class);
                if class == Class::F32 { source } else { self.emit(Action::Convert, &[source], Class::F32) }
            }
            (_, FloatType::F64) => {
                let class = self.class(arg);
                let source = self.operand(arg, class);
                if class == Class::F64 { source } else { self.emit(Action::Convert, &[source], Class::F64) }
            }
            (Type::Int, half) if !range.within(-(1 << 53), 1 << 53) => {
                // Beyond 2^53 every value is an infinity of f16; bf16 sees the same ties in f64 up to a rounding
                // to odd, which only the reference does.
                let class = self.class(arg);
                let source = self.operand(arg, class);
                let node = Node {
                    op: Op::ToFloat(half),
                    args: [arg].as_slice().into(),
                    ty: Type::Float(half),
                    rate: node.rate,
                    proven: Interval::ANY_FLOAT,
                    frozen: None,
                    literal: None,
                    name: None,
                    site: node.site.clone(),
                };
                let reference = Reference { node, args: vec![Argument::Lane(source, Type::Int)] };
                self.emit(Action::Reference(Box::new(reference)), &[], Class::F32)
            }
            (Type::Float(FloatType::F32), FloatType::F16) => {
                let source = self.operand(arg, Class::F32);
                self.emit(Action::RoundF16, &[source], Class::F32)
            }
            (_, half) => {
                let source = self.operand(arg, Class::F64);
                self.emit(Action::RoundHalf(half), &[source], Class::F32)
            }
        }
    }

    fn float_action(&mut self, action: Action, args: &[NodeId], format: FloatType) -> Source {
        match format {
            FloatType::F32 => self.same(action, args, Class::F32),
            FloatType::F64 => self.same(action, args, Class::F64),
            // Choosing, negating and integral rounding stay in the format.
            half => match action {
                Action::Min | Action::Max | Action::Clamp | Action::Neg | Action::Abs | Action::Round(_) => {
                    self.same(action, args, Class::F32)
                }
                Action::Fma => {
                    let sources = self.operands(args, Class::F64);
                    self.emit(Action::FmaHalf(half), &sources, Class::F32)
                }
                // One rounding to f32 before that to f16 changes nothing.
                Action::Add | Action::Sub | Action::Mul | Action::Div if half == FloatType::F16 => {
                    let wide = self.same(action, args, Class::F32);
                    self.emit(Action::RoundF16, &[wide], Class::F32)
                }
                action => {
                    let wide = self.same(action, args, Class::F64);
                    self.emit(Action::RoundHalf(half), &[wide], Class::F32)
                }
            },
        }
    }

    fn reference(&mut self, id: NodeId, args: &[NodeId], own: Class) {
        let args = args
            .iter()
            .map(|&arg| {
                let node = &self.graph.nodes[arg];
                if node.ty == Type::Table {
                    let tables = node.frozen.iter().flat_map(Column::tables);
                    return Argument::Tables(tables.cloned().map(Datum::Table).collect());
                }
                let class = self.class(arg);
                Argument::Lane(self.operand(arg, class), node.ty)
            })
            .collect();
        let reference = Reference { node: self.graph.nodes[id].clone(), args };
        let source = self.emit(Action::Reference(Box::new(reference)), &[], own);
        self.values.insert(id, source);
    }
}

fn float_action(op: Op) -> Option<Action> {
    Some(match op {
        Op::Add => Action::Add,
        Op::Sub => Action::Sub,
        Op::Mul => Action::Mul,
        Op::Div => Action::Div,
        Op::Min => Action::Min,
        Op::Max => Action::Max,
        Op::Clamp => Action::Clamp,
        Op::Neg => Action::Neg,
        Op::Abs => Action::Abs,
        Op::Fma => Action::Fma,
        Op::Round(mode) => Action::Round(mode),
        Op::Math(function) => Action::Math(function),
        _ => return None,
    })
}

fn int(value: Value) -> i128 {
    match value {
        Value::Int(v) => v,
        Value::Bool(v) => v.into(),
        _ => 0,
    }
}

fn float(value: Value) -> f64 {
    value.as_float().unwrap_or(int(value) as f64)
}

impl Instruction {
    fn sources(&mut self) -> impl Iterator<Item = &mut Source> {
        let lanes = match &mut self.action {
            Action::Reference(reference) => reference.args.as_mut_slice(),
            _ => &mut [],
        };
        [&mut self.a, &mut self.b, &mut self.c].into_iter().chain(lanes.iter_mut().filter_map(|a| match a {
            Argument::Lane(source, _) => Some(source),
            Argument::Tables(_) => None,
        }))
    }
}

impl TileProgram {
    /// Gives registers back after their last use. A destination never shares a register with an operand.
    fn share_registers(&mut self) {
        let mut last: HashMap<(Class, u16), usize> = HashMap::new();
        for (at, instruction) in self.instructions.iter_mut().enumerate() {
            for source in instruction.sources() {
                if let Source::Register(class, index) = source {
                    last.insert((*class, *index), at);
                }
            }
        }
        if let Source::Register(class, index) = self.result {
            last.insert((class, index), usize::MAX);
        }
        let mut free: [Vec<u16>; 5] = Default::default();
        let mut counts = [0u16; 5];
        let mut place: HashMap<(Class, u16), u16> = HashMap::new();
        for (at, instruction) in self.instructions.iter_mut().enumerate() {
            let virtual_destination = (instruction.class, instruction.destination);
            let class = instruction.class as usize;
            let chosen = free[class].pop().unwrap_or_else(|| {
                counts[class] += 1;
                counts[class] - 1
            });
            instruction.destination = chosen;
            let mut released = Vec::new();
            for source in instruction.sources() {
                if let Source::Register(class, index) = source {
                    let key = (*class, *index);
                    *index = place[&key];
                    if last[&key] == at {
                        released.push((*class, *index));
                    }
                }
            }
            released.sort_unstable();
            released.dedup();
            for (class, index) in released {
                free[class as usize].push(index);
            }
            place.insert(virtual_destination, chosen);
            if !last.contains_key(&virtual_destination) {
                free[class].push(chosen);
            }
        }
        if let Source::Register(class, index) = &mut self.result {
            *index = place[&(*class, *index)];
        }
        self.registers = counts.map(usize::from);
    }
}
