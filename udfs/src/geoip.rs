//! Where IP addresses are, by a MaxMind database that the user brings.

mod database;

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::{
    ArrayRef, Float64Builder, Int64Builder, StringBuilder, StructArray,
};
use datafusion::arrow::buffer::NullBuffer;
use datafusion::arrow::datatypes::{DataType, Field, Fields};
use datafusion::common::{Result, exec_datafusion_err};
use datafusion::logical_expr::ScalarUDF;

use crate::options::SelvedgeOptions;
use crate::scalar::{Call, Parameter, Takes, Told, stable, texts_of};
use database::Database;

pub use database::GeoDatabases;

const IP: Parameter = (
    "ip",
    Takes::Text,
    "the address; NULL, text that is no address, and an address the database does not know give NULL",
);

/// The functions of this room, reading `databases`.
pub(crate) fn functions(databases: &Arc<GeoDatabases>) -> Vec<ScalarUDF> {
    let with = |told, work: fn(&Call<'_>, &Database) -> Result<ArrayRef>| {
        let databases = Arc::clone(databases);
        stable(told, move |call| {
            let path = SelvedgeOptions::geoip_database(call.options).ok_or_else(|| {
                exec_datafusion_err!(
                    "no GeoIP database is set: SET {} = '/path/to/GeoLite2-City.mmdb'",
                    SelvedgeOptions::GEOIP_DATABASE
                )
            })?;
            work(call, &*databases.open(path)?)
        })
    };
    vec![
        with(
            Told {
                name: "geoip",
                parameters: &[IP],
                returns: DataType::Struct(fields()),
                about: "All that the database in selvedge.geoip_database tells of an IP address, as a struct of country, country_name, continent, region, city, postal_code, time_zone, latitude, longitude, as_number and as_organization. What it does not tell is NULL.",
                example: "SELECT geoip('81.2.69.160')['city'] -- London",
            },
            all,
        ),
        with(
            Told {
                name: "geoip_country",
                parameters: &[IP],
                returns: DataType::Utf8,
                about: "Country of an IP address, as ISO 3166 code of two letters, by the database in selvedge.geoip_database.",
                example: "SELECT geoip_country('81.2.69.160') -- GB",
            },
            country,
        ),
    ]
}

fn country(call: &Call<'_>, database: &Database) -> Result<ArrayRef> {
    let ips = call.texts(0)?;
    let mut failure = None;
    let countries = texts_of(call.rows, |row| {
        let ip = address(ips.get(row)?)?;
        match database.country(ip) {
            Ok(country) => country.map(Cow::from),
            Err(error) => {
                failure.get_or_insert(error);
                None
            }
        }
    });
    match failure {
        Some(error) => Err(error),
        None => Ok(countries),
    }
}

fn address(text: &str) -> Option<IpAddr> {
    text.parse::<IpAddr>().ok().map(|ip| ip.to_canonical())
}

const TEXTS: [&str; 7] = [
    "country",
    "country_name",
    "continent",
    "region",
    "city",
    "postal_code",
    "time_zone",
];

fn fields() -> Fields {
    let rest = [
        ("latitude", DataType::Float64),
        ("longitude", DataType::Float64),
        ("as_number", DataType::Int64),
        ("as_organization", DataType::Utf8),
    ];
    TEXTS
        .iter()
        .map(|name| (*name, DataType::Utf8))
        .chain(rest)
        .map(|(name, data_type)| Field::new(name, data_type, true))
        .collect()
}

fn all(call: &Call<'_>, database: &Database) -> Result<ArrayRef> {
    let ips = call.texts(0)?;
    let mut texts: [StringBuilder; TEXTS.len()] = Default::default();
    let mut organizations = StringBuilder::new();
    let (mut latitudes, mut longitudes) = (Float64Builder::new(), Float64Builder::new());
    let mut numbers = Int64Builder::new();
    let mut valid = Vec::with_capacity(call.rows);
    for row in 0..call.rows {
        let found = match ips.get(row).and_then(address) {
            Some(ip) => database.record(ip)?,
            None => None,
        };
        valid.push(found.is_some());
        let record = found.unwrap_or_default();
        let values = [
            record.country.iso_code,
            record.country.names.en,
            record.continent.code,
            record
                .subdivisions
                .first()
                .and_then(|region| region.names.en),
            record.city.names.en,
            record.postal.code,
            record.location.time_zone,
        ];
        for (column, value) in texts.iter_mut().zip(values) {
            column.append_option(value);
        }
        latitudes.append_option(record.location.latitude);
        longitudes.append_option(record.location.longitude);
        numbers.append_option(record.autonomous_system_number.map(i64::from));
        organizations.append_option(record.autonomous_system_organization);
    }
    let mut columns: Vec<ArrayRef> = texts
        .into_iter()
        .map(|mut column| Arc::new(column.finish()) as _)
        .collect();
    columns.push(Arc::new(latitudes.finish()));
    columns.push(Arc::new(longitudes.finish()));
    columns.push(Arc::new(numbers.finish()));
    columns.push(Arc::new(organizations.finish()));
    Ok(Arc::new(StructArray::try_new(
        fields(),
        columns,
        Some(NullBuffer::from(valid)),
    )?))
}

#[cfg(test)]
pub(crate) mod tests;
