//! What is known of the sources: what was good last, and what is wrong now. See `docs/spec/policy.md` §8.6.

use std::collections::BTreeMap;

use crate::error::chain;
use crate::policy::kernel::LoadError;
use crate::policy::merge::{Text, Texts};
use crate::policy::sources::Bytes;
use crate::policy::status::Quarantined;

/// What is known of all sources together.
#[derive(Debug, Clone, Default)]
pub(in crate::policy) struct Known {
    /// What was good last.
    pub(in crate::policy) texts: Texts,
    /// Whether the fragments have been read at least once.
    pub(in crate::policy) fragments_read: bool,
    /// The tag of the base policy.
    pub(in crate::policy) etag: Option<String>,
    /// What is wrong with the base policy now.
    pub(in crate::policy) base_error: Option<String>,
    /// What is wrong with the document of the fragments now.
    pub(in crate::policy) fragments_error: Option<String>,
    refused: BTreeMap<String, Refused>,
}

/// A fragment's text that is not taken.
#[derive(Debug, Clone)]
struct Refused {
    text: String,
    error: String,
}

impl Known {
    /// Takes what the base policy is now, or why that is not known; `None` is "as before".
    pub(in crate::policy) fn take_base(
        &mut self,
        name: &str,
        read: Result<Option<Bytes>, LoadError>,
    ) -> Result<(), LoadError> {
        let outcome = read.and_then(|read| {
            let Some(Bytes { bytes, etag }) = read else {
                return Ok(());
            };
            let before = self.texts.base.as_ref().map(Text::bytes);
            if before != Some(&*bytes) {
                // An editor that empties a file before it writes must not open the gates meanwhile.
                if bytes.is_empty() && before.is_some() {
                    return Err(LoadError::Emptied { name: name.to_owned() });
                }
                self.texts.base = Some(Text::parse(&bytes, name)?);
            }
            self.etag = etag;
            Ok(())
        });
        self.base_error = outcome.as_ref().err().map(|error| chain(error));
        outcome
    }

    /// Takes what the fragments are now, or why that is not known. A fragment that is refused harms no other: its last good
    /// text, if there is one, stays.
    pub(in crate::policy) fn take_fragments(
        &mut self,
        read: Result<BTreeMap<String, String>, LoadError>,
    ) -> Result<(), LoadError> {
        self.fragments_error = read.as_ref().err().map(|error| chain(error));
        let now = read?;
        self.fragments_read = true;
        self.texts.fragments.retain(|id, _| now.contains_key(id));
        self.refused.retain(|id, _| now.contains_key(id));
        for (id, text) in now {
            if self
                .texts
                .fragments
                .get(&id)
                .is_some_and(|good| good.bytes() == text.as_bytes())
            {
                self.refused.remove(&id);
                continue;
            }
            if self.refused.get(&id).is_some_and(|refused| refused.text == text) {
                continue;
            }
            match Text::parse(text.as_bytes(), &id) {
                Ok(good) => {
                    self.refused.remove(&id);
                    self.texts.fragments.insert(id, good);
                }
                Err(error) => {
                    let error = error.to_string();
                    self.refused.insert(id, Refused { text, error });
                }
            }
        }
        Ok(())
    }

    /// The fragments that are refused now.
    pub(in crate::policy) fn quarantined(&self) -> Vec<Quarantined> {
        self.refused
            .iter()
            .map(|(id, refused)| Quarantined {
                fragment: id.clone(),
                error: refused.error.clone(),
                last_good: self.texts.fragments.contains_key(id),
            })
            .collect()
    }
}
