//! Chromium: how it is started and kept, and how it is led to the sign-in page.
//!
//! It starts on a waiting page of the agent, and each start is observed: the browser is ready when it has
//! asked for that page and its window is on the screen. Starting `chromium URL` a second time took 14 s
//! under emulation, so the waiting page leads on by itself once the URL is known.

mod command;
mod console;
mod service;
mod titles;
mod trust;
mod waiting_page;
mod window;

pub use service::Browser;
pub use trust::{Trust, trust_extra_authorities};
pub use waiting_page::{FirstPage, WaitingPage};
