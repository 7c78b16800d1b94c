//! SQL behaviour: the files under `slt/`, on each kind of store and through each door.

use crate::support::door::InProcess;
use crate::support::flight::Flight;
use crate::support::s3::S3;
use crate::support::slt::run;

#[tokio::test(flavor = "multi_thread")]
async fn folder() {
    run(InProcess::Folder).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn memory() {
    run(InProcess::Memory).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn s3() {
    run(InProcess::S3(S3::start().await)).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn flight() {
    run(Flight).await;
}
