//! The functions of the language.

use super::check::Lower;
use super::column::Column;
use super::graph::{Math, NodeId, Op};
use super::interval::type_range;
use super::sharing::Map;
use super::syntax::{Expr, ExprKind, Site};
use super::types::{Datum, Rate, Type, Value};
use crate::error::nearest;
use crate::error::{Error, Result};
use crate::num::{FloatType, Rounding};
use std::sync::LazyLock;

/// Name, arguments as shown in messages, least and greatest number of arguments.
type Builtin = (&'static str, &'static str, usize, usize);

/// A function of the language, and which one of f64 it is.
type Found = (&'static Builtin, Option<Math>);

const BUILTINS: &[Builtin] = &[
    ("abs", "value", 1, 1),
    ("min", "a, b, … or table", 1, 16),
    ("max", "a, b, … or table", 1, 16),
    ("clamp", "value, lo, hi", 3, 3),
    ("select", "condition, if_true, if_false", 3, 3),
    ("shl", "value, n", 2, 2),
    ("shr", "value, n, mode", 3, 3),
    ("div", "value, d, mode", 3, 3),
    ("sat", "value, type | value, y | value, lo, hi", 2, 3),
    ("wrap", "value, type", 2, 2),
    ("clz", "value, bits", 1, 2),
    ("floor_log2", "value", 1, 1),
    ("at", "table, index", 2, 2),
    ("bucket", "value, edges", 2, 2),
    ("sum", "table", 1, 1),
    ("max_abs", "table", 1, 1),
    ("channel_max", "value", 1, 1),
    ("len", "table", 1, 1),
    ("first", "i in lo..hi : condition", 1, 1),
    ("argmin", "i in lo..hi : value", 1, 1),
    ("table", "n, i -> value", 2, 2),
    ("int", "value, mode", 1, 2),
    ("round", "value, mode", 2, 2),
    ("fl", "value, bits, mode", 3, 3),
    ("f16", "value", 1, 1),
    ("bf16", "value", 1, 1),
    ("f32", "value", 1, 1),
    ("f64", "value", 1, 1),
    ("fma", "a, b, c", 3, 3),
    ("mantissa", "value", 1, 1),
    ("exponent", "value", 1, 1),
    ("ldexp", "value, n", 2, 2),
    ("exp", "value", 1, 1),
    ("exp2", "value", 1, 1),
    ("expm1", "value", 1, 1),
    ("log", "value", 1, 1),
    ("log2", "value", 1, 1),
    ("log1p", "value", 1, 1),
    ("sqrt", "value", 1, 1),
    ("rsqrt", "value", 1, 1),
    ("cbrt", "value", 1, 1),
    ("sin", "value", 1, 1),
    ("cos", "value", 1, 1),
    ("tan", "value", 1, 1),
    ("atan", "value", 1, 1),
    ("tanh", "value", 1, 1),
    ("erf", "value", 1, 1),
    ("sigmoid", "value", 1, 1),
    ("pow", "base, exponent", 2, 2),
];

/// The function of the language itself that has this name, and which function of f64 it is.
pub(super) fn find(name: &str) -> Option<Found> {
    static BY_NAME: LazyLock<Map<&str, Found>> = LazyLock::new(|| {
        let math = |name: &str| Math::ALL.iter().find(|(known, _)| *known == name).map(|(_, function)| *function);
        BUILTINS.iter().map(|builtin| (builtin.0, (builtin, math(builtin.0)))).collect()
    });
    BY_NAME.get(name).copied()
}

/// Whether the language itself has a function of that name.
pub(super) fn is_builtin(name: &str) -> bool {
    find(name).is_some()
}

/// An unknown function, with the nearest known one.
pub(super) fn unknown_function<'n>(name: &str, user: impl Iterator<Item = &'n str>, site: &Site) -> Error {
    let error = site.error("program_unknown_function", format!("unknown function '{name}'"));
    match nearest(name, BUILTINS.iter().map(|b| b.0).chain(user)) {
        Some(near) => error.help(format!("did you mean '{near}'?")),
        None => error,
    }
}

/// Checks the number of arguments of a function of the language.
pub(super) fn check_arity(((name, shape, least, most), _): Found, count: usize, site: &Site) -> Result<()> {
    match (*least..=*most).contains(&count) {
        true => Ok(()),
        false => Err(site
            .error("program_arity", format!("{name} has {count} arguments"))
            .help(format!("write {name}({shape})"))),
    }
}

fn mode(e: &Expr) -> Result<Rounding> {
    let names = || Rounding::ALL.iter().map(|m| m.name());
    let ExprKind::Name(name) = &e.kind else {
        return Err(e
            .site
            .error("program_mode", "expected a rounding mode")
            .help(names().collect::<Vec<_>>().join(", ")));
    };
    Rounding::parse(name).ok_or_else(|| {
        let error = e.site.error("program_mode", format!("unknown rounding mode '{name}'"));
        match nearest(name, names()) {
            Some(near) => error.help(format!("did you mean '{near}'?")),
            None => error.help(format!("modes: {}", names().collect::<Vec<_>>().join(", "))),
        }
    })
}

/// `i8`, `u16` …: bits and signedness.
fn int_type(e: &Expr) -> Option<(u32, bool)> {
    let ExprKind::Name(name) = &e.kind else { return None };
    let signed = name.starts_with('i');
    let digits = name.strip_prefix(['i', 'u'])?;
    let bits: u32 = digits.parse().ok().filter(|_| !digits.starts_with(['0', '+']))?;
    let largest = if signed { 64 } else { 63 };
    (1..=largest).contains(&bits).then_some((bits, signed))
}

impl<'a> Lower<'a> {
    pub(super) fn builtin(&mut self, found: Found, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        check_arity(found, args.len(), site)?;
        let (&(name, ..), math) = found;
        if let Some(function) = math {
            let ids = args
                .iter()
                .map(|arg| {
                    let id = self.expr(arg)?;
                    self.promoted(id, site)
                })
                .collect::<Result<Vec<_>>>()?;
            return self.operation(Op::Math(function), &ids, Type::Float(FloatType::F64), site);
        }
        match name {
            "shr" | "div" => {
                let mode = mode(&args[2])?;
                let (v, n) = (self.int_arg(&args[0])?, self.int_arg(&args[1])?);
                let op = if name == "shr" { Op::Shr(mode) } else { Op::DivInt(mode) };
                self.operation(op, &[v, n], Type::Int, site)
            }
            "shl" => {
                let (v, n) = (self.int_arg(&args[0])?, self.int_arg(&args[1])?);
                self.operation(Op::Shl, &[v, n], Type::Int, site)
            }
            "sat" => self.saturate(args, site),
            "wrap" => {
                let Some((bits, signed)) = int_type(&args[1]) else { return Err(no_type(&args[1].site)) };
                let v = self.int_arg(&args[0])?;
                self.operation(Op::Wrap { bits, signed }, &[v], Type::Int, site)
            }
            "abs" => {
                let v = self.expr(&args[0])?;
                let ty = self.node(v).ty;
                match ty {
                    Type::Int | Type::Float(_) | Type::Literal => self.operation(Op::Abs, &[v], ty, site),
                    ty => Err(site.error("program_type", format!("abs of {ty}"))),
                }
            }
            "min" | "max" => self.extreme(name == "min", args, site),
            "clamp" => {
                let mut ids = args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>>>()?;
                let ty = self.unify(&mut ids, site)?;
                self.operation(Op::Clamp, &ids, ty, site)
            }
            "select" => self.select(args, site),
            "clz" => {
                let bits = match args.get(1).map(|e| &e.kind) {
                    None => 32,
                    Some(ExprKind::Int(bits)) if (1..=64).contains(bits) => *bits as u32,
                    Some(_) => return Err(args[1].site.error("program_type", "clz takes a width of 1 to 64")),
                };
                let v = self.int_arg(&args[0])?;
                self.operation(Op::Clz(bits), &[v], Type::Int, site)
            }
            "floor_log2" => {
                let v = self.expr(&args[0])?;
                let v = if self.node(v).ty == Type::Int { v } else { self.some_float(v, site)? };
                self.operation(Op::FloorLog2, &[v], Type::Int, site)
            }
            "at" => {
                let (table, index) = (self.table_arg(&args[0])?, self.int_arg(&args[1])?);
                let ty = self.element_type(table);
                self.operation(Op::At, &[table, index], ty, site)
            }
            "bucket" => self.bucket(args, site),
            "sum" | "max_abs" | "len" => {
                let table = self.table_arg(&args[0])?;
                let element = self.element_type(table);
                let (op, ty) = match (name, element) {
                    ("len", _) => (Op::Length, Type::Int),
                    (_, Type::Bool) => return Err(site.error("program_type", format!("{name} of a table of bool"))),
                    ("sum", Type::Int) => (Op::Sum, Type::Int),
                    ("sum", _) => (Op::Sum, Type::Float(FloatType::F64)),
                    (_, ty) => (Op::MaxAbs, ty),
                };
                self.operation(op, &[table], ty, site)
            }
            "channel_max" => self.channel_max(&args[0], site),
            "int" => self.rounded(args, site),
            "f16" => self.cast(&args[0], FloatType::F16, site),
            "bf16" => self.cast(&args[0], FloatType::Bf16, site),
            "f32" => self.cast(&args[0], FloatType::F32, site),
            "f64" => self.cast(&args[0], FloatType::F64, site),
            "round" => {
                let mode = mode(&args[1])?;
                let v = self.float_arg(&args[0], site)?;
                let ty = self.node(v).ty;
                self.operation(Op::Round(mode), &[v], ty, site)
            }
            "fl" => {
                let mode = mode(&args[2])?;
                let (v, bits) = (self.float_arg(&args[0], site)?, self.int_arg(&args[1])?);
                let ty = self.node(v).ty;
                self.operation(Op::Significant(mode), &[v, bits], ty, site)
            }
            "fma" => {
                let mut ids = args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>>>()?;
                let ty = self.unify(&mut ids, site)?;
                match ty {
                    Type::Float(_) => self.operation(Op::Fma, &ids, ty, site),
                    ty => Err(site
                        .error("program_type", format!("fma of {ty}"))
                        .help("an int product is exact: a * b + c")),
                }
            }
            "mantissa" => {
                let v = self.float_arg(&args[0], site)?;
                let ty = self.node(v).ty;
                self.operation(Op::Mantissa, &[v], ty, site)
            }
            "exponent" => {
                let v = self.float_arg(&args[0], site)?;
                if self.node(v).rate.is_run() {
                    let (lo, hi, nan) = self.node(v).range().float();
                    if nan || !lo.is_finite() || !hi.is_finite() {
                        return Err(site
                            .error("program_range", "exponent takes finite floats")
                            .help("clamp the float before it"));
                    }
                }
                self.operation(Op::Exponent, &[v], Type::Int, site)
            }
            "ldexp" => {
                let (v, n) = (self.float_arg(&args[0], site)?, self.int_arg(&args[1])?);
                let ty = self.node(v).ty;
                self.operation(Op::Ldexp, &[v, n], ty, site)
            }
            other => Err(site
                .error("program_syntax", format!("'{other}' has its own form"))
                .help("see the language reference")),
        }
    }

    /// The largest of a constant's values over all channels.
    fn channel_max(&mut self, e: &'a Expr, site: &Site) -> Result<NodeId> {
        let id = self.expr(e)?;
        let node = self.node(id);
        let ty = node.ty;
        if !matches!(ty, Type::Int | Type::Float(_)) {
            return Err(node.site.error("program_type", format!("channel_max of {ty}")));
        }
        let Some(column) = node.frozen.as_ref().filter(|_| node.rate < Rate::Loop) else {
            return Err(node.site.error("program_rate", "channel_max takes a value that is known at prepare"));
        };
        let larger = |a: Value, b: Value| match (a, b) {
            (Value::Int(x), Value::Int(y)) => x >= y,
            (x, y) => x.as_float() >= y.as_float(),
        };
        let largest = match column.check() {
            Err(error) => Err(error.clone()),
            Ok(()) => {
                let largest = column.try_map(Some).unwrap_or_default().into_iter();
                let largest = largest.reduce(|a, b| if larger(a, b) { a } else { b });
                Ok(Datum::Value(largest.ok_or_else(|| site.error("program_rate", "there are no channels"))?))
            }
        };
        Ok(self.leaf(Column::One(largest), ty, None, site))
    }

    fn int_arg(&mut self, e: &'a Expr) -> Result<NodeId> {
        let id = self.expr(e)?;
        self.expect_int(id)?;
        Ok(id)
    }

    fn table_arg(&mut self, e: &'a Expr) -> Result<NodeId> {
        let id = self.expr(e)?;
        let node = self.node(id);
        if node.ty != Type::Table {
            return Err(node.site.error("program_type", format!("expected a table, found {}", node.ty)));
        }
        self.use_frozen(id)?;
        Ok(id)
    }

    fn element_type(&self, table: NodeId) -> Type {
        let mut tables = self.node(table).frozen.iter().flat_map(Column::tables);
        tables.next().and_then(|table| table.first()).map_or(Type::Int, |v| v.type_of())
    }

    /// A float; a literal counts as f64.
    fn some_float(&mut self, id: NodeId, site: &Site) -> Result<NodeId> {
        match self.node(id).ty {
            Type::Float(_) => Ok(id),
            Type::Literal => self.convert(id, FloatType::F64, site),
            ty => Err(self
                .node(id)
                .site
                .error("program_type", format!("expected a float, found {ty}"))
                .help("f32(…) and f64(…) make one")),
        }
    }

    fn float_arg(&mut self, e: &'a Expr, site: &Site) -> Result<NodeId> {
        let id = self.expr(e)?;
        self.some_float(id, site)
    }

    /// Any number as f64, exactly.
    fn promoted(&mut self, id: NodeId, site: &Site) -> Result<NodeId> {
        match self.node(id).ty {
            Type::Float(FloatType::F64) => Ok(id),
            Type::Float(_) => self.operation(Op::ToFloat(FloatType::F64), &[id], Type::Float(FloatType::F64), site),
            _ => self.convert(id, FloatType::F64, site),
        }
    }

    fn cast(&mut self, e: &'a Expr, format: FloatType, site: &Site) -> Result<NodeId> {
        let id = self.expr(e)?;
        let node = self.node(id);
        match node.ty {
            Type::Float(found) if found == format => Ok(id),
            Type::Literal if node.literal.is_some() => self.convert(id, format, site),
            Type::Table => Err(node.site.error("program_type", "expected a number, found table")),
            _ => self.operation(Op::ToFloat(format), &[id], Type::Float(format), site),
        }
    }

    fn rounded(&mut self, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        let id = self.expr(&args[0])?;
        let ty = self.node(id).ty;
        match (ty, args.get(1)) {
            (Type::Int, None) => Ok(id),
            (Type::Int, Some(m)) => {
                mode(m)?;
                Ok(id)
            }
            (Type::Bool, None) => self.operation(Op::ToInt(Rounding::Trunc), &[id], Type::Int, site),
            (Type::Float(_) | Type::Literal, Some(m)) => {
                let mode = mode(m)?;
                let id = self.some_float(id, site)?;
                self.operation(Op::ToInt(mode), &[id], Type::Int, site)
            }
            (Type::Float(_) | Type::Literal, None) => {
                Err(site.error("program_mode", "int of a float names its rounding").help("int(value, half_even)"))
            }
            (ty, _) => Err(site.error("program_type", format!("int of {ty}"))),
        }
    }

    fn saturate(&mut self, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        let v = self.int_arg(&args[0])?;
        let (lo, hi) = if args.len() == 3 {
            (self.int_arg(&args[1])?, self.int_arg(&args[2])?)
        } else {
            let at = &args[1].site;
            let (lo, hi) = match (int_type(&args[1]), &args[1].kind, self.env.output) {
                (Some((bits, signed)), ..) => type_range(bits, signed),
                (None, ExprKind::Name(name), Some((lo, hi))) if name == "y" => (lo.into(), hi.into()),
                (None, ExprKind::Name(name), None) if name == "y" => {
                    return Err(at
                        .error("program_type", "there is no output range here")
                        .help("write sat(value, lo, hi)"));
                }
                _ => return Err(no_type(at)),
            };
            (self.constant(Value::Int(lo), at), self.constant(Value::Int(hi), at))
        };
        self.operation(Op::Clamp, &[v, lo, hi], Type::Int, site)
    }

    fn extreme(&mut self, least: bool, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        let mut ids = args.iter().map(|arg| self.expr(arg)).collect::<Result<Vec<_>>>()?;
        if let [table] = ids[..] {
            if self.node(table).ty != Type::Table {
                return Err(site.error("program_arity", "min and max take two values or more, or a table"));
            }
            let ty = self.element_type(table);
            return self.operation(if least { Op::TableMin } else { Op::TableMax }, &[table], ty, site);
        }
        let ty = self.unify(&mut ids, site)?;
        let op = if least { Op::Min } else { Op::Max };
        let mut all = ids[0];
        for &id in &ids[1..] {
            all = self.operation(op, &[all, id], ty, site)?;
        }
        Ok(all)
    }

    fn select(&mut self, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        let condition = self.expr(&args[0])?;
        self.expect_bool(condition)?;
        let (yes, no) = (self.expr(&args[1])?, self.expr(&args[2])?);
        let mut ids = [yes, no];
        let bools = ids.iter().all(|&id| self.node(id).ty == Type::Bool);
        let ty = if bools { Type::Bool } else { self.unify(&mut ids, site)? };
        // A condition that is the same for all channels chooses now; what it leaves out need not be computable.
        if let Some(Value::Bool(truth)) = self.node(condition).uniform() {
            return Ok(ids[usize::from(!truth)]);
        }
        self.operation(Op::Select, &[condition, ids[0], ids[1]], ty, site)
    }

    fn bucket(&mut self, args: &'a [Expr], site: &Site) -> Result<NodeId> {
        let v = self.expr(&args[0])?;
        let edges = self.table_arg(&args[1])?;
        let element = self.element_type(edges);
        let v = match (self.node(v).ty, element) {
            (Type::Int, Type::Int) => v,
            (_, Type::Float(format)) => self.convert(v, format, site)?,
            (ty, element) => {
                return Err(site.error("program_type", format!("bucket of {ty} among edges of {element}")));
            }
        };
        for table in self.node(edges).frozen.iter().flat_map(Column::tables) {
            let sorted = table.windows(2).all(|w| match (w[0], w[1]) {
                (Value::Int(a), Value::Int(b)) => a <= b,
                (a, b) => a.as_float() <= b.as_float(),
            });
            if !sorted {
                return Err(site.error("program_table", "the edges of a bucket must rise"));
            }
        }
        self.operation(Op::Bucket, &[v, edges], Type::Int, site)
    }
}

fn no_type(site: &Site) -> Error {
    site.error("program_type", "expected a type such as i8, u8, i16, i32, i64").help("i1 to i64 and u1 to u63 exist")
}
