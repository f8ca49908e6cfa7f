//! A definition as a tree of lines.

use coretex_core::workflow::Workflow;
use coretex_core::workflow::model::Step;

use super::layout::{Layout, Link};
use super::{notes, what};

/// A line, and the lines below it.
struct Node {
    text: String,
    below: Vec<Node>,
}

pub(super) fn render(workflow: &Workflow, layout: &Layout) -> String {
    let mut head = match workflow.name.as_str() {
        "" => format!("workflow {}", workflow.id),
        name if name == workflow.id => format!("workflow {name}"),
        name => format!("workflow {} ({name})", workflow.id),
    };
    let mut nodes = nodes(workflow, layout, "");
    if !layout.finally.is_empty() {
        nodes.push(Node {
            text: "finally".to_owned(),
            below: layout.finally.iter().map(|id| node(workflow, layout, id)).collect(),
        });
    }
    if nodes.is_empty() {
        head.push_str("\n(no steps)");
    }
    let mut lines = vec![head];
    draw(&nodes, "", &mut lines);
    lines.join("\n")
}

fn nodes(workflow: &Workflow, layout: &Layout, above: &str) -> Vec<Node> {
    let below = layout.below.get(above);
    below
        .into_iter()
        .flatten()
        .map(|id| node(workflow, layout, id))
        .collect()
}

fn node(workflow: &Workflow, layout: &Layout, id: &str) -> Node {
    let Some(step) = workflow.steps.get(id) else {
        return Node {
            text: id.to_owned(),
            below: Vec::new(),
        };
    };
    let way = match layout.above.get(id) {
        Some((_, Link::Way(when))) if when == "else" => "[else] ".to_owned(),
        Some((_, Link::Way(when))) => format!("[{when}] "),
        Some((_, Link::OnError)) => "[on error] ".to_owned(),
        Some((_, Link::After)) | None => String::new(),
    };
    let also = layout.also_after(id);
    let mut about = notes(step);
    if !also.is_empty() {
        about.push(format!("also after {}", also.join(", ")));
    }
    let mut below = parts(step);
    below.extend(nodes(workflow, layout, id));
    Node {
        text: format!("{way}{}", described(id, step, &about)),
        below,
    }
}

/// The steps within a step.
fn parts(step: &Step) -> Vec<Node> {
    let leaf = |name: String, step: &Step| Node {
        text: described(&name, step, &notes(step)),
        below: Vec::new(),
    };
    let branches = step
        .branches
        .iter()
        .enumerate()
        .map(|(i, branch)| leaf(format!("branch {i}:"), branch));
    let body = step.body.iter().map(|body| leaf("each round:".to_owned(), body));
    let undo = step.compensate.iter().map(|undo| leaf("undone by:".to_owned(), undo));
    branches.chain(body).chain(undo).collect()
}

fn described(name: &str, step: &Step, about: &[String]) -> String {
    if about.is_empty() {
        format!("{name}  {}", what(step))
    } else {
        format!("{name}  {}  ({})", what(step), about.join(", "))
    }
}

fn draw(nodes: &[Node], indent: &str, lines: &mut Vec<String>) {
    for (i, node) in nodes.iter().enumerate() {
        let last = i + 1 == nodes.len();
        let (turn, bar) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
        lines.push(format!("{indent}{turn}{}", node.text));
        draw(&node.below, &format!("{indent}{bar}"), lines);
    }
}

#[cfg(test)]
mod tests {
    use super::super::layout::tests::sample;
    use super::*;

    #[test]
    fn a_definition_is_a_tree() {
        let workflow = sample();
        assert_eq!(
            render(&workflow, &Layout::of(&workflow)),
            "\
workflow triage (Triage)
├─ fetch  worker job.fetch  (3 retries)
│  ├─ [on error] report  notify
│  └─ route  switch
│     ├─ [steps.fetch.output.size > 10] big  worker job.big  (for each of steps.fetch.output.parts, 4 at once)
│     │  └─ ask  approval  (once one before succeeded, 2 approvals, by secops, within 60s, also after small)
│     │     └─ book  worker job.book  (also after fetch)
│     │        ├─ undone by:  worker job.unbook
│     │        └─ both  parallel  (any of them)
│     │           ├─ branch 0:  worker job.a
│     │           └─ branch 1:  subworkflow child
│     └─ [else] small  transform
└─ finally
   └─ clean  worker job.clean"
        );
        let empty = Workflow::default();
        assert_eq!(render(&empty, &Layout::of(&empty)), "workflow \n(no steps)");
    }
}
