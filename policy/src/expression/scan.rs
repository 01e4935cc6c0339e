//! A look at the source before any parser sees it: length, nesting and the number of operators,
//! because parsers and interpreters recurse.

use super::{Fault, MAX_SOURCE};

/// Brackets within brackets.
const MAX_NESTING: usize = 24;
/// Operators, commas and selections in all. A chain of them is as deep as it is long.
const MAX_OPERATORS: usize = 400;
/// `!` or `-` in a row.
const MAX_UNARY: usize = 8;

pub(super) fn scan(source: &str) -> Result<(), Vec<Fault>> {
    if source.len() > MAX_SOURCE {
        return Err(fault(
            0,
            format!("the expression is over {MAX_SOURCE} bytes"),
            "split the rule",
        ));
    }
    let mut nesting = 0_usize;
    let mut operators = 0_usize;
    let mut unary = 0_usize;
    let mut quote: Option<char> = None;
    let mut raw = false;
    let mut escaped = false;
    let mut previous = ' ';
    for (at, c) in source.char_indices() {
        if c.is_control() && !matches!(c, '\n' | '\t' | '\r') {
            return Err(fault(
                at,
                "the expression holds a control character".to_owned(),
                "remove it",
            ));
        }
        if let Some(open) = quote {
            match c {
                _ if escaped => escaped = false,
                '\\' if !raw => escaped = true,
                _ if c == open => quote = None,
                _ => {}
            }
            continue;
        }
        // Two things that would make this scan and the parser disagree on where texts are.
        if source[at..].starts_with("'''") || source[at..].starts_with("\"\"\"") {
            return Err(fault(
                at,
                "triple quotes are not supported".to_owned(),
                "use single ones",
            ));
        }
        if source[at..].starts_with("//") {
            return Err(fault(
                at,
                "comments are not supported in an expression".to_owned(),
                "use a YAML comment",
            ));
        }
        match c {
            '\'' | '"' => {
                quote = Some(c);
                raw = matches!(previous, 'r' | 'R');
            }
            '(' | '[' | '{' => nesting += 1,
            ')' | ']' | '}' => nesting = nesting.saturating_sub(1),
            '+' | '-' | '*' | '/' | '%' | '<' | '>' | '=' | '!' | '&' | '|' | '?' | ':' | '.'
            | ',' => operators += 1,
            _ => {}
        }
        previous = c;
        match c {
            '!' | '-' => unary += 1,
            _ if c.is_whitespace() => {}
            _ => unary = 0,
        }
        if nesting > MAX_NESTING {
            return Err(fault(
                at,
                format!("the expression nests deeper than {MAX_NESTING}"),
                "flatten it",
            ));
        }
        if unary > MAX_UNARY {
            return Err(fault(
                at,
                format!("more than {MAX_UNARY} `!` or `-` in a row"),
                "remove them in pairs",
            ));
        }
        if operators > MAX_OPERATORS {
            return Err(fault(
                at,
                format!("the expression has more than {MAX_OPERATORS} operators"),
                "use a list with `in`, or split the rule",
            ));
        }
    }
    Ok(())
}

fn fault(at: usize, message: String, remedy: &str) -> Vec<Fault> {
    vec![Fault {
        span: at..at + 1,
        message,
        remedy: Some(remedy.to_owned()),
    }]
}
