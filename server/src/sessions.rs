//! Who asks: credentials to a [`Caller`], and the session a caller works in.
//!
//! There is no list of users yet, so any name is believed and none is asked for; the server therefore listens on
//! loopback only. A session is opened when a request first needs one, and its token goes back in the headers of
//! that answer, as a bearer token and as a cookie: ADBC follows the first, JDBC the second. A client that follows
//! neither gets a session per statement, which its tickets and prepared statements still find.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use bytes::Bytes;
use selvedge_engine::{Engine, Session, SessionOptions};
use tonic::Status;
use tonic::metadata::{Ascii, MetadataMap, MetadataValue};

use crate::prepared::Bound;
use crate::registry::{Id, Registry};
use crate::server::ServerOptions;
use crate::shelf::{Key, Shelf};
use crate::statements::Held;

const COOKIE: &str = "arrow_flight_session_id";

/// Results a session keeps for tickets; the least recently used gives way.
const TICKETS: usize = 256;

/// Prepared statements a session may hold open.
const STATEMENTS: usize = 1024;

/// How long a ticket can be redeemed after it was last used.
const TICKET_LIFE: Duration = Duration::from_secs(10 * 60);

/// All sessions of a server.
pub(crate) struct Sessions {
    engine: Engine,
    registry: Registry<ClientSession>,
    idle: Duration,
    /// For reading the catalog without opening a session; nothing ever changes its state.
    reader: Session,
}

/// What the server keeps for one client.
pub(crate) struct ClientSession {
    id: Id,
    user: Option<Arc<str>>,
    pub(crate) engine: Session,
    /// The schema a new session starts in, to which unsetting the option returns.
    pub(crate) first_schema: String,
    pub(crate) tickets: Shelf<Held>,
    pub(crate) prepared: Shelf<Bound>,
}

/// One request's client.
pub(crate) struct Caller {
    sessions: Arc<Sessions>,
    user: Option<Arc<str>>,
    /// The session the request named or, later, the one opened for it.
    session: OnceLock<(String, Arc<ClientSession>)>,
    known: bool,
}

impl Sessions {
    pub(crate) fn new(engine: Engine, options: &ServerOptions) -> Self {
        Self {
            registry: Registry::new(options.max_sessions, options.session_idle),
            idle: options.session_idle,
            reader: engine.session_with(rights(None)),
            engine,
        }
    }

    /// Finds out who asks. Every RPC begins here.
    pub(crate) fn admit(self: &Arc<Self>, headers: &MetadataMap) -> Result<Arc<Caller>, Status> {
        let now = Instant::now();
        let named = match Credentials::of(headers)? {
            Credentials::Bearer(token) => match self.registry.by_token(&token, now) {
                Some(session) => Some((token, session)),
                None => {
                    return Err(Status::unauthenticated(
                        "the session is unknown or has expired; connect again",
                    ));
                }
            },
            Credentials::Basic(user) => {
                let same = |session: &Arc<ClientSession>| session.user == user;
                let by_cookie = self.by_cookie(headers, now).filter(|(_, s)| same(s));
                if by_cookie.is_none() {
                    return Ok(self.caller(user, None));
                }
                by_cookie
            }
            // A stale cookie is no claim to anything: browsers and drivers send what they have.
            Credentials::None => self.by_cookie(headers, now),
        };
        let user = named.as_ref().and_then(|(_, session)| session.user.clone());
        Ok(self.caller(user, named))
    }

    /// A caller who named himself in the body of a handshake.
    pub(crate) fn caller(
        self: &Arc<Self>,
        user: Option<Arc<str>>,
        session: Option<(String, Arc<ClientSession>)>,
    ) -> Arc<Caller> {
        Arc::new(Caller {
            sessions: Arc::clone(self),
            user,
            known: session.is_some(),
            session: session.map_or_else(OnceLock::new, OnceLock::from),
        })
    }

    fn by_cookie(
        &self,
        headers: &MetadataMap,
        now: Instant,
    ) -> Option<(String, Arc<ClientSession>)> {
        let token = cookie(headers)?;
        let session = self.registry.by_token(token, now)?;
        Some((token.to_owned(), session))
    }

    fn open(&self, user: Option<Arc<str>>) -> Result<(String, Arc<ClientSession>), Status> {
        let engine = self.engine.session_with(rights(user.as_deref()));
        self.registry
            .open(Instant::now(), |id| ClientSession {
                id,
                user,
                first_schema: engine.current_schema(),
                engine,
                tickets: Shelf::new(TICKETS, TICKET_LIFE),
                prepared: Shelf::new(STATEMENTS, self.idle),
            })
            .map_err(|_| {
                Status::resource_exhausted(
                    "every session of the server is in use; close some or try again later",
                )
            })
    }
}

/// Clients of the network read and write the lake and nothing beside it.
fn rights(user: Option<&str>) -> SessionOptions {
    SessionOptions {
        external_files: false,
        user: user.map(str::to_owned),
    }
}

impl ClientSession {
    /// The name under which a client finds a thing of this session.
    pub(crate) fn handle(&self, key: Key) -> Bytes {
        [self.id, key].concat().into()
    }
}

impl Caller {
    /// The session to work in, opened now if the client has none.
    pub(crate) fn session(&self) -> Result<Arc<ClientSession>, Status> {
        if self.session.get().is_none() {
            let opened = self.sessions.open(self.user.clone())?;
            // A request is served by one task, so nobody else can have set it meanwhile.
            let _ = self.session.set(opened);
        }
        self.known_session()
            .ok_or_else(|| Status::internal("a session was opened and lost"))
    }

    /// The client's session, if it has one.
    pub(crate) fn known_session(&self) -> Option<Arc<ClientSession>> {
        self.session.get().map(|(_, session)| Arc::clone(session))
    }

    /// A session for reading the catalog; opens none.
    pub(crate) fn reader(&self) -> Session {
        match self.session.get() {
            Some((_, session)) => session.engine.clone(),
            None => self.sessions.reader.clone(),
        }
    }

    /// The session and the key a handle names. Handles of other users are as unknown as wrong ones.
    pub(crate) fn locate(&self, handle: &[u8]) -> Option<(Arc<ClientSession>, Key)> {
        let (id, key) = handle.split_first_chunk::<16>()?;
        let session = self.sessions.registry.by_id(id, Instant::now())?;
        let own = session.user == self.user;
        own.then_some((session, key.try_into().ok()?))
    }

    /// Ends the client's session and drops all it holds.
    pub(crate) fn close(&self) -> bool {
        self.known_session()
            .is_some_and(|session| self.sessions.registry.close(&session.id))
    }

    /// The bearer token of the client's session.
    pub(crate) fn token(&self) -> Option<&str> {
        self.session.get().map(|(token, _)| token.as_str())
    }

    /// Tells the client the token of a session that was opened for it in this request.
    pub(crate) fn introduce(&self, headers: &mut MetadataMap) {
        if self.known {
            return;
        }
        let Some(token) = self.token() else { return };
        let values: [(&'static str, String); 2] = [
            ("authorization", format!("Bearer {token}")),
            ("set-cookie", format!("{COOKIE}={token}; Path=/; HttpOnly")),
        ];
        for (name, text) in values {
            if let Ok(value) = MetadataValue::<Ascii>::try_from(text) {
                headers.insert(name, value);
            }
        }
    }
}

/// What the `authorization` header claims.
#[derive(Debug, PartialEq, Eq)]
enum Credentials {
    Bearer(String),
    Basic(Option<Arc<str>>),
    None,
}

impl Credentials {
    fn of(headers: &MetadataMap) -> Result<Self, Status> {
        let Some(value) = headers.get("authorization") else {
            return Ok(Self::None);
        };
        let malformed = || Status::unauthenticated("the authorization header is malformed");
        let text = value.to_str().map_err(|_| malformed())?;
        let (scheme, rest) = text.split_once(' ').ok_or_else(malformed)?;
        let rest = rest.trim();
        if scheme.eq_ignore_ascii_case("bearer") {
            return Ok(Self::Bearer(rest.to_owned()));
        }
        if !scheme.eq_ignore_ascii_case("basic") {
            return Err(Status::unauthenticated(
                "the authorization scheme is not supported; use Basic or Bearer",
            ));
        }
        let decoded = LENIENT.decode(rest).map_err(|_| malformed())?;
        let pair = String::from_utf8(decoded).map_err(|_| malformed())?;
        let (user, _) = pair.split_once(':').ok_or_else(malformed)?;
        Ok(Self::Basic(user_name(user)))
    }
}

/// A user's name; an empty one is nobody's.
pub(crate) fn user_name(name: &str) -> Option<Arc<str>> {
    (!name.is_empty()).then(|| name.into())
}

/// Some clients pad, some do not.
const LENIENT: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

fn cookie(headers: &MetadataMap) -> Option<&str> {
    headers
        .get_all("cookie")
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|line| line.split(';'))
        .filter_map(|pair| pair.trim().split_once('='))
        .find(|(name, _)| *name == COOKIE)
        .map(|(_, value)| value.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tonic::Code;

    fn headers(pairs: &[(&'static str, &str)]) -> MetadataMap {
        let mut headers = MetadataMap::new();
        for (name, value) in pairs {
            headers.append(*name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn credentials_are_read_as_clients_write_them() {
        let of = |value| Credentials::of(&headers(&[("authorization", value)])).unwrap();
        assert_eq!(of("Bearer abc"), Credentials::Bearer("abc".into()));
        assert_eq!(of("bearer abc "), Credentials::Bearer("abc".into()));
        let ada = Credentials::Basic(Some("ada".into()));
        assert_eq!(of("Basic YWRhOnB3Og=="), ada); // ada:pw:
        assert_eq!(of("Basic YWRhOnB3Og"), ada);
        assert_eq!(of("Basic Og=="), Credentials::Basic(None)); // :
        assert_eq!(
            Credentials::of(&MetadataMap::new()).unwrap(),
            Credentials::None
        );
    }

    #[test]
    fn malformed_credentials_are_refused_without_detail() {
        for value in ["Basic", "Basic !!!", "Basic YWRh", "Digest abc", "abc"] {
            let error = Credentials::of(&headers(&[("authorization", value)])).unwrap_err();
            assert_eq!(error.code(), Code::Unauthenticated, "{value}");
        }
    }

    #[test]
    fn the_cookie_is_found_among_others() {
        let headers = headers(&[
            ("cookie", "a=b; theme=dark"),
            ("cookie", "x=y; arrow_flight_session_id=tok; z=1"),
        ]);
        assert_eq!(cookie(&headers), Some("tok"));
        assert_eq!(cookie(&MetadataMap::new()), None);
    }
}
