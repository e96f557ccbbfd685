//! Secrets that are read from AWS Secrets Manager.

use aws_sdk_secretsmanager::Client;
use aws_sdk_secretsmanager::error::{ProvideErrorMetadata as _, SdkError};
use aws_sdk_secretsmanager::operation::get_secret_value::GetSecretValueError;
use zeroize::Zeroizing;

use super::{Loader, SecretError};

/// Reads the secret `id`, by name or ARN, and takes it as `parse` does. `parse` gives what is wrong with the secret
/// in words that hold no part of it.
pub fn load<T: Send + 'static>(
    client: Client,
    id: String,
    parse: fn(&str) -> Result<T, String>,
) -> Loader<T> {
    let load = load_optional(client, id.clone(), parse);
    Box::new(move || {
        let (loading, id) = (load(), id.clone());
        Box::pin(async move {
            loading.await?.ok_or_else(|| SecretError::Unavailable {
                id,
                reason: "there is no such secret, or it has no value".to_owned(),
            })
        })
    })
}

/// As [`load`], but a secret that does not exist or has no value reads as `None`. Secrets Manager does not tell the
/// two apart (`GetSecretValue`, `ResourceNotFoundException`).
pub fn load_optional<T: Send + 'static>(
    client: Client,
    id: String,
    parse: fn(&str) -> Result<T, String>,
) -> Loader<Option<T>> {
    Box::new(move || {
        let (client, id) = (client.clone(), id.clone());
        Box::pin(async move {
            let answer = client.get_secret_value().secret_id(&id).send().await;
            let text = match answer {
                Ok(answer) => answer.secret_string.map(Zeroizing::new),
                Err(error) if error.code() == Some("ResourceNotFoundException") => return Ok(None),
                Err(error) => {
                    return Err(SecretError::Unavailable {
                        reason: reason(&error),
                        id,
                    });
                }
            };
            let text = text.ok_or_else(|| SecretError::Malformed {
                id: id.clone(),
                reason: "it is binary, not text".to_owned(),
            })?;
            match parse(&text) {
                Ok(value) => Ok(Some(value)),
                Err(reason) => Err(SecretError::Malformed { id, reason }),
            }
        })
    })
}

fn reason<R>(error: &SdkError<GetSecretValueError, R>) -> String {
    match error {
        SdkError::TimeoutError(_) => "Secrets Manager did not answer in time".to_owned(),
        SdkError::DispatchFailure(_) => "Secrets Manager could not be reached".to_owned(),
        _ => match error.code() {
            Some("AccessDeniedException") => "this function may not read it".to_owned(),
            Some("DecryptionFailure") => "this function may not decrypt it".to_owned(),
            Some(code) => format!("Secrets Manager answered {code}"),
            None => "Secrets Manager's answer was not understood".to_owned(),
        },
    }
}
