//! Why a value does not fit, in the words clients of the reference know.

use jsonschema::error::{TypeKind, ValidationErrorKind};
use jsonschema::{JsonType, ValidationError};
use serde_json::Value;

use super::Invalid;

/// Why a schema cannot be compiled.
pub(super) fn of_compilation(error: &ValidationError<'_>) -> String {
    if let ValidationErrorKind::Referencing(referencing) = error.kind() {
        // The loader's own words name what was asked for.
        if let jsonschema::ReferencingError::Unretrievable { source, .. } = referencing {
            return format!("{source}: a schema can only refer to its own parts");
        }
        return referencing.to_string();
    }
    let at = error.instance_path().as_str();
    format!("'{at}' does not validate: {}", of(error))
}

/// Every error once, in order. What is missing or too much at one place is one problem, as it was.
pub(super) fn explain(errors: &[ValidationError<'_>], base: &str) -> Vec<Invalid> {
    let mut told: Vec<Invalid> = Vec::new();
    for error in errors {
        let error = leaf(error);
        let pointer = error.instance_path().as_str().to_owned();
        let location = format!("{base}#{}", error.schema_path().as_str());
        if let ValidationErrorKind::Required { property } = error.kind()
            && let Some(before) = told
                .iter_mut()
                .find(|invalid| invalid.pointer == pointer && invalid.location == location)
        {
            before.reason.push_str(", ");
            before.reason.push_str(&quoted(property));
            continue;
        }
        told.push(Invalid {
            pointer,
            location,
            reason: of(error),
        });
    }
    told
}

/// The first cause of causes.
fn leaf<'a>(error: &'a ValidationError<'a>) -> &'a ValidationError<'a> {
    match error.kind() {
        ValidationErrorKind::AnyOf { context } | ValidationErrorKind::OneOfNotValid { context } => {
            match context.iter().find_map(|of_one| of_one.first()) {
                Some(cause) => leaf(cause),
                None => error,
            }
        }
        ValidationErrorKind::PropertyNames { error } => leaf(error),
        _ => error,
    }
}

fn of(error: &ValidationError<'_>) -> String {
    let found = error.instance().as_ref();
    match error.kind() {
        ValidationErrorKind::AdditionalItems { limit } => {
            format!("only {limit} items are allowed, but found {} items", size(found))
        }
        ValidationErrorKind::AdditionalProperties { unexpected } => {
            format!("additionalProperties {} not allowed", list(unexpected))
        }
        ValidationErrorKind::UnevaluatedProperties { unexpected } => {
            format!("unevaluatedProperties {} not allowed", list(unexpected))
        }
        ValidationErrorKind::AnyOf { .. } => "anyOf failed".to_owned(),
        ValidationErrorKind::OneOfNotValid { .. } => "oneOf failed".to_owned(),
        ValidationErrorKind::OneOfMultipleValid { .. } => "valid against more than one schema of oneOf".to_owned(),
        ValidationErrorKind::Constant { expected_value } => match &**expected_value {
            Value::Array(_) | Value::Object(_) => "const failed".to_owned(),
            plain => format!("value must be {plain}"),
        },
        ValidationErrorKind::Contains => "no item is what `contains` asks for".to_owned(),
        ValidationErrorKind::ContentEncoding { content_encoding } => {
            format!("value is not {content_encoding} encoded")
        }
        ValidationErrorKind::ContentMediaType { content_media_type } => {
            format!("value is not of mediatype {}", quote(content_media_type))
        }
        ValidationErrorKind::Enum { options } => match &**options {
            Value::Array(options) if options.iter().all(|option| !option.is_array() && !option.is_object()) => {
                let options: Vec<String> = options.iter().map(Value::to_string).collect();
                format!("value must be one of {}", options.join(", "))
            }
            _ => "enum failed".to_owned(),
        },
        ValidationErrorKind::ExclusiveMaximum { limit } => format!("must be < {limit} but found {found}"),
        ValidationErrorKind::ExclusiveMinimum { limit } => format!("must be > {limit} but found {found}"),
        ValidationErrorKind::Maximum { limit } => format!("must be <= {limit} but found {found}"),
        ValidationErrorKind::Minimum { limit } => format!("must be >= {limit} but found {found}"),
        ValidationErrorKind::MultipleOf { multiple_of } => format!("{found} not multipleOf {multiple_of}"),
        ValidationErrorKind::FalseSchema => "not allowed".to_owned(),
        ValidationErrorKind::Format { format } => format!("{} is not valid {}", quoted(found), quote(format)),
        ValidationErrorKind::MaxItems { limit } => {
            format!("maximum {limit} items required, but found {} items", size(found))
        }
        ValidationErrorKind::MinItems { limit } => {
            format!("minimum {limit} items required, but found {} items", size(found))
        }
        ValidationErrorKind::MaxLength { limit } => format!("length must be <= {limit}, but got {}", size(found)),
        ValidationErrorKind::MinLength { limit } => format!("length must be >= {limit}, but got {}", size(found)),
        ValidationErrorKind::MaxProperties { limit } => {
            format!(
                "maximum {limit} properties allowed, but found {} properties",
                size(found)
            )
        }
        ValidationErrorKind::MinProperties { limit } => {
            format!(
                "minimum {limit} properties allowed, but found {} properties",
                size(found)
            )
        }
        ValidationErrorKind::Not { .. } => "not failed".to_owned(),
        ValidationErrorKind::Pattern { pattern } => format!("does not match pattern {}", quote(pattern)),
        ValidationErrorKind::Required { property } => format!("missing properties: {}", quoted(property)),
        ValidationErrorKind::Type { kind } => format!("expected {}, but got {}", types(kind), kind_of(found)),
        ValidationErrorKind::UniqueItems => "items are not unique".to_owned(),
        _ => error.to_string(),
    }
}

fn types(kind: &TypeKind) -> String {
    match kind {
        TypeKind::Single(one) => one.as_str().to_owned(),
        TypeKind::Multiple(several) => {
            let words: Vec<&str> = several.iter().map(JsonType::as_str).collect();
            words.join(" or ")
        }
    }
}

/// Every number is a `number`.
fn kind_of(value: &Value) -> &'static str {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "boolean",
        Value::Number(_) => "number",
        Value::String(_) => "string",
        Value::Array(_) => "array",
        Value::Object(_) => "object",
    }
}

fn size(value: &Value) -> usize {
    match value {
        Value::String(text) => text.chars().count(),
        Value::Array(items) => items.len(),
        Value::Object(members) => members.len(),
        _ => 0,
    }
}

fn quoted(value: &Value) -> String {
    match value {
        Value::String(text) => quote(text),
        other => other.to_string(),
    }
}

fn quote(text: &str) -> String {
    format!("'{}'", text.replace('\\', "\\\\").replace('\'', "\\'"))
}

fn list(names: &[String]) -> String {
    let names: Vec<String> = names.iter().map(|name| quote(name)).collect();
    names.join(", ")
}
