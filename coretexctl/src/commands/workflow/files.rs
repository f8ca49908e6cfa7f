//! Files with definitions, JSON or YAML.

use std::io::Read as _;
use std::path::Path;

use coretex_core::workflow::decode::{self, DecodeError, Definition};
use serde_json::{Map, Value};

use crate::failure::Failure;
use crate::output::note;

/// The text of a file; `-` is standard input.
pub(super) fn read(path: &Path) -> Result<String, Failure> {
    if path.as_os_str() == "-" {
        let mut text = String::new();
        return std::io::stdin()
            .read_to_string(&mut text)
            .map(|_| text)
            .map_err(|error| Failure::new("cannot read standard input").because(&error));
    }
    std::fs::read_to_string(path)
        .map_err(|error| Failure::new(format!("cannot read `{}`", path.display())).because(&error))
}

/// A definition out of a text: JSON if it looks like it, because that has the better messages, else YAML.
pub(super) fn parse(text: &str) -> Result<Definition, DecodeError> {
    if text.trim_start().starts_with('{') {
        decode::definition(text.as_bytes())
    } else {
        decode::yaml(text)
    }
}

/// A definition out of a file. What is ignored in it is said.
pub(super) fn definition(path: &Path) -> Result<Definition, Failure> {
    let name = path.display();
    let definition = parse(&read(path)?).map_err(|error| {
        let lines: Vec<String> = error
            .problems()
            .iter()
            .map(|problem| format!("\n  {problem}"))
            .collect();
        Failure::new(format!("`{name}` is no definition:{}", lines.concat()))
    })?;
    for warning in &definition.warnings {
        note(&format!("{name}: {warning}"));
    }
    Ok(definition)
}

/// What is sent of a definition: the members that the file has.
pub(super) fn body(definition: &Definition) -> Result<Value, Failure> {
    let document = serde_json::to_value(&definition.workflow)
        .map_err(|error| Failure::new("cannot render the definition").because(&error))?;
    let Value::Object(members) = document else {
        return Ok(document);
    };
    // Times are the server's to write.
    let sent = |name: &str| definition.given.contains(name) && !matches!(name, "created_at" | "updated_at");
    let body: Map<String, Value> = members.into_iter().filter(|(name, _)| sent(name)).collect();
    Ok(Value::Object(body))
}
