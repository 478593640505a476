//! A run in lines: header, footer, what it has of each branch, every frame, and the first rows.

use std::sync::Arc;

use super::manifest::place_of;
use super::show;
use super::{Line, Sink};
use crate::env::File;
use crate::error::{Error, Result};
use crate::run::frames::{self, Frame, Frames};
use crate::run::{FrameKind, Row};
use crate::seal::{self, GivenKeys};
use crate::table::Version;

pub fn inspect(file: &Arc<dyn File>, path: &str, rows: u64, keys: Option<&GivenKeys>, sink: Sink<'_>) -> Result<()> {
    let cipher = |database_id, run, key| super::cipher(keys, database_id, seal::Kind::Run, run, key);
    let mut reader = Reader { frames: Frames::new(file, path, &cipher)?, rows, sink };
    reader.header(path)?;
    let end = reader.footer()?;
    reader.frames(end)
}

struct Reader<'a> {
    frames: Frames,
    /// How many are still to be shown.
    rows: u64,
    sink: Sink<'a>,
}

impl Reader<'_> {
    fn header(&mut self, path: &str) -> Result<()> {
        let frames = &self.frames;
        if let Err(error) = frames.check_header() {
            let (at, reason) = place_of(error);
            (self.sink)(Line::problem(at, reason))?;
        }
        let line = Line::new(0, "run")
            .with("format", frames::FORMAT)
            .with("bytes", frames.size())
            .with("database", show::id(&frames.database_id()))
            .with("number", frames.number())
            .with_some("sealed_with_key", show::key_id(frames.key()));
        (self.sink)(line)?;
        let named = path.rsplit('/').next().and_then(crate::run::number_of);
        if named.is_some_and(|named| named != frames.number()) {
            let reason = format!("it says that it is run {}, and its name does not", frames.number());
            (self.sink)(Line::problem(32, reason))?;
        }
        Ok(())
    }

    /// The footer and its spans; returns where the other frames end.
    fn footer(&mut self) -> Result<u64> {
        let (at, length) = match self.frames.tail() {
            Ok(place) => place,
            Err(error) => {
                let (at, reason) = damage(error)?;
                (self.sink)(Line::problem(at, reason))?;
                return Ok(self.frames.size());
            }
        };
        match self.frames.footer(at, length) {
            Ok(None) => (self.sink)(Line::new(at, "footer").with("sealed", "yes"))?,
            Ok(Some(footer)) => {
                let line = Line::new(at, "footer")
                    .with("rows", footer.rows)
                    .with("keys", footer.keys)
                    .with("raw_bytes", footer.raw_bytes)
                    .with("branches", footer.spans.len())
                    .with("index_blocks", footer.index_blocks);
                (self.sink)(line)?;
                for span in &footer.spans {
                    let line = Line::new(at, "span")
                        .with("branch", span.branch)
                        .with("rows", span.rows)
                        .with("oldest", span.oldest)
                        .with("newest", span.newest);
                    (self.sink)(line)?;
                }
            }
            Err(error) => {
                let (at, reason) = damage(error)?;
                (self.sink)(Line::problem(at, reason))?;
            }
        }
        Ok(at)
    }

    fn frames(&mut self, end: u64) -> Result<()> {
        let mut at = frames::FIRST;
        while at < end {
            match self.frames.frame(at, end) {
                Ok(frame) => {
                    self.frame(&frame)?;
                    at += frame.bytes;
                }
                Err(error) => {
                    let (_, reason) = damage(error)?;
                    let next = self.frames.next(at, end)?;
                    let gap = next.unwrap_or(end) - at;
                    let goes_on = if next.is_some() { "frames go on" } else { "there are no more frames, the end is" };
                    (self.sink)(Line::problem(at, format!("{reason}; {goes_on} {gap} bytes further")))?;
                    at = next.unwrap_or(end);
                }
            }
        }
        (self.sink)(Line::new(at, "end").with("bytes", self.frames.size().saturating_sub(at)))
    }

    fn frame(&mut self, frame: &Frame) -> Result<()> {
        let line = Line::new(frame.at, "frame")
            .with("holds", frame.kind.name())
            .with("bytes", frame.bytes)
            .with("raw_bytes", frame.raw_bytes)
            .with("codec", show::codec(frame.codec))
            .with_some("sealed", frame.is_sealed.then_some("yes"))
            .with_some("rows", frame.rows);
        (self.sink)(line)?;
        if let Some(reason) = &frame.damage {
            (self.sink)(Line::problem(frame.at, *reason))?;
        }
        if frame.kind == FrameKind::Block && self.rows > 0 {
            return self.show_rows(frame);
        }
        Ok(())
    }

    fn show_rows(&mut self, frame: &Frame) -> Result<()> {
        let (left, sink) = (&mut self.rows, &mut self.sink);
        let outcome = self.frames.rows(frame, &mut |row| {
            sink(line_of(frame.at, &row))?;
            *left -= 1;
            Ok(*left > 0)
        });
        match outcome {
            Ok(()) => Ok(()),
            Err(error) => {
                let (at, reason) = damage(error)?;
                (self.sink)(Line::problem(at, reason))
            }
        }
    }
}

/// Place and reason of damage; another error, as one of the disk or of whoever takes the lines, is passed on.
fn damage(error: Error) -> Result<(u64, String)> {
    match error {
        Error::Corrupt { .. } => Ok(place_of(error)),
        other => Err(other),
    }
}

fn line_of(at: u64, row: &Row<'_>) -> Line {
    let Row { branch, keyspace, key, version } = row;
    let line = Line::new(at, "row").with("branch", *branch).with("keyspace", show::keyspace(*keyspace));
    row_line(line.with("key", show::key(key)), version)
}

/// What a row says beside where it belongs.
pub fn row_line(line: Line, version: &Version<'_>) -> Line {
    line.with("version", version.version)
        .with("does", does(version.kind))
        .with_some("value", version.value.map(show::value))
        .with_some("bytes", version.value.map(<[u8]>::len))
        .with_some("expires", (version.expires > 0).then_some(version.expires))
}

fn does(kind: crate::table::ChangeKind) -> &'static str {
    use crate::table::ChangeKind::{Add, Append, Delete, Patch, Put};
    match kind {
        Put => "put",
        Delete => "delete",
        Patch => "patch",
        Append => "append",
        Add => "add",
    }
}
