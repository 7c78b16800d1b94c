//! A script to the texts of its statements, cut at semicolons outside quotes and comments.

use datafusion::sql::sqlparser::tokenizer::{Location, Token, TokenWithSpan, Tokenizer};

use super::dialect::SelvedgeDialect;

/// One statement of a script, with the line it begins on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Script<'a> {
    /// Text of the statement, without its final semicolon.
    pub text: &'a str,
    /// Line in the script on which it begins, from 1.
    pub line: u64,
    /// Whether a final semicolon was there (the interactive shell waits for it).
    pub complete: bool,
}

/// Splits a script into its statements at semicolons that are not inside quotes or comments.
///
/// A statement begins at its first word, so comments before it are not part of its text. Text after
/// the last semicolon, or one whose quote or comment never closes, comes last and is not complete.
pub fn split(script: &str) -> Vec<Script<'_>> {
    let mut tokens = Vec::new();
    let outcome =
        Tokenizer::new(&SelvedgeDialect, script).tokenize_with_location_into_buf(&mut tokens);
    let mut cutter = Cutter::new(script);
    for TokenWithSpan { token, span } in &tokens {
        match token {
            Token::SemiColon => cutter.close(span.start, span.end),
            Token::Whitespace(_) | Token::EOF => {}
            _ => cutter.extend(span.start, span.end),
        }
    }
    match outcome {
        Ok(()) => cutter.finish(false),
        // No token was made of the rest: an open quote or comment, for which a shell waits, or text
        // that is wrong however it goes on, for which it must not wait.
        Err(error) => {
            let open = error.message.contains("nterminated") || error.message.contains("EOF");
            let from = tokens.last().map(|token| token.span.end);
            cutter.rest(from, !open)
        }
    }
}

/// Walks the script once, from location to byte offset, and collects the statements.
struct Cutter<'a> {
    script: &'a str,
    offset: usize,
    line: u64,
    column: u64,
    /// Offset and line at which the statement begins, and the offset of its end so far.
    open: Option<(usize, u64, usize)>,
    done: Vec<Script<'a>>,
}

impl<'a> Cutter<'a> {
    fn new(script: &'a str) -> Self {
        Self {
            script,
            offset: 0,
            line: 1,
            column: 1,
            open: None,
            done: Vec::new(),
        }
    }

    /// Byte offset of a location at or after the last one asked for.
    fn seek(&mut self, to: Location) -> usize {
        for c in self.script[self.offset..].chars() {
            if (self.line, self.column) >= (to.line, to.column) {
                break;
            }
            self.offset += c.len_utf8();
            if c == '\n' {
                self.line += 1;
                self.column = 1;
            } else {
                self.column += 1;
            }
        }
        self.offset
    }

    fn extend(&mut self, start: Location, end: Location) {
        let start = self.seek(start);
        let line = self.line;
        let end = self.seek(end);
        self.open = match self.open {
            Some((from, line, _)) => Some((from, line, end)),
            None => Some((start, line, end)),
        };
    }

    fn close(&mut self, start: Location, end: Location) {
        self.seek(start);
        self.push(true);
        self.seek(end);
    }

    fn push(&mut self, complete: bool) {
        if let Some((from, line, to)) = self.open.take() {
            let text = &self.script[from..to];
            self.done.push(Script {
                text,
                line,
                complete,
            });
        }
    }

    fn finish(mut self, complete: bool) -> Vec<Script<'a>> {
        self.push(complete);
        self.done
    }

    /// Takes everything after `from` into the last statement.
    fn rest(mut self, from: Option<Location>, broken: bool) -> Vec<Script<'a>> {
        if let Some(from) = from {
            self.seek(from);
        }
        let tail = &self.script[self.offset..];
        let start = self.offset + (tail.len() - tail.trim_start().len());
        let line = self.line + tail[..start - self.offset].matches('\n').count() as u64;
        let trimmed = self.script.trim_end();
        let complete = broken && trimmed.ends_with(';');
        let end = trimmed.len() - usize::from(complete);
        let (from, line) = self
            .open
            .map_or((start, line), |(from, line, _)| (from, line));
        self.open = Some((from, line, end.max(from)));
        self.finish(complete)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(script: &str) -> Vec<&str> {
        split(script).into_iter().map(|s| s.text).collect()
    }

    #[test]
    fn cuts_at_semicolons_and_skips_empty_statements() {
        let parts = split("select 1;\n\n  select 2 ;; -- done\n select 3");
        assert_eq!(
            parts,
            [
                Script {
                    text: "select 1",
                    line: 1,
                    complete: true
                },
                Script {
                    text: "select 2",
                    line: 3,
                    complete: true
                },
                Script {
                    text: "select 3",
                    line: 4,
                    complete: false
                },
            ]
        );
        assert!(split("").is_empty());
        assert!(split(" ;; -- nothing\n/* here */;").is_empty());
    }

    #[test]
    fn semicolons_inside_quotes_and_comments_do_not_cut() {
        for one in [
            "select 'a;b', \"c;d\", `e;f`, 'it''s;', E'x\\';y'",
            "select /* ; /* nested ; */ ; */ 1",
            "select 1 -- ; not here\n + 2",
            "select $$ a; b $$, $tag$ c; $$ d $tag$",
            "select U&'\\0061;b'",
        ] {
            let script = format!("{one}; select 2;");
            assert_eq!(texts(&script), [one, "select 2"], "{one}");
        }
    }

    #[test]
    fn statements_begin_at_their_first_word() {
        let parts = split("-- one\n/* two\n lines */ select\n 1 -- tail\n; /* x */ select 2;");
        assert_eq!(parts[0].text, "select\n 1");
        assert_eq!(parts[0].line, 3);
        assert_eq!(parts[1].text, "select 2");
        assert_eq!(parts[1].line, 5);
    }

    #[test]
    fn open_quotes_and_comments_wait_for_more() {
        for open in [
            "'abc;",
            "\"abc;",
            "/* abc;",
            "$$ abc;",
            "$x$ abc; $$",
            "E'abc;",
        ] {
            let script = format!("select 1;\nselect {open}");
            let parts = split(&script);
            assert_eq!(parts.len(), 2, "{open}");
            assert_eq!(parts[1].text, format!("select {open}"));
            assert_eq!(parts[1].line, 2);
            assert!(!parts[1].complete, "{open}");
        }
        let parts = split("'abc");
        assert_eq!((parts[0].text, parts[0].line), ("'abc", 1));
    }

    #[test]
    fn text_that_can_never_be_read_does_not_wait() {
        let parts = split("select 1; select U&'\\zzzz';");
        assert_eq!(parts.len(), 2);
        assert!(parts[1].complete);
        assert_eq!(parts[1].text, "select U&'\\zzzz'");
    }

    #[test]
    fn wide_characters_and_windows_line_ends_keep_offsets() {
        let parts = split("select 'žluťoučký 🐎';\r\nselect \"š\";");
        assert_eq!(parts[0].text, "select 'žluťoučký 🐎'");
        assert_eq!(parts[1].text, "select \"š\"");
        assert_eq!(parts[1].line, 2);
    }
}
