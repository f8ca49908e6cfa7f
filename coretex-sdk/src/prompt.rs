//! The payload of a job that came in over HTTP or gRPC.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What the gateway writes behind the context pointer of a job that a client submitted.
///
/// A handler's input is always the *whole* document behind the pointer. For jobs of workflows and of other programs that
/// is whatever they put there; for jobs submitted to the gateway it is this, with the client's own `context` inside.
///
/// ```
/// use coretex_sdk::{Prompt, Worker};
/// use serde::Deserialize;
///
/// #[derive(Deserialize)]
/// struct Question { language: String }
///
/// let builder = Worker::builder().handle("job.ask", |_ctx, input: Prompt<Question>| async move {
///     let language = input.context.map_or_else(|| "en".to_owned(), |question| question.language);
///     Ok(format!("{} (in {language})", input.prompt))
/// });
/// # drop(builder);
/// ```
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(bound(deserialize = "T: Deserialize<'de>"))]
#[non_exhaustive]
pub struct Prompt<T = Value> {
    /// What was asked for.
    #[serde(default)]
    pub prompt: String,
    /// The client's own document, if there was one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<T>,
    /// The topic of the job.
    #[serde(default)]
    pub topic: String,
    /// Which adapter the client asked for.
    #[serde(default)]
    pub adapter_id: String,
    /// The tenant of the job.
    #[serde(default)]
    pub tenant_id: String,
    /// When the gateway took it, in RFC 3339.
    #[serde(default)]
    pub created_at: String,
}
