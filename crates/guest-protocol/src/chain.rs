//! An error and its causes as text.

/// A sentence with the whole source chain, for reasons that leave the process. A source that the error
/// before it quotes is not repeated.
#[must_use]
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let said = cause.to_string();
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        source = cause.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    enum Failure {
        #[error("no space")]
        Space,
        #[error("the disk said: {0}")]
        Quotes(#[source] Box<Failure>),
        #[error("storing failed")]
        Storing(#[source] Box<Failure>),
    }

    #[test]
    fn a_source_that_is_quoted_already_is_not_repeated() {
        let quotes = || Box::new(Failure::Quotes(Box::new(Failure::Space)));
        assert_eq!(chain(&*quotes()), "the disk said: no space");
        assert_eq!(chain(&Failure::Storing(quotes())), "storing failed: the disk said: no space");
        let plain = Failure::Storing(Box::new(Failure::Space));
        assert_eq!(chain(&plain), "storing failed: no space");
    }
}
