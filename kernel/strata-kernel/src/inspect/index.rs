//! What indexes keep of a run, in lines: header and frames. What is in them says nothing to a reader.

use std::sync::Arc;

use super::manifest::place_of;
use super::show;
use super::{Line, Sink};
use crate::env::File;
use crate::run::{self, FrameKind};

pub fn inspect(file: &Arc<dyn File>, path: &str, sink: Sink<'_>) -> crate::error::Result<()> {
    let outline = match run::outline(file, path) {
        Ok(outline) => outline,
        Err(error) => {
            let (at, reason) = place_of(error);
            return sink(Line::problem(at, reason));
        }
    };
    let line = Line::new(0, "index")
        .with("bytes", outline.bytes)
        .with("database", show::id(&outline.database_id))
        .with("run", outline.run)
        .with_some("sealed_with_key", show::key_id(outline.key));
    sink(line)?;
    for (at, kind, bytes) in outline.frames {
        let name = if kind == FrameKind::Footer { "footer" } else { "part" };
        sink(Line::new(at, name).with("bytes", bytes))?;
    }
    Ok(())
}
