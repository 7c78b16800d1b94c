//! From the rules of a table to something its rows can be asked. Everything wrong with a rule is told here, when it
//! is defined and again before each write, so that none is ever passed over.

use std::collections::BTreeSet;
use std::sync::Arc;

use arrow::datatypes::{DataType, SchemaRef};
use datafusion::execution::SessionState;
use datafusion::sql::sqlparser::ast;

use super::condition::{self, Nan, Owner};
use super::formula::Formula;
use super::metric::{Asked, Metric, Partitioning};
use super::reference::ReferenceRule;
use super::row::RowRule;
use super::rule::{OnViolation, Over, Rule, RuleKind};
use crate::cleanse::mask::Masks;
use crate::error::Result;
use crate::sql;
use crate::table::schema::personal;

/// The rules of a table, ready to be asked.
#[derive(Debug)]
pub(crate) struct Compiled {
    /// Table as `schema.name`.
    pub table: String,
    pub schema: SchemaRef,
    pub(super) rules: Vec<CompiledRule>,
    /// What metric rules and the profile are about, each once.
    pub(super) metrics: Arc<[Metric]>,
    pub(super) partitioning: Partitioning,
    /// Which cells of the rows were cleansed, where these tell it.
    pub(super) masks: Masks,
}

#[derive(Debug)]
pub(super) struct CompiledRule {
    pub rule: Rule,
    pub body: Body,
}

#[derive(Debug)]
pub(super) enum Body {
    Row(RowRule),
    Reference(ReferenceRule),
    Metric(Formula),
}

impl CompiledRule {
    /// Columns that a row rule reads.
    pub(super) fn columns(&self) -> &[usize] {
        match &self.body {
            Body::Row(rule) => rule.columns(),
            Body::Reference(rule) => rule.columns(),
            Body::Metric(_) => &[],
        }
    }
}

/// What messages call a rule: `rule positive EXPECT (amount >= 0)`.
fn label(rule: &Rule) -> String {
    format!("rule {}", rule.told())
}

/// The terms under which rules of a table are compiled.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Terms<'a> {
    pub state: &'a SessionState,
    /// Table as `schema.name`.
    pub table: &'a str,
    pub schema: &'a SchemaRef,
    pub partitioning: &'a Partitioning,
    /// Names of those that are CHECKs, and mean what SQL says to the letter.
    pub checks: &'a [String],
}

/// Compiles the rules that are enabled, and the metrics of a profile of all columns where one is asked for.
pub(crate) async fn compile(terms: Terms<'_>, rules: &[Rule], profile: bool) -> Result<Compiled> {
    let mut metrics = Vec::new();
    let mut compiled = Vec::new();
    for rule in rules.iter().filter(|rule| rule.enabled) {
        let body = body(terms, rule, &mut metrics).await?;
        compiled.push(CompiledRule {
            rule: rule.clone(),
            body,
        });
    }
    if profile {
        for text in profiled(terms.schema) {
            let asked = Asked {
                written: true,
                ..Asked::default()
            };
            add(terms, PROFILE, &text, asked, &mut metrics)?;
        }
    }
    Ok(Compiled {
        table: terms.table.to_owned(),
        schema: Arc::clone(terms.schema),
        rules: compiled,
        metrics: metrics.into(),
        partitioning: terms.partitioning.clone(),
        masks: Masks::default(),
    })
}

/// Checks a rule that is to be added to a table, and finds its kind and fingerprint.
///
/// # Errors
/// Everything for which no write could ever ask it.
pub(crate) async fn define(terms: Terms<'_>, mut rule: Rule) -> Result<Rule> {
    let (label, table) = (label(&rule), terms.table);
    let owner = Owner {
        label: &label,
        table,
    };
    if rule.name.is_empty() {
        return Err(owner.wrong("it needs a name"));
    }
    let body = body(terms, &rule, &mut Vec::new()).await?;
    rule.kind = match body {
        Body::Row(_) => RuleKind::Row,
        Body::Reference(_) => RuleKind::Reference,
        Body::Metric(_) => RuleKind::Metric,
    };
    if rule.kind == RuleKind::Metric {
        if matches!(
            rule.on_violation,
            OnViolation::DropRow | OnViolation::QuarantineRow
        ) {
            return Err(owner
                .wrong(format!(
                    "it is about all rows of a write, so there is no row to which {} could happen",
                    rule.on_violation.sql()
                ))
                .with_hint("ON VIOLATION WARN or FAIL"));
        }
        if rule.per_partition && terms.partitioning.columns.is_empty() {
            return Err(owner.wrong("PER PARTITION, but the table has no partitions"));
        }
        if rule.per_partition && rule.over == Over::Input {
            return Err(owner.wrong(
                "PER PARTITION and OVER INPUT exclude each other: only written rows are in a partition",
            ));
        }
    } else if rule.per_partition || rule.over == Over::Input {
        let clause = match rule.per_partition {
            true => "PER PARTITION",
            false => "OVER INPUT",
        };
        return Err(owner.wrong(format!(
            "{clause} is for conditions with aggregates, and this one is asked of each row"
        )));
    }
    rule.fingerprint = rule.fingerprint_of();
    Ok(rule)
}

/// The columns that a rule reads, by position.
pub(crate) async fn reads(terms: Terms<'_>, rule: &Rule) -> Result<Vec<usize>> {
    let mut metrics = Vec::new();
    Ok(match body(terms, rule, &mut metrics).await? {
        Body::Row(rule) => rule.columns().to_vec(),
        Body::Reference(rule) => rule.columns().to_vec(),
        Body::Metric(_) => {
            let columns = metrics.iter().flat_map(|metric: &Metric| metric.columns());
            columns.collect::<BTreeSet<_>>().into_iter().collect()
        }
    })
}

async fn body(terms: Terms<'_>, rule: &Rule, metrics: &mut Vec<Metric>) -> Result<Body> {
    let Terms {
        state,
        table,
        schema,
        ..
    } = terms;
    let label = label(rule);
    let owner = Owner {
        label: &label,
        table,
    };
    if rule.kind == RuleKind::Reference {
        let compiled = ReferenceRule::compile(state, owner, &rule.expect, schema).await?;
        return Ok(Body::Reference(compiled));
    }
    let parsed = condition::parse(owner, &rule.expect)?;
    if !Formula::is_one(state, &parsed) {
        let nan = match terms.checks.contains(&rule.name) {
            true => Nan::Greatest,
            false => Nan::Outside,
        };
        return RowRule::compile(state, owner, parsed, schema, nan).map(Body::Row);
    }
    let asked = Asked {
        written: !rule.per_partition && rule.over == Over::Written,
        input: rule.over == Over::Input,
        partitions: rule.per_partition,
    };
    let add = |text: &str| add(terms, &label, text, asked, metrics);
    Formula::compile(state, owner, parsed, schema, add).map(Body::Metric)
}

/// What messages call the metrics of a profile.
const PROFILE: &str = "the profile";

/// The place of the metric with this text among `metrics`, where it is put if it is new; and its type.
fn add(
    terms: Terms<'_>,
    label: &str,
    text: &str,
    asked: Asked,
    metrics: &mut Vec<Metric>,
) -> Result<(usize, arrow::datatypes::FieldRef)> {
    let owner = Owner {
        label,
        table: terms.table,
    };
    let at = match metrics.iter().position(|metric| metric.text == text) {
        Some(at) => at,
        None => {
            let call = condition::parse(owner, text)?;
            metrics.push(Metric::compile(terms.state, owner, &call, terms.schema)?);
            metrics.len() - 1
        }
    };
    let metric = &mut metrics[at];
    metric.asked.written |= asked.written;
    metric.asked.input |= asked.input;
    metric.asked.partitions |= asked.partitions;
    Ok((at, metric.field()))
}

/// The metrics of a profile: cheap ones, for each column whose values have an order. Of one that tells something of
/// a person no value is recorded.
fn profiled(schema: &SchemaRef) -> Vec<String> {
    let mut texts = vec!["count(*)".to_owned()];
    for field in schema.fields() {
        let column = plainest(field.name());
        texts.push(format!("null_count({column})"));
        let (ordered, number) = match field.data_type() {
            DataType::Boolean => (true, false),
            data_type if data_type.is_numeric() => (true, true),
            data_type => (
                data_type.is_temporal() || *data_type == DataType::Utf8View,
                false,
            ),
        };
        if ordered && !personal(field) {
            texts.push(format!("min({column})"));
            texts.push(format!("max({column})"));
        }
        // Floats have no distinct values worth estimating, and no sketch takes them.
        let floats = field.data_type().is_floating();
        if ordered && !floats && *field.data_type() != DataType::Boolean {
            texts.push(format!("approx_distinct({column})"));
        }
        if number {
            texts.push(format!("avg({column})"));
        }
    }
    texts
}

/// A column as people write it in an expression, so that their metric and the profile's are one.
pub(crate) fn plainest(name: &str) -> String {
    let plain =
        |text: &ast::Expr| matches!(text, ast::Expr::Identifier(ident) if sql::fold(ident) == name);
    match sql::parse_expr(name) {
        Ok(parsed) if plain(&parsed) => name.to_owned(),
        _ => sql::quoted(name),
    }
}

/// A call in the text of a metric rule.
pub(super) fn spelled(call: &ast::Function) -> String {
    let mut call = call.clone();
    // Letter case does not tell functions apart.
    for part in &mut call.name.0 {
        if let ast::ObjectNamePart::Identifier(ident) = part
            && ident.quote_style.is_none()
        {
            ident.value = ident.value.to_lowercase();
        }
    }
    call.to_string()
}

impl Compiled {
    /// The rules of a table that has none.
    #[cfg(test)]
    pub(crate) fn none(schema: SchemaRef) -> Self {
        Self {
            table: String::new(),
            schema,
            rules: Vec::new(),
            metrics: Arc::new([]),
            partitioning: Partitioning {
                columns: Vec::new(),
                spell: |_| Ok(None),
            },
            masks: Masks::default(),
        }
    }

    /// The same for rows that come with these masks.
    pub(crate) fn masked(self, masks: Masks) -> Self {
        Self { masks, ..self }
    }

    pub(crate) fn masks(&self) -> &Masks {
        &self.masks
    }

    /// Whether there is anything to ask.
    pub(crate) fn is_empty(&self) -> bool {
        self.rules.is_empty() && self.metrics.is_empty()
    }

    /// Whether a row may be left out.
    pub(crate) fn rejects(&self) -> bool {
        self.acts(OnViolation::DropRow) || self.quarantines()
    }

    /// Whether a row may go to quarantine.
    pub(crate) fn quarantines(&self) -> bool {
        self.acts(OnViolation::QuarantineRow)
    }

    fn acts(&self, action: OnViolation) -> bool {
        self.rules
            .iter()
            .any(|rule| rule.rule.on_violation == action)
    }

    /// Names of the rules, for plans.
    pub(crate) fn names(&self) -> Vec<&str> {
        self.rules
            .iter()
            .map(|rule| rule.rule.name.as_str())
            .collect()
    }
}
