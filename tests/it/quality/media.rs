//! Real data: eleven years of the media types registry, release by release, with a dozen rules.

use std::path::PathBuf;

use selvedge_engine::{RuleOutcome, Session};

use super::{conserved, lines, of};
use crate::support::{lake, query};

const RELEASES: [&str; 12] = [
    "1.0.0", "1.5.0", "1.10.0", "1.20.0", "1.25.0", "1.30.0", "1.35.0", "1.40.0", "1.45.0",
    "1.50.0", "1.52.0", "1.54.0",
];

/// Rules about rows: name, what must hold, what unknown means, what becomes of the row.
const ROWS: [(&str, &str, &str, &str); 6] = [
    ("slash", "type LIKE '%_/_%'", "VIOLATE", "FAIL"),
    ("lower_case", "type = lower(type)", "PASS", "QUARANTINE ROW"),
    ("registered", "source = 'iana'", "VIOLATE", "WARN"),
    (
        "no_chemistry",
        "type NOT LIKE 'chemical/%'",
        "PASS",
        "DROP ROW",
    ),
    (
        "plain_charset",
        "charset IN ('UTF-8', 'US-ASCII')",
        "PASS",
        "QUARANTINE ROW",
    ),
    (
        "not_too_long",
        "length(type) <= 64 AND cardinality(extensions) < 10",
        "PASS",
        "QUARANTINE ROW",
    ),
];

/// Rules about a release.
const METRICS: [(&str, &str, &str); 6] = [
    (
        "complete",
        "null_count(type) = 0 AND null_count(release) = 0",
        "FAIL",
    ),
    ("one_of_each", "is_unique(type)", "FAIL"),
    (
        "steady",
        "count(*) BETWEEN 0.9 * previous(count(*)) AND 1.2 * previous(count(*))",
        "FAIL",
    ),
    ("usual", "count(*) >= baseline(count(*), 3)", "WARN"),
    ("known", "null_fraction(compressible) < 0.95", "WARN"),
    (
        "varied",
        "approx_distinct(source) BETWEEN 2 AND 4 AND min(released_on) = max(released_on)",
        "FAIL",
    ),
];

fn file(release: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shell/examples/media-types");
    let path = path.join(format!("mime-db-{release}.json.gz"));
    path.canonicalize().unwrap().display().to_string()
}

fn create() -> String {
    let rows = ROWS.iter().map(|(name, expect, on_null, action)| {
        format!("CONSTRAINT {name} EXPECT ({expect}) ON NULL {on_null} ON VIOLATION {action}")
    });
    let metrics = METRICS.iter().map(|(name, expect, action)| {
        format!("CONSTRAINT {name} EXPECT ({expect}) ON VIOLATION {action}")
    });
    let rules: Vec<String> = rows.chain(metrics).collect();
    format!(
        "CREATE TABLE types (type TEXT NOT NULL, source TEXT, charset TEXT, compressible BOOLEAN, extensions TEXT[], \
         release TEXT, released_on DATE, {}) PARTITIONED BY (release)",
        rules.join(", ")
    )
}

const COLUMNS: &str = "type, source, charset, compressible, extensions, release, CAST(released_on AS DATE) AS released_on";

async fn count(session: &Session, release: &str, condition: &str) -> u64 {
    let sql = format!("SELECT count(*) FROM '{}' WHERE {condition}", file(release));
    query::integers(session, &sql).await[0] as u64
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dozen_rules_over_every_release() {
    let folder = tempfile::tempdir().unwrap();
    let session = lake::folder(folder.path()).await;
    query::run(&session, &create()).await;
    let (mut written, mut aside, mut violated) = (0, 0, 0);
    for (number, release) in RELEASES.iter().enumerate() {
        let sql = format!(
            "INSERT INTO types SELECT {COLUMNS} FROM '{}'",
            file(release)
        );
        let report = query::write(&session, &sql).await;
        conserved(&report);
        assert_eq!(
            report.rows_received,
            count(&session, release, "true").await,
            "{release}"
        );
        // Each rule counts what a query for the same predicate counts.
        for (name, expect, on_null, _) in ROWS {
            let result = of(&report, name);
            let unknown = count(&session, release, &format!("({expect}) IS NULL")).await;
            let mut broken = count(&session, release, &format!("NOT ({expect})")).await;
            if on_null == "VIOLATE" {
                broken += unknown;
            }
            assert_eq!(
                (result.rows_checked, result.violations, result.nulls),
                (report.rows_received, broken, unknown),
                "{release}: {name}"
            );
            violated += u64::from(broken > 0);
        }
        for (name, ..) in METRICS {
            let result = of(&report, name);
            let past = matches!(name, "steady" | "usual");
            let expected = match (name, number) {
                (_, 0) if past => RuleOutcome::Unknown,
                ("usual" | "known", _) => continue,
                _ => RuleOutcome::Passed,
            };
            assert_eq!(
                (result.outcome, result.rows_checked),
                (expected, report.rows_written),
                "{release}: {name}"
            );
        }
        let quarantined = ROWS
            .iter()
            .filter(|rule| rule.3 == "QUARANTINE ROW")
            .map(|(_, expect, ..)| format!("(({expect}) IS FALSE)"));
        let quarantined = quarantined.collect::<Vec<_>>().join(" OR ");
        assert_eq!(
            report.rows_quarantined,
            count(&session, release, &quarantined).await,
            "{release}"
        );
        written += report.rows_written;
        aside += report.rows_quarantined;
    }
    assert!(aside > 0 && violated > 0, "the rules found nothing");
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM types").await,
        [written as i64]
    );
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM \"types$quarantine\"").await,
        [aside as i64]
    );
    assert_eq!(
        query::integers(&session, "SELECT count(*) FROM \"types$quality\"").await,
        [12 * 12]
    );
    assert_eq!(
        query::integers(
            &session,
            "SELECT count(*) FROM types WHERE type LIKE 'chemical/%'"
        )
        .await,
        [0]
    );

    // A release that comes twice at once is not one release; half of one is not one either.
    let newest = file("1.54.0");
    for (rule, sql) in [
        (
            "one_of_each",
            format!(
                "INSERT INTO types SELECT {COLUMNS} FROM (SELECT * FROM '{newest}' UNION ALL SELECT * FROM '{newest}' WHERE type = 'text/html')"
            ),
        ),
        (
            "steady",
            format!(
                "INSERT INTO types SELECT {COLUMNS} FROM '{newest}' WHERE type < 'application/w'"
            ),
        ),
        (
            "slash",
            format!(
                "INSERT INTO types SELECT {} FROM '{newest}'",
                COLUMNS.replacen("type", "replace(type, '/html', '') AS type", 1)
            ),
        ),
    ] {
        let error = query::error(&session, &sql).await;
        assert!(error.contains(rule), "{rule}: {error}");
    }
    let blocked = "SELECT count(DISTINCT batch_id) FROM \"types$quality\" WHERE status = 'blocked'";
    assert_eq!(query::integers(&session, blocked).await, [3]);

    // What was put aside, repaired. Rules about a whole release are not for a few rows of it.
    for rule in ["steady", "varied"] {
        query::run(
            &session,
            &format!("ALTER TABLE types DISABLE CONSTRAINT {rule}"),
        )
        .await;
    }
    let report = query::write(
        &session,
        "REPLAY QUARANTINE types SET charset = NULL WHERE charset IS NOT NULL AND release = '1.54.0' \
         AND length(type) <= 64 AND cardinality(extensions) < 10",
    )
    .await;
    let odd = "charset NOT IN ('UTF-8', 'US-ASCII') AND length(type) <= 64 AND cardinality(extensions) < 10";
    assert_eq!(report.rows_received, count(&session, "1.54.0", odd).await);
    assert!(
        !lines(
            &session,
            "SELECT metric FROM \"types$metrics\" WHERE metric = 'is_unique(type)'"
        )
        .await
        .is_empty()
    );
}
