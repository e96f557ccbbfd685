//! The settings that a developer's machine gives: the environment and the file `.env`, of which the environment wins.

use std::collections::BTreeMap;
use std::path::Path;

use crate::StartError;

/// Settings that only make sense in AWS. The local stack has no Secrets Manager, and AWS variables never select
/// anything on it.
fn is_for_aws(name: &str) -> bool {
    name.starts_with("AWS_") || name.ends_with("_SECRET_ID")
}

/// Settings by the name of their variable.
#[derive(Clone, Default)]
pub struct Settings(BTreeMap<String, String>);

impl Settings {
    /// The environment's variables, and those of the file `file` that the environment does not have. A file that is
    /// not there is as good as an empty one.
    ///
    /// # Errors
    /// [`StartError::EnvironmentFile`] when the file is there but cannot be read or understood.
    pub fn read(file: &Path) -> Result<Self, StartError> {
        let mut settings = Self::default();
        settings.add_file(file)?;
        for (name, value) in std::env::vars_os() {
            if let (Ok(name), Ok(value)) = (name.into_string(), value.into_string()) {
                settings.0.insert(name, value);
            }
        }
        Ok(settings)
    }

    /// The value of `name`, unless it is empty or of use in AWS only.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0
            .get(name)
            .filter(|value| !value.is_empty() && !is_for_aws(name))
            .map(String::as_str)
    }

    /// Gives `name` this value, whatever it had before.
    pub fn set(&mut self, name: &str, value: impl Into<String>) {
        self.0.insert(name.to_owned(), value.into());
    }

    fn add_file(&mut self, file: &Path) -> Result<(), StartError> {
        let fault = |detail: String| StartError::EnvironmentFile {
            file: file.to_owned(),
            detail,
        };
        let text = match std::fs::read(file) {
            Ok(text) => text,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(fault(format!("it cannot be read ({error})"))),
        };
        for pair in dotenvy::from_read_iter(text.as_slice()) {
            let (name, value) = pair.map_err(|error| fault(parse_fault(&text, &error)))?;
            self.0.insert(name, value);
        }
        Ok(())
    }
}

/// The variables' names; a value may be a secret.
impl std::fmt::Debug for Settings {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Settings")
            .field(&self.0.keys().collect::<Vec<_>>())
            .finish()
    }
}

/// What is wrong with the file, in words that do not repeat its content, which may be a secret.
fn parse_fault(text: &[u8], error: &dotenvy::Error) -> String {
    match error {
        dotenvy::Error::LineParse(line, _) => {
            let text = String::from_utf8_lossy(text);
            let first = line.lines().next().unwrap_or_default().trim();
            match text.lines().position(|candidate| candidate.trim() == first) {
                Some(index) => format!("line {} is not of the form NAME=value", index.saturating_add(1)),
                None => "a line is not of the form NAME=value".to_owned(),
            }
        }
        _ => "it is not a text in UTF-8".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(content: &[u8]) -> Result<Settings, StartError> {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join(".env");
        std::fs::write(&file, content).unwrap();
        Settings::read(&file)
    }

    #[test]
    fn the_file_adds_to_the_environment_which_wins() {
        let settings =
            read(b"# A comment\nRATE_PLAN=growth\nexport LIMIT_COUNTS='users'\nPATH=elsewhere\n").unwrap();
        assert_eq!(settings.get("RATE_PLAN"), Some("growth"));
        assert_eq!(settings.get("LIMIT_COUNTS"), Some("users"));
        assert_ne!(settings.get("PATH"), Some("elsewhere"));
        assert!(Settings::read(Path::new("no/such/file")).is_ok());
    }

    #[test]
    fn a_malformed_file_is_named_by_its_line_and_not_quoted() {
        let error = read(b"RATE_PLAN=growth\n\nSNAPTRADE CONSUMER KEY very-secret\n")
            .unwrap_err()
            .to_string();
        assert!(error.contains("line 3"), "{error}");
        assert!(!error.contains("very-secret"), "{error}");
        assert!(read(&[b'A', b'=', 0xff, b'\n']).is_err());
    }

    #[test]
    fn what_is_for_aws_selects_nothing_here() {
        let settings =
            read(b"AWS_ENDPOINT_URL_DYNAMODB=https://dynamodb.example.com\nSNAPTRADE_SECRET_ID=prod\n")
                .unwrap();
        assert_eq!(settings.get("AWS_ENDPOINT_URL_DYNAMODB"), None);
        assert_eq!(settings.get("SNAPTRADE_SECRET_ID"), None);
    }

    #[test]
    fn settings_print_no_values() {
        let mut settings = Settings::default();
        settings.set("SNAPTRADE_CONSUMER_KEY", "very-secret");
        assert!(!format!("{settings:?}").contains("very-secret"));
    }
}
