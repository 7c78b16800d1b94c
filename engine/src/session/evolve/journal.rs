//! What a change of columns means to the journal that a table is: some columns it cannot do without, and the names of
//! others it keeps up with.

use datafusion::arrow::datatypes::DataType;

use super::draft::Draft;
use crate::error::{Error, Result};
use crate::journal::definition::{self, Definition, Track};
use crate::journal::horizon;
use crate::session::scope::Opened;

fn definition(opened: &Opened) -> Result<Option<Definition>> {
    definition::of(&opened.name, &opened.snapshot.metadata.configuration)
}

/// Refuses a change of the columns that hold the intervals, and others of their names.
pub(super) fn not_its_own(opened: &Opened, root: &str) -> Result<()> {
    let Some(definition) = definition(opened)? else {
        return Ok(());
    };
    let name = root.to_lowercase();
    let mut own = definition.columns.names().into_iter();
    match own.find(|own| own.to_lowercase() == name) {
        None => Ok(()),
        Some(own) => Err(Error::invalid(format!(
            "column {own} of table {} is the journal's own",
            opened.name
        ))
        .with_hint("the columns of its intervals are named when the table is made")),
    }
}

/// Column `root`, or with `whole` false a field of it, is dropped.
pub(super) fn drop(
    draft: &mut Draft<'_>,
    opened: &Opened,
    root: &str,
    whole: bool,
    what: &str,
) -> Result<()> {
    let Some(mut definition) = definition(opened)? else {
        return Ok(());
    };
    if let Some(role) = definition.role(root) {
        let table = &opened.name;
        return Err(Error::invalid(format!(
            "column {root} of table {table} is {role} of its journal"
        ))
        .with_hint(
            "CREATE TABLE .. JOURNAL KEYS (..) AS SELECT makes another journal without it",
        ));
    }
    if !whole {
        return Ok(());
    }
    stays_in_place(opened, what)?;
    if matches!(&definition.track, Track::Only(columns) if columns.len() == 1 && columns.iter().all(|c| c == root))
    {
        return Err(Error::invalid(format!(
            "{what}: it is the only one whose history is tracked"
        )));
    }
    definition.forget(root);
    draft.keep(&definition)
}

/// Refuses to move columns while events are kept, which say by their places which of them keep their values.
pub(super) fn stays_in_place(opened: &Opened, what: &str) -> Result<()> {
    if opened.shape()?.is_none() || horizon::of(&opened.snapshot)?.files.is_empty() {
        return Ok(());
    }
    Err(Error::unsupported(format!(
        "{what}: the journal keeps events that may come late, and their columns must stay where they are"
    )))
}

/// Column `root`, or with `whole` false a field of it, gets another name.
pub(super) fn rename(
    draft: &mut Draft<'_>,
    opened: &Opened,
    (root, to): (&str, &str),
    whole: bool,
    what: &str,
) -> Result<()> {
    let Some(mut definition) = definition(opened)? else {
        return Ok(());
    };
    deletes_without(&definition, root, what)?;
    if !whole {
        return Ok(());
    }
    definition.rename(root, to);
    draft.keep(&definition)
}

/// Column `root`, or a field of it, gets a wider type.
pub(super) fn retype(
    opened: &Opened,
    root: &str,
    (from, to): (&DataType, &DataType),
    what: &str,
) -> Result<()> {
    let Some(definition) = definition(opened)? else {
        return Ok(());
    };
    let same_kind = from.is_integer() && to.is_integer()
        || matches!(
            (from, to),
            (DataType::Decimal128(..), DataType::Decimal128(..))
        );
    match definition.role(root) {
        Some("a key") if !same_kind => Err(Error::invalid(format!(
            "{what}: it is a key of its journal, which may only become a larger number of its kind"
        ))),
        Some("the sequence") => Err(Error::invalid(format!(
            "{what}: it is the sequence of its journal, by which what is stored is ordered"
        ))),
        _ => deletes_without(&definition, root, what),
    }
}

/// Refuses a change of a column by which rows are told that end what they name.
fn deletes_without(definition: &Definition, root: &str, what: &str) -> Result<()> {
    match &definition.delete_when {
        Some(text) if definition.delete_reads(root) => Err(Error::invalid(format!(
            "{what}: APPLY AS DELETE WHEN {text} of its journal uses it"
        ))),
        _ => Ok(()),
    }
}
