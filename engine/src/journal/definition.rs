//! What a table says of its journal, as it is kept: one JSON object in the table's own properties, so that it is
//! versioned with the table.

use std::collections::BTreeMap;
use std::ops::ControlFlow;

use datafusion::sql::sqlparser::ast::{Expr, visit_expressions};
use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};
use crate::sql;

/// The property that holds the definition. It is never set by hand: the files of the table hold what it says.
pub(crate) const PROPERTY: &str = "selvedge.journal";
/// What the period columns are called: a preset, or three names.
pub(crate) const COLUMNS: &str = "selvedge.journal.columns";
/// How the end of an interval that has none is kept.
pub(crate) const OPEN_END: &str = "selvedge.journal.openEnd";
/// The largest part of the current keys that a snapshot may close.
pub(crate) const MAX_DELETE_FRACTION: &str = "selvedge.journal.maxDeleteFraction";
/// 9999-12-31T00:00:00Z
pub(crate) const FAR_FUTURE_MICROS: i64 = 253_402_214_400_000_000;

const DEFAULT_MAX_DELETE_FRACTION: f64 = 0.5;

/// `JOURNAL KEYS ..` of a table. Columns are named as the table names them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) struct Definition {
    /// Whose history: rows with the same values here are of the same thing.
    pub keys: Vec<String>,
    /// The column that says when a change was true; without one it is the instant of the write.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sequence: Option<String>,
    /// Rows for which this holds end what they name. Canonical SQL over declared columns.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub delete_when: Option<String>,
    #[serde(default)]
    pub track: Track,
    #[serde(default)]
    pub ignore_nulls: IgnoreNulls,
    #[serde(default)]
    pub late: Late,
    #[serde(default)]
    pub columns: PeriodColumns,
    #[serde(default)]
    pub open_end: OpenEnd,
}

/// Columns whose changes open an interval. Keys and sequence never do.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Track {
    #[default]
    All,
    Only(Vec<String>),
    Except(Vec<String>),
}

/// Columns of which a change that says NULL says nothing.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum IgnoreNulls {
    #[default]
    No,
    All,
    On(Vec<String>),
}

/// What becomes of a change that comes after one that was true later.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) struct Late {
    #[serde(default)]
    pub policy: LatePolicy,
    /// So long before the greatest sequence seen, changes may still come in any order.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after_micros: Option<i64>,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LatePolicy {
    /// It splits what is stored.
    #[default]
    Apply,
    Quarantine,
    Fail,
}

impl LatePolicy {
    /// The word of the statement.
    pub(crate) fn sql(self) -> &'static str {
        match self {
            Self::Apply => "APPLY",
            Self::Quarantine => "QUARANTINE",
            Self::Fail => "FAIL",
        }
    }
}

/// What the columns that hold an interval are called.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub(crate) struct PeriodColumns {
    /// The first instant of the interval.
    pub from: String,
    /// The first instant after it.
    pub to: String,
    /// Whether it has no end.
    pub current: String,
}

/// How the end of an interval that has none is kept.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum OpenEnd {
    #[default]
    Null,
    FarFuture,
}

impl OpenEnd {
    /// What the property says for it.
    pub(crate) fn named(text: &str) -> Option<Self> {
        match text {
            "null" => Some(Self::Null),
            "far_future" => Some(Self::FarFuture),
            _ => None,
        }
    }
}

/// Names other systems use for the same three columns.
const PRESETS: [(&str, [&str; 3]); 4] = [
    ("selvedge", ["valid_from", "valid_to", "is_current"]),
    ("stitchfix", ["start_date", "end_date", "is_current"]),
    ("dbt", ["dbt_valid_from", "dbt_valid_to", "dbt_is_current"]),
    ("autocdc", ["__START_AT", "__END_AT", "__IS_CURRENT"]),
];

impl Default for PeriodColumns {
    fn default() -> Self {
        Self::of(["valid_from", "valid_to", "is_current"])
    }
}

impl PeriodColumns {
    fn of([from, to, current]: [&str; 3]) -> Self {
        Self {
            from: from.to_owned(),
            to: to.to_owned(),
            current: current.to_owned(),
        }
    }

    /// What a preset, or `from,to,current` stands for.
    pub(crate) fn named(text: &str) -> Option<Self> {
        if let Some((_, names)) = PRESETS.into_iter().find(|(preset, _)| *preset == text) {
            return Some(Self::of(names));
        }
        let names: Vec<&str> = text.split(',').map(str::trim).collect();
        let [from, to, current] = *names.as_slice() else {
            return None;
        };
        let same = |a: &str, b: &str| a.to_lowercase() == b.to_lowercase();
        let clear = !names.iter().any(|name| name.is_empty())
            && !same(from, to)
            && !same(from, current)
            && !same(to, current);
        clear.then(|| Self::of([from, to, current]))
    }

    /// In the order in which tables are made with them.
    pub(crate) fn names(&self) -> [&str; 3] {
        [&self.from, &self.to, &self.current]
    }

    /// Presets, for messages.
    pub(crate) fn presets() -> impl Iterator<Item = &'static str> {
        PRESETS.into_iter().map(|(preset, _)| preset)
    }
}

/// The journal among the properties of `table`, if it is one.
///
/// # Errors
/// When another program wrote something else there.
pub(crate) fn of(table: &str, properties: &BTreeMap<String, String>) -> Result<Option<Definition>> {
    let Some(json) = properties.get(PROPERTY) else {
        return Ok(None);
    };
    serde_json::from_str(json).map(Some).map_err(|error| {
        Error::corrupt(format!(
            "table {table}: property {PROPERTY} is not the definition of a journal: {error}"
        ))
        .with_source(error)
    })
}

/// The property that keeps `definition`.
pub(crate) fn property(definition: &Definition) -> Result<(String, String)> {
    let json = serde_json::to_string(definition).map_err(|error| {
        Error::internal("the definition of a journal cannot be written").with_source(error)
    })?;
    Ok((PROPERTY.to_owned(), json))
}

/// The largest part of the current keys that a snapshot may close. What is no such part was refused when it was set.
pub(crate) fn max_delete_fraction(properties: &BTreeMap<String, String>) -> f64 {
    let set = properties.get(MAX_DELETE_FRACTION);
    set.and_then(|text| fraction(text))
        .unwrap_or(DEFAULT_MAX_DELETE_FRACTION)
}

/// A number from 0 to 1.
pub(crate) fn fraction(text: &str) -> Option<f64> {
    let value: f64 = text.trim().parse().ok()?;
    (0.0..=1.0).contains(&value).then_some(value)
}

impl Definition {
    /// Keys and a sequence, and nothing else said.
    #[cfg(test)]
    pub(crate) fn plain(keys: &[&str], sequence: Option<&str>) -> Self {
        Self {
            keys: keys.iter().map(|key| (*key).to_owned()).collect(),
            sequence: sequence.map(str::to_owned),
            delete_when: None,
            track: Track::default(),
            ignore_nulls: IgnoreNulls::default(),
            late: Late::default(),
            columns: PeriodColumns::default(),
            open_end: OpenEnd::default(),
        }
    }

    /// Columns that the clauses on tracking and on NULLs list.
    fn lists(&mut self) -> impl Iterator<Item = &mut Vec<String>> {
        let tracked = match &mut self.track {
            Track::All => None,
            Track::Only(columns) | Track::Except(columns) => Some(columns),
        };
        let kept = match &mut self.ignore_nulls {
            IgnoreNulls::No | IgnoreNulls::All => None,
            IgnoreNulls::On(columns) => Some(columns),
        };
        tracked.into_iter().chain(kept)
    }

    /// A column has another name now. The text of APPLY AS DELETE stays: see [`Definition::role`].
    pub(crate) fn rename(&mut self, old: &str, new: &str) {
        let rename = |name: &mut String| {
            if *name == old {
                *name = new.to_owned();
            }
        };
        self.keys.iter_mut().for_each(rename);
        self.sequence.iter_mut().for_each(rename);
        self.lists().flatten().for_each(rename);
    }

    /// A column is no more. Only the tracked and the ignored may go; a list that says nothing then says so.
    pub(crate) fn forget(&mut self, column: &str) {
        self.lists()
            .for_each(|names| names.retain(|name| name != column));
        if matches!(&self.track, Track::Except(names) if names.is_empty()) {
            self.track = Track::All;
        }
        if matches!(&self.ignore_nulls, IgnoreNulls::On(names) if names.is_empty()) {
            self.ignore_nulls = IgnoreNulls::No;
        }
    }

    /// What a column is to the journal, where it cannot do without it.
    pub(crate) fn role(&self, column: &str) -> Option<&'static str> {
        if self.keys.iter().any(|key| key == column) {
            Some("a key")
        } else if self.sequence.as_deref() == Some(column) {
            Some("the sequence")
        } else if self.columns.names().contains(&column) {
            Some("a period column")
        } else if self.delete_reads(column) {
            Some("read by APPLY AS DELETE")
        } else {
            None
        }
    }

    /// Whether APPLY AS DELETE WHEN reads the column.
    pub(crate) fn delete_reads(&self, column: &str) -> bool {
        let Some(text) = &self.delete_when else {
            return false;
        };
        // What does not parse may read anything.
        let Ok(parsed) = sql::parse_expr(text) else {
            return true;
        };
        visit_expressions(&parsed, |expr| {
            let named = match expr {
                Expr::Identifier(name) => sql::fold(name) == column,
                // Either `table.column` or `column.field`.
                Expr::CompoundIdentifier(parts) => {
                    parts.iter().any(|part| sql::fold(part) == column)
                }
                _ => false,
            };
            match named {
                true => ControlFlow::Break(()),
                false => ControlFlow::Continue(()),
            }
        })
        .is_break()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain() -> Definition {
        Definition::plain(&["client_id"], Some("updated_at"))
    }

    fn kept(definition: &Definition) -> BTreeMap<String, String> {
        BTreeMap::from([property(definition).unwrap()])
    }

    #[test]
    fn a_definition_is_kept_as_json() {
        let (key, json) = property(&plain()).unwrap();
        assert_eq!(key, "selvedge.journal");
        assert_eq!(
            json,
            r#"{"keys":["client_id"],"sequence":"updated_at","track":"all","ignore_nulls":"no","late":{"policy":"apply"},"columns":{"from":"valid_from","to":"valid_to","current":"is_current"},"open_end":"null"}"#
        );
        let rich = Definition {
            sequence: None,
            delete_when: Some("op = 'd'".into()),
            track: Track::Except(vec!["seen".into()]),
            ignore_nulls: IgnoreNulls::On(vec!["city".into()]),
            late: Late {
                policy: LatePolicy::Quarantine,
                after_micros: Some(5),
            },
            columns: PeriodColumns::named("dbt").unwrap(),
            open_end: OpenEnd::FarFuture,
            ..plain()
        };
        for definition in [plain(), rich] {
            assert_eq!(of("s.t", &kept(&definition)).unwrap(), Some(definition));
        }
        assert_eq!(of("s.t", &BTreeMap::new()).unwrap(), None);
    }

    #[test]
    fn what_is_no_definition_is_told() {
        for json in [
            "{}",
            "7",
            r#"{"keys":["k"],"extra":1}"#,
            r#"{"keys":["k"],"late":{"polcy":"fail"}}"#,
            r#"{"keys":["k"],"track":{"some":["a"]}}"#,
        ] {
            let properties = BTreeMap::from([(PROPERTY.to_owned(), json.to_owned())]);
            let error = of("s.t", &properties).unwrap_err();
            assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
            let told = error.message();
            assert!(
                told.starts_with("table s.t: property selvedge.journal is not the definition"),
                "{told}"
            );
        }
    }

    #[test]
    fn period_columns_have_presets_and_names_of_their_own() {
        for (preset, names) in PRESETS {
            let columns = PeriodColumns::named(preset).unwrap();
            assert_eq!(columns.names(), names);
        }
        let own = PeriodColumns::named(" a , b,c ").unwrap();
        assert_eq!(own.names(), ["a", "b", "c"]);
        for wrong in ["", "a", "a,b", "a,b,c,d", "a,A,b", "a,,b", "Selvedge"] {
            assert_eq!(PeriodColumns::named(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn a_column_is_renamed_and_forgotten_where_it_stands() {
        let mut definition = Definition {
            track: Track::Except(vec!["a".into(), "b".into()]),
            ignore_nulls: IgnoreNulls::On(vec!["a".into()]),
            ..plain()
        };
        definition.rename("a", "x");
        definition.rename("client_id", "id");
        definition.rename("updated_at", "at");
        assert_eq!(definition.keys, ["id"]);
        assert_eq!(definition.sequence.as_deref(), Some("at"));
        assert_eq!(
            definition.track,
            Track::Except(vec!["x".into(), "b".into()])
        );
        definition.forget("x");
        assert_eq!(definition.track, Track::Except(vec!["b".into()]));
        assert_eq!(definition.ignore_nulls, IgnoreNulls::No);
        definition.forget("b");
        assert_eq!(definition.track, Track::All);
    }

    #[test]
    fn the_journal_says_what_it_needs_a_column_for() {
        let definition = Definition {
            delete_when: Some("lower(op) = 'd' AND t.gone".into()),
            ..plain()
        };
        assert_eq!(definition.role("client_id"), Some("a key"));
        assert_eq!(definition.role("updated_at"), Some("the sequence"));
        assert_eq!(definition.role("valid_to"), Some("a period column"));
        assert_eq!(definition.role("op"), Some("read by APPLY AS DELETE"));
        assert_eq!(definition.role("gone"), Some("read by APPLY AS DELETE"));
        assert_eq!(definition.role("lower"), None);
        assert_eq!(definition.role("city"), None);
    }

    #[test]
    fn a_snapshot_may_close_half_of_the_keys_unless_told() {
        let set = |text: &str| {
            max_delete_fraction(&BTreeMap::from([(
                MAX_DELETE_FRACTION.to_owned(),
                text.to_owned(),
            )]))
        };
        assert_eq!(max_delete_fraction(&BTreeMap::new()), 0.5);
        assert_eq!(set("1"), 1.0);
        assert_eq!(set("0"), 0.0);
        assert_eq!(set(" 0.25 "), 0.25);
        for wrong in ["1.5", "-1", "NaN", "x", ""] {
            assert_eq!(set(wrong), 0.5, "{wrong}");
        }
    }
}
