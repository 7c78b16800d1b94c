//! REPLAY QUARANTINE: quarantined rows, repaired or not, through every stage of the write path again.
//!
//! The commit that shows them says which rows of quarantine it took; two replays that took a row of the same file
//! do not both land, so that each row comes back once.

use std::collections::HashMap;
use std::sync::Arc;

use datafusion::logical_expr::LogicalPlan;
use datafusion::sql::sqlparser::ast::{Expr, Ident, TableWithJoins};

use crate::error::{Error, ErrorKind, Result};
use crate::session::change::ChangeRows;
use crate::session::scope::Scope;
use crate::session::{syntax, zone};
use crate::sql::{self, Replay};
use crate::table::located::{self, Located};
use crate::table::meta::QuarantineTable;
use crate::table::{protocol, schema};
use crate::write::target::WriteTarget;

/// `REPLAY QUARANTINE t [WHERE p] [SET c = e, ..]`
pub(in crate::session) async fn replay(scope: &Arc<Scope>, replay: Replay) -> Result<LogicalPlan> {
    let opened = scope.open(&replay.table).await?;
    protocol::check_writable(&opened.name, &opened.snapshot)?;
    let located = Arc::new(Located::default());
    let kept = QuarantineTable::new(Arc::clone(&opened.snapshot), opened.handle.root.clone())
        .located(Arc::clone(&located));
    let internal = format!("{}@quarantine", opened.name);
    scope.bind(&internal, Arc::new(kept));
    let alias = Ident::with_quote('"', &opened.table);

    let fields = opened.snapshot.schema.fields();
    let mut values: HashMap<usize, Expr> = HashMap::new();
    for assignment in replay.assignments {
        let name = sql::fold(&assignment.column);
        let Some(at) = fields.iter().position(|field| *field.name() == name) else {
            let missing = Error::new(
                ErrorKind::NotFound,
                format!("table {} has no column {name}", opened.name),
            );
            let names = fields.iter().map(|field| field.name().as_str());
            return Err(match sql::nearest(&name, names) {
                Some(near) => missing.with_hint(format!("did you mean {near}?")),
                None => missing,
            });
        };
        let value = match (assignment.value, schema::column_default(&fields[at])) {
            (Some(value), _) => value,
            (None, Some(text)) => sql::parse_expr(text)?,
            (None, None) => syntax::null(),
        };
        values.insert(at, value);
    }
    let columns = fields.iter().enumerate().map(|(at, field)| {
        let value = values.remove(&at);
        let value = value.unwrap_or_else(|| syntax::column(&alias, field.name()));
        syntax::named(value, field.name())
    });
    let places =
        [located::FILE, located::ROW].map(|name| syntax::named(syntax::column(&alias, name), name));
    let from = TableWithJoins {
        relation: syntax::table(&internal, alias.clone()),
        joins: vec![],
    };
    let projection = columns.chain(places).collect();
    let query = syntax::select(projection, vec![from], replay.predicate)?;
    let input = scope.plan_query(query).await?;
    let zone = scope.zone()?;
    let input = zone::assign(input, &opened.snapshot.schema, zone.as_ref())?;
    let target = WriteTarget {
        replays: Some(located),
        ..scope.target(
            &opened.name,
            Arc::clone(&opened.handle),
            Some(Arc::clone(&opened.snapshot)),
            "REPLAY QUARANTINE",
        )
    };
    let table = opened
        .handle
        .provider(&opened.name, Arc::clone(&opened.snapshot))
        .with_target(Arc::new(target));
    Ok(ChangeRows::plan("Replay", table, input))
}
