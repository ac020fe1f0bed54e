//! Syntax tree of the arithmetic language. Every expression knows the text that it came from.

use crate::error::{Error, Location};
use std::ops::Range;
use std::sync::Arc;

/// A piece of program text and where it comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Text {
    /// The text.
    pub text: String,
    /// File and key, for messages.
    pub origin: String,
}

impl Text {
    /// A text with its origin.
    pub fn new(text: impl Into<String>, origin: impl Into<String>) -> Self {
        Text { text: text.into(), origin: origin.into() }
    }
}

/// A range of bytes in a text.
#[derive(Debug, Clone)]
pub(super) struct Site {
    pub source: Arc<Text>,
    pub span: Range<usize>,
}

impl Site {
    /// The location for messages.
    pub fn location(&self) -> Location {
        Location::Text { origin: self.source.origin.clone(), text: self.source.text.clone(), span: self.span.clone() }
    }

    /// An error at this place.
    pub fn error(&self, code: &'static str, message: impl Into<String>) -> Error {
        Error::invalid(code, message).at(self.location())
    }

    /// The text at this place, with runs of blanks made one.
    pub fn excerpt(&self) -> String {
        let text = self.source.text.get(self.span.clone()).unwrap_or_default();
        text.split_whitespace().collect::<Vec<_>>().join(" ")
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Binary {
    Add,
    Sub,
    Mul,
    Div,
    Pow,
    ShiftLeft,
    Less,
    LessEqual,
    Greater,
    GreaterEqual,
    Equal,
    NotEqual,
    And,
    Or,
}

impl Binary {
    pub fn symbol(self) -> &'static str {
        match self {
            Binary::Add => "+",
            Binary::Sub => "-",
            Binary::Mul => "*",
            Binary::Div => "/",
            Binary::Pow => "^",
            Binary::ShiftLeft => "<<",
            Binary::Less => "<",
            Binary::LessEqual => "<=",
            Binary::Greater => ">",
            Binary::GreaterEqual => ">=",
            Binary::Equal => "==",
            Binary::NotEqual => "!=",
            Binary::And => "&&",
            Binary::Or => "||",
        }
    }

    /// Binding strength; higher binds tighter.
    pub fn level(self) -> u8 {
        match self {
            Binary::Or => 1,
            Binary::And => 2,
            Binary::Less
            | Binary::LessEqual
            | Binary::Greater
            | Binary::GreaterEqual
            | Binary::Equal
            | Binary::NotEqual => 3,
            Binary::ShiftLeft => 4,
            Binary::Add | Binary::Sub => 5,
            Binary::Mul | Binary::Div => 6,
            Binary::Pow => 8,
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loop {
    First,
    Argmin,
    Table,
}

#[derive(Debug, Clone)]
pub(super) enum ExprKind {
    Int(i128),
    /// A decimal or hexadecimal real, as written.
    Real(String),
    Bool(bool),
    Name(String),
    Negate(Box<Expr>),
    Not(Box<Expr>),
    Binary(Binary, Box<Expr>, Box<Expr>),
    Call(String, Vec<Expr>),
    List(Vec<Expr>),
    Loop {
        kind: Loop,
        variable: String,
        lo: Box<Expr>,
        hi: Box<Expr>,
        body: Box<Expr>,
    },
}

#[derive(Debug, Clone)]
pub(super) struct Expr {
    pub kind: ExprKind,
    pub site: Site,
    /// Operations on the longest path to a leaf.
    pub depth: usize,
}

/// `name = value`.
#[derive(Debug, Clone)]
pub(super) struct Statement {
    pub name: String,
    pub value: Expr,
}

/// Statements and the result.
#[derive(Debug, Clone)]
pub(super) struct Body {
    pub statements: Vec<Statement>,
    pub result: Expr,
}

impl Body {
    /// Every expression, the result last.
    pub fn expressions(&self) -> impl Iterator<Item = &Expr> {
        self.statements.iter().map(|s| &s.value).chain([&self.result])
    }
}

impl ExprKind {
    /// Calls `visit` for the direct operands.
    pub fn children<'e>(&'e self, visit: &mut dyn FnMut(&'e Expr)) {
        match self {
            ExprKind::Int(_) | ExprKind::Real(_) | ExprKind::Bool(_) | ExprKind::Name(_) => {}
            ExprKind::Negate(a) | ExprKind::Not(a) => visit(a),
            ExprKind::Binary(_, a, b) => {
                visit(a);
                visit(b);
            }
            ExprKind::Call(_, args) | ExprKind::List(args) => args.iter().for_each(visit),
            ExprKind::Loop { lo, hi, body, .. } => {
                visit(lo);
                visit(hi);
                visit(body);
            }
        }
    }
}

impl Expr {
    /// Calls `visit` for this expression and all below it.
    pub fn walk(&self, visit: &mut dyn FnMut(&Expr)) {
        visit(self);
        self.kind.children(&mut |child| child.walk(visit));
    }
}
