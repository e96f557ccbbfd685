//! The template as the tests read it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use berth::app::Needs;
use yaml_rust2::{Yaml, YamlLoader};

/// The checkout that the test was built in.
pub(crate) fn checkout() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

pub(crate) fn read(path: impl AsRef<Path>) -> String {
    let path = checkout().join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The template. The parser leaves `CloudFormation`'s tags out: `!Ref Table` reads as the text `Table`, and
/// `!GetAtt Table.Arn` as `Table.Arn`.
pub(crate) struct Template(pub(crate) Yaml);

/// One function of the template.
pub(crate) struct Function<'a> {
    pub(crate) name: String,
    pub(crate) package: String,
    pub(crate) properties: &'a Yaml,
    pub(crate) globals: &'a Yaml,
}

impl Template {
    pub(crate) fn read() -> Self {
        Self::read_from("template.yaml")
    }

    /// The template at a place in the checkout, such as one that the main template nests.
    pub(crate) fn read_from(path: &str) -> Self {
        Self(YamlLoader::load_from_str(&read(path)).unwrap().remove(0))
    }

    pub(crate) fn resources(&self) -> impl Iterator<Item = (&str, &Yaml)> {
        entries(&self.0["Resources"])
    }

    pub(crate) fn resource(&self, name: &str) -> &Yaml {
        let resource = &self.0["Resources"][name];
        assert!(!resource.is_badvalue(), "there is no {name}");
        resource
    }

    pub(crate) fn functions(&self) -> Vec<Function<'_>> {
        self.resources()
            .filter(|(_, resource)| text(&resource["Type"]) == "AWS::Serverless::Function")
            .map(|(name, resource)| {
                let code = text(&resource["Properties"]["CodeUri"]);
                let package = code
                    .strip_prefix("functions/")
                    .expect("code outside of functions/");
                Function {
                    name: name.to_owned(),
                    package: package.to_owned(),
                    properties: &resource["Properties"],
                    globals: &self.0["Globals"]["Function"],
                }
            })
            .collect()
    }

    /// What a value comes to when nothing but the parameters without a default is given.
    pub(crate) fn value(&self, value: &Yaml) -> String {
        // `!If` reads as the list of what it is given.
        if let Some([condition, yes, no]) = value.as_vec().map(Vec::as_slice) {
            return self.value(if self.holds(&text(condition)) { yes } else { no });
        }
        let name = text(value);
        let parameter = &self.0["Parameters"][name.as_str()];
        if !parameter.is_badvalue() {
            let default = &parameter["Default"];
            return if default.is_badvalue() {
                "https://given.example.com".to_owned()
            } else {
                text(default)
            };
        }
        if name.chars().all(char::is_alphanumeric) && !self.0["Resources"][name.as_str()].is_badvalue() {
            return format!("the-{name}");
        }
        name
    }
}

impl Template {
    /// Whether a condition holds that compares a parameter with a value.
    fn holds(&self, condition: &str) -> bool {
        match self.0["Conditions"][condition].as_vec().map(Vec::as_slice) {
            Some([parameter, value]) => self.value(parameter) == text(value),
            other => panic!("{condition} compares nothing: {other:?}"),
        }
    }
}

impl Function<'_> {
    /// A property of the function's own, or else of all functions.
    pub(crate) fn property(&self, name: &str) -> &Yaml {
        let own = &self.properties[name];
        if own.is_badvalue() {
            &self.globals[name]
        } else {
            own
        }
    }

    pub(crate) fn events(&self) -> impl Iterator<Item = (&str, &Yaml)> {
        entries(&self.properties["Events"])
            .map(|(_, event)| (event["Type"].as_str().unwrap(), &event["Properties"]))
    }

    pub(crate) fn statements(&self) -> Vec<&Yaml> {
        let policies = self.properties["Policies"]
            .as_vec()
            .expect("a function without permissions of its own");
        policies
            .iter()
            .flat_map(|policy| policy["Statement"].as_vec().unwrap())
            .collect()
    }

    /// Whether the function's role allows the read of one key by which it opens its connection while it starts, and
    /// nothing is stored under.
    pub(crate) fn only_starts_by(statement: &Yaml) -> bool {
        let keys = &statement["Condition"]["ForAllValues:StringEquals"]["dynamodb:LeadingKeys"];
        !keys.is_badvalue() && texts(keys) == ["PING"]
    }

    pub(crate) fn variables(&self) -> BTreeMap<&str, &Yaml> {
        let common = &self.globals["Environment"]["Variables"];
        let own = &self.properties["Environment"]["Variables"];
        // With this key a function names the common ones as its own.
        let own = entries(own).filter(|(name, _)| *name != "<<");
        entries(common).chain(own).collect()
    }

    /// What the function's program says that it needs.
    pub(crate) fn needs(&self) -> Needs {
        let program = read(format!("functions/{}/src/main.rs", self.package));
        let said = program
            .split("Needs::")
            .skip(1)
            .map(|rest| rest.split(|c: char| !c.is_alphanumeric()).next().unwrap());
        match said.collect::<Vec<_>>().as_slice() {
            ["Credentials"] => Needs::Credentials,
            ["CredentialsAndDataKeys"] => Needs::CredentialsAndDataKeys,
            ["Access"] => Needs::Access,
            ["Everything"] => Needs::Everything,
            other => panic!("{} says that it needs {other:?}", self.package),
        }
    }
}

pub(crate) fn entries(map: &Yaml) -> impl Iterator<Item = (&str, &Yaml)> {
    map.as_hash()
        .into_iter()
        .flatten()
        .map(|(key, value)| (key.as_str().expect("a key that is no text"), value))
}

pub(crate) fn text(value: &Yaml) -> String {
    match value {
        Yaml::String(text) | Yaml::Real(text) => text.clone(),
        Yaml::Integer(number) => number.to_string(),
        Yaml::Boolean(truth) => truth.to_string(),
        other => panic!("not a plain value: {other:?}"),
    }
}

/// The texts of a list, or the one text that stands in place of a list.
pub(crate) fn texts(value: &Yaml) -> Vec<String> {
    value
        .as_vec()
        .map_or_else(|| vec![text(value)], |list| list.iter().map(text).collect())
}
