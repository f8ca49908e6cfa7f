//! Random definitions.

use serde_json::{Value, json};

/// A small generator of numbers: the same seed, the same numbers, on every machine and version.
#[derive(Debug, Clone)]
pub(super) struct Random(u64);

impl Random {
    pub(super) fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// `SplitMix64`.
    pub(super) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    pub(super) fn below(&mut self, n: u64) -> u64 {
        self.next() % n.max(1)
    }

    /// True so many times in a hundred.
    pub(super) fn chance(&mut self, percent: u64) -> bool {
        self.below(100) < percent
    }

    pub(super) fn pick<'t, T>(&mut self, list: &'t [T]) -> &'t T {
        &list[usize::try_from(self.next() % list.len() as u64).unwrap()]
    }
}

/// A number that belongs to a text in a world.
pub(super) fn roll(seed: u64, text: &str) -> u64 {
    let mut random = Random::new(text.bytes().fold(seed, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3).rotate_left(17)
    }));
    random.next()
}

/// What is run: `main`, which may start `child`.
pub(super) fn definitions(random: &mut Random) -> Value {
    json!({"main": workflow(random, true), "child": workflow(random, false)})
}

fn workflow(random: &mut Random, main: bool) -> Value {
    let count = 1 + random.below(if main { 9 } else { 4 });
    // The order of ids says nothing about that of steps.
    let ids: Vec<String> = (0..count)
        .map(|n| format!("{}{n}", random.pick(&["a", "k", "z"])))
        .collect();
    let mut steps = serde_json::Map::new();
    let mut handlers = Vec::new();
    let mut chosen = Vec::new();
    for (n, id) in ids.iter().enumerate() {
        let mut step = leaf(random, main);
        if random.chance(25) {
            step = composite(random);
        }
        let earlier = &ids[..n];
        let finally = main && random.chance(8) && !handlers.contains(id) && !chosen.contains(id);
        let before: Vec<&String> = earlier
            .iter()
            .filter(|id| {
                random.chance(40)
                    && steps
                        .get(*id)
                        .is_none_or(|step: &Value| finally || step["finally"].is_null())
            })
            .collect();
        step["depends_on"] = json!(before);
        if finally {
            step["finally"] = json!(true);
        } else {
            if random.chance(25) {
                step["dependency_policy"] = json!(random.pick(&["any_success", "all_done", "on_failure"]));
            }
            if random.chance(15) && step["type"] != "condition" {
                step["condition"] = json!(random.pick(&["true", "input.x == 1", "size(steps) >= 0", "false"]));
            }
            if random.chance(10) {
                step["continue_on_error"] = json!(true);
            }
            // A later step takes care of it.
            if random.chance(10) && n + 1 < ids.len() {
                let handler = &ids[n + 1];
                if !chosen.contains(handler) {
                    step["on_error"] = json!(handler);
                    handlers.push(handler.clone());
                }
            }
            if random.chance(10) && n + 2 < ids.len() {
                let (one, other) = (&ids[n + 1], &ids[n + 2]);
                if !handlers.contains(one) && !handlers.contains(other) {
                    step = json!({"type": "switch", "depends_on": before, "default": [other],
                                  "cases": [{"when": random.pick(&["input.x == 1", "input.x == 2"]), "then": [one]}]});
                    chosen.extend([one.clone(), other.clone()]);
                }
            }
            if random.chance(15) {
                step["compensate"] = leaf(random, false);
            }
        }
        steps.insert(id.clone(), step);
    }
    let mut workflow = json!({"steps": steps});
    if random.chance(30) {
        workflow["on_failure"] = json!("wait");
    }
    workflow
}

fn leaf(random: &mut Random, main: bool) -> Value {
    match random.below(12) {
        0 => json!({"type": "condition", "condition": "input.x == 1"}),
        1 => json!({"type": "approval", "approval": {"quorum": random.below(3)}}),
        2 => json!({"type": "delay", "delay_ms": random.below(5_000)}),
        3 => json!({"type": "notify", "input": {"message": "m"}}),
        4 => json!({"type": "transform", "expression": "{'x': input.x}"}),
        5 => json!({"type": "input", "output_schema": {"type": "object"}}),
        6 => json!({"type": "signal"}),
        7 if main => json!({"type": "subworkflow", "workflow": "child", "retry": retry(random)}),
        _ => job(random),
    }
}

fn job(random: &mut Random) -> Value {
    json!({"topic": "job.t", "retry": retry(random), "input": {"x": "${input.x}", "item": "${item}"},
           "route_labels": {"now": "${now}"}})
}

fn retry(random: &mut Random) -> Value {
    if random.chance(40) {
        return Value::Null;
    }
    let mut retry = json!({"max_retries": random.below(4), "initial_backoff_ms": 1 + random.below(2_000)});
    match random.below(4) {
        0 => retry["on"] = json!(["E1", "timeout"]),
        1 => retry["on"] = json!(["denied", "failed"]),
        2 => retry["non_retryable"] = json!(["E1"]),
        _ => {}
    }
    retry
}

fn composite(random: &mut Random) -> Value {
    match random.below(3) {
        0 => {
            let mut step = match random.below(3) {
                0 => json!({"type": "signal"}),
                1 => json!({"type": "transform", "expression": "item"}),
                _ => job(random),
            };
            let items: Vec<u64> = (0..random.below(6)).collect();
            step["for_each"] = json!(json!(items).to_string());
            step["max_parallel"] = json!(random.below(4));
            step["tolerated_failures"] = json!(random.below(3));
            step
        }
        1 => {
            let branches: Vec<Value> = (0..random.below(4)).map(|_| leaf(random, false)).collect();
            let wait_for = match random.below(3) {
                0 => json!("any"),
                1 => json!(2),
                _ => json!("all"),
            };
            json!({"type": "parallel", "branches": branches, "wait_for": wait_for, "max_parallel": random.below(3)})
        }
        _ => {
            let rounds = random.below(4);
            json!({"type": "loop", "while": format!("index < {rounds}"), "body": leaf(random, false)})
        }
    }
}
