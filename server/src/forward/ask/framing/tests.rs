//! Answers in every cut of their bytes.

use proptest::prelude::*;

use super::super::head::parse;
use super::*;

/// What became of an answer that came in `pieces`, and then the stream's end.
fn read(method: &Method, pieces: &[&[u8]]) -> Result<(StatusCode, Vec<u8>, Option<HeaderMap>), AskError> {
    let mut pieces = pieces.iter();
    let mut rest = Bytes::new();
    let mut more = |rest: &mut Bytes| {
        let piece = pieces.next();
        *rest = [rest, piece.copied().unwrap_or_default()].concat().into();
        piece.is_some()
    };
    let (response, mut framing) = loop {
        if let Some(found) = parse(&mut rest, method)? {
            break found;
        }
        if !more(&mut rest) {
            return Err(AskError::Incomplete);
        }
    };
    let (mut body, mut trailers) = (Vec::new(), None);
    loop {
        match framing.step(&mut rest)? {
            Step::Data(data) => body.extend_from_slice(&data),
            Step::Trailers(fields) => trailers = Some(fields),
            Step::Over => return Ok((response.status(), body, trailers)),
            Step::More => {
                if !more(&mut rest) {
                    framing.end()?;
                }
            }
        }
    }
}

fn whole(method: Method, answer: &str) -> String {
    match read(&method, &[answer.as_bytes()]) {
        Ok((status, body, trailers)) => {
            let trailers = trailers.map(|trailers| format!(" {trailers:?}")).unwrap_or_default();
            format!("{} {}{trailers}", status.as_u16(), String::from_utf8_lossy(&body))
        }
        Err(error) => error.to_string(),
    }
}

#[test]
fn a_body_ends_where_its_head_says() {
    let cases = [
        ("HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\nabcdef", "200 abc"),
        ("HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\nabc", "200 "),
        ("HTTP/1.1 200 OK\r\ncontent-length: 3, 3\r\n\r\nabc", "200 abc"),
        ("HTTP/1.1 200 OK\r\n\r\nabc", "200 abc"),
        ("HTTP/1.0 200 OK\r\n\r\nabc", "200 abc"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\n\r\n", "200 abcde"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ncontent-length: 1\r\n\r\n2\r\nab\r\n0\r\n\r\n", "200 ab"),
        ("HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n0\r\na: b\r\n\r\n", "200  {\"a\": \"b\"}"),
        ("HTTP/1.1 204 No Content\r\ncontent-length: 3\r\n\r\nabc", "204 "),
        ("HTTP/1.1 304 Not Modified\r\n\r\n", "304 "),
        ("HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\na: b\r\n\r\nHTTP/1.1 200 OK\r\n\r\nx", "200 x"),
        ("HTTP/1.1 101 Switching Protocols\r\nupgrade: x\r\n\r\nraw", "101 "),
    ];
    for (answer, told) in cases {
        assert_eq!(whole(Method::GET, answer), told, "{answer:?}");
    }
    assert_eq!(whole(Method::HEAD, "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\n"), "200 ");
}

#[test]
fn what_is_broken_is_never_taken_for_whole() {
    let incomplete = AskError::Incomplete.to_string();
    let cases = [
        "",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n",
    ];
    for answer in cases {
        assert_eq!(whole(Method::GET, answer), incomplete, "{answer:?}");
    }
    let malformed = [
        "SSH-2.0-x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ncontent-length: 1\r\ncontent-length: 2\r\n\r\nab",
        "HTTP/1.1 200 OK\r\ncontent-length: +1\r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: \r\n\r\na",
        "HTTP/1.1 200 OK\r\ncontent-length: 99999999999999999999\r\n\r\na",
        "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nx\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n;x\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n \r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nfffffffffffffffff\r\n\r\n",
    ];
    for answer in malformed {
        assert!(
            whole(Method::GET, answer).starts_with("the answer is no HTTP/1.1"),
            "{answer:?}: {}",
            whole(Method::GET, answer)
        );
    }
    let endless = format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1;{}", "x".repeat(2 * CHUNK_LINE_MAX));
    assert!(whole(Method::GET, &endless).starts_with("the answer is no"), "a line without an end is not kept");
}

proptest! {
    #[test]
    fn an_answer_is_the_same_in_whatever_pieces_it_comes(
        chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..40), 0..8),
        cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
    ) {
        let mut answer = b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
        for chunk in &chunks {
            answer.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
            answer.extend_from_slice(chunk);
            answer.extend_from_slice(b"\r\n");
        }
        answer.extend_from_slice(b"0\r\nx-end: yes\r\n\r\n");
        let mut cuts: Vec<_> = cuts.iter().map(|cut| cut.index(answer.len())).collect();
        cuts.sort_unstable();
        let mut pieces = Vec::new();
        let mut from = 0;
        for cut in cuts.into_iter().chain([answer.len()]) {
            pieces.push(&answer[from..cut]);
            from = cut;
        }
        let (status, body, trailers) = read(&Method::GET, &pieces).unwrap();
        prop_assert_eq!(status, StatusCode::OK);
        prop_assert_eq!(body, chunks.concat());
        prop_assert_eq!(&trailers.unwrap()["x-end"], "yes");
    }

    #[test]
    fn no_bytes_make_it_panic(answer in prop::collection::vec(any::<u8>(), 0..200), is_chunked: bool) {
        let head: &[u8] = if is_chunked { b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" } else { b"" };
        let _ = read(&Method::GET, &[head, &answer]);
    }
}
