//! Fuzzing of response heads.

use super::{DROPPED, Head, KEEP_ALIVE, MAX_BYTES, MAX_FIELDS, end_of_head};

/// Takes bytes as a guest's CGI head, and as lines for `/dev/faas/response`.
///
/// # Panics
///
/// If an accepted head has a field that only the server may set, or a head does not end at its first empty line.
pub(in crate::modes::wasm) fn response_head(bytes: &[u8]) {
    let end = end_of_head(bytes);
    let mut length = 0;
    let mut expected = None;
    for line in bytes.split_inclusive(|byte| *byte == b'\n') {
        length += line.len();
        if line == b"\n" || line == b"\r\n" {
            expected = Some(length);
            break;
        }
    }
    assert_eq!(end, expected);
    if let Some(end) = end {
        assert_eq!(
            end_of_head(&bytes[..end - 1]),
            None,
            "it ends before its end"
        );
        let mut head = Head::default();
        if head.add_cgi(&bytes[..end]).is_ok() {
            assert!(end <= MAX_BYTES + 1);
            check(&head);
        }
    }

    let mut head = Head::default();
    for line in bytes.split(|byte| *byte == b'\n') {
        let before = (head.status, head.headers.clone());
        match head.add_line(line) {
            Ok(()) => {}
            Err(_) => assert_eq!((head.status, head.headers.clone()), before),
        }
    }
    check(&head);
    // A CGI head may follow lines that were written to the device.
    let _ = head.add_cgi(bytes);
    check(&head);
}

fn check(head: &Head) {
    if let Some(status) = head.status {
        assert!((200..600).contains(&status.as_u16()), "{status}");
    }
    assert!(head.headers.len() <= 2 * MAX_FIELDS);
    for (name, value) in &head.headers {
        assert!(!DROPPED.contains(name), "{name}");
        assert!(name != KEEP_ALIVE && name != "status", "{name}");
        let bytes = value.as_bytes();
        assert!(
            !bytes.iter().any(|byte| matches!(byte, b'\r' | b'\n' | 0)),
            "{bytes:?}"
        );
        assert_eq!(bytes.trim_ascii(), bytes);
    }
    assert!(head.headers.get_all("content-type").iter().count() <= 1);
    assert!(head.headers.get_all("location").iter().count() <= 1);
}
