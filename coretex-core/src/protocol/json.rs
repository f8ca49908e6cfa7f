//! Protobuf JSON of the CAP messages. See `docs/spec/protocol.md` §9.
//!
//! Table driven: `tables` names every field once; `write` and `read` do the rest, straight into and from text.

mod read;
mod tables;
mod time;
mod write;

use std::fmt::Debug;

use serde::de::{DeserializeSeed, Deserializer, MapAccess};

pub use read::Input;
pub use write::ObjectWriter;

/// How unset fields, names and 64-bit integers are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Mode {
    /// All fields, lowerCamelCase; `null` for an absent message. What is stored, and what the policy routes answer.
    Full,
    /// Only what is set, lowerCamelCase. What the event stream and the dispatch environment carry.
    Compact,
    /// Only what is set, `snake_case`, 64-bit integers as plain numbers. What the job routes answer.
    Snake,
}

/// What to do with a member that the message does not have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Unknown {
    /// Fail, naming it.
    Reject,
    /// Pass over it, and over unknown names of enum values.
    Ignore,
}

/// A text that is not the message it should be.
#[derive(Debug, thiserror::Error)]
#[error("not a {message} in protobuf JSON")]
pub struct JsonError {
    message: &'static str,
    #[source]
    source: serde_json::Error,
}

/// One field of a message, as `proto/` declares it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct FieldInfo {
    /// Its number.
    pub number: u32,
    /// Its name in `proto/`.
    pub name: &'static str,
    /// Its name in JSON.
    pub json: &'static str,
    /// The type of its values, if that is an enum.
    pub enumeration: Option<&'static str>,
}

/// A message with a JSON form. Implemented for all of `coretex.agent.v1`, and not meant to be implemented elsewhere.
pub trait JsonMessage: prost::Message + Default + Debug {
    /// Its name, without the package.
    const NAME: &'static str;
    /// Its fields, in the order of `proto/`.
    const FIELDS: &'static [FieldInfo];

    /// Writes the members of the object.
    fn write_members(&self, writer: &mut ObjectWriter<'_>);

    /// Reads the value of one member; false, with the value still to be read, if there is no such member.
    ///
    /// # Errors
    /// The value is of the wrong type or out of range.
    fn read_member<'de, A: MapAccess<'de>>(&mut self, key: &str, input: &mut Input<'_, A>) -> Result<bool, A::Error>;
}

/// The message as JSON text.
pub fn to_json<M: JsonMessage>(message: &M, mode: Mode) -> String {
    let mut out = String::with_capacity(match mode {
        Mode::Full => 512,
        Mode::Compact | Mode::Snake => 256,
    });
    append_json(&mut out, message, mode);
    out
}

/// Appends the message as JSON text.
pub fn append_json<M: JsonMessage>(out: &mut String, message: &M, mode: Mode) {
    write::message(out, message, mode);
}

/// Reads a message, in either spelling of names and numbers. Members that it does not have are an error.
///
/// # Errors
/// [`JsonError`], whose source says which member is wrong, and where.
pub fn from_json<M: JsonMessage>(text: impl AsRef<[u8]>) -> Result<M, JsonError> {
    parse(text.as_ref(), Unknown::Reject)
}

/// Reads a message as [`from_json`] does, but passes over members that it does not have.
///
/// # Errors
/// [`JsonError`], whose source says which member is wrong, and where.
pub fn from_json_lenient<M: JsonMessage>(text: impl AsRef<[u8]>) -> Result<M, JsonError> {
    parse(text.as_ref(), Unknown::Ignore)
}

/// Reads a message out of parsed JSON.
///
/// # Errors
/// [`JsonError`], whose source says which member is wrong.
pub fn from_json_value<M: JsonMessage>(value: &serde_json::Value, unknown: Unknown) -> Result<M, JsonError> {
    read_with(value, unknown).map_err(|source| JsonError {
        message: M::NAME,
        source,
    })
}

fn parse<M: JsonMessage>(text: &[u8], unknown: Unknown) -> Result<M, JsonError> {
    let mut input = serde_json::Deserializer::from_slice(text);
    read_with(&mut input, unknown)
        .and_then(|message| input.end().map(|()| message))
        .map_err(|source| JsonError {
            message: M::NAME,
            source,
        })
}

fn read_with<'de, M: JsonMessage, D: Deserializer<'de>>(input: D, unknown: Unknown) -> Result<M, D::Error> {
    let mut message = M::default();
    read::Body {
        message: &mut message,
        unknown,
    }
    .deserialize(input)?;
    Ok(message)
}

#[cfg(test)]
mod tests;
