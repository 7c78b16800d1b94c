//! Help while a statement is typed: enter runs it only when it is complete, tab completes keywords and names.

use std::cell::RefCell;

use rustyline::completion::Completer;
use rustyline::highlight::Highlighter;
use rustyline::hint::Hinter;
use rustyline::validate::{ValidationContext, ValidationResult, Validator};
use rustyline::{Context, Result};
use selvedge_engine::{Session, split};
use tokio::runtime::Handle;

use super::meta;

/// The words people type most, for completion only.
const KEYWORDS: &[&str] = &[
    "ADD",
    "ALL",
    "ALTER",
    "ANALYZE",
    "AND",
    "AS",
    "ASC",
    "BETWEEN",
    "BIGINT",
    "BOOLEAN",
    "BY",
    "CASE",
    "CAST",
    "CHECK",
    "COLUMN",
    "CONSTRAINT",
    "CONSTRAINTS",
    "COPY",
    "CREATE",
    "CROSS",
    "DATE",
    "DECIMAL",
    "DEFAULT",
    "DELETE",
    "DESC",
    "DESCRIBE",
    "DISTINCT",
    "DOUBLE",
    "DROP",
    "ELSE",
    "END",
    "EXCEPT",
    "EXISTS",
    "EXPECT",
    "EXPLAIN",
    "EXTERNAL",
    "FAIL",
    "FALSE",
    "FROM",
    "FULL",
    "GROUP",
    "HAVING",
    "IF",
    "IN",
    "INNER",
    "INSERT",
    "INTEGER",
    "INTERSECT",
    "INTERVAL",
    "INTO",
    "IS",
    "JOIN",
    "LEFT",
    "LIKE",
    "LIMIT",
    "LOCATION",
    "MERGE",
    "NOT",
    "NULL",
    "OFFSET",
    "ON",
    "OPTIMIZE",
    "OR",
    "ORDER",
    "OUTER",
    "OVER",
    "OVERWRITE",
    "PARTITION",
    "PARTITIONED",
    "PROPERTIES",
    "QUALITY",
    "QUARANTINE",
    "REFERENCES",
    "RENAME",
    "REPLACE",
    "REPLAY",
    "RESTORE",
    "RIGHT",
    "SCHEMA",
    "SELECT",
    "SET",
    "SHOW",
    "STORED",
    "SUGGEST",
    "TABLE",
    "TABLES",
    "TEXT",
    "THEN",
    "TIMESTAMP",
    "TO",
    "TRUE",
    "TRUNCATE",
    "UNION",
    "UPDATE",
    "USING",
    "VACUUM",
    "VALUES",
    "VARCHAR",
    "VERSION",
    "VIEW",
    "VIOLATION",
    "WARN",
    "WHEN",
    "WHERE",
    "WITH",
];

/// What rustyline asks while a line is edited.
pub(super) struct Helper {
    session: Session,
    runtime: Handle,
    /// Schemas and tables, as they are typed; read from the lake at the first tab after a statement.
    names: RefCell<Option<Vec<String>>>,
}

impl Helper {
    pub(super) fn new(session: Session, runtime: Handle) -> Self {
        Self {
            session,
            runtime,
            names: RefCell::new(None),
        }
    }

    /// A statement may have created or dropped something.
    pub(super) fn forget_names(&mut self) {
        self.names.replace(None);
    }

    async fn read_names(&self) -> selvedge_engine::Result<Vec<String>> {
        let current = self.session.current_schema();
        let mut names: Vec<String> = self
            .session
            .schemas()
            .await?
            .iter()
            .map(|schema| quoted(schema))
            .collect();
        for table in self.session.tables().await? {
            names.push(format!("{}.{}", quoted(&table.schema), quoted(&table.name)));
            if table.schema == current {
                names.push(quoted(&table.name));
            }
        }
        names.sort();
        names.dedup();
        Ok(names)
    }
}

impl Completer for Helper {
    type Candidate = String;

    fn complete(&self, line: &str, at: usize, _: &Context<'_>) -> Result<(usize, Vec<String>)> {
        let start = word_start(&line[..at]);
        let typed = &line[start..at];
        if let Some(command) = typed.strip_prefix('\\') {
            let names = meta::NAMES.iter().filter(|name| name.starts_with(command));
            return Ok((start, names.map(|name| format!("\\{name}")).collect()));
        }
        let mut names = self.names.borrow_mut();
        // Names that cannot be read now are not completed; the next statement will say why.
        let names = names
            .get_or_insert_with(|| self.runtime.block_on(self.read_names()).unwrap_or_default());
        Ok((start, candidates(typed, names)))
    }
}

/// Where the word that ends at the cursor begins.
fn word_start(before: &str) -> usize {
    let part = |character: char| character.is_alphanumeric() || "_.\"$\\".contains(character);
    before
        .char_indices()
        .rev()
        .take_while(|(_, character)| part(*character))
        .last()
        .map_or(before.len(), |(at, _)| at)
}

fn candidates(typed: &str, names: &[String]) -> Vec<String> {
    let lower = typed.to_lowercase();
    let mut found: Vec<String> = names
        .iter()
        .filter(|name| name.to_lowercase().starts_with(&lower))
        .cloned()
        .collect();
    // All keywords for nothing typed would bury the names.
    if !typed.is_empty() {
        let keywords = KEYWORDS
            .iter()
            .filter(|keyword| keyword.to_lowercase().starts_with(&lower));
        let in_lower_case = typed == lower;
        found.extend(keywords.map(|keyword| match in_lower_case {
            true => keyword.to_lowercase(),
            false => keyword.to_string(),
        }));
    }
    found
}

/// A name as it has to be typed: unquoted ones are read in lower case.
fn quoted(name: &str) -> String {
    let plain = |(at, character): (usize, char)| {
        matches!(character, 'a'..='z' | '_') || (at > 0 && character.is_ascii_digit())
    };
    match !name.is_empty() && name.chars().enumerate().all(plain) {
        true => name.to_string(),
        false => format!("\"{}\"", name.replace('"', "\"\"")),
    }
}

impl Validator for Helper {
    fn validate(&self, context: &mut ValidationContext) -> Result<ValidationResult> {
        Ok(match complete(context.input()) {
            true => ValidationResult::Valid(None),
            false => ValidationResult::Incomplete,
        })
    }
}

/// Whether enter runs the input instead of beginning another line.
fn complete(input: &str) -> bool {
    input.trim_start().starts_with('\\')
        || meta::leaves(input)
        || split(input).last().is_none_or(|last| last.complete)
}

impl Hinter for Helper {
    type Hint = String;
}

impl Highlighter for Helper {}

impl rustyline::Helper for Helper {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn enter_waits_for_the_semicolon() {
        for input in [
            "select 1;",
            "",
            "\\d t",
            "exit",
            "select 1; -- done",
            "-- nothing",
        ] {
            assert!(complete(input), "{input}");
        }
        for input in ["select 1", "select ';", "select 1; select 2", "/* open"] {
            assert!(!complete(input), "{input}");
        }
    }

    #[test]
    fn words_complete_to_names_and_keywords() {
        let names = ["orders", "public.orders", "shop", "shop.\"Big\""].map(String::from);
        assert_eq!(candidates("or", &names), ["orders", "or", "order"]);
        assert_eq!(candidates("SEL", &names), ["SELECT"]);
        assert_eq!(candidates("shop.", &names), ["shop.\"Big\""]);
        assert_eq!(candidates("", &names).len(), 4);
        assert_eq!(word_start("select * from shop.\"B"), 14);
        assert_eq!(word_start("select "), 7);
        assert_eq!(word_start("sélect(é"), 8);
    }

    #[test]
    fn names_are_quoted_as_sql_reads_them() {
        let names = ["orders", "a1", "1a", "Big", "a b", "say\"", "t$history"].map(quoted);
        assert_eq!(
            names,
            [
                "orders",
                "a1",
                "\"1a\"",
                "\"Big\"",
                "\"a b\"",
                "\"say\"\"\"",
                "\"t$history\""
            ]
        );
    }
}
