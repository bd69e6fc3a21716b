//! Which functions a token opens.

use serde::{Deserialize, Deserializer};

/// The claim `function` of a token.
#[derive(Debug, Default, Deserialize)]
pub(super) struct FunctionClaim {
    #[serde(default, deserialize_with = "or_default")]
    pub(super) permissions: Vec<String>,
    #[serde(default, deserialize_with = "or_default")]
    pub(super) audience: Vec<String>,
}

impl FunctionClaim {
    /// Whether the token is meant for `function`, if it says whom it is meant for, and permits it.
    pub(super) fn allows(&self, function: &str) -> bool {
        let any = |patterns: &[String]| patterns.iter().any(|pattern| matches(pattern, function));
        (self.audience.is_empty() || any(&self.audience)) && any(&self.permissions)
    }
}

/// Whether the whole of `name` matches; `*` stands for any text, all else for itself.
fn matches(pattern: &str, name: &str) -> bool {
    let Some((first, rest)) = pattern.split_once('*') else {
        return pattern == name;
    };
    let Some(mut name) = name.strip_prefix(first) else {
        return false;
    };
    let mut literals: Vec<&str> = rest.split('*').collect();
    // Splitting gives at least one piece.
    let last = literals.pop().unwrap_or_default();
    for literal in literals {
        match name.find(literal) {
            Some(at) => name = &name[at + literal.len()..],
            None => return false,
        }
    }
    name.ends_with(last)
}

/// Deserializes a value, with the default in place of null.
pub(super) fn or_default<'de, T, D>(deserializer: D) -> Result<T, D::Error>
where
    T: Default + Deserialize<'de>,
    D: Deserializer<'de>,
{
    Ok(Option::deserialize(deserializer)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_the_whole_name() {
        for (pattern, matched) in [
            ("*", true),
            ("openfaas-fn:env", true),
            ("openfaas-fn:*", true),
            ("*:env", true),
            ("open*:e*v", true),
            ("*:*", true),
            ("**env", true),
            ("openfaas-fn:env*", true),
            ("n", false),
            ("openfaas-fn:en", false),
            ("env", false),
            ("*:en", false),
            ("openfaas-fn:env?", false),
            (".*", false),
            ("", false),
            ("openfaas-fn:env*env", false),
            ("openfaas-fn:en*nv", false),
        ] {
            assert_eq!(matches(pattern, "openfaas-fn:env"), matched, "{pattern}");
        }
    }

    #[test]
    fn an_audience_restricts() {
        let claim = |permissions: &[&str], audience: &[&str]| FunctionClaim {
            permissions: permissions.iter().map(|text| (*text).to_owned()).collect(),
            audience: audience.iter().map(|text| (*text).to_owned()).collect(),
        };
        assert!(claim(&["x", "ns:*"], &[]).allows("ns:fn"));
        assert!(claim(&["*"], &["other:*", "ns:fn"]).allows("ns:fn"));
        assert!(!claim(&["*"], &["other:*"]).allows("ns:fn"));
        assert!(!claim(&[], &["*"]).allows("ns:fn"));
        assert!(!claim(&[], &[]).allows("ns:fn"));
    }
}
