//! "Not found", with the nearest name there is.

use std::sync::Arc;

use datafusion::sql::sqlparser::ast;

use super::Scope;
use crate::catalog;
use crate::error::{Error, ErrorKind};
use crate::session::functions;
use crate::sql;
use crate::table::meta::Beside;

impl Scope {
    /// "Not found", with the nearest name there is.
    pub(in crate::session) fn no_such_table(&self, schema: &str, name: &str) -> Error {
        let catalog = &self.pinned.catalog;
        let Some(found) = catalog.schemas.get(schema) else {
            return self.no_such_schema(schema);
        };
        let missing = Error::new(
            ErrorKind::NotFound,
            format!("table {schema}.{name} does not exist"),
        );
        let here = found
            .relations
            .keys()
            .map(String::as_str)
            .chain(self.registered.keys().map(String::as_str));
        if let Some((base, suffix)) = name.rsplit_once('$')
            && Beside::named(suffix).is_some()
            && let Some(near) = sql::nearest(base, found.relations.keys())
        {
            let near = sql::quoted(&format!("{near}${suffix}"));
            return missing.with_hint(format!("did you mean {near}?"));
        }
        if let Some(near) = sql::nearest(name, here) {
            return missing.with_hint(format!("did you mean {}?", sql::quoted(&near)));
        }
        let elsewhere = catalog
            .schemas
            .iter()
            .find(|(_, other)| other.relations.contains_key(name));
        match elsewhere {
            Some((other, _)) => missing.with_hint(format!("did you mean {other}.{name}?")),
            None => missing.with_hint("SHOW TABLES lists what is there"),
        }
    }

    pub(in crate::session) fn no_such_schema(&self, schema: &str) -> Error {
        let missing = Error::new(
            ErrorKind::NotFound,
            format!("schema {schema} does not exist"),
        );
        match sql::nearest(
            schema,
            self.pinned.catalog.schemas.keys().map(String::as_str),
        ) {
            Some(near) => missing.with_hint(format!("did you mean {near}?")),
            None => missing.with_hint(format!("CREATE SCHEMA {schema} makes it")),
        }
    }

    /// DataFusion says only that a table or function is not there; the catalog knows more.
    pub(in crate::session) fn explain_missing(self: &Arc<Self>, error: Error) -> Error {
        let function = error
            .message()
            .strip_prefix("invalid function '")
            .or_else(|| error.message().strip_prefix("table function '"))
            .map(|rest| rest.trim_end_matches(" not found").trim_end_matches('\''));
        if let Some(function) = function {
            let name = ast::ObjectName::from(vec![ast::Ident::with_quote('"', function)]);
            let told = functions::missing(self, &name);
            return match error.position() {
                Some(position) => told.with_position(position),
                None => told,
            };
        }
        let Some(name) = error
            .message()
            .strip_prefix("table '")
            .and_then(|rest| rest.strip_suffix("' not found"))
        else {
            return error;
        };
        let parts: Vec<&str> = name.splitn(3, '.').collect();
        let told = match parts.as_slice() {
            [catalog, schema, table] if *catalog == catalog::NAME => {
                self.no_such_table(schema, table)
            }
            _ => return error,
        };
        match error.position() {
            Some(position) => told.with_position(position),
            None => told,
        }
    }
}

pub(super) fn no_such_kind(schema: &str, base: &str, suffix: &str) -> Error {
    let missing = Error::new(
        ErrorKind::NotFound,
        format!("table {schema}.{base} has no metadata table ${suffix}"),
    );
    let kinds: Vec<&str> = Beside::suffixes().collect();
    match sql::nearest(suffix, kinds.iter().copied()) {
        Some(near) => missing.with_hint(format!(
            "did you mean {}?",
            sql::quoted(&format!("{base}${near}"))
        )),
        None => missing.with_hint(format!("there are ${}", kinds.join(", $"))),
    }
}
