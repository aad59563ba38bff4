//! The stories: people, places, one misfortune, one claim. One binary, a module per subject.

mod api_restarts;
mod argocd;
mod bad_networks;
mod certificates;
mod cuts;
mod exec_and_logs;
mod first_contact;
mod identities;
mod isolation;
mod losses;
mod middleboxes;
mod names;
mod recovery;
mod requests;
mod revocation;
mod rollouts;
mod rotation;
mod slow_readers;
mod the_wire;
mod the_world;
mod transparency;
mod trust;
mod upstream;
mod version_1;
mod walked;
mod watches;
