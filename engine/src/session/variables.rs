//! SET and RESET: the variables of a session.

use std::sync::Arc;

use datafusion::execution::{FunctionRegistry, SessionState};
use parking_lot::RwLock;
use selvedge_udfs::SelvedgeOptions;

use super::{Shared, zone};
use crate::answer::Answer;
use crate::engine::session_config;
use crate::error::{Error, ErrorKind, Result};
use crate::sql;

const TIME_ZONE: &str = "datafusion.execution.time_zone";

/// Variables a statement may set. The rest would change memory, folders or the meaning of SQL text for everyone.
const ALLOWED: [&str; 4] = [
    "datafusion.execution.",
    "datafusion.optimizer.",
    "datafusion.explain.",
    "selvedge.",
];

pub(super) async fn set(shared: &Shared, name: &str, value: &str) -> Result<Answer> {
    let name = full_name(name);
    check(&shared.state, &name)?;
    let value = match name.as_str() {
        TIME_ZONE => zone::checked(value)?,
        SelvedgeOptions::GEOIP_DATABASE if !value.is_empty() => {
            geoip_database(shared, value).await?
        }
        _ => value.to_owned(),
    };
    put(&mut shared.state.write(), &name, &value)?;
    Ok(Answer::Done("SET".to_owned()))
}

/// Opens the database at `path` now, so that a wrong one is refused where it is named.
async fn geoip_database(shared: &Shared, path: &str) -> Result<String> {
    if !shared.options.external_files {
        return Err(super::files::denied(path));
    }
    let wrong = || Error::invalid(format!("{path} is not a path"));
    let absolute = std::path::absolute(path).map_err(|error| wrong().with_source(error))?;
    let absolute = absolute.to_str().ok_or_else(wrong)?.to_owned();
    let (databases, file) = (Arc::clone(&shared.engine.geo), absolute.clone());
    tokio::task::spawn_blocking(move || databases.load(&file))
        .await
        .map_err(|error| Error::internal("a database was not read").with_source(error))??;
    Ok(absolute)
}

pub(super) fn reset(shared: &Shared, name: &str) -> Result<Answer> {
    let name = full_name(name);
    check(&shared.state, &name)?;
    let fresh = session_config(&shared.engine.settings);
    let value = fresh
        .options()
        .entries()
        .into_iter()
        .find(|entry| entry.key == name)
        .and_then(|entry| entry.value)
        .ok_or_else(|| Error::invalid(format!("variable {name} has no default to go back to")))?;
    put(&mut shared.state.write(), &name, &value)?;
    Ok(Answer::Done("RESET".to_owned()))
}

fn put(state: &mut SessionState, name: &str, value: &str) -> Result<()> {
    let options = state.config_mut().options_mut();
    options.set(name, value).map_err(|error| {
        let error = Error::from(error);
        Error::invalid(format!("cannot set {name} to {value}"))
            .with_detail(error.message().to_owned())
    })?;
    // Functions that hold a variable, such as now() its zone, are made anew.
    let options = state.config_options();
    let functions = state.scalar_functions().values();
    let renewed: Vec<_> = functions
        .filter_map(|function| function.inner().with_updated_config(options))
        .collect();
    for function in renewed {
        state.register_udf(Arc::new(function))?;
    }
    Ok(())
}

/// Names people type for variables with longer ones.
pub(super) fn full_name(name: &str) -> String {
    match name {
        "timezone" => TIME_ZONE.to_owned(),
        _ => name.to_owned(),
    }
}

fn check(state: &RwLock<SessionState>, name: &str) -> Result<()> {
    let entries = state.read().config_options().entries();
    let known = entries.iter().any(|entry| entry.key == name);
    if !known {
        let missing = Error::new(ErrorKind::NotFound, format!("there is no variable {name}"));
        let names = entries.iter().map(|entry| entry.key.as_str());
        return Err(match sql::nearest(name, names) {
            Some(near) => missing.with_hint(format!("did you mean {near}?")),
            None => missing.with_hint("SHOW ALL lists the variables"),
        });
    }
    if ALLOWED.iter().any(|prefix| name.starts_with(prefix)) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Denied,
        format!("variable {name} is fixed when the engine is opened"),
    ))
}
