//! ALTER TABLE for columns. Each change is one commit of new metadata: no file is written anew, and old
//! versions keep the columns they had.
//!
//! - `edit`: a column found by its path
//! - `draft`: the next metadata, and the features of the protocol it needs
//! - `dependants`: constraints, rules, policies and views, which a change must leave working
//! - `journal`: columns a journal cannot do without, and lists of columns that it keeps up with

mod dependants;
mod draft;
mod edit;
mod journal;

use std::collections::BTreeSet;
use std::sync::Arc;

use datafusion::arrow::datatypes::{DataType, Field, FieldRef};
use datafusion::sql::sqlparser::ast::{self, Ident};

pub(super) use self::draft::Draft;
use super::alter::amend;
use super::constraint::{quarantinable, violations};
use super::scope::{Opened, Scope};
use super::{columns, types};
use crate::error::{Error, ErrorKind, Result};
use crate::sql::{self, AddColumn, ColumnChange, ColumnPlace};
use crate::table::schema::{self as delta, path};
use crate::table::{leaves, mapping, widening};
use crate::write::{STATS_COLUMNS_KEY, lists};

/// ADD COLUMN. Rows that are there have no value in it, whatever its default: that is for rows to come.
pub(super) async fn add(scope: &Arc<Scope>, opened: &Opened, add: AddColumn) -> Result<()> {
    let target = Target::of(opened, &add.parent, &add.column.name);
    journal::not_its_own(opened, target.root())?;
    if target.exists_in_any_case() {
        return match add.if_not_exists {
            true => Ok(()),
            false => Err(target.taken(&target.path())),
        };
    }
    let what = format!("{target} cannot be added");
    if add.place.is_some() && add.parent.is_empty() {
        journal::stays_in_place(opened, &what)?;
    }
    if !add.column.nullable {
        return Err(Error::invalid(format!(
            "{what} as NOT NULL: rows that are there have no value for it"
        ))
        .with_hint("add it without, UPDATE the rows, then ALTER COLUMN .. SET NOT NULL"));
    }
    if add.column.default.is_some() && !add.parent.is_empty() {
        return Err(no_default(&what));
    }
    let declared =
        columns::declared(scope, &opened.name, std::slice::from_ref(&add.column)).await?;
    let added = Arc::clone(&declared.fields()[0]);
    let mut draft = Draft::of(scope, opened);
    target.edit(&mut draft, |fields| {
        let at = match &add.place {
            Some(place) => target.place(fields, place)?,
            None => fields.len(),
        };
        fields.insert(at, Arc::clone(&added));
        Ok(())
    })?;
    draft.name_new_columns();
    let declared = draft.declared()?;
    quarantinable(&opened.name, &declared, &draft.metadata.configuration)?;
    dependants::users(scope, opened, &draft, &what).await?;
    amend(scope, opened, "ADD COLUMNS", draft.finish()?, false).await
}

/// DROP COLUMN. Files keep the values, under a name that no column gets again.
pub(super) async fn drop(
    scope: &Arc<Scope>,
    opened: &Opened,
    column: &[Ident],
    if_exists: bool,
) -> Result<()> {
    let target = Target::at(opened, column)?;
    match target.field() {
        Ok(_) => {}
        Err(error) if if_exists && error.kind() == ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    }
    journal::not_its_own(opened, target.root())?;
    let what = format!("{target} cannot be dropped");
    if target.partitions() {
        return Err(Error::invalid(format!(
            "{what}: the table is partitioned by it"
        )));
    }
    target.listed_nowhere(&what)?;
    let mut draft = Draft::of(scope, opened);
    draft.map_columns(&what)?;
    target.edit(&mut draft, |fields| {
        let at = target.find(fields)?;
        fields.remove(at);
        match fields.is_empty() {
            true => Err(Error::invalid(format!("{what}: it is the only one"))),
            false => Ok(()),
        }
    })?;
    if draft.fields.len() == opened.snapshot.partition_columns().len() {
        return Err(Error::invalid(format!(
            "{what}: all others are partition columns, and files need one of their own"
        )));
    }
    let (root, whole) = (target.root(), target.parent.is_empty());
    journal::drop(&mut draft, opened, root, whole, &what)?;
    dependants::constraints(scope, opened, &draft, None, &what).await?;
    dependants::users(scope, opened, &draft, &what).await?;
    target.rest_is_in_files(&draft, &what).await?;
    amend(scope, opened, "DROP COLUMNS", draft.finish()?, false).await
}

/// RENAME COLUMN. Files keep the old name.
pub(super) async fn rename(
    scope: &Arc<Scope>,
    opened: &Opened,
    column: &[Ident],
    to: &Ident,
) -> Result<()> {
    let target = Target::at(opened, column)?;
    let to = sql::fold(to);
    journal::not_its_own(opened, target.root())?;
    let old = target.field()?;
    if *old.name() == to {
        return Err(Error::invalid(format!("{target} has that name already")));
    }
    let what = format!("{target} cannot be renamed");
    target.listed_nowhere(&what)?;
    let mut draft = Draft::of(scope, opened);
    draft.map_columns(&what)?;
    target.edit(&mut draft, |fields| {
        let at = target.find(fields)?;
        let taken = |(other, field): (usize, &FieldRef)| {
            other != at && field.name().to_lowercase() == to.to_lowercase()
        };
        if fields.iter().enumerate().any(taken) {
            return Err(target.taken(&path(&target.above(), &to)));
        }
        fields[at] = Arc::new(fields[at].as_ref().clone().with_name(&to));
        Ok(())
    })?;
    if target.parent.is_empty() {
        for name in &mut draft.metadata.partition_columns {
            if *name == target.name {
                name.clone_from(&to);
            }
        }
    }
    let whole = target.parent.is_empty();
    let names = (target.root(), to.as_str());
    journal::rename(&mut draft, opened, names, whole, &what)?;
    let declared = draft.declared()?;
    quarantinable(&opened.name, &declared, &draft.metadata.configuration)?;
    dependants::constraints(scope, opened, &draft, None, &what).await?;
    dependants::users(scope, opened, &draft, &what).await?;
    amend(scope, opened, "RENAME COLUMN", draft.finish()?, false).await
}

/// ALTER COLUMN.
pub(super) async fn alter(
    scope: &Arc<Scope>,
    opened: &Opened,
    column: &[Ident],
    change: ColumnChange,
) -> Result<()> {
    let target = Target::at(opened, column)?;
    journal::not_its_own(opened, target.root())?;
    let old = target.field()?;
    let mut draft = Draft::of(scope, opened);
    // A change that says something of rows to come must have seen the last of those that came.
    let mut exclusive = false;
    match change {
        ColumnChange::Type(data_type) => {
            let name = target.path();
            let declared = format!("column {name} of table {}", opened.name);
            let to = columns::stored_type(scope, &declared, &name, &data_type).await?;
            return retype(scope, opened, &target, &old, &to).await;
        }
        ColumnChange::Nullable(nullable) => {
            if !nullable && old.is_nullable() {
                target.full(scope).await?;
                exclusive = true;
            }
            target.replace(&mut draft, |field| Ok(field.with_nullable(nullable)))?;
            let what = format!("{target} cannot become NOT NULL");
            dependants::policies(scope, opened, &draft, &what).await?;
        }
        ColumnChange::Default(Some(_)) if !target.parent.is_empty() => {
            return Err(no_default(&target.to_string()));
        }
        ColumnChange::Default(default) => target.replace(&mut draft, |field| match &default {
            Some(default) => columns::with_default(scope, &opened.name, field, default),
            None => Ok(delta::with_default(field, None)),
        })?,
        ColumnChange::Comment(text) => target.replace(&mut draft, |field| {
            Ok(delta::with_comment(field, Some(&text)))
        })?,
        ColumnChange::SetTag(tag) => {
            target.may_have(&tag)?;
            let mut tags: BTreeSet<&str> = delta::tags(&old).into_iter().collect();
            if !tags.insert(&tag) {
                return Ok(());
            }
            target.replace(&mut draft, |field| Ok(delta::with_tags(field, &tags)))?;
            let what = format!("{target} cannot get the tag {tag}");
            dependants::policies(scope, opened, &draft, &what).await?;
        }
        ColumnChange::UnsetTag(tag) => {
            let mut tags: BTreeSet<&str> = delta::tags(&old).into_iter().collect();
            if !tags.remove(tag.as_str()) {
                let missing = Error::new(
                    ErrorKind::NotFound,
                    format!("{target} does not have the tag {tag}"),
                );
                return Err(match sql::nearest(&tag, tags) {
                    Some(near) => missing.with_hint(format!("did you mean {near}?")),
                    None => missing,
                });
            }
            target.replace(&mut draft, |field| Ok(delta::with_tags(field, &tags)))?;
        }
        ColumnChange::Place(place) => {
            target.edit(&mut draft, |fields| {
                let from = target.find(fields)?;
                let moved = fields.remove(from);
                let to = target.place(fields, &place)?;
                fields.insert(to, moved);
                Ok(())
            })?;
            let what = format!("{target} cannot be moved");
            dependants::users(scope, opened, &draft, &what).await?;
        }
    }
    amend(scope, opened, "CHANGE COLUMN", draft.finish()?, exclusive).await
}

/// A wider type. Values in files become values of it as they are read.
async fn retype(
    scope: &Arc<Scope>,
    opened: &Opened,
    target: &Target<'_>,
    old: &Field,
    to: &DataType,
) -> Result<()> {
    let from = old.data_type();
    if from == to {
        return Ok(());
    }
    let what = format!(
        "{target} cannot become {}, it is {}",
        types::sql_name(to),
        types::sql_name(from)
    );
    if !widening::allowed(from, to) {
        let refused = Error::invalid(format!("{what}: a type may only grow"));
        return Err(match from {
            DataType::Struct(_) | DataType::List(_) | DataType::Map(..) => {
                refused.with_hint(format!(
                    "fields of structs in it grow by ALTER COLUMN {}.field TYPE ..",
                    target.path()
                ))
            }
            _ => match widening::wider(from) {
                "" => refused.with_hint(
                    "no type is wider; add a column, UPDATE it from this one, and drop this one",
                ),
                wider => refused.with_hint(format!("{} may become {wider}", types::sql_name(from))),
            },
        });
    }
    if target.partitions() {
        return Err(Error::invalid(format!(
            "{what}: the table is partitioned by it"
        )));
    }
    journal::retype(opened, target.root(), (from, to), &what)?;
    let mut draft = Draft::of(scope, opened);
    draft.widen_types(&what)?;
    target.replace(&mut draft, |field| widening::widen(&field, to))?;
    let root = opened.columns().index_of(target.root()).ok();
    dependants::constraints(scope, opened, &draft, root, &what).await?;
    dependants::users(scope, opened, &draft, &what).await?;
    amend(scope, opened, "CHANGE COLUMN", draft.finish()?, false).await
}

fn no_default(what: &str) -> Error {
    Error::unsupported(format!("{what}: a field of a struct has no default"))
}

/// The column a statement means.
struct Target<'a> {
    opened: &'a Opened,
    /// Names of the structs around it, outermost first.
    parent: Vec<String>,
    name: String,
}

impl<'a> Target<'a> {
    fn of(opened: &'a Opened, parent: &[Ident], name: &Ident) -> Self {
        Self {
            opened,
            parent: parent.iter().map(sql::fold).collect(),
            name: sql::fold(name),
        }
    }

    fn at(opened: &'a Opened, column: &[Ident]) -> Result<Self> {
        let Some((name, parent)) = column.split_last() else {
            return Err(Error::internal("a column without a name"));
        };
        Ok(Self::of(opened, parent, name))
    }

    fn above(&self) -> String {
        self.parent.join(".")
    }

    fn path(&self) -> String {
        path(&self.above(), &self.name)
    }

    /// The column of the table it is, or is part of.
    fn root(&self) -> &str {
        self.parent.first().unwrap_or(&self.name)
    }

    fn partitions(&self) -> bool {
        self.parent.is_empty()
            && self
                .opened
                .snapshot
                .partition_columns()
                .contains(&self.name)
    }

    /// Refuses tags where nobody would heed them.
    fn may_have(&self, tag: &str) -> Result<()> {
        if !self.parent.is_empty() {
            return Err(Error::unsupported(format!(
                "{self} cannot get the tag {tag}: only columns of the table can, not fields of structs"
            ))
            .with_hint(format!("tag column {} as a whole", self.root())));
        }
        if tag == delta::PERSONAL && self.partitions() {
            return Err(Error::invalid(format!(
                "{self} cannot get the tag {tag}: the table is partitioned by it, so its values are in the log and in \
                 the names of files"
            )));
        }
        Ok(())
    }

    fn taken(&self, column: &str) -> Error {
        Error::new(
            ErrorKind::AlreadyExists,
            format!("table {} already has a column {column}", self.opened.name),
        )
    }

    fn find(&self, siblings: &[FieldRef]) -> Result<usize> {
        edit::find(&self.opened.name, siblings, &self.name, &self.above())
    }

    /// The place for a column that comes first or after another.
    fn place(&self, siblings: &[FieldRef], place: &ColumnPlace) -> Result<usize> {
        match place {
            ColumnPlace::First => Ok(0),
            ColumnPlace::After(sibling) if sql::fold(sibling) == self.name => {
                Err(Error::invalid(format!("{self} cannot come after itself")))
            }
            ColumnPlace::After(sibling) => {
                let sibling = sql::fold(sibling);
                edit::find(&self.opened.name, siblings, &sibling, &self.above()).map(|at| at + 1)
            }
        }
    }

    /// The column as the snapshot has it.
    fn field(&self) -> Result<FieldRef> {
        let mut found = None;
        let fields = self.opened.snapshot.schema.fields();
        edit::siblings(&self.opened.name, fields, &self.parent, &mut |siblings| {
            found = Some(Arc::clone(&siblings[self.find(siblings)?]));
            Ok(())
        })?;
        found.ok_or_else(|| Error::internal(format!("{self} was not looked for")))
    }

    fn exists_in_any_case(&self) -> bool {
        let mut found = false;
        let fields = self.opened.snapshot.schema.fields();
        // Where there is no such struct, adding to it says so.
        let _ = edit::siblings(&self.opened.name, fields, &self.parent, &mut |siblings| {
            let name = self.name.to_lowercase();
            found = siblings
                .iter()
                .any(|field| field.name().to_lowercase() == name);
            Ok(())
        });
        found
    }

    fn edit(
        &self,
        draft: &mut Draft<'_>,
        mut change: impl FnMut(&mut Vec<FieldRef>) -> Result<()>,
    ) -> Result<()> {
        let name = &self.opened.name;
        draft.fields = edit::siblings(name, &draft.fields, &self.parent, &mut change)?;
        Ok(())
    }

    fn replace(
        &self,
        draft: &mut Draft<'_>,
        change: impl Fn(Field) -> Result<Field>,
    ) -> Result<()> {
        self.edit(draft, |fields| {
            let at = self.find(fields)?;
            fields[at] = Arc::new(change(fields[at].as_ref().clone())?);
            Ok(())
        })
    }

    /// Refuses a column that is named where names are not kept up with changes.
    fn listed_nowhere(&self, what: &str) -> Result<()> {
        let Some(list) = self.opened.snapshot.property(STATS_COLUMNS_KEY) else {
            return Ok(());
        };
        let path: Vec<String> = self.parent.iter().chain([&self.name]).cloned().collect();
        if lists(list, &path)? {
            return Err(Error::invalid(format!(
                "{what}: property {STATS_COLUMNS_KEY} = '{list}' names it"
            ))
            .with_hint("SET the property without it first"));
        }
        Ok(())
    }

    /// Refuses to take from a struct the last field that some file holds of it.
    async fn rest_is_in_files(&self, draft: &Draft<'_>, what: &str) -> Result<()> {
        if self.parent.is_empty() {
            return Ok(());
        }
        let Opened {
            name,
            handle,
            snapshot,
            ..
        } = self.opened;
        let (mut around, mut rest) = (Vec::new(), Vec::new());
        let called = |field: &FieldRef| mapping::physical_name(field).to_owned();
        for (depth, next) in self.parent.iter().enumerate() {
            // Elements, keys and values have no name of their own in files.
            let _ = edit::siblings(name, &draft.fields, &self.parent[..depth], &mut |fields| {
                around.extend(fields.iter().filter(|f| f.name() == next).map(called));
                Ok(())
            });
        }
        edit::siblings(name, &draft.fields, &self.parent, &mut |fields| {
            rest = fields.iter().map(called).collect();
            Ok(())
        })?;
        match leaves::file_without(&handle.root, snapshot, &around, &rest).await? {
            None => Ok(()),
            Some(file) => Err(Error::invalid(format!(
                "{what}: file '{file}' holds no other field of {}, so that nothing would tell its values from NULL",
                self.above()
            ))
            .with_hint("write the rows anew first: UPDATE them, or INSERT OVERWRITE the table with them")),
        }
    }

    /// Refuses a column that some row has no value in.
    async fn full(&self, scope: &Arc<Scope>) -> Result<()> {
        if !self.parent.is_empty() {
            return Err(Error::unsupported(format!(
                "{self} cannot become NOT NULL: only columns of the table can, not fields of structs"
            )));
        }
        let column = ast::Expr::Identifier(Ident::with_quote('"', &self.name));
        let given = ast::Expr::IsNotNull(Box::new(column));
        match violations(scope, self.opened, &given).await? {
            0 => Ok(()),
            rows => Err(Error::rejected(format!(
                "{self} cannot become NOT NULL: {rows} {} no value in it",
                if rows == 1 { "row has" } else { "rows have" }
            ))
            .with_hint("UPDATE or DELETE them first")),
        }
    }
}

impl std::fmt::Display for Target<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "column {} of table {}", self.path(), self.opened.name)
    }
}
