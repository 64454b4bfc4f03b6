//! TLS hellos for tests.

/// A hello's message, with one host name or none, as browsers send it: with extensions that no server
/// knows (RFC 8701).
pub(crate) fn hello(name: Option<&str>) -> Vec<u8> {
    match name {
        Some(name) => hello_with(Some(&[(0, name)])),
        None => hello_with(None),
    }
}

/// A hello's message with these names, each with its type.
pub(crate) fn hello_with(names: Option<&[(u8, &str)]>) -> Vec<u8> {
    let sized = |bytes: &[u8]| {
        let length = u16::try_from(bytes.len()).unwrap();
        [&length.to_be_bytes()[..], bytes].concat()
    };
    let extension = |kind: u16, body: &[u8]| [&kind.to_be_bytes()[..], &sized(body)].concat();
    let mut extensions = extension(0x1a1a, &[]);
    if let Some(names) = names {
        let list: Vec<u8> = names
            .iter()
            .flat_map(|(kind, name)| [&[*kind][..], &sized(name.as_bytes())].concat())
            .collect();
        extensions.extend(extension(0, &sized(&list)));
    }
    // signature_algorithms, supported_versions; encrypted_client_hello as browsers feign it.
    extensions.extend(extension(13, &sized(&[4, 3, 8, 4])));
    extensions.extend(extension(43, &[2, 3, 4]));
    extensions.extend(extension(0xfe0d, &[0, 0, 1, 0, 1, 5, 0, 4, 1, 2, 3, 4, 0, 4, 5, 6, 7, 8]));
    let mut body = vec![3, 3];
    body.extend([9; 32]);
    body.push(32);
    body.extend([8; 32]);
    body.extend(sized(&[0x2a, 0x2a, 0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(sized(&extensions));
    let [_, high, middle, low] = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1, high, middle, low], &body[..]].concat()
}

/// A message in records of at most `step` bytes each.
pub(crate) fn records(message: &[u8], step: usize) -> Vec<u8> {
    let record = |fragment: &[u8]| {
        let [high, low] = u16::try_from(fragment.len()).unwrap().to_be_bytes();
        [&[22, 3, 1, high, low], fragment].concat()
    };
    message.chunks(step).flat_map(record).collect()
}
