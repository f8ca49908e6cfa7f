//! Values while an expression is evaluated: mostly borrowed from the scope, and back to JSON at the end.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Deref;
use std::rc::Rc;

use jiff::{SignedDuration, Timestamp};
use serde_json::Value;

use super::number::Num;
use super::{MAX_RESULT, MAX_VALUE_DEPTH, display};

/// Why something cannot be done; the evaluator adds where.
pub(super) type Fault = Cow<'static, str>;

/// Text of the scope or of the expression, or text that was made.
#[derive(Clone)]
pub(super) enum Text<'a> {
    Ref(&'a str),
    Own(Rc<String>),
}

impl Deref for Text<'_> {
    type Target = str;

    fn deref(&self) -> &str {
        match self {
            Self::Ref(text) => text,
            Self::Own(text) => text,
        }
    }
}

impl fmt::Debug for Text<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

impl PartialEq for Text<'_> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl Eq for Text<'_> {}

impl PartialOrd for Text<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Text<'_> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        (**self).cmp(&**other)
    }
}

/// A value of the language.
#[derive(Debug, Clone)]
pub(super) enum Val<'a> {
    Null,
    Bool(bool),
    Num(Num),
    Text(Text<'a>),
    /// An array or an object that was given.
    Json(&'a Value),
    /// A list that was made.
    List(Rc<Vec<Val<'a>>>),
    /// A map that was made.
    Map(Rc<BTreeMap<Text<'a>, Val<'a>>>),
    Time(Timestamp),
    Span(SignedDuration),
}

impl<'a> Val<'a> {
    pub(super) fn of(value: &'a Value) -> Self {
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(*value),
            Value::Number(value) => Self::Num(Num::from_json(value)),
            Value::String(value) => Self::Text(Text::Ref(value)),
            Value::Array(_) | Value::Object(_) => Self::Json(value),
        }
    }

    /// Takes a value apart; `count` grows by how many there were in it.
    pub(super) fn owned(value: Value, count: &mut usize) -> Self {
        *count += 1;
        match value {
            Value::Null => Self::Null,
            Value::Bool(value) => Self::Bool(value),
            Value::Number(value) => Self::Num(Num::from_json(&value)),
            Value::String(value) => Self::text(value),
            Value::Array(items) => Self::list(items.into_iter().map(|item| Self::owned(item, count)).collect()),
            Value::Object(members) => Self::map(
                members
                    .into_iter()
                    .map(|(key, value)| (Text::Own(Rc::new(key)), Self::owned(value, count)))
                    .collect(),
            ),
        }
    }

    pub(super) fn text(text: String) -> Self {
        Self::Text(Text::Own(Rc::new(text)))
    }

    pub(super) fn list(items: Vec<Self>) -> Self {
        Self::List(Rc::new(items))
    }

    pub(super) fn map(members: BTreeMap<Text<'a>, Self>) -> Self {
        Self::Map(Rc::new(members))
    }

    pub(super) fn count(count: usize) -> Self {
        Self::Num(Num::count(count))
    }

    /// How many elements a list has.
    pub(super) fn list_len(&self) -> Option<usize> {
        match self {
            Self::Json(Value::Array(items)) => Some(items.len()),
            Self::List(items) => Some(items.len()),
            _ => None,
        }
    }

    /// How many members a map has.
    pub(super) fn map_len(&self) -> Option<usize> {
        match self {
            Self::Json(Value::Object(members)) => Some(members.len()),
            Self::Map(members) => Some(members.len()),
            _ => None,
        }
    }

    pub(super) fn element(&self, index: usize) -> Option<Self> {
        match self {
            Self::Json(Value::Array(items)) => items.get(index).map(Val::of),
            Self::List(items) => items.get(index).cloned(),
            _ => None,
        }
    }

    pub(super) fn member(&self, key: &str) -> Option<Self> {
        match self {
            Self::Json(Value::Object(members)) => members.get(key).map(Val::of),
            Self::Map(members) => members.get(&Text::Ref(key)).cloned(),
            _ => None,
        }
    }

    /// The keys of a map in order.
    pub(super) fn keys(&self) -> Option<Vec<Text<'a>>> {
        match self {
            Self::Json(Value::Object(members)) => {
                let mut keys: Vec<_> = members.keys().map(|key| Text::Ref(key.as_str())).collect();
                keys.sort();
                Some(keys)
            }
            Self::Map(members) => Some(members.keys().cloned().collect()),
            _ => None,
        }
    }

    /// The elements of a list.
    pub(super) fn elements(&self) -> Option<Vec<Self>> {
        match self {
            Self::Json(Value::Array(items)) => Some(items.iter().map(Val::of).collect()),
            Self::List(items) => Some(items.to_vec()),
            _ => None,
        }
    }

    /// What `type(x)` says.
    pub(super) fn type_name(&self) -> &'static str {
        match self {
            Self::Null => "null",
            Self::Bool(_) => "bool",
            Self::Num(Num::Int(_)) => "int",
            Self::Num(Num::Double(_)) => "double",
            Self::Text(_) => "string",
            Self::Json(Value::Object(_)) | Self::Map(_) => "map",
            Self::Json(_) | Self::List(_) => "list",
            Self::Time(_) => "timestamp",
            Self::Span(_) => "duration",
        }
    }

    /// docs/spec/expressions.md §5.
    pub(super) fn truthy(&self) -> bool {
        match self {
            Self::Null => false,
            Self::Bool(value) => *value,
            Self::Num(number) => !number.is_zero(),
            Self::Text(text) => !text.is_empty(),
            _ => true,
        }
    }
}

/// Makes JSON of values, as long as it does not become too large.
#[derive(Debug)]
pub(super) struct Sink {
    left: usize,
}

impl Default for Sink {
    fn default() -> Self {
        Self { left: MAX_RESULT }
    }
}

impl Sink {
    /// For a result of at most that many bytes.
    pub(super) fn limited(bytes: usize) -> Self {
        Self { left: bytes }
    }

    pub(super) fn take(&mut self, bytes: usize) -> Result<(), Fault> {
        self.left = self
            .left
            .checked_sub(bytes)
            .ok_or_else(|| Fault::from("result is too large"))?;
        Ok(())
    }

    pub(super) fn value(&mut self, value: Val<'_>) -> Result<Value, Fault> {
        self.convert(value, 0)
    }

    fn convert(&mut self, value: Val<'_>, depth: usize) -> Result<Value, Fault> {
        self.take(8)?;
        deep(depth)?;
        Ok(match value {
            Val::Null => Value::Null,
            Val::Bool(value) => Value::Bool(value),
            Val::Num(number) => match number.to_json() {
                Some(number) => Value::Number(number),
                None => return Err(format!("{} is not a value a result can have", display::number(number)).into()),
            },
            Val::Text(text) => {
                self.take(text.len())?;
                Value::String(match text {
                    Text::Ref(text) => text.to_owned(),
                    Text::Own(text) => Rc::try_unwrap(text).unwrap_or_else(|shared| (*shared).clone()),
                })
            }
            Val::Json(value) => self.copy(value, depth)?,
            Val::List(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.convert(item.clone(), depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Val::Map(members) => {
                let mut out = serde_json::Map::new();
                for (key, value) in members.iter() {
                    self.take(key.len())?;
                    out.insert(key.to_string(), self.convert(value.clone(), depth + 1)?);
                }
                Value::Object(out)
            }
            time @ (Val::Time(_) | Val::Span(_)) => Value::String(display::text(&time)),
        })
    }

    /// A copy of JSON.
    pub(super) fn copy(&mut self, value: &Value, depth: usize) -> Result<Value, Fault> {
        self.take(8)?;
        deep(depth)?;
        Ok(match value {
            Value::String(text) => {
                self.take(text.len())?;
                Value::String(text.clone())
            }
            Value::Array(items) => Value::Array(
                items
                    .iter()
                    .map(|item| self.copy(item, depth + 1))
                    .collect::<Result<_, _>>()?,
            ),
            Value::Object(members) => {
                let mut out = serde_json::Map::new();
                for (key, value) in members {
                    self.take(key.len())?;
                    out.insert(key.clone(), self.copy(value, depth + 1)?);
                }
                Value::Object(out)
            }
            scalar => scalar.clone(),
        })
    }
}

/// What is read back from a store must not be nested deeper than JSON readers go.
pub(super) fn deep(depth: usize) -> Result<(), Fault> {
    if depth > MAX_VALUE_DEPTH {
        return Err(format!("value is nested deeper than {MAX_VALUE_DEPTH} levels").into());
    }
    Ok(())
}
