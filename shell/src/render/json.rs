//! JSON by Arrow's own writer: exact digits for decimals, objects for structs, NULL as `null`.

use std::collections::HashSet;
use std::io::Write;
use std::sync::Arc;

use arrow::array::{Array, RecordBatch, StructArray};
use arrow::datatypes::{Field, FieldRef, Fields, SchemaRef};
use arrow::json::writer::{EncoderOptions, make_encoder};

use super::value::json_options;
use super::{LeftOut, RenderError, Renderer};

/// Bytes after which encoded rows are handed on.
const FULL: usize = 64 << 10;

/// Objects, one per row.
pub(super) struct Json {
    /// A row as one struct, with keys that differ.
    row: FieldRef,
    fields: Fields,
    options: EncoderOptions,
    frame: Frame,
    started: bool,
}

/// What stands around the rows.
struct Frame {
    before: &'static str,
    between: &'static str,
    after: &'static str,
    /// All of a result without rows.
    empty: &'static str,
}

const ARRAY: Frame = Frame {
    before: "[",
    between: ",\n",
    after: "]\n",
    empty: "[]\n",
};
const LINES: Frame = Frame {
    before: "",
    between: "\n",
    after: "\n",
    empty: "",
};

impl Json {
    pub(super) fn array(schema: &SchemaRef) -> Self {
        Self::new(schema, ARRAY)
    }

    pub(super) fn lines(schema: &SchemaRef) -> Self {
        Self::new(schema, LINES)
    }

    fn new(schema: &SchemaRef, frame: Frame) -> Self {
        let fields = with_unique_names(schema.fields());
        Self {
            row: Arc::new(Field::new_struct("", fields.clone(), false)),
            fields,
            options: json_options(),
            frame,
            started: false,
        }
    }
}

impl Renderer for Json {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<(), RenderError> {
        let columns = batch.columns().to_vec();
        let rows =
            StructArray::try_new_with_length(self.fields.clone(), columns, None, batch.num_rows())?;
        let mut encoder = make_encoder(&self.row, &rows, &self.options)?;
        let mut buffer = Vec::new();
        for row in 0..rows.len() {
            let before = if self.started {
                self.frame.between
            } else {
                self.frame.before
            };
            self.started = true;
            buffer.extend_from_slice(before.as_bytes());
            encoder.encode(row, &mut buffer);
            if buffer.len() >= FULL {
                out.write_all(&buffer)?;
                buffer.clear();
            }
        }
        Ok(out.write_all(&buffer)?)
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<LeftOut, RenderError> {
        let rest = if self.started {
            self.frame.after
        } else {
            self.frame.empty
        };
        out.write_all(rest.as_bytes())?;
        Ok(LeftOut::default())
    }
}

/// `SELECT *` of a join may bring a name twice; readers of JSON would keep only one of the values.
fn with_unique_names(fields: &Fields) -> Fields {
    let given: HashSet<&str> = fields.iter().map(|field| field.name().as_str()).collect();
    let mut taken: HashSet<String> = HashSet::new();
    let unique = |field: &FieldRef| {
        let mut name = field.name().clone();
        let mut number = 2;
        while !taken.insert(name.clone()) {
            loop {
                name = format!("{}_{number}", field.name());
                number += 1;
                if !given.contains(name.as_str()) {
                    break;
                }
            }
        }
        match name == *field.name() {
            true => Arc::clone(field),
            false => Arc::new(field.as_ref().clone().with_name(name)),
        }
    };
    fields.iter().map(unique).collect()
}
