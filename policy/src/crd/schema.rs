//! Schemas of `spec` and `status`. The order of fields is that of the language's pages.

use serde_json::{Map, Value, json};

use crate::document::METHODS;
use crate::expression::MAX_SOURCE;
use crate::limits::{
    MAX_CREDENTIALS, MAX_HOST, MAX_ITEMS, MAX_NAME, MAX_OBJECT_NAME, MAX_PEM, MAX_PREFIX,
    MAX_RULES, MAX_TOOL, MAX_URL, MAX_WORD,
};

/// A label's key has a prefix of at most 253 characters, a slash and 63 more.
const MAX_LABEL_KEY: usize = 317;

pub(super) fn tool_policy_spec() -> Value {
    let mut spec = object(
        "What is allowed, and to whom.",
        &[],
        vec![
            (
                "podSelector",
                selector("The pods that this policy is for; without it, all of the namespace."),
            ),
            ("mode", mode()),
            ("tools", rules("What is allowed.", tool())),
            (
                "inference",
                rules("Which models may be asked.", inference()),
            ),
            (
                "deny",
                rules("What is refused, whatever any policy allows.", denial()),
            ),
            (
                "credentials",
                keyed(
                    "Where secrets lie and how they are put into requests. Never the secrets.",
                    MAX_CREDENTIALS,
                    credential(),
                ),
            ),
        ],
    );
    spec["default"] = json!({});
    spec
}

pub(super) fn guardrail_spec() -> Value {
    object(
        "What is refused, and where.",
        &["deny"],
        vec![
            (
                "namespaceSelector",
                selector("The namespaces that this guardrail is for; without it, all."),
            ),
            (
                "podSelector",
                selector("The pods that this guardrail is for; without it, all."),
            ),
            ("mode", mode()),
            (
                "deny",
                rules("What is refused, whatever any policy allows.", denial()),
            ),
        ],
    )
}

pub(super) fn status() -> Value {
    let text =
        |what: &str, most: usize| json!({"type": "string", "maxLength": most, "description": what});
    let number = |what: &str| json!({"type": "integer", "format": "int64", "minimum": 0, "description": what});
    let mut condition = object(
        "One thing that is or is not so.",
        &["type", "status", "lastTransitionTime", "reason", "message"],
        vec![
            ("type", text("Accepted or Enforced.", 316)),
            (
                "status",
                json!({"type": "string", "enum": ["True", "False", "Unknown"]}),
            ),
            (
                "observedGeneration",
                number("The generation of the object that it is about."),
            ),
            (
                "lastTransitionTime",
                json!({"type": "string", "format": "date-time"}),
            ),
            ("reason", text("Why, in one word.", 1024)),
            ("message", text("Why, for people.", 32768)),
        ],
    );
    condition["description"] = "One thing that is or is not so.".into();
    let lagging = object(
        "A pod that does not enforce it, or does not say so.",
        &["pod", "reason"],
        vec![
            (
                "pod",
                text(
                    "Its name, with its namespace where that is not this one.",
                    512,
                ),
            ),
            ("reason", text("Why it does not count.", 1024)),
        ],
    );
    object(
        "What has become of it. Written by the operator.",
        &[],
        vec![
            (
                "observedGeneration",
                number("The generation of the object that this is about."),
            ),
            (
                "conditions",
                json!({"type": "array", "maxItems": 16, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"], "items": condition}),
            ),
            ("selected", number("How many pods it selects.")),
            (
                "enforcing",
                number("How many of them proved that they enforce it."),
            ),
            ("enforced", text("Both, as 2/3.", 64)),
            ("digest", text("Of the bundle that it is in.", 80)),
            ("generation", number("Of the bundle that it is in.")),
            (
                "lagging",
                json!({"type": "array", "maxItems": 64, "x-kubernetes-list-type": "atomic", "items": lagging, "description": "Selected pods that do not enforce it, the first few."}),
            ),
        ],
    )
}

fn tool() -> Value {
    let mut rule = object(
        "A rule: a call is allowed if every part of one fits and its `when` is true.",
        &["name"],
        vec![
            ("name", rule_name()),
            ("http", http(false)),
            ("mcp", mcp(false)),
            ("tcp", tcp(false)),
            ("when", when()),
            (
                "credential",
                credential_name("The credential to send with calls that this rule allows."),
            ),
        ],
    );
    let unread = "(has(self.tcp) || (has(self.http) && has(self.http.tls) && has(self.http.tls.mode) && self.http.tls.mode == 'Passthrough'))";
    rule["x-kubernetes-validations"] = json!([
        one_kind(),
        {"rule": format!("!has(self.when) || !{unread}"), "message": "`when` needs a request, and this rule reads none: remove `when`"},
        {"rule": format!("!has(self.credential) || !{unread}"), "message": "a credential can't be put into what nobody reads: remove `credential`"},
        {"rule": "!has(self.credential) || !has(self.http) || !has(self.http.scheme) || self.http.scheme == 'https'", "message": "a credential never goes out without TLS: remove `credential` or `scheme: http`"},
    ]);
    rule
}

fn denial() -> Value {
    let mut rule = object(
        "A denial. Fields that are left out mean everything.",
        &["name"],
        vec![
            ("name", rule_name()),
            ("http", http(true)),
            ("mcp", mcp(true)),
            ("tcp", tcp(true)),
            ("when", when()),
        ],
    );
    rule["x-kubernetes-validations"] = json!([
        one_kind(),
        {"rule": "!has(self.when) || !has(self.tcp)", "message": "`when` needs a request, and this rule reads none: remove `when`"},
    ]);
    rule
}

fn inference() -> Value {
    let models = object(
        "The models that may be set to work.",
        &["allow"],
        vec![(
            "allow",
            list("Names; `*` stands for any characters.", word(MAX_WORD)),
        )],
    );
    let mut rule = object(
        "Calls to models of one provider.",
        &["name", "provider", "models"],
        vec![
            ("name", rule_name()),
            (
                "provider",
                json!({"type": "string", "enum": ["openai", "anthropic"], "description": "Whose protocol is spoken; it picks the host unless `hosts` is given."}),
            ),
            ("hosts", hosts()),
            ("ports", ports()),
            ("scheme", scheme()),
            ("addresses", addresses()),
            ("tls", tls()),
            ("models", models),
            ("when", when()),
            (
                "credential",
                credential_name("The credential to send with calls that this rule allows."),
            ),
        ],
    );
    rule["x-kubernetes-validations"] = json!([
        no_passthrough(),
        no_tls_in_clear(),
        {"rule": "!has(self.credential) || !has(self.scheme) || self.scheme == 'https'", "message": "a credential never goes out without TLS: remove `credential` or `scheme: http`"},
    ]);
    rule
}

fn http(wide: bool) -> Value {
    let mut fields = vec![
        ("hosts", hosts()),
        ("ports", ports()),
        ("scheme", scheme()),
        (
            "methods",
            list(
                "As sent; without it, all but CONNECT and TRACE.",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[^a-z\\s]+$"}),
            ),
        ),
        (
            "paths",
            list(
                "`/repos/{owner}/*/**`: a name for one segment, one segment, any further ones.",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_URL, "pattern": "^/"}),
            ),
        ),
    ];
    if wide {
        return object("Requests.", &[], fields);
    }
    fields.push(("addresses", addresses()));
    fields.push(("tls", tls()));
    let mut http = object("Requests.", &["hosts"], fields);
    http["x-kubernetes-validations"] = json!([
        no_tls_in_clear(),
        {"rule": "!has(self.tls) || !has(self.tls.mode) || self.tls.mode != 'Passthrough' || !(has(self.methods) || has(self.paths))", "message": "methods and paths can't be judged in what is passed through unread: remove them, or have TLS terminated"},
    ]);
    http
}

fn mcp(wide: bool) -> Value {
    let server = json!({"type": "string", "minLength": 1, "maxLength": MAX_URL, "pattern": "^https?://", "description": "The URL of the server, as https://mcp.example.com/mcp."});
    let tools = json!({"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "x-kubernetes-list-type": "set", "description": "The tools, one by one, as tools/list names them.", "items": {"type": "string", "minLength": 1, "maxLength": MAX_TOOL, "pattern": "^[^*\\s]+$"}});
    let mut fields = vec![("server", server), ("tools", tools)];
    if wide {
        return object("Tools of MCP servers.", &[], fields);
    }
    fields.push((
        "methods",
        list(
            "Methods beside the lifecycle and calls of tools.",
            json!({"type": "string", "enum": METHODS}),
        ),
    ));
    fields.push(("addresses", addresses()));
    fields.push(("tls", tls()));
    let mut mcp = object("Tools of one MCP server.", &["server", "tools"], fields);
    mcp["x-kubernetes-validations"] = json!([no_passthrough()]);
    mcp
}

fn tcp(wide: bool) -> Value {
    let mut fields = vec![
        ("host", host()),
        ("hosts", hosts()),
        ("port", port()),
        ("ports", ports()),
    ];
    if !wide {
        fields.push(("addresses", addresses()));
    }
    let mut tcp = object("Bytes, passed unread.", &[], fields);
    tcp["x-kubernetes-validations"] = if wide {
        json!([
            {"rule": "!(has(self.host) && has(self.hosts))", "message": "`tcp` has either `host` or `hosts`"},
            {"rule": "!(has(self.port) && has(self.ports))", "message": "`tcp` has either `port` or `ports`"},
            {"rule": "has(self.host) || has(self.hosts) || has(self.port) || has(self.ports)", "message": "name a host or a port"},
        ])
    } else {
        json!([
            {"rule": "has(self.host) != has(self.hosts)", "message": "`tcp` has either `host` or `hosts`"},
            {"rule": "has(self.port) != has(self.ports)", "message": "`tcp` has either `port` or `ports`"},
        ])
    };
    tcp
}

fn credential() -> Value {
    let secret = object(
        "The key of a Secret in this namespace that holds it. The Secret must consent: its annotation exeat.dev/hosts names the hosts that it may be sent to.",
        &["name", "key"],
        vec![
            (
                "name",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_OBJECT_NAME, "pattern": "^[a-z0-9]([-.a-z0-9]*[a-z0-9])?$"}),
            ),
            (
                "key",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_OBJECT_NAME, "pattern": "^[-._a-zA-Z0-9]+$"}),
            ),
        ],
    );
    let mut inject = object(
        "How it is put into a request; exactly one way.",
        &[],
        vec![
            (
                "bearer",
                object("authorization: Bearer, and the secret.", &[], vec![]),
            ),
            (
                "basic",
                object(
                    "authorization: Basic, with the secret as password.",
                    &["username"],
                    vec![(
                        "username",
                        json!({"type": "string", "minLength": 1, "maxLength": MAX_WORD, "pattern": "^[^:]+$"}),
                    )],
                ),
            ),
            (
                "header",
                object(
                    "A header of its own.",
                    &["name"],
                    vec![
                        (
                            "name",
                            json!({"type": "string", "minLength": 1, "maxLength": MAX_WORD, "pattern": "^[-!#$%&'*+.^_`|~0-9a-zA-Z]+$"}),
                        ),
                        (
                            "prefix",
                            json!({"type": "string", "minLength": 1, "maxLength": MAX_PREFIX, "pattern": "^[ -~]+$", "description": "What stands before the secret."}),
                        ),
                    ],
                ),
            ),
            (
                "query",
                object(
                    "A parameter of the query.",
                    &["name"],
                    vec![(
                        "name",
                        json!({"type": "string", "minLength": 1, "maxLength": MAX_WORD, "pattern": "^[-_.~a-zA-Z0-9]+$"}),
                    )],
                ),
            ),
        ],
    );
    inject["x-kubernetes-validations"] = json!([{
        "rule": "[has(self.bearer), has(self.basic), has(self.header), has(self.query)].exists_one(way, way)",
        "message": "`inject` has exactly one way: bearer, basic, header, query",
    }]);
    object(
        "A secret by name, and how it is sent.",
        &["name", "secret", "inject"],
        vec![
            ("name", credential_name("What rules call it.")),
            ("secret", secret),
            ("inject", inject),
        ],
    )
}

fn selector(what: &str) -> Value {
    let key = json!({"type": "string", "minLength": 1, "maxLength": MAX_LABEL_KEY, "description": "The label."});
    let mut term = object(
        "A requirement on one label.",
        &["key", "operator"],
        vec![
            ("key", key),
            (
                "operator",
                json!({"type": "string", "enum": ["In", "NotIn", "Exists", "DoesNotExist"]}),
            ),
            ("values", list("For In and NotIn.", word(MAX_NAME))),
        ],
    );
    term["x-kubernetes-validations"] = json!([{
        "rule": "(self.operator in ['In', 'NotIn']) == has(self.values)",
        "message": "In and NotIn need values, the others have none",
    }]);
    object(
        what,
        &[],
        vec![
            (
                "matchLabels",
                json!({"type": "object", "maxProperties": MAX_ITEMS, "additionalProperties": {"type": "string", "maxLength": MAX_NAME}, "description": "Labels and their values."}),
            ),
            (
                "matchExpressions",
                json!({"type": "array", "maxItems": MAX_ITEMS, "x-kubernetes-list-type": "atomic", "items": term, "description": "Requirements, all of which must hold."}),
            ),
        ],
    )
}

fn tls() -> Value {
    let mut tls = object(
        "How TLS to these hosts is handled.",
        &[],
        vec![
            (
                "mode",
                json!({"type": "string", "enum": ["Terminate", "Passthrough"], "description": "Terminate (without this field): requests are read and judged. Passthrough: they are not, and the record says so."}),
            ),
            (
                "ca",
                json!({"type": "string", "minLength": 1, "maxLength": MAX_PEM, "description": "Certificate authorities for these hosts alone, PEM."}),
            ),
        ],
    );
    tls["x-kubernetes-validations"] = json!([{
        "rule": "!has(self.ca) || !has(self.mode) || self.mode != 'Passthrough'",
        "message": "a passed-through connection is not verified here: remove `ca`, or terminate",
    }]);
    tls
}

fn hosts() -> Value {
    list(
        "Names, addresses, or `*.example.com` for what lies below example.com.",
        host(),
    )
}

fn host() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_HOST, "description": "A name, an address, or `*.example.com`."})
}

fn ports() -> Value {
    list(
        "Without it 443, or 80 with `scheme: http`; in a denial, all.",
        port(),
    )
}

fn port() -> Value {
    json!({"type": "integer", "minimum": 1, "maximum": 65535, "description": "From 1 to 65535."})
}

fn scheme() -> Value {
    json!({"type": "string", "enum": ["https", "http"], "description": "How the upstream is reached; https without it, both in a denial."})
}

fn addresses() -> Value {
    list(
        "The special-purpose ranges (private, loopback, link-local, …) that these hosts may resolve to, as 10.0.0.0/8.",
        json!({"type": "string", "minLength": 1, "maxLength": 64, "pattern": "/[0-9]+$"}),
    )
}

fn mode() -> Value {
    json!({"type": "string", "enum": ["Enforce", "Shadow"], "default": "Enforce", "description": "Enforce: denials count. Shadow: they are recorded, and calls pass."})
}

fn when() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_SOURCE, "description": "A CEL expression that must be true: request, and path, tool or inference by the kind of rule."})
}

fn rule_name() -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[-._/a-zA-Z0-9]+$", "description": "Unique in the policy: records and refusals refer to it."})
}

fn credential_name(what: &str) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": MAX_NAME, "pattern": "^[-_a-zA-Z0-9]+$", "description": what})
}

fn word(most: usize) -> Value {
    json!({"type": "string", "minLength": 1, "maxLength": most})
}

fn one_kind() -> Value {
    json!({"rule": "[has(self.http), has(self.mcp), has(self.tcp)].exists_one(kind, kind)", "message": "give the rule exactly one of: http, mcp, tcp"})
}

fn no_passthrough() -> Value {
    json!({"rule": "!has(self.tls) || !has(self.tls.mode) || self.tls.mode != 'Passthrough'", "message": "this can't be judged in what is passed through unread: have TLS terminated"})
}

fn no_tls_in_clear() -> Value {
    json!({"rule": "!has(self.tls) || !has(self.scheme) || self.scheme != 'http'", "message": "`tls` makes no sense with `scheme: http`: remove one of the two"})
}

fn rules(what: &str, rule: Value) -> Value {
    keyed(what, MAX_RULES, rule)
}

fn keyed(what: &str, most: usize, item: Value) -> Value {
    json!({"type": "array", "maxItems": most, "description": what, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"], "items": item})
}

fn list(what: &str, item: Value) -> Value {
    json!({"type": "array", "minItems": 1, "maxItems": MAX_ITEMS, "description": what, "x-kubernetes-list-type": "atomic", "items": item})
}

fn object(what: &str, required: &[&str], fields: Vec<(&str, Value)>) -> Value {
    let mut object = json!({"type": "object", "description": what});
    if !required.is_empty() {
        object["required"] = json!(required);
    }
    let properties: Map<String, Value> = fields
        .into_iter()
        .map(|(name, schema)| (name.to_owned(), schema))
        .collect();
    if !properties.is_empty() {
        object["properties"] = properties.into();
    }
    object
}
