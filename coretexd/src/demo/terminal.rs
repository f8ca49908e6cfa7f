//! Talking to whoever started the demo. Data goes to stdout, everything else to stderr.

use std::io::{self, BufRead as _, IsTerminal as _, Write as _};

use indicatif::{ProgressBar, ProgressStyle};

/// What was answered to a question.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Answer {
    /// Yes.
    Yes,
    /// No, or nothing at all.
    No,
    /// There is nobody to ask.
    Nobody,
}

impl Answer {
    /// What a typed line means. Only a clear yes is one.
    fn parse(line: &str) -> Self {
        match line.trim().to_lowercase().as_str() {
            "y" | "yes" => Self::Yes,
            _ => Self::No,
        }
    }
}

/// The terminal, if there is one.
#[derive(Debug)]
pub(super) struct Terminal {
    somebody: bool,
}

impl Terminal {
    pub(super) fn new() -> Self {
        Self {
            somebody: io::stdin().is_terminal() && io::stderr().is_terminal(),
        }
    }

    /// Asks a question that is answered with yes or no; no is the default.
    pub(super) async fn ask(&self, question: &str) -> Answer {
        if !self.somebody {
            return Answer::Nobody;
        }
        let question = format!("{question} [y/N] ");
        let asked = tokio::task::spawn_blocking(move || {
            let mut stderr = anstream::stderr().lock();
            write!(stderr, "{question}")?;
            stderr.flush()?;
            let mut line = String::new();
            io::stdin().lock().read_line(&mut line)?;
            io::Result::Ok(line)
        });
        match asked.await {
            Ok(Ok(line)) => Answer::parse(&line),
            Ok(Err(_)) | Err(_) => Answer::Nobody,
        }
    }
}

/// Prints data. A reader that has seen enough is no error.
pub(super) fn print(text: &str) -> io::Result<()> {
    match writeln!(anstream::stdout().lock(), "{text}") {
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        outcome => outcome,
    }
}

/// Says something on the way.
pub(super) fn note(text: &str) {
    // If stderr is gone there is nobody left to tell.
    let _ = writeln!(anstream::stderr().lock(), "{text}");
}

/// A progress bar for so many jobs; shows on a terminal only.
pub(super) fn bar(jobs: usize) -> ProgressBar {
    let bar = ProgressBar::new(jobs as u64);
    if let Ok(style) = ProgressStyle::with_template("jobs [{bar:40}] {pos}/{len}") {
        bar.set_style(style.progress_chars("=> "));
    }
    bar
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_clear_yes_is_one() {
        for (line, answer) in [
            ("y\n", Answer::Yes),
            (" YES ", Answer::Yes),
            ("", Answer::No),
            ("\n", Answer::No),
            ("yep", Answer::No),
            ("n", Answer::No),
        ] {
            assert_eq!(Answer::parse(line), answer, "{line:?}");
        }
    }
}
