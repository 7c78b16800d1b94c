//! The RPC table: every call of Flight, the command it carries, and the room that answers.
//!
//! arrow-flight's `FlightSqlService` would dispatch some of these, with the rest left out (GetSchema, PollFlightInfo,
//! session actions) or claimed but not there (ListActions); one table of all is shorter and admits every caller in
//! one place.

use std::future::Future;
use std::sync::Arc;

use arrow_flight::flight_service_server::FlightService;
use arrow_flight::sql::{
    ActionCancelQueryRequest, ActionCancelQueryResult, ActionClosePreparedStatementRequest,
    ActionCreatePreparedStatementRequest, Any, Command, DoPutUpdateResult, ProstMessageExt,
};
use arrow_flight::{
    Action, ActionType, BasicAuth, CancelFlightInfoRequest, CancelFlightInfoResult, CancelStatus,
    Criteria, Empty, FlightData, FlightDescriptor, FlightInfo, HandshakeRequest, HandshakeResponse,
    PollInfo, PutResult, SchemaResult, Ticket,
};
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use prost::Message;
use selvedge_engine::{Error, ErrorKind};
use tonic::metadata::MetadataMap;
use tonic::{Request, Response, Status, Streaming};

use crate::ingest::no_transactions;
use crate::sessions::{Caller, Sessions, user_name};
use crate::statements::Statement;
use crate::status::refusal;
use crate::{boundary, ingest, metadata, options, prepared, statements};

/// Flight SQL over the sessions of one engine.
pub(crate) struct Service {
    sessions: Arc<Sessions>,
}

type Messages<T> = BoxStream<'static, Result<T, Status>>;
type Answered<T> = Result<Response<T>, Status>;

impl Service {
    pub(crate) fn new(sessions: Sessions) -> Self {
        Self {
            sessions: Arc::new(sessions),
        }
    }

    /// Admits the caller, answers, and tells the caller of a session opened on the way, also when the answer is no.
    async fn admitted<T, F>(
        &self,
        headers: &MetadataMap,
        answer: impl FnOnce(Arc<Caller>) -> F,
    ) -> Answered<T>
    where
        F: Future<Output = Result<T, Status>>,
    {
        let caller = self.sessions.admit(headers)?;
        introduced(&caller, answer(Arc::clone(&caller)).await)
    }
}

fn introduced<T>(caller: &Caller, answer: Result<T, Status>) -> Answered<T> {
    match answer {
        Ok(message) => {
            let mut response = Response::new(message);
            caller.introduce(response.metadata_mut());
            Ok(response)
        }
        Err(mut status) => {
            caller.introduce(status.metadata_mut());
            Err(status)
        }
    }
}

#[async_trait::async_trait]
impl FlightService for Service {
    type HandshakeStream = Messages<HandshakeResponse>;
    type ListFlightsStream = Messages<FlightInfo>;
    type DoGetStream = Messages<FlightData>;
    type DoPutStream = Messages<PutResult>;
    type DoActionStream = Messages<arrow_flight::Result>;
    type ListActionsStream = Messages<ActionType>;
    type DoExchangeStream = Messages<FlightData>;

    /// Credentials to a bearer token, in the headers of the answer and in its payload.
    async fn handshake(
        &self,
        request: Request<Streaming<HandshakeRequest>>,
    ) -> Answered<Self::HandshakeStream> {
        let (headers, _, mut messages) = request.into_parts();
        let mut caller = self.sessions.admit(&headers)?;
        // Older clients put the name into the first message.
        if !headers.contains_key("authorization")
            && let Some(first) = messages.message().await?
            && let Ok(auth) = BasicAuth::decode(first.payload)
            && let user @ Some(_) = user_name(&auth.username)
        {
            caller = self.sessions.caller(user, None);
        }
        let answer = caller.session().map(|_| {
            let response = HandshakeResponse {
                protocol_version: 0,
                payload: caller.token().unwrap_or_default().to_owned().into(),
            };
            stream::iter([Ok(response)]).boxed()
        });
        introduced(&caller, answer)
    }

    /// Flights exist while somebody who asked for one holds its ticket; there is nothing to list.
    async fn list_flights(&self, request: Request<Criteria>) -> Answered<Self::ListFlightsStream> {
        self.admitted(request.metadata(), |_| async {
            Ok(stream::empty().boxed())
        })
        .await
    }

    async fn get_flight_info(&self, request: Request<FlightDescriptor>) -> Answered<FlightInfo> {
        let (headers, _, descriptor) = request.into_parts();
        self.admitted(&headers, |caller| flight_info(caller, descriptor))
            .await
    }

    /// Complete at the first poll: planning is quick, and a write is done when it has an answer.
    async fn poll_flight_info(&self, request: Request<FlightDescriptor>) -> Answered<PollInfo> {
        let (headers, _, descriptor) = request.into_parts();
        self.admitted(&headers, |caller| async {
            Ok(PollInfo::new().with_info(flight_info(caller, descriptor).await?))
        })
        .await
    }

    /// The schema of what a command would return; nothing runs.
    async fn get_schema(&self, request: Request<FlightDescriptor>) -> Answered<SchemaResult> {
        let (headers, _, descriptor) = request.into_parts();
        self.admitted(&headers, |caller| async move {
            let schema = match command(&descriptor.cmd)? {
                Command::CommandStatementQuery(query) => {
                    let session = caller.session()?;
                    let statement = Statement::plan(&session.engine, &query.query).await?;
                    boundary::schema_bytes(&statement.ticket_columns())?
                }
                Command::CommandPreparedStatementQuery(query) => {
                    prepared::schema(&caller, &query.prepared_statement_handle)?
                }
                other => {
                    let schema = boundary::sent_schema(metadata::schema(&other)?);
                    boundary::schema_bytes(&schema)?
                }
            };
            Ok(SchemaResult { schema })
        })
        .await
    }

    async fn do_get(&self, request: Request<Ticket>) -> Answered<Self::DoGetStream> {
        let (headers, _, ticket) = request.into_parts();
        self.admitted(&headers, |caller| async move {
            match command(&ticket.ticket)? {
                Command::TicketStatementQuery(ticket) => statements::redeem(&caller, &ticket).await,
                other => {
                    let schema = metadata::schema(&other)?;
                    let rows = metadata::rows(&caller.reader(), other).await?;
                    Ok(boundary::encode(schema, stream::iter([Ok(rows)])))
                }
            }
        })
        .await
    }

    async fn do_put(&self, request: Request<Streaming<FlightData>>) -> Answered<Self::DoPutStream> {
        let (headers, _, mut messages) = request.into_parts();
        self.admitted(&headers, |caller| async move {
            let first = messages
                .message()
                .await?
                .ok_or_else(|| invalid("the request has no messages"))?;
            let descriptor = first
                .flight_descriptor
                .clone()
                .ok_or_else(|| invalid("the first message has no descriptor"))?;
            // The first message may carry the schema of the rows, too.
            let messages = stream::iter([Ok(first)]).chain(messages);
            let answer = match command(&descriptor.cmd)? {
                Command::CommandStatementUpdate(update) => {
                    autocommitted(update.transaction_id)?;
                    let session = caller.session()?;
                    let statement = Statement::plan(&session.engine, &update.query).await?;
                    updated(statement.update(None).await?)
                }
                Command::CommandPreparedStatementUpdate(update) => {
                    let handle = update.prepared_statement_handle;
                    updated(prepared::update(&caller, &handle, messages).await?)
                }
                Command::CommandPreparedStatementQuery(query) => {
                    let handle = query.prepared_statement_handle;
                    prepared::bind(&caller, handle, messages)
                        .await?
                        .encode_to_vec()
                }
                Command::CommandStatementIngest(ingest) => {
                    updated(ingest::ingest(&caller, ingest, messages).await?)
                }
                other => return Err(unsupported(&other)),
            };
            let app_metadata = answer.into();
            Ok(stream::iter([Ok(PutResult { app_metadata })]).boxed())
        })
        .await
    }

    async fn do_action(&self, request: Request<Action>) -> Answered<Self::DoActionStream> {
        let (headers, _, action) = request.into_parts();
        self.admitted(&headers, |caller| {
            let headers = &headers;
            async move {
                let answer = act(&caller, headers, action).await?;
                let results = answer.map(|body| Ok(arrow_flight::Result { body: body.into() }));
                Ok(stream::iter(results).boxed())
            }
        })
        .await
    }

    async fn list_actions(&self, request: Request<Empty>) -> Answered<Self::ListActionsStream> {
        self.admitted(request.metadata(), |_| async {
            let actions = ACTIONS.map(|(name, description)| {
                Ok(ActionType {
                    r#type: name.to_owned(),
                    description: description.to_owned(),
                })
            });
            Ok(stream::iter(actions).boxed())
        })
        .await
    }

    async fn do_exchange(
        &self,
        request: Request<Streaming<FlightData>>,
    ) -> Answered<Self::DoExchangeStream> {
        self.admitted(request.metadata(), |_| async {
            Err(refusal(Error::new(
                ErrorKind::Unsupported,
                "exchange of rows is not supported",
            )))
        })
        .await
    }
}

async fn flight_info(
    caller: Arc<Caller>,
    descriptor: FlightDescriptor,
) -> Result<FlightInfo, Status> {
    match command(&descriptor.cmd)? {
        Command::CommandStatementQuery(query) => {
            autocommitted(query.transaction_id)?;
            let session = caller.session()?;
            let statement = Statement::plan(&session.engine, &query.query).await?;
            statement.info(&session, None, descriptor).await
        }
        Command::CommandPreparedStatementQuery(query) => {
            prepared::info(&caller, &query.prepared_statement_handle, descriptor).await
        }
        other => {
            let schema = boundary::sent_schema(metadata::schema(&other)?);
            let ticket = descriptor.cmd.clone();
            statements::info(&schema, ticket, descriptor, -1)
        }
    }
}

const CREATE_PREPARED: &str = "CreatePreparedStatement";
const CLOSE_PREPARED: &str = "ClosePreparedStatement";
const CANCEL_QUERY: &str = "CancelQuery";
const CANCEL_FLIGHT: &str = "CancelFlightInfo";
const SET_OPTIONS: &str = "SetSessionOptions";
const GET_OPTIONS: &str = "GetSessionOptions";
const CLOSE_SESSION: &str = "CloseSession";

const ACTIONS: [(&str, &str); 7] = [
    (CREATE_PREPARED, "prepares a statement"),
    (CLOSE_PREPARED, "forgets a prepared statement"),
    (
        CANCEL_QUERY,
        "stops a running query (Flight SQL's own form)",
    ),
    (CANCEL_FLIGHT, "stops a running query"),
    (SET_OPTIONS, "sets the options catalog and schema"),
    (GET_OPTIONS, "returns the options catalog and schema"),
    (CLOSE_SESSION, "ends the session and drops all it holds"),
];

/// Actions of Flight SQL travel in `Any`, those of Flight itself as they are.
async fn act(
    caller: &Caller,
    headers: &MetadataMap,
    action: Action,
) -> Result<std::option::IntoIter<Vec<u8>>, Status> {
    let body = match action.r#type.as_str() {
        CREATE_PREPARED => {
            let request: ActionCreatePreparedStatementRequest = unpack(&action.body)?;
            autocommitted(request.transaction_id)?;
            let created = prepared::create(caller, &request.query, headers).await?;
            Some(created.as_any().encode_to_vec())
        }
        CLOSE_PREPARED => {
            let request: ActionClosePreparedStatementRequest = unpack(&action.body)?;
            prepared::close(caller, &request.prepared_statement_handle);
            None
        }
        CANCEL_QUERY => {
            let request: ActionCancelQueryRequest = unpack(&action.body)?;
            let info = FlightInfo::decode(request.info).map_err(unreadable)?;
            statements::cancel(caller, &info)?;
            let result = CancelStatus::Cancelled.into();
            Some(ActionCancelQueryResult { result }.as_any().encode_to_vec())
        }
        CANCEL_FLIGHT => {
            let request = CancelFlightInfoRequest::decode(action.body).map_err(unreadable)?;
            statements::cancel(caller, &request.info.unwrap_or_default())?;
            Some(CancelFlightInfoResult::new(CancelStatus::Cancelled).encode_to_vec())
        }
        SET_OPTIONS => Some(options::set(caller, &action.body).await?),
        GET_OPTIONS => Some(options::get(caller)),
        CLOSE_SESSION => Some(options::close(caller)?),
        "BeginTransaction" | "EndTransaction" | "BeginSavepoint" | "EndSavepoint" => {
            return Err(refusal(no_transactions()));
        }
        other => {
            return Err(Status::unimplemented(format!(
                "action \"{other}\" is not supported"
            )));
        }
    };
    Ok(body.into_iter())
}

fn updated(record_count: i64) -> Vec<u8> {
    DoPutUpdateResult { record_count }.encode_to_vec()
}

/// A statement in a transaction must not commit by itself, so it does not run.
fn autocommitted(transaction: Option<Bytes>) -> Result<(), Status> {
    match transaction {
        Some(id) if !id.is_empty() => Err(refusal(no_transactions())),
        _ => Ok(()),
    }
}

fn command(bytes: &Bytes) -> Result<Command, Status> {
    let any = Any::decode(bytes.clone()).map_err(unreadable)?;
    Command::try_from(any).map_err(|error| invalid(&format!("the command is malformed: {error}")))
}

fn unpack<M: ProstMessageExt>(body: &Bytes) -> Result<M, Status> {
    Any::decode(body.clone())
        .map_err(unreadable)?
        .unpack()
        .map_err(|error| invalid(&format!("the action is malformed: {error}")))?
        .ok_or_else(|| invalid(&format!("the body of the action is no {}", M::type_url())))
}

fn unreadable(error: prost::DecodeError) -> Status {
    invalid(&format!("the request could not be read: {error}"))
}

fn invalid(message: &str) -> Status {
    refusal(Error::new(ErrorKind::Invalid, message))
}

fn unsupported(command: &Command) -> Status {
    let url = command.type_url();
    let name = url.rsplit('.').next().unwrap_or(url);
    refusal(Error::new(
        ErrorKind::Unsupported,
        format!("command {name} is not supported"),
    ))
}
