//! Footers of data files, in the names of the table.
//!
//! Under column mapping a file calls its columns otherwise than the table does. The names are changed where
//! a file is told of: in its footer, as the reader hands it out. All that DataFusion does behind it -
//! statistics, pages, bloom filters, filters that come to be while a query runs, casts, parts of structs -
//! works by names of the footer, and so works as for any other table. Columns the table no longer has get a
//! name no column can have, so that a new column of an old name never finds what was dropped.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, Fields, Schema};
use parquet::errors::Result as ParquetResult;
use parquet::file::metadata::{FileMetaData, ParquetMetaData, ParquetMetaDataBuilder};
use parquet::schema::types::{SchemaDescriptor, Type, TypePtr};

use super::mapping::{self, Mode};
use super::reader::FooterChange;

/// The names of a table's columns, by what files call them.
#[derive(Debug)]
pub(super) struct Names {
    by_id: bool,
    columns: Group,
}

/// Columns of a table, or fields of a struct.
struct Group {
    fields: Vec<(String, Inner)>,
    by_name: HashMap<String, usize>,
    by_id: HashMap<i32, usize>,
}

/// What a column is made of.
enum Inner {
    Leaf,
    Struct(Group),
    List(Box<Inner>),
    Map(Box<[Inner; 2]>),
}

impl fmt::Debug for Group {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let names = self.fields.iter().map(|(name, _)| name);
        f.debug_list().entries(names).finish()
    }
}

impl Group {
    fn new(fields: &Fields) -> Self {
        let all = || fields.iter().enumerate();
        Self {
            fields: fields
                .iter()
                .map(|field| (field.name().clone(), Inner::new(field)))
                .collect(),
            by_name: all()
                .map(|(at, field)| (mapping::physical_name(field).to_owned(), at))
                .collect(),
            by_id: all()
                .filter_map(|(at, field)| Some((mapping::id(field)?, at)))
                .collect(),
        }
    }
}

impl Inner {
    fn new(field: &Field) -> Self {
        match field.data_type() {
            DataType::Struct(fields) => Self::Struct(Group::new(fields)),
            DataType::List(element) => Self::List(Box::new(Self::new(element))),
            DataType::Map(entries, _) => match entries.data_type() {
                DataType::Struct(parts) if parts.len() == 2 => {
                    Self::Map(Box::new([Self::new(&parts[0]), Self::new(&parts[1])]))
                }
                _ => Self::Leaf,
            },
            _ => Self::Leaf,
        }
    }
}

impl FooterChange for Names {
    /// `footer` with the columns called as in the table; the same footer where they are already.
    fn changed(&self, footer: Arc<ParquetMetaData>) -> ParquetResult<Arc<ParquetMetaData>> {
        let file = footer.file_metadata();
        let root = file.schema_descr().root_schema();
        let columns = self.group(root.get_fields(), &self.columns)?;
        if columns == root.get_fields() {
            return Ok(footer);
        }
        let root = Type::group_type_builder(root.name())
            .with_fields(columns)
            .build()?;
        let file = FileMetaData::new(
            file.version(),
            file.num_rows(),
            file.created_by().map(str::to_owned),
            // Among these may be the writer's Arrow schema, which speaks of the other names. Types of
            // Delta are told by Parquet's own.
            None,
            Arc::new(SchemaDescriptor::new(Arc::new(root))),
            file.column_orders().cloned(),
        );
        // Row groups keep what they know of the schema: leaves are found by position in them.
        let renamed = ParquetMetaDataBuilder::new(file)
            .set_row_groups(footer.row_groups().to_vec())
            .set_column_index(footer.column_index().cloned())
            .set_offset_index(footer.offset_index().cloned())
            .build();
        Ok(Arc::new(renamed))
    }
}

impl Names {
    /// Of a table of `schema`, the schema of its snapshot.
    pub(super) fn new(mode: Mode, schema: &Schema) -> Self {
        Self {
            by_id: mode == Mode::Id,
            columns: Group::new(schema.fields()),
        }
    }

    fn group(&self, types: &[TypePtr], group: &Group) -> ParquetResult<Vec<TypePtr>> {
        types
            .iter()
            .map(|of_file| {
                let info = of_file.get_basic_info();
                // Files of mode `id` have ids; by name is how a file without is read by others too.
                let at = match self.by_id && info.has_id() {
                    true => group.by_id.get(&info.id()),
                    false => group.by_name.get(of_file.name()),
                };
                match at.and_then(|at| group.fields.get(*at)) {
                    Some((name, inner)) => self.column(of_file, name, inner),
                    None => self.column(of_file, &format!("\0{}", of_file.name()), &Inner::Leaf),
                }
            })
            .collect()
    }

    /// A column, or a part of one, under another name. Its id goes: DataFusion would take a column that
    /// has one for another than the table's, and cast it.
    fn column(&self, of_file: &TypePtr, name: &str, inner: &Inner) -> ParquetResult<TypePtr> {
        let fields = of_file.is_group().then(|| of_file.get_fields());
        let fields = match (inner, fields) {
            (_, None) => return primitive(of_file, name),
            (Inner::Struct(group), Some(fields)) => self.group(fields, group)?,
            (Inner::List(element), Some([repeated])) => vec![self.list(repeated, element)?],
            (Inner::Map(parts), Some([repeated])) => vec![self.map(repeated, parts)?],
            (_, Some(fields)) => fields.to_vec(),
        };
        group_of(of_file, name, fields)
    }

    fn list(&self, repeated: &TypePtr, element: &Inner) -> ParquetResult<TypePtr> {
        // Old writers leave out the level between a list and its elements.
        if !repeated.is_group() || repeated.name() == "array" {
            return self.column(repeated, repeated.name(), element);
        }
        match repeated.get_fields() {
            [only] => {
                let element = self.column(only, only.name(), element)?;
                group_of(repeated, repeated.name(), vec![element])
            }
            _ => self.column(repeated, repeated.name(), element),
        }
    }

    fn map(&self, entries: &TypePtr, inner: &[Inner; 2]) -> ParquetResult<TypePtr> {
        if !entries.is_group() {
            return Ok(Arc::clone(entries));
        }
        let parts = entries
            .get_fields()
            .iter()
            .zip(inner)
            .map(|(part, inner)| self.column(part, part.name(), inner))
            .collect::<ParquetResult<_>>()?;
        group_of(entries, entries.name(), parts)
    }
}

fn group_of(of_file: &Type, name: &str, fields: Vec<TypePtr>) -> ParquetResult<TypePtr> {
    let info = of_file.get_basic_info();
    let mut builder = Type::group_type_builder(name)
        .with_converted_type(info.converted_type())
        .with_logical_type(info.logical_type_ref().cloned())
        .with_fields(fields);
    if info.has_repetition() {
        builder = builder.with_repetition(info.repetition());
    }
    Ok(Arc::new(builder.build()?))
}

fn primitive(of_file: &TypePtr, name: &str) -> ParquetResult<TypePtr> {
    let Type::PrimitiveType {
        basic_info,
        physical_type,
        type_length,
        scale,
        precision,
    } = of_file.as_ref()
    else {
        return Ok(Arc::clone(of_file));
    };
    let renamed = Type::primitive_type_builder(name, *physical_type)
        .with_repetition(basic_info.repetition())
        .with_converted_type(basic_info.converted_type())
        .with_logical_type(basic_info.logical_type_ref().cloned())
        .with_length(*type_length)
        .with_scale(*scale)
        .with_precision(*precision)
        .build()?;
    Ok(Arc::new(renamed))
}
