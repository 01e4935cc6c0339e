//! What the interpreter would find out too late, or not at all: unknown variables, fields and
//! functions, operators on the wrong types, patterns that are not literal, comprehensions within
//! comprehensions. Each with its place in the source.

use std::ops::Range;
use std::sync::Arc;

use cel::Program;
use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedExpr, LiteralValue, SelectExpr, operators,
};
use regex::Regex;

use super::facts::Uses;
use super::types::{SECRET_HEADERS, Type, Vocabulary};
use super::{Fault, regexes};
use crate::tree::suggest;

/// Each level is a frame of the interpreter, and unoptimised ones are 40 KiB: this many fit the
/// 2 MiB of a runtime's thread.
const MAX_DEPTH: usize = 32;
/// Each runs over up to 256 items.
const MAX_COMPREHENSIONS: usize = 4;

/// Functions of one argument that anything may be given to.
const CONVERSIONS: &[(&str, Type)] = &[
    ("size", Type::Number),
    ("int", Type::Number),
    ("uint", Type::Number),
    ("double", Type::Number),
    ("string", Type::Text),
    ("bool", Type::Bool),
];
const FUNCTIONS: &[&str] = &[
    "size",
    "int",
    "uint",
    "double",
    "string",
    "bool",
    "matches",
    "has",
    "startsWith",
    "endsWith",
    "contains",
    "all",
    "exists",
    "exists_one",
];

/// What a checked expression reads and holds.
pub(super) struct Checked {
    pub(super) uses: Uses,
    pub(super) regexes: Vec<Arc<Regex>>,
}

struct Checker<'a> {
    source: &'a str,
    program: &'a Program,
    vocabulary: &'a Vocabulary<'a>,
    /// Variables of the comprehension around.
    locals: Vec<(String, Type)>,
    comprehensions: usize,
    faults: Vec<Fault>,
    checked: Checked,
}

pub(super) fn check(
    source: &str,
    program: &Program,
    vocabulary: &Vocabulary<'_>,
) -> Result<Checked, Vec<Fault>> {
    let mut checker = Checker {
        source,
        program,
        vocabulary,
        locals: Vec::new(),
        comprehensions: 0,
        faults: Vec::new(),
        checked: Checked {
            uses: Uses::default(),
            regexes: Vec::new(),
        },
    };
    let root = program.expression();
    let kind = checker.expr(root, 0);
    if !kind.may_be(&[Type::Bool]) {
        checker.fault(
            root,
            format!("the expression is {}, not true or false", kind.noun()),
            Some("compare it with something".to_owned()),
        );
    }
    if checker.faults.is_empty() {
        Ok(checker.checked)
    } else {
        Err(checker.faults)
    }
}

// === impl Checker ===

impl Checker<'_> {
    fn expr(&mut self, expr: &IdedExpr, depth: usize) -> Type {
        if depth > MAX_DEPTH {
            if self.faults.is_empty() {
                self.fault(
                    expr,
                    format!("the expression is deeper than {MAX_DEPTH}"),
                    Some("use a list with `in`, or split the rule".to_owned()),
                );
            }
            return Type::Any;
        }
        let depth = depth + 1;
        match &expr.expr {
            Expr::Literal(literal) => literal_type(literal),
            Expr::Ident(name) => self.ident(expr, name),
            Expr::Select(select) => self.select(expr, select, depth),
            Expr::Call(call) => self.call(expr, call, depth),
            Expr::Comprehension(comprehension) => self.comprehension(expr, comprehension, depth),
            Expr::List(list) => {
                let mut texts = !list.elements.is_empty();
                for element in &list.elements {
                    texts &= self.expr(element, depth) == Type::Text;
                }
                if texts { Type::Texts } else { Type::List }
            }
            Expr::Map(map) => {
                for entry in &map.entries {
                    if let EntryExpr::MapEntry(entry) = &entry.expr {
                        self.expr(&entry.key, depth);
                        self.expr(&entry.value, depth);
                    }
                }
                Type::Map
            }
            Expr::Struct(_) | Expr::Unspecified => {
                self.fault(expr, "messages are not supported".to_owned(), None);
                Type::Any
            }
        }
    }

    fn ident(&mut self, expr: &IdedExpr, name: &str) -> Type {
        if let Some((_, kind)) = self.locals.iter().rev().find(|(local, _)| local == name) {
            return *kind;
        }
        if let Some(fields) = self.vocabulary.fields(name) {
            let fields: Vec<&str> = fields.iter().map(|(field, _)| *field).collect();
            self.fault(
                expr,
                format!("`{name}` alone is no value"),
                Some(format!("name one of its fields: {}", fields.join(", "))),
            );
        } else {
            self.unknown(expr, name);
        }
        Type::Any
    }

    fn unknown(&mut self, expr: &IdedExpr, name: &str) {
        let remedy = match name {
            "path" => Some("capture a segment in every path of the rule, as `{name}`".to_owned()),
            "tool" => Some("only rules of kind `mcp` have `tool`".to_owned()),
            "inference" => Some("only inference rules have `inference`".to_owned()),
            _ => suggest(name, &self.vocabulary.roots()),
        };
        self.fault(
            expr,
            format!("there is no variable `{name}` in this rule"),
            remedy,
        );
    }

    fn select(&mut self, expr: &IdedExpr, select: &SelectExpr, depth: usize) -> Type {
        let field = select.field.as_str();
        if let Expr::Ident(root) = &select.operand.expr
            && !self.locals.iter().any(|(local, _)| local == root)
        {
            let kind = self.field(expr, &select.operand, root, field);
            return if select.test { Type::Bool } else { kind };
        }
        if is_headers(&select.operand) {
            self.header(expr, field);
        }
        let operand = self.expr(&select.operand, depth);
        if !operand.may_be(&[Type::Map]) {
            self.fault(
                expr,
                format!("{} has no field `{field}`", operand.noun()),
                None,
            );
        }
        if select.test {
            Type::Bool
        } else {
            operand.element()
        }
    }

    fn field(&mut self, expr: &IdedExpr, operand: &IdedExpr, root: &str, field: &str) -> Type {
        let Some(fields) = self.vocabulary.fields(root) else {
            self.unknown(operand, root);
            return Type::Any;
        };
        let Some((_, kind)) = fields.iter().find(|(name, _)| *name == field) else {
            let names: Vec<&str> = fields.iter().map(|(name, _)| *name).collect();
            let message = if root == "path" {
                format!("not every path of the rule captures `{{{field}}}`")
            } else {
                format!("`{root}` has no field `{field}`")
            };
            let remedy = suggest(field, &names)
                .or_else(|| Some(format!("capture it in every path, as `{{{field}}}`")));
            self.fault(expr, message, remedy);
            return Type::Any;
        };
        self.checked
            .uses
            .fields
            .insert((root.to_owned(), field.to_owned()));
        *kind
    }

    fn header(&mut self, expr: &IdedExpr, name: &str) {
        if SECRET_HEADERS.contains(&name.to_ascii_lowercase().as_str()) {
            self.fault(
                expr,
                format!("expressions can't see the header `{name}`: it holds a secret"),
                Some("remove it".to_owned()),
            );
        } else if name.chars().any(|c| c.is_ascii_uppercase()) {
            self.fault(
                expr,
                "header names are in lower case here".to_owned(),
                Some(format!("write `{}`", name.to_ascii_lowercase())),
            );
        }
    }

    fn comprehension(
        &mut self,
        expr: &IdedExpr,
        comprehension: &ComprehensionExpr,
        depth: usize,
    ) -> Type {
        if !self.locals.is_empty() {
            self.fault(
                expr,
                "a comprehension within a comprehension is not supported".to_owned(),
                Some("split the rule".to_owned()),
            );
            return Type::Any;
        }
        // `map` and `filter` build lists, which costs without bound; the others end in a value.
        if matches!(comprehension.accu_init.expr, Expr::List(_)) {
            self.fault(
                expr,
                "`map` and `filter` are not supported".to_owned(),
                Some("use `all`, `exists` or `exists_one`".to_owned()),
            );
            return Type::Any;
        }
        self.comprehensions += 1;
        if self.comprehensions > MAX_COMPREHENSIONS {
            self.fault(
                expr,
                format!("more than {MAX_COMPREHENSIONS} comprehensions"),
                Some("split the rule".to_owned()),
            );
            return Type::Any;
        }
        self.checked.uses.comprehends = true;
        let range = self.expr(&comprehension.iter_range, depth);
        if !range.may_be(&[Type::List, Type::Map]) {
            self.fault(
                &comprehension.iter_range,
                format!("{} has no items", range.noun()),
                None,
            );
        }
        let item = match range {
            Type::Map | Type::TextMap | Type::Texts => Type::Text,
            _ => Type::Any,
        };
        if self
            .vocabulary
            .roots()
            .contains(&comprehension.iter_var.as_str())
        {
            self.fault(
                expr,
                format!("`{}` already is a variable", comprehension.iter_var),
                Some("choose another name for the items".to_owned()),
            );
        }
        self.locals.push((comprehension.iter_var.clone(), item));
        if let Some(second) = &comprehension.iter_var2 {
            self.locals.push((second.clone(), Type::Any));
        }
        self.locals
            .push((comprehension.accu_var.clone(), Type::Any));
        self.expr(&comprehension.accu_init, depth);
        self.expr(&comprehension.loop_cond, depth);
        self.expr(&comprehension.loop_step, depth);
        self.expr(&comprehension.result, depth);
        self.locals.clear();
        Type::Bool
    }

    fn call(&mut self, expr: &IdedExpr, call: &CallExpr, depth: usize) -> Type {
        if call.func_name == operators::INDEX
            && let [operand, index] = call.args.as_slice()
            && is_headers(operand)
            && let Expr::Literal(LiteralValue::String(name)) = &index.expr
        {
            self.header(index, name.inner());
        }
        let target = call
            .target
            .as_deref()
            .map(|target| self.expr(target, depth));
        let types: Vec<Type> = call.args.iter().map(|arg| self.expr(arg, depth)).collect();
        match (target, types.as_slice()) {
            (None, [a, b])
                if call.func_name.starts_with('_') || call.func_name == operators::IN =>
            {
                self.binary(expr, call, *a, *b)
            }
            (None, [a]) if call.func_name == operators::LOGICAL_NOT => {
                self.want(&call.args[0], *a, &[Type::Bool]);
                Type::Bool
            }
            (None, [_]) if call.func_name == operators::NOT_STRICTLY_FALSE => Type::Bool,
            (None, [a]) if call.func_name == operators::NEGATE => {
                self.want(&call.args[0], *a, &[Type::Number]);
                Type::Number
            }
            (None, [condition, a, b]) if call.func_name == operators::CONDITIONAL => {
                self.want(&call.args[0], *condition, &[Type::Bool]);
                if a == b { *a } else { Type::Any }
            }
            _ => self.function(expr, call, target, &types),
        }
    }

    fn binary(&mut self, expr: &IdedExpr, call: &CallExpr, a: Type, b: Type) -> Type {
        let [left, right] = call.args.as_slice() else {
            return Type::Any;
        };
        match call.func_name.as_str() {
            operators::LOGICAL_AND | operators::LOGICAL_OR => {
                self.want(left, a, &[Type::Bool]);
                self.want(right, b, &[Type::Bool]);
                Type::Bool
            }
            operators::EQUALS | operators::NOT_EQUALS => {
                if !a.comparable(b) && a != Type::Null && b != Type::Null {
                    self.fault(
                        expr,
                        format!("{} never equals {}", a.noun(), b.noun()),
                        None,
                    );
                }
                Type::Bool
            }
            operators::LESS
            | operators::LESS_EQUALS
            | operators::GREATER
            | operators::GREATER_EQUALS => {
                if !a.comparable(b) {
                    self.fault(
                        expr,
                        format!("{} can't be compared with {}", a.noun(), b.noun()),
                        None,
                    );
                }
                Type::Bool
            }
            operators::IN => {
                self.want(right, b, &[Type::List, Type::Map]);
                if matches!(b, Type::Texts | Type::TextMap) && !a.may_be(&[Type::Text]) {
                    self.fault(
                        expr,
                        format!("{} is never in a list of texts", a.noun()),
                        None,
                    );
                }
                Type::Bool
            }
            operators::ADD => {
                // Joining grows what is joined; inside a comprehension, over and over.
                let counting = a == Type::Number || b == Type::Number || is_accumulator(left);
                if !self.locals.is_empty() && !counting {
                    self.fault(
                        expr,
                        "`+` in a comprehension is only for numbers".to_owned(),
                        None,
                    );
                }
                self.want(left, a, &[Type::Number, Type::Text]);
                self.want(right, b, &[Type::Number, Type::Text]);
                if a == Type::Any { b } else { a }
            }
            operators::SUBSTRACT | operators::MULTIPLY | operators::DIVIDE | operators::MODULO => {
                self.want(left, a, &[Type::Number]);
                self.want(right, b, &[Type::Number]);
                Type::Number
            }
            operators::INDEX => {
                self.want(left, a, &[Type::List, Type::Map]);
                a.element()
            }
            name => {
                self.fault(
                    expr,
                    format!("the operator `{}` is not supported", name.trim_matches('_')),
                    None,
                );
                Type::Any
            }
        }
    }

    fn function(
        &mut self,
        expr: &IdedExpr,
        call: &CallExpr,
        target: Option<Type>,
        types: &[Type],
    ) -> Type {
        let name = call.func_name.as_str();
        if let Some((_, result)) = CONVERSIONS.iter().find(|(known, _)| *known == name) {
            let fits = matches!((target, types), (None, [_]))
                || (name == "size" && target.is_some() && types.is_empty());
            if !fits {
                self.fault(expr, format!("`{name}` takes one value"), None);
            }
            return *result;
        }
        match (name, target, types) {
            ("startsWith" | "endsWith" | "contains", Some(text), [part]) => {
                if let Some(target) = call.target.as_deref() {
                    self.want(target, text, &[Type::Text]);
                }
                self.want(&call.args[0], *part, &[Type::Text]);
            }
            ("matches", Some(text), [_]) => {
                if let Some(target) = call.target.as_deref() {
                    self.want(target, text, &[Type::Text]);
                }
                self.pattern(&call.args[0]);
            }
            ("matches", None, [text, _]) => {
                self.want(&call.args[0], *text, &[Type::Text]);
                self.pattern(&call.args[1]);
            }
            _ => {
                let known = FUNCTIONS.contains(&name);
                let message = if known {
                    format!("`{name}` is not called like this")
                } else {
                    format!("there is no function `{name}`")
                };
                let remedy = if known {
                    None
                } else {
                    suggest(name, FUNCTIONS)
                };
                self.fault(expr, message, remedy);
            }
        }
        Type::Bool
    }

    fn pattern(&mut self, expr: &IdedExpr) {
        let Expr::Literal(LiteralValue::String(pattern)) = &expr.expr else {
            self.fault(
                expr,
                "the pattern of `matches` must be a literal text".to_owned(),
                Some("write it out: it is compiled with the policy".to_owned()),
            );
            return;
        };
        match regexes::intern(pattern.inner()) {
            Ok(regex) => self.checked.regexes.push(regex),
            Err(error) => self.fault(
                expr,
                format!("the pattern is no regular expression: {error}"),
                None,
            ),
        }
    }

    fn want(&mut self, expr: &IdedExpr, kind: Type, wanted: &[Type]) {
        if !kind.may_be(wanted) {
            let nouns: Vec<&str> = wanted.iter().map(|w| w.noun()).collect();
            self.fault(
                expr,
                format!(
                    "this is {}, where {} is wanted",
                    kind.noun(),
                    nouns.join(" or ")
                ),
                None,
            );
        }
    }

    fn fault(&mut self, expr: &IdedExpr, message: String, remedy: Option<String>) {
        let span = self.span(expr);
        if self.faults.len() < 8 {
            self.faults.push(Fault {
                span,
                message,
                remedy,
            });
        }
    }

    /// The interpreter counts characters, ends included.
    fn span(&self, expr: &IdedExpr) -> Range<usize> {
        let Some((start, stop)) = self.program.source_info().offset_for(expr.id) else {
            return 0..self.source.len();
        };
        let byte = |characters: usize| {
            self.source
                .char_indices()
                .nth(characters)
                .map_or(self.source.len(), |(at, _)| at)
        };
        let start = usize::try_from(start).unwrap_or(0);
        let stop = usize::try_from(stop).unwrap_or(0).max(start);
        byte(start)..byte(stop + 1)
    }
}

fn is_headers(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Select(select) if select.field == "headers"
        && matches!(&select.operand.expr, Expr::Ident(root) if root == "request"))
}

fn is_accumulator(expr: &IdedExpr) -> bool {
    matches!(&expr.expr, Expr::Ident(name) if name.starts_with('@'))
}

fn literal_type(literal: &LiteralValue) -> Type {
    match literal {
        LiteralValue::Boolean(_) => Type::Bool,
        LiteralValue::Bytes(_) => Type::Bytes,
        LiteralValue::Double(_) | LiteralValue::Int(_) | LiteralValue::UInt(_) => Type::Number,
        LiteralValue::Null => Type::Null,
        LiteralValue::String(_) => Type::Text,
    }
}
