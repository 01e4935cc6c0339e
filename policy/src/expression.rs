//! `when`: CEL over the facts of one call, bounded before it runs.
//!
//! The source is short, its tree shallow, comprehensions do not nest and run over capped data,
//! regular expressions are literal and compiled at load. So evaluation ends soon by construction.
//! What can't be evaluated is a [`Failure`], and that never widens anything.

mod check;
mod facts;
mod regexes;
mod scan;
mod types;

use std::ops::Range;
use std::sync::{Arc, LazyLock};

use cel::common::types::STRING_TYPE;
use cel::{Context, Env, ExecutionError, Program, Value};

pub(crate) use facts::Facts;
use facts::Uses;
use regex::Regex;
pub(crate) use types::Vocabulary;

/// Longer expressions belong in several rules.
pub(crate) const MAX_SOURCE: usize = 4 * 1024;

/// What the deepest source that passes the scan needs to be parsed, several times over.
const PARSER_STACK: usize = 32 * 1024 * 1024;

/// A compiled `when`.
pub(crate) struct Expression {
    source: Arc<str>,
    program: Program,
    uses: Uses,
    /// Kept alive: evaluation finds them by their text.
    _regexes: Vec<Arc<Regex>>,
}

/// What is wrong with an expression, and where in it, in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Fault {
    pub(crate) span: Range<usize>,
    pub(crate) message: String,
    pub(crate) remedy: Option<String>,
}

/// Why an expression has no value for a call. Quotes nothing of the call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Failure(pub(crate) String);

/// The standard library with our own `matches`. Building it is slow; it is shared.
static ENV: LazyLock<Arc<Env>> = LazyLock::new(|| {
    let mut env = Env::stdlib();
    // Both names are free: the crate is built without its own `matches`.
    drop(env.add_overload(
        "matches",
        "matches_cached",
        vec![STRING_TYPE, STRING_TYPE],
        regexes::matches,
    ));
    drop(env.add_member_overload(
        "matches",
        "matches_member_cached",
        STRING_TYPE,
        vec![STRING_TYPE],
        regexes::matches,
    ));
    Arc::new(env)
});

// === impl Expression ===

impl Expression {
    /// Compiles and checks. Every fault has its place.
    pub(crate) fn compile(source: &str, vocabulary: &Vocabulary<'_>) -> Result<Self, Vec<Fault>> {
        scan::scan(source)?;
        // The parser takes a dozen frames for every bracket; callers have small stacks.
        std::thread::scope(|scope| {
            std::thread::Builder::new()
                .name("expression".to_owned())
                .stack_size(PARSER_STACK)
                .spawn_scoped(scope, || Self::parse(source, vocabulary))
                .map_err(drop)
                .and_then(|thread| thread.join().map_err(drop))
                .unwrap_or_else(|()| {
                    Err(vec![Fault {
                        span: 0..source.len(),
                        message: "the expression could not be compiled: no thread for the parser"
                            .to_owned(),
                        remedy: Some(
                            "raise the limit on processes, or shorten the expression".to_owned(),
                        ),
                    }])
                })
        })
    }

    fn parse(source: &str, vocabulary: &Vocabulary<'_>) -> Result<Self, Vec<Fault>> {
        let program = ENV.compile(source).map_err(|errors| {
            errors
                .errors
                .iter()
                .take(3)
                .map(|error| Fault {
                    span: place(source, error.pos),
                    message: format!("the expression can't be read: {}", first_line(&error.msg)),
                    remedy: None,
                })
                .collect::<Vec<_>>()
        })?;
        let checked = check::check(source, &program, vocabulary)?;
        Ok(Self {
            source: source.into(),
            program,
            uses: checked.uses,
            _regexes: checked.regexes,
        })
    }

    /// Judges a call.
    pub(crate) fn evaluate(&self, facts: &Facts<'_>) -> Result<bool, Failure> {
        let mut context = Context::with_env(Arc::clone(&ENV));
        facts.bind(&self.uses, &mut context)?;
        match self.program.execute(&context) {
            Ok(Value::Bool(value)) => Ok(value),
            Ok(_) => Err(Failure("its value is neither true nor false".to_owned())),
            Err(error) => Err(Failure(self.describe(&error))),
        }
    }

    pub(crate) fn source(&self) -> &str {
        &self.source
    }

    /// Whether it can only be judged for a tool call.
    pub(crate) fn reads_tool(&self) -> bool {
        self.uses.reads_tool()
    }

    /// Whether it can only be judged for a call to a model.
    pub(crate) fn reads_inference(&self) -> bool {
        self.uses.reads_inference()
    }

    /// Names what the policy's author wrote, never what the caller sent.
    fn describe(&self, error: &ExecutionError) -> String {
        match error {
            ExecutionError::NoSuchKey(key) if self.source.contains(key.as_str()) => {
                format!("there is no `{key}` in this call")
            }
            ExecutionError::NoSuchKey(_) => "a field is not in this call".to_owned(),
            ExecutionError::NoSuchOverload(overload) => format!(
                "`{}` met a value of a type that it does not take",
                overload.function().trim_matches(['_', '@'])
            ),
            ExecutionError::DivisionByZero(_) | ExecutionError::RemainderByZero(_) => {
                "it divides by zero".to_owned()
            }
            ExecutionError::Overflow(..) => "a number overflows".to_owned(),
            ExecutionError::IndexOutOfBounds(_) => "a list is shorter than its index".to_owned(),
            _ => "it has no value for this call".to_owned(),
        }
    }
}

impl std::fmt::Debug for Expression {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Expression").field(&self.source).finish()
    }
}

fn first_line(text: &str) -> String {
    text.lines()
        .next()
        .unwrap_or_default()
        .chars()
        .take(200)
        .collect()
}

/// Bytes of a line and column, both from 1.
fn place(source: &str, (line, column): (isize, isize)) -> Range<usize> {
    let line = usize::try_from(line).unwrap_or(1).max(1);
    let column = usize::try_from(column).unwrap_or(1).max(1);
    let start: usize = source
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum();
    let rest = &source[start.min(source.len())..];
    let offset = rest
        .char_indices()
        .nth(column - 1)
        .map_or(rest.trim_end().len(), |(at, _)| at);
    let at = start + offset;
    at..(at + 1).min(source.len()).max(at)
}

#[cfg(test)]
mod tests;
