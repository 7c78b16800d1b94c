//! The session's time zone: where a text, a date or a local time stands for an instant, and what instants are
//! shown in.
//!
//! Instants are kept in UTC. A session with another zone sees every column of instants in its own, and each cast
//! between instants and local times goes through the functions here: Arrow's casts do not say why a local time is
//! none, and DataFusion's optimizer takes them off comparisons as if every zone were UTC.

mod plan;

use std::sync::Arc;

use chrono::{Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Utc};
use datafusion::arrow::array::timezone::Tz;
use datafusion::arrow::array::{
    Array, ArrayRef, AsArray, TimestampMicrosecondArray, TimestampNanosecondArray,
};
use datafusion::arrow::compute::cast;
use datafusion::arrow::compute::kernels::cast_utils::string_to_datetime;
use datafusion::arrow::datatypes::{
    DataType, Date32Type, Field, FieldRef, TimeUnit, TimestampMicrosecondType,
    TimestampNanosecondType,
};
use datafusion::arrow::temporal_conversions::{
    date32_to_datetime, timestamp_ns_to_datetime, timestamp_us_to_datetime,
};
use datafusion::common::{Result as DfResult, ScalarValue};
use datafusion::logical_expr::{
    ColumnarValue, ReturnFieldArgs, ScalarFunctionArgs, ScalarUDF, ScalarUDFImpl, Signature,
    Volatility,
};

use crate::error::{Error, Result};

pub(super) use plan::{ZoneCasts, assign, assigned, shown};

const UTC: &str = "UTC";

/// The name of a zone that a session may have.
pub(super) fn checked(name: &str) -> Result<String> {
    let utc = ["utc", "z", "gmt", "etc/utc", "+00:00"];
    if utc.contains(&name.to_ascii_lowercase().as_str()) {
        return Ok(UTC.to_owned());
    }
    match name.parse::<Tz>() {
        Ok(_) => Ok(name.to_owned()),
        Err(_) => Err(
            Error::invalid(format!("there is no time zone {name}")).with_hint(
                "write a name such as 'Europe/Berlin', an offset such as '+01:00', or 'UTC'",
            ),
        ),
    }
}

/// A zone and what local times mean in it.
#[derive(Debug, Clone)]
pub(super) struct Zone {
    name: Arc<str>,
    tz: Tz,
}

impl Zone {
    /// The zone of this name, unless it is UTC, in which everything means what it says.
    pub(super) fn other_than_utc(name: Option<&str>) -> Result<Option<Self>> {
        let name = name.unwrap_or(UTC);
        if name == UTC {
            return Ok(None);
        }
        let tz = checked(name)?.parse();
        let tz = tz.map_err(|error| Error::internal("a zone lost its name").with_source(error))?;
        Ok(Some(Self {
            name: name.into(),
            tz,
        }))
    }

    pub(super) fn name(&self) -> &Arc<str> {
        &self.name
    }

    /// The instants that texts, dates or local times stand for, as an array of `unit` in this zone.
    pub(super) fn instants(&self, local: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef> {
        let rows = 0..local.len();
        let at = |row: usize| -> Result<Option<NaiveDateTime>> {
            if local.is_null(row) {
                return Ok(None);
            }
            self.instant(local, row).map(Some)
        };
        let utc: Vec<Option<NaiveDateTime>> = rows.map(at).collect::<Result<_>>()?;
        let zone = Arc::clone(&self.name);
        let range = || Error::invalid("a point in time is out of range");
        Ok(match unit {
            TimeUnit::Nanosecond => {
                let values = utc.into_iter().map(|at| {
                    let nanos = at.map(|at| at.and_utc().timestamp_nanos_opt().ok_or_else(range));
                    nanos.transpose()
                });
                let values: TimestampNanosecondArray = values.collect::<Result<Vec<_>>>()?.into();
                Arc::new(values.with_timezone(zone))
            }
            unit => {
                let micros = utc
                    .into_iter()
                    .map(|at| Some(at?.and_utc().timestamp_micros()));
                let values: TimestampMicrosecondArray = micros.collect();
                let values: ArrayRef = Arc::new(values.with_timezone(Arc::clone(&zone)));
                let wanted = DataType::Timestamp(unit, Some(zone));
                cast(&values, &wanted).map_err(|error| range().with_source(error))?
            }
        })
    }

    /// One of them, in UTC.
    fn instant(&self, local: &ArrayRef, row: usize) -> Result<NaiveDateTime> {
        let value = |local: Option<NaiveDateTime>| {
            local.ok_or_else(|| Error::invalid("a point in time is out of range"))
        };
        match local.data_type() {
            DataType::Utf8 => self.read(local.as_string::<i32>().value(row)),
            DataType::LargeUtf8 => self.read(local.as_string::<i64>().value(row)),
            DataType::Utf8View => self.read(local.as_string_view().value(row)),
            DataType::Date32 => {
                let day = date32_to_datetime(local.as_primitive::<Date32Type>().value(row));
                self.start_of(value(day)?)
            }
            DataType::Timestamp(TimeUnit::Microsecond, None) => {
                let at = local.as_primitive::<TimestampMicrosecondType>().value(row);
                self.at(value(timestamp_us_to_datetime(at))?)
            }
            DataType::Timestamp(TimeUnit::Nanosecond, None) => {
                let at = local.as_primitive::<TimestampNanosecondType>().value(row);
                self.at(value(timestamp_ns_to_datetime(at))?)
            }
            other => Err(Error::invalid(format!("{other} is not a point in time"))),
        }
    }

    /// A text with an offset is that instant, one without is local, and a day alone is its start.
    fn read(&self, text: &str) -> Result<NaiveDateTime> {
        let text = text.trim();
        if let Ok(at) = string_to_datetime(&self.tz, text) {
            return Ok(at.naive_utc());
        }
        match string_to_datetime(&Utc, text) {
            Ok(local) if text.len() <= 10 => self.start_of(local.naive_utc()),
            Ok(local) => self.at(local.naive_utc()),
            Err(_) => Err(Error::invalid(format!("'{text}' is not a point in time"))),
        }
    }

    /// The instant of a local time, in UTC.
    fn at(&self, local: NaiveDateTime) -> Result<NaiveDateTime> {
        match self.tz.offset_from_local_datetime(&local) {
            LocalResult::Single(offset) => Ok(local - offset.fix()),
            LocalResult::Ambiguous(first, second) => Err(Error::invalid(format!(
                "{local} is ambiguous in {}: clocks showed it twice",
                self.name
            ))
            .with_hint(format!(
                "write which one is meant: '{local}{}' or '{local}{}'",
                first.fix(),
                second.fix()
            ))),
            LocalResult::None => Err(Error::invalid(format!(
                "{local} does not exist in {}: clocks were set past it",
                self.name
            ))
            .with_hint("write the time that clocks showed, or an instant with its offset")),
        }
    }

    /// The first instant of a day, in UTC. Where clocks are changed at midnight, it is the earlier midnight of
    /// two, or the first time after one that was left out.
    fn start_of(&self, midnight: NaiveDateTime) -> Result<NaiveDateTime> {
        const STEP_MINUTES: i64 = 15;
        let steps =
            (0..24 * 60 / STEP_MINUTES).map(|n| midnight + Duration::minutes(n * STEP_MINUTES));
        for local in steps {
            if let Some(offset) = self.tz.offset_from_local_datetime(&local).earliest() {
                return Ok(local - offset.fix());
            }
        }
        Err(Error::invalid(format!(
            "the day of {midnight} does not exist in {}",
            self.name
        )))
    }

    /// What clocks of this zone show at instants, as an array of `unit` without a zone.
    fn local(&self, instants: &ArrayRef, unit: TimeUnit) -> Result<ArrayRef> {
        let range = |error| Error::invalid("a point in time is out of range").with_source(error);
        let utc = DataType::Timestamp(TimeUnit::Microsecond, Some(UTC.into()));
        let instants = cast(instants, &utc).map_err(range)?;
        let shown = |micros: Option<i64>| {
            let at = timestamp_us_to_datetime(micros?)?;
            let local = at + self.tz.offset_from_utc_datetime(&at).fix();
            Some(local.and_utc().timestamp_micros())
        };
        let instants = instants.as_primitive::<TimestampMicrosecondType>();
        let local: TimestampMicrosecondArray = instants.iter().map(shown).collect();
        let local: ArrayRef = Arc::new(local);
        cast(&local, &DataType::Timestamp(unit, None)).map_err(range)
    }
}

/// Whether values of this type stand for an instant only in some zone.
pub(super) fn zoneless(data_type: &DataType) -> bool {
    textual(data_type) || matches!(data_type, DataType::Date32 | DataType::Timestamp(_, None))
}

fn textual(data_type: &DataType) -> bool {
    use DataType::{LargeUtf8, Utf8, Utf8View};
    matches!(data_type, Utf8 | LargeUtf8 | Utf8View)
}

/// A cast between local times and instants in a zone.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(super) struct ZoneCast {
    zone: Arc<str>,
    /// The type it gives: instants in the zone, or local times.
    to: DataType,
    /// Whether what cannot be cast is NULL.
    lenient: bool,
    signature: Signature,
}

impl ZoneCast {
    pub(super) fn function(zone: &Zone, to: DataType, lenient: bool) -> Arc<ScalarUDF> {
        Arc::new(ScalarUDF::new_from_impl(Self {
            zone: Arc::clone(zone.name()),
            to,
            lenient,
            signature: Signature::any(1, Volatility::Immutable),
        }))
    }

    fn array(&self, values: &ArrayRef) -> Result<ArrayRef> {
        let Some(zone) = Zone::other_than_utc(Some(&self.zone))? else {
            return Err(Error::internal("a cast in UTC needs no zone"));
        };
        match &self.to {
            DataType::Timestamp(unit, Some(_)) => {
                let values = match values.data_type() {
                    // Seconds and milliseconds of files.
                    DataType::Timestamp(TimeUnit::Second | TimeUnit::Millisecond, None) => {
                        let micros = DataType::Timestamp(TimeUnit::Microsecond, None);
                        cast(values, &micros).map_err(datafusion::error::DataFusionError::from)?
                    }
                    _ => Arc::clone(values),
                };
                zone.instants(&values, *unit)
            }
            DataType::Timestamp(unit, None) => zone.local(values, *unit),
            other => Err(Error::internal(format!("{other} is no point in time"))),
        }
    }
}

impl ScalarUDFImpl for ZoneCast {
    fn name(&self) -> &str {
        match self.to {
            DataType::Timestamp(_, Some(_)) => "instant_in_zone",
            _ => "local_in_zone",
        }
    }

    fn signature(&self) -> &Signature {
        &self.signature
    }

    fn return_type(&self, _: &[DataType]) -> DfResult<DataType> {
        Ok(self.to.clone())
    }

    fn return_field_from_args(&self, args: ReturnFieldArgs) -> DfResult<FieldRef> {
        let nullable = self.lenient || args.arg_fields.iter().any(|field| field.is_nullable());
        let field = Field::new(self.name(), self.to.clone(), nullable);
        Ok(Arc::new(field))
    }

    fn invoke_with_args(&self, args: ScalarFunctionArgs) -> DfResult<ColumnarValue> {
        let [value] = args.args.as_slice() else {
            return Err(Error::internal("a cast takes one value").into());
        };
        let one = matches!(value, ColumnarValue::Scalar(_));
        let values = value.to_array(if one { 1 } else { args.number_rows })?;
        let values = match (self.array(&values), self.lenient) {
            (Ok(values), _) => values,
            (Err(error), false) => return Err(error.into()),
            (Err(_), true) => {
                let each = (0..values.len()).map(|row| {
                    let value = self.array(&values.slice(row, 1));
                    match value {
                        Ok(value) => ScalarValue::try_from_array(&value, 0),
                        Err(_) => ScalarValue::try_new_null(&self.to),
                    }
                });
                ScalarValue::iter_to_array(each.collect::<DfResult<Vec<_>>>()?)?
            }
        };
        Ok(match one {
            true => ColumnarValue::Scalar(ScalarValue::try_from_array(&values, 0)?),
            false => ColumnarValue::Array(values),
        })
    }
}
