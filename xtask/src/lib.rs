//! What the project's own commands share: the machine, what is built on it, running programs.

pub mod build;
pub mod interrupt;
pub mod machine;
pub mod shell;
