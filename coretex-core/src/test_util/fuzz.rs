//! What the fuzz targets in `fuzz/` do with their bytes. The tests here run them all over the seeds and over mutations
//! of these, so that no target rots while nobody fuzzes.

use std::sync::Arc;

use prost::Message as _;

use crate::expr::{Expr, Template, display};
use crate::pointers::Pointer;
use crate::policy::{CompiledPolicy, Document, EffectiveSafety, Glob, Part, PolicyInput, evaluate, explain, lint};
use crate::protocol::agent::PolicyCheckRequest;
use crate::protocol::{decode_packet, encode_packet};
use crate::workflow::schema::SchemaSet;
use crate::workflow::{Plan, PlannedStep, check, decode};

/// A target: its name, and what it does.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const TARGETS: [Target; 8] = [
    ("policy_document", policy_document),
    ("policy_evaluator", policy_evaluator),
    ("glob", glob),
    ("pointer", pointer),
    ("packet", packet),
    ("expression", expression),
    ("template", template),
    ("workflow", workflow),
];

/// Reads the bytes as a policy. What is accepted can be compiled and linted; what is refused says why.
pub fn policy_document(bytes: &[u8]) {
    match Document::parse(bytes, "fuzz") {
        Ok(parsed) => {
            let parts = vec![Part::base(parsed.document)];
            let _ = lint(&parts);
            let (policy, _) = CompiledPolicy::from_parts(parts, "fuzz".to_owned());
            assert_eq!(policy.snapshot(), "fuzz");
        }
        Err(error) => assert!(!error.problems.is_empty() && !error.to_string().is_empty()),
    }
}

/// The bytes are a policy, a zero byte, and a check request as JSON of our own: one `key=value` per line. The decision is
/// the same every time, and its explanation belongs to it.
pub fn policy_evaluator(bytes: &[u8]) {
    let mut halves = bytes.splitn(2, |byte| *byte == 0);
    let (document, request) = (halves.next().unwrap_or_default(), halves.next().unwrap_or_default());
    let Ok((policy, _)) = CompiledPolicy::from_bytes(document, "fuzz") else {
        return;
    };
    let request = check_request(&String::from_utf8_lossy(request));
    let effective = EffectiveSafety::parse(&request.effective_config);
    let input = PolicyInput::new(&request).with_effective(&effective);
    let evaluation = evaluate(&policy, &input);
    let again = evaluate(&policy, &input);
    assert_eq!(evaluation.decision, again.decision);
    assert_eq!(evaluation.rule_id, again.rule_id);
    assert!(!evaluation.explain(&policy, &input).is_empty());
    let told = explain(&policy, &input, &evaluation);
    assert!(told.conditions.iter().all(|check| check.holds));
    assert!(told.near_misses.iter().all(|miss| !miss.failed.holds));
    assert!(told.rule.is_some() || !told.overrides.is_empty());
}

fn check_request(text: &str) -> PolicyCheckRequest {
    let mut request = PolicyCheckRequest::default();
    let mut meta = crate::protocol::agent::JobMetadata::default();
    for line in text.lines() {
        let (key, value) = line.split_once('=').unwrap_or((line, ""));
        let value = value.to_owned();
        match key {
            "topic" => request.topic = value,
            "tenant" => request.tenant = value,
            "principal" => request.principal_id = value,
            "capability" => meta.capability = value,
            "pack" => meta.pack_id = value,
            "actor" => meta.actor_id = value,
            "risk" => meta.risk_tags.push(value),
            "requires" => meta.requires.push(value),
            "config" => request.effective_config = value.into_bytes(),
            label => {
                request.labels.insert(label.to_owned(), value);
            }
        }
    }
    request.meta = Some(meta);
    request
}

/// The first line is a pattern, the rest is text. A pattern without wildcards matches itself alone.
pub fn glob(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let (pattern, text) = text.split_once('\n').unwrap_or((&text, ""));
    let Ok(glob) = Glob::new(pattern) else { return };
    let matches = glob.matches(text);
    if let Some(literal) = glob.literal() {
        assert_eq!(matches, literal == text);
        assert!(glob.matches(literal));
    }
    assert!(!matches || text.starts_with(glob.prefix()));
}

/// Reads the bytes as a pointer. What is accepted is written the same way again.
pub fn pointer(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(pointer) = text.parse::<Pointer>() {
        assert_eq!(pointer.to_string().parse::<Pointer>().ok(), Some(pointer));
    }
    if let Ok(pointer) = Pointer::from_key(&text) {
        assert_eq!(pointer.key(), text);
    }
}

/// Reads the bytes as a packet of the bus. What is accepted survives another way to bytes and back.
pub fn packet(bytes: &[u8]) {
    if let Ok(packet) = decode_packet(bytes) {
        let written = encode_packet(&packet);
        let Ok(again) = decode_packet(&written) else {
            panic!("not read again");
        };
        // Floating point may be NaN: compared as bytes.
        assert_eq!(again.encode_to_vec(), packet.encode_to_vec());
    }
    let _ = PolicyCheckRequest::decode(bytes);
}

/// Reads the bytes as an expression. What is accepted has the same value, or the same error, every time, also in a
/// template; errors point into the text.
pub fn expression(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let scope = expression_scope();
    let expr = match Expr::parse(&text) {
        Ok(expr) => expr,
        Err(error) => {
            assert!(text.is_char_boundary(error.at) && !error.message.is_empty());
            return;
        }
    };
    assert!(expr.paths().iter().all(|path| !path.is_empty()));
    let value = expr.eval(&scope);
    assert_eq!(value, expr.eval(&scope));
    match value {
        Ok(value) => {
            assert_eq!(expr.test(&scope), Ok(crate::expr::truthy(&value)));
            let Ok(template) = Template::text(&format!("${{{text}}}")) else {
                panic!("not a template");
            };
            assert_eq!(template.eval_text(&scope), Ok(display(&value)));
            assert_eq!(template.eval(&scope), Ok(value));
        }
        Err(error) => assert!(text.is_char_boundary(error.at) && !error.message.is_empty()),
    }
}

/// Reads the bytes as a template: JSON, or else one text. What has no expression in it stays as it is.
pub fn template(bytes: &[u8]) {
    let value = serde_json::from_slice(bytes)
        .unwrap_or_else(|_| serde_json::Value::String(String::from_utf8_lossy(bytes).into_owned()));
    match Template::compile(&value) {
        Ok(template) => {
            let result = template.eval(&expression_scope());
            if template.is_constant() {
                assert_eq!(result, Ok(value));
            }
        }
        Err(errors) => assert!(errors.iter().all(|error| value.pointer(&error.pointer).is_some())),
    }
}

fn expression_scope() -> serde_json::Map<String, serde_json::Value> {
    let input = serde_json::json!({
        "n": 7, "f": 0.5, "s": "text", "z": null, "list": [1, "a", [true]], "obj": {"k-1": {"x[0]": 1}}, "max": u64::MAX,
    });
    let mut scope = serde_json::Map::new();
    scope.insert("input".to_owned(), input);
    scope
}

/// Reads the bytes as a definition, JSON and YAML. What is accepted is written the same way again, can be checked and
/// planned, and has no broken part if the checks found none.
pub fn workflow(bytes: &[u8]) {
    let yaml = std::str::from_utf8(bytes).ok().map(decode::yaml);
    for definition in [Some(decode::definition(bytes)), yaml].into_iter().flatten() {
        let definition = match definition {
            Ok(definition) => definition,
            Err(error) => {
                assert!(!error.problems().is_empty());
                continue;
            }
        };
        let workflow = definition.workflow;
        let written = serde_json::to_vec(&workflow).unwrap_or_default();
        if written.len() <= decode::MAX_DOCUMENT_BYTES {
            let again = decode::definition(&written).map(|again| again.workflow);
            assert_eq!(again.as_ref().ok(), Some(&workflow));
        }
        let passes = !check::refused(&check::check(&workflow, &check::Known::default()));
        let hash = workflow.content_hash();
        let plan = Plan::compile(Arc::new(workflow), hash, &SchemaSet::new());
        let broken = plan.steps().iter().flat_map(PlannedStep::errors);
        // Schemas of the registry are looked up when the plan is made.
        let broken = broken.filter(|error| !error.ends_with("is not registered")).count();
        assert!(!passes || broken == 0);
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;
    use proptest::sample::Index;

    use super::*;

    fn seeds(target: &str) -> Vec<Vec<u8>> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/seeds").join(target);
        let mut seeds: Vec<Vec<u8>> = std::fs::read_dir(&folder)
            .unwrap()
            .map(|entry| std::fs::read(entry.unwrap().path()).unwrap())
            .collect();
        assert!(!seeds.is_empty(), "{}", folder.display());
        seeds.push(Vec::new());
        seeds
    }

    #[test]
    fn seeds_pass() {
        for (name, target) in TARGETS {
            for seed in seeds(name) {
                target(&seed);
            }
        }
    }

    #[test]
    fn every_target_has_a_binary() {
        let manifest = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz");
        let text = std::fs::read_to_string(manifest.join("Cargo.toml")).unwrap();
        for (name, _) in TARGETS {
            assert!(text.contains(&format!("name = \"{name}\"")), "{name}");
            let source = std::fs::read_to_string(manifest.join(format!("targets/{name}.rs"))).unwrap();
            assert!(source.contains(&format!("fuzz::{name}(")), "{name}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(300))]

        #[test]
        fn mutations_pass(
            target in 0..TARGETS.len(),
            seed in any::<Index>(),
            edits in prop::collection::vec((any::<Index>(), any::<u8>(), 0..4_u8), 0..8),
        ) {
            let (name, target) = TARGETS[target];
            let seeds = seeds(name);
            let mut bytes = seed.get(&seeds).clone();
            for (place, byte, kind) in edits {
                if bytes.is_empty() {
                    bytes.push(byte);
                }
                let place = place.index(bytes.len());
                match kind {
                    0 => bytes[place] = byte,
                    1 => bytes.insert(place, byte),
                    2 => { bytes.remove(place); }
                    _ => bytes.truncate(place),
                }
            }
            target(&bytes);
        }

        #[test]
        fn noise_passes(target in 0..TARGETS.len(), bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            TARGETS[target].1(&bytes);
        }
    }
}
