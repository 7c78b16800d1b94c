//! How deep and how long a statement may be, told from its tokens before anything nests.
//!
//! The parser bounds the nesting of expressions and queries, but not of types, nor the chains it reads in
//! a loop: each operator of `1 + 1 + ..` is a level of the tree all the same, and a walk over the tree,
//! a copy and its drop included, takes stack for each level. It also reads some words twice when what
//! they hold is wrong, once as a special form and once as a function: twice for each level around.

use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Word};

use super::syntax::{MAX_DEPTH, at, too_deep};
use crate::error::{Error, Result};

/// Operators in a row, and apart from them AND and OR in a row. These and the other limits fit
/// the two megabytes of a worker's stack in a build without optimisation, which takes most.
pub(super) const MAX_OPERATORS: usize = 150;
/// Set operations in a row.
pub(super) const MAX_SET_OPERATIONS: usize = 100;
/// Types within types.
const MAX_TYPES: usize = 16;
/// Brackets within brackets of forms that the parser reads twice.
const MAX_RETRIED: usize = 12;

/// One open bracket, and what stands in it since the last comma or clause.
#[derive(Default)]
struct Level {
    holds_type: bool,
    retried: bool,
    logical: usize,
    operators: usize,
    set_operations: usize,
}

pub(super) fn check(tokens: &[TokenWithSpan]) -> Result<()> {
    let mut around: Vec<Level> = Vec::new();
    let mut level = Level::default();
    let (mut types, mut retried, mut angles) = (0_usize, 0_usize, 0_usize);
    let mut before = String::new();
    for token in tokens {
        let place = token.span.start;
        let word = word(&token.token);
        match &token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                let inner = Level {
                    holds_type: TYPES.contains(&before.as_str()),
                    retried: RETRIED.contains(&before.as_str()),
                    ..Level::default()
                };
                types += usize::from(inner.holds_type);
                retried += usize::from(inner.retried);
                around.push(std::mem::replace(&mut level, inner));
            }
            Token::RParen | Token::RBracket | Token::RBrace => {
                if let Some(outer) = around.pop() {
                    types -= usize::from(level.holds_type);
                    retried -= usize::from(level.retried);
                    level = outer;
                    // `INT[][]` nests to the right of its brackets.
                    level.operators += usize::from(token.token == Token::RBracket);
                }
            }
            Token::Lt if TYPES.contains(&before.as_str()) => angles += 1,
            Token::Gt | Token::ShiftRight if angles > 0 => {
                let closed = if token.token == Token::Gt { 1 } else { 2 };
                angles = angles.saturating_sub(closed);
            }
            Token::Comma => level.start_clause(),
            Token::Word(_) => match word.as_str() {
                "AND" | "OR" | "XOR" => {
                    level.logical += 1;
                    level.operators = 0;
                    angles = 0;
                }
                "UNION" | "EXCEPT" | "INTERSECT" | "MINUS" | "PIVOT" | "UNPIVOT"
                | "MATCH_RECOGNIZE" => {
                    level.set_operations += 1;
                    level.start_clause();
                }
                text if CLAUSES.contains(&text) => level.start_clause(),
                text => level.operators += usize::from(OPERATORS.contains(&text)),
            },
            Token::Number(..)
            | Token::SingleQuotedString(_)
            | Token::Placeholder(_)
            | Token::Period
            | Token::SemiColon => {}
            _ => level.operators += 1,
        }
        for (depth, limit) in [
            (around.len(), MAX_DEPTH),
            (types + angles, MAX_TYPES),
            (retried, MAX_RETRIED),
        ] {
            if depth > limit {
                return Err(at(too_deep(limit), place));
            }
        }
        let long = |what: &str, limit: usize| {
            let error = Error::invalid(format!("more than {limit} {what} in a row")).with_hint(
                "use IN (..) for many values, VALUES for many rows, or group parts in parentheses",
            );
            Err(at(error, place))
        };
        if level.operators > MAX_OPERATORS || level.logical > MAX_OPERATORS {
            return long("operators", MAX_OPERATORS);
        }
        if level.set_operations > MAX_SET_OPERATIONS {
            return long("set operations", MAX_SET_OPERATIONS);
        }
        before = word;
    }
    Ok(())
}

impl Level {
    /// A new expression begins. Set operations go on: `SELECT a, b UNION ..` is one query.
    fn start_clause(&mut self) {
        self.logical = 0;
        self.operators = 0;
    }
}

/// Words after which a bracket holds a type.
const TYPES: [&str; 9] = [
    "ARRAY",
    "STRUCT",
    "MAP",
    "NULLABLE",
    "LOWCARDINALITY",
    "NESTED",
    "TUPLE",
    "UNION",
    "TABLE",
];

/// Words after which the parser reads a bracket twice.
const RETRIED: [&str; 14] = [
    "ARRAY",
    "CAST",
    "TRY_CAST",
    "SAFE_CAST",
    "CONVERT",
    "TRY_CONVERT",
    "CEIL",
    "FLOOR",
    "EXTRACT",
    "POSITION",
    "SUBSTR",
    "SUBSTRING",
    "OVERLAY",
    "NOT",
];

/// Words that begin an expression of its own.
const CLAUSES: [&str; 14] = [
    "SELECT", "FROM", "WHERE", "GROUP", "HAVING", "QUALIFY", "ORDER", "LIMIT", "ON", "WHEN",
    "THEN", "ELSE", "VALUES", "SET",
];

/// Words that add a level to the tree without a bracket.
const OPERATORS: [&str; 16] = [
    "NOT", "IS", "IN", "LIKE", "ILIKE", "RLIKE", "REGEXP", "SIMILAR", "BETWEEN", "AT", "COLLATE",
    "DIV", "NOTNULL", "MEMBER", "OVERLAPS", "ARRAY",
];

/// The word in capitals; empty for any other token.
fn word(token: &Token) -> String {
    match token {
        Token::Word(Word {
            value,
            quote_style: None,
            ..
        }) => value.to_ascii_uppercase(),
        _ => String::new(),
    }
}

#[cfg(test)]
mod tests {
    use crate::error::Result;

    fn check(sql: &str) -> Result<()> {
        super::super::lex::lex(sql).map(drop)
    }

    #[test]
    fn long_chains_are_refused_and_long_lists_are_not() {
        for operator in ["+", "AND", "OR", "||", "="] {
            let chain = |n: usize| vec!["1"; n].join(&format!(" {operator} "));
            assert!(check(&chain(super::MAX_OPERATORS)).is_ok(), "{operator}");
            let error = check(&chain(super::MAX_OPERATORS + 2)).unwrap_err();
            assert!(error.message().contains("operators in a row"), "{error}");
        }
        let unions = vec!["SELECT a, b"; super::MAX_SET_OPERATIONS + 2].join(" UNION ALL ");
        assert!(
            check(&unions)
                .unwrap_err()
                .message()
                .contains("set operations")
        );
        assert!(check(&vec!["(1 + 2, 'a', -3)"; 10_000].join(", ")).is_ok());
        assert!(check(&vec!["a = 1 AND b = 2 AND c = 3"; 40].join(" AND ")).is_ok());
        let joins = " JOIN t ON a.b = c.d AND e.f <> g.h".repeat(500);
        assert!(check(&format!("SELECT 1 FROM t{joins}")).is_ok());
    }

    #[test]
    fn types_nest_no_deeper_than_the_stack_allows() {
        let types = |n: usize| format!("CAST(a AS {}INT{})", "ARRAY<".repeat(n), ">".repeat(n));
        assert!(check(&types(10)).is_ok());
        assert!(check(&types(17)).is_err());
        let types = |n: usize| format!("{}INT{}", "Nullable(".repeat(n), ")".repeat(n));
        assert!(check(&types(10)).is_ok());
        assert!(check(&types(17)).is_err());
        assert!(check(&vec!["map < 3"; 60].join(" AND ")).is_ok());
    }

    #[test]
    fn forms_that_are_read_twice_nest_no_deeper_than_time_allows() {
        let casts = |n: usize| format!("{}1{}", "CAST(".repeat(n), " AS INT)".repeat(n));
        assert!(check(&casts(12)).is_ok());
        assert!(check(&casts(13)).is_err());
        let beside = vec!["CAST(1 AS INT)"; 100].join(", ");
        assert!(check(&beside).is_ok());
    }
}
