//! The desktop: X, window manager, browser and what a recipe declares, each as a specification for the
//! supervisor; its picture on the way to the host, and the end user's input on the way back.

pub mod browser;
pub mod declared;
pub mod display;
pub mod input;
mod mailbox;
pub mod opener;
mod pending;
mod probe;
pub mod vnc;
pub mod window_manager;
pub mod x;

pub use pending::PendingDesktop;
