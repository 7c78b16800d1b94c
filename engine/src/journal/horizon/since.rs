//! What others have kept since a version. Whose keys these are decides whether their writes meet another one.

use std::collections::HashSet;

use super::{DOMAIN, KeptFile, of, read};
use crate::error::Result;
use crate::journal::shape::Shape;
use crate::table::actions::Action;
use crate::table::snapshot::Snapshot;

/// Files of events that a version does not know, gathered commit by commit: one that came may have gone into another
/// since.
#[derive(Debug)]
pub(crate) struct Since {
    known: HashSet<String>,
    /// From where on the version replays events.
    horizon: Option<i64>,
    /// The commit that condensed what the version knows.
    condensed: Option<u64>,
    came: Vec<KeptFile>,
    /// Files that only say again what others said, as long as nothing was made of them.
    folded: Vec<KeptFile>,
}

impl Since {
    pub(crate) fn new(shape: &Shape, base: &Snapshot) -> Result<Self> {
        let kept = of(base)?;
        let after = shape.definition.late.after_micros;
        Ok(Self {
            horizon: after.map(|after| kept.watermark.saturating_sub(after)),
            known: kept.files.into_iter().map(|file| file.path).collect(),
            condensed: None,
            came: Vec::new(),
            folded: Vec::new(),
        })
    }

    /// Takes what a later commit says.
    pub(crate) fn take(&mut self, version: u64, actions: &[Action]) -> Result<()> {
        for action in actions {
            let Action::DomainMetadata(line) = action else {
                continue;
            };
            if line.get("domain").and_then(|domain| domain.as_str()) != Some(DOMAIN) {
                continue;
            }
            for file in read(version, line)?.unwrap_or_default().files {
                if !self.known.insert(file.path.clone()) {
                    continue;
                }
                if self.is_known(version, &file) {
                    self.folded.push(file);
                    continue;
                }
                // It may lack a key whose state it dropped: only what it was made of tells all of them.
                if file.condensed.is_some() {
                    self.came.append(&mut self.folded);
                }
                self.came.push(file);
            }
        }
        Ok(())
    }

    /// Whether a file only says again what those before it said. It may fold what this version still replays only behind
    /// its horizon, and once: the second time a state without events is dropped, which an event may have counted on.
    fn is_known(&mut self, version: u64, file: &KeptFile) -> bool {
        let behind = file
            .condensed
            .zip(self.horizon)
            .is_some_and(|(until, horizon)| until <= horizon);
        let once = self.condensed.is_none_or(|first| first == version);
        if behind {
            self.condensed.get_or_insert(version);
        }
        behind && once
    }

    /// The files whose events are new.
    pub(crate) fn files(self) -> Vec<KeptFile> {
        self.came
    }
}
