//! The smallest function that builds the clients of DynamoDB, Secrets Manager and HTTP as every function builds them.
//! It calls nothing.

use std::convert::Infallible;
use std::hint::black_box;

use berth::app::{AwsAccess, aws};
use berth::snaptrade::http_client;
use lambda_http::{Body, Error, Request, Response, service_fn};

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let access = AwsAccess::from_env(&|name| std::env::var(name).ok())
            .map_err(|_| "the AWS variables are not set")?;
        let http = http_client()?;
        let dynamodb = aws::dynamodb(&access, http.clone(), None, "hello");
        let secrets = aws::secrets_manager(&access, http.clone(), None, "hello");
        black_box((&http, &dynamodb, &secrets));
        lambda_http::run(service_fn(|_request: Request| async {
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        }))
        .await
    })
}
