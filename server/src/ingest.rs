//! Bulk ingest: a stream of rows from a client into one table, in one commit, through the write path.

use arrow::datatypes::SchemaRef;
use arrow_flight::FlightData;
use arrow_flight::decode::DecodedPayload;
use arrow_flight::sql::{
    CommandStatementIngest, TableDefinitionOptions, TableExistsOption, TableNotExistOption,
};
use datafusion::error::DataFusionError;
use datafusion::physical_plan::stream::RecordBatchStreamAdapter;
use futures::{Stream, StreamExt, TryStreamExt};
use selvedge_engine::{Error, ErrorKind, IngestMode};
use tonic::Status;

use crate::boundary::decode;
use crate::sessions::Caller;
use crate::statements::affected;
use crate::status::refusal;

/// Writes the rows that follow `command`; returns their number. If the stream breaks, nothing is written.
pub(crate) async fn ingest(
    caller: &Caller,
    command: CommandStatementIngest,
    messages: impl Stream<Item = Result<FlightData, Status>> + Send + 'static,
) -> Result<i64, Status> {
    let session = caller.session()?.engine.clone();
    honoured(&command, session.catalog()).map_err(refusal)?;
    let mode = mode(command.table_definition_options).map_err(refusal)?;

    let mut decoded = decode(messages);
    let schema = schema_of(&mut decoded).await?;
    let rows = decoded.filter_map(|payload| {
        std::future::ready(match payload {
            Ok(DecodedPayload::RecordBatch(batch)) => Some(Ok(batch)),
            Ok(DecodedPayload::None) => None,
            Ok(DecodedPayload::Schema(_)) => Some(Err(broken("a second schema arrived"))),
            Err(status) => Some(Err(broken(status.message()))),
        })
    });
    let rows = Box::pin(RecordBatchStreamAdapter::new(schema, rows));
    let report = session
        .ingest(command.schema.as_deref(), &command.table, mode, rows)
        .await
        .map_err(refusal)?;
    Ok(affected(&report))
}

/// The schema comes first; rows cannot be checked against a table without it.
async fn schema_of(
    decoded: &mut (impl Stream<Item = Result<DecodedPayload, Status>> + Unpin),
) -> Result<SchemaRef, Status> {
    while let Some(payload) = decoded.try_next().await? {
        if let DecodedPayload::Schema(schema) = payload {
            return Ok(schema);
        }
    }
    Err(refusal(Error::new(
        ErrorKind::Invalid,
        "the ingest ended before the schema of its rows",
    )))
}

fn broken(reason: &str) -> DataFusionError {
    Error::new(
        ErrorKind::Cancelled,
        format!("the ingest broke off and nothing was written: {reason}"),
    )
    .into()
}

/// Refuses what the command asks for and the engine does not do; nothing is passed over.
fn honoured(command: &CommandStatementIngest, catalog: &str) -> Result<(), Error> {
    if command.table.is_empty() {
        return Err(Error::new(ErrorKind::Invalid, "the ingest names no table"));
    }
    if let Some(other) = command.catalog.as_deref()
        && other != catalog
    {
        return Err(Error::new(
            ErrorKind::NotFound,
            format!("catalog \"{other}\" does not exist"),
        )
        .with_hint(format!("the catalog of this lake is \"{catalog}\"")));
    }
    if command.temporary {
        return Err(Error::new(
            ErrorKind::Unsupported,
            "temporary tables are not supported",
        ));
    }
    if command
        .transaction_id
        .as_ref()
        .is_some_and(|id| !id.is_empty())
    {
        return Err(no_transactions());
    }
    if let Some(option) = command.options.keys().min() {
        return Err(Error::new(
            ErrorKind::Invalid,
            format!("ingest option \"{option}\" does not exist"),
        ));
    }
    Ok(())
}

/// Every statement commits by itself.
pub(crate) fn no_transactions() -> Error {
    Error::new(
        ErrorKind::Unsupported,
        "transactions of several statements are not supported",
    )
    .with_hint("leave autocommit on: every statement is one commit")
}

fn mode(options: Option<TableDefinitionOptions>) -> Result<IngestMode, Error> {
    let options = options.unwrap_or_default();
    let (missing, existing) = (options.if_not_exist(), options.if_exists());
    match (missing, existing) {
        (TableNotExistOption::Create, TableExistsOption::Fail) => Ok(IngestMode::Create),
        (TableNotExistOption::Fail, TableExistsOption::Append) => Ok(IngestMode::Append),
        (TableNotExistOption::Create, TableExistsOption::Replace) => Ok(IngestMode::Replace),
        (TableNotExistOption::Create, TableExistsOption::Append) => Ok(IngestMode::CreateAppend),
        _ => Err(Error::new(
            ErrorKind::Unsupported,
            format!(
                "an ingest with {} and {} is not supported",
                missing.as_str_name(),
                existing.as_str_name()
            ),
        )
        .with_hint("use one of create, append, replace, create_append")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn options(
        missing: TableNotExistOption,
        existing: TableExistsOption,
    ) -> TableDefinitionOptions {
        TableDefinitionOptions {
            if_not_exist: missing.into(),
            if_exists: existing.into(),
        }
    }

    #[test]
    fn the_four_modes_of_adbc() {
        use TableExistsOption as Exists;
        use TableNotExistOption as Missing;
        for (missing, existing, expected) in [
            (Missing::Create, Exists::Fail, IngestMode::Create),
            (Missing::Fail, Exists::Append, IngestMode::Append),
            (Missing::Create, Exists::Replace, IngestMode::Replace),
            (Missing::Create, Exists::Append, IngestMode::CreateAppend),
        ] {
            assert_eq!(mode(Some(options(missing, existing))).unwrap(), expected);
        }
        let error = mode(Some(options(Missing::Fail, Exists::Fail))).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(mode(None).is_err());
    }

    #[test]
    fn what_is_not_done_is_refused() {
        let plain = || CommandStatementIngest {
            table: "t".into(),
            ..Default::default()
        };
        let refused = |command| honoured(&command, "lake").unwrap_err();
        assert!(honoured(&plain(), "lake").is_ok());
        let mut command = plain();
        command.catalog = Some("lake".into());
        assert!(honoured(&command, "lake").is_ok());
        command.catalog = Some("other".into());
        assert_eq!(refused(command).kind(), ErrorKind::NotFound);
        let mut command = plain();
        command.temporary = true;
        assert_eq!(refused(command).kind(), ErrorKind::Unsupported);
        let mut command = plain();
        command.transaction_id = Some("x".into());
        assert_eq!(refused(command).kind(), ErrorKind::Unsupported);
        let mut command = plain();
        command.options.insert("speed".into(), "high".into());
        assert!(refused(command).message().contains("\"speed\""));
        assert_eq!(
            refused(CommandStatementIngest::default()).message(),
            "the ingest names no table"
        );
    }
}
