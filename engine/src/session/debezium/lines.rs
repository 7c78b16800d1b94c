//! The lines of a file, one after the other, in the memory that one of them takes.

use bytes::Bytes;
use datafusion::common::DataFusionError;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::ObjectStoreExt;

use super::super::files::Listed;
use crate::error::{Error, Result};

/// No record of a broker is as long: a file of something else would be read into memory whole.
const MAX_LINE_BYTES: usize = 256 << 20;

/// A file being read.
pub(super) struct Lines {
    file: String,
    bytes: BoxStream<'static, datafusion::common::Result<Bytes>>,
    buffer: Vec<u8>,
    /// Where the next line begins.
    start: usize,
    /// Up to where no end of it was found.
    searched: usize,
    number: u64,
    ended: bool,
}

/// A line that is not blank, and which one it is, from 1.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub number: u64,
    pub text: String,
}

impl Lines {
    pub(super) async fn open(file: &Listed) -> Result<Self> {
        let got = file.store.get(&file.location).await;
        let got =
            got.map_err(|error| Error::storage(format!("cannot read {}", file.name), error))?;
        let bytes = got
            .into_stream()
            .map_err(|error| DataFusionError::ObjectStore(Box::new(error)))
            .boxed();
        Ok(Self {
            file: file.name.clone(),
            bytes: file.compression.convert_stream(bytes)?,
            buffer: Vec::new(),
            start: 0,
            searched: 0,
            number: 0,
            ended: false,
        })
    }

    /// The next line that says something.
    pub(super) async fn next(&mut self) -> Result<Option<Line>> {
        loop {
            let rest = self.buffer.get(self.searched..).unwrap_or_default();
            if let Some(length) = rest.iter().position(|byte| *byte == b'\n') {
                let end = self.searched + length;
                if let Some(line) = self.line(end)? {
                    return Ok(Some(line));
                }
                continue;
            }
            self.searched = self.buffer.len();
            if self.ended {
                if self.start >= self.buffer.len() {
                    return Ok(None);
                }
                let last = self.line(self.buffer.len())?;
                self.start = self.buffer.len();
                self.searched = self.start;
                return Ok(last);
            }
            self.fill().await?;
        }
    }

    /// The line that ends before `end`, unless it is blank.
    fn line(&mut self, end: usize) -> Result<Option<Line>> {
        self.number += 1;
        let bytes = self.buffer.get(self.start..end).unwrap_or_default();
        self.start = end + 1;
        self.searched = self.start;
        let text = std::str::from_utf8(bytes).map_err(|error| {
            Error::rejected(format!(
                "{}: it is not text in UTF-8",
                self.place(self.number)
            ))
            .with_source(error)
        })?;
        // A mark that some programs of Windows begin files with.
        let text = text.trim_start_matches('\u{feff}').trim();
        Ok((!text.is_empty()).then(|| Line {
            number: self.number,
            text: text.to_owned(),
        }))
    }

    async fn fill(&mut self) -> Result<()> {
        let gone = self.start.min(self.buffer.len());
        self.buffer.drain(..gone);
        self.searched -= gone;
        self.start -= gone;
        if self.buffer.len() > MAX_LINE_BYTES {
            return Err(Error::rejected(format!(
                "{}: it is longer than {MAX_LINE_BYTES} bytes",
                self.place(self.number + 1)
            )));
        }
        match self.bytes.next().await {
            Some(Ok(bytes)) => self.buffer.extend_from_slice(&bytes),
            Some(Err(error)) => {
                let error = Error::from(error);
                let told = format!("cannot read {}: {}", self.file, error.message());
                return Err(error.reworded(told));
            }
            None => self.ended = true,
        }
        Ok(())
    }

    /// The name of the file.
    pub(super) fn file(&self) -> &str {
        &self.file
    }

    /// A line of it, for people.
    pub(super) fn place(&self, number: u64) -> String {
        format!("{}, line {number}", self.file)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use std::sync::Arc;

    use datafusion::datasource::file_format::file_compression_type::FileCompressionType;
    use object_store::memory::InMemory;
    use object_store::path::Path;
    use object_store::{ObjectStore, PutPayload};

    use super::*;

    /// A file of these bytes.
    pub(in crate::session::debezium) async fn file(bytes: &[u8]) -> Listed {
        let store = Arc::new(InMemory::new());
        let location = Path::from("changes.json");
        let payload = PutPayload::from(bytes.to_vec());
        store.put(&location, payload).await.unwrap();
        let store: Arc<dyn ObjectStore> = store;
        Listed {
            store,
            location,
            name: "/changes.json".into(),
            compression: FileCompressionType::UNCOMPRESSED,
        }
    }

    async fn lines(bytes: &[u8]) -> Result<Vec<(u64, String)>> {
        let mut lines = Lines::open(&file(bytes).await).await?;
        let mut found = Vec::new();
        while let Some(Line { number, text }) = lines.next().await? {
            found.push((number, text));
        }
        assert_eq!(lines.next().await?, None);
        Ok(found)
    }

    #[tokio::test]
    async fn lines_are_numbered_and_blank_ones_left_out() {
        let found = lines("\u{feff}{}\r\n\n  \n{\"a\": 1}".as_bytes()).await;
        let expected = vec![(1, "{}".to_owned()), (4, "{\"a\": 1}".to_owned())];
        assert_eq!(found.unwrap(), expected);
        assert_eq!(lines(b"a\nb\n").await.unwrap().len(), 2);
        assert_eq!(lines(b"").await.unwrap(), []);
        assert_eq!(lines(b"\n\n").await.unwrap(), []);
        let error = lines(b"a\n\xff\n").await.unwrap_err();
        assert_eq!(
            error.message(),
            "/changes.json, line 2: it is not text in UTF-8"
        );
    }

    #[tokio::test]
    async fn a_line_may_lie_in_several_parts() {
        let mut lines = Lines::open(&file(b"").await).await.unwrap();
        let parts = ["ab", "c\nd", "", "e\n\nf"];
        let parts = parts.map(|part| Ok(Bytes::from_static(part.as_bytes())));
        lines.bytes = futures::stream::iter(parts).boxed();
        let mut found = Vec::new();
        while let Some(line) = lines.next().await.unwrap() {
            found.push((line.number, line.text));
        }
        let expected = [(1, "abc"), (2, "de"), (4, "f")];
        assert_eq!(
            found,
            expected.map(|(number, text)| (number, text.to_owned()))
        );
    }
}
