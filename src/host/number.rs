//! Numbers in files of the kernel: digits only, because `parse` accepts a sign.

/// A decimal number.
pub(super) fn decimal(digits: impl AsRef<[u8]>) -> Option<u64> {
    let digits = digits.as_ref();
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |n, b| {
        let digit = b.wrapping_sub(b'0');
        if digit > 9 {
            return None;
        }
        n.checked_mul(10)?.checked_add(u64::from(digit))
    })
}

/// A hexadecimal number without `0x`.
pub(super) fn hexadecimal(digits: impl AsRef<[u8]>) -> Option<u64> {
    let digits = std::str::from_utf8(digits.as_ref()).ok()?;
    let plain = digits.bytes().all(|b| b.is_ascii_hexdigit());
    u64::from_str_radix(digits, 16).ok().filter(|_| plain)
}
