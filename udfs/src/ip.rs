//! IP addresses, kept as text.

use std::borrow::Cow;
use std::net::IpAddr;
use std::sync::Arc;

use datafusion::arrow::array::{BooleanArray, Int64Array};
use datafusion::arrow::datatypes::DataType;
use datafusion::common::{DataFusionError, Result, exec_datafusion_err};
use datafusion::logical_expr::ScalarUDF;

use crate::scalar::{Parameter, Takes, Told, pure, texts_of};
use crate::values::Texts;

const IP: Parameter = (
    "ip",
    Takes::Text,
    "the address; NULL, and text that is no address, give NULL",
);

/// The functions of this room.
pub(crate) fn functions() -> Vec<ScalarUDF> {
    vec![
        pure(
            Told {
                name: "is_ip",
                parameters: &[("text", Takes::Text, "any text; NULL gives NULL")],
                returns: DataType::Boolean,
                about: "Whether a text is an IPv4 or IPv6 address.",
                example: "SELECT is_ip('10.0.0.256') -- false",
            },
            |call| {
                let texts = call.texts(0)?;
                let verdicts = (0..call.rows)
                    .map(|row| texts.get(row).map(|text| text.parse::<IpAddr>().is_ok()))
                    .collect::<BooleanArray>();
                Ok(Arc::new(verdicts))
            },
        ),
        pure(
            Told {
                name: "ip_version",
                parameters: &[IP],
                returns: DataType::Int64,
                about: "4 or 6, the version of an IP address.",
                example: "SELECT ip_version('2001:db8::1') -- 6",
            },
            |call| {
                let texts = call.texts(0)?;
                let versions = (0..call.rows)
                    .map(|row| match texts.get(row)?.parse().ok()? {
                        IpAddr::V4(_) => Some(4),
                        IpAddr::V6(_) => Some(6),
                    })
                    .collect::<Int64Array>();
                Ok(Arc::new(versions))
            },
        ),
        pure(
            Told {
                name: "ip_normalize",
                parameters: &[IP],
                returns: DataType::Utf8,
                about: "The one spelling of an IP address: IPv6 in lower case and as short as RFC 5952 has it, an IPv4 address inside IPv6 as IPv4.",
                example: "SELECT ip_normalize('2001:DB8:0:0:0:0:0:1') -- 2001:db8::1",
            },
            |call| {
                let texts = call.texts(0)?;
                Ok(texts_of(call.rows, |row| {
                    let text = texts.get(row)?;
                    match text.parse::<IpAddr>().ok()? {
                        // Only one spelling of IPv4 is read, so it is the text itself.
                        IpAddr::V4(_) => Some(Cow::from(text)),
                        ip => Some(Cow::from(ip.to_canonical().to_string())),
                    }
                }))
            },
        ),
        pure(
            Told {
                name: "ip_in_cidr",
                parameters: &[
                    IP,
                    (
                        "cidr",
                        Takes::Text,
                        "the network, as in 10.0.0.0/8; NULL gives NULL, text that is no network is an error",
                    ),
                ],
                returns: DataType::Boolean,
                about: "Whether an IP address is in a network. An IPv4 address inside IPv6 counts as IPv4; the two never hold each other's addresses.",
                example: "SELECT ip_in_cidr('10.1.2.3', '10.0.0.0/8') -- true",
            },
            |call| {
                let (ips, cidrs) = (call.texts(0)?, call.texts(1)?);
                // Mostly one network for all rows: read once.
                let same = match &cidrs {
                    Texts::Same(text) => Some(text.map(Network::read).transpose()?),
                    _ => None,
                };
                let verdicts = (0..call.rows)
                    .map(|row| {
                        let network = match &same {
                            Some(network) => *network,
                            None => cidrs.get(row).map(Network::read).transpose()?,
                        };
                        let ip = ips.get(row).and_then(|text| text.parse().ok());
                        Ok(network.zip(ip).map(|(network, ip)| network.holds(ip)))
                    })
                    .collect::<Result<BooleanArray>>()?;
                Ok(Arc::new(verdicts))
            },
        ),
    ]
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Network {
    /// The address as a number, its bits after the prefix cleared.
    start: u128,
    mask: u128,
    v6: bool,
}

impl Network {
    fn read(text: &str) -> Result<Self> {
        let wrong = |why: &str| -> DataFusionError {
            exec_datafusion_err!("'{text}' is not a network: {why}")
        };
        let (ip, digits) = text
            .split_once('/')
            .ok_or_else(|| wrong("it is written address/length, as in 10.0.0.0/8"))?;
        let ip: IpAddr = ip.parse().map_err(|_| wrong("its address is not one"))?;
        let bits = if ip.is_ipv6() { 128 } else { 32 };
        let length = digits
            .parse()
            .ok()
            // `/08` and `/+8` are slips.
            .filter(|length: &u32| *length <= bits && length.to_string() == digits)
            .ok_or_else(|| wrong(&format!("its length is not one of 0 to {bits}")))?;
        let ones = u128::MAX.checked_shl(bits - length).unwrap_or(0);
        let mask = ones & (u128::MAX >> (128 - bits));
        let (number, v6) = number(ip);
        Ok(Self {
            start: number & mask,
            mask,
            v6,
        })
    }

    fn holds(&self, ip: IpAddr) -> bool {
        let ip = if self.v6 { ip } else { ip.to_canonical() };
        let (number, v6) = number(ip);
        v6 == self.v6 && number & self.mask == self.start
    }
}

fn number(ip: IpAddr) -> (u128, bool) {
    match ip {
        IpAddr::V4(ip) => (u128::from(ip.to_bits()), false),
        IpAddr::V6(ip) => (ip.to_bits(), true),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn holds(network: &str, ip: &str) -> bool {
        Network::read(network).unwrap().holds(ip.parse().unwrap())
    }

    #[test]
    fn networks_hold_their_addresses() {
        assert!(holds("10.0.0.0/8", "10.255.0.1"));
        assert!(!holds("10.0.0.0/8", "11.0.0.0"));
        assert!(holds("10.1.2.3/24", "10.1.2.0"));
        assert!(holds("192.0.2.7/32", "192.0.2.7"));
        assert!(!holds("192.0.2.7/32", "192.0.2.8"));
        assert!(holds("0.0.0.0/0", "255.255.255.255"));
        assert!(!holds("0.0.0.0/0", "::1"));
        assert!(holds("10.0.0.0/8", "::ffff:10.0.0.1"));
        assert!(holds("::ffff:0:0/96", "::ffff:10.0.0.1"));
        assert!(holds("2001:db8::/32", "2001:db8:ffff::1"));
        assert!(!holds("2001:db8::/32", "2001:db9::"));
        assert!(holds("::/0", "ffff::"));
        assert!(holds("::1/128", "::1"));
        assert!(!holds("::/0", "1.2.3.4"));
    }

    #[test]
    fn what_is_no_network_says_why() {
        for (text, why) in [
            ("10.0.0.0", "address/length"),
            ("10.0.0/8", "its address"),
            ("10.0.0.0/33", "0 to 32"),
            ("10.0.0.0/", "0 to 32"),
            ("10.0.0.0/08", "0 to 32"),
            ("10.0.0.0/+8", "0 to 32"),
            ("::/129", "0 to 128"),
            ("", "address/length"),
        ] {
            let error = Network::read(text).unwrap_err().to_string();
            assert!(error.contains(why), "{text}: {error}");
        }
    }
}
