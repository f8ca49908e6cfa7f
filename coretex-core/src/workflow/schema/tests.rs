use serde_json::json;

use super::*;

fn object(value: Value) -> Object {
    match value {
        Value::Object(members) => members,
        other => panic!("{other}"),
    }
}

fn told(schema: Value, value: &Value) -> String {
    let schema = Schema::compile(&object(schema)).unwrap();
    schema
        .validate(value)
        .map_or_else(|error| error.to_string(), |()| "valid".to_owned())
}

#[test]
fn values_are_refused_in_the_words_clients_know() {
    let name = json!({
        "type": "object",
        "properties": {"name": {"type": "string"}, "mail": {"format": "email"}},
        "required": ["name"],
        "additionalProperties": false,
    });
    let two = json!({"required": ["a", "b"]});
    let by_ref = json!({"$defs": {"n": {"type": "integer"}}, "properties": {"x": {"$ref": "#/$defs/n"}}});
    let any = json!({"anyOf": [{"type": "string"}, {"minimum": 5}]});
    for (schema, value, keyword, at, reason) in [
        (&name, json!({}), "required", "", "missing properties: 'name'"),
        (
            &name,
            json!({"name": 1}),
            "properties/name/type",
            "/name",
            "expected string, but got number",
        ),
        (
            &name,
            json!({"name": "a", "zz": 1}),
            "additionalProperties",
            "",
            "additionalProperties 'zz' not allowed",
        ),
        (
            &name,
            json!({"name": "a", "mail": "nope"}),
            "properties/mail/format",
            "/mail",
            "'nope' is not valid 'email'",
        ),
        (&name, json!([]), "type", "", "expected object, but got array"),
        (&two, json!({}), "required", "", "missing properties: 'a', 'b'"),
        (
            &by_ref,
            json!({"x": "1"}),
            "$defs/n/type",
            "/x",
            "expected integer, but got string",
        ),
        (&any, json!(3), "anyOf/0/type", "", "expected string, but got number"),
        (
            &json!({"minimum": 3}),
            json!(2),
            "minimum",
            "",
            "must be >= 3 but found 2",
        ),
        (
            &json!({"exclusiveMaximum": 3}),
            json!(3),
            "exclusiveMaximum",
            "",
            "must be < 3 but found 3",
        ),
        (
            &json!({"multipleOf": 2}),
            json!(3),
            "multipleOf",
            "",
            "3 not multipleOf 2",
        ),
        (
            &json!({"minLength": 3}),
            json!("é"),
            "minLength",
            "",
            "length must be >= 3, but got 1",
        ),
        (
            &json!({"maxItems": 1}),
            json!([1, 2]),
            "maxItems",
            "",
            "maximum 1 items required, but found 2 items",
        ),
        (
            &json!({"enum": ["a", 1]}),
            json!("b"),
            "enum",
            "",
            "value must be one of \"a\", 1",
        ),
        (&json!({"const": "a"}), json!("b"), "const", "", "value must be \"a\""),
        (
            &json!({"pattern": "^a+$"}),
            json!("b"),
            "pattern",
            "",
            "does not match pattern '^a+$'",
        ),
        (
            &json!({"type": ["string", "null"]}),
            json!(1),
            "type",
            "",
            "expected null or string, but got number",
        ),
        (&json!({"not": {}}), json!(1), "not", "", "not failed"),
        (
            &json!({"items": {"type": "string"}}),
            json!(["a", 1]),
            "items/type",
            "/1",
            "expected string, but got number",
        ),
    ] {
        let want = format!(
            "schema validation failed: jsonschema: '{at}' does not validate with inmemory://inline#/{keyword}: {reason}"
        );
        assert_eq!(told(schema.clone(), &value), want, "{schema} {value}");
    }
    assert_eq!(told(name, &json!({"name": "a", "mail": "a@example.org"})), "valid");
}

#[test]
fn a_registered_schema_is_named() {
    let schema = Schema::compile_registered("acme/order", &object(json!({"type": "object"}))).unwrap();
    assert_eq!(
        schema.validate(&json!(1)).unwrap_err().to_string(),
        "schema validation failed: jsonschema: '' does not validate with inmemory://inmemory://acme/order#/type: \
         expected object, but got number"
    );
}

#[test]
fn forms_hear_of_every_problem() {
    let schema = json!({"properties": {"a": {"type": "string"}, "b": {"minimum": 1}}, "required": ["c"]});
    let schema = Schema::compile(&object(schema)).unwrap();
    let problems = schema.problems(&json!({"a": 1, "b": 0}));
    assert_eq!(
        problems,
        [
            "missing properties: 'c'",
            "/a: expected string, but got number",
            "/b: must be >= 1 but found 0"
        ]
    );
    assert!(schema.problems(&json!({"c": 1})).is_empty());
}

#[test]
fn older_drafts_are_known() {
    let schema = json!({"$schema": "http://json-schema.org/draft-07/schema#", "definitions": {"a": {"type": "string"}},
        "items": [{"$ref": "#/definitions/a"}]});
    assert_eq!(told(schema.clone(), &json!(["a"])), "valid");
    assert!(told(schema, &json!([1])).ends_with("expected string, but got number"));
}

#[test]
fn what_is_no_schema_is_refused() {
    let deep = (0..70).fold(json!({}), |inner, _| json!({"items": inner}));
    let mut doubling = json!({"$defs": {"d40": {"type": "string"}}, "$ref": "#/$defs/d0"});
    for n in 0..40 {
        let next = format!("#/$defs/d{}", n + 1);
        doubling["$defs"][format!("d{n}")] = json!({"allOf": [{"$ref": next}, {"$ref": next}]});
    }
    let secret = std::env::temp_dir().join("schema-secret.json");
    for (schema, why) in [
        (
            json!({"$ref": "file:///etc/passwd"}),
            "no Loader found for file:///etc/passwd: a schema can only",
        ),
        (
            json!({"$ref": format!("file://{}", secret.display())}),
            "no Loader found for file://",
        ),
        (
            json!({"properties": {"a": {"$ref": "http://127.0.0.1:1/x"}}}),
            "no Loader found for http://127.0.0.1:1/x",
        ),
        (
            json!({"$ref": "https://example.org/s.json#/a"}),
            "no Loader found for https://example.org/s.json",
        ),
        (
            json!({"$schema": "https://example.org/meta"}),
            "https://example.org/meta",
        ),
        (json!({"$ref": "#/$defs/none"}), "'/$defs/none' does not exist"),
        (json!({"type": "strin"}), "'/type' does not validate"),
        (
            json!({"minimum": "1"}),
            "'/minimum' does not validate: expected number, but got string",
        ),
        (json!({"pattern": "("}), "'/pattern' does not validate"),
        // Backtracking is what would take exponential time.
        (json!({"pattern": "(a+)+(?=b)$"}), "'/pattern' does not validate"),
        (json!({"pattern": "(a{1000}){1000}"}), "'/pattern' does not validate"),
        (json!({"$ref": "#"}), "infinite loop"),
        (
            json!({"properties": {"a": {"anyOf": [{"$ref": "#/properties/a"}]}}}),
            "infinite loop",
        ),
        (
            json!({"$defs": {"a": {"$anchor": "x", "not": {"$ref": "#x"}}}}),
            "infinite loop",
        ),
        (deep, "nested deeper than 64 levels"),
        (doubling, "schemas apply at one place"),
        (json!({"description": "x".repeat(MAX_SCHEMA_BYTES)}), "larger than"),
    ] {
        let text = schema.to_string();
        let text = text.get(..200).unwrap_or(&text).to_owned();
        let Err(error) = Schema::compile(&object(schema)) else {
            panic!("compiled: {text}");
        };
        let error = error.to_string();
        assert!(
            error.starts_with("compile schema: jsonschema inmemory://inline compilation failed: "),
            "{error}"
        );
        assert!(error.contains(why), "{text}: {error}");
    }
}

#[test]
fn recursion_into_the_value_is_allowed() {
    let tree = json!({"properties": {"left": {"$ref": "#"}, "right": {"$ref": "#"}}, "required": ["v"]});
    assert_eq!(told(tree.clone(), &json!({"v": 1, "left": {"v": 2}})), "valid");
    assert!(told(tree, &json!({"v": 1, "left": {}})).contains("'/left' does not validate"));
}

#[test]
fn the_cache_is_shared_and_bounded() {
    let set = SchemaSet::new();
    let schema = object(json!({"type": "string"}));
    let one = set.cache.inline(&schema).unwrap();
    assert!(Arc::ptr_eq(&one, &set.cache.inline(&schema).unwrap()));
    for n in 0..MAX_CACHED + 10 {
        set.cache.inline(&object(json!({"minimum": n}))).unwrap();
    }
    let inner = set.cache.inner.lock();
    assert_eq!((inner.schemas.len(), inner.order.len()), (MAX_CACHED, MAX_CACHED));
}

#[test]
fn inline_wins_over_registered() {
    let mut set = SchemaSet::new();
    set.registered.insert("known".to_owned(), json!({"type": "object"}));
    set.registered.insert("odd".to_owned(), json!(true));
    let none = Object::new();
    assert!(set.find(&none, " ").is_none());
    assert!(set.find(&none, " known ").unwrap().is_ok());
    assert_eq!(
        set.find(&none, "gone").unwrap().unwrap_err(),
        "schema `gone` is not registered"
    );
    assert!(set.find(&none, "odd").unwrap().is_err());
    assert!(set.find(&object(json!({"minimum": 1})), "gone").unwrap().is_ok());
}
