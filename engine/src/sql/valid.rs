//! `FOR VALID_TIME`: a journal read by when its rows were true.
//!
//! sqlparser knows no such clause, so it is spelled as one that it does know, `AT (VALID_AS_OF => instant)`, which
//! also holds the version that a clause beside it names: both clocks come out of the parser as one.

use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{
    BinaryOperator, Expr, Function, FunctionArg, FunctionArgExpr, FunctionArgumentList,
    FunctionArguments, Ident, JoinConstraint, JoinOperator, ObjectName, Spanned, Value,
    visit_expressions,
};
use datafusion::sql::sqlparser::dialect::{Dialect, Precedence};
use datafusion::sql::sqlparser::parser::Parser;
use datafusion::sql::sqlparser::tokenizer::{Location, Span, Token, TokenWithSpan};

use super::confine::{constant, row_expression};
use super::dialect::SelvedgeDialect;
use super::lex::is;
use super::syntax::{self, MAX_DEPTH, at, parser_error};
use super::versions::{self, AS_OF_ROW, Valid, ValidTime};
use crate::error::{Error, Position, Result};

const WHAT: &str = "the instant of FOR VALID_TIME";

/// Spells all clauses of a statement. One that has none stays as it is, to the token.
pub(super) fn spell(tokens: Vec<TokenWithSpan>) -> Result<Vec<TokenWithSpan>> {
    if !tokens.iter().any(|token| is(token, "VALID_TIME")) {
        return Ok(tokens);
    }
    let mut out = Vec::with_capacity(tokens.len());
    let mut rest = tokens.as_slice();
    while let Some((first, after)) = rest.split_first() {
        match clauses(rest)? {
            Some((spelled, taken)) => {
                let before = out.last().map(|token: &TokenWithSpan| &token.token);
                if before == Some(&Token::RParen) {
                    let error = Error::invalid(
                        "FOR VALID_TIME cannot stand on the table function or query before it",
                    )
                    .with_hint("put it on the tables that are read there");
                    let Location { line, column } = first.span.start;
                    return Err(error.with_position(Position { line, column }));
                }
                out.extend(spelled);
                rest = from(rest, taken);
            }
            None => {
                out.push(first.clone());
                rest = after;
            }
        }
    }
    Ok(out)
}

fn from(tokens: &[TokenWithSpan], n: usize) -> &[TokenWithSpan] {
    tokens.get(n..).unwrap_or_default()
}

fn sees(tokens: &[TokenWithSpan], n: usize, words: &[&str]) -> bool {
    let mut tokens = from(tokens, n).iter();
    words
        .iter()
        .all(|word| tokens.next().is_some_and(|token| is(token, word)))
}

fn symbol(tokens: &[TokenWithSpan], n: usize, symbol: &Token) -> bool {
    tokens.get(n).is_some_and(|token| token.token == *symbol)
}

/// A part of a statement: arguments of the clause as it is spelled, and how many tokens it took.
type Part = (Vec<TokenWithSpan>, usize);

/// The clause on valid time that `tokens` begin with, and one on versions before or after it, as one.
fn clauses(tokens: &[TokenWithSpan]) -> Result<Option<Part>> {
    let (arguments, taken) = if let Some((mut valid, taken)) = self::valid(tokens)? {
        let rest = from(tokens, taken);
        if begins(rest) {
            let error = Error::invalid("FOR VALID_TIME is given twice");
            return Err(at(error, place(rest)));
        }
        match version(rest) {
            None => (valid, taken),
            Some((version, more)) => {
                valid.push(made(Token::Comma, tokens));
                valid.extend(version);
                (valid, taken + more)
            }
        }
    } else if let Some((mut version, taken)) = version(tokens) {
        let rest = from(tokens, taken);
        let Some((valid, more)) = self::valid(rest)? else {
            return Ok(None);
        };
        version.push(made(Token::Comma, tokens));
        version.extend(valid);
        (version, taken + more)
    } else {
        return Ok(None);
    };
    // The last one has the place of what it stands for, so that the text of the clause ends where it does.
    let end = from(tokens, taken.saturating_sub(1));
    let mut spelled = vec![
        made(Token::make_keyword("AT"), tokens),
        made(Token::LParen, tokens),
    ];
    spelled.extend(arguments);
    spelled.push(made(Token::RParen, end));
    Ok(Some((spelled, taken)))
}

/// A token at the place of the first of `tokens`.
fn made(token: Token, tokens: &[TokenWithSpan]) -> TokenWithSpan {
    let span = tokens.first().map_or_else(Span::empty, |token| token.span);
    TokenWithSpan::new(token, span)
}

fn place(tokens: &[TokenWithSpan]) -> Location {
    tokens
        .first()
        .map_or_else(Location::empty, |token| token.span.start)
}

fn begins(tokens: &[TokenWithSpan]) -> bool {
    const PERIODS: [&[&str]; 5] = [
        &["AS", "OF"],
        &["FROM"],
        &["BETWEEN"],
        &["CONTAINED"],
        &["ALL"],
    ];
    sees(tokens, 0, &["FOR", "VALID_TIME"]) && PERIODS.iter().any(|words| sees(tokens, 2, words))
}

/// `FOR VALID_TIME {AS OF e | FROM a TO b | BETWEEN a AND b | CONTAINED IN (a, b) | ALL}`
fn valid(tokens: &[TokenWithSpan]) -> Result<Option<Part>> {
    if !begins(tokens) {
        return Ok(None);
    }
    let one = |name: &str, n: usize, between: bool| -> Result<Part> {
        let rest = from(tokens, n);
        let taken = value(rest, between)?;
        let mut argument = vec![
            made(Token::make_word(name, None), rest),
            made(Token::RArrow, rest),
        ];
        argument.extend_from_slice(rest.get(..taken).unwrap_or_default());
        Ok((argument, n + taken))
    };
    let two = |names: [&str; 2], n: usize, link: Token| -> Result<Part> {
        let between = is_word(&link, "AND");
        let (mut arguments, n) = one(names[0], n, between)?;
        let linked = match &link {
            Token::Word(word) => sees(tokens, n, &[word.value.as_str()]),
            other => symbol(tokens, n, other),
        };
        if !linked {
            return Err(expected(&link.to_string(), from(tokens, n), tokens));
        }
        let (second, n) = one(names[1], n + 1, between)?;
        arguments.push(made(Token::Comma, tokens));
        arguments.extend(second);
        Ok((arguments, n))
    };
    let part = if sees(tokens, 2, &["AS", "OF"]) {
        one("VALID_AS_OF", 4, false)?
    } else if sees(tokens, 2, &["FROM"]) {
        two(["VALID_FROM", "VALID_TO"], 3, Token::make_keyword("TO"))?
    } else if sees(tokens, 2, &["BETWEEN"]) {
        let names = ["VALID_BETWEEN", "VALID_AND"];
        two(names, 3, Token::make_keyword("AND"))?
    } else if sees(tokens, 2, &["CONTAINED"]) {
        if !sees(tokens, 3, &["IN"]) || !symbol(tokens, 4, &Token::LParen) {
            return Err(expected("IN (from, to)", from(tokens, 3), tokens));
        }
        let (arguments, n) = two(["VALID_IN", "VALID_UNTIL"], 5, Token::Comma)?;
        if !symbol(tokens, n, &Token::RParen) {
            return Err(expected(")", from(tokens, n), tokens));
        }
        (arguments, n + 1)
    } else {
        let all = [
            Token::make_word("VALID_ALL", None),
            Token::RArrow,
            Token::make_keyword("TRUE"),
        ];
        (all.map(|token| made(token, tokens)).to_vec(), 3)
    };
    Ok(Some(part))
}

fn is_word(token: &Token, word: &str) -> bool {
    matches!(token, Token::Word(found) if found.value == word)
}

fn expected(what: &str, found: &[TokenWithSpan], clause: &[TokenWithSpan]) -> Error {
    let (found, place) = match found.first() {
        Some(token) => (token.token.to_string(), token.span.start),
        None => ("the end of the statement".to_owned(), place(clause)),
    };
    at(
        Error::invalid(format!("expected {what} of FOR VALID_TIME, found {found}")),
        place,
    )
}

/// Any spelling of a version clause. What the parser would not take either is left to it.
fn version(tokens: &[TokenWithSpan]) -> Option<Part> {
    const CLOCKS: [&str; 3] = ["VERSION", "TIMESTAMP", "SYSTEM_TIME"];
    if sees(tokens, 0, &["AT"]) && symbol(tokens, 1, &Token::LParen) {
        let clock = CLOCKS.iter().take(2).any(|clock| sees(tokens, 2, &[clock]));
        if !clock || !symbol(tokens, 3, &Token::RArrow) {
            return None;
        }
        let end = 4 + value(from(tokens, 4), false).ok()?;
        return symbol(tokens, end, &Token::RParen)
            .then(|| Some((tokens.get(2..end)?.to_vec(), end + 1)))
            .flatten();
    }
    let start = usize::from(sees(tokens, 0, &["FOR"]));
    let clock = CLOCKS
        .into_iter()
        .find(|clock| sees(tokens, start, &[clock, "AS", "OF"]))?;
    let rest = from(tokens, start + 3);
    let taken = value(rest, false).ok()?;
    let clock = match clock {
        "VERSION" => "VERSION",
        _ => "TIMESTAMP",
    };
    let mut argument = vec![
        made(Token::make_keyword(clock), tokens),
        made(Token::RArrow, tokens),
    ];
    argument.extend_from_slice(rest.get(..taken)?);
    Some((argument, start + 3 + taken))
}

/// How many of the tokens are the expression that they begin with. Between `BETWEEN` and its `AND` no other may stand.
fn value(tokens: &[TokenWithSpan], between: bool) -> Result<usize> {
    let bound = bound(tokens);
    let slice = tokens.get(..bound).unwrap_or(tokens);
    let end = tokens.get(bound).or(tokens.last());
    let end = end.and_then(|token| syntax::position(token.span.start));
    let mut parser = Parser::new(&SelvedgeDialect)
        .with_recursion_limit(MAX_DEPTH)
        .with_tokens_with_locations(slice.to_vec());
    let read = match between {
        true => parser.parse_subexpr(SelvedgeDialect.prec_value(Precedence::Between)),
        false => parser.parse_expr(),
    };
    let end = end.unwrap_or(Position { line: 1, column: 1 });
    read.map_err(|error| parser_error(error, end))?;
    Ok(parser.index().min(bound))
}

/// Where the expression ends at the latest: so that long statements are not copied for each of their clauses.
fn bound(tokens: &[TokenWithSpan]) -> usize {
    let (mut depth, mut field) = (0_usize, false);
    let end = tokens.iter().position(|token| {
        // `f.to` is a column.
        let of_a_name = std::mem::replace(&mut field, token.token == Token::Period);
        match token.token {
            Token::LParen | Token::LBracket | Token::LBrace => {
                depth += 1;
                false
            }
            Token::RParen | Token::RBracket | Token::RBrace => match depth.checked_sub(1) {
                None => true,
                Some(outer) => {
                    depth = outer;
                    false
                }
            },
            Token::Comma | Token::SemiColon => depth == 0,
            // `INTERVAL '1' DAY TO ..` would take the TO of the clause for its own.
            Token::Word(_) if depth == 0 && !of_a_name => {
                ["FOR", "JOIN", "TO"].iter().any(|word| is(token, word))
            }
            _ => false,
        }
    });
    end.unwrap_or(tokens.len())
}

/// What the arguments of `AT (..)` say, where one of them is about valid time.
pub(super) fn read(arguments: &[(String, &Expr)]) -> Option<Result<Valid>> {
    let is_version = |name: &str| matches!(name, "version" | "timestamp");
    let versions = arguments.iter().filter(|(name, _)| is_version(name));
    let at = match versions.collect::<Vec<_>>().as_slice() {
        [] => None,
        [(name, value)] if name == "version" => Some(versions::number(value)),
        [(_, value)] => Some(versions::instant(value)),
        _ => return None,
    };
    let time: Vec<(&str, &Expr)> = arguments
        .iter()
        .filter(|(name, _)| !is_version(name))
        .map(|(name, value)| (name.as_str(), *value))
        .collect();
    let time = match time.as_slice() {
        [("valid_as_of", instant)] => as_of(instant),
        [("valid_from", from), ("valid_to", to)] => period(from, to, ValidTime::FromTo),
        [("valid_between", from), ("valid_and", to)] => period(from, to, ValidTime::Between),
        [("valid_in", from), ("valid_until", to)] => period(from, to, ValidTime::ContainedIn),
        [("valid_all", _)] => Ok(ValidTime::All),
        _ => return None,
    };
    Some(time.and_then(|time| {
        Ok(Valid {
            time,
            at: at.transpose()?,
        })
    }))
}

fn period(
    from: &Expr,
    to: &Expr,
    time: fn(Box<Expr>, Box<Expr>) -> ValidTime,
) -> Result<ValidTime> {
    Ok(time(instant(from)?, instant(to)?))
}

/// An instant that is the same for all rows.
pub(super) fn instant(instant: &Expr) -> Result<Box<Expr>> {
    constant(instant, WHAT)?;
    if matches!(instant, Expr::Value(value) if value.value == Value::Null) {
        let error = Error::invalid(format!("{WHAT} cannot be NULL"));
        return Err(at(error, instant.span().start));
    }
    Ok(Box::new(instant.clone()))
}

/// An instant that may be another for each row of a join.
fn as_of(instant: &Expr) -> Result<ValidTime> {
    match of_row(instant) {
        false => self::instant(instant).map(ValidTime::AsOf),
        true => {
            row_expression(instant, WHAT)?;
            Ok(ValidTime::AsOf(Box::new(instant.clone())))
        }
    }
}

/// Whether an instant is told by the row that is joined.
pub(super) fn of_row(instant: &Expr) -> bool {
    visit_expressions(instant, |expr| match expr {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// The refusal of such an instant where no row could tell it.
pub(super) fn misplaced(instant: &Expr) -> Error {
    let error = Error::invalid("instant of FOR VALID_TIME: a column cannot stand here").with_hint(
        "FROM f JOIN t FOR VALID_TIME AS OF f.ts ON .. reads what was true at the instant of each row",
    );
    at(error, instant.span().start)
}

/// The condition of a join whose right side is read as of an instant of its left side.
pub(super) fn condition<'a>(
    operator: &'a mut JoinOperator,
    instant: &Expr,
) -> Result<&'a mut Expr> {
    match operator {
        JoinOperator::Join(JoinConstraint::On(on))
        | JoinOperator::Inner(JoinConstraint::On(on))
        | JoinOperator::Left(JoinConstraint::On(on))
        | JoinOperator::LeftOuter(JoinConstraint::On(on)) => Ok(on),
        _ => {
            let error = Error::invalid("AS OF a column of another table needs JOIN .. ON").with_hint(
                "write an inner or left join with its condition: FROM f JOIN t FOR VALID_TIME AS OF f.ts ON t.k = f.k",
            );
            Err(at(error, instant.span().start))
        }
    }
}

/// `condition AND __selvedge_as_of_row('internal', instant)`
pub(super) fn with_row(condition: Expr, internal: &str, instant: Expr) -> Expr {
    let argument = |expr| FunctionArg::Unnamed(FunctionArgExpr::Expr(expr));
    let name = Expr::value(Value::SingleQuotedString(internal.to_owned()));
    let call = Expr::Function(Function {
        name: ObjectName::from(vec![Ident::new(AS_OF_ROW)]),
        uses_odbc_syntax: false,
        parameters: FunctionArguments::None,
        args: FunctionArguments::List(FunctionArgumentList {
            duplicate_treatment: None,
            args: vec![argument(name), argument(instant)],
            clauses: vec![],
        }),
        filter: None,
        null_treatment: None,
        over: None,
        within_group: vec![],
    });
    Expr::BinaryOp {
        left: Box::new(Expr::Nested(Box::new(condition))),
        op: BinaryOperator::And,
        right: Box::new(call),
    }
}
