//! Text to the tokens that the parser understands, each at its place in the text.
//!
//! Three things are settled here, where they are a matter of words: the spellings of a version
//! clause, `FOR VALID_TIME` and `HISTORY OF` become ones sqlparser reads, `?` becomes `$1`, `$2`, ..,
//! and words that sqlparser reserves for other systems become plain names again.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{Token, TokenWithSpan, Tokenizer, Whitespace, Word};

use super::dialect::SelvedgeDialect;
use super::syntax::{at, tokenizer_error};
use super::{history, limits, valid};
use crate::error::{Error, Position, Result};

/// A statement's tokens without white space and comments.
pub(super) struct Lexed {
    pub(super) tokens: Vec<TokenWithSpan>,
    /// Place just after the last token, for errors at the end of the text.
    pub(super) end: Position,
}

pub(super) fn lex(sql: &str) -> Result<Lexed> {
    let all = Tokenizer::new(&SelvedgeDialect, sql)
        .tokenize_with_location()
        .map_err(tokenizer_error)?;
    let mut tokens = significant(all)?;
    let end = tokens
        .last()
        .map_or(Position { line: 1, column: 1 }, |token| Position {
            line: token.span.end.line,
            column: token.span.end.column,
        });
    limits::check(&tokens)?;
    number_placeholders(&mut tokens)?;
    free_names(&mut tokens);
    let tokens = valid::spell(history::spell(tokens))?;
    let tokens = spell_versions(tokens)?;
    Ok(Lexed { tokens, end })
}

/// Drops white space and comments, but not a comment that asks for something.
fn significant(all: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut tokens: Vec<TokenWithSpan> = Vec::with_capacity(all.len() / 2 + 1);
    for token in all {
        match &token.token {
            Token::EOF => {}
            Token::Whitespace(
                Whitespace::MultiLineComment(comment)
                | Whitespace::SingleLineComment { comment, .. },
            ) => {
                let after_verb = tokens
                    .last()
                    .is_some_and(|last| ["SELECT", "INSERT"].iter().any(|verb| is(last, verb)));
                if after_verb && comment.starts_with('+') {
                    let error = Error::unsupported("optimizer hints are not supported")
                        .with_hint("remove the + to make it a plain comment");
                    return Err(at(error, token.span.start));
                }
            }
            Token::Whitespace(_) => {}
            _ => tokens.push(token),
        }
    }
    Ok(tokens)
}

/// `?` becomes `$1`, `$2`, .. in the order of the text.
fn number_placeholders(tokens: &mut [TokenWithSpan]) -> Result<()> {
    let mut marks = 0_usize;
    let mut numbered = false;
    for token in tokens {
        let Token::Placeholder(name) = &mut token.token else {
            continue;
        };
        let mark = name == "?";
        let number = name.strip_prefix('$').and_then(|n| n.parse::<u16>().ok());
        let error = if mark && numbered || !mark && marks > 0 {
            "a statement cannot mix ? and $1 parameters".to_owned()
        } else if mark || number.is_some_and(|n| n > 0) {
            numbered = !mark;
            if mark {
                marks += 1;
                *name = format!("${marks}");
            }
            continue;
        } else {
            format!("{name} is not a parameter")
        };
        let error = Error::invalid(error).with_hint("parameters are ?, or $1, $2 and so on");
        return Err(at(error, token.span.start));
    }
    Ok(())
}

/// `AT`, `BEFORE` and `CHANGES` begin a version clause only before a parenthesis. Elsewhere the
/// parser, told that tables have versions, would not take them as the alias they are.
fn free_names(tokens: &mut [TokenWithSpan]) {
    for i in 0..tokens.len() {
        let names = ["AT", "BEFORE", "CHANGES"];
        if !names.iter().any(|name| is(&tokens[i], name)) {
            continue;
        }
        let clause = tokens
            .get(i + 1)
            .is_some_and(|next| next.token == Token::LParen || is(next, "TIME"));
        if !clause && let Token::Word(word) = &mut tokens[i].token {
            word.keyword = Keyword::NoKeyword;
        }
    }
}

/// `FOR VERSION AS OF` and `FOR TIMESTAMP AS OF` lose the `FOR`, which sqlparser does not know there.
/// `FOR` before these words is left alone elsewhere: `substring(a FOR version)`.
fn spell_versions(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    let mut out = Vec::with_capacity(tokens.len());
    for (i, token) in tokens.iter().enumerate() {
        if is(token, "FOR") {
            let next = |n: usize, words: &[&str]| {
                tokens
                    .get(i + n)
                    .is_some_and(|token| words.iter().any(|word| is(token, word)))
            };
            let as_of = next(2, &["AS"]) && next(3, &["OF"]);
            if as_of && next(1, &["VERSION", "TIMESTAMP"]) {
                continue;
            }
            let period = next(2, &["FROM", "BETWEEN", "CONTAINED", "ALL"]);
            if next(1, &["SYSTEM_TIME"]) && period {
                let error = Error::unsupported("FOR SYSTEM_TIME over a period is not supported")
                    .with_hint("FOR SYSTEM_TIME AS OF reads the table at one instant");
                return Err(at(error, token.span.start));
            }
        }
        out.push(token.clone());
    }
    Ok(out)
}

/// Whether a token is this word, unquoted, in any letter case.
pub(super) fn is(token: &TokenWithSpan, word: &str) -> bool {
    matches!(
        &token.token,
        Token::Word(Word { value, quote_style: None, .. }) if value.eq_ignore_ascii_case(word)
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::ErrorKind;

    fn text(sql: &str) -> String {
        let words: Vec<String> = lex(sql)
            .unwrap()
            .tokens
            .iter()
            .map(|token| token.token.to_string())
            .collect();
        words.join(" ")
    }

    fn fails(sql: &str) -> Error {
        lex(sql).err().unwrap()
    }

    #[test]
    fn question_marks_are_numbered_in_order() {
        assert_eq!(
            text("select ?, '?', ? -- ?\n, ?"),
            "select $1 , '?' , $2 , $3"
        );
        assert_eq!(text("select $2, $1"), "select $2 , $1");
    }

    #[test]
    fn parameters_do_not_mix_and_have_no_names() {
        for sql in ["select ?, $1", "select $1, ?", "select $1 + $2, ?"] {
            let error = fails(sql);
            assert!(error.message().contains("mix"), "{error}");
            assert!(error.position().is_some());
        }
        for sql in ["select $0", "select $name", "select ?1", "select $99999"] {
            assert!(fails(sql).message().contains("is not a parameter"), "{sql}");
        }
        let column = fails("select ?,\n  $1").position().unwrap();
        assert_eq!((column.line, column.column), (2, 3));
    }

    #[test]
    fn for_is_dropped_only_in_version_clauses() {
        assert_eq!(text("t FOR VERSION AS OF 3"), "t VERSION AS OF 3");
        assert_eq!(text("t for timestamp as of x"), "t timestamp as of x");
        assert_eq!(
            text("t FOR SYSTEM_TIME AS OF x"),
            "t FOR SYSTEM_TIME AS OF x"
        );
        assert_eq!(
            text("substring(a for version)"),
            "substring ( a for version )"
        );
        assert_eq!(
            text("t FOR \"version\" AS OF 3"),
            "t FOR \"version\" AS OF 3"
        );
    }

    #[test]
    fn periods_of_system_time_are_refused() {
        for sql in ["t FOR SYSTEM_TIME FROM a TO b", "t FOR SYSTEM_TIME ALL"] {
            let error = fails(sql);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}");
            assert_eq!(error.position().unwrap().column, 3, "{sql}");
        }
    }

    #[test]
    fn valid_time_becomes_a_clause_the_parser_reads() {
        for (typed, spelled) in [
            ("t FOR VALID_TIME AS OF x", "AT ( VALID_AS_OF => x )"),
            (
                "t for valid_time from a + 1 to b",
                "AT ( VALID_FROM => a + 1 , VALID_TO => b )",
            ),
            (
                "t FOR VALID_TIME BETWEEN a AND b AND c",
                "AT ( VALID_BETWEEN => a , VALID_AND => b ) AND c",
            ),
            (
                "t FOR VALID_TIME CONTAINED IN (f(a, 1), b)",
                "AT ( VALID_IN => f ( a , 1 ) , VALID_UNTIL => b )",
            ),
            ("t FOR VALID_TIME ALL x", "AT ( VALID_ALL => TRUE ) x"),
            (
                "t FOR VALID_TIME AS OF now() FOR VERSION AS OF 3 x",
                "AT ( VALID_AS_OF => now ( ) , VERSION => 3 ) x",
            ),
            (
                "t FOR SYSTEM_TIME AS OF y FOR VALID_TIME ALL",
                "AT ( TIMESTAMP => y , VALID_ALL => TRUE )",
            ),
            (
                "t AT (VERSION => 3) FOR VALID_TIME AS OF x",
                "AT ( VERSION => 3 , VALID_AS_OF => x )",
            ),
            (
                "t VERSION AS OF 3 JOIN u FOR VALID_TIME ALL",
                "VERSION AS OF 3 JOIN u AT ( VALID_ALL => TRUE )",
            ),
        ] {
            assert_eq!(text(typed), format!("t {spelled}"), "{typed}");
        }
        assert_eq!(
            text("substring(a for valid_time)"),
            "substring ( a for valid_time )"
        );
    }

    #[test]
    fn what_valid_time_lacks_is_named() {
        for (sql, wanted) in [
            ("t FOR VALID_TIME FROM a", "expected TO of FOR VALID_TIME"),
            ("t FOR VALID_TIME BETWEEN a OR b", "expected AND of FOR"),
            ("t FOR VALID_TIME CONTAINED IN a", "expected IN (from, to)"),
            ("t FOR VALID_TIME CONTAINED IN (a)", "expected , of FOR"),
            (
                "t FOR VALID_TIME ALL FOR VALID_TIME ALL",
                "FOR VALID_TIME is given twice",
            ),
        ] {
            let error = fails(sql);
            assert_eq!(error.kind(), ErrorKind::Invalid, "{sql}");
            assert!(error.message().starts_with(wanted), "{sql}: {error}");
            assert!(error.position().is_some(), "{sql}");
        }
    }

    #[test]
    fn the_history_of_a_query_becomes_a_call() {
        assert_eq!(
            text("FROM history of (SELECT f(a) FROM t) h WHERE (x)"),
            "FROM __selvedge_history ( ( SELECT f ( a ) FROM t ) ) h WHERE ( x )"
        );
        assert_eq!(text("DESCRIBE HISTORY t"), "DESCRIBE HISTORY t");
        assert_eq!(text("HISTORY OF t"), "HISTORY OF t");
    }

    #[test]
    fn hints_are_refused_and_comments_are_not() {
        for sql in ["select /*+ broadcast(t) */ 1", "insert --+ append\n into t"] {
            assert_eq!(fails(sql).kind(), ErrorKind::Unsupported, "{sql}");
        }
        assert_eq!(
            text("select /* + */ 1 /*! + 1 */ + /*+ */ 2"),
            "select 1 + 2"
        );
    }

    #[test]
    fn open_quotes_say_where() {
        let error = fails("select\n  'abc");
        assert_eq!(error.message(), "unterminated string literal");
        assert_eq!(error.position().unwrap().line, 2);
    }
}
