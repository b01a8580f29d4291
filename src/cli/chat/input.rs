//! Standard input as lines of text.

use std::io::{BufRead, Error};

use tokio::sync::mpsc;

use crate::cli::exit::Exit;
use crate::cli::failure::Failure;

/// A line, or why it cannot be said.
pub(super) type Line = Result<String, Failure>;

/// The lines of standard input, read by a thread of their own: a read from a
/// terminal cannot be cancelled, and must not hold up the end.
pub(super) fn lines() -> mpsc::Receiver<Line> {
    let (sender, receiver) = mpsc::channel(16);
    std::thread::spawn(move || {
        for line in split(std::io::stdin().lock()) {
            if sender.blocking_send(line).is_err() {
                break;
            }
        }
    });
    receiver
}

/// Line by line, so that one that is no text does not take the others with it.
/// An input that cannot be read ends with why.
fn split(input: impl BufRead) -> impl Iterator<Item = Line> {
    let mut broken = false;
    let read = input.split(b'\n').map_while(move |line| {
        let before = std::mem::replace(&mut broken, line.is_err());
        (!before).then_some(line)
    });
    read.zip(1_u64..).map(|(line, number)| text(line, number))
}

fn text(line: Result<Vec<u8>, Error>, number: u64) -> Line {
    let mut line = line.map_err(|error| {
        Failure::new(Exit::Unavailable, format!("cannot read the input: {error}"))
    })?;
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    String::from_utf8(line).map_err(|_| {
        Failure::usage(format!("line {number} of the input must be UTF-8; it was not sent"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_that_is_no_text_is_told_by_its_number_and_the_rest_is_kept() {
        let input: &[u8] = b"good1\n\xff\xfe bad\r\n\ngood2\r\nlast";
        let read: Vec<_> =
            split(input).map(|line| line.map_err(|why| why.message().to_owned())).collect();
        let refused = "line 2 of the input must be UTF-8; it was not sent".to_owned();
        let said = |text: &str| Ok(text.to_owned());
        assert_eq!(read, [said("good1"), Err(refused), said(""), said("good2"), said("last")]);
    }

    #[test]
    fn an_input_that_cannot_be_read_is_told_once() {
        let directory = std::fs::File::open(".").expect("it opens");
        let read: Vec<_> = split(std::io::BufReader::new(directory)).collect();
        let exits: Vec<_> = read.into_iter().map(|line| line.map_err(|why| why.exit())).collect();
        assert_eq!(exits, [Err(Exit::Unavailable)]);
    }
}
