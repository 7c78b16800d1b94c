//! CSV as RFC 4180 and DuckDB write it, TSV as PostgreSQL's COPY does. In both, NULL and the empty text differ.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::EncoderOptions;

use super::value::{Nested, columns, json_options};
use super::{LeftOut, RenderError, Renderer};

/// Rows of fields with a separator between them.
pub(super) struct Delimited {
    separator: u8,
    null: &'static str,
    push: fn(&mut Vec<u8>, &str),
    json: EncoderOptions,
    /// The line of names, until it is written.
    header: Option<Vec<u8>>,
}

impl Delimited {
    pub(super) fn csv(schema: &SchemaRef) -> Self {
        Self::new(schema, b',', "", push_quoted)
    }

    pub(super) fn tsv(schema: &SchemaRef) -> Self {
        Self::new(schema, b'\t', "\\N", push_escaped)
    }

    fn new(
        schema: &SchemaRef,
        separator: u8,
        null: &'static str,
        push: fn(&mut Vec<u8>, &str),
    ) -> Self {
        let mut header = Vec::new();
        for (at, field) in schema.fields().iter().enumerate() {
            if at > 0 {
                header.push(separator);
            }
            push(&mut header, field.name());
        }
        header.push(b'\n');
        Self {
            separator,
            null,
            push,
            json: json_options(),
            header: Some(header),
        }
    }

    fn write_header(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        match self.header.take() {
            Some(header) => Ok(out.write_all(&header)?),
            None => Ok(()),
        }
    }
}

impl Renderer for Delimited {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<(), RenderError> {
        self.write_header(out)?;
        let mut columns = columns(batch, Nested::Json, &self.json)?;
        let (mut line, mut value) = (Vec::new(), String::new());
        for row in 0..batch.num_rows() {
            line.clear();
            for (at, column) in columns.iter_mut().enumerate() {
                if at > 0 {
                    line.push(self.separator);
                }
                match column.read(row, &mut value)? {
                    true => (self.push)(&mut line, &value),
                    false => line.extend_from_slice(self.null.as_bytes()),
                }
            }
            line.push(b'\n');
            out.write_all(&line)?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<LeftOut, RenderError> {
        self.write_header(out)?;
        Ok(LeftOut::default())
    }
}

fn push_quoted(line: &mut Vec<u8>, value: &str) {
    let special = |byte: u8| matches!(byte, b',' | b'"' | b'\n' | b'\r');
    if !value.is_empty() && !value.bytes().any(special) {
        return line.extend_from_slice(value.as_bytes());
    }
    line.push(b'"');
    for byte in value.bytes() {
        if byte == b'"' {
            line.push(b'"');
        }
        line.push(byte);
    }
    line.push(b'"');
}

fn push_escaped(line: &mut Vec<u8>, value: &str) {
    for byte in value.bytes() {
        match byte {
            b'\\' => line.extend_from_slice(b"\\\\"),
            b'\t' => line.extend_from_slice(b"\\t"),
            b'\n' => line.extend_from_slice(b"\\n"),
            b'\r' => line.extend_from_slice(b"\\r"),
            _ => line.push(byte),
        }
    }
}
