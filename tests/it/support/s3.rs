//! A real S3 server in this process, which can also pass for Google's: that one speaks nearly the same.

use std::sync::Arc;

use hyper::Request;
use hyper::body::Incoming;
use hyper::header::{AUTHORIZATION, HeaderValue, IF_NONE_MATCH};
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
        Self::serve(false).await
    }

    /// Starts one that asks for no keys, and takes the condition of a put in Google's words.
    pub(crate) async fn like_google() -> Self {
        Self::serve(true).await
    }

    async fn serve(google: bool) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::create_dir(dir.path().join(BUCKET)).unwrap();
        let service = {
            let mut builder = S3ServiceBuilder::new(FileSystem::new(dir.path()).unwrap());
            if !google {
                builder.set_auth(SimpleAuth::from_single(ACCESS_KEY, SECRET_KEY));
            }
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
                    let answer = service_fn(move |mut request: Request<Incoming>| {
                        if google {
                            // Its client sends an empty one when there are no keys.
                            request.headers_mut().remove(AUTHORIZATION);
                        }
                        // Generation 0: where no object is.
                        let condition = request.headers_mut().remove("x-goog-if-generation-match");
                        if google && condition.is_some_and(|generation| generation == "0") {
                            let headers = request.headers_mut();
                            headers.insert(IF_NONE_MATCH, HeaderValue::from_static("*"));
                        }
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

    /// The variables that tell a process where the server is and who may use it.
    pub(crate) fn environment(&self) -> [(&'static str, &str); 4] {
        [
            ("AWS_ENDPOINT_URL", &self.endpoint),
            ("AWS_REGION", "us-east-1"),
            ("AWS_ACCESS_KEY_ID", ACCESS_KEY),
            ("AWS_SECRET_ACCESS_KEY", SECRET_KEY),
        ]
    }

    /// The variable that tells a client of Google's store to come here.
    pub(crate) fn google_environment(&self) -> (&'static str, String) {
        let endpoint = &self.endpoint;
        let account = format!(
            r#"{{"gcs_base_url":"{endpoint}","disable_oauth":true,"client_email":"","private_key":"","private_key_id":""}}"#
        );
        ("GOOGLE_SERVICE_ACCOUNT_KEY", account)
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
