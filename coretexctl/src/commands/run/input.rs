//! JSON on the command line: itself, a file, or standard input.

use std::io::Read as _;

use serde_json::{Map, Value};

use crate::failure::Failure;

/// The text behind an argument: `-` and `@-` are standard input, `@file` is a file; JSON is itself, and anything else is a
/// file, as it always was.
fn text(argument: &str) -> Result<String, Failure> {
    let path = match argument.strip_prefix('@') {
        Some(path) => path,
        None if argument == "-" => "-",
        None if is_json(argument) => return Ok(argument.to_owned()),
        None => argument,
    };
    if path == "-" {
        let mut text = String::new();
        return std::io::stdin()
            .read_to_string(&mut text)
            .map(|_| text)
            .map_err(|error| Failure::new("cannot read standard input").because(&error));
    }
    std::fs::read_to_string(path).map_err(|error| {
        Failure::new(format!("cannot read `{path}`"))
            .because(&error)
            .hint("JSON begins with `{`; a file is named as it is or as @FILE, standard input as -")
    })
}

/// Whether a text is meant to be JSON and not the name of a file.
fn is_json(argument: &str) -> bool {
    let text = argument.trim_start();
    text.starts_with(['{', '[', '"']) || serde_json::from_str::<Value>(text).is_ok()
}

/// Any JSON.
pub(crate) fn value(argument: &str) -> Result<Value, Failure> {
    let text = text(argument)?;
    serde_json::from_str(&text).map_err(|error| Failure::usage(format!("invalid json: {error}")))
}

/// An object.
pub(crate) fn object(argument: &str) -> Result<Map<String, Value>, Failure> {
    match value(argument)? {
        Value::Object(members) => Ok(members),
        other => Err(Failure::usage(format!(
            "the input has to be a JSON object, and this is {}",
            crate::doc::shorten(&other.to_string(), 40)
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_is_told_from_files() {
        for (text, json) in [
            ("{}", true),
            (" [1]", true),
            ("{broken", true),
            ("12", true),
            ("null", true),
            ("input.json", false),
        ] {
            assert_eq!(is_json(text), json, "{text}");
        }
        assert!(object("[1]").is_err() && object("{broken").is_err());
        assert_eq!(object(r#"{"a":1}"#).expect("an object").len(), 1);
        let file = std::env::temp_dir().join(format!("coretexctl-input-{}.json", std::process::id()));
        std::fs::write(&file, r#"{"b":2}"#).expect("written");
        let path = file.display().to_string();
        for argument in [path.clone(), format!("@{path}")] {
            assert_eq!(object(&argument).expect("an object")["b"], 2);
        }
        std::fs::remove_file(file).expect("removed");
        assert!(object("/no/such/file").is_err());
    }
}
