//! Functions that specs define in the language itself.

use super::builtins;
use super::parser;
use super::syntax::{Body, ExprKind, Text};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Function {
    pub params: Vec<String>,
    pub lets: Vec<(String, super::syntax::Expr)>,
    pub body: Body,
    /// Names of user functions that the function calls.
    calls: BTreeSet<String>,
}

/// Named functions. A call is inlined; inside, only the parameters, the function's own lets and the names that the
/// environment gives are visible, never those of the caller.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    map: BTreeMap<String, Arc<Function>>,
}

impl Functions {
    /// No functions.
    pub fn new() -> Self {
        Self::default()
    }

    /// Defines a function, replacing one of the same name. Functions may be defined in any order; a cycle is an error
    /// of the definition that closes it, an unknown name of the program that uses it.
    pub fn define(&mut self, name: &str, params: &[String], lets: &[(String, Text)], body: Text) -> Result<()> {
        let text = body.clone();
        let fault = |message: String| {
            Error::invalid("program_function", message).at(crate::Location::File(text.origin.clone()))
        };
        let identifier = |s: &str| {
            !s.is_empty()
                && s.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
                && !s.starts_with(|c: char| c.is_ascii_digit())
        };
        if !identifier(name) || builtins::is_builtin(name) {
            return Err(fault(format!("'{name}' is no name for a function")).help(if builtins::is_builtin(name) {
                "the language has a function of that name"
            } else {
                "use letters, digits and _"
            }));
        }
        for (i, param) in params.iter().enumerate() {
            if !identifier(param) || params[..i].contains(param) {
                return Err(fault(format!("'{param}' is no name for a parameter, or occurs twice")));
            }
        }
        let mut function =
            Function { params: params.to_vec(), lets: Vec::new(), body: parser::body(&body)?, calls: BTreeSet::new() };
        for (name, text) in lets {
            if !identifier(name) {
                return Err(fault(format!("'{name}' is no name for a let")));
            }
            function.lets.push((name.clone(), parser::expression(text)?));
        }
        let mut calls = BTreeSet::new();
        let mut visit = |e: &super::syntax::Expr| {
            if let ExprKind::Call(name, _) = &e.kind
                && !builtins::is_builtin(name)
            {
                calls.insert(name.clone());
            }
        };
        function.lets.iter().for_each(|(_, e)| e.walk(&mut visit));
        function.body.statements.iter().for_each(|s| s.value.walk(&mut visit));
        function.body.result.walk(&mut visit);
        function.calls = calls;
        let before = self.map.insert(name.into(), Arc::new(function));
        if self.reaches(name, name) {
            match before {
                Some(function) => self.map.insert(name.into(), function),
                None => self.map.remove(name),
            };
            return Err(fault(format!("function '{name}' calls itself, directly or through others"))
                .help("the language has no recursion; use first(…), argmin(…) or table(…)"));
        }
        Ok(())
    }

    /// Whether a function of that name is defined.
    pub fn contains(&self, name: &str) -> bool {
        self.map.contains_key(name)
    }

    /// Names of all functions, sorted.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.map.keys().map(String::as_str)
    }

    /// Whether an expression, or a function that it calls, mentions a name.
    pub(super) fn mentions(&self, e: &super::syntax::Expr, name: &str) -> bool {
        let mut found = false;
        e.walk(&mut |e| match &e.kind {
            ExprKind::Name(n) => found |= n == name,
            ExprKind::Call(f, _) if !found => {
                if let Some(f) = self.map.get(f) {
                    let mut exprs = f.lets.iter().map(|(_, e)| e).chain(f.body.expressions());
                    found = exprs.any(|e| self.mentions(e, name));
                }
            }
            _ => {}
        });
        found
    }

    pub(super) fn get(&self, name: &str) -> Option<&Arc<Function>> {
        self.map.get(name)
    }

    fn reaches(&self, from: &str, target: &str) -> bool {
        let mut seen = BTreeSet::new();
        let mut open = vec![from.to_string()];
        while let Some(name) = open.pop() {
            let Some(function) = self.map.get(&name) else { continue };
            for call in &function.calls {
                if call == target {
                    return true;
                }
                if seen.insert(call.clone()) {
                    open.push(call.clone());
                }
            }
        }
        false
    }
}
