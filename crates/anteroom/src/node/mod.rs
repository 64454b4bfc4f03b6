//! The node: what one machine does for sessions. It owns runner processes, the media port, the users
//! of sessions and their log folders; it decides nothing and stores nothing.

pub mod media_demux;
pub mod process;
pub mod users;
