//! Columns between lines, for a person: `table` in ASCII, `box` in drawn lines.
//!
//! The widths come from the rows that are held back. At a terminal these are the few rows it shows of a long result,
//! the first and the last ones; else the first thousands, and a later value that is wider pushes its line out rather
//! than being cut.

use std::collections::VecDeque;
use std::io::Write;

use arrow::array::RecordBatch;
use arrow::datatypes::SchemaRef;
use arrow::json::writer::EncoderOptions;

use super::layout::{Layout, Slot, printable, width};
use super::value::{Nested, columns, json_options};
use super::{LeftOut, RenderError, Renderer, Shape, right_aligned};

/// Rows, and bytes of text, after which the widths are settled.
const SAMPLE_ROWS: usize = 10_000;
const SAMPLE_BYTES: usize = 8 << 20;

/// The characters of the lines.
pub(super) struct Lines {
    bar: &'static str,
    dash: &'static str,
    /// Left, inner and right corner of the first, the middle and the last line.
    corners: [[&'static str; 3]; 3],
}

pub(super) const ASCII: Lines = Lines {
    bar: "|",
    dash: "-",
    corners: [["+", "+", "+"]; 3],
};

pub(super) const DRAWN: Lines = Lines {
    bar: "│",
    dash: "─",
    corners: [["┌", "┬", "┐"], ["├", "┼", "┤"], ["└", "┴", "┘"]],
};

type Row = Vec<String>;

pub(super) struct Table {
    lines: &'static Lines,
    shape: Shape,
    names: Row,
    right: Vec<bool>,
    json: EncoderOptions,
    /// Rows held back: all of them until the widths are settled, or the first rows of those to be shown.
    head: Vec<Row>,
    head_bytes: usize,
    /// The last rows of those to be shown, in batches that together hold few more.
    tail: VecDeque<RecordBatch>,
    tail_rows: usize,
    rows: u64,
    layout: Option<Layout>,
}

impl Table {
    pub(super) fn new(schema: &SchemaRef, lines: &'static Lines, shape: Shape) -> Self {
        let fields = schema.fields();
        Self {
            lines,
            shape,
            names: fields.iter().map(|field| printable(field.name())).collect(),
            right: fields
                .iter()
                .map(|field| right_aligned(field.data_type()))
                .collect(),
            json: json_options(),
            head: Vec::new(),
            head_bytes: 0,
            tail: VecDeque::new(),
            tail_rows: 0,
            rows: 0,
            layout: None,
        }
    }

    /// Rows kept from the beginning and from the end of a result that is too long.
    fn ends(max_rows: usize) -> (usize, usize) {
        (max_rows.div_ceil(2), max_rows / 2)
    }

    fn read(
        &self,
        batch: &RecordBatch,
        mut each: impl FnMut(Row) -> Result<(), RenderError>,
    ) -> Result<(), RenderError> {
        let mut columns = columns(batch, Nested::Plain, &self.json)?;
        let mut value = String::new();
        for row in 0..batch.num_rows() {
            let mut cells = Row::with_capacity(columns.len());
            for column in &mut columns {
                let some = column.read(row, &mut value)?;
                cells.push(if some {
                    printable(&value)
                } else {
                    "NULL".into()
                });
            }
            each(cells)?;
        }
        Ok(())
    }

    /// Of a result that may be too long: the first rows as text, the last ones as they are.
    fn keep_ends(&mut self, batch: &RecordBatch, max_rows: usize) -> Result<(), RenderError> {
        let (first, last) = Self::ends(max_rows);
        let missing = first.saturating_sub(self.head.len()).min(batch.num_rows());
        let mut head = std::mem::take(&mut self.head);
        self.read(&batch.slice(0, missing), |row| {
            head.push(row);
            Ok(())
        })?;
        self.head = head;
        let rest = batch.num_rows() - missing;
        if rest == 0 || last == 0 {
            return Ok(());
        }
        self.tail.push_back(batch.slice(missing, rest));
        self.tail_rows += rest;
        while let Some(oldest) = self.tail.front()
            && self.tail_rows - oldest.num_rows() >= last
        {
            self.tail_rows -= oldest.num_rows();
            self.tail.pop_front();
        }
        Ok(())
    }

    /// Of a result that is shown whole: held back until the widths are settled, then written as it comes.
    fn keep_all(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<(), RenderError> {
        if let Some(layout) = &self.layout {
            return self.read(batch, |row| self.write_row(out, layout, &row));
        }
        let mut head = std::mem::take(&mut self.head);
        let mut bytes = self.head_bytes;
        self.read(batch, |row| {
            bytes += row.iter().map(String::len).sum::<usize>();
            head.push(row);
            Ok(())
        })?;
        (self.head, self.head_bytes) = (head, bytes);
        if self.head.len() >= SAMPLE_ROWS || bytes >= SAMPLE_BYTES {
            let layout = self.open(out, &[])?;
            self.head = Vec::new();
            self.layout = Some(layout);
        }
        Ok(())
    }

    /// Settles the widths, then writes the names and the rows held back.
    fn open(&self, out: &mut dyn Write, tail: &[Row]) -> Result<Layout, RenderError> {
        let mut widths: Vec<usize> = self.names.iter().map(|name| width(name)).collect();
        for row in self.head.iter().chain(tail) {
            for (widest, cell) in widths.iter_mut().zip(row) {
                *widest = (*widest).max(width(cell));
            }
        }
        let layout = Layout::fit(&widths, self.shape.max_width);
        self.write_line(out, &layout, 0)?;
        self.write_row(out, &layout, &self.names)?;
        self.write_line(out, &layout, 1)?;
        for row in &self.head {
            self.write_row(out, &layout, row)?;
        }
        Ok(layout)
    }

    fn write_line(
        &self,
        out: &mut dyn Write,
        layout: &Layout,
        which: usize,
    ) -> Result<(), RenderError> {
        let [left, inner, right] = self.lines.corners[which];
        let dashes = layout
            .slots()
            .iter()
            .map(|slot| self.lines.dash.repeat(Slot::width(slot) + 2));
        let line = dashes.collect::<Vec<_>>().join(inner);
        Ok(writeln!(out, "{left}{line}{right}")?)
    }

    /// A value of several lines (a plan, say) keeps them: the row is as high as its highest cell.
    fn write_row(
        &self,
        out: &mut dyn Write,
        layout: &Layout,
        row: &[String],
    ) -> Result<(), RenderError> {
        let height = row
            .iter()
            .map(|cell| cell.split('\n').count())
            .max()
            .unwrap_or(1);
        let mut cells: Vec<_> = row.iter().map(|cell| cell.split('\n')).collect();
        let mut line = String::new();
        for _ in 0..height {
            line.clear();
            for slot in layout.slots() {
                line.push_str(self.lines.bar);
                line.push(' ');
                match slot {
                    Some(slot) => {
                        let text = cells[slot.column].next().unwrap_or_default();
                        slot.push(&mut line, text, self.right[slot.column]);
                    }
                    None => line.push('…'),
                }
                line.push(' ');
            }
            line.push_str(self.lines.bar);
            line.push('\n');
            out.write_all(line.as_bytes())?;
        }
        Ok(())
    }

    /// The last rows to be shown.
    fn last_rows(&self) -> Result<Vec<Row>, RenderError> {
        let last = self
            .shape
            .max_rows
            .map_or(0, |max_rows| Self::ends(max_rows).1);
        let mut surplus = self.tail_rows.saturating_sub(last);
        let mut rows = Vec::new();
        for batch in &self.tail {
            let skipped = surplus.min(batch.num_rows());
            surplus -= skipped;
            self.read(&batch.slice(skipped, batch.num_rows() - skipped), |row| {
                rows.push(row);
                Ok(())
            })?;
        }
        Ok(rows)
    }
}

impl Renderer for Table {
    fn batch(&mut self, out: &mut dyn Write, batch: &RecordBatch) -> Result<(), RenderError> {
        self.rows += batch.num_rows() as u64;
        match self.shape.max_rows {
            Some(max_rows) => self.keep_ends(batch, max_rows),
            None => self.keep_all(out, batch),
        }
    }

    fn finish(&mut self, out: &mut dyn Write) -> Result<LeftOut, RenderError> {
        let mut hidden = 0;
        let layout = match self.layout.take() {
            Some(layout) => layout,
            None => {
                let tail = self.last_rows()?;
                hidden = self.rows - (self.head.len() + tail.len()) as u64;
                let layout = self.open(out, &tail)?;
                if hidden > 0 {
                    self.write_row(out, &layout, &vec!["…".to_string(); self.names.len()])?;
                }
                for row in &tail {
                    self.write_row(out, &layout, row)?;
                }
                layout
            }
        };
        self.write_line(out, &layout, 2)?;
        let shown = layout.slots().iter().flatten().count();
        Ok(LeftOut {
            rows: hidden,
            columns: self.names.len() - shown,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use arrow::array::{Int32Array, StringArray};

    use super::super::Format;
    use super::super::tests::{all_types, batch, people, render};
    use super::*;

    fn numbers(count: i32) -> RecordBatch {
        batch(vec![(
            "n",
            Arc::new(Int32Array::from_iter_values(0..count)),
        )])
    }

    fn shape(max_rows: usize, max_width: usize) -> Shape {
        Shape {
            max_rows: Some(max_rows),
            max_width: Some(max_width),
        }
    }

    #[test]
    fn numbers_stand_right_and_null_is_named() {
        assert_eq!(
            render(Format::Box, Shape::default(), &[people()]),
            "\
┌─────┬──────────┬───────┐
│  id │ name     │  paid │
├─────┼──────────┼───────┤
│   1 │ Zoë, \"Z\" │ 12.50 │
│  20 │ NULL     │ -0.05 │
│ 300 │          │  NULL │
└─────┴──────────┴───────┘
"
        );
    }

    #[test]
    fn every_type_has_a_text() {
        assert_eq!(
            render(Format::Table, Shape::default(), &[all_types()]),
            "\
+------+-------+------------+-------------------------+-------------------------------+-----------+-------------------+--------+
| ok   | ratio | day        | at                      | at_zone                       | tags      | place             | colour |
+------+-------+------------+-------------------------+-------------------------------+-----------+-------------------+--------+
| true |   0.5 | 2022-01-08 | 2023-11-14 22:13:20.123 | 2023-11-14 22:13:20.123+00:00 | [1, NULL] | {city: Rhône|\"x\"} | red    |
| NULL |  NULL | NULL       | NULL                    | NULL                          | NULL      | {city: NULL}      | NULL   |
+------+-------+------------+-------------------------+-------------------------------+-----------+-------------------+--------+
"
        );
    }

    #[test]
    fn wide_characters_lines_and_control_characters_keep_the_columns() {
        let odd = batch(vec![(
            "t",
            Arc::new(StringArray::from(vec![
                "日本",
                "a\nbc",
                "\u{1b}[31m\t",
                "e\u{301}",
            ])),
        )]);
        assert_eq!(
            render(Format::Box, Shape::default(), &[odd]),
            "\
┌──────────────┐
│ t            │
├──────────────┤
│ 日本         │
│ a            │
│ bc           │
│ \\u{1b}[31m\\t │
│ e\u{301}            │
└──────────────┘
"
        );
    }

    #[test]
    fn a_long_result_shows_its_ends() {
        let ends = |batches: &[RecordBatch]| {
            let text = render(Format::Box, shape(5, 80), batches);
            let cells: Vec<_> = text
                .lines()
                .filter_map(|line| line.strip_prefix("│ "))
                .collect();
            cells
                .into_iter()
                .map(|cell| cell.trim_matches([' ', '│']).to_string())
                .skip(1)
                .collect::<Vec<_>>()
                .join(" ")
        };
        assert_eq!(ends(&[numbers(5)]), "0 1 2 3 4");
        assert_eq!(ends(&[numbers(6)]), "0 1 2 … 4 5");
        assert_eq!(
            ends(&[numbers(1), numbers(1), numbers(2000), numbers(1)]),
            "0 0 0 … 1999 0"
        );
        assert_eq!(ends(&vec![numbers(1); 9]), "0 0 0 … 0 0");
        assert_eq!(ends(&[numbers(0), numbers(4)]), "0 1 2 3");
    }

    #[test]
    fn what_is_left_out_is_counted() {
        let left_out = |shape, batches: &[RecordBatch]| {
            let mut table = Table::new(&batches[0].schema(), &DRAWN, shape);
            for batch in batches {
                table.batch(&mut Vec::new(), batch).unwrap();
            }
            table.finish(&mut Vec::new()).unwrap()
        };
        assert_eq!(
            left_out(shape(40, 80), &[numbers(100)]),
            LeftOut {
                rows: 60,
                columns: 0
            }
        );
        assert_eq!(
            left_out(shape(1, 80), &[numbers(100)]),
            LeftOut {
                rows: 99,
                columns: 0
            }
        );
        assert_eq!(
            left_out(shape(40, 40), &[all_types()]),
            LeftOut {
                rows: 0,
                columns: 4
            }
        );
        assert_eq!(
            left_out(Shape::default(), &[numbers(100)]),
            LeftOut::default()
        );
    }

    #[test]
    fn columns_are_cut_to_the_terminal() {
        let long = batch(vec![
            ("id", Arc::new(Int32Array::from(vec![1]))),
            (
                "text",
                Arc::new(StringArray::from(vec!["日本日本日本日本日本"])),
            ),
        ]);
        assert_eq!(
            render(Format::Box, shape(40, 21), &[long]),
            "\
┌────┬──────────────┐
│ id │ text         │
├────┼──────────────┤
│  1 │ 日本日本日…  │
└────┴──────────────┘
"
        );
    }

    #[test]
    fn a_whole_result_is_written_as_it_comes() {
        let mut out = Vec::new();
        let mut table = Table::new(&numbers(0).schema(), &ASCII, Shape::default());
        table.batch(&mut out, &numbers(SAMPLE_ROWS as i32)).unwrap();
        let lines = |out: &[u8]| out.iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(lines(&out), SAMPLE_ROWS + 3);
        let wider = batch(vec![("n", Arc::new(Int32Array::from(vec![123456])))]);
        table.batch(&mut out, &wider).unwrap();
        table.finish(&mut out).unwrap();
        assert!(out.ends_with(b"| 9999 |\n| 123456 |\n+------+\n"));
    }
}
