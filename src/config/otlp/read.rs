//! Parses the values of `otlp`. Errors never contain a value that may be a secret.

use std::collections::BTreeMap;
use std::fmt;
use std::marker::PhantomData;
use std::path::PathBuf;

use serde::de::{Deserializer, Error, MapAccess, Unexpected, Visitor};
use serde::Deserialize;

use super::super::raw;
use super::super::values::{self, text_that};
use super::{Endpoint, HeaderSource, Tls, Url, MAX_ENDPOINTS};

/// Longest value of a header or an attribute (bytes).
const MAX_VALUE: usize = 8192;

pub(super) fn url<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Url, D::Error> {
    struct UrlText;
    impl Visitor<'_> for UrlText {
        type Value = Url;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a URL")
        }

        fn visit_str<E: Error>(self, text: &str) -> Result<Url, E> {
            Url::new(text).map_err(E::custom)
        }
    }
    deserializer.deserialize_str(UrlText)
}

pub(super) fn username<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    let is = |text: &str| is_value(text) && !text.contains(':');
    text_that(deserializer, is, "a user name without a colon")
}

/// Whether the text is valid as a header's or an attribute's value.
fn is_value(text: &str) -> bool {
    !text.is_empty() && text.len() <= MAX_VALUE && !text.chars().any(char::is_control)
}

/// A map with string keys.
struct Map<T> {
    expected: &'static str,
    name: fn(&str) -> Option<String>,
    value: PhantomData<T>,
}

impl<'de, T: Deserialize<'de>> Visitor<'de> for Map<T> {
    type Value = BTreeMap<String, T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.expected)
    }

    /// A key without a value.
    fn visit_unit<E: Error>(self) -> Result<Self::Value, E> {
        Ok(BTreeMap::new())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut all = BTreeMap::new();
        while let Some((name, value)) = map.next_entry::<String, T>()? {
            let read = (self.name)(&name)
                .ok_or_else(|| A::Error::invalid_value(Unexpected::Str(&name), &self))?;
            if all.insert(read, value).is_some() {
                return Err(A::Error::custom(format!("duplicate field `{name}`")));
            }
        }
        Ok(all)
    }
}

/// Value of an attribute.
#[derive(Deserialize)]
struct Attribute(#[serde(deserialize_with = "attribute")] String);

fn attribute<'de, D: Deserializer<'de>>(deserializer: D) -> Result<String, D::Error> {
    text_that(deserializer, is_value, "text of at most 8192 bytes")
}

pub(super) fn attributes<'de, D>(deserializer: D) -> Result<BTreeMap<String, String>, D::Error>
where
    D: Deserializer<'de>,
{
    let all: BTreeMap<String, Attribute> = deserializer.deserialize_any(Map {
        expected: "a mapping of attribute names to text, such as deployment.environment.name: prod",
        name: |name| is_value(name).then(|| name.to_owned()),
        value: PhantomData,
    })?;
    Ok(all.into_iter().map(|(k, v)| (k, v.0)).collect())
}

pub(super) fn headers<'de, D>(deserializer: D) -> Result<BTreeMap<String, HeaderSource>, D::Error>
where
    D: Deserializer<'de>,
{
    deserializer.deserialize_any(Map {
        expected:
            "a mapping of header names to text, {file: PATH} or {env: NAME}; not headers that \
                   the transport sets",
        name: header_name,
        value: PhantomData,
    })
}

/// Headers that describe the body or the connection; the transport sets them.
const OF_TRANSPORT: [&str; 8] = [
    "connection",
    "content-encoding",
    "content-length",
    "content-type",
    "host",
    "te",
    "transfer-encoding",
    "upgrade",
];

/// A header's name in lower case, as HTTP/2 requires. gRPC reserves names that start with `grpc-`
/// and treats values of names that end in `-bin` as base64.
pub(crate) fn header_name(name: &str) -> Option<String> {
    let name = http::HeaderName::from_bytes(name.as_bytes()).ok()?;
    let name = name.as_str();
    let free =
        !OF_TRANSPORT.contains(&name) && !name.starts_with("grpc-") && !name.ends_with("-bin");
    free.then(|| name.to_owned())
}

impl<'de> Deserialize<'de> for HeaderSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Source)
    }
}

struct Source;

impl<'de> Visitor<'de> for Source {
    type Value = HeaderSource;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, {file: PATH} or {env: NAME}")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<HeaderSource, E> {
        // Never shown: the value may be a secret.
        if is_value(text) {
            Ok(HeaderSource::Value(text.to_owned()))
        } else {
            Err(E::custom(
                "expected one line of text, or {file: PATH} or {env: NAME}",
            ))
        }
    }

    // A number may be a secret too; serde's default errors would show it.
    fn visit_bool<E: Error>(self, _: bool) -> Result<HeaderSource, E> {
        Err(E::custom(QUOTES))
    }

    fn visit_i64<E: Error>(self, _: i64) -> Result<HeaderSource, E> {
        Err(E::custom(QUOTES))
    }

    fn visit_u64<E: Error>(self, _: u64) -> Result<HeaderSource, E> {
        Err(E::custom(QUOTES))
    }

    fn visit_f64<E: Error>(self, _: f64) -> Result<HeaderSource, E> {
        Err(E::custom(QUOTES))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<HeaderSource, A::Error> {
        let wrong = || A::Error::custom("expected one key, file or env");
        let source = match map.next_key::<String>()?.as_deref() {
            Some("file") => HeaderSource::File(map.next_value::<AbsolutePath>()?.0),
            Some("env") => HeaderSource::Env(map.next_value()?),
            _ => return Err(wrong()),
        };
        match map.next_key::<String>()? {
            None => Ok(source),
            Some(_) => Err(wrong()),
        }
    }
}

const QUOTES: &str = "expected text; put quotes around it";

#[derive(Deserialize)]
struct AbsolutePath(#[serde(deserialize_with = "values::absolute_path")] PathBuf);

impl raw::UniqueEntry for Endpoint {
    const EXPECTED: &'static str = "a list of endpoints with different URLs";
    const MOST: usize = MAX_ENDPOINTS;

    fn same(&self, other: &Self) -> bool {
        self.url == other.url
    }

    fn fault(&self) -> Option<&'static str> {
        let tls = &self.tls;
        if tls.cert_file.is_some() != tls.key_file.is_some() {
            return Some("expected cert_file and key_file together");
        }
        if *tls != Tls::default() && self.url.as_str().starts_with("http://") {
            return Some("expected https:// in the url if tls is set");
        }
        (self.basic_auth.is_some() && self.headers.contains_key("authorization"))
            .then_some("expected basic_auth or an authorization header, not both")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_names_are_in_lower_case_and_not_the_transports() {
        assert_eq!(header_name("X-Api-Key").as_deref(), Some("x-api-key"));
        for name in [
            "",
            "a b",
            "ü",
            "Content-Type",
            "TE",
            "grpc-timeout",
            "key-bin",
        ] {
            assert_eq!(header_name(name), None, "{name}");
        }
    }
}
