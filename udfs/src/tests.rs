//! Every function as SQL calls it: its example, NULL, and arrays beside constants.

use std::sync::Arc;

use datafusion::arrow::util::display::{ArrayFormatter, FormatOptions};
use datafusion::prelude::{SessionConfig, SessionContext};

use super::*;
use crate::geoip::tests::EXAMPLE;

pub(crate) fn context() -> SessionContext {
    let mut config = SessionConfig::new()
        .with_default_catalog_and_schema("lake", "public")
        .with_option_extension(SelvedgeOptions::default());
    let set = config.options_mut();
    set.set(SelvedgeOptions::GEOIP_DATABASE, EXAMPLE).unwrap();
    let context = SessionContext::new_with_config(config);
    register(
        &mut *context.state_ref().write(),
        &Arc::new(GeoDatabases::default()),
    )
    .unwrap();
    context
}

/// The rows of a query's first column.
pub(crate) async fn rows(context: &SessionContext, sql: &str) -> Result<Vec<String>> {
    let batches = context.sql(sql).await?.collect().await?;
    let options = FormatOptions::default().with_null("NULL");
    let mut rows = Vec::new();
    for batch in &batches {
        let column = ArrayFormatter::try_new(batch.column(0), &options)?;
        rows.extend((0..batch.num_rows()).map(|row| column.value(row).to_string()));
    }
    Ok(rows)
}

#[tokio::test]
async fn every_example_gives_its_result() {
    let context = context();
    let scalars = scalar_functions(&Arc::default());
    let scalars = scalars.iter().map(|one| (one.name(), one.documentation()));
    let aggregates = aggregate_functions();
    let aggregates = aggregates
        .iter()
        .map(|one| (one.name(), one.documentation()));
    for (name, told) in scalars.chain(aggregates) {
        let Some(told) = told else {
            panic!("{name} has no documentation");
        };
        let example = told.sql_example.as_deref().unwrap();
        let (sql, expected) = example.split_once(" -- ").unwrap();
        let found = rows(&context, sql).await.unwrap();
        assert_eq!(found, [expected], "{name}: {example}");
        // SQL writes some without parentheses.
        assert!(sql.contains(name), "{name}: {example}");
        assert!(told.description.ends_with('.'), "{name}");
        assert!(
            told.syntax_example.starts_with(&format!("{name}(")),
            "{name}: {}",
            told.syntax_example
        );
    }
}

#[tokio::test]
async fn null_gives_null_and_a_column_gives_what_constants_give() {
    let context = context();
    for call in [
        "url_extract_host(X)",
        "url_extract_port(X)",
        "url_extract_parameter(X, 'a')",
        "url_extract_parameter('?a=1', X)",
        "user_agent(X)",
        "user_agent_os(X)",
        "is_ip(X)",
        "ip_version(X)",
        "ip_normalize(X)",
        "ip_in_cidr(X, '10.0.0.0/8')",
        "ip_in_cidr('10.0.0.1', X)",
        "geoip(X)",
        "geoip_country(X)",
        "hmac_sha256(X, 'v')",
        "hmac_sha256('k', X)",
        "json_get(X, 'a')",
        "json_as_text(X, 'a')",
        "json_get_str(X, 'a')",
        "json_get_int(X, 'a')",
        "json_contains(X, 'a')",
        "json_contains('{}', X)",
        "json_length(X)",
    ] {
        for null in ["NULL", "CAST(NULL AS TEXT)", "t.x"] {
            let sql = format!(
                "SELECT {} IS NULL FROM (VALUES (CAST(NULL AS TEXT))) AS t(x)",
                call.replace('X', null)
            );
            let found = rows(&context, &sql).await;
            assert_eq!(found.unwrap(), ["true"], "{sql}");
        }
    }
    for (values, call) in [
        (
            "('http://A.b/'), ('nope nope'), (NULL)",
            "url_extract_host(t.x)",
        ),
        ("('::1'), ('1.2.3.4'), ('x'), (NULL)", "ip_normalize(t.x)"),
        ("('10.0.0.0/8'), ('::/0')", "ip_in_cidr('10.1.1.1', t.x)"),
        ("('81.2.69.160'), ('1.1.1.1'), ('x')", "geoip(t.x)"),
        ("('81.2.69.160'), ('1.1.1.1'), ('x')", "geoip_country(t.x)"),
        ("('a'), (''), (NULL)", "hmac_sha256('k', t.x)"),
        ("('a'), ('b')", "hmac_sha256(t.x, 'v')"),
        ("('-'), ('Googlebot/2.1'), (NULL)", "user_agent(t.x)"),
        (
            r#"('{"a":1}'), ('{'), ('[]'), (NULL)"#,
            "json_contains(t.x, 'a')",
        ),
        (r#"('{"a":[1]}'), ('{'), (NULL)"#, "json_length(t.x, 'a')"),
    ] {
        let sql = format!("SELECT {call} FROM (VALUES {values}) AS t(x)");
        let together = rows(&context, &sql).await.unwrap();
        let mut apart = Vec::new();
        for value in values.split("), (") {
            let value = value.trim_matches(['(', ')']);
            let sql = format!("SELECT {}", call.replace("t.x", value));
            apart.extend(rows(&context, &sql).await.unwrap());
        }
        assert_eq!(together, apart, "{sql}");
    }
}

#[tokio::test]
async fn all_kinds_of_text_and_bytes_are_read() {
    let context = context();
    for kind in ["Utf8", "LargeUtf8", "Utf8View", "Dictionary(Int32, Utf8)"] {
        for (call, expected) in [
            ("ip_version(x)", "4"),
            (
                "hmac_sha256(x, x) = hmac_sha256('10.0.0.1', '10.0.0.1')",
                "true",
            ),
            ("json_get_str('{\"10.0.0.1\": \"y\"}', x)", "y"),
        ] {
            let sql = format!(
                "SELECT {call} FROM (SELECT arrow_cast(v, '{kind}') AS x FROM (VALUES ('10.0.0.1')) AS t(v))"
            );
            assert_eq!(rows(&context, &sql).await.unwrap(), [expected], "{sql}");
        }
    }
    for kind in ["Binary", "LargeBinary", "BinaryView"] {
        let sql = format!(
            "SELECT hmac_sha256(x, 'v') = hmac_sha256('k', 'v') FROM (SELECT arrow_cast(arrow_cast(v, 'Binary'), '{kind}') AS x FROM (VALUES ('k')) AS t(v))"
        );
        assert_eq!(rows(&context, &sql).await.unwrap(), ["true"], "{sql}");
    }
}

#[tokio::test]
async fn what_is_wrong_in_the_statement_is_an_error() {
    let context = context();
    for (sql, what) in [
        ("SELECT hmac_sha256(42, 'v')", "hmac_sha256"),
        ("SELECT hmac_sha256('', 'v')", "the key of an HMAC is empty"),
        ("SELECT hmac_sha256('k')", "hmac_sha256"),
        (
            "SELECT ip_in_cidr('10.0.0.1', 'nope')",
            "'nope' is not a network",
        ),
        (
            "SELECT ip_in_cidr(v, v) FROM (VALUES ('10.0.0.1/99')) AS t(v)",
            "0 to 32",
        ),
        ("SELECT url_extract_host(42)", "url_extract_host"),
        ("SELECT json_get(42, 'a')", "json_get"),
        ("SELECT json_contains('{}')", "json_contains"),
        ("SELECT json_get('{}', true)", "json_get"),
    ] {
        let error = rows(&context, sql).await.unwrap_err().strip_backtrace();
        assert!(error.contains(what), "{sql}: {error}");
        assert!(!error.contains("json_get_json"), "{sql}: {error}");
    }
    let bare = SessionContext::new();
    register(&mut *bare.state_ref().write(), &Arc::default()).unwrap();
    let error = rows(&bare, "SELECT geoip_country('1.1.1.1')").await;
    let error = error.unwrap_err().strip_backtrace();
    assert!(error.contains("SET selvedge.geoip_database"), "{error}");
}

#[tokio::test]
async fn json_operators_chain() {
    let context = context();
    let table = r#"FROM (VALUES ('{"a": {"b": ["x", 2]}, "t": "q"}')) AS t(j)"#;
    for (expr, expected) in [
        ("j -> 'a' -> 'b' -> 1", "2"),
        ("j -> 'a' -> 'b' ->> 0", "x"),
        ("j -> 'a' -> 'b' -> 0", "\"x\""),
        // How they bind is for the dialect, which a lake has one of its own.
        ("(j ->> 't') = 'q'", "true"),
        ("(j ->> 't') || '!'", "q!"),
        ("CAST(j -> 'a' -> 'b' ->> -1 AS BIGINT) + 1", "3"),
        ("j -> 'nope' -> 'b'", "NULL"),
        ("j #>> ['a', 'b', '0']", "x"),
        ("json_get(json_get(j, 'a'), 'b', 1)", "2"),
    ] {
        let sql = format!("SELECT {expr} {table}");
        assert_eq!(rows(&context, &sql).await.unwrap(), [expected], "{sql}");
    }
    let plan = context
        .sql(&format!("SELECT j -> 'a' -> 'b' ->> 0 {table}"))
        .await
        .unwrap()
        .into_optimized_plan()
        .unwrap();
    let plan = plan.display_indent().to_string();
    let walk = r#"json_as_text(t.j, Utf8("a"), Utf8("b"), Int64(0)) AS"#;
    assert!(plan.contains(walk), "one walk: {plan}");
}
