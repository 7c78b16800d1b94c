//! A table as GitHub renders it. The cells are not padded, so rows can be written as they come.

use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::EncoderOptions;

use super::value::{Nested, columns, json_options};
use super::{LeftOut, RenderError, Renderer, right_aligned};

pub(super) struct Markdown {
    json: EncoderOptions,
    /// The line of names and the one below it, until they are written.
    header: Option<String>,
}

impl Markdown {
    pub(super) fn new(schema: &SchemaRef) -> Self {
        let (mut names, mut rule) = (String::from("|"), String::from("|"));
        for field in schema.fields() {
            push_cell(&mut names, field.name());
            push_cell(
                &mut rule,
                if right_aligned(field.data_type()) {
                    "---:"
                } else {
                    "---"
                },
            );
        }
        Self {
            json: json_options(),
            header: Some(format!("{names}\n{rule}\n")),
        }
    }

    fn write_header(&mut self, out: &mut dyn Write) -> Result<(), RenderError> {
        match self.header.take() {
            Some(header) => Ok(out.write_all(header.as_bytes())?),
            None => Ok(()),
        }
    }
}

impl Renderer for Markdown {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<(), RenderError> {
        self.write_header(out)?;
        let mut columns = columns(batch, Nested::Plain, &self.json)?;
        let (mut line, mut value) = (String::new(), String::new());
        for row in 0..batch.num_rows() {
            line.clear();
            line.push('|');
            for column in &mut columns {
                let some = column.read(row, &mut value)?;
                push_cell(&mut line, if some { &value } else { "NULL" });
            }
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<LeftOut, RenderError> {
        self.write_header(out)?;
        Ok(LeftOut::default())
    }
}

fn push_cell(line: &mut String, value: &str) {
    line.push(' ');
    for character in value.chars() {
        match character {
            '|' => line.push_str("\\|"),
            '\n' => line.push_str("<br>"),
            '\r' => {}
            other => line.push(other),
        }
    }
    line.push_str(" |");
}
