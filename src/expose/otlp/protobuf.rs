//! Encodes the parts of protobuf that OTLP metrics need.
//!
//! Encoding: protobuf.dev, "Encoding"; field numbers: opentelemetry-proto 1.x.

/// Wire type of `fixed64`, `sfixed64` and `double`.
const FIXED64: u32 = 1;

/// Wire type of length-delimited fields.
const LENGTH: u32 = 2;

/// Appends a variable-length integer.
#[inline]
pub(super) fn varint(out: &mut Vec<u8>, mut n: u64) {
    while n >= 0x80 {
        out.push(n as u8 | 0x80);
        n >>= 7;
    }
    out.push(n as u8);
}

/// Number of bytes that [`varint`] appends.
#[inline]
pub(super) fn varint_len(n: usize) -> usize {
    let bits = usize::BITS - (n | 1).leading_zeros();
    bits.div_ceil(7) as usize
}

fn tag(out: &mut Vec<u8>, field: u32, wire: u32) {
    varint(out, u64::from(field << 3 | wire));
}

/// Appends a variable-length integer as field `field`.
pub(super) fn uint(out: &mut Vec<u8>, field: u32, n: u64) {
    tag(out, field, 0);
    varint(out, n);
}

/// Appends eight bytes as field `field`, which must be below 16.
#[inline]
pub(super) fn fixed64(out: &mut Vec<u8>, field: u8, n: u64) {
    let mut bytes = [0; 9];
    bytes[0] = field << 3 | FIXED64 as u8;
    bytes[1..].copy_from_slice(&n.to_le_bytes());
    out.extend_from_slice(&bytes);
}

/// Appends the head of a field of `len` bytes, which the caller appends.
pub(super) fn head(out: &mut Vec<u8>, field: u32, len: usize) {
    tag(out, field, LENGTH);
    varint(out, len as u64);
}

/// Appends bytes, a string or a message as field `field`.
pub(super) fn bytes(out: &mut Vec<u8>, field: u32, content: &[u8]) {
    head(out, field, content.len());
    out.extend_from_slice(content);
}

/// Appends an attribute (`KeyValue`) with a string value as field `field` of a point or a resource.
pub(super) fn attribute(out: &mut Vec<u8>, field: u32, key: &str, value: &str) {
    // KeyValue { key = 1, value = 2 }, AnyValue { string_value = 1 }
    let any = 1 + varint_len(value.len()) + value.len();
    let pair = 1 + varint_len(key.len()) + key.len() + 1 + varint_len(any) + any;
    head(out, field, pair);
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
        fn the_length_of_a_number_is_known_before(n: usize) {
            let mut out = Vec::new();
            varint(&mut out, n as u64);
            prop_assert_eq!(out.len(), varint_len(n));
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
