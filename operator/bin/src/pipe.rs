//! What happens when the reader of our output goes away, as in `netsplit status | head -1`.

use std::io::{self, StdoutLock, Write};

/// What a shell says of a command that a closed pipe has ended.
const CLOSED: i32 = 141;

/// End in silence at the next line printed, as every command in a pipeline does; Rust's default is a panic with a message.
///
/// Not by the signal that others end by: it is sent for a closed socket, too, and a supervisor that goes away must be
/// told, not suffered.
pub fn end_when_closed() {
    let usual = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        // The words of `println!`; nothing else tells.
        let words = panic.payload_as_str().unwrap_or_default();
        if words.starts_with("failed printing to stdout") && words.contains("Broken pipe") {
            std::process::exit(CLOSED);
        }
        usual(panic);
    }));
}

/// Standard output for bytes that are no lines of ours; ends as [`end_when_closed`] does.
pub struct Output(StdoutLock<'static>);

impl Output {
    pub fn lock() -> Self {
        Self(io::stdout().lock())
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        end_if_closed(self.0.write(bytes))
    }

    fn flush(&mut self) -> io::Result<()> {
        end_if_closed(self.0.flush())
    }
}

fn end_if_closed<T>(written: io::Result<T>) -> io::Result<T> {
    if written.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::BrokenPipe) {
        std::process::exit(CLOSED);
    }
    written
}
