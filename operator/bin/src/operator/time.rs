//! Times as the API server writes them.

use k8s_openapi::jiff::Timestamp;

/// RFC 3339, to the second.
pub fn now() -> String {
    of_unix_ms(crate::session::unix_ms())
}

/// RFC 3339, to the millisecond where there are some.
pub fn of_unix_ms(ms: u64) -> String {
    let stamp = i64::try_from(ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    stamp.unwrap_or(Timestamp::UNIX_EPOCH).to_string()
}
