//! Workflow ids as metric labels: a closed set.

use std::collections::HashSet;

use parking_lot::Mutex;

/// How many workflows have metrics of their own; the rest is `other`.
const MAX: usize = 200;

/// The workflows that have metrics of their own: the first that were seen.
#[derive(Debug, Default)]
pub(super) struct Labels(Mutex<HashSet<String>>);

impl Labels {
    pub(super) fn of(&self, workflow: &str) -> String {
        let mut known = self.0.lock();
        if known.contains(workflow) {
            return workflow.to_owned();
        }
        if known.len() >= MAX || workflow.len() > 128 {
            return "other".to_owned();
        }
        known.insert(workflow.to_owned());
        workflow.to_owned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_bounded() {
        let labels = Labels::default();
        for n in 0..1_000 {
            labels.of(&format!("w{n}"));
        }
        assert_eq!(labels.of("w0"), "w0");
        assert_eq!(labels.of("w999"), "other");
    }
}
