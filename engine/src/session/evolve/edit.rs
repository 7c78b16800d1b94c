//! Changes inside of a schema: a column, or a field of a struct at any depth, found by the names on the way.

use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, FieldRef, Fields};

use crate::error::{Error, ErrorKind, Result};
use crate::sql;
use crate::table::schema::path;

/// `fields` with `change` done to the fields of the struct that `parent` leads to; to `fields` themselves
/// when it is empty. Parts of lists and maps are called `element`, `key` and `value`, as Delta calls them.
pub(super) fn siblings(
    table: &str,
    fields: &Fields,
    parent: &[String],
    change: &mut dyn FnMut(&mut Vec<FieldRef>) -> Result<()>,
) -> Result<Fields> {
    group(table, fields, parent, "", change)
}

/// The place of the field `name` among `fields`, those of `above`.
pub(super) fn find(table: &str, fields: &[FieldRef], name: &str, above: &str) -> Result<usize> {
    if let Some(at) = fields.iter().position(|field| field.name() == name) {
        return Ok(at);
    }
    let missing = Error::new(
        ErrorKind::NotFound,
        format!("table {table} has no column {}", path(above, name)),
    );
    let names: Vec<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    Err(match sql::nearest(name, names.iter().copied()) {
        Some(near) => missing.with_hint(format!("did you mean {}?", path(above, &near))),
        None => missing.with_hint(format!("there are {}", names.join(", "))),
    })
}

type Change<'a> = &'a mut dyn FnMut(&mut Vec<FieldRef>) -> Result<()>;

fn group(
    table: &str,
    fields: &Fields,
    parent: &[String],
    above: &str,
    change: Change<'_>,
) -> Result<Fields> {
    let mut fields = fields.to_vec();
    match parent.split_first() {
        None => change(&mut fields)?,
        Some((name, rest)) => {
            let at = find(table, &fields, name, above)?;
            let above = path(above, name);
            let data_type = inside(table, fields[at].data_type(), rest, &above, change)?;
            fields[at] = Arc::new(fields[at].as_ref().clone().with_data_type(data_type));
        }
    }
    Ok(fields.into())
}

fn inside(
    table: &str,
    data_type: &DataType,
    rest: &[String],
    above: &str,
    change: Change<'_>,
) -> Result<DataType> {
    let mut part = |field: &FieldRef, name: &str, rest: &[String]| -> Result<FieldRef> {
        let inner = inside(
            table,
            field.data_type(),
            rest,
            &path(above, name),
            &mut *change,
        )?;
        Ok(Arc::new(field.as_ref().clone().with_data_type(inner)))
    };
    let next = rest.split_first().map(|(name, rest)| (name.as_str(), rest));
    match (data_type, next) {
        (DataType::Struct(fields), _) => {
            group(table, fields, rest, above, change).map(DataType::Struct)
        }
        (DataType::List(element), Some(("element", rest))) => {
            part(element, "element", rest).map(DataType::List)
        }
        (DataType::Map(entries, sorted), Some((name @ ("key" | "value"), rest))) => {
            let DataType::Struct(parts) = entries.data_type() else {
                return Err(Error::internal(format!(
                    "column {above} is a map of no pairs"
                )));
            };
            let mut parts = parts.to_vec();
            let at = usize::from(name == "value");
            parts[at] = part(&parts[at], name, rest)?;
            let entries = entries.as_ref().clone();
            let entries = entries.with_data_type(DataType::Struct(parts.into()));
            Ok(DataType::Map(Arc::new(entries), *sorted))
        }
        (DataType::List(_), _) => Err(no_fields(table, above, "a list", "element")),
        (DataType::Map(..), _) => Err(no_fields(table, above, "a map", "key or value")),
        _ => Err(Error::invalid(format!(
            "column {above} of table {table} is no struct, so it has no fields"
        ))),
    }
}

fn no_fields(table: &str, column: &str, what: &str, part: &str) -> Error {
    Error::invalid(format!(
        "column {column} of table {table} is {what}, which has no fields"
    ))
    .with_hint(format!(
        "fields of structs inside of it are reached by {column}.{}",
        part.split(' ').next().unwrap_or(part)
    ))
}

#[cfg(test)]
mod tests {
    use datafusion::arrow::datatypes::Field;

    use super::*;
    use crate::table::schema::{to_arrow, to_delta};

    fn fields() -> Fields {
        let inner = r#"{"type":"struct","fields":[{"name":"x","type":"long","nullable":true,"metadata":{}}]}"#;
        let columns = [
            ("a", r#""long""#.to_owned()),
            ("s", inner.to_owned()),
            (
                "l",
                format!(r#"{{"type":"array","elementType":{inner},"containsNull":true}}"#),
            ),
            (
                "m",
                format!(
                    r#"{{"type":"map","keyType":"string","valueType":{inner},"valueContainsNull":true}}"#
                ),
            ),
        ];
        let columns = columns.map(|(name, data_type)| {
            format!(r#"{{"name":"{name}","type":{data_type},"nullable":true,"metadata":{{}}}}"#)
        });
        let schema = format!(r#"{{"type":"struct","fields":[{}]}}"#, columns.join(","));
        to_arrow(&schema).unwrap().fields().clone()
    }

    fn add(parent: &[&str]) -> Result<Fields> {
        let parent: Vec<_> = parent.iter().map(|name| (*name).to_owned()).collect();
        siblings("t", &fields(), &parent, &mut |fields| {
            fields.push(Arc::new(Field::new("new", DataType::Int32, true)));
            Ok(())
        })
    }

    #[test]
    fn a_struct_is_found_at_any_depth() {
        let parents: [&[&str]; 4] = [&[], &["s"], &["l", "element"], &["m", "value"]];
        for parent in parents {
            let changed = add(parent).unwrap();
            let text = to_delta(&datafusion::arrow::datatypes::Schema::new(changed)).unwrap();
            assert_eq!(text.matches(r#""new""#).count(), 1, "{parent:?}: {text}");
        }
        let DataType::Struct(inner) = add(&["s"]).unwrap()[1].data_type().clone() else {
            panic!()
        };
        assert_eq!(inner[1].name(), "new");
    }

    #[test]
    fn what_is_no_struct_is_named() {
        let error = |parent: &[&str]| add(parent).unwrap_err().to_string();
        assert!(error(&["a"]).contains("column a of table t is no struct"));
        assert!(error(&["l"]).contains("column l of table t is a list"));
        assert!(error(&["l"]).contains("l.element"));
        assert!(error(&["m", "key"]).contains("column m.key of table t is no struct"));
        assert!(error(&["m"]).contains("is a map"));
        let missing = error(&["s", "y"]);
        assert!(
            missing.contains("no column s.y") && missing.contains("there are x"),
            "{missing}"
        );
        assert!(error(&["S"]).contains("did you mean s?"));
    }
}
