//! A definition as a Mermaid flowchart.

use std::collections::BTreeMap;

use coretex_core::workflow::Workflow;
use coretex_core::workflow::model::{Step, StepKind};

use super::layout::{Layout, Link};
use super::{notes, what};

pub(super) fn render(workflow: &Workflow, layout: &Layout) -> String {
    // Ids of steps may be words of Mermaid, such as `end`.
    let names: BTreeMap<&str, String> = workflow
        .steps
        .keys()
        .enumerate()
        .map(|(i, id)| (id.as_str(), format!("s{i}")))
        .collect();
    let name = |id: &str| names.get(id).cloned().unwrap_or_default();
    let mut lines = vec!["flowchart TD".to_owned()];
    for (id, step) in &workflow.steps {
        if !step.finally {
            lines.push(format!("  {}", node(&name(id), id, step)));
        }
    }
    if !layout.finally.is_empty() {
        lines.push("  subgraph finally".to_owned());
        for id in &layout.finally {
            if let Some(step) = workflow.steps.get(id) {
                lines.push(format!("    {}", node(&name(id), id, step)));
            }
        }
        lines.push("  end".to_owned());
    }
    for (id, step) in &workflow.steps {
        let parts = step
            .branches
            .iter()
            .map(|branch| ("branch", branch))
            .chain(step.body.iter().map(|body| ("each round", &**body)))
            .chain(step.compensate.iter().map(|undo| ("undone by", &**undo)));
        for (i, (word, part)) in parts.enumerate() {
            let own = format!("{}p{i}", name(id));
            lines.push(format!("  {}", node(&own, "", part)));
            lines.push(format!("  {} -. \"{word}\" .-> {own}", name(id)));
        }
    }
    for (from, to, link) in &layout.links {
        let arrow = match link {
            Link::After => "-->".to_owned(),
            Link::Way(when) => format!("-- \"{}\" -->", escape(when)),
            Link::OnError => "-. \"on error\" .->".to_owned(),
        };
        lines.push(format!("  {} {arrow} {}", name(from), name(to)));
    }
    lines.join("\n")
}

/// A node in the shape of its kind.
fn node(name: &str, id: &str, step: &Step) -> String {
    let mut text: Vec<String> = Vec::new();
    if !id.is_empty() {
        text.push(format!("<b>{}</b>", escape(id)));
    }
    text.push(escape(&what(step)));
    text.extend(notes(step).iter().map(|note| escape(note)));
    let (open, close) = match step.kind() {
        StepKind::Approval | StepKind::Input => ("{{", "}}"),
        StepKind::Switch | StepKind::Condition => ("{", "}"),
        StepKind::Delay | StepKind::Signal => ("([", "])"),
        StepKind::Subworkflow | StepKind::Parallel | StepKind::Loop => ("[[", "]]"),
        StepKind::Job | StepKind::Notify | StepKind::Transform => ("[", "]"),
    };
    format!("{name}{open}\"{}\"{close}", text.join("<br/>"))
}

/// Texts stand in quotes; what would end them or be markup is written as an entity.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '#' => out.push_str("#35;"),
            '"' => out.push_str("#quot;"),
            '<' => out.push_str("#lt;"),
            '>' => out.push_str("#gt;"),
            '&' => out.push_str("#amp;"),
            '`' => out.push_str("#96;"),
            c if c.is_control() => out.push(' '),
            c => out.push(c),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::sample;
    use super::*;

    #[test]
    fn a_definition_is_a_flowchart() {
        let workflow = sample();
        let text = render(&workflow, &Layout::of(&workflow));
        for line in [
            "flowchart TD",
            r#"  s0{{"<b>ask</b><br/>approval<br/>once one before succeeded<br/>2 approvals<br/>by secops<br/>within 60s"}}"#,
            r#"  s7{"<b>route</b><br/>switch"}"#,
            r#"  s7 -- "steps.fetch.output.size #gt; 10" --> s1"#,
            r#"  s7 -- "else" --> s8"#,
            r#"  s5 -. "on error" .-> s6"#,
            r#"  s3 -. "branch" .-> s3p0"#,
            r#"  s2 -. "undone by" .-> s2p0"#,
            "  subgraph finally",
            r#"    s4["<b>clean</b><br/>worker job.clean"]"#,
            "  s5 --> s7",
        ] {
            assert!(text.lines().any(|have| have == line), "no `{line}` in\n{text}");
        }
    }

    #[test]
    fn texts_cannot_break_out() {
        assert_eq!(escape("a \"b\" <c>\n#d"), "a #quot;b#quot; #lt;c#gt; #35;d");
    }
}
