//! Keyed hashing: the same value under the same key gives the same digest, and without the key nobody can
//! try values until one fits.

use datafusion::arrow::array::{ArrayRef, StringBuilder};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{Result, exec_datafusion_err, exec_err};
use datafusion::logical_expr::ScalarUDF;
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Sha256, Sha512};
use std::sync::Arc;

use crate::scalar::{Call, Parameter, Takes, Told, pure};
use crate::values::Bytes;

const KEY: Parameter = (
    "key",
    Takes::TextOrBytes,
    "the secret; NULL gives NULL, an empty one is an error",
);
const VALUE: Parameter = (
    "value",
    Takes::TextOrBytes,
    "what is hashed; NULL gives NULL",
);

/// The functions of this room.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![
        pure(
            Told {
                name: "hmac_sha256",
                parameters: &[KEY, VALUE],
                returns: DataType::Utf8,
                about: "HMAC of a value with SHA-256 (RFC 2104), as 64 hexadecimal digits. The key stands before the value.",
                example: "SELECT hmac_sha256('key', 'The quick brown fox jumps over the lazy dog') -- f7bc83f430538424b13298e6aa6fb143ef4d59a14946175997479dbc2d1a3cd8",
            },
            hashed::<Hmac<Sha256>>,
        ),
        pure(
            Told {
                name: "hmac_sha512",
                parameters: &[KEY, VALUE],
                returns: DataType::Utf8,
                about: "HMAC of a value with SHA-512 (RFC 2104), as 128 hexadecimal digits. The key stands before the value.",
                example: "SELECT hmac_sha512('key', 'The quick brown fox jumps over the lazy dog') -- b42af09057bac1e2d41708e48a902e09b5ff7f12ab428a4fe86653c73dd248fb82f948a549f7b791a5b41915ee4d1ec3935357e4e2317250d0372afa2ebeeb3a",
            },
            hashed::<Hmac<Sha512>>,
        ),
    ]
}

fn hashed<M: Mac + KeyInit + Clone>(call: &Call<'_>) -> Result<ArrayRef> {
    let (keys, values) = (call.bytes(0)?, call.bytes(1)?);
    // Mostly one key for all rows: its first block is hashed once.
    let same = match &keys {
        Bytes::Same(Some(key)) => Some(keyed::<M>(key)?),
        _ => None,
    };
    let width = 2 * M::output_size();
    let mut digits = String::with_capacity(width);
    let mut hashes = StringBuilder::with_capacity(call.rows, call.rows * width);
    for row in 0..call.rows {
        let (Some(key), Some(value)) = (keys.get(row), values.get(row)) else {
            hashes.append_null();
            continue;
        };
        let mut mac = match &same {
            Some(mac) => mac.clone(),
            None => keyed::<M>(key)?,
        };
        mac.update(value);
        digits.clear();
        for byte in mac.finalize().into_bytes() {
            const HEX: [char; 16] = [
                '0', '1', '2', '3', '4', '5', '6', '7', '8', '9', 'a', 'b', 'c', 'd', 'e', 'f',
            ];
            digits.push(HEX[usize::from(byte >> 4)]);
            digits.push(HEX[usize::from(byte & 15)]);
        }
        hashes.append_value(&digits);
    }
    Ok(Arc::new(hashes.finish()))
}

fn keyed<M: Mac + KeyInit>(key: &[u8]) -> Result<M> {
    // An empty key is a setting that was not set; its digests can be guessed by anyone.
    if key.is_empty() {
        return exec_err!("the key of an HMAC is empty");
    }
    <M as KeyInit>::new_from_slice(key)
        .map_err(|error| exec_datafusion_err!("the key of an HMAC cannot be used: {error}"))
}
