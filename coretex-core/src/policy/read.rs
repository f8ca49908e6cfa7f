//! Reads YAML into the document model with the tolerance of `docs/spec/policy.md` §1.2: scalars as text, null as absent,
//! unknown keys as warnings.

use std::borrow::Cow;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};
use std::marker::PhantomData;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_saphyr::Spanned;

use super::problem::Problem;

/// More problems than this are not collected.
const MAX_PROBLEMS: usize = 100;

/// Where the reader is, and what it noticed on its way.
#[derive(Debug, Default)]
pub(super) struct Cursor {
    path: RefCell<Vec<Step>>,
    problems: RefCell<Vec<Problem>>,
    warnings: RefCell<Vec<Problem>>,
}

#[derive(Debug, Clone)]
enum Step {
    Key(Cow<'static, str>),
    Item(usize),
}

/// A line and a column.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) line: u64,
    pub(super) column: u64,
}

impl<T> From<&Spanned<T>> for Place {
    fn from(spanned: &Spanned<T>) -> Self {
        Self {
            line: spanned.referenced.line(),
            column: spanned.referenced.column(),
        }
    }
}

impl Cursor {
    /// The path to here. After an error: to where it happened.
    pub(super) fn path(&self) -> String {
        let mut text = String::new();
        for step in &*self.path.borrow() {
            match step {
                Step::Key(key) if text.is_empty() => text.push_str(key),
                Step::Key(key) => {
                    text.push('.');
                    text.push_str(key);
                }
                Step::Item(index) => {
                    // Writing to a string cannot fail.
                    let _ = write!(text, "[{index}]");
                }
            }
        }
        text
    }

    /// Notes a mistake. Reading goes on, so that all of them are found.
    pub(super) fn problem(&self, place: Place, what: impl Into<String>) {
        self.note(&self.problems, place, what.into());
    }

    fn note(&self, list: &RefCell<Vec<Problem>>, place: Place, what: String) {
        let mut list = list.borrow_mut();
        if list.len() < MAX_PROBLEMS {
            list.push(Problem {
                line: place.line,
                column: place.column,
                key: self.path(),
                what,
                ..Problem::default()
            });
        }
    }

    /// How much was noted so far.
    pub(super) fn mark(&self) -> (usize, usize) {
        (self.problems.borrow().len(), self.warnings.borrow().len())
    }

    /// Says that all noted since `mark` is in rule `id`.
    pub(super) fn in_rule(&self, mark: (usize, usize), id: &str) {
        if !id.is_empty() {
            for list in [
                &mut self.problems.borrow_mut()[mark.0..],
                &mut self.warnings.borrow_mut()[mark.1..],
            ] {
                for problem in list {
                    problem.rule = Some(id.to_owned());
                }
            }
        }
    }

    /// Mistakes and warnings.
    pub(super) fn finish(self) -> (Vec<Problem>, Vec<Problem>) {
        (self.problems.into_inner(), self.warnings.into_inner())
    }

    fn unknown_key(&self, place: Place, key: &str, known: &[&str]) {
        let near = known
            .iter()
            .map(|known| (distance(key, known), known))
            .filter(|(distance, _)| *distance <= 2)
            .min();
        let key = key.escape_debug();
        self.note(
            &self.warnings,
            place,
            match near {
                Some((_, near)) => format!("unknown key `{key}` is ignored; did you mean `{near}`?"),
                None => format!("unknown key `{key}` is ignored"),
            },
        );
    }

    /// Runs `read` one step deeper. An error leaves the step in place, so that [`path`](Self::path) can tell.
    fn within<T, E>(&self, step: Step, read: impl FnOnce() -> Result<T, E>) -> Result<T, E> {
        self.path.borrow_mut().push(step);
        let value = read()?;
        self.path.borrow_mut().pop();
        Ok(value)
    }
}

/// Edit distance, for small words.
fn distance(a: &str, b: &str) -> usize {
    if a.len() > 40 || b.len() > 40 {
        return usize::MAX;
    }
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.chars().enumerate() {
        let mut diagonal = std::mem::replace(&mut row[0], i + 1);
        for (j, y) in b.iter().enumerate() {
            let change = diagonal + usize::from(x != *y);
            diagonal = row[j + 1];
            row[j + 1] = change.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

/// What can be read from a policy document. Null and absence are the default.
pub(super) trait Read: Sized + Default {
    /// What null stands for.
    fn null(_at: &Cursor) -> Self {
        Self::default()
    }

    /// Reads a value that is not null.
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error>;
}

/// A structure with known keys.
pub(super) trait Fields: Sized + Default {
    /// The known keys.
    const KEYS: &'static [&'static str];

    /// Reads the value of `key`, which is one of [`KEYS`](Self::KEYS).
    fn set<'de, A: MapAccess<'de>>(&mut self, key: &str, map: &mut A, at: &Cursor) -> Result<(), A::Error>;

    /// Called after the last key.
    fn done(&mut self, _place: Place, _mark: (usize, usize), _at: &Cursor) {}
}

/// Implements [`Fields`] and [`Read`] for a structure: `fields!(Rule { "id" => id, … })`.
macro_rules! fields {
    ($name:ident { $($key:literal => $field:ident),* $(,)? } $(done $done:path)?) => {
        impl $crate::policy::read::Fields for $name {
            const KEYS: &'static [&'static str] = &[$($key),*];

            fn set<'de, A: serde::de::MapAccess<'de>>(
                &mut self,
                key: &str,
                map: &mut A,
                at: &$crate::policy::read::Cursor,
            ) -> Result<(), A::Error> {
                match key {
                    $($key => self.$field = map.next_value_seed($crate::policy::read::Seed::new(at))?,)*
                    _ => {}
                }
                Ok(())
            }

            $(fn done(
                &mut self,
                place: $crate::policy::read::Place,
                mark: (usize, usize),
                at: &$crate::policy::read::Cursor,
            ) {
                $done(self, place, mark, at);
            })?
        }

        impl $crate::policy::read::Read for $name {
            fn read<'de, D: serde::Deserializer<'de>>(
                de: D,
                at: &$crate::policy::read::Cursor,
            ) -> Result<Self, D::Error> {
                de.deserialize_map($crate::policy::read::StructVisitor::new(at))
            }
        }
    };
}
pub(super) use fields;

/// Reads a `T`, or its default from null.
pub(super) struct Seed<'a, T>(&'a Cursor, PhantomData<T>);

impl<'a, T> Seed<'a, T> {
    pub(super) fn new(at: &'a Cursor) -> Self {
        Self(at, PhantomData)
    }
}

impl<'de, T: Read> DeserializeSeed<'de> for Seed<'_, T> {
    type Value = T;

    fn deserialize<D: Deserializer<'de>>(self, de: D) -> Result<T, D::Error> {
        de.deserialize_option(self)
    }
}

impl<'de, T: Read> Visitor<'de> for Seed<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or null")
    }

    fn visit_none<E>(self) -> Result<T, E> {
        Ok(T::null(self.0))
    }

    fn visit_unit<E>(self) -> Result<T, E> {
        Ok(T::null(self.0))
    }

    fn visit_some<D: Deserializer<'de>>(self, de: D) -> Result<T, D::Error> {
        T::read(de, self.0)
    }
}

pub(super) struct StructVisitor<'a, T>(&'a Cursor, PhantomData<T>);

impl<'a, T> StructVisitor<'a, T> {
    pub(super) fn new(at: &'a Cursor) -> Self {
        Self(at, PhantomData)
    }
}

impl<'de, T: Fields> Visitor<'de> for StructVisitor<'_, T> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a map")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<T, A::Error> {
        let at = self.0;
        let mark = at.mark();
        let mut value = T::default();
        let mut place = Place::default();
        while let Some(key) = map.next_key::<Spanned<Option<String>>>()? {
            if place == Place::default() {
                place = Place::from(&key);
            }
            let here = Place::from(&key);
            let key = key.value.unwrap_or_default();
            if let Some(known) = T::KEYS.iter().find(|known| **known == key) {
                at.within(Step::Key(Cow::Borrowed(known)), || value.set(known, &mut map, at))?;
            } else {
                at.unknown_key(here, &key, T::KEYS);
                map.next_value::<IgnoredAny>()?;
            }
        }
        value.done(place, mark, at);
        Ok(value)
    }
}

/// Any scalar, as it is written.
impl Read for String {
    fn read<'de, D: Deserializer<'de>>(de: D, _: &Cursor) -> Result<Self, D::Error> {
        serde::Deserialize::deserialize(de)
    }
}

/// Null items are left out.
impl<T: Read> Read for Vec<T> {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        struct Items<'a, T>(&'a Cursor, PhantomData<T>);

        impl<'de, T: Read> Visitor<'de> for Items<'_, T> {
            type Value = Vec<T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Vec<T>, A::Error> {
                let mut items = Vec::new();
                for index in 0.. {
                    let item = self.0.within(Step::Item(index), || {
                        seq.next_element_seed(Seed::<Given<T>>::new(self.0))
                    })?;
                    match item {
                        None => break,
                        Some(Given(item)) => items.extend(item),
                    }
                }
                Ok(items)
            }
        }

        de.deserialize_seq(Items(at, PhantomData))
    }
}

/// Null keys are left out; null values are defaults.
impl<T: Read> Read for BTreeMap<String, T> {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        struct Entries<'a, T>(&'a Cursor, PhantomData<T>);

        impl<'de, T: Read> Visitor<'de> for Entries<'_, T> {
            type Value = BTreeMap<String, T>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a map")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
                let mut entries = BTreeMap::new();
                while let Some(key) = map.next_key::<Option<String>>()? {
                    if let Some(key) = key {
                        let step = Step::Key(Cow::Owned(key.clone()));
                        let value = self.0.within(step, || map.next_value_seed(Seed::<T>::new(self.0)))?;
                        entries.insert(key, value);
                    } else {
                        map.next_value::<IgnoredAny>()?;
                    }
                }
                Ok(entries)
            }
        }

        de.deserialize_map(Entries(at, PhantomData))
    }
}

/// Tells null from a value.
#[derive(Debug)]
struct Given<T>(Option<T>);

impl<T> Default for Given<T> {
    fn default() -> Self {
        Self(None)
    }
}

impl<T: Read> Read for Given<T> {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        T::read(de, at).map(Some).map(Self)
    }
}

impl Read for Option<bool> {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        bool::read(de, at).map(Some)
    }
}

impl Read for bool {
    fn read<'de, D: Deserializer<'de>>(de: D, _: &Cursor) -> Result<Self, D::Error> {
        struct Flag;

        impl Visitor<'_> for Flag {
            type Value = bool;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true or false")
            }

            fn visit_bool<E>(self, value: bool) -> Result<bool, E> {
                Ok(value)
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<bool, E> {
                match text {
                    "y" | "Y" | "yes" | "Yes" | "YES" | "on" | "On" | "ON" => Ok(true),
                    "n" | "N" | "no" | "No" | "NO" | "off" | "Off" | "OFF" => Ok(false),
                    _ => Err(E::invalid_value(serde::de::Unexpected::Str(text), &self)),
                }
            }
        }

        // The reader runs with strict booleans: `yes` arrives as text, quoted or not.
        de.deserialize_any(Flag)
    }
}

/// An integer of any width; see [`Read for i64`](Read).
struct Integer;

impl Visitor<'_> for Integer {
    type Value = i64;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a number")
    }

    fn visit_i64<E>(self, value: i64) -> Result<i64, E> {
        Ok(value)
    }

    fn visit_u64<E: Error>(self, value: u64) -> Result<i64, E> {
        i64::try_from(value).map_err(|_| E::invalid_value(serde::de::Unexpected::Unsigned(value), &"a 64 bit integer"))
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "the range was checked; the fraction is cut off on purpose"
    )]
    fn visit_f64<E: Error>(self, value: f64) -> Result<i64, E> {
        // Both bounds are exact in floating point; the upper one is the first that does not fit.
        const LIMIT: f64 = 9_223_372_036_854_775_808.0;
        if (-LIMIT..LIMIT).contains(&value) {
            Ok(value.trunc() as i64)
        } else {
            Err(E::invalid_value(
                serde::de::Unexpected::Float(value),
                &"a 64 bit integer",
            ))
        }
    }
}

impl Read for i64 {
    fn read<'de, D: Deserializer<'de>>(de: D, _: &Cursor) -> Result<Self, D::Error> {
        de.deserialize_any(Integer)
    }
}

impl Read for i32 {
    fn read<'de, D: Deserializer<'de>>(de: D, at: &Cursor) -> Result<Self, D::Error> {
        let value = i64::read(de, at)?;
        Self::try_from(value)
            .map_err(|_| D::Error::invalid_value(serde::de::Unexpected::Signed(value), &"a 32 bit integer"))
    }
}
