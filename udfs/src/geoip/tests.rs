//! A small MaxMind database, written by hand from the format's description, and what is read from it.

use std::collections::BTreeMap;

use super::*;

/// The database that tests elsewhere use: `testdata/example.mmdb`.
pub(crate) const EXAMPLE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata/example.mmdb");

enum Value {
    Text(&'static str),
    Double(f64),
    Small(u16),
    Number(u32),
    Long(u64),
    Map(Vec<(&'static str, Value)>),
    List(Vec<Value>),
}

use Value::{Double, List, Long, Map, Number, Small, Text};

fn control(kind: u8, size: usize, out: &mut Vec<u8>) {
    let (size, more) = match size {
        0..29 => (size as u8, None),
        _ => (29, Some((size - 29) as u8)),
    };
    match kind {
        1..=7 => out.push(kind << 5 | size),
        extended => out.extend([size, extended - 7]),
    }
    out.extend(more);
}

/// The digits of a number without leading zeros.
fn number(kind: u8, bytes: &[u8], out: &mut Vec<u8>) {
    let from = bytes.iter().position(|byte| *byte != 0);
    let bytes = &bytes[from.unwrap_or(bytes.len())..];
    control(kind, bytes.len(), out);
    out.extend(bytes);
}

fn encode(value: &Value, out: &mut Vec<u8>) {
    match value {
        Text(text) => {
            control(2, text.len(), out);
            out.extend(text.as_bytes());
        }
        Double(value) => {
            control(3, 8, out);
            out.extend(value.to_be_bytes());
        }
        Small(value) => number(5, &value.to_be_bytes(), out),
        Number(value) => number(6, &value.to_be_bytes(), out),
        Long(value) => number(9, &value.to_be_bytes(), out),
        Map(entries) => {
            control(7, entries.len(), out);
            for (key, value) in entries {
                encode(&Text(key), out);
                encode(value, out);
            }
        }
        List(values) => {
            control(11, values.len(), out);
            values.iter().for_each(|value| encode(value, out));
        }
    }
}

#[derive(Clone, Copy)]
enum Next {
    Nothing,
    Node(usize),
    Data(usize),
}

/// A database of networks. IPv4 addresses live below ::/96, as in MaxMind's own.
fn database(networks: &[(&str, Value)]) -> Vec<u8> {
    let mut nodes = vec![[Next::Nothing; 2]];
    let mut data = Vec::new();
    for (network, value) in networks {
        let (ip, length) = network.split_once('/').unwrap();
        let length: u32 = length.parse().unwrap();
        let (bits, length) = match ip.parse().unwrap() {
            IpAddr::V4(ip) => (u128::from(ip.to_bits()), length + 96),
            IpAddr::V6(ip) => (ip.to_bits(), length),
        };
        let at = data.len();
        encode(value, &mut data);
        let mut node = 0;
        for depth in 0..length {
            let bit = (bits >> (127 - depth) & 1) as usize;
            if depth + 1 == length {
                nodes[node][bit] = Next::Data(at);
            } else {
                node = match nodes[node][bit] {
                    Next::Node(next) => next,
                    _ => {
                        nodes.push([Next::Nothing; 2]);
                        let next = nodes.len() - 1;
                        nodes[node][bit] = Next::Node(next);
                        next
                    }
                };
            }
        }
    }
    let count = nodes.len();
    let mut file = Vec::new();
    for next in nodes.into_iter().flatten() {
        let record = match next {
            Next::Nothing => count,
            Next::Node(node) => node,
            Next::Data(at) => count + 16 + at,
        };
        file.extend(&(record as u32).to_be_bytes()[1..]);
    }
    file.extend([0; 16]);
    file.extend(data);
    file.extend(b"\xab\xcd\xefMaxMind.com");
    let about = Map(vec![
        ("node_count", Number(count as u32)),
        ("record_size", Small(24)),
        ("ip_version", Small(6)),
        ("database_type", Text("Selvedge-Example")),
        ("languages", List(vec![Text("en")])),
        ("binary_format_major_version", Small(2)),
        ("binary_format_minor_version", Small(0)),
        ("build_epoch", Long(1_790_000_000)),
        ("description", Map(vec![("en", Text("made up for tests"))])),
    ]);
    encode(&about, &mut file);
    file
}

fn example() -> Vec<u8> {
    let names = |name| ("names", Map(vec![("en", Text(name))]));
    let london = Map(vec![
        ("city", Map(vec![names("London")])),
        ("continent", Map(vec![("code", Text("EU"))])),
        (
            "country",
            Map(vec![("iso_code", Text("GB")), names("United Kingdom")]),
        ),
        (
            "location",
            Map(vec![
                ("latitude", Double(51.5142)),
                ("longitude", Double(-0.0931)),
                ("time_zone", Text("Europe/London")),
            ]),
        ),
        ("postal", Map(vec![("code", Text("EC2V"))])),
        ("subdivisions", List(vec![Map(vec![names("England")])])),
    ]);
    let provider = Map(vec![
        ("autonomous_system_number", Number(64496)),
        ("autonomous_system_organization", Text("Example Net")),
        ("country", Map(vec![("iso_code", Text("JP"))])),
    ]);
    database(&[("81.2.69.160/27", london), ("2001:db8::/32", provider)])
}

#[test]
fn the_example_is_what_the_writer_writes() {
    let bytes = example();
    if std::env::var_os("UPDATE_EXAMPLE").is_some() {
        std::fs::write(EXAMPLE, &bytes).unwrap();
    }
    assert_eq!(std::fs::read(EXAMPLE).unwrap(), bytes);
}

#[test]
fn records_are_found_by_network() {
    let databases = GeoDatabases::default();
    let database = databases.open(EXAMPLE).unwrap();
    let country = |ip: &str| database.country(address(ip).unwrap()).unwrap();
    let expected = BTreeMap::from([
        ("81.2.69.160", Some("GB")),
        ("81.2.69.191", Some("GB")),
        ("::ffff:81.2.69.170", Some("GB")),
        ("81.2.69.192", None),
        ("2001:db8::7", Some("JP")),
        ("2001:db9::", None),
    ]);
    for (ip, found) in expected {
        assert_eq!(country(ip), found, "{ip}");
    }
    let london = database.record(address("81.2.69.161").unwrap()).unwrap();
    let london = london.unwrap();
    assert_eq!(london.city.names.en, Some("London"));
    assert_eq!(london.location.latitude, Some(51.5142));
    assert_eq!(london.autonomous_system_number, None);
    let provider = database.record(address("2001:db8::").unwrap()).unwrap();
    assert_eq!(provider.unwrap().autonomous_system_number, Some(64496));
}

#[test]
fn a_file_that_is_none_is_refused_and_a_newer_one_is_read() {
    let databases = GeoDatabases::default();
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("geo.mmdb");
    let path = path.to_str().unwrap();
    let refused = |what: &str| {
        let error = databases.load(path).unwrap_err().to_string();
        assert!(error.contains(what) && error.contains(path), "{error}");
    };
    refused("cannot read the GeoIP database");
    std::fs::write(path, b"no database").unwrap();
    refused("is no MaxMind database");
    std::fs::write(path, example()).unwrap();
    databases.load(path).unwrap();
    let ip = address("10.0.0.1").unwrap();
    assert_eq!(databases.open(path).unwrap().country(ip).unwrap(), None);
    let country = Map(vec![("iso_code", Text("XX"))]);
    let newer = database(&[("10.0.0.0/8", Map(vec![("country", country)]))]);
    std::fs::write(path, newer).unwrap();
    assert_eq!(databases.open(path).unwrap().country(ip).unwrap(), None);
    databases.load(path).unwrap();
    let found = databases.open(path).unwrap();
    assert_eq!(found.country(ip).unwrap(), Some("XX"));
}
