//! Reads a statement word by word, over sqlparser's parser for names, types, expressions and queries.
//!
//! Words are compared as text, so a word that sqlparser does not reserve reads like one that it does.

use datafusion::sql::sqlparser::ast::{DataType, Expr, Ident, ObjectName, Query};
use datafusion::sql::sqlparser::keywords;
use datafusion::sql::sqlparser::parser::{Parser, ParserError};
use datafusion::sql::sqlparser::tokenizer::{Location, Token, Word};

use super::dialect::SelvedgeDialect;
use super::lex::{is, lex};
use super::statement::FileFormat;
use super::suggest::nearest;
use super::syntax::{self, MAX_DEPTH, parser_error};
use crate::error::{Error, Position, Result};

pub(super) struct Reader<'a> {
    sql: &'a str,
    parser: Parser<'static>,
    end: Position,
}

impl<'a> Reader<'a> {
    pub(super) fn new(sql: &'a str) -> Result<Self> {
        let lexed = lex(sql)?;
        let parser = Parser::new(&SelvedgeDialect)
            .with_recursion_limit(MAX_DEPTH)
            .with_tokens_with_locations(lexed.tokens);
        Ok(Self {
            sql,
            parser,
            end: lexed.end,
        })
    }

    /// Runs a part of sqlparser's grammar.
    pub(super) fn parse<T>(
        &mut self,
        part: impl FnOnce(&mut Parser<'static>) -> Result<T, ParserError>,
    ) -> Result<T> {
        part(&mut self.parser).map_err(|error| parser_error(error, self.end))
    }

    pub(super) fn expr(&mut self) -> Result<Expr> {
        self.parse(Parser::parse_expr)
    }

    pub(super) fn query(&mut self) -> Result<Box<Query>> {
        self.parse(Parser::parse_query)
    }

    pub(super) fn data_type(&mut self) -> Result<DataType> {
        self.parse(Parser::parse_data_type)
    }

    /// A query with its text as typed.
    pub(super) fn query_with_text(&mut self) -> Result<(Box<Query>, String)> {
        self.with_text(Self::query)
    }

    /// An expression with its text as typed.
    pub(super) fn expr_with_text(&mut self) -> Result<(Expr, String)> {
        self.with_text(Self::expr)
    }

    fn with_text<T>(&mut self, part: impl FnOnce(&mut Self) -> Result<T>) -> Result<(T, String)> {
        let from = self.parser.peek_token_ref().span.start;
        let read = part(self)?;
        let to = self.parser.get_current_token().span.end;
        let text = &self.sql[offset(self.sql, from)..offset(self.sql, to)];
        Ok((read, text.to_owned()))
    }

    /// Place of the next token.
    pub(super) fn position(&self) -> Position {
        syntax::position(self.parser.peek_token_ref().span.start).unwrap_or(self.end)
    }

    pub(super) fn done(&self) -> bool {
        self.parser.peek_token_ref().token == Token::EOF
    }

    /// Whether the next tokens are these words; takes nothing.
    pub(super) fn sees(&self, words: &[&str]) -> bool {
        words
            .iter()
            .enumerate()
            .all(|(n, word)| is(self.parser.peek_nth_token_ref(n), word))
    }

    /// Takes the words if the next tokens are they.
    pub(super) fn take(&mut self, words: &[&str]) -> bool {
        let seen = self.sees(words);
        if seen {
            words.iter().for_each(|_| self.parser.advance_token());
        }
        seen
    }

    pub(super) fn expect(&mut self, words: &[&str]) -> Result<()> {
        if self.take(words) {
            return Ok(());
        }
        Err(self.expected(&words.join(" ")))
    }

    pub(super) fn sees_symbol(&self, n: usize, symbol: &Token) -> bool {
        &self.parser.peek_nth_token_ref(n).token == symbol
    }

    pub(super) fn take_symbol(&mut self, symbol: &Token) -> bool {
        self.parser.consume_token(symbol)
    }

    pub(super) fn expect_symbol(&mut self, symbol: &Token) -> Result<()> {
        if self.take_symbol(symbol) {
            return Ok(());
        }
        Err(self.expected(&symbol.to_string()))
    }

    /// The next token, if it is an unquoted word, in capitals.
    pub(super) fn peek_word(&self, n: usize) -> Option<String> {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(Word {
                value,
                quote_style: None,
                ..
            }) => Some(value.to_ascii_uppercase()),
            _ => None,
        }
    }

    /// Whether the next token but `n` is a word, quoted or not.
    pub(super) fn sees_name(&self, n: usize) -> bool {
        matches!(self.parser.peek_nth_token_ref(n).token, Token::Word(_))
    }

    /// Whether the next token but `n` may be the name of a table without AS before it.
    pub(super) fn sees_alias(&self, n: usize) -> bool {
        match &self.parser.peek_nth_token_ref(n).token {
            Token::Word(word) => !keywords::RESERVED_FOR_TABLE_ALIAS.contains(&word.keyword),
            _ => false,
        }
    }

    /// `[AS] alias`, if it is there.
    pub(super) fn alias(&mut self) -> Result<Option<Ident>> {
        if self.take(&["AS"]) || self.sees_alias(0) {
            return self.identifier().map(Some);
        }
        Ok(None)
    }

    pub(super) fn identifier(&mut self) -> Result<Ident> {
        match self.parser.peek_token_ref().token {
            Token::Word(_) => self.parse(Parser::parse_identifier),
            _ => Err(self.expected("a name")),
        }
    }

    /// A name of one to three parts. A quoted string is a file, and no name.
    pub(super) fn object_name(&mut self) -> Result<ObjectName> {
        if let Token::SingleQuotedString(path) = &self.parser.peek_token_ref().token {
            let error = Error::invalid(format!("expected a name, found the file '{path}'"))
                .with_hint("names are quoted with double quotes: \"name\"");
            return Err(error.with_position(self.position()));
        }
        let place = self.position();
        let mut parts = vec![self.identifier()?];
        while self.take_symbol(&Token::Period) {
            parts.push(self.identifier()?);
        }
        let name = ObjectName::from(parts);
        if name.0.len() > 3 {
            let error = Error::invalid(format!("the name {name} has more than three parts"))
                .with_hint("names are table, schema.table or catalog.schema.table");
            return Err(error.with_position(place));
        }
        Ok(name)
    }

    pub(super) fn string(&mut self) -> Result<String> {
        let value = match &self.parser.peek_token_ref().token {
            Token::SingleQuotedString(text) | Token::EscapedStringLiteral(text) => text.clone(),
            Token::DollarQuotedString(text) => text.value.clone(),
            _ => return Err(self.expected("a quoted string")),
        };
        self.parser.advance_token();
        Ok(value)
    }

    /// `( item, item, .. )`, at least one item.
    pub(super) fn list<T>(
        &mut self,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.expect_symbol(&Token::LParen)?;
        let mut items = vec![item(self)?];
        while self.take_symbol(&Token::Comma) {
            items.push(item(self)?);
        }
        self.expect_symbol(&Token::RParen)?;
        Ok(items)
    }

    /// `( key = value, .. )`. Keys are strings or names with dots; the `=` may be left out, as in
    /// DataFusion's `OPTIONS`.
    pub(super) fn options(&mut self) -> Result<Vec<(String, String)>> {
        let mut options: Vec<(String, String)> = Vec::new();
        self.list(|reader| {
            let place = reader.position();
            let key = reader.option_key()?;
            reader.take_symbol(&Token::Eq);
            let value = reader.value()?;
            if options.iter().any(|(seen, _)| *seen == key) {
                let error = Error::invalid(format!("'{key}' is given twice"));
                return Err(error.with_position(place));
            }
            options.push((key, value));
            Ok(())
        })?;
        Ok(options)
    }

    pub(super) fn option_key(&mut self) -> Result<String> {
        match self.parser.peek_token_ref().token {
            Token::Word(_) => self.dotted_name(),
            _ => self.string(),
        }
    }

    /// Words with dots between, as in `datafusion.execution.batch_size`.
    pub(super) fn dotted_name(&mut self) -> Result<String> {
        let mut name = self.identifier()?.value;
        while self.take_symbol(&Token::Period) {
            name.push('.');
            name.push_str(&self.identifier()?.value);
        }
        Ok(name)
    }

    /// A string, a number or a word such as `true`, as text.
    pub(super) fn value(&mut self) -> Result<String> {
        let sign = if self.take_symbol(&Token::Minus) {
            "-"
        } else {
            ""
        };
        let text = match &self.parser.peek_token_ref().token {
            Token::Number(digits, _) => format!("{sign}{digits}"),
            Token::Word(word) if sign.is_empty() => word.value.clone(),
            _ if sign.is_empty() => return self.string(),
            _ => return Err(self.expected("a number")),
        };
        self.parser.advance_token();
        Ok(text)
    }

    pub(super) fn file_format(&mut self) -> Result<FileFormat> {
        let place = self.position();
        let name = match self.parser.peek_token_ref().token {
            Token::Word(_) => self.identifier()?.value,
            _ => self.string()?,
        };
        match name.to_ascii_uppercase().as_str() {
            "NDJSON" | "JSONL" | "JSONLINES" => return Ok(FileFormat::Json),
            wanted => {
                for format in FileFormat::ALL {
                    if format.to_string() == wanted {
                        return Ok(format);
                    }
                }
            }
        }
        let names = FileFormat::ALL.map(|format| format.to_string());
        let error = Error::invalid(format!("unknown file format {name}"));
        let error = match nearest(&name, &names) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error.with_hint(format!("the formats are {}", names.join(", "))),
        };
        Err(error.with_position(place))
    }

    /// A syntax error at the next token.
    pub(super) fn expected(&self, what: &str) -> Error {
        let token = &self.parser.peek_token_ref().token;
        let found = match token {
            Token::EOF => "the end of the statement".to_owned(),
            token => token.to_string(),
        };
        Error::invalid(format!("expected {what}, found {found}")).with_position(self.position())
    }

    /// Refuses what a statement may hold elsewhere but not here.
    pub(super) fn unsupported(&self, what: &str) -> Error {
        Error::unsupported(format!("{what} is not supported")).with_position(self.position())
    }
}

/// Byte offset of a location in `sql`.
fn offset(sql: &str, location: Location) -> usize {
    let mut line_start = 0;
    for _ in 1..location.line {
        match sql[line_start..].find('\n') {
            Some(at) => line_start += at + 1,
            None => return sql.len(),
        }
    }
    let column = location.column.saturating_sub(1) as usize;
    sql[line_start..]
        .char_indices()
        .nth(column)
        .map_or(sql.len(), |(at, _)| line_start + at)
}
