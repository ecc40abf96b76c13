//! One file a command.

pub mod doctor;
pub mod down;
pub mod dry_run;
pub mod exec;
pub mod faults;
pub mod init;
pub mod links;
pub mod load;
pub mod logs;
pub mod restart;
pub mod run;
mod start;
pub mod status;
pub mod up;
