//! `coretexd demo`: real jobs on real files, with every verdict, in one command.

mod digest;
mod files;
mod keywords;
mod secrets;
mod text;
