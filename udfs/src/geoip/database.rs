//! MaxMind databases, each read once for all sessions.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use maxminddb::{PathElement, Reader};
use serde::Deserialize;

/// The databases that sessions of one engine have opened, by path. A file is held in memory whole.
#[derive(Default)]
pub struct GeoDatabases {
    open: Mutex<HashMap<String, Arc<Database>>>,
}

/// What tells a file from the one it replaces.
type Stamp = (Option<SystemTime>, u64);

impl GeoDatabases {
    /// Reads the database at `path`, unless it is in memory and the file has not changed since.
    ///
    /// # Errors
    /// When there is no such file, or it is no MaxMind database.
    pub fn load(&self, path: &str) -> Result<()> {
        let stamp = stamp(path)?;
        let known = self.lock().get(path).map(|database| database.stamp);
        if known != Some(stamp) {
            let database = Arc::new(Database::read(path, stamp)?);
            self.lock().insert(path.to_owned(), database);
        }
        Ok(())
    }

    /// The database at `path`, as it was when it was loaded.
    pub(super) fn open(&self, path: &str) -> Result<Arc<Database>> {
        if let Some(database) = self.lock().get(path) {
            return Ok(Arc::clone(database));
        }
        let database = Arc::new(Database::read(path, stamp(path)?)?);
        Ok(Arc::clone(
            self.lock().entry(path.to_owned()).or_insert(database),
        ))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<String, Arc<Database>>> {
        // The map is whole whatever its last holder did.
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl fmt::Debug for GeoDatabases {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("GeoDatabases").finish_non_exhaustive()
    }
}

fn stamp(path: &str) -> Result<Stamp> {
    let file = std::fs::metadata(path)
        .map_err(|error| exec_datafusion_err!("cannot read the GeoIP database {path}: {error}"))?;
    Ok((file.modified().ok(), file.len()))
}

pub(super) struct Database {
    path: String,
    stamp: Stamp,
    reader: Reader<Vec<u8>>,
}

impl Database {
    fn read(path: &str, stamp: Stamp) -> Result<Self> {
        let bytes = std::fs::read(path).map_err(|error| {
            exec_datafusion_err!("cannot read the GeoIP database {path}: {error}")
        })?;
        let reader = Reader::from_source(bytes)
            .map_err(|error| exec_datafusion_err!("{path} is no MaxMind database: {error}"))?;
        Ok(Self {
            path: path.to_owned(),
            stamp,
            reader,
        })
    }

    pub(super) fn country(&self, ip: IpAddr) -> Result<Option<&str>> {
        const COUNTRY: [PathElement<'static>; 2] =
            [PathElement::Key("country"), PathElement::Key("iso_code")];
        if self.lacks(ip) {
            return Ok(None);
        }
        self.reader
            .lookup(ip)
            .and_then(|found| found.decode_path(&COUNTRY))
            .map_err(|error| self.damaged(ip, &error))
    }

    pub(super) fn record(&self, ip: IpAddr) -> Result<Option<Record<'_>>> {
        if self.lacks(ip) {
            return Ok(None);
        }
        self.reader
            .lookup(ip)
            .and_then(|found| found.decode())
            .map_err(|error| self.damaged(ip, &error))
    }

    /// Whether it holds no address of that kind at all.
    fn lacks(&self, ip: IpAddr) -> bool {
        ip.is_ipv6() && self.reader.metadata().ip_version == 4
    }

    fn damaged(&self, ip: IpAddr, error: &maxminddb::MaxMindDbError) -> DataFusionError {
        exec_datafusion_err!(
            "the GeoIP database {} cannot be read for {ip}: {error}",
            self.path
        )
    }
}

/// What the Country, City and ASN databases tell, taken together: each tells a part.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Record<'a> {
    #[serde(borrow)]
    pub country: Country<'a>,
    #[serde(borrow)]
    pub continent: Continent<'a>,
    #[serde(borrow)]
    pub subdivisions: Vec<Named<'a>>,
    #[serde(borrow)]
    pub city: Named<'a>,
    #[serde(borrow)]
    pub postal: Postal<'a>,
    #[serde(borrow)]
    pub location: Location<'a>,
    pub autonomous_system_number: Option<u32>,
    pub autonomous_system_organization: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Country<'a> {
    pub iso_code: Option<&'a str>,
    #[serde(borrow)]
    pub names: Names<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Continent<'a> {
    pub code: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Named<'a> {
    #[serde(borrow)]
    pub names: Names<'a>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Names<'a> {
    pub en: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Postal<'a> {
    pub code: Option<&'a str>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Location<'a> {
    pub latitude: Option<f64>,
    pub longitude: Option<f64>,
    pub time_zone: Option<&'a str>,
}
