//! The functions (docs/spec/expressions.md §7). Each can be called as `f(x, y)` and as `x.f(y)`.

#![expect(clippy::unnecessary_wraps, reason = "all functions have one shape")]

mod convert;
mod lists;
mod text;
mod times;

use regex::{Regex, RegexBuilder};

use super::eval::Meter;
use super::value::{Fault, Val};

/// What a function does with its arguments, whose number was checked.
pub(super) type Body = for<'a> fn(&mut Meter, &[Val<'a>]) -> Result<Val<'a>, Fault>;

/// A function of the language.
#[derive(Debug)]
pub(super) struct Function {
    pub(super) name: &'static str,
    /// How many arguments it takes, with the value it is called on.
    pub(super) least: usize,
    pub(super) most: usize,
    pub(super) call: Body,
}

impl Function {
    const fn new(name: &'static str, least: usize, most: usize, call: Body) -> Self {
        Self {
            name,
            least,
            most,
            call,
        }
    }

    /// What to say about a call with `given` arguments.
    pub(super) fn wrong_count(&self, given: usize) -> String {
        let expected = match (self.least, self.most) {
            (1, 1) => "1 argument".to_owned(),
            (least, most) if least == most => format!("{least} arguments"),
            (least, usize::MAX) => format!("at least {least} arguments"),
            (least, most) => format!("{least} to {most} arguments"),
        };
        format!("{}() takes {expected}, got {given}", self.name)
    }
}

pub(super) const MATCHES: &str = "matches";
/// Evaluated by the evaluator, as their arguments may not be needed.
pub(super) const DEFAULT: &str = "default";
pub(super) const OR_VALUE: &str = "orValue";

const MANY: usize = usize::MAX;

static FUNCTIONS: [Function; 57] = [
    Function::new(DEFAULT, 2, MANY, first_of),
    Function::new(OR_VALUE, 2, MANY, first_of),
    Function::new("length", 1, 1, lists::length),
    Function::new("first", 1, 1, lists::first),
    Function::new("last", 1, 1, lists::last),
    Function::new("size", 1, 1, lists::size),
    Function::new("keys", 1, 1, lists::keys),
    Function::new("values", 1, 1, lists::values),
    Function::new("range", 1, 1, lists::range),
    Function::new("reverse", 1, 1, lists::reverse),
    Function::new("slice", 2, 3, lists::slice),
    Function::new("flatten", 1, 1, lists::flatten),
    Function::new("sort", 1, 1, lists::sort),
    Function::new("sum", 1, 1, lists::sum),
    Function::new("min", 1, MANY, lists::min),
    Function::new("max", 1, MANY, lists::max),
    Function::new("merge", 2, MANY, lists::merge),
    Function::new("startsWith", 2, 2, text::starts_with),
    Function::new("endsWith", 2, 2, text::ends_with),
    Function::new("contains", 2, 2, text::contains),
    Function::new(MATCHES, 2, 2, matches_any),
    Function::new("lower", 1, 1, text::lower),
    Function::new("lowerAscii", 1, 1, text::lower_ascii),
    Function::new("upper", 1, 1, text::upper),
    Function::new("upperAscii", 1, 1, text::upper_ascii),
    Function::new("trim", 1, 1, text::trim),
    Function::new("split", 2, 2, text::split),
    Function::new("join", 1, 2, text::join),
    Function::new("replace", 3, 3, text::replace),
    Function::new("substring", 2, 3, text::substring),
    Function::new("indexOf", 2, 2, text::index_of),
    Function::new("int", 1, 1, convert::int),
    Function::new("double", 1, 1, convert::double),
    Function::new("string", 1, 1, convert::string),
    Function::new("bool", 1, 1, convert::boolean),
    Function::new("type", 1, 1, convert::type_of),
    Function::new("same", 2, 2, convert::same),
    Function::new("json", 1, 1, convert::json),
    Function::new("parseJson", 1, 1, convert::parse_json),
    Function::new("abs", 1, 1, convert::abs),
    Function::new("ceil", 1, 1, convert::ceil),
    Function::new("floor", 1, 1, convert::floor),
    Function::new("round", 1, 1, convert::round),
    Function::new("isNaN", 1, 1, convert::is_nan),
    Function::new("isFinite", 1, 1, convert::is_finite),
    Function::new("timestamp", 1, 1, times::timestamp),
    Function::new("duration", 1, 1, times::duration),
    Function::new("getFullYear", 1, 2, times::full_year),
    Function::new("getMonth", 1, 2, times::month),
    Function::new("getDate", 1, 2, times::date),
    Function::new("getDayOfMonth", 1, 2, times::day_of_month),
    Function::new("getDayOfYear", 1, 2, times::day_of_year),
    Function::new("getDayOfWeek", 1, 2, times::day_of_week),
    Function::new("getHours", 1, 2, times::hours),
    Function::new("getMinutes", 1, 2, times::minutes),
    Function::new("getSeconds", 1, 2, times::seconds),
    Function::new("getMilliseconds", 1, 2, times::milliseconds),
];

/// The function of that name.
pub(super) fn find(name: &str) -> Option<&'static Function> {
    FUNCTIONS.iter().find(|function| function.name == name)
}

/// All their names.
pub(super) fn names() -> impl Iterator<Item = &'static str> {
    FUNCTIONS.iter().map(|function| function.name)
}

/// How large a compiled pattern may be, in bytes.
const PATTERN_SIZE: usize = 512 * 1024;
/// What compiling a pattern counts as.
const PATTERN_STEPS: usize = 5_000;

/// A compiled pattern. Matching takes time linear in the text.
pub(super) fn pattern(pattern: &str) -> Result<Regex, String> {
    RegexBuilder::new(pattern)
        .size_limit(PATTERN_SIZE)
        .dfa_size_limit(PATTERN_SIZE)
        .nest_limit(50)
        .build()
        .map_err(|error| match error {
            regex::Error::CompiledTooBig(_) => "pattern is too large".to_owned(),
            // The last line says what; those before draw where.
            error => format!(
                "bad pattern: {}",
                error
                    .to_string()
                    .lines()
                    .last()
                    .unwrap_or_default()
                    .trim_start_matches("error: ")
            ),
        })
}

/// `matches` with a pattern that was compiled before.
pub(super) fn matches<'a>(meter: &mut Meter, arguments: &[Val<'a>], regex: &Regex) -> Result<Val<'a>, Fault> {
    let text = string(arguments, 0)?;
    meter.bytes(text.len().saturating_mul(4))?;
    Ok(Val::Bool(regex.is_match(text)))
}

fn matches_any<'a>(meter: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>, Fault> {
    let source = string(arguments, 1)?;
    meter.charge(PATTERN_STEPS)?;
    meter.bytes(source.len().saturating_mul(32))?;
    let regex = pattern(source)?;
    matches(meter, arguments, &regex)
}

fn first_of<'a>(_: &mut Meter, arguments: &[Val<'a>]) -> Result<Val<'a>, Fault> {
    let found = arguments.iter().find(|value| !matches!(value, Val::Null));
    Ok(found.cloned().unwrap_or(Val::Null))
}

/// The argument at `index`; null if it was left out.
fn argument<'v, 'a>(arguments: &'v [Val<'a>], index: usize) -> &'v Val<'a> {
    arguments.get(index).unwrap_or(&Val::Null)
}

/// The argument at `index`, which has to be a string.
fn string<'v>(arguments: &'v [Val<'_>], index: usize) -> Result<&'v str, Fault> {
    match argument(arguments, index) {
        Val::Text(text) => Ok(text),
        other => Err(expected("a string", other)),
    }
}

/// The elements of the argument at `index`, which has to be a list.
fn list<'a>(meter: &mut Meter, arguments: &[Val<'a>], index: usize) -> Result<Vec<Val<'a>>, Fault> {
    let value = argument(arguments, index);
    meter.charge(value.list_len().unwrap_or(0))?;
    value.elements().ok_or_else(|| expected("a list", value))
}

/// Says that a value is of the wrong type.
fn expected(what: &str, got: &Val<'_>) -> Fault {
    let hint = if matches!(got, Val::Null) {
        "; default(x, y) replaces null"
    } else {
        ""
    };
    format!("expected {what}, got {}{hint}", got.type_name()).into()
}
