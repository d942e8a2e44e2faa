//! Encodes the parts of protobuf that OTLP metrics need.
//!
//! Encoding: protobuf.dev, "Encoding"; field numbers: opentelemetry-proto 1.x.

use prost::encoding::{encode_key, encode_varint, encoded_len_varint, WireType};

/// Length of a field below 16, with its head, whose content has `len` bytes.
pub(super) fn with_head(len: usize) -> usize {
    1 + encoded_len_varint(len as u64) + len
}

/// Appends eight bytes as field `field`, which must be below 16.
#[inline]
pub(super) fn fixed64(out: &mut Vec<u8>, field: u8, n: u64) {
    let mut bytes = [0; 9];
    bytes[0] = field << 3 | WireType::SixtyFourBit as u8;
    bytes[1..].copy_from_slice(&n.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends the head of a field of `len` bytes, which the caller appends.
pub(super) fn head(out: &mut Vec<u8>, field: u32, len: usize) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(len as u64, out);
}

/// Appends bytes, a string or a message as field `field`.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    head(out, field, content.len());
    out.extend_from_slice(content);
}

/// Appends an attribute (`KeyValue`) with a string value as field `field` of a point or a resource.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &str) {
    // KeyValue { key = 1, value = 2 }, AnyValue { string_value = 1 }
    let any = with_head(value.len());
    head(out, field, with_head(key.len()) + with_head(any));
    bytes(out, 1, key.as_bytes());
    head(out, 2, any);
    bytes(out, 1, value.as_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;
    use opentelemetry_proto::tonic::common::v1::any_value::Value;
    use opentelemetry_proto::tonic::resource::v1::Resource;
    use proptest::prelude::*;
    use prost::Message;

    proptest! {
        #[test]
        fn the_length_of_a_field_is_known_before(n: u32) {
            let mut out = Vec::new();
            head(&mut out, 15, n as usize);
            prop_assert_eq!(out.len() + n as usize, with_head(n as usize));
        }

        #[test]
        fn attributes_are_read_back(key in ".{0,200}", value in ".{0,20000}") {
            let mut out = Vec::new();
            attribute(&mut out, 1, &key, &value);
            let read = Resource::decode(&*out).unwrap().attributes.remove(0);
            prop_assert_eq!(read.key, key);
            prop_assert_eq!(read.value.unwrap().value, Some(Value::StringValue(value)));
        }
    }
}
