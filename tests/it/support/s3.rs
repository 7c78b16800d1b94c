//! A real S3 server in this process.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::IF_NONE_MATCH;
use hyper::service::{Service, service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use object_store::aws::{AmazonS3, AmazonS3Builder};
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use s3s_fs::FileSystem;
use tokio::net::TcpListener;
use tokio::sync::Mutex;
use tokio::task::JoinHandle;

const BUCKET: &str = "lake";
const ACCESS_KEY: &str = "test-access";
const SECRET_KEY: &str = "test-secret";

/// A server with one bucket; both go when it is dropped.
pub(crate) struct S3 {
    endpoint: String,
    task: JoinHandle<()>,
    _dir: tempfile::TempDir,
}

impl S3 {
    /// Starts a server on a port of the system's choice.
    pub(crate) async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let service = {
            let mut builder = S3ServiceBuilder::new(FileSystem::new(dir.path()).unwrap());
            builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
            builder.build()
        };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let endpoint = format!("http://{}", listener.local_addr().unwrap());
        // s3s-fs looks whether the object is there and then writes it, so two racing creators may
        // both win. S3 itself decides in one step; to be as strict, conditional puts take turns.
        let turns = Arc::new(Mutex::new(()));
        let task = tokio::spawn(async move {
            while let Ok((socket, _)) = listener.accept().await {
                let (service, turns) = (service.clone(), Arc::clone(&turns));
                tokio::spawn(async move {
                    let answer = service_fn(move |request: Request<Incoming>| {
                        let (service, turns) = (service.clone(), Arc::clone(&turns));
                        async move {
                            let _turn = match request.headers().contains_key(IF_NONE_MATCH) {
                                true => Some(turns.lock().await),
                                false => None,
                            };
                            Service::call(&service, request).await
                        }
                    });
                    let _ = auto::Builder::new(TokioExecutor::new())
                        .serve_connection(TokioIo::new(socket), answer)
                        .await;
                });
            }
        });
        Self {
            endpoint,
            task,
            _dir: dir,
        }
    }

    /// The URL of a lake, or of anything else, in the bucket.
    pub(crate) fn url(&self, path: &str) -> String {
        format!("s3://{BUCKET}/{path}")
    }

    /// A client of the bucket.
    pub(crate) fn store(&self) -> Arc<AmazonS3> {
        self.client(SECRET_KEY)
    }

    /// A client that does not know the secret.
    pub(crate) fn stranger(&self) -> Arc<AmazonS3> {
        self.client("guessed")
    }

    fn client(&self, secret: &str) -> Arc<AmazonS3> {
        Arc::new(
            AmazonS3Builder::new()
                .with_endpoint(&self.endpoint)
                .with_allow_http(true)
                .with_bucket_name(BUCKET)
                .with_region("us-east-1")
                .with_access_key_id(ACCESS_KEY)
                .with_secret_access_key(secret)
                .build()
                .unwrap(),
        )
    }
}

impl Drop for S3 {
    fn drop(&mut self) {
        self.task.abort();
    }
}
