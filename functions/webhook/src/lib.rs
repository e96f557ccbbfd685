//! The function `webhook`: takes in the events that SnapTrade sends. What they ask for is done by `webhook-worker`.

use berth::app::App;
use berth::http::{Code, InputFault, OpenCall, Problem, Reply, serve_open};
use berth::ids::TenantId;
use berth::webhooks::{self, NotTaken};
use lambda_http::{Body, Request, Response};

/// The header in which SnapTrade sends its signature.
const SIGNATURE: &str = "signature";

/// Answers `POST /api/snaptrade/webhook`.
pub async fn handle(app: &App, request: Request) -> Response<Body> {
    serve_open(app, request, |call| answer(app, call)).await
}

async fn answer(app: &App, call: OpenCall) -> Result<Reply, Problem> {
    let signature = call
        .headers()
        .get(SIGNATURE)
        .and_then(|signature| signature.to_str().ok())
        .unwrap_or_default();
    // An event has no token, and all tenants share one client id at SnapTrade so far.
    let tenant = TenantId::default();
    let received = webhooks::receive(app, &tenant, call.raw_body(), signature)
        .await
        .map_err(problem)?;
    Reply::ok(&received)
}

fn problem(refusal: NotTaken) -> Problem {
    let cause = refusal.to_string();
    let stamp = |detail: &str| InputFault {
        pointer: "/eventTimestamp".to_owned(),
        detail: detail.to_owned(),
    };
    let problem = match refusal {
        NotTaken::Signature | NotTaken::OtherClient => Problem::new(Code::InvalidSignature),
        NotTaken::NoObject => Problem::invalid(vec![InputFault {
            pointer: String::new(),
            detail: "must be a JSON object".to_owned(),
        }]),
        NotTaken::NoTimestamp => Problem::invalid(vec![stamp("must be a time in RFC 3339")]),
        NotTaken::Stale(_) => {
            Problem::invalid(vec![stamp("must be at most 72 hours ago and 5 minutes ahead")])
        }
        NotTaken::Credentials(error) => error.into(),
        NotTaken::Store(error) => error.into(),
    };
    problem.because(cause)
}
