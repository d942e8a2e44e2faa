//! Keeps secrets of request headers out of the log: receivers and proxies often quote request
//! headers in their answers.
//!
//! A message is omitted as a whole if it contains a piece of a header's value: plain, in base64 or
//! in hexadecimal, also with line breaks, escapes or truncation. A malicious receiver can encode a
//! value in another way, but it has the value anyway.

use std::collections::BTreeSet;

use base64::prelude::{Engine as _, BASE64_STANDARD, BASE64_STANDARD_NO_PAD};
use http::header::HeaderMap;
use percent_encoding::percent_decode_str;

use super::answer::Answer;

/// Characters of a piece.
const PIECE: usize = 8;

/// Shorter values are ordinary words that occur in any text.
const SHORTEST: usize = 4;

const LEFT_OUT: &str = "message omitted, because it quotes a header of the request";

/// Pieces of a request's header values.
pub(super) struct Secrets(BTreeSet<String>);

impl Secrets {
    /// Collects pieces of the headers that are marked as sensitive.
    pub(super) fn from_headers(headers: &HeaderMap) -> Self {
        let mut secrets = Self(BTreeSet::new());
        for value in headers.values().filter(|value| value.is_sensitive()) {
            let words: Vec<&[u8]> = value.as_bytes().split(u8::is_ascii_whitespace).collect();
            match words.as_slice() {
                // The scheme is not secret.
                [scheme, credentials @ ..] if !credentials.is_empty() => {
                    credentials.iter().for_each(|word| secrets.add(word));
                    if scheme.eq_ignore_ascii_case(b"Basic") {
                        credentials
                            .iter()
                            .for_each(|word| secrets.add_password(word));
                    }
                }
                _ => secrets.add(value.as_bytes()),
            }
        }
        secrets
    }

    fn add_password(&mut self, base64: &[u8]) {
        let pair = BASE64_STANDARD.decode(base64).unwrap_or_default();
        if let Some(colon) = pair.iter().position(|byte| *byte == b':') {
            self.add(pair.get(colon + 1..).unwrap_or_default());
        }
    }

    fn add(&mut self, secret: &[u8]) {
        self.add_pieces(secret);
        if secret.len() < SHORTEST {
            return;
        }
        let hex: String = secret.iter().map(|byte| format!("{byte:02x}")).collect();
        self.add_pieces(hex.as_bytes());
        // Three bytes make four digits, so the digits depend on the offset.
        for before in 0..3 {
            let bytes = [&[0; 2][..before], secret].concat();
            let digits = BASE64_STANDARD_NO_PAD.encode(bytes);
            // The first and last digit also encode neighboring bytes.
            let own = digits.get(before + 1..digits.len() - 1);
            self.add_pieces(own.unwrap_or_default().as_bytes());
        }
    }

    fn add_pieces(&mut self, secret: &[u8]) {
        let plain = plain(secret);
        match plain.len() {
            0..SHORTEST => {}
            SHORTEST..=PIECE => drop(self.0.insert(plain)),
            // `plain` is ASCII.
            length => self.0.extend(
                (0..=length - PIECE).filter_map(|at| plain.get(at..at + PIECE).map(Into::into)),
            ),
        }
    }

    fn are_in(&self, text: &str) -> bool {
        let unescaped: Vec<u8> = percent_decode_str(text).collect();
        let texts = [plain(text.as_bytes()), plain(&unescaped)];
        let cut = |text: &str, piece: &str| {
            let mut parts = (SHORTEST..piece.len()).filter_map(|end| piece.get(..end));
            parts.any(|part| text.ends_with(part))
        };
        let quotes = |text: &str, piece: &str| text.contains(piece) || cut(text, piece);
        let is_quoted = |piece| texts.iter().any(|text| quotes(text, piece));
        self.0.iter().any(|piece| is_quoted(piece))
    }

    /// Returns the answer without messages that quote a header.
    pub(super) fn hide(&self, mut answer: Answer) -> Answer {
        let text = match &mut answer {
            Answer::Delivered { message, .. } => message.as_mut(),
            Answer::Retry { reason, .. } | Answer::Refused { reason } => Some(reason),
        };
        if let Some(text) = text.filter(|text| self.are_in(text)) {
            *text = self.without(text);
        }
        answer
    }

    /// The text before the first colon is the exporter's own, the rest is the receiver's.
    fn without(&self, text: &str) -> String {
        match text.split_once(": ") {
            Some((ours, _)) if !self.are_in(ours) => format!("{ours}: {LEFT_OUT}"),
            _ => LEFT_OUT.to_owned(),
        }
    }
}

/// Letters and digits only, in lower case, so that encodings, line breaks and escapes do not
/// matter.
fn plain(text: &[u8]) -> String {
    let kept = text.iter().filter(|byte| byte.is_ascii_alphanumeric());
    kept.map(|byte| char::from(byte.to_ascii_lowercase()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use http::header::HeaderValue;

    const TOKEN: &str = "Bearer glc_eyJvIjoiMTIzNDU2IiwibiI6InB1c2gifQ==";

    fn hidden(values: &[&str], text: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert("user-agent", HeaderValue::from_static("not-a-secret/1.0"));
        for value in values {
            let mut value = HeaderValue::from_str(value).unwrap();
            value.set_sensitive(true);
            headers.append("authorization", value);
        }
        let reason = format!("the receiver answered 401 Unauthorized: {text}");
        let answer = Secrets::from_headers(&headers).hide(Answer::Refused {
            reason: reason.clone(),
        });
        let Answer::Refused { reason: shown } = answer else {
            panic!("{answer:?}");
        };
        assert!(
            shown.starts_with("the receiver answered 401 Unauthorized: "),
            "{shown}"
        );
        shown != reason
    }

    #[test]
    fn message_that_quotes_a_header_is_omitted() {
        for text in [
            "bad header Authorization: Bearer glc_eyJvIjoiMTIzNDU2IiwibiI6InB1c2gifQ==",
            "GLC_EYJVIJOIMTIZNDU2",
            "cut off: glc_eyJvIjoi",
            "cut off: glc_ey",
            "in the middle JvIjoiMTIz of it",
            "broken glc_ey\\nJvIjoi MTIzN",
            "escaped glc%5FeyJvIjoiM%54IzNDU2",
            // base64 of the header, and of one byte more before the value
            "QmVhcmVyIGdsY19leUp2SWpvaU1USXpORFUySWl3aWJpSTZJbkIxYzJnaWZRPT0=",
            "eGdsY19leUp2SWpvaU1USXpORFUySWl3aWJpSTZJbkIxYzJnaWZRPT0=",
            "676c635f65794a76496a6f69",
        ] {
            assert!(hidden(&[TOKEN], text), "{text}");
        }
    }

    #[test]
    fn a_password_is_known_beside_its_encoding() {
        // RFC 7617, section 2: Aladdin:open sesame
        let basic = "Basic QWxhZGRpbjpvcGVuIHNlc2FtZQ==";
        assert!(hidden(&[basic], "QWxhZGRpbjpvcGVuIHNlc2FtZQ=="));
        assert!(hidden(&[basic], "wrong password 'open sesame'"));
        assert!(!hidden(&[basic], "no user Aladdin"));
    }

    #[test]
    fn other_messages_stay() {
        for text in [
            "Bearer token is missing",
            "not-a-secret/1.0 is too old",
            "no such tenant",
            "",
        ] {
            assert!(!hidden(&[TOKEN, "1", "abc"], text), "{text}");
        }
        assert!(hidden(&["prod"], "no such tenant: prod"));
    }
}
