//! Text to the tokens that the parser understands, each at its place in the text.
//!
//! Three things are settled here, where they are a matter of words: the spellings of a version
//! clause become the ones sqlparser reads, `?` becomes `$1`, `$2`, .., and words that sqlparser
//! reserves for other systems become plain names again.

use datafusion::sql::sqlparser::keywords::Keyword;
use datafusion::sql::sqlparser::tokenizer::{
    Location, Token, TokenWithSpan, Tokenizer, Whitespace, Word,
};

use super::dialect::SelvedgeDialect;
use super::limits;
use super::syntax::{at, tokenizer_error};
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
            if next(1, &["VALID_TIME"]) && (as_of || period) {
                return Err(no_period("FOR VALID_TIME", token.span.start).with_detail(
                    "valid time is kept by journal tables, which this version does not have",
                ));
            }
            if next(1, &["SYSTEM_TIME"]) && period {
                return Err(no_period("FOR SYSTEM_TIME over a period", token.span.start)
                    .with_hint("FOR SYSTEM_TIME AS OF reads the table at one instant"));
            }
        }
        out.push(token.clone());
    }
    Ok(out)
}

fn no_period(clause: &str, place: Location) -> Error {
    at(
        Error::unsupported(format!("{clause} is not supported")),
        place,
    )
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
    fn valid_time_and_periods_are_refused() {
        for sql in [
            "t FOR VALID_TIME AS OF x",
            "t for valid_time from a to b",
            "t FOR VALID_TIME BETWEEN a AND b",
            "t FOR VALID_TIME ALL",
            "t FOR SYSTEM_TIME FROM a TO b",
            "t FOR SYSTEM_TIME ALL",
        ] {
            let error = fails(sql);
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{sql}");
            assert_eq!(error.position().unwrap().column, 3, "{sql}");
        }
        assert!(lex("substring(a for valid_time)").is_ok());
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
