//! A body as lines: none longer than a command's body may be, whatever the client sends.

use std::time::Duration;

use axum::body::Body;
use bytes::{Bytes, BytesMut};
use http_body_util::BodyExt as _;
use tokio::time::timeout;

use crate::{
    body::BODY_DISCARDED_BYTES_MAX,
    limits::{BODY_BYTES_MAX, BULK_FAREWELL_S},
};

/// A line that is not blank.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Line {
    /// All of it, without its end.
    Whole(Bytes),
    /// It is longer than [`BODY_BYTES_MAX`], so nothing of it was kept.
    TooLong,
}

/// Why no further line comes, although the body has not ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stopped {
    /// The client sends nothing.
    Idle,
    /// It will never send the rest.
    BrokenOff,
}

/// The lines of a request's body, as they arrive.
#[derive(Debug)]
pub(super) struct Lines {
    body: Body,
    arrival: Arrival,
    idle: Duration,
    splitter: Splitter,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Arrival {
    Going,
    Whole,
    BrokenOff,
}

impl Lines {
    pub(super) fn new(body: Body, idle: Duration) -> Self {
        Self { body, arrival: Arrival::Going, idle, splitter: Splitter::default() }
    }

    /// The next line that is not blank, and its number; `None` at the end. Cancel safe.
    pub(super) async fn next(&mut self) -> Result<Option<(u64, Line)>, Stopped> {
        loop {
            if let Some(line) = self.splitter.next() {
                return Ok(Some(line));
            }
            match self.arrival {
                Arrival::Going => timeout(self.idle, self.read()).await.map_err(|_| Stopped::Idle)?,
                Arrival::Whole => return Ok(self.splitter.finish()),
                Arrival::BrokenOff => return Err(Stopped::BrokenOff),
            }
        }
    }

    /// The number of the line after the last one that [`next`](Self::next) gave or skipped.
    pub(super) fn next_number(&self) -> u64 {
        self.splitter.count + 1
    }

    /// Asks for the body, and waits a moment for its beginning. A client that sent `Expect: 100-continue` is told to go on only
    /// if somebody reads before the answer begins.
    pub(super) async fn expect(&mut self) {
        let _ = timeout(Duration::from_secs(BULK_FAREWELL_S), self.read()).await;
    }

    /// Throws away what the client is still sending, within limits, so that it gets to read the answer.
    pub(super) async fn discard(&mut self) {
        let discarding = async {
            let mut length = 0;
            while length <= BODY_DISCARDED_BYTES_MAX
                && let Some(Ok(frame)) = self.body.frame().await
            {
                length += frame.data_ref().map_or(0, Bytes::len);
            }
        };
        if self.arrival == Arrival::Going {
            let _ = timeout(Duration::from_secs(BULK_FAREWELL_S), discarding).await;
        }
    }

    /// Cancel safe: a frame is either taken and kept, or not taken.
    async fn read(&mut self) {
        match self.body.frame().await {
            None => self.arrival = Arrival::Whole,
            Some(Err(_)) => self.arrival = Arrival::BrokenOff,
            Some(Ok(frame)) => {
                if let Ok(data) = frame.into_data() {
                    self.splitter.push(data);
                }
            }
        }
    }
}

/// Cuts bytes into lines, wherever the network cut them. A line ends with LF or CR LF, the last one also with the body.
#[derive(Debug, Default)]
struct Splitter {
    /// How many lines there were, the blank ones included.
    count: u64,
    /// What no line was cut from yet.
    rest: Bytes,
    /// The beginning of the line that goes on in `rest`; never more than [`BODY_BYTES_MAX`] and a CR.
    begun: BytesMut,
    /// That line has become too long.
    is_too_long: bool,
}

impl Splitter {
    /// More bytes, once [`next`](Self::next) has given all that the last ones held.
    fn push(&mut self, bytes: Bytes) {
        debug_assert!(self.rest.is_empty(), "bytes would be lost");
        self.rest = bytes;
    }

    /// The next line that has ended.
    fn next(&mut self) -> Option<(u64, Line)> {
        while let Some(end) = self.rest.iter().position(|byte| *byte == b'\n') {
            let mut part = self.rest.split_to(end + 1);
            part.truncate(end);
            if let Some(line) = self.end_line(part) {
                return Some(line);
            }
        }
        let part = std::mem::take(&mut self.rest);
        self.begin_line(&part);
        None
    }

    /// The last line, if the body ended without ending it.
    fn finish(&mut self) -> Option<(u64, Line)> {
        let is_begun = self.is_too_long || !self.begun.is_empty();
        if is_begun { self.end_line(Bytes::new()) } else { None }
    }

    fn begin_line(&mut self, part: &[u8]) {
        self.is_too_long |= self.begun.len() + part.len() > BODY_BYTES_MAX + 1;
        if self.is_too_long {
            // Its memory, too.
            self.begun = BytesMut::new();
        } else {
            self.begun.extend_from_slice(part);
        }
    }

    fn end_line(&mut self, part: Bytes) -> Option<(u64, Line)> {
        self.count += 1;
        let mut line = part;
        if self.is_too_long || !self.begun.is_empty() {
            self.begin_line(&line);
            line = std::mem::take(&mut self.begun).freeze();
        }
        if line.last() == Some(&b'\r') {
            line.truncate(line.len() - 1);
        }
        if std::mem::take(&mut self.is_too_long) || line.len() > BODY_BYTES_MAX {
            return Some((self.count, Line::TooLong));
        }
        (!line.trim_ascii().is_empty()).then_some((self.count, Line::Whole(line)))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The lines of a body that arrives in these pieces. Holds the splitter to its promise about memory after each.
    fn lines<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<(u64, Line)> {
        let (mut splitter, mut lines) = (Splitter::default(), Vec::new());
        for piece in pieces {
            splitter.push(Bytes::copy_from_slice(piece));
            lines.extend(std::iter::from_fn(|| splitter.next()));
            assert!(splitter.begun.len() <= BODY_BYTES_MAX + 1 && splitter.begun.capacity() <= 4 * BODY_BYTES_MAX);
        }
        lines.extend(splitter.finish());
        assert_eq!(splitter.finish(), None);
        lines
    }

    fn whole(number: u64, text: &str) -> (u64, Line) {
        (number, Line::Whole(Bytes::copy_from_slice(text.as_bytes())))
    }

    #[test]
    fn lines_are_numbered_and_blank_ones_count() {
        assert_eq!(lines([&b"a\n\n \t\r\nb\r\n\rc"[..]]), [whole(1, "a"), whole(4, "b"), whole(5, "\rc")]);
        assert_eq!(lines([&b""[..]]), []);
        assert_eq!(lines([&b"\n"[..]]), []);
        assert_eq!(lines([&b"a\n"[..], b"b"]), [whole(1, "a"), whole(2, "b")]);
    }

    #[test]
    fn a_line_may_be_as_long_as_a_body_and_no_longer() {
        let longest = "x".repeat(BODY_BYTES_MAX);
        for end in ["", "\n", "\r\n"] {
            assert_eq!(lines([format!("{longest}{end}").as_bytes()]), [whole(1, &longest)], "{end:?}");
            assert_eq!(lines([format!("{longest}x{end}").as_bytes()]), [(1, Line::TooLong)], "{end:?}");
        }
    }

    #[test]
    fn of_a_line_without_end_nothing_is_kept() {
        let piece = vec![b'x'; 64 * 1024];
        let pieces = std::iter::repeat_n(&piece[..], 1_000).chain([&b"\nnext"[..]]);
        assert_eq!(lines(pieces), [(1, Line::TooLong), whole(2, "next")]);
    }

    /// Short lines, long ones around the limit, and every kind of end.
    fn a_body() -> impl Strategy<Value = Vec<u8>> {
        let line = prop_oneof![
            4 => "[ a\r]{0,6}".prop_map(String::into_bytes),
            1 => (BODY_BYTES_MAX - 2..BODY_BYTES_MAX + 4).prop_map(|length| vec![b'x'; length]),
        ];
        let end = prop::sample::select(vec![&b"\n"[..], b"\r\n", b""]);
        prop::collection::vec((line, end), 0..8)
            .prop_map(|lines| lines.into_iter().flat_map(|(line, end)| [line, end.to_vec()].concat()).collect())
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        #[test]
        fn however_a_body_is_cut_into_pieces_its_lines_are_the_same(
            body in a_body(),
            cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..12),
        ) {
            let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(body.len() + 1)).collect();
            cuts.sort_unstable();
            cuts.push(body.len());
            let mut from = 0;
            let pieces: Vec<&[u8]> = cuts.iter().map(|to| &body[std::mem::replace(&mut from, *to)..*to]).collect();
            prop_assert_eq!(lines(pieces), lines([&body[..]]));
        }
    }
}
