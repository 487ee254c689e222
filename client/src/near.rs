//! Names that are like one that is not bound: for messages. What that costs is bounded, however many names there are.

use crate::{
    brain::Brain,
    error::{Error, Result},
};
use std::{cmp::Reverse, collections::BTreeSet, fmt};

/// Names that are like one that is not bound. Made by [`Brain::near`]. Its text is the end of a sentence about that name.
///
/// # Examples
/// ```
/// let brain = plasmon::testing::brain()?;
/// brain.learn("prices", &1)?;
/// assert_eq!(brain.near("price")?.to_string(), r#"did you mean "prices"?"#);
/// # Ok::<(), plasmon::Error>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Near {
    /// Names of the same namespace that are spelled alike, the likest first.
    pub names: Vec<String>,
    /// Other namespaces in which this very name is bound.
    pub namespaces: Vec<String>,
}

impl Near {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.names.is_empty() && self.namespaces.is_empty()
    }
}

impl fmt::Display for Near {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let quoted = |texts: &[String]| texts.iter().map(|text| format!("{text:?}")).collect::<Vec<_>>();
        let (names, namespaces) = (quoted(&self.names), quoted(&self.namespaces));
        match (names.is_empty(), namespaces.is_empty()) {
            (_, false) => write!(f, "it is bound in namespace {}", namespaces.join(" and in ")),
            (false, true) => write!(f, "did you mean {}?", names.join(" or ")),
            (true, true) => Ok(()),
        }
    }
}

impl Brain {
    /// Names that are like `name`, which is not bound: spelled alike in this namespace, or the same in another one.
    ///
    /// Looks at some ten thousand names of this namespace and at the first four thousand namespaces, and no more: a few
    /// round trips.
    ///
    /// # Errors
    /// [`Error::BadName`], [`Error::StoreUnavailable`].
    ///
    /// # Examples
    /// ```
    /// let brain = plasmon::testing::brain()?;
    /// brain.in_namespace("other")?.learn("prices", &1)?;
    /// assert_eq!(brain.near("prices")?.namespaces, ["other"]);
    /// # Ok::<(), plasmon::Error>(())
    /// ```
    pub fn near(&self, name: &str) -> Result<Near> {
        let mut namespaces = Vec::new();
        for other in self.first_namespaces()? {
            if *other.namespace != *self.namespace()
                && namespaces.len() < NEAR_MAX
                && self.in_namespace(&other.namespace)?.exists(name)?
            {
                namespaces.push(other.namespace.to_string());
            }
        }
        let candidates = match self.candidates(name) {
            Err(Error::NamespaceNotFound { .. }) => BTreeSet::new(),
            candidates => candidates?,
        };
        Ok(Near { names: likest(name, candidates.iter().map(String::as_str)), namespaces })
    }

    /// The names of this namespace if a page holds them; else those that are likely to be meant: they begin as `name`
    /// does.
    fn candidates(&self, name: &str) -> Result<BTreeSet<String>> {
        let mut found = BTreeSet::new();
        let chars = name.chars().count();
        for begin in [0, 1, chars / 2, chars.saturating_sub(1)] {
            let prefix: String = name.chars().take(begin).collect();
            let Some(page) = self.name_pages(&prefix).next().transpose()? else { break };
            found.extend(page.iter().map(str::to_owned));
            if begin == 0 && !page.has_more() {
                break;
            }
        }
        Ok(found)
    }
}

/// Most names, and most namespaces, that are suggested.
const NEAR_MAX: usize = 3;

/// Longest name that is compared, in characters: comparing takes as long as two names' lengths multiplied.
const COMPARED_CHARS_MAX: usize = 64;

/// Those of `candidates` that are spelled like `name`, the likest first.
fn likest<'a>(name: &str, candidates: impl Iterator<Item = &'a str>) -> Vec<String> {
    let asked = folded(name);
    let len = asked.chars().count();
    if len > COMPARED_CHARS_MAX {
        return Vec::new();
    }
    let mistakes_max = (len / 3).max(1);
    let mut near: Vec<(usize, Reverse<bool>, &str)> = candidates
        .filter(|candidate| *candidate != name && candidate.len() <= 4 * COMPARED_CHARS_MAX)
        .filter_map(|candidate| {
            let folded = folded(candidate);
            if folded.chars().count().abs_diff(len) > mistakes_max {
                return None;
            }
            let mistakes = strsim::osa_distance(&asked, &folded);
            // In a name of one or two letters one mistake makes any other name.
            let is_near = mistakes <= mistakes_max && mistakes < len;
            is_near.then_some((mistakes, Reverse(candidate.starts_with(name)), candidate))
        })
        .collect();
    near.sort_unstable();
    near.into_iter().take(NEAR_MAX).map(|(.., candidate)| candidate.to_owned()).collect()
}

/// A name without what is easily mistaken in it: case, and what stands between words.
fn folded(name: &str) -> String {
    name.chars()
        .flat_map(char::to_lowercase)
        .map(|character| if matches!(character, '-' | ' ' | '.') { '_' } else { character })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_are_spelled_alike_are_near_and_others_are_not() {
        let names = ["prices", "Prices-2", "price", "pirces", "volume", "x", "y", ""];
        let near = |name: &str| likest(name, names.into_iter());
        assert_eq!(near("prces"), ["pirces", "prices"]);
        assert_eq!(near("PRICES"), ["prices", "pirces", "price"]);
        assert_eq!(near("prices_2"), ["Prices-2", "prices"]);
        assert_eq!(near("z"), [""; 0]);
        assert_eq!(near("temperature"), [""; 0]);
        assert_eq!(near(&"prices".repeat(100)), [""; 0]);
    }

    #[test]
    fn what_is_near_is_said_in_half_a_sentence() {
        let texts = |texts: &[&str]| texts.iter().map(ToString::to_string).collect();
        let near = |names, namespaces| Near { names: texts(names), namespaces: texts(namespaces) };
        assert_eq!(near(&["a", "b"], &[]).to_string(), r#"did you mean "a" or "b"?"#);
        assert_eq!(near(&["a"], &["other"]).to_string(), r#"it is bound in namespace "other""#);
        assert!(near(&[], &[]).is_empty() && near(&[], &[]).to_string().is_empty());
    }
}
