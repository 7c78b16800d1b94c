//! What names mean while others write.

use super::*;
use crate::answer::Answer;
use crate::engine::Engine;
use crate::session::Session;

async fn done(session: &Session, sql: &str) {
    session.execute(sql).await.unwrap();
}

async fn count(scope: &Arc<Scope>, sql: &str) -> usize {
    let sql::Statement::Query(query) = sql::parse(sql).unwrap() else {
        panic!("{sql} is not a query");
    };
    let plan = scope.plan_query(*query).await.unwrap();
    let frame = datafusion::dataframe::DataFrame::new(scope.state(), plan);
    frame.count().await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_statement_sees_one_version_of_a_table_wherever_it_names_it() {
    let engine = Engine::builder("memory:///").open().await.unwrap();
    let session = engine.session();
    done(&session, "CREATE TABLE t (a INT)").await;
    done(&session, "INSERT INTO t VALUES (1)").await;
    done(&session, "CREATE VIEW v AS SELECT * FROM t").await;

    let ways = ["t", "v", "t$files", "t$history"];
    for first in ways {
        let scope = session.begin().await.unwrap();
        let before: Vec<usize> = {
            let fresh = session.begin().await.unwrap();
            let mut counts = Vec::new();
            for way in ways {
                counts.push(count(&fresh, &format!("SELECT * FROM \"{way}\"")).await);
            }
            counts
        };
        count(&scope, &format!("SELECT * FROM \"{first}\"")).await;
        let Answer::Written(report) = session.execute("INSERT INTO t VALUES (2)").await.unwrap()
        else {
            panic!("not a write");
        };
        let mut after = Vec::new();
        for way in ways {
            after.push(count(&scope, &format!("SELECT * FROM \"{way}\"")).await);
        }
        assert_eq!(after, before, "{first} was read first");
        let name = ast::ObjectName::from(vec![ast::Ident::new("t")]);
        let opened = scope.open(&name).await.unwrap();
        assert_eq!(Some(opened.snapshot.version + 1), report.version);
    }
}
