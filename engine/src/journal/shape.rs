//! The definition of a journal, resolved against the columns of its table. Whoever has a [`Shape`] has one that holds:
//! everything that can be wrong with a definition is told when it is made.

use std::collections::BTreeMap;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Schema, SchemaRef, TimeUnit};

use super::definition::{self, Definition, IgnoreNulls, Late, OpenEnd, PeriodColumns, Track};
use crate::error::{Error, Result};
use crate::shown::sql_name;
use crate::sql::nearest;
use crate::table::mapping;
use crate::table::snapshot::Snapshot;

/// A journal and its columns.
#[derive(Debug)]
pub(crate) struct Shape {
    pub table: String,
    pub definition: Definition,
    /// All columns, in table order, under the names of queries.
    pub stored: SchemaRef,
    /// Those of the statement that made the table: all but the period columns, as they were declared.
    pub declared: SchemaRef,
    /// `declared` for rows on their way in: one that only says what ended has no value but in its keys and its
    /// sequence, so every other column may be NULL.
    pub flow: SchemaRef,
    /// Where each declared column is in `stored`.
    pub places: Vec<usize>,
    /// In `declared`, in the order of the definition.
    pub keys: Vec<usize>,
    /// In `declared`.
    pub sequence: Option<usize>,
    /// Per declared column: whether a change of it opens an interval.
    pub tracked: Vec<bool>,
    /// Per declared column: whether NULL says nothing of it.
    pub keeps_null: Vec<bool>,
    /// In `stored`.
    pub from: usize,
    pub to: usize,
    pub current: usize,
}

impl Shape {
    pub(crate) fn new(table: &str, definition: Definition, stored: &SchemaRef) -> Result<Self> {
        let periods = Periods::find(table, &definition.columns, stored)?;
        let places: Vec<usize> = (0..stored.fields().len())
            .filter(|place| !periods.has(*place))
            .collect();
        let declared = Arc::new(stored.project(&places).map_err(|error| {
            Error::internal(format!("the columns of table {table}")).with_source(error)
        })?);
        let names = Names {
            table,
            declared: &declared,
        };
        let keys = names.keys(&definition.keys)?;
        let sequence = names.sequence(definition.sequence.as_deref(), &keys)?;
        names.late(&definition.late, sequence)?;
        let lists = Lists {
            names: &names,
            keys: &keys,
            sequence,
        };
        let tracked = lists.tracked(&definition.track)?;
        let keeps_null = lists.keeps_null(&definition.ignore_nulls)?;
        let flow = declared.fields().iter().enumerate().map(|(place, field)| {
            match keys.contains(&place) || sequence == Some(place) {
                true => Arc::clone(field),
                false => Arc::new(field.as_ref().clone().with_nullable(true)),
            }
        });
        let flow = Arc::new(Schema::new(flow.collect::<Vec<_>>()));
        Ok(Self {
            table: table.to_owned(),
            stored: Arc::clone(stored),
            flow,
            places,
            keys,
            sequence,
            tracked,
            keeps_null,
            from: periods.from,
            to: periods.to,
            current: periods.current,
            declared,
            definition,
        })
    }

    /// The journal that a version of a table is, if it is one.
    pub(crate) fn of(table: &str, snapshot: &Snapshot) -> Result<Option<Arc<Self>>> {
        let properties = &snapshot.metadata.configuration;
        if !properties.contains_key(definition::PROPERTY) {
            return Ok(None);
        }
        Self::of_metadata(table, properties, &mapping::logical(&snapshot.schema))
    }

    /// The same of a table that may not be there yet.
    pub(crate) fn of_metadata(
        table: &str,
        properties: &BTreeMap<String, String>,
        stored: &SchemaRef,
    ) -> Result<Option<Arc<Self>>> {
        let Some(definition) = definition::of(table, properties)? else {
            return Ok(None);
        };
        match Self::new(table, definition, stored) {
            Ok(shape) => Ok(Some(Arc::new(shape))),
            // Our statements keep the two together, so somebody else changed one of them.
            Err(error) => Err(Error::corrupt(format!(
                "table {table}: its columns are not those of its journal"
            ))
            .with_detail(error.message().to_owned())
            .with_source(error)),
        }
    }

    /// Key columns, in the order of the definition.
    pub(crate) fn key_names(&self) -> impl Iterator<Item = &str> {
        self.definition.keys.iter().map(String::as_str)
    }

    /// Whether an open end is kept as [`definition::FAR_FUTURE_MICROS`].
    pub(crate) fn far_future(&self) -> bool {
        self.definition.open_end == OpenEnd::FarFuture
    }

    /// The instant of a write whose rows have none: after everything the base holds, in microseconds.
    pub(crate) fn instant(batch_id_ms: i64, base: Option<&Snapshot>) -> i64 {
        let after = base.map_or(i64::MIN, |base| base.committed_at_ms.saturating_add(1));
        batch_id_ms.max(after).saturating_mul(1_000)
    }

    /// The columns of a journal that is made with these.
    pub(crate) fn with_period(declared: &SchemaRef, columns: &PeriodColumns) -> Result<SchemaRef> {
        let own = columns.names();
        for field in declared.fields() {
            let name = field.name().to_lowercase();
            if own.iter().any(|own| own.to_lowercase() == name) {
                return Err(Error::invalid(format!(
                    "column {} is the journal's own",
                    field.name()
                ))
                .with_hint(format!(
                    "call the period columns otherwise: TBLPROPERTIES ('{}' = 'from,to,current')",
                    definition::COLUMNS
                )));
            }
        }
        let mut fields = declared.fields().to_vec();
        let [from, to, current] = own;
        fields.extend([
            Arc::new(Field::new(from, instant_type(), false)),
            Arc::new(Field::new(to, instant_type(), true)),
            Arc::new(Field::new(current, DataType::Boolean, false)),
        ]);
        Ok(Arc::new(Schema::new_with_metadata(
            fields,
            declared.metadata().clone(),
        )))
    }
}

/// Instants are kept in UTC, in microseconds: nanoseconds end before the far future begins.
fn instant_type() -> DataType {
    DataType::Timestamp(TimeUnit::Microsecond, Some("UTC".into()))
}

/// Where the period columns are.
struct Periods {
    from: usize,
    to: usize,
    current: usize,
}

impl Periods {
    /// By their names, never by their places: columns that are added come behind them.
    fn find(table: &str, columns: &PeriodColumns, stored: &Schema) -> Result<Self> {
        let place = |name: &str, of: DataType| {
            let Some((place, field)) = stored.fields().find(name) else {
                return Err(Error::invalid(format!(
                    "table {table}: it has no period column {name}"
                )));
            };
            match *field.data_type() == of {
                true => Ok(place),
                false => Err(Error::invalid(format!(
                    "table {table}: the period column {name} is {}, and not {}",
                    sql_name(field.data_type()),
                    sql_name(&of)
                ))),
            }
        };
        Ok(Self {
            from: place(&columns.from, instant_type())?,
            to: place(&columns.to, instant_type())?,
            current: place(&columns.current, DataType::Boolean)?,
        })
    }

    fn has(&self, place: usize) -> bool {
        [self.from, self.to, self.current].contains(&place)
    }
}

/// What the clauses name, among the declared columns.
struct Names<'a> {
    table: &'a str,
    declared: &'a Schema,
}

impl Names<'_> {
    fn wrong(&self, what: String) -> Error {
        Error::invalid(format!("table {}: {what}", self.table))
    }

    fn find(&self, clause: &str, name: &str) -> Result<usize> {
        if let Some((place, _)) = self.declared.fields().find(name) {
            return Ok(place);
        }
        let error = self.wrong(format!("{clause} names no column {name}"));
        let names = self.declared.fields().iter().map(|field| field.name());
        Err(match nearest(name, names) {
            Some(near) => error.with_hint(format!("did you mean {near}?")),
            None => error,
        })
    }

    /// Columns of a list, none of them twice. `what` is one of them.
    fn each(&self, clause: &str, what: &str, names: &[String]) -> Result<Vec<usize>> {
        let mut places = Vec::with_capacity(names.len());
        for name in names {
            let place = self.find(clause, name)?;
            if places.contains(&place) {
                return Err(self.wrong(format!("{clause} names {what} {name} twice")));
            }
            places.push(place);
        }
        Ok(places)
    }

    fn keys(&self, names: &[String]) -> Result<Vec<usize>> {
        if names.is_empty() {
            return Err(self.wrong("JOURNAL KEYS names no column".to_owned()));
        }
        let keys = self.each("JOURNAL KEYS", "key", names)?;
        for key in &keys {
            let field = self.declared.field(*key);
            if !names_a_thing(field.data_type()) {
                let error = self.wrong(format!(
                    "key {} is {}, and a key must be of a type whose values are equal or not",
                    field.name(),
                    sql_name(field.data_type())
                ));
                return Err(error.with_hint(
                    "keys are whole numbers, DECIMAL, TEXT, BINARY, DATE, TIMESTAMP or BOOLEAN",
                ));
            }
        }
        Ok(keys)
    }

    fn sequence(&self, name: Option<&str>, keys: &[usize]) -> Result<Option<usize>> {
        let Some(name) = name else {
            return Ok(None);
        };
        let place = self.find("SEQUENCE BY", name)?;
        if keys.contains(&place) {
            return Err(self.wrong(format!("the sequence {name} is a key")));
        }
        let of = self.declared.field(place).data_type();
        match of {
            DataType::Timestamp(_, _) | DataType::Date32 => Ok(Some(place)),
            _ => Err(self.wrong(format!(
                "the sequence {name} is {}, and valid time is a point in time: TIMESTAMP or DATE",
                sql_name(of)
            ))),
        }
    }

    fn late(&self, late: &Late, sequence: Option<usize>) -> Result<()> {
        if late.after_micros.is_some_and(|micros| micros <= 0) {
            return Err(
                self.wrong("the interval of LATE .. AFTER must be longer than nothing".to_owned())
            );
        }
        match sequence {
            None if *late != Late::default() => Err(self
                .wrong(format!("LATE {} without SEQUENCE BY", late.policy.sql()))
                .with_hint("without a sequence the order of the writes is that of the changes")),
            _ => Ok(()),
        }
    }
}

/// Whether values of a type can name what a row is about. Floats are equal by rounding, and nested values have parts
/// that may be missing.
fn names_a_thing(of: &DataType) -> bool {
    matches!(
        of,
        DataType::Boolean
            | DataType::Int8
            | DataType::Int16
            | DataType::Int32
            | DataType::Int64
            | DataType::Decimal128(_, _)
            | DataType::Utf8
            | DataType::LargeUtf8
            | DataType::Utf8View
            | DataType::Binary
            | DataType::LargeBinary
            | DataType::BinaryView
            | DataType::Date32
            | DataType::Timestamp(_, _)
    )
}

/// Lists of attributes: declared columns that are neither keys nor the sequence.
struct Lists<'a> {
    names: &'a Names<'a>,
    keys: &'a [usize],
    sequence: Option<usize>,
}

impl Lists<'_> {
    fn attributes(&self) -> Vec<bool> {
        let columns = 0..self.names.declared.fields().len();
        columns
            .map(|place| !self.keys.contains(&place) && self.sequence != Some(place))
            .collect()
    }

    /// Which of the declared columns a list names.
    fn named(&self, clause: &str, names: &[String]) -> Result<Vec<bool>> {
        if names.is_empty() {
            return Err(self.names.wrong(format!("{clause} names no column")));
        }
        let places = self.names.each(clause, "column", names)?;
        for (name, place) in names.iter().zip(&places) {
            let role = match self.sequence {
                _ if self.keys.contains(place) => "key",
                Some(sequence) if sequence == *place => "the sequence",
                _ => continue,
            };
            return Err(self
                .names
                .wrong(format!("{clause} names {role} {name}"))
                .with_hint("name the columns that say something of a key at an instant"));
        }
        let columns = 0..self.names.declared.fields().len();
        Ok(columns.map(|place| places.contains(&place)).collect())
    }

    fn tracked(&self, track: &Track) -> Result<Vec<bool>> {
        const CLAUSE: &str = "TRACK HISTORY";
        match track {
            Track::All => Ok(self.attributes()),
            Track::Only(names) => self.named(CLAUSE, names),
            Track::Except(names) => {
                let except = self.named(CLAUSE, names)?;
                let all = self.attributes().into_iter().zip(except);
                Ok(all
                    .map(|(attribute, except)| attribute && !except)
                    .collect())
            }
        }
    }

    fn keeps_null(&self, ignore: &IgnoreNulls) -> Result<Vec<bool>> {
        match ignore {
            IgnoreNulls::No => Ok(vec![false; self.names.declared.fields().len()]),
            IgnoreNulls::All => Ok(self.attributes()),
            IgnoreNulls::On(names) => self.named("IGNORE NULL UPDATES", names),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::definition::LatePolicy;
    use super::*;

    fn profile() -> SchemaRef {
        Arc::new(Schema::new(vec![
            Field::new("client_id", DataType::Int64, false),
            Field::new("score", DataType::Float64, true),
            Field::new("city", DataType::Utf8View, false),
            Field::new("updated_at", instant_type(), true),
            Field::new("ds", DataType::Date32, true),
        ]))
    }

    fn definition() -> Definition {
        Definition::plain(&["client_id"], Some("updated_at"))
    }

    fn shape(definition: Definition) -> Result<Shape> {
        let stored = Shape::with_period(&profile(), &definition.columns)?;
        Shape::new("s.t", definition, &stored)
    }

    fn refused(definition: Definition) -> String {
        let error = shape(definition).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Invalid);
        error.to_string()
    }

    #[test]
    fn columns_have_their_places() {
        let shape = shape(definition()).unwrap();
        assert_eq!(shape.declared, profile());
        assert_eq!(shape.places, [0, 1, 2, 3, 4]);
        assert_eq!((shape.from, shape.to, shape.current), (5, 6, 7));
        assert_eq!((shape.keys.as_slice(), shape.sequence), (&[0][..], Some(3)));
        assert_eq!(shape.tracked, [false, true, true, false, true]);
        assert_eq!(shape.keeps_null, [false; 5]);
        let nullable: Vec<bool> = shape
            .flow
            .fields()
            .iter()
            .map(|f| f.is_nullable())
            .collect();
        assert_eq!(nullable, [false, true, true, true, true]);
        assert!(!shape.declared.field(2).is_nullable());
        assert_eq!(shape.key_names().collect::<Vec<_>>(), ["client_id"]);
    }

    #[test]
    fn a_column_added_later_stands_behind_the_period() {
        let stored = Shape::with_period(&profile(), &PeriodColumns::default()).unwrap();
        let mut fields = stored.fields().to_vec();
        fields.push(Arc::new(Field::new("late", DataType::Int32, true)));
        let shape = Shape::new("s.t", definition(), &Arc::new(Schema::new(fields))).unwrap();
        assert_eq!(shape.places, [0, 1, 2, 3, 4, 8]);
        assert_eq!(shape.declared.field(5).name(), "late");
        assert!(shape.tracked[5]);
    }

    #[test]
    fn lists_choose_among_the_attributes() {
        let made = shape(Definition {
            track: Track::Only(vec!["city".into()]),
            ignore_nulls: IgnoreNulls::All,
            ..definition()
        })
        .unwrap();
        assert_eq!(made.tracked, [false, false, true, false, false]);
        assert_eq!(made.keeps_null, [false, true, true, false, true]);
        let made = shape(Definition {
            track: Track::Except(vec!["ds".into()]),
            ignore_nulls: IgnoreNulls::On(vec!["score".into()]),
            sequence: None,
            ..definition()
        })
        .unwrap();
        assert_eq!(made.tracked, [false, true, true, true, false]);
        assert_eq!(made.keeps_null, [false, true, false, false, false]);
    }

    #[test]
    fn what_is_wrong_is_told() {
        let keys = |names: &[&str]| Definition {
            keys: names.iter().map(|name| (*name).to_owned()).collect(),
            ..definition()
        };
        assert_eq!(
            refused(keys(&["client_ids"])),
            "table s.t: JOURNAL KEYS names no column client_ids\nhint: did you mean client_id?"
        );
        assert_eq!(
            refused(keys(&["city", "city"])),
            "table s.t: JOURNAL KEYS names key city twice"
        );
        assert_eq!(
            refused(keys(&["score"])),
            "table s.t: key score is DOUBLE, and a key must be of a type whose values are equal or not\n\
             hint: keys are whole numbers, DECIMAL, TEXT, BINARY, DATE, TIMESTAMP or BOOLEAN"
        );
        assert_eq!(
            refused(keys(&["valid_from"])),
            "table s.t: JOURNAL KEYS names no column valid_from"
        );
        let sequence = |name: &str| Definition {
            sequence: Some(name.to_owned()),
            ..definition()
        };
        assert_eq!(
            refused(sequence("client_id")),
            "table s.t: the sequence client_id is a key"
        );
        assert_eq!(
            refused(sequence("score")),
            "table s.t: the sequence score is DOUBLE, and valid time is a point in time: TIMESTAMP or DATE"
        );
        let error = refused(Definition {
            track: Track::Only(vec!["client_id".into()]),
            ..definition()
        });
        assert!(
            error.starts_with("table s.t: TRACK HISTORY names key client_id"),
            "{error}"
        );
        let error = refused(Definition {
            ignore_nulls: IgnoreNulls::On(vec!["updated_at".into()]),
            ..definition()
        });
        assert!(
            error.starts_with("table s.t: IGNORE NULL UPDATES names the sequence updated_at"),
            "{error}"
        );
        let error = refused(Definition {
            sequence: None,
            late: Late {
                policy: LatePolicy::Fail,
                after_micros: None,
            },
            ..definition()
        });
        assert!(
            error.starts_with("table s.t: LATE FAIL without SEQUENCE BY"),
            "{error}"
        );
    }

    #[test]
    fn a_declared_column_may_not_be_a_period_column() {
        let columns = PeriodColumns::named("City,b,c").unwrap();
        let error = Shape::with_period(&profile(), &columns).unwrap_err();
        assert_eq!(error.message(), "column city is the journal's own");
        assert!(error.hint().unwrap().contains("selvedge.journal.columns"));
    }

    #[test]
    fn a_table_whose_columns_went_is_broken() {
        let properties = BTreeMap::from([definition::property(&definition()).unwrap()]);
        let error = Shape::of_metadata("s.t", &properties, &profile()).unwrap_err();
        assert_eq!(error.kind(), crate::ErrorKind::Corrupt);
        assert_eq!(
            error.detail(),
            Some("table s.t: it has no period column valid_from")
        );
    }

    #[test]
    fn a_write_comes_after_what_is_there() {
        assert_eq!(Shape::instant(5, None), 5_000);
        assert_eq!(Shape::instant(-5, None), -5_000);
    }
}
