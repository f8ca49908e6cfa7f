//! `+ - * / %` (docs/spec/expressions.md §3.4).

use std::rc::Rc;

use super::ast::Arith;
use super::eval::Meter;
use super::number::Num;
use super::value::{Fault, Text, Val};

/// What `left` and `right` make.
pub(super) fn apply<'a>(meter: &mut Meter, how: Arith, left: Val<'a>, right: Val<'a>) -> Result<Val<'a>, Fault> {
    match (how, left, right) {
        (_, Val::Num(a), Val::Num(b)) => numbers(how, a, b).map(Val::Num),
        (Arith::Add, Val::Text(a), Val::Text(b)) => {
            // In place, if nobody else has it: a long chain costs what its result is long.
            let mut text = match a {
                Text::Own(text) => text,
                Text::Ref(text) => {
                    meter.bytes(text.len())?;
                    Rc::new(text.to_owned())
                }
            };
            if Rc::get_mut(&mut text).is_none() {
                meter.bytes(text.len())?;
            }
            meter.bytes(b.len())?;
            Rc::make_mut(&mut text).push_str(&b);
            Ok(Val::Text(Text::Own(text)))
        }
        (Arith::Add, Val::Time(time), Val::Span(span)) | (Arith::Add, Val::Span(span), Val::Time(time)) => {
            time.checked_add(span).map(Val::Time).map_err(|_| RANGE.into())
        }
        (Arith::Sub, Val::Time(time), Val::Span(span)) => {
            time.checked_sub(span).map(Val::Time).map_err(|_| RANGE.into())
        }
        (Arith::Sub, Val::Time(a), Val::Time(b)) => Ok(Val::Span(a.duration_since(b))),
        (Arith::Add, Val::Span(a), Val::Span(b)) => a.checked_add(b).map(Val::Span).ok_or(RANGE.into()),
        (Arith::Sub, Val::Span(a), Val::Span(b)) => a.checked_sub(b).map(Val::Span).ok_or(RANGE.into()),
        (Arith::Add, left, right) if left.list_len().is_some() && right.list_len().is_some() => {
            let mut items = match left {
                Val::List(items) => items,
                left => {
                    meter.charge(left.list_len().unwrap_or(0))?;
                    Rc::new(left.elements().unwrap_or_default())
                }
            };
            if Rc::get_mut(&mut items).is_none() {
                meter.charge(items.len())?;
            }
            meter.charge(right.list_len().unwrap_or(0))?;
            Rc::make_mut(&mut items).extend(right.elements().unwrap_or_default());
            Ok(Val::List(items))
        }
        (_, left, right) => {
            let mut message = format!(
                "cannot apply `{}` to {} and {}",
                how.symbol(),
                left.type_name(),
                right.type_name()
            );
            if matches!(left, Val::Null) || matches!(right, Val::Null) {
                message.push_str("; default(x, y) replaces null");
            } else if matches!(left, Val::Text(_)) || matches!(right, Val::Text(_)) {
                message.push_str("; convert with string(), int() or double()");
            }
            Err(message.into())
        }
    }
}

const RANGE: &str = "time out of range";

fn numbers(how: Arith, a: Num, b: Num) -> Result<Num, Fault> {
    let (Num::Int(left), Num::Int(right)) = (a, b) else {
        let (a, b) = (a.as_f64(), b.as_f64());
        return Ok(Num::Double(match how {
            Arith::Add => a + b,
            Arith::Sub => a - b,
            Arith::Mul => a * b,
            Arith::Div => a / b,
            Arith::Rem => a % b,
        }));
    };
    if right == 0 && matches!(how, Arith::Div | Arith::Rem) {
        return Err("division by zero".into());
    }
    let result = match how {
        Arith::Add => left.checked_add(right),
        Arith::Sub => left.checked_sub(right),
        Arith::Mul => left.checked_mul(right),
        Arith::Div => left.checked_div(right),
        Arith::Rem => left.checked_rem(right),
    };
    result.and_then(Num::int).ok_or(OVERFLOW.into())
}

/// An integer that is none any more.
pub(super) const OVERFLOW: &str = "integer overflow";

/// The value below zero.
pub(super) fn negate<'a>(value: &Val<'a>, odd: bool) -> Result<Val<'a>, Fault> {
    match value {
        value @ (Val::Num(_) | Val::Span(_)) if !odd => Ok(value.clone()),
        Val::Num(Num::Int(value)) => Num::int(-value).map(Val::Num).ok_or(OVERFLOW.into()),
        Val::Num(Num::Double(value)) => Ok(Val::Num(Num::Double(-value))),
        Val::Span(value) => value.checked_neg().map(Val::Span).ok_or(RANGE.into()),
        other => Err(format!("cannot apply `-` to {}", other.type_name()).into()),
    }
}
