//! Tokens to syntax tree.

use super::lexer::{Token, tokens};
use super::syntax::{Binary, Body, Expr, ExprKind, Loop, Site, Statement, Text};
use crate::error::{Error, Result};
use std::ops::Range;
use std::sync::Arc;

/// Deepest nesting of brackets and calls.
const MAX_NESTING: usize = 100;
/// Longest path from an expression down to its leaves; later passes recurse as deep.
const MAX_DEPTH: usize = 200;

/// A single expression.
pub(super) fn expression(text: &Text) -> Result<Expr> {
    let mut parser = Parser::new(text)?;
    parser.skip_breaks();
    let value = parser.expression(0)?;
    parser.skip_breaks();
    parser.expect_end()?;
    Ok(value)
}

/// Statements, the last of which is the result: `y = …`, or a bare expression.
pub(super) fn body(text: &Text) -> Result<Body> {
    let mut parser = Parser::new(text)?;
    let mut statements = Vec::new();
    loop {
        parser.skip_breaks();
        let name = match (&parser.tokens[parser.at].0, parser.tokens.get(parser.at + 1)) {
            (Token::Name(name), Some((Token::Symbol("="), _))) => Some(name.clone()),
            _ => None,
        };
        if name.is_some() {
            parser.at += 2;
            parser.skip_breaks();
        }
        let value = parser.expression(0)?;
        if !matches!(parser.peek(), Token::Break | Token::End) {
            return Err(parser.unexpected("an operator or the end of the line"));
        }
        parser.skip_breaks();
        if *parser.peek() == Token::End {
            return Ok(Body { statements, result: value });
        }
        let Some(name) = name else {
            return Err(value
                .site
                .error("program_result", "only the last line may be a bare expression")
                .help("write `name = expression`"));
        };
        if name.contains('.') || name.ends_with('\'') {
            return Err(value
                .site
                .error("program_name", format!("'{name}' cannot be assigned: it is given from outside")));
        }
        statements.push(Statement { name, value });
    }
}

struct Parser {
    source: Arc<Text>,
    tokens: Vec<(Token, Range<usize>)>,
    at: usize,
    depth: usize,
}

impl Parser {
    fn new(text: &Text) -> Result<Parser> {
        let source = Arc::new(text.clone());
        Ok(Parser { tokens: tokens(&source)?, source, at: 0, depth: 0 })
    }

    fn peek(&self) -> &Token {
        &self.tokens[self.at].0
    }

    fn span(&self) -> Range<usize> {
        self.tokens[self.at].1.clone()
    }

    /// Moves on; the end token is never passed.
    fn next(&mut self) -> (Token, Range<usize>) {
        let token = self.tokens[self.at].clone();
        self.at = (self.at + 1).min(self.tokens.len() - 1);
        token
    }

    fn skip_breaks(&mut self) {
        while *self.peek() == Token::Break {
            self.at += 1;
        }
    }

    fn site(&self, span: Range<usize>) -> Site {
        Site { source: self.source.clone(), span }
    }

    fn make(&self, kind: ExprKind, span: Range<usize>) -> Result<Expr> {
        let site = self.site(span);
        let mut below = 0;
        kind.children(&mut |child| below = below.max(child.depth));
        if below >= MAX_DEPTH {
            return Err(site.error("program_depth", format!("the expression is deeper than {MAX_DEPTH} operations")));
        }
        Ok(Expr { kind, site, depth: below + 1 })
    }

    fn unexpected(&self, wanted: &str) -> Error {
        let found = match self.peek() {
            Token::Int(v) => v.to_string(),
            Token::Real(v) => v.clone(),
            Token::Name(name) => format!("'{name}'"),
            Token::Symbol(symbol) => format!("'{symbol}'"),
            Token::Break => "the end of the line".into(),
            Token::End => "the end of the text".into(),
        };
        self.site(self.span()).error("program_syntax", format!("expected {wanted}, found {found}"))
    }

    fn expect(&mut self, symbol: &'static str) -> Result<Range<usize>> {
        if *self.peek() == Token::Symbol(symbol) {
            Ok(self.next().1)
        } else {
            Err(self.unexpected(&format!("'{symbol}'")))
        }
    }

    fn expect_end(&self) -> Result<()> {
        if *self.peek() == Token::End { Ok(()) } else { Err(self.unexpected("the end of the expression")) }
    }

    fn take(&mut self, symbol: &'static str) -> bool {
        let found = *self.peek() == Token::Symbol(symbol);
        if found {
            self.at += 1;
        }
        found
    }

    fn enter(&mut self) -> Result<()> {
        self.depth += 1;
        if self.depth > MAX_NESTING {
            let site = self.site(self.span());
            return Err(site.error("program_depth", format!("expressions nest deeper than {MAX_NESTING}")));
        }
        Ok(())
    }

    fn binary(&self) -> Result<Option<Binary>> {
        let Token::Symbol(symbol) = self.peek() else { return Ok(None) };
        Ok(Some(match *symbol {
            "+" => Binary::Add,
            "-" => Binary::Sub,
            "*" => Binary::Mul,
            "/" => Binary::Div,
            "^" => Binary::Pow,
            "<<" => Binary::ShiftLeft,
            "<" => Binary::Less,
            "<=" => Binary::LessEqual,
            ">" => Binary::Greater,
            ">=" => Binary::GreaterEqual,
            "==" => Binary::Equal,
            "!=" => Binary::NotEqual,
            "&&" => Binary::And,
            "||" => Binary::Or,
            ">>" => {
                return Err(self
                    .unexpected("an operator")
                    .help("a right shift names its rounding: shr(value, n, floor)"));
            }
            "%" => return Err(self.unexpected("an operator").help("use value - d * div(value, d, floor)")),
            "=" => return Err(self.unexpected("an operator").help("comparison is `==`")),
            _ => return Ok(None),
        }))
    }

    fn expression(&mut self, minimum: u8) -> Result<Expr> {
        self.enter()?;
        let mut left = self.unary()?;
        while let Some(operator) = self.binary()? {
            let level = operator.level();
            if level < minimum {
                break;
            }
            self.at += 1;
            self.skip_breaks();
            let right = if operator == Binary::Pow { self.expression(level - 1)? } else { self.expression(level + 1)? };
            if level == Binary::Less.level() && self.binary()?.is_some_and(|next| next.level() == level) {
                return Err(self.unexpected("no second comparison").help("join comparisons with &&"));
            }
            let span = left.site.span.start..right.site.span.end;
            left = self.make(ExprKind::Binary(operator, Box::new(left), Box::new(right)), span)?;
        }
        self.depth -= 1;
        Ok(left)
    }

    fn unary(&mut self) -> Result<Expr> {
        let start = self.span().start;
        let negate = *self.peek() == Token::Symbol("-");
        if negate || *self.peek() == Token::Symbol("!") {
            self.at += 1;
            // `-2^k` is `-(2^k)`: the operand takes everything that binds tighter than a product.
            let operand = self.expression(7)?;
            let span = start..operand.site.span.end;
            let operand = Box::new(operand);
            return self.make(if negate { ExprKind::Negate(operand) } else { ExprKind::Not(operand) }, span);
        }
        self.primary()
    }

    fn primary(&mut self) -> Result<Expr> {
        let start = self.span().start;
        let kind = match self.peek().clone() {
            Token::Int(v) => {
                self.at += 1;
                ExprKind::Int(v)
            }
            Token::Real(text) => {
                self.at += 1;
                ExprKind::Real(text)
            }
            Token::Symbol("(") => {
                self.at += 1;
                let inner = self.expression(0)?;
                self.expect(")")?;
                inner.kind
            }
            Token::Symbol("[") => {
                self.at += 1;
                ExprKind::List(self.arguments("]")?)
            }
            Token::Name(name) => {
                self.at += 1;
                if !self.take("(") {
                    match name.as_str() {
                        "true" => ExprKind::Bool(true),
                        "false" => ExprKind::Bool(false),
                        _ => ExprKind::Name(name),
                    }
                } else {
                    match name.as_str() {
                        "first" => self.range_loop(Loop::First)?,
                        "argmin" => self.range_loop(Loop::Argmin)?,
                        "table" => self.table()?,
                        _ => ExprKind::Call(name, self.arguments(")")?),
                    }
                }
            }
            _ => return Err(self.unexpected("a value")),
        };
        let end = self.tokens[self.at.saturating_sub(1)].1.end;
        self.make(kind, start..end)
    }

    fn arguments(&mut self, close: &'static str) -> Result<Vec<Expr>> {
        let mut out = Vec::new();
        if self.take(close) {
            return Ok(out);
        }
        loop {
            out.push(self.expression(0)?);
            if self.take(close) {
                return Ok(out);
            }
            if !self.take(",") {
                return Err(self.unexpected(&format!("',' or '{close}'")));
            }
            if self.take(close) {
                return Ok(out);
            }
        }
    }

    fn variable(&mut self) -> Result<String> {
        match self.peek().clone() {
            Token::Name(name) if !name.contains('.') => {
                self.at += 1;
                Ok(name)
            }
            _ => Err(self.unexpected("the name of the loop variable")),
        }
    }

    /// `i in lo..hi : body)`.
    fn range_loop(&mut self, kind: Loop) -> Result<ExprKind> {
        let variable = self.variable()?;
        if *self.peek() != Token::Name("in".into()) {
            return Err(self.unexpected("'in'"));
        }
        self.at += 1;
        let lo = Box::new(self.expression(0)?);
        self.expect("..")?;
        let hi = Box::new(self.expression(0)?);
        self.expect(":")?;
        let body = Box::new(self.expression(0)?);
        self.expect(")")?;
        Ok(ExprKind::Loop { kind, variable, lo, hi, body })
    }

    /// `n, i -> body)`.
    fn table(&mut self) -> Result<ExprKind> {
        let start = self.span().start;
        let hi = Box::new(self.expression(0)?);
        self.expect(",")?;
        let variable = self.variable()?;
        self.expect("->")?;
        let body = Box::new(self.expression(0)?);
        self.expect(")")?;
        let lo = Box::new(self.make(ExprKind::Int(0), start..start)?);
        Ok(ExprKind::Loop { kind: Loop::Table, variable, lo, hi, body })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Fully bracketed form.
    fn show(e: &Expr) -> String {
        match &e.kind {
            ExprKind::Int(v) => v.to_string(),
            ExprKind::Real(v) => v.clone(),
            ExprKind::Bool(v) => v.to_string(),
            ExprKind::Name(v) => v.clone(),
            ExprKind::Negate(a) => format!("(-{})", show(a)),
            ExprKind::Not(a) => format!("(!{})", show(a)),
            ExprKind::Binary(op, a, b) => format!("({}{}{})", show(a), op.symbol(), show(b)),
            ExprKind::Call(name, args) => format!("{name}({})", args.iter().map(show).collect::<Vec<_>>().join(",")),
            ExprKind::List(args) => format!("[{}]", args.iter().map(show).collect::<Vec<_>>().join(",")),
            ExprKind::Loop { kind, variable, lo, hi, body } => {
                format!("{kind:?}({variable},{},{},{})", show(lo), show(hi), show(body))
            }
        }
    }

    #[test]
    fn precedence() {
        let cases = [
            ("a + b * c - d", "((a+(b*c))-d)"),
            ("-2^k * 3", "((-(2^k))*3)"),
            ("2^-7", "(2^(-7))"),
            ("2^3^2", "(2^(3^2))"),
            ("-a - -b", "((-a)-(-b))"),
            ("1 << n - 1", "(1<<(n-1))"),
            ("a < b && c >= d || !e", "(((a<b)&&(c>=d))||(!e))"),
            ("first(i in -3..3 : i > 0)", "First(i,(-3),3,(i>0))"),
            ("table(256, i -> i * 2)", "Table(i,0,256,(i*2))"),
            ("at([1, 2,], i)", "at([1,2],i)"),
        ];
        for (text, expected) in cases {
            assert_eq!(show(&expression(&Text::new(text, "t")).unwrap()), expected, "{text}");
        }
    }

    #[test]
    fn bodies() {
        let b = body(&Text::new("\n t = a +\n   b # sum\n u = f(\n t\n)\n y = t * u\n", "t")).unwrap();
        assert_eq!(b.statements.len(), 2);
        assert_eq!(show(&b.result), "(t*u)");
        assert!(body(&Text::new("a\nb", "t")).is_err());
        assert!(body(&Text::new("", "t")).is_err());
        assert!(body(&Text::new("y.zp = 3\n y", "t")).is_err());
    }

    #[test]
    fn faults_point_at_their_place() {
        for (text, column) in [("a + ", "t:1:5"), ("f(a b)", "t:1:5"), ("a >> 2", "t:1:3"), ("1 < 2 < 3", "t:1:7")] {
            let error = expression(&Text::new(text, "t")).unwrap_err().to_string();
            assert!(error.contains(column), "{error}");
        }
        let deep = "(".repeat(5000);
        assert_eq!(expression(&Text::new(deep, "t")).unwrap_err().code(), "program_depth");
        let chain = vec!["1"; 5000].join("+");
        assert_eq!(expression(&Text::new(chain, "t")).unwrap_err().code(), "program_depth");
        let minuses = "-".repeat(5000);
        assert!(expression(&Text::new(minuses, "t")).is_err());
    }
}
