//! The smallest function that makes the calls which a function has to make before it can work: it reads its secrets, and
//! reaches the table and SnapTrade meanwhile, so that its first invocation waits for no connection. It keeps nothing.

use std::convert::Infallible;

use berth::app::{AwsAccess, aws};
use berth::config::BaseUrl;
use berth::snaptrade::http_client;
use berth::store::Store;
use lambda_http::{Body, Error, Request, Response, service_fn};

fn main() -> Result<(), Error> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let variable = |name: &str| std::env::var(name).ok();
        let endpoint = |name: &str| variable(name).and_then(|url| BaseUrl::parse(&url).ok());
        let access = AwsAccess::from_env(&variable).map_err(|_| "the AWS variables are not set")?;
        let http = http_client()?;
        let dynamodb = aws::dynamodb(
            &access,
            http.clone(),
            endpoint("AWS_ENDPOINT_URL_DYNAMODB").as_ref(),
            "hello",
        );
        let table = Store::new(dynamodb, std::env::var("TABLE_NAME")?);
        let secrets = aws::secrets_manager(
            &access,
            http.clone(),
            endpoint("AWS_ENDPOINT_URL_SECRETS_MANAGER").as_ref(),
            "hello",
        );
        let secret = |id: Option<String>| secrets.get_secret_value().set_secret_id(id).send();
        let snaptrade = http.get(std::env::var("SNAPTRADE_BASE_URL")?).send();
        let (credentials, keys, _reached, _answered) = tokio::join!(
            secret(variable("SNAPTRADE_SECRET_ID")),
            secret(variable("DATA_KEY_SECRET_ID")),
            table.ping(),
            async { Ok::<_, Error>(snaptrade.await?.bytes().await?) },
        );
        credentials?;
        keys?;
        lambda_http::run(service_fn(|_request: Request| async {
            Ok::<_, Infallible>(Response::new(Body::from("hello")))
        }))
        .await
    })
}
