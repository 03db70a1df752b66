// SPDX-License-Identifier: GPL-2.0-only
//! Everything that stands in the way, not only the first of it.

use crate::error::{Error, Result};

/// What stands in the way, in the order in which it was found.
#[derive(Debug, Default)]
pub struct Refusals(Vec<Error>);

impl Refusals {
    /// The value; or none, and the reason is kept.
    pub fn take<T>(&mut self, result: Result<T, impl Into<Error>>) -> Option<T> {
        result.map_err(|error| self.0.push(error.into())).ok()
    }

    /// Each of them.
    pub fn iter(&self) -> impl Iterator<Item = &Error> {
        self.0.iter()
    }

    /// All of them as one error, or none.
    pub fn end(self) -> Result<()> {
        match self.0.is_empty() {
            true => Ok(()),
            false => Err(Error::Several(self.0)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::refusal::Refusal;

    #[test]
    fn the_first_decides_and_all_are_said() {
        let mut refusals = Refusals::default();
        assert_eq!(refusals.take(Ok::<_, Error>(7)), Some(7));
        assert!(Refusals::default().end().is_ok());
        assert_eq!(refusals.take(Err::<(), _>(Refusal::NotRoot)), None);
        assert_eq!(refusals.take(Err::<(), _>(Refusal::NotAttached)), None);
        let error = refusals.end().unwrap_err();
        assert_eq!(error.exit(), crate::Exit::NotRoot);
        assert_eq!(error.each().len(), 2);
        assert!(error.to_string().contains("only root"), "{error}");
        assert!(error.to_string().contains("no imgstream device"), "{error}");
    }
}
