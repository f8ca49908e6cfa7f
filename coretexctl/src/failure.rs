//! What can go wrong, as a person and a script see it.

use std::fmt::Write as _;
use std::process::ExitCode;

/// What went wrong, as the exit code says it. Documented in `docs/cli.md`; a code never changes its meaning.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    /// 1: the server answered with an error, or something failed here.
    Failed,
    /// 2: the command line is wrong. clap uses the same code.
    Usage,
    /// 3: there is no such thing.
    NotFound,
    /// 4: the server understood and said no: missing or wrong key, not allowed, not in a state for it.
    Refused,
    /// 5: no answer from the server.
    Unreachable,
    /// 6: the job that was waited for ended, but not well.
    JobNotSucceeded,
    /// 7: the wait was over before the job was.
    WaitOver,
    /// 0: whoever read our output has seen enough.
    ClosedPipe,
}

/// A failure: what happened, and what to try next.
#[derive(Debug)]
pub(crate) struct Failure {
    kind: Kind,
    message: String,
    hint: Option<String>,
}

impl Failure {
    /// A plain failure.
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self::of(Kind::Failed, message)
    }

    /// The command line is wrong.
    pub(crate) fn usage(message: impl Into<String>) -> Self {
        Self::of(Kind::Usage, message)
    }

    /// A failure of this kind.
    pub(crate) fn of(kind: Kind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
            hint: None,
        }
    }

    /// Adds a cause with all causes beneath it.
    pub(crate) fn because(mut self, error: &(dyn std::error::Error + 'static)) -> Self {
        let mut cause = Some(error);
        while let Some(error) = cause {
            let text = error.to_string();
            // Drivers like to repeat their source in their own text.
            if !self.message.contains(&text) {
                // Writing to a String cannot fail.
                let _ = write!(self.message, ": {text}");
            }
            cause = error.source();
        }
        self
    }

    /// Says what to try next.
    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// What kind it is.
    pub(crate) fn kind(&self) -> Kind {
        self.kind
    }

    /// Writes it to stderr.
    pub(crate) fn report(&self) {
        if self.kind == Kind::ClosedPipe {
            return;
        }
        crate::output::complain(&self.message);
        if let Some(hint) = &self.hint {
            crate::output::note(&format!("  try: {hint}"));
        }
    }

    /// What the process ends with.
    pub(crate) fn exit_code(&self) -> ExitCode {
        ExitCode::from(match self.kind {
            Kind::ClosedPipe => 0,
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::NotFound => 3,
            Kind::Refused => 4,
            Kind::Unreachable => 5,
            Kind::JobNotSucceeded => 6,
            Kind::WaitOver => 7,
        })
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        if error.kind() == std::io::ErrorKind::BrokenPipe {
            Self::of(Kind::ClosedPipe, "the reader of our output is gone")
        } else {
            Self::new("cannot write the output").because(&error)
        }
    }
}
