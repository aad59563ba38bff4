//! The stories: people, places, one misfortune, one claim. One binary, a module per subject.

mod bad_networks;
mod exec_and_logs;
mod first_contact;
mod losses;
mod requests;
mod rollouts;
mod slow_readers;
mod the_world;
mod transparency;
mod trust;
mod version_1;
mod watches;
