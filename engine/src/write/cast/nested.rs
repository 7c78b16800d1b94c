//! Structs, lists and maps: each part by its own cast, failures told in rows of the whole.

use std::sync::Arc;

use arrow::array::{
    Array, ArrayRef, AsArray, ListArray, MapArray, StructArray, UInt64Array, make_array,
    new_null_array,
};
use arrow::buffer::NullBuffer;
use arrow::compute::take;
use arrow::datatypes::{DataType, FieldRef, Fields};
use arrow::error::ArrowError;

use super::{Cast, CastFailure, by_arrow};
use crate::shown::sql_name;

/// The cast of a type made of parts.
#[derive(Debug, Clone)]
pub(crate) enum Nested {
    Struct(Parts),
    List {
        /// The plain list type that other list layouts are brought to first.
        plain: DataType,
        element: Box<Cast>,
        to: FieldRef,
    },
    Map {
        entries: Parts,
        to: FieldRef,
        sorted: bool,
    },
}

/// For each field of the new struct: which old one it is and how it is cast; `None` is all NULL.
#[derive(Debug, Clone)]
pub(crate) struct Parts {
    casts: Vec<Option<(usize, Cast)>>,
    to: Fields,
}

pub(super) fn plan(from: &DataType, to: &DataType) -> Result<Nested, String> {
    use DataType::*;
    match (from, to) {
        (Struct(old), Struct(new)) => Ok(Nested::Struct(by_name(old, new)?)),
        (
            List(old) | LargeList(old) | FixedSizeList(old, _) | ListView(old) | LargeListView(old),
            List(new),
        ) => Ok(Nested::List {
            plain: List(Arc::clone(old)),
            element: Box::new(below("[]", Cast::plan(old.data_type(), new.data_type()))?),
            to: Arc::clone(new),
        }),
        (Map(old, _), Map(new, sorted)) => match (old.data_type(), new.data_type()) {
            // Writers name the two fields of an entry differently: their places count.
            (Struct(old), Struct(entry)) if old.len() == 2 && entry.len() == 2 => {
                let part = |at: usize, path: &str| {
                    let cast = Cast::plan(old[at].data_type(), entry[at].data_type());
                    below(path, cast).map(|cast| Some((at, cast)))
                };
                Ok(Nested::Map {
                    entries: Parts {
                        casts: vec![part(0, ".key")?, part(1, ".value")?],
                        to: entry.clone(),
                    },
                    to: Arc::clone(new),
                    sorted: *sorted,
                })
            }
            _ => Err(refusal(from, to)),
        },
        _ => Err(refusal(from, to)),
    }
}

fn refusal(from: &DataType, to: &DataType) -> String {
    format!("{} does not convert to {}", sql_name(from), sql_name(to))
}

/// Says where below the column a part that cannot be cast is.
fn below(path: &str, cast: Result<Cast, String>) -> Result<Cast, String> {
    cast.map_err(|reason| format!("{path}: {reason}"))
}

fn by_name(old: &Fields, new: &Fields) -> Result<Parts, String> {
    if let Some(unknown) = old.iter().find(|field| new.find(field.name()).is_none()) {
        let known: Vec<&str> = new.iter().map(|field| field.name().as_str()).collect();
        return Err(format!(
            "field {} does not exist; its fields are {}",
            unknown.name(),
            known.join(", ")
        ));
    }
    let casts = new
        .iter()
        .map(|field| match old.find(field.name()) {
            Some((at, old)) => {
                let cast = Cast::plan(old.data_type(), field.data_type());
                Ok(Some((at, below(&format!(".{}", field.name()), cast)?)))
            }
            None if field.is_nullable() => Ok(None),
            None => Err(format!("field {} is missing and NOT NULL", field.name())),
        })
        .collect::<Result<_, String>>()?;
    let to = new.clone();
    Ok(Parts { casts, to })
}

impl Nested {
    pub(super) fn run(&self, array: &ArrayRef) -> Result<ArrayRef, CastFailure> {
        match self {
            Self::Struct(parts) => Ok(Arc::new(parts.run(array.as_struct())?)),
            Self::List { plain, element, to } => {
                let list = reachable(by_arrow(array, plain)?.as_list::<i32>())
                    .map_err(|error| broken(array, plain, error))?;
                let values = element
                    .run(list.values())
                    .and_then(|values| required(values, None, to))
                    .map_err(|failure| in_rows_of(&list, "[]", failure))?;
                let (_, offsets, _, nulls) = list.into_parts();
                let cast = ListArray::try_new(Arc::clone(to), offsets, values, nulls)
                    .map_err(|error| broken(array, plain, error))?;
                Ok(Arc::new(cast))
            }
            Self::Map {
                entries,
                to,
                sorted,
            } => {
                let broken = |error| broken(array, to.data_type(), error);
                let list = as_list(array.as_map()).map_err(broken)?;
                let list = reachable(&list).map_err(broken)?;
                let cast = entries
                    .run(list.values().as_struct())
                    .map_err(|failure| in_rows_of(&list, "", failure))?;
                let (_, offsets, _, nulls) = list.into_parts();
                let map = MapArray::try_new(Arc::clone(to), offsets, cast, nulls, *sorted)
                    .map_err(broken)?;
                Ok(Arc::new(map))
            }
        }
    }
}

impl Parts {
    fn run(&self, array: &StructArray) -> Result<StructArray, CastFailure> {
        let nulls = array.nulls();
        let mut failed: Option<CastFailure> = None;
        let mut columns = Vec::with_capacity(self.to.len());
        for (part, field) in self.casts.iter().zip(&self.to) {
            let Some((at, cast)) = part else {
                columns.push(new_null_array(field.data_type(), array.len()));
                continue;
            };
            let old = masked(array.column(*at), nulls)
                .map_err(|error| broken(array.column(*at), field.data_type(), error))?;
            match cast.run(&old).and_then(|new| required(new, nulls, field)) {
                Ok(new) => columns.push(new),
                Err(mut failure) => {
                    failure.path = format!(".{}{}", field.name(), failure.path);
                    failed = Some(match failed {
                        Some(first) => first.join(failure),
                        None => failure,
                    });
                }
            }
        }
        if let Some(failure) = failed {
            return Err(failure);
        }
        StructArray::try_new_with_length(self.to.clone(), columns, nulls.cloned(), array.len())
            .map_err(|error| {
                let whole: ArrayRef = Arc::new(array.clone());
                broken(&whole, &DataType::Struct(self.to.clone()), error)
            })
    }
}

/// Refuses a NULL in a field that must have a value, where the struct around it has one.
fn required(
    array: ArrayRef,
    around: Option<&NullBuffer>,
    field: &FieldRef,
) -> Result<ArrayRef, CastFailure> {
    if field.is_nullable() {
        return Ok(array);
    }
    let Some(nulls) = array.logical_nulls().filter(|nulls| nulls.null_count() > 0) else {
        return Ok(array);
    };
    let rows: Vec<usize> = (0..array.len())
        .filter(|row| nulls.is_null(*row) && around.is_none_or(|around| around.is_valid(*row)))
        .collect();
    if rows.is_empty() {
        return Ok(array);
    }
    Err(CastFailure {
        rows,
        first: vec!["NULL".into()],
        reason: "NOT NULL".into(),
        path: String::new(),
        to: sql_name(field.data_type()),
    })
}

/// A field of a struct with the struct's own NULLs: what a slot holds under a NULL means nothing and
/// must not be refused.
fn masked(column: &ArrayRef, around: Option<&NullBuffer>) -> Result<ArrayRef, ArrowError> {
    let Some(around) = around.filter(|nulls| nulls.null_count() > 0) else {
        return Ok(Arc::clone(column));
    };
    match column.data_type() {
        // These keep no NULLs of their own.
        DataType::Null | DataType::Union(..) | DataType::RunEndEncoded(..) => {
            Ok(Arc::clone(column))
        }
        _ => {
            let nulls = NullBuffer::union(column.nulls(), Some(around));
            let data = column.to_data().into_builder().nulls(nulls).build()?;
            Ok(make_array(data))
        }
    }
}

/// The list without elements that no row shows (outside the offsets, or under a NULL).
fn reachable(list: &ListArray) -> Result<ListArray, ArrowError> {
    let offsets = list.offsets();
    let hidden = list.nulls().is_some_and(|nulls| {
        (0..list.len()).any(|row| nulls.is_null(row) && offsets[row] != offsets[row + 1])
    });
    let start = offsets.first().copied().unwrap_or_default();
    let end = offsets.last().copied().unwrap_or_default();
    if !hidden && start == 0 && end as usize == list.values().len() {
        return Ok(list.clone());
    }
    let every_row: UInt64Array = (0..list.len() as u64).collect();
    Ok(take(list, &every_row, None)?.as_list::<i32>().clone())
}

fn as_list(map: &MapArray) -> Result<ListArray, ArrowError> {
    let entries: ArrayRef = Arc::new(map.entries().clone());
    let field = match map.data_type() {
        DataType::Map(field, _) => Arc::clone(field),
        other => return Err(ArrowError::CastError(format!("{other} is not a map"))),
    };
    ListArray::try_new(field, map.offsets().clone(), entries, map.nulls().cloned())
}

/// Failures of elements as failures of the rows that hold them.
fn in_rows_of(list: &ListArray, path: &str, mut failure: CastFailure) -> CastFailure {
    let offsets = list.offsets();
    for row in &mut failure.rows {
        // The last row that begins at or before the element; empty rows before it begin there too.
        *row = offsets
            .partition_point(|offset| *offset as usize <= *row)
            .saturating_sub(1);
    }
    failure.rows.dedup();
    failure.path = format!("{path}{}", failure.path);
    failure
}

fn broken(array: &ArrayRef, to: &DataType, error: ArrowError) -> CastFailure {
    CastFailure::of_all(array, to, error.to_string())
}
