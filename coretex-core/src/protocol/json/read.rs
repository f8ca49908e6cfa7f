//! Text to messages.

use std::collections::BTreeMap;
use std::fmt::{self, Debug, Display};
use std::marker::PhantomData;

use base64::Engine;
use base64::alphabet::{STANDARD, URL_SAFE};
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use prost_types::Timestamp;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Unexpected, Visitor};

use super::tables::ProtoEnum;
use super::{JsonMessage, Unknown, time};

/// Fills a message from an object.
pub(super) struct Body<'m, M> {
    pub(super) message: &'m mut M,
    pub(super) unknown: Unknown,
}

impl<'de, M: JsonMessage> DeserializeSeed<'de> for Body<'_, M> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        input.deserialize_map(self)
    }
}

impl<'de, M: JsonMessage> Visitor<'de> for Body<'_, M> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "an object ({})", M::NAME)
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<(), A::Error> {
        let mut input = Input {
            map: &mut map,
            seen: 0,
            unknown: self.unknown,
        };
        while let Some(key) = input.map.next_key::<Key<'de>>()? {
            if self.message.read_member(key.as_str(), &mut input)? {
                continue;
            }
            match self.unknown {
                Unknown::Reject => {
                    return Err(A::Error::custom(format_args!(
                        "unknown field `{}` in {}",
                        key.as_str(),
                        M::NAME
                    )));
                }
                Unknown::Ignore => drop(input.map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(())
    }
}

/// A name, borrowed where the text allows it.
enum Key<'de> {
    Borrowed(&'de str),
    Owned(String),
}

impl Key<'_> {
    fn as_str(&self) -> &str {
        match self {
            Self::Borrowed(text) => text,
            Self::Owned(text) => text,
        }
    }
}

impl<'de> Deserialize<'de> for Key<'de> {
    fn deserialize<D: Deserializer<'de>>(input: D) -> Result<Self, D::Error> {
        struct KeyVisitor;

        impl<'de> Visitor<'de> for KeyVisitor {
            type Value = Key<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a field name")
            }

            fn visit_borrowed_str<E: Error>(self, text: &'de str) -> Result<Key<'de>, E> {
                Ok(Key::Borrowed(text))
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Key<'de>, E> {
                Ok(Key::Owned(text.to_owned()))
            }
        }

        input.deserialize_str(KeyVisitor)
    }
}

/// The object that is being read.
pub struct Input<'m, A> {
    map: &'m mut A,
    seen: u32,
    unknown: Unknown,
}

impl<A> Debug for Input<'_, A> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Input")
            .field("seen", &self.seen)
            .finish_non_exhaustive()
    }
}

impl<'de, A: MapAccess<'de>> Input<'_, A> {
    /// Reads the value of the present member, which may come once. Always true, for the tables' sake.
    pub(super) fn value<V: Read>(&mut self, number: u32, json: &str, slot: &mut V) -> Result<bool, A::Error> {
        let bit = 1_u32.checked_shl(number).unwrap_or(0);
        if self.seen & bit != 0 {
            return Err(A::Error::custom(format_args!("duplicate field `{json}`")));
        }
        self.seen |= bit;
        self.map
            .next_value_seed(Slot {
                slot,
                unknown: self.unknown,
            })
            .map_err(|error| in_field(json, &error))?;
        Ok(true)
    }

    /// Fails if there is a payload already.
    #[expect(clippy::unused_self, reason = "gives the error its type")]
    pub(super) fn only_payload(&self, json: &str, already: bool) -> Result<(), A::Error> {
        if already {
            return Err(A::Error::custom(format_args!("`{json}` is a second payload")));
        }
        Ok(())
    }
}

/// `budget.deadlineMs: ` before the reason; the position at its end survives.
fn in_field<E: Error + Display>(json: &str, error: &E) -> E {
    let reason = error.to_string();
    match reason.strip_prefix('`') {
        Some(inner) => E::custom(format_args!("`{json}.{inner}")),
        None => E::custom(format_args!("`{json}`: {reason}")),
    }
}

struct Slot<'s, V> {
    slot: &'s mut V,
    unknown: Unknown,
}

impl<'de, V: Read> DeserializeSeed<'de> for Slot<'_, V> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
        self.slot.read(input, self.unknown)
    }
}

/// A value of a field. `null` always means unset.
pub(super) trait Read {
    fn read<'de, D: Deserializer<'de>>(&mut self, input: D, unknown: Unknown) -> Result<(), D::Error>;
}

macro_rules! plain {
    ($($type:ty),+) => {$(
        impl Read for $type {
            fn read<'de, D: Deserializer<'de>>(&mut self, input: D, _: Unknown) -> Result<(), D::Error> {
                *self = Option::deserialize(input)?.unwrap_or_default();
                Ok(())
            }
        }
    )+};
}

plain!(bool, String, Vec<String>, BTreeMap<String, String>);

macro_rules! converted {
    ($($type:ty as $reader:ident),+) => {$(
        impl Read for $type {
            fn read<'de, D: Deserializer<'de>>(&mut self, input: D, _: Unknown) -> Result<(), D::Error> {
                *self = input.deserialize_any($reader)?;
                Ok(())
            }
        }
    )+};
}

converted!(i64 as Integer, f64 as Number, Vec<u8> as Base64, Option<Timestamp> as Time);

impl Read for i32 {
    fn read<'de, D: Deserializer<'de>>(&mut self, input: D, _: Unknown) -> Result<(), D::Error> {
        *self = narrow(input.deserialize_any(Integer)?)?;
        Ok(())
    }
}

impl Read for f32 {
    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding is what the field's type asks for"
    )]
    fn read<'de, D: Deserializer<'de>>(&mut self, input: D, _: Unknown) -> Result<(), D::Error> {
        let wide = input.deserialize_any(Number)?;
        let value = wide as Self;
        if value.is_infinite() && wide.is_finite() {
            return Err(D::Error::custom("number out of range for a 32-bit float"));
        }
        *self = value;
        Ok(())
    }
}

fn narrow<E: Error>(value: i64) -> Result<i32, E> {
    i32::try_from(value).map_err(|_| E::custom("number out of range for a 32-bit integer"))
}

impl<M: JsonMessage> Read for Option<M> {
    fn read<'de, D: Deserializer<'de>>(&mut self, input: D, unknown: Unknown) -> Result<(), D::Error> {
        struct Maybe<'m, M>(&'m mut Option<M>, Unknown);

        impl<'de, M: JsonMessage> Visitor<'de> for Maybe<'_, M> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "an object ({}) or null", M::NAME)
            }

            fn visit_none<E: Error>(self) -> Result<(), E> {
                *self.0 = None;
                Ok(())
            }

            fn visit_unit<E: Error>(self) -> Result<(), E> {
                self.visit_none()
            }

            fn visit_some<D: Deserializer<'de>>(self, input: D) -> Result<(), D::Error> {
                Body {
                    message: self.0.insert(M::default()),
                    unknown: self.1,
                }
                .deserialize(input)
            }
        }

        input.deserialize_option(Maybe(self, unknown))
    }
}

impl<M: JsonMessage> Read for Vec<M> {
    fn read<'de, D: Deserializer<'de>>(&mut self, input: D, unknown: Unknown) -> Result<(), D::Error> {
        struct Items<'m, M>(&'m mut Vec<M>, Unknown);

        impl<'de, M: JsonMessage> Visitor<'de> for Items<'_, M> {
            type Value = ();

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "a list of objects ({}) or null", M::NAME)
            }

            fn visit_unit<E: Error>(self) -> Result<(), E> {
                Ok(())
            }

            fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut items: A) -> Result<(), A::Error> {
                loop {
                    let mut message = M::default();
                    let body = Body {
                        message: &mut message,
                        unknown: self.1,
                    };
                    if items.next_element_seed(body)?.is_none() {
                        return Ok(());
                    }
                    self.0.push(message);
                }
            }
        }

        input.deserialize_any(Items(self, unknown))
    }
}

/// The place of an enum's number.
pub(super) struct EnumSlot<'s, E>(&'s mut i32, PhantomData<E>);

impl<'s, E> EnumSlot<'s, E> {
    pub(super) fn new(slot: &'s mut i32) -> Self {
        Self(slot, PhantomData)
    }
}

impl<T: ProtoEnum> Read for EnumSlot<'_, T> {
    fn read<'de, D: Deserializer<'de>>(&mut self, input: D, unknown: Unknown) -> Result<(), D::Error> {
        struct Choice<T>(Unknown, PhantomData<T>);

        impl<T: ProtoEnum> Visitor<'_> for Choice<T> {
            type Value = i32;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("the name or the number of an enum value")
            }

            fn visit_unit<E: Error>(self) -> Result<i32, E> {
                Ok(0)
            }

            fn visit_i64<E: Error>(self, value: i64) -> Result<i32, E> {
                narrow(value)
            }

            fn visit_u64<E: Error>(self, value: u64) -> Result<i32, E> {
                Integer.visit_u64(value).and_then(narrow)
            }

            fn visit_f64<E: Error>(self, value: f64) -> Result<i32, E> {
                Integer.visit_f64(value).and_then(narrow)
            }

            fn visit_str<E: Error>(self, name: &str) -> Result<i32, E> {
                match T::number_of(name) {
                    Some(number) => Ok(number),
                    None if self.0 == Unknown::Ignore => Ok(0),
                    None => Err(E::invalid_value(Unexpected::Str(name), &self)),
                }
            }
        }

        *self.0 = input.deserialize_any(Choice::<T>(unknown, PhantomData))?;
        Ok(())
    }
}

/// An integer as a number or as a text; `1e3` and `2.0` are integers.
struct Integer;

impl Visitor<'_> for Integer {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an integer, as a number or a string")
    }

    fn visit_unit<E: Error>(self) -> Result<i64, E> {
        Ok(0)
    }

    fn visit_i64<E: Error>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(|_| E::custom("number out of range for a 64-bit integer"))
    }

    #[expect(clippy::cast_possible_truncation, reason = "checked to be an integer in range")]
    fn visit_f64<E: Error>(self, value: f64) -> Result<i64, E> {
        // Both bounds are exact as floats; 2^63 itself is out.
        if value.fract() == 0.0 && (-9_223_372_036_854_775_808.0..9_223_372_036_854_775_808.0).contains(&value) {
            Ok(value as i64)
        } else {
            Err(E::invalid_value(Unexpected::Float(value), &self))
        }
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<i64, E> {
        if let Ok(value) = text.parse() {
            return Ok(value);
        }
        match text.parse() {
            Ok(value) if text.contains(['e', 'E', '.']) => self.visit_f64(value),
            _ => Err(E::invalid_value(Unexpected::Str(text), &self)),
        }
    }
}

/// A number, or the text of one; also `NaN`, `Infinity` and `-Infinity`.
struct Number;

impl Visitor<'_> for Number {
    type Value = f64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_unit<E: Error>(self) -> Result<f64, E> {
        Ok(0.0)
    }

    #[expect(clippy::cast_precision_loss, reason = "rounding is what the field's type asks for")]
    fn visit_i64<E: Error>(self, value: i64) -> Result<f64, E> {
        Ok(value as f64)
    }

    #[expect(clippy::cast_precision_loss, reason = "rounding is what the field's type asks for")]
    fn visit_u64<E: Error>(self, value: u64) -> Result<f64, E> {
        Ok(value as f64)
    }

    fn visit_f64<E: Error>(self, value: f64) -> Result<f64, E> {
        Ok(value)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<f64, E> {
        match text {
            "NaN" => return Ok(f64::NAN),
            "Infinity" => return Ok(f64::INFINITY),
            "-Infinity" => return Ok(f64::NEG_INFINITY),
            _ => {}
        }
        text.parse()
            .ok()
            .filter(|value: &f64| value.is_finite())
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// Either alphabet, with or without padding.
struct Base64;

impl Visitor<'_> for Base64 {
    type Value = Vec<u8>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("bytes in base64")
    }

    fn visit_unit<E: Error>(self) -> Result<Vec<u8>, E> {
        Ok(Vec::new())
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Vec<u8>, E> {
        let alphabet = if text.contains(['-', '_']) {
            &URL_SAFE
        } else {
            &STANDARD
        };
        let padding = GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent);
        GeneralPurpose::new(alphabet, padding)
            .decode(text)
            .map_err(|_| E::invalid_value(Unexpected::Str(text), &self))
    }
}

/// RFC 3339.
struct Time;

impl Visitor<'_> for Time {
    type Value = Option<Timestamp>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a time in RFC 3339")
    }

    fn visit_unit<E: Error>(self) -> Result<Option<Timestamp>, E> {
        Ok(None)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Option<Timestamp>, E> {
        time::parse(text)
            .map(Some)
            .ok_or_else(|| E::invalid_value(Unexpected::Str(text), &self))
    }
}
