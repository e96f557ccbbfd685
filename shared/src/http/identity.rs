//! Who calls: read from the claims that API Gateway's authorizer has verified.

use lambda_http::aws_lambda_events::apigw::ApiGatewayRequestAuthorizerJwtDescription;
use lambda_http::request::RequestContext;

use super::problem::Problem;
use crate::ids::{TenantId, UserId};

/// Claims that may hold a caller's scopes. Identity providers differ in which one they use.
const SCOPE_CLAIMS: [&str; 3] = ["scope", "scp", "permissions"];

/// The claim that names the caller's tenant.
const TENANT_CLAIM: &str = "berth_tenant";

/// A caller whose token was verified.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// The caller's own user id, the claim `sub`.
    pub user_id: UserId,
    /// Whether the caller may act for other users and use the operators' routes.
    pub role: Role,
    /// The caller's tenant.
    pub tenant: TenantId,
}

/// What a caller may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Reaches only their own data.
    User,
    /// May act for anyone.
    Operator,
}

/// Reads the caller from the request's context.
///
/// # Errors
/// [`Problem`] `forbidden` when no token was verified, or when it has no `sub` that can be a user id, or names a
/// tenant that cannot exist.
pub(super) fn identify(context: Option<&RequestContext>, operator_scope: &str) -> Result<Identity, Problem> {
    let jwt = context
        .and_then(RequestContext::authorizer)
        .and_then(|authorizer| authorizer.jwt.as_ref())
        .ok_or_else(|| Problem::forbidden("This route needs a verified token."))?;
    let subject = jwt
        .claims
        .get("sub")
        .ok_or_else(|| Problem::forbidden("The token names no user (claim sub)."))?;
    let user_id = UserId::parse(subject.as_str()).map_err(|rule| {
        Problem::forbidden(&format!("The token's claim sub cannot be a user id: it {rule}."))
    })?;
    let tenant = match jwt.claims.get(TENANT_CLAIM) {
        Some(tenant) => TenantId::parse(tenant).ok_or_else(|| {
            Problem::forbidden(&format!("The token's claim {TENANT_CLAIM} cannot be a tenant."))
        })?,
        None => TenantId::default(),
    };
    let role = if has_scope(jwt, operator_scope) {
        Role::Operator
    } else {
        Role::User
    };
    Ok(Identity {
        user_id,
        role,
        tenant,
    })
}

/// Whether the token has `scope`. API Gateway hands on every claim as text: a list appears as `[a b]`.
fn has_scope(jwt: &ApiGatewayRequestAuthorizerJwtDescription, scope: &str) -> bool {
    let checked = jwt.scopes.iter().flatten().map(String::as_str);
    let claimed = SCOPE_CLAIMS
        .iter()
        .filter_map(|claim| jwt.claims.get(*claim))
        .flat_map(|claim| {
            claim
                .trim()
                .trim_start_matches('[')
                .trim_end_matches(']')
                .split([' ', ','])
        });
    checked
        .chain(claimed)
        .any(|given| given.trim_matches('"') == scope)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn identity(claims: Value) -> Result<Identity, Problem> {
        let context = json!({
            "http": {"method": "GET", "path": "/", "protocol": "HTTP/1.1", "sourceIp": "127.0.0.1"},
            "stage": "$default", "requestId": "r", "timeEpoch": 0,
            "authorizer": {"jwt": {"claims": claims, "scopes": null}},
        });
        let context: RequestContext = serde_json::from_value(context).unwrap();
        identify(Some(&context), "berth/operator")
    }

    #[test]
    fn the_subject_is_the_user_and_the_default_tenant_applies() {
        let ada = identity(json!({"sub": "ada"})).unwrap();
        assert_eq!(ada.user_id.as_str(), "ada");
        assert_eq!(ada.role, Role::User);
        assert_eq!(ada.tenant, TenantId::default());
        let tenant = identity(json!({"sub": "ada", "berth_tenant": "acme"}))
            .unwrap()
            .tenant;
        assert_eq!(tenant.as_str(), "acme");
    }

    #[test]
    fn an_operator_is_known_by_the_scope_in_any_of_its_forms() {
        for claims in [
            json!({"sub": "o", "scope": "openid berth/operator"}),
            json!({"sub": "o", "scp": "[openid berth/operator]"}),
            json!({"sub": "o", "permissions": "[\"a\", \"berth/operator\"]"}),
        ] {
            assert_eq!(identity(claims.clone()).unwrap().role, Role::Operator, "{claims}");
        }
        for claims in [
            json!({"sub": "o", "scope": "berth/operators"}),
            json!({"sub": "o", "roles": "berth/operator"}),
            json!({"sub": "o", "scope": "xberth/operator berth"}),
        ] {
            assert_eq!(identity(claims.clone()).unwrap().role, Role::User, "{claims}");
        }
    }

    #[test]
    fn without_a_usable_subject_or_tenant_nobody_gets_in() {
        for claims in [
            json!({}),
            json!({"sub": ""}),
            json!({"sub": "a b"}),
            json!({"sub": "ada", "berth_tenant": "#"}),
        ] {
            assert_eq!(
                identity(claims).unwrap_err().code(),
                super::super::Code::Forbidden
            );
        }
        assert!(identify(None, "berth/operator").is_err());
    }
}
