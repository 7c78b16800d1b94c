//! The rules of a table for programs: the same as ALTER TABLE and CHECK TABLE, with values instead of text.

use std::fmt;
use std::sync::Arc;

use datafusion::common::TableReference;
use datafusion::sql::sqlparser::ast::{Ident, ObjectName};
use futures::FutureExt;
use futures::future::BoxFuture;

use super::scope::{Opened, Scope};
use super::{Session, constraint, quality};
use crate::error::Result;
use crate::quality::record::RuleResult;
use crate::quality::rule::Rule;
use crate::table::protocol;

/// Whether the rows of a table are asked before it gets a rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Validation {
    /// They are, and the rule is refused when one breaks it.
    #[default]
    Scan,
    /// They are not: only rows to come are held to the rule (`NOT VALID`).
    Trust,
}

/// The rules of one table. Made by [`Session::rules`]; each call sees the table as it then is.
#[derive(Clone)]
pub struct Rules {
    session: Session,
    table: ObjectName,
}

impl Session {
    /// The rules of a table, by its name as SQL writes it. Whether there is such a table is told when it is used.
    pub fn rules(&self, table: &str) -> Rules {
        let parts = match TableReference::parse_str(table) {
            TableReference::Bare { table } => vec![table],
            TableReference::Partial { schema, table } => vec![schema, table],
            TableReference::Full {
                catalog,
                schema,
                table,
            } => vec![catalog, schema, table],
        };
        let idents = parts.iter().map(|part| Ident::with_quote('"', &**part));
        Rules {
            session: self.clone(),
            table: ObjectName::from(idents.collect::<Vec<_>>()),
        }
    }
}

impl Rules {
    /// All rules, by name.
    pub async fn list(&self) -> Result<Vec<Rule>> {
        let (_, opened) = self.open().await?;
        constraint::rules(&opened)
    }

    /// The rule of that name.
    pub async fn get(&self, name: &str) -> Result<Rule> {
        let (_, opened) = self.open().await?;
        constraint::rule_named(&opened, name)
    }

    /// Adds a rule; returns it as it is kept.
    ///
    /// # Errors
    /// When the rule cannot be asked of the table, its name is taken, or rows break it that it was to be asked of.
    pub async fn create(&self, rule: Rule, validation: Validation) -> Result<Rule> {
        self.change(move |scope, opened| {
            let rule = rule.clone();
            async move { constraint::add_rule(&scope, &opened, rule, validation).await }.boxed()
        })
        .await
    }

    /// Puts a rule in the place of the one with its name, in one commit; returns it as it is kept. Rows that are
    /// there are asked when the condition is another one.
    ///
    /// # Errors
    /// When there is no rule of that name, or this one could not be created.
    pub async fn update(&self, rule: Rule) -> Result<Rule> {
        self.change(move |scope, opened| {
            let rule = rule.clone();
            async move { constraint::update_rule(&scope, &opened, rule).await }.boxed()
        })
        .await
    }

    /// Takes a rule away. Old versions of the table keep it.
    pub async fn delete(&self, name: &str) -> Result<()> {
        self.change(move |scope, opened| {
            async move {
                let rule = constraint::rule_named(&opened, name)?;
                constraint::drop(&scope, &opened, &rule.name, false).await
            }
            .boxed()
        })
        .await
    }

    /// Lets writes be held to a rule again, or no longer.
    pub async fn set_enabled(&self, name: &str, enabled: bool) -> Result<()> {
        self.change(move |scope, opened| {
            async move { constraint::switch(&scope, &opened, name, enabled).await }.boxed()
        })
        .await
    }

    /// Asks the rows that are there, by one rule or by all that are enabled. Nothing is changed.
    pub async fn check(&self, name: Option<&str>) -> Result<Vec<RuleResult>> {
        let (scope, opened) = self.open().await?;
        quality::check(&scope, &opened, None, name).await
    }

    async fn open(&self) -> Result<(Arc<Scope>, Opened)> {
        let scope = self.session.begin().await?;
        let opened = scope.open(&self.table).await?;
        Ok((scope, opened))
    }

    /// Changes the table, again when another writer was faster.
    async fn change<'a, T>(
        &'a self,
        work: impl Fn(Arc<Scope>, Opened) -> BoxFuture<'a, Result<T>> + Send + Sync,
    ) -> Result<T> {
        let work = &work;
        self.session
            .rerun(|| {
                async move {
                    let (scope, opened) = self.open().await?;
                    protocol::check_writable(&opened.name, &opened.snapshot)?;
                    work(scope, opened).await
                }
                .boxed()
            })
            .await
    }
}

impl fmt::Debug for Rules {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rules")
            .field("table", &self.table.to_string())
            .finish_non_exhaustive()
    }
}
