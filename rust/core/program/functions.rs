//! Functions that specs define in the language itself.

use super::builtins;
use super::parser;
use super::syntax::{Body, Expr, ExprKind, Text};
use crate::error::{Error, Result};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

#[derive(Debug)]
pub(super) struct Function {
    pub params: Vec<String>,
    pub lets: Vec<(String, Expr)>,
    pub body: Body,
    /// Names of user functions that the function calls.
    calls: BTreeSet<String>,
}

/// Named functions. A call is inlined; inside, only the parameters, the function's own lets and the names that the
/// environment gives are visible, never those of the caller.
#[derive(Debug, Clone, Default)]
pub struct Functions {
    map: Arc<BTreeMap<String, Arc<Function>>>,
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
        let mut visit = |e: &Expr| {
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
        let before = Arc::make_mut(&mut self.map).insert(name.into(), Arc::new(function));
        if self.reaches(name, name) {
            let map = Arc::make_mut(&mut self.map);
            match before {
                Some(function) => map.insert(name.into(), function),
                None => map.remove(name),
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

    /// The names that expressions mention, in the functions that they call too.
    pub(super) fn mentioned<'e>(&self, expressions: impl IntoIterator<Item = &'e Expr>) -> BTreeSet<String> {
        let (mut names, mut open, mut called) = (BTreeSet::new(), Vec::new(), BTreeSet::new());
        let mut visit = |e: &Expr, open: &mut Vec<Arc<Function>>| {
            e.walk(&mut |e| match &e.kind {
                ExprKind::Name(name) if !names.contains(name) => {
                    names.insert(name.clone());
                }
                ExprKind::Call(name, _) if !called.contains(name) => {
                    called.insert(name.clone());
                    open.extend(self.map.get(name).cloned());
                }
                _ => {}
            });
        };
        expressions.into_iter().for_each(|e| visit(e, &mut open));
        while let Some(function) = open.pop() {
            function.lets.iter().map(|(_, e)| e).chain(function.body.expressions()).for_each(|e| visit(e, &mut open));
        }
        names
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
