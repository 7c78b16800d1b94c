//! Session options: the schema unqualified names mean, and the catalog, of which there is one.
//!
//! Bodies of these actions are plain messages, not wrapped in `Any` as those of Flight SQL are, and arrow-flight does
//! not have them. They follow `Flight.proto`.

use std::collections::HashMap;

use prost::Message;
use tonic::Status;

use crate::sessions::Caller;
use crate::status::refusal;

const CATALOG: &str = "catalog";
const SCHEMA: &str = "schema";

/// Sets options; what cannot be set is named in the answer, the rest holds.
pub(crate) async fn set(caller: &Caller, body: &[u8]) -> Result<Vec<u8>, Status> {
    let request = SetRequest::decode(body).map_err(unreadable)?;
    let session = caller.session()?;
    let mut errors = HashMap::new();
    for (name, value) in request.session_options {
        let verdict = match (name.as_str(), value.value) {
            (CATALOG, None) => None,
            (CATALOG, Some(Value::String(catalog))) => {
                (catalog != session.engine.catalog()).then_some(ErrorValue::InvalidValue)
            }
            (SCHEMA, value @ (None | Some(Value::String(_)))) => {
                let schema = match value {
                    Some(Value::String(schema)) => schema,
                    _ => session.first_schema.clone(),
                };
                session
                    .engine
                    .use_schema(&schema)
                    .await
                    .is_err()
                    .then_some(ErrorValue::InvalidValue)
            }
            (CATALOG | SCHEMA, Some(_)) => Some(ErrorValue::InvalidValue),
            _ => Some(ErrorValue::InvalidName),
        };
        if let Some(value) = verdict {
            let value = value.into();
            errors.insert(name, SetError { value });
        }
    }
    Ok(SetResult { errors }.encode_to_vec())
}

/// The options of the caller's session. Opens none: clients ask only to see whether the server lives.
pub(crate) fn get(caller: &Caller) -> Vec<u8> {
    let session = caller.reader();
    let text = |text: &str| OptionValue {
        value: Some(Value::String(text.to_owned())),
    };
    let session_options = HashMap::from([
        (CATALOG.to_owned(), text(session.catalog())),
        (SCHEMA.to_owned(), text(&session.current_schema())),
    ]);
    GetResult { session_options }.encode_to_vec()
}

/// Ends the caller's session.
pub(crate) fn close(caller: &Caller) -> Result<Vec<u8>, Status> {
    if !caller.close() {
        return Err(Status::not_found("there is no session to close"));
    }
    let status = CloseStatus::Closed.into();
    Ok(CloseResult { status }.encode_to_vec())
}

fn unreadable(error: prost::DecodeError) -> Status {
    refusal(selvedge_engine::Error::new(
        selvedge_engine::ErrorKind::Invalid,
        format!("the body of the action could not be read: {error}"),
    ))
}

#[derive(Clone, PartialEq, Message)]
struct SetRequest {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, PartialEq, Message)]
struct SetResult {
    #[prost(map = "string, message", tag = "1")]
    errors: HashMap<String, SetError>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct SetError {
    #[prost(enumeration = "ErrorValue", tag = "1")]
    value: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum ErrorValue {
    Unspecified = 0,
    InvalidName = 1,
    InvalidValue = 2,
    Error = 3,
}

#[derive(Clone, PartialEq, Message)]
struct GetResult {
    #[prost(map = "string, message", tag = "1")]
    session_options: HashMap<String, OptionValue>,
}

#[derive(Clone, Copy, PartialEq, Message)]
struct CloseResult {
    #[prost(enumeration = "CloseStatus", tag = "1")]
    status: i32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, prost::Enumeration)]
#[repr(i32)]
enum CloseStatus {
    Unspecified = 0,
    Closed = 1,
    Closing = 2,
    NotCloseable = 3,
}

/// No value unsets the option.
#[derive(Clone, PartialEq, Message)]
struct OptionValue {
    #[prost(oneof = "Value", tags = "1, 2, 3, 4, 5")]
    value: Option<Value>,
}

#[derive(Clone, PartialEq, prost::Oneof)]
enum Value {
    #[prost(string, tag = "1")]
    String(String),
    #[prost(bool, tag = "2")]
    Bool(bool),
    #[prost(sfixed64, tag = "3")]
    Int64(i64),
    #[prost(double, tag = "4")]
    Double(f64),
    #[prost(message, tag = "5")]
    Strings(StringList),
}

#[derive(Clone, PartialEq, Message)]
struct StringList {
    #[prost(string, repeated, tag = "1")]
    values: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes as other implementations write them.
    #[test]
    fn messages_are_those_of_flight_proto() {
        let body = b"\x0a\x10\x0a\x06schema\x12\x06\x0a\x04main";
        let request = SetRequest::decode(body.as_slice()).unwrap();
        let value = request.session_options["schema"].value.clone();
        assert_eq!(value, Some(Value::String("main".into())));
        assert_eq!(request.encode_to_vec(), body);

        let int = OptionValue {
            value: Some(Value::Int64(1)),
        };
        assert_eq!(int.encode_to_vec(), b"\x19\x01\0\0\0\0\0\0\0");
        let status = CloseStatus::Closed.into();
        assert_eq!(CloseResult { status }.encode_to_vec(), b"\x08\x01");
    }

    #[test]
    fn a_malformed_body_is_the_clients_fault() {
        let error = SetRequest::decode(b"\xff\xff".as_slice())
            .map_err(unreadable)
            .unwrap_err();
        assert_eq!(error.code(), tonic::Code::InvalidArgument);
    }
}
