//! Runs a script against a lake: `cargo run -p selvedge-engine --example script -- LAKE FILE`.

#![expect(clippy::print_stdout, reason = "a program's results go to its output")]

use datafusion::arrow::util::pretty::pretty_format_batches;
use futures::TryStreamExt;
use selvedge_engine::{Answer, Engine, split};

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let mut arguments = std::env::args().skip(1);
    let (Some(lake), Some(file)) = (arguments.next(), arguments.next()) else {
        return Err("usage: script LAKE FILE".into());
    };
    let engine = Engine::builder(lake).open().await?;
    let session = engine.session();
    let script = std::fs::read_to_string(file)?;
    for statement in split(&script) {
        println!("> {}", statement.text);
        match session.execute(statement.text).await {
            Ok(Answer::Rows(rows)) => {
                let batches: Vec<_> = rows.try_collect().await?;
                println!("{}", pretty_format_batches(&batches)?);
            }
            Ok(Answer::Written(report)) => println!("{report:?}"),
            Ok(Answer::Done(tag)) => println!("{tag}"),
            Err(error) => println!("error: {}", error.render(statement.text)),
        }
    }
    engine.settle().await;
    Ok(())
}
