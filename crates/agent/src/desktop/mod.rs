//! The desktop: X, window manager, browser and what a recipe declares, and what goes in and out of them.

pub mod browser;
pub mod display;
pub mod input;
mod mailbox;
pub mod opener;
pub mod probe;
pub mod vnc;
