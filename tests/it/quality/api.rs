//! The rules of a table for programs.

use std::sync::Arc;

use arrow::array::{ArrayRef, Int64Array, RecordBatch};
use arrow::datatypes::{DataType, Field, Schema};
use selvedge_engine::{
    Engine, ErrorKind, OnNull, OnViolation, Over, Rule, RuleKind, RuleOutcome, Validation,
};

use super::lines;
use crate::support::lake::in_memory;
use crate::support::query;

async fn shop() -> Engine {
    let engine = in_memory().await;
    let session = engine.session();
    query::run(&session, "CREATE SCHEMA shop").await;
    query::run(
        &session,
        "CREATE TABLE shop.orders (id BIGINT, amount BIGINT)",
    )
    .await;
    query::write(
        &session,
        "INSERT INTO shop.orders VALUES (1, 10), (2, -20), (3, NULL)",
    )
    .await;
    engine
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_created_read_changed_switched_and_deleted() {
    let engine = shop().await;
    let rules = engine.rules("shop.orders");
    assert!(rules.list().await.unwrap().is_empty());

    // Old rows are asked, unless the caller trusts them.
    let mut positive = Rule::new("positive", "amount >= 0");
    positive.on_violation = OnViolation::QuarantineRow;
    let error = rules
        .create(positive.clone(), Validation::Scan)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Rejected, "{error}");
    rules
        .create(positive.clone(), Validation::Trust)
        .await
        .unwrap();
    let error = rules
        .create(positive.clone(), Validation::Trust)
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}");

    let kept = rules.get("positive").await.unwrap();
    assert_eq!(
        (kept.kind, kept.on_null, kept.on_violation),
        (RuleKind::Row, OnNull::Pass, OnViolation::QuarantineRow)
    );
    assert_eq!(
        (kept.enabled, kept.validated, kept.since_version),
        (true, false, 2)
    );
    assert_eq!(kept.fingerprint.len(), 16);

    // What the kind is follows from the condition.
    let mut steady = Rule::new("steady", "count(*) <= 2 * previous(count(*))");
    steady.on_violation = OnViolation::Warn;
    steady.over = Over::Input;
    rules.create(steady, Validation::Scan).await.unwrap();
    assert_eq!(rules.get("steady").await.unwrap().kind, RuleKind::Metric);
    let names: Vec<String> = rules
        .list()
        .await
        .unwrap()
        .into_iter()
        .map(|rule| rule.name)
        .collect();
    assert_eq!(names, ["positive", "steady"]);

    let session = engine.session();
    let report = query::write(&session, "INSERT INTO shop.orders VALUES (4, 40), (5, -50)").await;
    assert_eq!((report.rows_written, report.rows_quarantined), (1, 1));

    // Switched off and on.
    rules.set_enabled("positive", false).await.unwrap();
    assert!(!rules.get("positive").await.unwrap().enabled);
    let report = query::write(&session, "INSERT INTO shop.orders VALUES (6, -60)").await;
    assert_eq!((report.rows_written, report.rows_quarantined), (1, 0));
    rules.set_enabled("positive", true).await.unwrap();

    // Another action, the same question.
    let mut kept = rules.get("positive").await.unwrap();
    let fingerprint = kept.fingerprint.clone();
    kept.on_violation = OnViolation::DropRow;
    let before =
        query::integers(&session, "SELECT max(version) FROM shop.\"orders$history\"").await[0];
    rules.update(kept).await.unwrap();
    let after =
        query::integers(&session, "SELECT max(version) FROM shop.\"orders$history\"").await[0];
    assert_eq!(after, before + 1, "one commit");
    assert_eq!(
        rules.get("positive").await.unwrap().fingerprint,
        fingerprint
    );
    let report = query::write(&session, "INSERT INTO shop.orders VALUES (7, -70)").await;
    assert_eq!((report.rows_written, report.rows_dropped), (0, 1));

    rules.delete("positive").await.unwrap();
    for error in [
        rules.get("positive").await.map(drop).unwrap_err(),
        rules.delete("positive").await.unwrap_err(),
        rules.set_enabled("stedy", true).await.unwrap_err(),
        rules.update(positive).await.map(drop).unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::NotFound, "{error}");
    }
    let error = rules.set_enabled("stedy", true).await.unwrap_err();
    assert!(error.to_string().contains("steady"), "{error}");
    let left = lines(&session, "SELECT name FROM shop.\"orders$constraints\"").await;
    assert_eq!(left, ["steady"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn rules_are_asked_of_the_rows_at_rest() {
    let engine = shop().await;
    let rules = engine.rules("shop.orders");
    let mut strict = Rule::new("strict", "amount >= 0");
    strict.on_null = OnNull::Violate;
    rules.create(strict, Validation::Trust).await.unwrap();
    rules
        .create(Rule::new("filled", "count(*) = 3"), Validation::Scan)
        .await
        .unwrap();
    rules
        .create(
            Rule::new("past", "count(*) = previous(count(*))"),
            Validation::Scan,
        )
        .await
        .unwrap();

    let all = rules.check(None).await.unwrap();
    let told: Vec<_> = all
        .iter()
        .map(|result| (result.rule.as_str(), result.outcome, result.rows_checked))
        .collect();
    assert_eq!(told.len(), 3, "{told:?}");
    assert!(
        told.contains(&("strict", RuleOutcome::Violated, 3)),
        "{told:?}"
    );
    assert!(
        told.contains(&("filled", RuleOutcome::Passed, 3)),
        "{told:?}"
    );
    // It says what it says of writes; there was none since it came.
    assert!(
        told.contains(&("past", RuleOutcome::Unknown, 3)),
        "{told:?}"
    );
    let one = rules.check(Some("strict")).await.unwrap();
    assert_eq!(one.len(), 1);
    assert_eq!((one[0].violations, one[0].nulls), (2, 1));
    assert!(!one[0].sample.is_empty());
    let error = rules.check(Some("strickt")).await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("strict"),
        "{error}"
    );
    // It changed nothing.
    let session = engine.session();
    assert_eq!(
        query::rows(&session, "SELECT * FROM shop.\"orders$quality\"").await,
        0
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_wrong_with_a_rule_is_told_when_it_comes() {
    let engine = shop().await;
    let rules = engine.rules("shop.orders");
    let mut dropping = Rule::new("dropping", "count(*) > 0");
    dropping.on_violation = OnViolation::DropRow;
    let mut parts = Rule::new("parts", "count(*) > 0");
    parts.per_partition = true;
    for (rule, part) in [
        (Rule::new("", "amount > 0"), "name"),
        (Rule::new("c", ""), "c"),
        (Rule::new("c", "amount > 0) OR (true"), "c"),
        (Rule::new("c", "amont > 0"), "amount"),
        (Rule::new("c", "amount"), "BOOLEAN"),
        (Rule::new("c", "random() > 0"), "random"),
        (Rule::new("c", "amount > 0; DROP TABLE shop.orders"), "c"),
        (dropping, "dropping"),
        (parts, "partition"),
    ] {
        let context = format!("{rule:?}");
        let error = rules
            .create(rule, Validation::Trust)
            .await
            .expect_err(&context);
        assert!(
            error.to_string().contains(part),
            "{context} should say {part}: {error}"
        );
    }
    assert!(rules.list().await.unwrap().is_empty());
    let error = engine.rules("shop.oders").list().await.unwrap_err();
    assert!(
        error.kind() == ErrorKind::NotFound && error.to_string().contains("orders"),
        "{error}"
    );
}

/// The types are those a service exchanges as they are.
#[tokio::test(flavor = "multi_thread")]
async fn rules_and_reports_travel_as_json() {
    let engine = shop().await;
    let rules = engine.rules("shop.orders");
    let mut positive = Rule::new("positive", "amount >= 0");
    positive.on_violation = OnViolation::QuarantineRow;
    rules.create(positive, Validation::Trust).await.unwrap();
    let rule = rules.get("positive").await.unwrap();
    let json = serde_json::to_value(&rule).unwrap();
    for (key, value) in [
        ("name", "positive"),
        ("expect", "amount >= 0"),
        ("kind", "row"),
        ("on_null", "pass"),
        ("on_violation", "quarantine_row"),
    ] {
        assert_eq!(json[key], value, "{json}");
    }
    assert_eq!(serde_json::from_value::<Rule>(json.clone()).unwrap(), rule);
    let mut unknown = json;
    unknown["severity"] = "high".into();
    serde_json::from_value::<Rule>(unknown).unwrap_err();

    let report = query::write(
        &engine.session(),
        "INSERT INTO shop.orders VALUES (1, 1), (2, -2)",
    )
    .await;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["rowsQuarantined"], 1, "{json}");
    assert_eq!(json["rules"][0]["outcome"], "violated", "{json}");
    assert_eq!(
        serde_json::from_value::<selvedge_engine::WriteReport>(json).unwrap(),
        report
    );
}

/// Two programs that change rules at once: each rule is there, and none twice.
#[tokio::test(flavor = "multi_thread")]
async fn rules_that_come_at_once_are_all_there() {
    let engine = shop().await;
    let creators = (0..8).map(|number| {
        let rules = engine.rules("shop.orders");
        tokio::spawn(async move {
            let rule = Rule::new(format!("r{}", number / 2), "id > 0");
            rules.create(rule, Validation::Scan).await.map(drop)
        })
    });
    let mut created = 0;
    for creator in creators.collect::<Vec<_>>() {
        match creator.await.unwrap() {
            Ok(()) => created += 1,
            Err(error) => assert_eq!(error.kind(), ErrorKind::AlreadyExists, "{error}"),
        }
    }
    assert_eq!(created, 4);
    assert_eq!(engine.rules("shop.orders").list().await.unwrap().len(), 4);
}

/// Rows of the embedding program pass the same rules, and the report says so.
#[tokio::test(flavor = "multi_thread")]
async fn a_program_that_writes_is_told_what_rules_say() {
    let engine = shop().await;
    let rules = engine.rules("shop.orders");
    let mut positive = Rule::new("positive", "amount >= 0");
    positive.on_violation = OnViolation::DropRow;
    rules.create(positive, Validation::Trust).await.unwrap();
    let schema = Schema::new(vec![
        Field::new("id", DataType::Int64, true),
        Field::new("amount", DataType::Int64, true),
    ]);
    let columns = [vec![7, 8, 9], vec![1, -1, -2]]
        .map(|values| Arc::new(Int64Array::from(values)) as ArrayRef);
    let rows = RecordBatch::try_new(Arc::new(schema), columns.to_vec()).unwrap();
    let session = engine.session();
    let prepared = session
        .prepare("INSERT INTO shop.orders VALUES (?, ?)")
        .await
        .unwrap();
    let report = prepared.execute_many(&[rows]).await.unwrap();
    assert_eq!(
        (
            report.rows_received,
            report.rows_written,
            report.rows_dropped
        ),
        (3, 1, 2)
    );
    assert_eq!(report.rules[0].violations, 2);
    assert_eq!(report.rows_affected(), 1);
}
