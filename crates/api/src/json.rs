//! Request bodies: bounded, strict, and refused in our own words.

use axum::body::Body;
use futures::StreamExt;
use serde::de::DeserializeOwned;

use crate::problem::{Problem, ProblemCode};

/// The longest body of `POST /api/auth/start`: injected files, together and escaped as JSON.
pub(crate) const START_LIMIT: usize = 12 * 1024 * 1024;

/// The longest body of everything else: a WebRTC offer.
pub(crate) const USUAL_LIMIT: usize = 128 * 1024;

/// Reads a JSON body of at most `limit` bytes. Unknown and duplicate fields are refused (by the
/// types), deep nesting by `serde_json`.
pub(crate) async fn read<T: DeserializeOwned>(body: Body, limit: usize) -> Result<T, Problem> {
    parse(&collect(body, limit).await?)
}

/// What [`collect`] gave, as JSON.
pub(crate) fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, Problem> {
    // serde takes an array of the fields' values for a struct.
    if bytes.trim_ascii_start().first().is_some_and(|first| *first != b'{') {
        return Err(Problem::bad_request("the request body must be a JSON object"));
    }
    serde_json::from_slice(bytes).map_err(|error| {
        let cause = match error.is_syntax() && is_json(bytes) {
            // An enum's, of anything but a string.
            true => "expected a string".to_owned(),
            false => for_callers(&error.to_string()),
        };
        // Where serde speaks of a value, it does not say whose.
        let of_value = ["invalid type", "invalid value", "unknown variant", "expected a string"];
        let field = of_value.iter().any(|start| cause.starts_with(start));
        let field = field.then(|| last_key(before(bytes, &error))).flatten();
        Problem::bad_request(match field {
            Some(field) => {
                format!("the request body's field {field} is not valid for this route: {cause}")
            }
            None => format!("the request body is not valid for this route: {cause}"),
        })
    })
}

/// The types that serde names in a sentence, as a caller knows them.
fn for_callers(sentence: &str) -> String {
    const NUMBERS: [(&str, &str); 2] = [
        ("expected u64", "expected a whole number of 0 or more"),
        ("expected u32", "expected a whole number from 0 to 4294967295"),
    ];
    let mut said = sentence.to_owned();
    for (rust, ours) in NUMBERS {
        said = said.replace(rust, ours);
    }
    match said.split_once("expected struct ") {
        Some((start, rest)) => {
            let rest = rest.trim_start_matches(|c: char| c.is_ascii_alphanumeric());
            format!("{start}expected an object{rest}")
        }
        None => said,
    }
}

fn is_json(bytes: &[u8]) -> bool {
    serde_json::from_slice::<serde::de::IgnoredAny>(bytes).is_ok()
}

/// What comes before the place that an error names.
fn before<'a>(bytes: &'a [u8], error: &serde_json::Error) -> &'a [u8] {
    let lines = bytes.split_inclusive(|byte| *byte == b'\n').take(error.line().saturating_sub(1));
    let end = lines.map(<[u8]>::len).sum::<usize>().saturating_add(error.column());
    &bytes[..end.min(bytes.len())]
}

/// The last key of an object in a piece of JSON: a string with a colon behind it.
fn last_key(json: &[u8]) -> Option<String> {
    let mut last = None;
    let mut rest = json;
    while let Some(start) = rest.iter().position(|byte| *byte == b'"') {
        let text = &rest[start + 1..];
        let end = end_of_string(text)?;
        rest = &text[end + 1..];
        if rest.trim_ascii_start().first() == Some(&b':') {
            last = Some(String::from_utf8_lossy(&text[..end]).into_owned());
        }
    }
    last
}

/// Where the quotation mark is that ends a string.
fn end_of_string(text: &[u8]) -> Option<usize> {
    let mut escaped = false;
    text.iter().position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })
}

/// The body's bytes.
pub(crate) async fn collect(body: Body, limit: usize) -> Result<Vec<u8>, Problem> {
    let mut chunks = body.into_data_stream();
    let mut bytes = Vec::new();
    while let Some(chunk) = chunks.next().await {
        let chunk = chunk.map_err(|_| Problem::bad_request("the request body is incomplete"))?;
        if bytes.len().saturating_add(chunk.len()) > limit {
            let detail = format!("the request body is larger than {limit} bytes");
            return Err(Problem::new(ProblemCode::BodyTooLarge, detail));
        }
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::{NewKey, StartRequest};

    fn refused<T: DeserializeOwned>(body: &str) -> String {
        parse::<T>(body.as_bytes()).map(drop).unwrap_err().detail
    }

    #[test]
    fn a_value_is_refused_with_its_field_and_no_type_of_ours() {
        let start =
            |rest: &str| refused::<StartRequest>(&format!("{{\"provider\":\"a\",\n{rest}}}"));
        for (body, field, expected) in [
            (r#""ttlSeconds":-1"#, "ttlSeconds", "expected a whole number of 0 or more"),
            (r#""ttlSeconds" : 1.5, "userId":"b""#, "ttlSeconds", "expected a whole number of 0"),
            (r#""userId":5"#, "userId", "expected a string"),
            (r#""files":[5]"#, "files", "expected an object"),
            (r#""files":5"#, "files", "expected a sequence"),
            (
                r#""files":[{"path":"\":","content":"","mode":4294967296}]"#,
                "mode",
                "expected a whole number from 0 to 4294967295",
            ),
        ] {
            let said = start(body);
            let begins = format!("the request body's field {field} is not valid for this route: ");
            assert!(said.starts_with(&begins), "{said}");
            assert!(said.contains(expected), "{said}");
        }
        let said = refused::<NewKey>(r#"{"name":"a","role":"owner"}"#);
        assert!(said.contains("field role is") && said.contains("`caller` or `admin`"), "{said}");
        let said = refused::<NewKey>(r#"{"name":"a","role":5}"#);
        assert!(
            said.ends_with("field role is not valid for this route: expected a string"),
            "{said}"
        );
        // These name theirs.
        for (body, says) in
            [("{}", "missing field `provider`"), (r#"{"x":1}"#, "unknown field `x`")]
        {
            let said = refused::<StartRequest>(body);
            assert!(said.starts_with("the request body is not valid for this route: "), "{said}");
            assert!(said.contains(says), "{said}");
        }
    }
}
