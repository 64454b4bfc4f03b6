//! Bytes that are to be text, as libFuzzer takes them.

/// What of it is text, from the start.
pub(crate) fn text(bytes: &[u8]) -> &str {
    bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid())
}
