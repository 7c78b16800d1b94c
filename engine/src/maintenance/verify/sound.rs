//! From which version on the log and the records can hold nothing of what a policy takes away.
//!
//! That a policy has been there since some version says little: files that other statements wrote anew, and restored
//! ones, hold rows of before it, and a key may be listed after its row was written. What can be relied on is an ERASE,
//! which looked at every row and ended all that was before. Since then each write was held to the policy, but to the
//! list of its own time. So what a policy with keys finds is sound only as long as its list has as many keys as the
//! ERASE had, for people who ask to be forgotten are added to such lists, and not taken off. A list that lost one key
//! and got another since is not told from that: where lists shrink, ERASE has to come before VERIFY. Columns that got
//! a tag since hold what nothing has looked at either.

use std::collections::BTreeSet;

use datafusion::arrow::datatypes::Schema;
use futures::TryStreamExt;

use super::Job;
use crate::cleanse::apply::Running;
use crate::cleanse::compile::CompiledPolicy;
use crate::cleanse::policy::{self, Columns, Policy, PolicyAction};
use crate::cleanse::record::PolicyResult;
use crate::error::{ErrorKind, Result};
use crate::table::schema::tags;
use crate::table::snapshot::Snapshot;
use crate::table::{erased, mapping, records, replay};

/// What is sound, for one policy.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Sound {
    /// The first version that an ERASE left, and since when nothing has been asked for that it did not know.
    erased: Option<u64>,
    /// The first version whose writes have all been held to a policy that is about every row of columns it names.
    held: Option<u64>,
}

impl Sound {
    /// Whether all that the table held in that version was cleansed. Objects of no version are younger than an ERASE:
    /// it deletes those that it finds.
    pub(super) fn rows(self, version: Option<u64>) -> bool {
        match (self.erased, version) {
            (Some(first), Some(version)) => version >= first,
            (first, None) => first.is_some(),
            (None, Some(_)) => false,
        }
    }

    /// Whether all that the write of that version brought was cleansed.
    pub(super) fn written(self, version: Option<u64>) -> bool {
        let held = self.held.zip(version);
        self.rows(version) || held.is_some_and(|(held, version)| version >= held)
    }
}

/// Of each policy that runs.
pub(super) async fn of(job: &Job, base: &Snapshot, running: &Running) -> Result<Vec<Sound>> {
    let kept = policy::policies(&job.name, &base.metadata.configuration)?;
    let compiled = running.compiled().policies();
    // Whoever asks for a policy that is disabled is answered as if it were not.
    let enabled = |policy: &Policy| {
        let mut kept = kept.iter();
        kept.any(|of| of.name == policy.name && of.enabled)
    };
    let mut sound: Vec<Sound> = compiled
        .iter()
        .map(|policy| Sound {
            erased: None,
            held: (policy.key().is_none() && tag(policy).is_none() && enabled(policy.policy()))
                .then_some(policy.policy().since_version),
        })
        .collect();
    let Some(first) = erased::of(base).map(|erased| erased.first) else {
        return Ok(sound);
    };
    let mut erasures = records::back_to(&job.table.root, first, first);
    let Some(erasure) = erasures.try_next().await? else {
        return Ok(sound);
    };
    let results = erasure.report.policies;
    let tagged = compiled.iter().any(|policy| tag(policy).is_some());
    let then = match tagged {
        true => at(job, first).await?,
        false => None,
    };
    for (at, (policy, sound)) in compiled.iter().zip(&mut sound).enumerate() {
        let keys = running.keys(at).map_or(0, |keys| keys.distinct());
        let same =
            |result: &PolicyResult| result.policy == policy.policy().name && result.keys == keys;
        let asked = enabled(policy.policy())
            && policy.policy().since_version <= first
            && results.iter().any(same)
            && tag(policy).is_none_or(|tag| {
                let then = then.as_ref().map(|then| carrying(&then.schema, tag));
                then.is_some_and(|then| carrying(&base.schema, tag).is_subset(&then))
            });
        sound.erased = asked.then_some(first);
    }
    Ok(sound)
}

/// The tag by which a policy finds its columns.
fn tag(policy: &CompiledPolicy) -> Option<&str> {
    match &policy.policy().action {
        PolicyAction::Nullify {
            columns: Columns::Tagged(tag),
        } => Some(tag),
        _ => None,
    }
}

/// The columns that carry a tag, by the names that files have for them.
fn carrying(schema: &Schema, tag: &str) -> BTreeSet<String> {
    let fields = schema.fields().iter();
    let tagged = fields.filter(|field| tags(field).contains(&tag));
    tagged
        .map(|field| mapping::physical_name(field).to_owned())
        .collect()
}

/// The table in the version that the ERASE left, if the log still has it.
async fn at(job: &Job, version: u64) -> Result<Option<Snapshot>> {
    match replay::load(&job.table.root, Some(version)).await {
        Ok(then) => Ok(then),
        Err(error) if error.kind() == ErrorKind::Storage => Err(error),
        Err(_) => Ok(None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_came_before_the_erasure_or_the_policy_is_not_sound() {
        let never = Sound::default();
        assert!(!never.rows(Some(9)) && !never.rows(None) && !never.written(Some(9)));
        let erased = Sound {
            erased: Some(5),
            held: None,
        };
        assert!(!erased.rows(Some(4)) && erased.rows(Some(5)) && erased.rows(None));
        assert!(!erased.written(Some(4)) && erased.written(Some(5)));
        let held = Sound {
            erased: None,
            held: Some(3),
        };
        assert!(!held.rows(Some(7)) && !held.written(None));
        assert!(!held.written(Some(2)) && held.written(Some(3)));
    }
}
